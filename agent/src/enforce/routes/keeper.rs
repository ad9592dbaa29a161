//! The task that keeps kernel and tunnel as the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::BootTime;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kernel::{self, Failed};
use super::plan::{Armed, Claims, Led, Plan};
use super::table::{self, OURS};
use crate::enforce::control::{Control, Kernel};
use crate::enforce::lan::carrier;
use crate::enforce::leases::{NftFailed, list_set, run_nft};
use crate::enforce::{DeviceName, NetDevice, Nets};

/// How long to wait before what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Longest wait before the plan is made anew though nothing told of a change: leases grow without a word.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the keeper is given.
pub(in crate::enforce) struct Setup {
    pub(in crate::enforce) control: Arc<Control>,
    pub(in crate::enforce) nets: Nets,
    pub(in crate::enforce) tunnel: DeviceName,
    /// Networks behind peers: told to who steers this machine's packets.
    pub(in crate::enforce) into_tunnel: watch::Sender<BTreeSet<IpNet>>,
}

/// Keeps what is led.
pub(in crate::enforce) struct Keeper {
    setup: Setup,
    /// What stands in the table; none: no table of this run.
    led: Option<(BTreeSet<Led>, Option<NetDevice>, Claims)>,
    /// A table of an earlier run stands.
    is_stale: bool,
    leased: BTreeMap<IpNet, BootTime>,
    asleep: BTreeSet<IpNet>,
    /// Devices on which this agent turned forwarding on.
    ours: BTreeSet<NetDevice>,
    unled: Vec<String>,
}

/// Something is not as the plan says.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error(transparent)]
    Nft(#[from] NftFailed),
    #[error(transparent)]
    Kernel(#[from] Failed),
}

impl Keeper {
    pub(in crate::enforce) fn new(setup: Setup) -> Self {
        Self {
            setup,
            led: None,
            is_stale: false,
            leased: BTreeMap::new(),
            asleep: BTreeSet::new(),
            ours: BTreeSet::new(),
            unled: Vec::new(),
        }
    }

    /// Runs until the token is cancelled, then leads nowhere any more.
    pub(in crate::enforce) async fn run(mut self, token: CancellationToken) {
        self.take_over().await;
        let mut changes = self.setup.control.scene.decider().changes();
        let mut wakeful = self.setup.control.books.lock().wakeful.subscribe();
        loop {
            changes.mark_unchanged();
            wakeful.mark_unchanged();
            let wait = match self.renew().await {
                Ok(()) => LOOK_EVERY,
                Err(failed) => {
                    tracing::error!(%failed, "networks behind nodes are not led as policy says");
                    metrics::counter!("edgeward_route_failures_total").increment(1);
                    self.setup.control.tunnel.set_translations(None);
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = token.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                changed = wakeful.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.end().await;
    }

    /// Forwarding that an earlier run turned on and could not turn off is still ours.
    async fn take_over(&mut self) {
        if let Ok(listing) = list_set(&table::name(&self.setup.tunnel), OURS).await {
            self.ours = kernel::devices_in(&listing);
            self.is_stale = true;
        }
    }

    async fn renew(&mut self) -> Result<(), NotKept> {
        let plan = self.draw();
        for name in plan.unled.iter().filter(|name| !self.unled.contains(name)) {
            tracing::error!(
                route = name,
                "not led: no network device is known for it, or another network here has the same addresses"
            );
        }
        self.unled.clone_from(&plan.unled);
        self.lead(&plan.led, plan.exit.as_ref(), &plan.claims)
            .await?;
        self.lease(plan.leased, plan.asleep).await?;
        self.setup.into_tunnel.send_if_modified(|present| {
            let changed = *present != plan.into_tunnel;
            *present = plan.into_tunnel;
            changed
        });
        self.setup
            .control
            .tunnel
            .set_translations(plan.translations);
        Ok(())
    }

    fn draw(&self) -> Plan {
        let control = &self.setup.control;
        let books = control.books.lock();
        let asleep = books.asleep();
        let armed: Vec<Armed> = books
            .armed
            .values()
            .filter(|armed| armed.open_since.is_some())
            .map(|armed| Armed {
                allowed_ips: armed.allowed_ips.clone(),
                until: armed.until,
            })
            .collect();
        drop(books);
        let device = |net: &str| self.setup.nets.device(net).map(carrier);
        let uplink = || kernel::uplink(&self.setup.tunnel);
        Plan::new(&control.scene.picture(), &armed, &asleep, &device, &uplink)
    }

    /// The table stands before anything is forwarded, and until nothing is.
    async fn lead(
        &mut self,
        led: &BTreeSet<Led>,
        exit: Option<&NetDevice>,
        claims: &Claims,
    ) -> Result<(), NotKept> {
        let whole = (led.clone(), exit.cloned(), claims.clone());
        let nothing = led.is_empty() && exit.is_none();
        let untouched = self.led.is_none() && !self.is_stale;
        if self.led.as_ref() == Some(&whole) || (untouched && nothing) {
            return Ok(());
        }
        if led.iter().any(|led| !super::plan::is_v4(&led.prefix)) {
            kernel::forwards_ipv6()?;
        }
        let tunnel = &self.setup.tunnel;
        // Until it is known which were off, all of them count as ours.
        let wanted: BTreeSet<NetDevice> = led
            .iter()
            .filter(|led| super::plan::is_v4(&led.prefix))
            .map(|led| led.device.clone())
            .chain(exit.cloned())
            .collect();
        let first: BTreeSet<NetDevice> = self.ours.union(&wanted).cloned().collect();
        self.led = None;
        run_nft(&table::make(tunnel, led, exit, claims, &first)).await?;
        for device in self.ours.difference(&wanted) {
            kernel::forward_no_more(device.as_str());
        }
        self.ours.retain(|device| wanted.contains(device));
        if !wanted.is_empty() {
            kernel::forward(tunnel.as_str())?;
        }
        for device in &wanted {
            if kernel::forward(device.as_str())? {
                self.ours.insert(device.clone());
            }
        }
        if self.ours != first {
            run_nft(&table::make(tunnel, led, exit, claims, &self.ours)).await?;
        }
        tracing::info!(networks = led.len(), "networks behind this node are led");
        self.is_stale = false;
        self.led = Some(whole);
        Ok(())
    }

    async fn lease(
        &mut self,
        leased: BTreeMap<IpNet, BootTime>,
        asleep: BTreeSet<IpNet>,
    ) -> Result<(), NotKept> {
        let control = &self.setup.control;
        if matches!(control.kernel, Kernel::Off) || (leased == self.leased && asleep == self.asleep)
        {
            return Ok(());
        }
        let now = control.clock.boottime();
        run_nft(&table::lease(&self.setup.tunnel, &leased, &asleep, now)).await?;
        let networks = leased.keys().copied().collect();
        control.books.lock().leased.send_replace(networks);
        (self.leased, self.asleep) = (leased, asleep);
        Ok(())
    }

    async fn end(&mut self) {
        self.setup.control.tunnel.set_translations(None);
        for device in &self.ours {
            kernel::forward_no_more(device.as_str());
        }
        if self.led.is_some()
            && let Err(failed) = run_nft(&table::remove(&self.setup.tunnel)).await
        {
            tracing::warn!(%failed, "the table of networks behind this node is not removed");
        }
    }
}
