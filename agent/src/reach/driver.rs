//! The loop that seeks ways: takes one thing that happened, hands it to [`Seeker`], performs what that says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::{Event, EventKind};
use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::node::Endpoint;
use edgeward_tunnel::reach::relay::Limits;
use edgeward_tunnel::reach::{Config, MayRelay, Reach};
use edgeward_tunnel::shell::demux::{Class, Datagram, DatagramSource};
use edgeward_tunnel::shell::reach_port::ReachPort;
use edgeward_tunnel::shell::{SystemRandom, Tunnel};
use edgeward_wire::v1;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::carry::{self, Brought, CarryEnded, MAX_WAITING, Outgoing};
use super::desk::{Desk, Shown};
use super::local::{Local, Watch};
use super::seeker::{Act, Seeker};
use super::switches::Switches;
use crate::enforce::Recorder;
use crate::view::{CloudSeen, NodeView};

/// How often what WireGuard counted is looked at, and what is shown is renewed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the machine's addresses are looked at without word from the kernel.
const LOCAL_EVERY: Duration = Duration::from_secs(60);
/// Shortest and longest wait before the cloud's relay is tried again.
const CARRY_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];
/// Most frames of the cloud's relay that wait to be looked at.
const MAX_BROUGHT: usize = 256;

/// What it needs.
pub struct Setup {
    pub view: NodeView,
    pub recorder: Arc<dyn Recorder>,
    pub tunnel: Arc<Tunnel>,
    pub desk: Arc<Desk>,
    /// Policy's word on relays.
    pub may: Arc<dyn MayRelay>,
    /// What this node carries for others at most.
    pub relay: Limits,
    /// The tunnel's own device, whose addresses lead nowhere.
    pub device: String,
    /// The line costs by the byte.
    pub metered: bool,
}

struct Driver {
    view: NodeView,
    tunnel: Arc<Tunnel>,
    port: ReachPort,
    desk: Arc<Desk>,
    device: String,
    seeker: Seeker,
    local: Local,
    seen: CloudSeen,
    outgoing: mpsc::Sender<Outgoing>,
    /// Whether the cloud's relay is needed, and by which attempt it is there.
    carrying: Option<CancellationToken>,
    switches: Switches,
    recorder: Arc<dyn Recorder>,
    carry: Carry,
}

/// What an attempt to be carried needs.
#[derive(Clone)]
struct Carry {
    view: NodeView,
    outgoing: Arc<tokio::sync::Mutex<mpsc::Receiver<Outgoing>>>,
    brought: mpsc::Sender<Brought>,
}

/// Runs until the token is cancelled.
pub async fn run(setup: Setup, token: CancellationToken) {
    let port = setup.tunnel.reach();
    let (Some(source), Some(called)) = (port.source(), setup.view.reach.take_called()) else {
        tracing::error!("somebody else seeks ways already");
        return;
    };
    let (outgoing, carried) = mpsc::channel(MAX_WAITING);
    let (brought, bringing) = mpsc::channel(MAX_BROUGHT);
    let udp_port = setup
        .tunnel
        .local_addr()
        .map_or(0, |address| address.port());
    port.relays().lock().set_limits(setup.relay);
    let reach = Reach::new(
        Config {
            trust_domain: setup.view.node.trust_domain().clone(),
            metered: setup.metered,
        },
        Box::new(SystemRandom::default()),
        port.relays(),
        setup.may,
    );
    let random = Box::new(SystemRandom::default());
    let driver = Driver {
        seeker: Seeker::new(reach, random, udp_port, setup.metered),
        carry: Carry {
            view: setup.view.clone(),
            outgoing: Arc::new(tokio::sync::Mutex::new(carried)),
            brought,
        },
        view: setup.view,
        tunnel: setup.tunnel,
        port,
        desk: setup.desk,
        device: setup.device,
        local: Local::default(),
        seen: CloudSeen::default(),
        outgoing,
        carrying: None,
        switches: Switches::default(),
        recorder: setup.recorder,
    };
    driver.work(source, called, bringing, token).await;
}

