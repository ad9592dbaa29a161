//! The loop: takes one thing that happened, hands it to the machine concerned, performs what the machine says.

mod commands;
mod perform;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{Clock, KeySet, SpiffeId, SpkiHash, TrustDomain, TrustView};
use parking_lot::Mutex;
use quinn::Endpoint;
use tokio::sync::{Semaphore, mpsc};

use super::MAX_DIALS;
use super::connection::{FromConnection, Handshaken, MAX_FRAMES_WAITING, Tasks};
use super::dial::{Dial, Wanted};
use super::door::Door;
use super::own::{Own, random, seeds};
use super::{Command, Event, FAREWELL, Remote, Setup, StartFailed, WireGuardControl, bind_epoch};
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
    gate: Arc<Mutex<Gate>>,
    door_identity: Arc<ArcSwap<Identity>>,
    ready: Arc<AtomicBool>,
    table: Table,
    binds: BTreeMap<BindId, Bound>,
    wanted: HashMap<SpiffeId, Wanted>,
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
}

impl Hub {
    /// Must be called on the runtime that will drive the endpoint.
    pub(super) fn new(
        setup: Setup,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, StartFailed> {
        let identity = Arc::new(Identity::new(&setup.svid, &setup.trust, &setup.clock)?);
        let endpoint = endpoint::open(setup.socket, &identity)?;
        let trust_domain = setup.svid.id().trust_domain().clone();
        let gate = Gate::new(
            &trust_domain,
            &[identity.party().spki],
            setup.clock.boottime(),
        );
        let (to_hub, connections) = mpsc::channel(MAX_FRAMES_WAITING);
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
            gate: Arc::new(Mutex::new(gate)),
            door_identity: Arc::new(ArcSwap::new(identity)),
            table: Table::default(),
            binds: BTreeMap::new(),
            wanted: HashMap::new(),
            tasks: Tasks {
                to_hub,
                next_bind: Arc::new(AtomicU64::new(1)),
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
                let now = self.clock.boottime();
                if let Some(wanted) = self.wanted.get_mut(&peer) {
                    wanted.dialling = false;
                    wanted.put_off(now);
                }
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
        if let Some(wanted) = self.wanted.get_mut(channel.peer.id()) {
            wanted.dialling = false;
        }
        let (Ok(seeds), Ok(nonce)) = (seeds(), random()) else {
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
        };
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
        if let Some(wanted) = self.wanted.get_mut(peer) {
            wanted.put_off(now);
        }
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
        let machines = self
            .binds
            .values()
            .filter_map(|bound| bound.machine.deadline());
        let dials = self
            .wanted
            .values()
            .filter(|wanted| !wanted.dialling && wanted.next > now)
            .map(|wanted| wanted.next);
        machines
            .chain(dials)
            .min()
            .map_or(LONGEST_WAIT, |due| due.since(now).min(LONGEST_WAIT))
    }

    fn do_what_is_due(&mut self) {
        let now = self.clock.boottime();
        let due: Vec<BindId> = self
            .binds
            .iter()
            .filter(|(_, bound)| bound.machine.deadline().is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for bind in due {
            self.feed(bind, Input::Tick);
        }
        if self.own.is_ready() {
            self.dial_who_is_due();
        }
        let open = self
            .binds
            .values()
            .filter(|bound| bound.machine.is_open())
            .count();
        metrics::gauge!("edgeward_binds_open").set(u32::try_from(open).unwrap_or(u32::MAX));
    }

    fn dial_who_is_due(&mut self) {
        let now = self.clock.boottime();
        let connected: HashSet<&SpiffeId> = self
            .binds
            .values()
            .filter(|bound| {
                bound.frames.is_some() && self.own.is_presented_in(bound.machine.local())
            })
            .map(|bound| bound.machine.peer().id())
            .collect();
        let mut places = MAX_DIALS.saturating_sub(
            self.wanted
                .values()
                .filter(|wanted| wanted.dialling)
                .count(),
        );
        for (id, wanted) in &mut self.wanted {
            if places == 0 {
                break;
            }
            let due = !wanted.dialling && wanted.next <= now;
            if !due || wanted.target.endpoints.is_empty() || connected.contains(id) {
                continue;
            }
            wanted.dialling = true;
            places -= 1;
            let dial = Dial {
                endpoint: self.endpoint.clone(),
                identity: Arc::clone(&self.own.identity),
                target: wanted.target.clone(),
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

fn now(clock: &dyn Clock) -> Now {
    Now {
        wall: clock.now(),
        boot: clock.boottime(),
    }
}
