//! The loop of enforcement: takes one thing that changed, decides anew, tells bind, filter, kernel and record.
//!
//! Whatever takes away is done in the loop's own step, data path first; the bind driver hears of it afterwards, to
//! close connections. Whatever grants goes through the bind driver's machines and [`super::control`].

mod changes;
mod demand;
mod handed;
mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{BootTime, KeySet, Secret, SpiffeId};
use edgeward_tunnel::bind::driver::{
    BindDriver, BindHandle, Event as BindEvent, OwnEvidence, Setup, Stopped,
};
use edgeward_tunnel::bind::lease::CloudLink as BindLink;
use edgeward_tunnel::node::Event as NodeEvent;
use edgeward_tunnel::shell::quic_socket::QuicSocket;
use edgeward_tunnel::wireguard::StaticKeys;
use ipnet::IpNet;
use ring::rand::SecureRandom;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::demand::Demand;
use super::hearing::Hearing;
use super::peers::Wanted;
use super::records::Records;
use super::scene::Scene;
use super::{Progress, Recorder};
use crate::view::NodeView;

/// How often what follows from time alone is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked whom policy lets this node meet, without any news: windows open and close.
const WISH_EVERY: Duration = Duration::from_secs(30);
/// How long a WireGuard key of ours is used: less than the 24 hours that are allowed.
const WIREGUARD_KEY_LIFE: Duration = Duration::from_secs(23 * 3600);

/// Everything the loop needs, open and ready.
pub(super) struct Begin {
    pub(super) view: NodeView,
    pub(super) recorder: Arc<dyn Recorder>,
    pub(super) control: Arc<Control>,
    pub(super) socket: Arc<QuicSocket>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) report_every: Duration,
    pub(super) demand: Demand,
}

/// Why enforcement ended by itself. Our fault, or the system's.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("bind: {0}")]
    Bind(#[from] edgeward_tunnel::bind::driver::StartFailed),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("threads of the tunnel have ended")]
    Tunnel,
    #[error("the session's side has ended")]
    View,
    #[error("random source failed")]
    Random,
}

struct Driver {
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    records: Records,
    control: Arc<Control>,
    scene: Arc<Scene>,
    bind: BindHandle,
    keys: Arc<ArcSwap<KeySet>>,
    hearing: Hearing,
    /// Whom policy permits now.
    permitted: BTreeMap<SpiffeId, Wanted>,
    /// Who of them is to be bound.
    demand: Demand,
    /// Whose packets may wake them, by which prefixes.
    sleepers: BTreeMap<SpiffeId, Vec<IpNet>>,
    looked_at: BootTime,
    wished_at: BootTime,
    /// Number of the newest cut that took effect.
    cut_number: u64,
    wireguard_since: BootTime,
    refusals: reports::Refusals,
    progress: watch::Sender<Progress>,
}

/// Runs until the token is cancelled, then says goodbye to all peers.
pub(super) async fn run(begin: Begin, token: CancellationToken) -> Result<(), Broken> {
    let report_every = begin.report_every;
    let (bind, mut events, mut driver) = Driver::begin(begin)?;
    driver.activate_slice().await?;
    driver.take_over().await?;
    driver.wish().await?;
    let result = driver.work(&mut events, report_every, &token).await;
    bind.shutdown().await;
    while let Ok(event) = events.try_recv() {
        driver.record_bind(event);
    }
    driver.report().await;
    result
}

