//! The task that keeps the kernel's table as the picture says, and reads back what it counted.
//!
//! What takes away and what grants go in one transaction, so there is no moment in which either half is in force. The
//! table is left standing when the agent ends: its leases end by themselves, and what is guarded stays so.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_identity::{BootTime, Clock};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::counts::{self, BadListing, Ledger, News, Reading};
use super::plan::{Plan, Spot};
use super::report::{DeviceReport, GuardReport, RuleReport, Shared};
use super::table::{self, Installed, MAX_PASSED, MAX_REFUSED};
use crate::enforce::decide::{Decider, Picture, Sighting};
use crate::enforce::leases::{NftFailed, list_set, run_nft};
use crate::enforce::posture::{Guard, Posture, Sum};
use crate::enforce::{DeviceName, NetDevice, Nets};

/// How long to wait before a transaction that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest wait before the plan is made anew though nothing told of a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where the kernel tells of network devices.
const NET_CLASS: &str = "/sys/class/net";

/// What the keeper is given.
pub(in crate::enforce) struct Setup {
    pub(in crate::enforce) decider: Arc<Decider>,
    pub(in crate::enforce) nets: Nets,
    pub(in crate::enforce) tunnel: DeviceName,
    pub(in crate::enforce) clock: Arc<dyn Clock>,
    pub(in crate::enforce) posture: Arc<Posture>,
    pub(in crate::enforce) shared: Arc<Shared>,
    pub(in crate::enforce) report_every: Duration,
}

/// Keeps one table.
pub(in crate::enforce) struct Keeper {
    setup: Setup,
    table: String,
    plan: Plan,
    /// What the kernel holds; none: not known, so that the table is made anew.
    installed: Option<Installed>,
    ledger: Ledger,
}

