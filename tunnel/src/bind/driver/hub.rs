//! The loop: takes one thing that happened, hands it to the machine concerned, performs what the machine says.

mod commands;
mod perform;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{BootTime, Clock, KeySet, SpiffeId, SpkiHash, TrustDomain, TrustView};
use parking_lot::Mutex;
use quinn::Endpoint;
use tokio::sync::{Semaphore, mpsc};

use super::MAX_DIALS;
use super::connection::{FromConnection, Handshaken, MAX_FRAMES_WAITING, Tasks};
use super::dial::{Dial, Heard};
use super::door::Door;
use super::own::{Own, fraction, random, seeds};
use super::wanted::{Due, WantedPeers};
use super::{
    Command, Event, FAREWELL, Remote, Setup, StandingTunnel, StartFailed, WireGuardControl,
    bind_epoch,
};
use crate::bind::code::Code;
use crate::bind::ending::Ending;
use crate::bind::endpoint::{self, Identity};
use crate::bind::gate::Gate;
use crate::bind::lease::{CloudLink, Now};
use crate::bind::machine::{Input, Machine, Surroundings};
use crate::bind::policy::MayBind;
use crate::bind::table::{BindId, Table};

/// Longest time between two looks at what is due.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How much time each peer adds to the span in which all are bound anew after a change of our keys: every one of
/// them costs a signature.
const RENEW_EACH: Duration = Duration::from_millis(500);

/// Everything the driver's loop owns.
pub(super) struct Hub {
    clock: Arc<dyn Clock>,
    policy: Arc<dyn MayBind>,
    control: Arc<dyn WireGuardControl>,
    trust: Arc<ArcSwap<TrustView>>,
    keys: Arc<ArcSwap<KeySet>>,
    link: CloudLink,
    own: Own,
    trust_domain: TrustDomain,
    /// Of the SVID before the present one.
    former_spki: Option<SpkiHash>,
    endpoint: Endpoint,
    heard: Arc<Heard>,
    gate: Arc<Mutex<Gate>>,
    door_identity: Arc<ArcSwap<Identity>>,
    ready: Arc<AtomicBool>,
    table: Table,
    binds: BTreeMap<BindId, Bound>,
    /// Which binds there are with each peer, unfinished ones included.
    by_peer: HashMap<SpiffeId, Vec<BindId>>,
    /// When each machine wants to be asked.
    due: BTreeSet<(BootTime, BindId)>,
    open_count: u32,
    wanted: WantedPeers,
    tasks: Tasks,
    commands: mpsc::Receiver<Command>,
    connections: mpsc::Receiver<FromConnection>,
    events: mpsc::Sender<Event>,
}

/// A machine and the way to its peer.
struct Bound {
    machine: Machine,
    remote: Remote,
    /// `None` once the connection is of no more use.
    frames: Option<mpsc::Sender<Vec<u8>>>,
    admitted: bool,
    was_open: bool,
    /// Under which time it stands among the due.
    due: Option<BootTime>,
    /// Counted among the open ones.
    counted: bool,
}