impl Driver {
    fn begin(begin: Begin) -> Result<(BindDriver, mpsc::Receiver<BindEvent>, Self), Broken> {
        let Begin {
            view,
            recorder,
            control,
            socket,
            progress,
            demand,
            ..
        } = begin;
        let now = view.clock.boottime();
        let link = *view.link.borrow();
        let hearing = control.scene.picture().parts().hearing.after(&link, now);
        let keys = Arc::new(ArcSwap::new(Arc::clone(&view.keys.borrow())));
        let (wireguard, wireguard_since) = own_keys(&control, now)?;
        control
            .tunnel
            .node()
            .replace_keys(&wireguard)
            .map_err(|_| Broken::Random)?;
        let slice_number = view.slice.borrow().as_ref().map_or(0, |held| held.number);
        let svid = view.svid.borrow().as_ref().clone();
        let (bind, events) = BindDriver::start(Setup {
            socket,
            clock: Arc::clone(&view.clock),
            policy: Arc::clone(control.scene.decider()) as _,
            control: Arc::clone(&control) as _,
            trust: Arc::clone(&view.trust),
            keys: Arc::clone(&keys),
            svid,
            evidence: own_evidence(&view),
            wireguard,
            slice_number,
            link: bind_link(&hearing),
            standing: handed::standing(&control),
        })?;
        let scene = Arc::clone(&control.scene);
        let cut_number = view.cuts.borrow().number();
        let driver = Self {
            records: control.records.clone(),
            recorder,
            scene,
            bind: bind.handle(),
            control,
            keys,
            hearing,
            permitted: BTreeMap::new(),
            demand,
            sleepers: BTreeMap::new(),
            looked_at: now,
            wished_at: now,
            cut_number,
            wireguard_since,
            refusals: reports::Refusals::default(),
            progress,
            view,
        };
        driver.take_view_into_picture();
        Ok((bind, events, driver))
    }

    async fn work(
        &mut self,
        events: &mut mpsc::Receiver<BindEvent>,
        report_every: Duration,
        token: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = tokio::time::interval(report_every);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let node_spoke = Arc::clone(&self.control.node_spoke);
        let desk = Arc::clone(&self.control.desk);
        let decider = Arc::clone(self.scene.decider());
        loop {
            // In this order: what takes away comes first.
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                changed = self.view.cuts.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.cuts_changed().await?;
                }
                changed = self.view.trust_changed.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.trust_changed().await?;
                }
                changed = self.view.standing.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.standing_changed().await?;
                }
                changed = self.view.slice.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.activate_slice().await?;
                    self.wish().await?;
                }
                changed = self.view.opened.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.glass_changed().await?;
                }
                changed = self.view.keys.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.keys_changed().await?;
                }
                changed = self.view.result.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.result_changed().await?;
                }
                changed = self.view.boot_statement.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.bind.set_evidence(own_evidence(&self.view)).await?;
                }
                changed = self.view.svid.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.svid_changed().await?;
                }
                changed = self.view.peers.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.wish().await?;
                }
                changed = self.view.overlay.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.overlay_changed();
                }
                changed = self.view.link.changed() => {
                    changed.map_err(|_| Broken::View)?;
                    self.link_changed().await?;
                }
                () = decider.saw_otherwise() => self.renew(),
                () = node_spoke.notified() => {}
                () = desk.asked() => self.ways_found().await?,
                event = events.recv() => self.hear_bind(event.ok_or(Broken::Stopped(Stopped))?).await?,
                _ = tick.tick() => self.tick().await?,
                _ = report.tick() => {
                    self.report().await;
                    self.count();
                }
            }
            self.hear_wireguard().await?;
            self.tell_progress();
        }
    }

    /// What WireGuard has to tell.
    async fn hear_wireguard(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.control.tunnel.node().poll_event() {
            match event {
                NodeEvent::Opened { peer, epoch } => {
                    let id = self.control.books.lock().armed_by(peer).cloned();
                    if let Some(id) = id {
                        self.bind.wireguard_confirmed(id, epoch).await?;
                    }
                }
                NodeEvent::Roamed { peer, to } => {
                    tracing::debug!(peer = peer.0, %to, "peer roamed");
                    self.control.desk.roamed(peer, to);
                }
                NodeEvent::Lost { peer } => tracing::info!(peer = peer.0, "peer does not answer"),
                NodeEvent::LeaseEnded { peer } => tracing::info!(peer = peer.0, "lease ended"),
                NodeEvent::Knocked { peer } => self.knocked(peer).await?,
            }
        }
        Ok(())
    }

    /// What follows from time alone.
    async fn tick(&mut self) -> Result<(), Broken> {
        if !self.control.tunnel.is_running() {
            return Err(Broken::Tunnel);
        }
        self.link_changed().await?;
        // What says the same as before may be a second late.
        self.renew();
        let now = self.view.clock.boottime();
        let wall = self.view.clock.now();
        // Something may have ended or begun since the picture was made.
        let changes_at = self.scene.picture().changes_at();
        if changes_at.is_some_and(|at| at <= wall) {
            self.take_view_into_picture();
            self.bind.recheck().await?;
        }
        self.recheck_handed().await?;
        self.control.tunnel.node().expire_held(now);
        if now.since(self.looked_at) >= self.demand.look_every() {
            self.looked_at = now;
            self.put_to_sleep().await?;
        }
        if now.since(self.wished_at) >= WISH_EVERY {
            self.wish().await?;
        }
        if now.since(self.wireguard_since) >= WIREGUARD_KEY_LIFE {
            let keys = new_wireguard_keys()?;
            if let Err(refused) = self.control.tunnel.node().replace_keys(&keys) {
                tracing::error!(%refused, "wireguard key not replaced");
                return Ok(());
            }
            self.wireguard_since = now;
            self.control.books.lock().own_keys = Some((Arc::clone(&keys), now));
            self.bind.set_wireguard(keys).await?;
        }
        Ok(())
    }

    /// Newer evidence of bound peers, as it came over their binds.
    fn renew(&self) {
        self.scene.renew(self.scene.decider().take_seen());
    }

    fn tell_progress(&self) {
        let binds_open = self.control.books.lock().open_count();
        let progress = Progress {
            binds_open: u32::try_from(binds_open).unwrap_or(u32::MAX),
            cut_number: self.cut_number,
        };
        self.progress.send_if_modified(|present| {
            let changed = *present != progress;
            *present = progress;
            changed
        });
    }
}