impl Driver {
    async fn work(
        mut self,
        source: DatagramSource,
        mut called: mpsc::Receiver<v1::Called>,
        mut bringing: mpsc::Receiver<Brought>,
        token: CancellationToken,
    ) {
        let desk = Arc::clone(&self.desk);
        let mut watch = match Watch::open() {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "changes of the network are noticed late");
                None
            }
        };
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(LOCAL_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.policy();
        self.session();
        loop {
            self.perform();
            let wait = self.wait();
            tokio::select! {
                () = token.cancelled() => break,
                datagram = source.recv() => match datagram {
                    Some(datagram) => self.datagram(&datagram),
                    None => break,
                },
                () = desk.news() => self.told(),
                Some(called) = called.recv() => self.seeker.called(&called, self.view.clock.boottime()),
                Some(brought) = bringing.recv() => self.brought(&brought),
                Ok(()) = self.view.slice.changed() => self.policy(),
                Ok(()) = self.view.reach.seen.changed() => self.session(),
                () = changed(watch.as_mut()) => self.look_local(),
                _ = again.tick() => self.look_local(),
                _ = look.tick() => self.look(),
                () = tokio::time::sleep(wait) => self.seeker.tick(self.view.clock.boottime()),
            }
        }
        if let Some(carrying) = self.carrying.take() {
            carrying.cancel();
        }
    }

    fn wait(&self) -> Duration {
        let now = self.view.clock.boottime();
        self.seeker
            .deadline()
            .map_or(LOCAL_EVERY, |deadline| deadline.since(now).min(LOCAL_EVERY))
    }

    fn datagram(&mut self, datagram: &Datagram) {
        let now = self.view.clock.boottime();
        let from = Endpoint {
            remote: datagram.from,
            local_ip: datagram.local_ip,
        };
        match Class::of(&datagram.bytes) {
            Class::Stun => self.seeker.stun(from.remote, &datagram.bytes, now),
            Class::Reach => self.seeker.datagram(from, &datagram.bytes, now),
            Class::WireGuard | Class::Relayed | Class::Quic => {}
        }
    }

    /// What enforcement told.
    fn told(&mut self) {
        let now = self.view.clock.boottime();
        let told = self.desk.take_told();
        for (number, peer) in told.peers {
            match peer {
                Some(peer) => self.seeker.bound(number, peer, now),
                None => {
                    if let Some(peer) = self.seeker.peer(number) {
                        self.switches.forget(peer);
                    }
                    self.seeker.unbound(number, now);
                }
            }
        }
        for (number, to) in told.roamed {
            self.seeker.roamed(number, to, now);
        }
        if let Some(wanted) = told.wanted {
            self.seeker.wanted(wanted, now);
        }
    }

    fn policy(&mut self) {
        let (permitted, relays) = {
            let slice = self.view.slice.borrow_and_update();
            let peers = slice.iter().flat_map(|held| held.slice.peers.iter());
            let permitted: BTreeSet<SpiffeId> = peers.clone().map(|peer| peer.id.clone()).collect();
            let relays = peers.filter(|peer| peer.relay);
            let relays: Vec<SpiffeId> = relays.map(|peer| peer.id.clone()).collect();
            (permitted, relays)
        };
        let now = self.view.clock.boottime();
        self.seeker.policy(permitted, relays, now);
    }

    fn session(&mut self) {
        let seen = self.view.reach.seen.borrow_and_update().clone();
        if seen == self.seen && !seen.address.is_empty() {
            // The same network, a new session: only what the cloud sees is asked again.
            tracing::trace!("session began anew");
        }
        self.seen = seen.clone();
        self.look_local();
        self.seeker.session(seen, self.view.clock.boottime());
    }

    fn look_local(&mut self) {
        match Local::look(&self.device, self.seen.cloud) {
            Ok(local) if local != self.local => {
                tracing::info!(addresses = ?local.addresses, "this machine's addresses");
                self.local = local.clone();
                self.seeker.local(local, self.view.clock.boottime());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "this machine's addresses cannot be listed"),
        }
    }

    fn look(&mut self) {
        let now = self.view.clock.boottime();
        for peer in self.tunnel.node().status() {
            self.seeker
                .traffic(peer.id, peer.sent_bytes, peer.received_bytes, now);
        }
        self.port.report();
        self.record(now);
        self.show();
    }

    fn record(&mut self, now: BootTime) {
        let Some(report) = self.switches.take(now) else {
            return;
        };
        let (wall, node) = (self.view.clock.now(), &self.view.node);
        let event = || Event::new(wall, node.clone(), EventKind::PathChanged);
        for switched in report.named {
            self.recorder.record_after(
                event()
                    .subject(switched.peer)
                    .detail("from", switched.from)
                    .detail("to", switched.to)
                    .detail("times", switched.times),
            );
        }
        if report.others > 0 {
            let event = event().subject(node.clone());
            self.recorder
                .record_after(event.detail("peers", report.others));
        }
    }

    fn show(&self) {
        let known = self.seeker.known();
        let paths = self.seeker.qualities();
        super::shown::count(&paths);
        self.desk.show(Shown {
            paths,
            endpoints: known.candidates().iter().map(ToString::to_string).collect(),
            translated: known.is_translated(),
            switched: self.switches.recent().cloned().collect(),
        });
    }

    fn brought(&mut self, brought: &Brought) {
        let now = self.view.clock.boottime();
        let Some(address) = self.seeker.brought(brought, now) else {
            return;
        };
        if let Brought::Datagrams { datagrams, .. } = brought {
            // The shell must know the channel before something comes from it.
            self.perform();
            for datagram in datagrams {
                self.tunnel.inject(address, datagram);
            }
        }
    }

    fn perform(&mut self) {
        for act in self.seeker.take_acts() {
            match act {
                Act::Perform(output) => {
                    let _rest = self.port.perform(output);
                }
                Act::Send { to, bytes } => {
                    let to = Endpoint {
                        remote: to,
                        local_ip: None,
                    };
                    self.port.send(to, &bytes);
                }
                Act::ExpectStun(servers) => self.port.expect_stun(&servers),
                Act::Call(call) => {
                    tracing::debug!(peer = call.spiffe_id, answer = call.answer, endpoints = ?call.endpoints, "calling");
                    // Without a session nobody can be called; it comes again.
                    let _full = self.view.reach.calls.try_send(call);
                }
                Act::Advertise(endpoints) => {
                    self.view.reach.endpoints.send_replace(endpoints);
                }
                Act::Dial { peer, addresses } => self.desk.dial(peer, addresses),
                Act::Wake(peer) => self.desk.wake(peer),
                Act::Switched { peer, from, to } => {
                    let now = self.view.clock.boottime();
                    self.switches.note(&peer, from, to, now);
                }
                Act::OpenChannel { peer, address } => self.open_channel(peer, address),
                Act::CloseChannel { address } => self.port.close_channel(address),
                Act::Carry(true) => self.begin_carrying(),
                Act::Carry(false) => {
                    if let Some(carrying) = self.carrying.take() {
                        carrying.cancel();
                    }
                }
            }
        }
    }

    /// What goes to the address waits for the cloud's stream; where it waits too long it is lost.
    fn open_channel(&self, peer: SpiffeId, address: SocketAddr) {
        let Some(mut datagrams) = self.port.open_channel(address) else {
            tracing::warn!(%peer, "no room for another channel");
            return;
        };
        let outgoing = self.outgoing.clone();
        tokio::spawn(async move {
            // Ends when the channel is closed.
            while let Some(datagram) = datagrams.recv().await {
                if outgoing.try_send((peer.clone(), datagram)).is_err() {
                    metrics::counter!("edgeward_reach_cloud_lost_total").increment(1);
                }
            }
        });
    }

    fn begin_carrying(&mut self) {
        let stop = CancellationToken::new();
        if let Some(before) = self.carrying.replace(stop.clone()) {
            before.cancel();
        }
        tokio::spawn(self.carry.clone().keep_up(stop));
    }
}

impl Carry {
    /// Tries again and again, later each time, until nobody needs it.
    async fn keep_up(self, stop: CancellationToken) {
        let [least, most] = CARRY_AGAIN;
        let mut wait = least;
        let mut outgoing = tokio::select! {
            () = stop.cancelled() => return,
            outgoing = self.outgoing.lock() => outgoing,
        };
        loop {
            let address = self.view.reach.seen.borrow().address.clone();
            let mut up = false;
            let brought = |brought| {
                // Datagrams: what finds no room is lost.
                if self.brought.try_send(brought).is_err() {
                    metrics::counter!("edgeward_reach_cloud_lost_total").increment(1);
                }
            };
            let ended = carry::carry(
                &self.view,
                address,
                &mut outgoing,
                || {
                    tracing::info!("the cloud carries datagrams");
                    up = true;
                },
                brought,
                stop.clone(),
            )
            .await;
            if matches!(ended, CarryEnded::Stopped) {
                return;
            }
            tracing::info!(reason = %ended, "the cloud carries nothing");
            wait = match up {
                true => least,
                false => (wait * 2).min(most),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

async fn changed(watch: Option<&mut Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