impl Hub {
    /// Must be called on the runtime that will drive the endpoint.
    pub(super) fn new(
        setup: Setup,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, StartFailed> {
        let identity = Arc::new(Identity::new(&setup.svid, &setup.trust, &setup.clock)?);
        let heard = Arc::<Heard>::default();
        let endpoint = endpoint::open(heard.on(setup.socket), &identity)?;
        let trust_domain = setup.svid.id().trust_domain().clone();
        let gate = Gate::new(
            &trust_domain,
            &[identity.party().spki],
            setup.clock.boottime(),
        );
        let (to_hub, connections) = mpsc::channel(MAX_FRAMES_WAITING);
        let mut table = Table::default();
        for tunnel in &setup.standing {
            table.hold(&tunnel.peer, tunnel.wireguard_key)?;
        }
        let own = Own {
            identity: Arc::clone(&identity),
            wireguard: setup.wireguard,
            evidence: setup.evidence,
            slice_number: setup.slice_number,
        };
        let hub = Self {
            ready: Arc::new(AtomicBool::new(own.is_ready())),
            clock: setup.clock,
            policy: setup.policy,
            control: setup.control,
            trust: setup.trust,
            keys: setup.keys,
            link: setup.link,
            own,
            trust_domain,
            former_spki: None,
            endpoint,
            heard,
            gate: Arc::new(Mutex::new(gate)),
            door_identity: Arc::new(ArcSwap::new(identity)),
            table,
            binds: BTreeMap::new(),
            by_peer: HashMap::new(),
            due: BTreeSet::new(),
            open_count: 0,
            wanted: WantedPeers::default(),
            tasks: Tasks {
                to_hub,
                next_bind: Arc::new(AtomicU64::new(first_bind(&setup.standing))),
            },
            commands,
            connections,
            events,
        };
        tokio::spawn(hub.door().run());
        Ok(hub)
    }

    fn door(&self) -> Door {
        Door {
            endpoint: self.endpoint.clone(),
            gate: Arc::clone(&self.gate),
            identity: Arc::clone(&self.door_identity),
            trust: Arc::clone(&self.trust),
            clock: Arc::clone(&self.clock),
            ready: Arc::clone(&self.ready),
            tasks: self.tasks.clone(),
            pen: Semaphore::new(1),
        }
    }

    /// Runs until told to stop, or until nobody can tell any more.
    pub(super) async fn run(mut self) {
        loop {
            let wait = self.next_wait();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.command(command),
                },
                Some(told) = self.connections.recv() => self.told(told),
                () = tokio::time::sleep(wait) => {}
            }
            self.do_what_is_due();
        }
        self.shut_down().await;
    }

    fn told(&mut self, told: FromConnection) {
        match told {
            FromConnection::Handshaken(handshaken) => self.begin(*handshaken),
            FromConnection::Frame { bind, body } => self.feed(bind, Input::Frame(&body)),
            FromConnection::Gone { bind, reason } => {
                tracing::debug!(bind = bind.0, reason, "bind connection gone");
                if self
                    .binds
                    .get(&bind)
                    .is_some_and(|bound| bound.frames.is_some())
                {
                    self.feed(bind, Input::Disconnected);
                }
            }
            FromConnection::DialFailed { peer, reason } => {
                self.wanted.dialled(&peer);
                self.put_off(&peer);
                self.emit(Event::DialFailed { peer, reason });
            }
            FromConnection::Stranger {
                from,
                claimed,
                reason,
            } => self.emit(Event::Stranger {
                from,
                claimed,
                reason,
            }),
        }
    }

    /// A handshake is done: its machine starts.
    fn begin(&mut self, handshaken: Handshaken) {
        let Handshaken {
            bind,
            channel,
            identity,
            remote,
            frames,
        } = handshaken;
        let peer = channel.peer.id().clone();
        self.wanted.dialled(&peer);
        let (Ok(seeds), Ok(nonce)) = (seeds(), random()) else {
            self.put_off(&peer);
            tracing::error!("no randomness: bind refused");
            return;
        };
        let local = self.own.local(&identity);
        let trust = self.trust.load();
        let keys = self.keys.load();
        let around = Surroundings {
            now: now(self.clock.as_ref()),
            link: self.link,
            trust: &trust,
            keys: &keys,
            policy: self.policy.as_ref(),
            memory: &self.table,
            nonce: &nonce,
        };
        let (machine, outputs) = Machine::start(channel, local, seeds, &around);
        let bound = Bound {
            machine,
            remote,
            frames: Some(frames),
            admitted: false,
            was_open: false,
            due: None,
            counted: false,
        };
        self.by_peer.entry(peer).or_default().push(bind);
        self.binds.insert(bind, bound);
        self.perform(bind, outputs);
    }

    /// Hands one input to one machine and performs what it says.
    fn feed(&mut self, bind: BindId, input: Input<'_>) {
        let Some(bound) = self.binds.get_mut(&bind) else {
            return;
        };
        let Ok(nonce) = random() else {
            // Without randomness nothing new may begin, and what is open ends with its lease.
            tracing::error!("no randomness: input dropped");
            return;
        };
        let trust = self.trust.load();
        let keys = self.keys.load();
        let around = Surroundings {
            now: now(self.clock.as_ref()),
            link: self.link,
            trust: &trust,
            keys: &keys,
            policy: self.policy.as_ref(),
            memory: &self.table,
            nonce: &nonce,
        };
        let outputs = bound.machine.handle(input, &around);
        self.perform(bind, outputs);
        self.admit(bind);
    }

    fn put_off(&mut self, peer: &SpiffeId) {
        let now = self.clock.boottime();
        self.wanted.put_off(peer, now, fraction());
    }

    /// Forgets a bind that has ended, or has nothing left to watch.
    fn remove(&mut self, bind: BindId) {
        let Some(bound) = self.binds.remove(&bind) else {
            return;
        };
        if let Some(due) = bound.due {
            self.due.remove(&(due, bind));
        }
        if bound.counted {
            self.open_count = self.open_count.saturating_sub(1);
        }
        let peer = bound.machine.peer().id();
        if let Some(binds) = self.by_peer.get_mut(peer) {
            binds.retain(|other| *other != bind);
            if binds.is_empty() {
                self.by_peer.remove(peer);
            }
        }
    }

    /// Notes when a machine wants to be asked next, and whether it is open.
    fn note(&mut self, bind: BindId) {
        let Some(bound) = self.binds.get_mut(&bind) else {
            return;
        };
        let due = bound.machine.deadline();
        if bound.due != due {
            if let Some(former) = std::mem::replace(&mut bound.due, due) {
                self.due.remove(&(former, bind));
            }
            if let Some(due) = due {
                self.due.insert((due, bind));
            }
        }
        let open = bound.machine.is_open();
        match (std::mem::replace(&mut bound.counted, open), open) {
            (false, true) => self.open_count = self.open_count.saturating_add(1),
            (true, false) => self.open_count = self.open_count.saturating_sub(1),
            (false, false) | (true, true) => {}
        }
    }

    fn binds_with(&self, peer: &SpiffeId) -> Vec<BindId> {
        self.by_peer.get(peer).cloned().unwrap_or_default()
    }

    fn count_ending(&self, ending: &Ending) {
        metrics::counter!("edgeward_bind_endings_total", "code" => ending.code.as_str())
            .increment(1);
    }

    fn emit(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            metrics::counter!("edgeward_bind_events_lost_total").increment(1);
            tracing::warn!("nobody reads the events of the bind: one is lost");
        }
    }

    fn next_wait(&self) -> Duration {
        let now = self.clock.boottime();
        let machine = self.due.first().map(|(due, _)| *due);
        let dial = self.wanted.next_after(now);
        [machine, dial]
            .into_iter()
            .flatten()
            .min()
            .map_or(LONGEST_WAIT, |due| due.since(now).min(LONGEST_WAIT))
    }

    fn do_what_is_due(&mut self) {
        let now = self.clock.boottime();
        let due: Vec<BindId> = self
            .due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .map(|(_, bind)| *bind)
            .collect();
        for bind in due {
            self.feed(bind, Input::Tick);
        }
        if self.own.is_ready() {
            self.dial_who_is_due(now);
        }
        metrics::gauge!("edgeward_binds_open").set(self.open_count);
    }

    fn dial_who_is_due(&mut self, now: BootTime) {
        let (binds, by_peer, own) = (&self.binds, &self.by_peer, &self.own);
        let is_bound = |peer: &SpiffeId| {
            let of_peer = by_peer.get(peer).into_iter().flatten();
            of_peer
                .filter_map(|bind| binds.get(bind))
                .any(|bound| bound.frames.is_some() && own.is_presented_in(bound.machine.local()))
        };
        for Due { target, found } in self.wanted.take_due(now, MAX_DIALS, is_bound) {
            let dial = Dial {
                endpoint: self.endpoint.clone(),
                heard: Arc::clone(&self.heard),
                identity: Arc::clone(&self.own.identity),
                target,
                found,
                trust: Arc::clone(&self.trust),
                clock: Arc::clone(&self.clock),
                tasks: self.tasks.clone(),
            };
            tokio::spawn(dial.run());
        }
    }

    /// Cuts every tunnel, says goodbye, and gives the farewells a moment.
    async fn shut_down(mut self) {
        for bind in self.all_binds() {
            let code = Code::Shutdown;
            self.feed(bind, Input::Leave { code, cut: true });
        }
        self.commands.close();
        self.connections.close();
        // Whoever does not acknowledge within that time finds out by itself.
        let _idle = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
        self.endpoint.close(0_u32.into(), b"");
    }

    fn all_binds(&self) -> Vec<BindId> {
        self.binds.keys().copied().collect()
    }
}

/// Epochs of a bind of this process are later than all that stand.
fn first_bind(standing: &[StandingTunnel]) -> u64 {
    let last = standing.iter().map(|tunnel| bind_epoch(tunnel.epoch).0.0);
    last.max().unwrap_or(0).saturating_add(1)
}

fn now(clock: &dyn Clock) -> Now {
    Now {
        wall: clock.now(),
        boot: clock.boottime(),
    }
}