fn own_evidence(view: &NodeView) -> OwnEvidence {
    let bytes = |bytes: &Option<Arc<[u8]>>| bytes.as_ref().map(|bytes| bytes.to_vec());
    OwnEvidence {
        boot_key: view.boot.signer(),
        boot_id: boot_id(view),
        result: bytes(&view.result.borrow()).unwrap_or_default(),
        boot_statement: bytes(&view.boot_statement.borrow()),
    }
}

fn boot_id(view: &NodeView) -> [u8; 16] {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(view.boot.id().as_bytes()) {
        *to = *from;
    }
    id
}

/// The link as leases ask for it. While peers may still pass again after an outage, policy gives each of them the
/// term that is its own (see `Picture::grant`).
fn bind_link(hearing: &Hearing) -> BindLink {
    match hearing.outage() {
        Some(last_heartbeat) => BindLink::CutOff { last_heartbeat },
        None => BindLink::Online,
    }
}

/// Those that the program before this one used, or new ones.
fn own_keys(control: &Control, now: BootTime) -> Result<(Arc<StaticKeys>, BootTime), Broken> {
    let mut books = control.books.lock();
    if let Some(own) = &books.own_keys {
        return Ok(own.clone());
    }
    let own = (new_wireguard_keys()?, now);
    books.own_keys = Some(own.clone());
    Ok(own)
}

/// Made here, kept in memory only, wiped when the last bind under them is gone.
fn new_wireguard_keys() -> Result<Arc<StaticKeys>, Broken> {
    let mut private = zeroize::Zeroizing::new([0; 32]);
    ring::rand::SystemRandom::new()
        .fill(private.as_mut_slice())
        .map_err(|_| Broken::Random)?;
    Ok(Arc::new(StaticKeys::new(Secret::new(*private))))
}