/// The counters could not be read. They are read again at the next interval.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error(transparent)]
    Nft(#[from] NftFailed),
    #[error(transparent)]
    Form(#[from] BadListing),
}

impl Keeper {
    pub(in crate::enforce) fn new(setup: Setup) -> Self {
        Self {
            table: table::name(&setup.tunnel),
            setup,
            plan: Plan::default(),
            installed: None,
            ledger: Ledger::default(),
        }
    }

    /// Runs until the token is cancelled, then reads the counters once more.
    pub(in crate::enforce) async fn run(mut self, token: CancellationToken) {
        let mut changes = self.setup.decider.changes();
        let mut report = tokio::time::interval(self.setup.report_every);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            changes.mark_unchanged();
            let wait = self.renew().await;
            tokio::select! {
                () = token.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(wait) => {}
                _ = report.tick() => self.count().await,
            }
        }
        self.count().await;
    }

    /// Puts the present plan into force. How long it may stand.
    async fn renew(&mut self) -> Duration {
        let begun = Instant::now();
        let picture = self.setup.decider.picture();
        let now = self.setup.clock.boottime();
        let plan = self.draw(&picture, now);
        if let Err(failed) = self.apply(plan, &picture, now, begun).await {
            tracing::error!(%failed, "the table of lan interfaces is not as policy says");
            metrics::counter!("edgeward_lan_failures_total").increment(1);
            self.setup.shared.fail(Some(failed.to_string()));
            self.installed = None;
            return RETRY_AFTER;
        }
        self.tell(&picture, now);
        let until = self.plan.changes_at.map(|at| at.since(now));
        // Not before the change: a millisecond early would find nothing new.
        until.map_or(LOOK_EVERY, |until| {
            (until + Duration::from_millis(1)).min(LOOK_EVERY)
        })
    }

    fn draw(&self, picture: &Picture, now: BootTime) -> Plan {
        let known = RefCell::new(HashMap::new());
        let device = |net: &str| {
            let mut known = known.borrow_mut();
            let found = known.entry(net.to_owned());
            found
                .or_insert_with(|| self.setup.nets.device(net).map(carrier))
                .clone()
        };
        Plan::new(picture, &device, now).unwrap_or_else(|| self.plan.closed())
    }

    async fn apply(
        &mut self,
        plan: Plan,
        picture: &Picture,
        now: BootTime,
        begun: Instant,
    ) -> Result<(), NftFailed> {
        let (text, installed) = match &self.installed {
            // A machine without LAN interfaces needs no table, and no nft.
            None if plan.guarded.is_empty() && self.plan.guarded.is_empty() => return Ok(()),
            None => table::make(&self.table, &plan, now),
            Some(installed) => {
                let before = (&self.plan, installed);
                match table::change(&self.table, before, &plan, now) {
                    Some(changed) => changed,
                    None => {
                        self.plan = plan;
                        return Ok(());
                    }
                }
            }
        };
        run_nft(&text).await?;
        let took = begun.elapsed();
        metrics::histogram!("edgeward_lan_apply_seconds").record(took.as_secs_f64());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(leases = installed.len(), micros, "table of lan interfaces");
        if self.installed.is_none() {
            self.ledger.begin_anew();
        } else if plan.leases != self.plan.leases {
            // What was counted till now belongs to the rules of the plan that is over.
            self.count_for(picture).await;
        }
        let (guarded, gone) = (&plan.guarded, &self.plan.guarded);
        self.ledger
            .unguard(|spot| gone.contains_key(spot) && !guarded.contains_key(spot));
        self.installed = Some(installed);
        self.setup.shared.fail(None);
        if plan.left_out > 0 && plan.left_out != self.plan.left_out {
            tracing::error!(count = plan.left_out, "leases of devices are not given");
        }
        for interface in &plan.unserved {
            if !self.plan.unserved.contains(interface) {
                tracing::error!(
                    interface,
                    "no network device is known for it: nobody is kept out"
                );
            }
        }
        self.plan = plan;
        Ok(())
    }

    async fn count(&mut self) {
        let picture = self.setup.decider.picture();
        self.count_for(&picture).await;
    }

    /// Reads what the kernel counted, and hands it on.
    async fn count_for(&mut self, picture: &Picture) {
        if self.installed.is_none() {
            return;
        }
        match self.read().await {
            Ok(reading) => {
                let full = (reading.refused.len(), reading.passed.len());
                let news = self.ledger.read(reading);
                self.hand_on(picture, news);
                self.make_room(full).await;
            }
            Err(error) => tracing::warn!(%error, "counters of lan interfaces not read"),
        }
    }

    async fn read(&self) -> Result<Reading, NotRead> {
        let list = |set| list_set(&self.table, set);
        // First the sum, so that it never holds more than what is read of its parts.
        let dropped = counts::by_spot(&list("dropped").await?)?;
        let mut refused = counts::by_source(&list("refused4").await?)?;
        refused.extend(counts::by_source(&list("refused6").await?)?);
        let mut passed = counts::by_source(&list("passed4").await?)?;
        passed.extend(counts::by_source(&list("passed6").await?)?);
        Ok(Reading {
            dropped,
            refused,
            passed,
        })
    }

    /// Sources that were counted long ago must not keep out new ones.
    async fn make_room(&mut self, (refused, passed): (usize, usize)) {
        for (count, most, sets) in [
            (refused, MAX_REFUSED, ["refused4", "refused6"]),
            (passed, MAX_PASSED, ["passed4", "passed6"]),
        ] {
            if count < most / 2 {
                continue;
            }
            match run_nft(&table::forget(&self.table, &sets)).await {
                Ok(()) if most == MAX_REFUSED => self.ledger.forget_refused(),
                Ok(()) => self.ledger.forget_passed(),
                Err(failed) => tracing::warn!(%failed, "counters of lan interfaces not emptied"),
            }
        }
    }

    fn hand_on(&self, picture: &Picture, news: News) {
        let Setup {
            posture, shared, ..
        } = &self.setup;
        let anchor = picture.parts().anchor;
        let now = self.setup.clock.boottime();
        let sum = |count| Sum::of(count, anchor.wall_at(now));
        for (seen, count) in news.refused {
            let Some(guarded) = self.plan.guarded.get(&seen.at) else {
                posture.add_others(Guard::Lan, false, sum(count.packets));
                continue;
            };
            shared.dropped(&guarded.name, count.packets);
            let row = super::rows::refused(picture, guarded, &seen, now);
            if let Some(rule) = &row.rule {
                let denied = count.packets;
                shared.count(
                    rule,
                    RuleReport {
                        denied,
                        ..RuleReport::default()
                    },
                );
            }
            if let Some(device) = device_of(picture, &guarded.net, &seen) {
                shared.saw(&device, now);
            }
            posture.add(row, sum(count.packets));
        }
        for (spot, packets) in news.others {
            if let Some(guarded) = self.plan.guarded.get(&spot) {
                shared.dropped(&guarded.name, packets);
            }
            posture.add_others(Guard::Lan, false, sum(packets));
        }
        for (seen, count) in news.passed {
            let term = self.plan.term_of(&seen);
            let guarded = self.plan.guarded.get(&seen.at);
            let (Some(term), Some(guarded)) = (term, guarded) else {
                posture.add_others(Guard::Lan, true, sum(count.packets));
                continue;
            };
            shared.saw(&term.device, now);
            let more = RuleReport {
                packets: count.packets,
                bytes: count.bytes,
                denied: 0,
            };
            shared.count(&term.rule, more);
            let row = super::rows::passed(picture, guarded, &seen, term);
            posture.add(row, sum(count.packets));
        }
    }

    /// What status shows.
    fn tell(&self, picture: &Picture, now: BootTime) {
        let Some(rules) = picture.parts().rules.as_deref() else {
            return;
        };
        let guards = self.plan.guarded.iter().map(|(spot, guarded)| {
            let devices: BTreeSet<_> = self.plan.terms_at(spot).map(|term| &term.device).collect();
            GuardReport {
                interface: guarded.name.to_string(),
                net: guarded.net.to_string(),
                device: spot.device.to_string(),
                protocol: spot.proto.as_str().to_owned(),
                port: spot.port,
                allowed: devices.len(),
                dropped: 0,
            }
        });
        let guards = guards.collect();
        let mut allowed: HashMap<_, (Vec<String>, BootTime)> = HashMap::new();
        for (lease, term) in &self.plan.leases {
            let Some(guarded) = self.plan.guarded.get(&lease.at) else {
                continue;
            };
            let (names, until) = allowed
                .entry(&term.device)
                .or_insert((Vec::new(), term.until));
            names.push(guarded.name.to_string());
            *until = term.until.min(*until);
        }
        let devices = rules.engine().slice().devices.iter().map(|device| {
            let lease = allowed.get(&device.id);
            DeviceReport {
                id: device.id.clone(),
                net: device.net.clone(),
                known_by: known_by(device),
                allowed: lease.map(|(names, _)| names.clone()).unwrap_or_default(),
                seen_secs: None,
                lease_left_secs: lease.map(|(_, until)| until.since(now).as_secs()),
            }
        });
        let devices = devices.collect();
        self.setup
            .shared
            .set(guards, devices, self.plan.unserved.clone());
    }
}

/// The device that the network layer sees: packets of a port arrive at the bridge or the bond that it is a part of.
pub(in crate::enforce) fn carrier(device: NetDevice) -> NetDevice {
    let of = std::path::Path::new(NET_CLASS).join(device.as_str());
    let part = ["brport", "bonding_slave"]
        .iter()
        .any(|part| of.join(part).exists());
    let master = std::fs::read_link(of.join("master")).ok().filter(|_| part);
    let name = master
        .as_deref()
        .and_then(|path| path.file_name()?.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(device)
}

fn device_of(
    picture: &Picture,
    net: &str,
    seen: &counts::Seen,
) -> Option<edgeward_identity::SpiffeId> {
    let sighting = Sighting {
        net,
        ip: seen.ip,
        mac: Some(seen.mac),
        certificate: None,
    };
    picture.device(&sighting).map(|device| device.id.clone())
}

fn known_by(device: &edgeward_policy::SliceDevice) -> String {
    let how = &device.recognised;
    let mac = how.mac.map(|mac| format!("mac {mac}"));
    let ip = how.ip.map(|ip| format!("ip {ip}"));
    let certificate = how.certificate.as_ref().map(|_| "certificate".to_owned());
    let all: Vec<String> = [mac, ip, certificate].into_iter().flatten().collect();
    all.join(", ")
}

impl Plan {
    /// The lease by which somebody came in.
    fn term_of(&self, seen: &counts::Seen) -> Option<&super::plan::Term> {
        use super::plan::{Lease, Shown};
        let shown = [
            Shown::Both(seen.mac, seen.ip),
            Shown::Mac(seen.mac),
            Shown::Ip(seen.ip),
        ];
        shown.into_iter().find_map(|shown| {
            self.leases.get(&Lease {
                at: seen.at.clone(),
                shown,
            })
        })
    }

    fn terms_at<'a>(&'a self, spot: &'a Spot) -> impl Iterator<Item = &'a super::plan::Term> {
        let leases = self.leases.iter();
        leases
            .filter(move |(lease, _)| lease.at == *spot)
            .map(|(_, term)| term)
    }
}
