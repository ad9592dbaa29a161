use std::collections::VecDeque;

use edgeward_identity::deny::{Denied, DenyList};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{KeySet, SoftwareKey, TrustView};

use super::*;
use crate::bind::codec::{LENGTH_BYTES, parse};
use crate::bind::kem::SEED_BYTES;
use crate::bind::lease::{CloudLink, Now};
use crate::bind::schedule::{Party, exporter_context};
use crate::bind::testing::{Fleet, MINUTE, TestMemory, TestNode, TestPolicy};

mod hostile;

/// One end of a bind in memory, with everything around it.
struct End {
    machine: Machine,
    policy: TestPolicy,
    memory: TestMemory,
    link: CloudLink,
    trust: TrustView,
    keys: KeySet,
    boot: BootTime,
    wall: Timestamp,
    draw: u8,
    /// Frame bodies that wait for the other end.
    sent: VecDeque<Vec<u8>>,
    armed: Vec<Arm>,
    turned: Vec<(u64, Secret<[u8; 32]>)>,
    opened: Vec<Opened>,
    leases: Vec<BootTime>,
    adrift: Option<Ending>,
    ending: Option<Ending>,
}

/// Two ends and the stream between them.
struct Pair {
    initiator: End,
    responder: End,
}

/// What a test may change before the machines start.
struct Setup<'a> {
    fleet: &'a Fleet,
    initiator: &'a TestNode,
    responder: &'a TestNode,
    link: CloudLink,
    initiator_memory: TestMemory,
    responder_memory: TestMemory,
    /// The exporter's output, as each end sees it.
    roots: [u8; 2],
}

impl<'a> Setup<'a> {
    fn new(fleet: &'a Fleet, initiator: &'a TestNode, responder: &'a TestNode) -> Self {
        Self {
            fleet,
            initiator,
            responder,
            link: CloudLink::Online,
            initiator_memory: TestMemory::default(),
            responder_memory: TestMemory::default(),
            roots: [0x77; 2],
        }
    }

    fn start(self) -> Pair {
        let parties = super::steps::parties_of(
            Role::Initiator,
            party(self.initiator),
            party(self.responder),
        );
        let domain = self.fleet.authority.trust_domain();
        let context = exporter_context(domain, &parties);
        let end = |role, own: &TestNode, peer: &TestNode, memory, root| {
            End::start(
                Channel {
                    role,
                    peer: self.fleet.verified(peer),
                    context,
                    root: Secret::new([root; 32]),
                },
                own.local(),
                self.fleet,
                memory,
                self.link,
            )
        };
        Pair {
            initiator: end(
                Role::Initiator,
                self.initiator,
                self.responder,
                self.initiator_memory,
                self.roots[0],
            ),
            responder: end(
                Role::Responder,
                self.responder,
                self.initiator,
                self.responder_memory,
                self.roots[1],
            ),
        }
    }
}

impl End {
    fn start(
        channel: Channel,
        local: Local,
        fleet: &Fleet,
        memory: TestMemory,
        link: CloudLink,
    ) -> Self {
        let policy = TestPolicy::granting();
        let boot = BootTime::from_duration(MINUTE);
        let draw = match channel.role {
            Role::Initiator => 1,
            Role::Responder => 101,
        };
        let seeds = Seeds {
            nonce: [draw; 32],
            kem: Secret::new([draw + 1; SEED_BYTES]),
        };
        let around = Surroundings {
            now: Now {
                wall: TEST_NOW,
                boot,
            },
            link,
            trust: &fleet.trust,
            keys: &fleet.keys,
            policy: &policy,
            memory: &memory,
            nonce: &[0; 32],
        };
        let (machine, outputs) = Machine::start(channel, local, seeds, &around);
        let mut end = Self {
            machine,
            policy,
            memory,
            link,
            trust: fleet.trust.clone(),
            keys: fleet.keys.clone(),
            boot,
            wall: TEST_NOW,
            draw: draw + 2,
            sent: VecDeque::new(),
            armed: Vec::new(),
            turned: Vec::new(),
            opened: Vec::new(),
            leases: Vec::new(),
            adrift: None,
            ending: None,
        };
        end.perform(outputs);
        end
    }

    fn input(&mut self, input: Input<'_>) {
        self.draw = self.draw.wrapping_add(1);
        let nonce = [self.draw; 32];
        let around = Surroundings {
            now: Now {
                wall: self.wall,
                boot: self.boot,
            },
            link: self.link,
            trust: &self.trust,
            keys: &self.keys,
            policy: &self.policy,
            memory: &self.memory,
            nonce: &nonce,
        };
        let outputs = self.machine.handle(input, &around);
        self.perform(outputs);
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            assert!(
                !matches!(output, Output::Open(_)) || !self.armed.is_empty(),
                "nothing opens before it is armed"
            );
            match output {
                Output::Send(frame) => self.sent.push_back(frame[LENGTH_BYTES..].to_vec()),
                Output::Arm(arm) => self.armed.push(*arm),
                Output::TurnArmed { epoch, psk } => self.turned.push((epoch, psk)),
                Output::Open(opened) => self.opened.push(*opened),
                Output::Lease { until, .. } => self.leases.push(until),
                Output::Adrift(ending) => self.adrift = Some(ending),
                Output::End(ending) => self.ending = Some(ending),
            }
        }
    }

    fn turn_clock(&mut self, by: Duration) {
        self.boot = self.boot.plus(by);
        self.wall = self.wall.plus(by);
    }

    fn code(&self) -> Option<Code> {
        self.ending.as_ref().map(|ending| ending.code)
    }

    fn was_cut(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.cut)
    }
}

impl Pair {
    /// Carries frames until both ends are silent.
    fn settle(&mut self) {
        loop {
            if let Some(body) = self.initiator.sent.pop_front() {
                self.responder.input(Input::Frame(&body));
            } else if let Some(body) = self.responder.sent.pop_front() {
                self.initiator.input(Input::Frame(&body));
            } else {
                return;
            }
        }
    }

    fn confirm(&mut self, epoch: u64) {
        self.initiator.input(Input::WireGuardConfirmed { epoch });
        self.responder.input(Input::WireGuardConfirmed { epoch });
    }

    fn open(&mut self) {
        self.settle();
        self.confirm(0);
        assert!(self.initiator.machine.is_open() && self.responder.machine.is_open());
    }

    fn turn_clocks(&mut self, by: Duration) {
        self.initiator.turn_clock(by);
        self.responder.turn_clock(by);
    }
}

fn party(node: &TestNode) -> Party {
    let local = node.local();
    Party {
        leaf_hash: local.leaf_hash,
        spki: local.spki,
    }
}

fn fleet_of_two() -> (Fleet, TestNode, TestNode) {
    let fleet = Fleet::new("plant.example");
    let (a, b) = (fleet.node("a"), fleet.node("b"));
    (fleet, a, b)
}

#[test]
fn the_responder_arms_first_and_nothing_opens_before_wireguard_confirms() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    while pair.responder.armed.is_empty() {
        assert!(pair.initiator.armed.is_empty());
        if let Some(body) = pair.initiator.sent.pop_front() {
            pair.responder.input(Input::Frame(&body));
        }
        if pair.responder.armed.is_empty()
            && let Some(body) = pair.responder.sent.pop_front()
        {
            pair.initiator.input(Input::Frame(&body));
        }
    }
    assert!(pair.initiator.armed.is_empty());
    pair.settle();
    assert_eq!(pair.initiator.armed.len(), 1);
    assert!(pair.initiator.opened.is_empty() && pair.responder.opened.is_empty());
    pair.initiator.input(Input::WireGuardConfirmed { epoch: 1 });
    assert!(
        pair.initiator.opened.is_empty(),
        "another epoch means nothing"
    );
    pair.confirm(0);
    let (i, r) = (&pair.initiator, &pair.responder);
    assert!(i.armed[0].psk.matches(r.armed[0].psk.expose()));
    assert!(i.armed[0].reach_key.matches(r.armed[0].reach_key.expose()));
    assert!(!i.armed[0].reach_key.matches(i.armed[0].psk.expose()));
    assert_eq!(i.armed[0].wireguard_key, b.wireguard.public());
    assert_eq!(r.armed[0].wireguard_key, a.wireguard.public());
    assert_eq!(i.opened[0].transcript, r.opened[0].transcript);
    assert_eq!(i.opened[0].peer, b.id);
    assert_eq!(r.opened[0].peer, a.id);
    assert_eq!(i.opened[0].peer_slice_number, 3);
    assert_eq!(i.armed[0].allowed_ips, i.policy.prefixes, "from policy");
    assert_eq!(i.armed[0].until.since(i.boot), MINUTE * 10);
}

#[test]
fn epochs_turn_within_ten_minutes_and_both_ends_agree() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.initiator.policy.limits.fresh = MINUTE * 1000;
    pair.responder.policy.limits.fresh = MINUTE * 1000;
    pair.open();
    let mut last = Secret::new(*pair.initiator.armed[0].psk.expose());
    for epoch in 1..=5 {
        let due = pair.initiator.machine.deadline().unwrap();
        assert!(due.since(pair.initiator.boot) + TURN_TIMEOUT <= MINUTE * 10);
        let wait = due.since(pair.initiator.boot);
        pair.turn_clocks(wait);
        pair.initiator.input(Input::Tick);
        pair.responder.input(Input::Tick);
        pair.settle();
        let (asked, ours) = pair.initiator.turned.pop().unwrap();
        let (answered, theirs) = pair.responder.turned.pop().unwrap();
        assert_eq!((asked, answered), (epoch, epoch));
        assert!(ours.matches(theirs.expose()) && !ours.matches(last.expose()));
        last = ours;
        pair.confirm(epoch);
    }
    assert!(pair.initiator.ending.is_none() && pair.responder.ending.is_none());
}

#[test]
fn only_one_turn_is_under_way_and_only_the_initiator_asks() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.responder.input(Input::Turn);
    assert!(pair.responder.sent.is_empty());
    pair.initiator.input(Input::Turn);
    pair.initiator.input(Input::Turn);
    assert_eq!(pair.initiator.sent.len(), 1);
    pair.settle();
    pair.initiator.input(Input::Turn);
    assert!(
        pair.initiator.sent.is_empty(),
        "not before wireguard confirmed"
    );
    pair.confirm(1);
    pair.initiator.input(Input::Turn);
    assert_eq!(pair.initiator.sent.len(), 1);
}

#[test]
fn a_turn_that_wireguard_never_confirms_ends_the_connection_but_not_the_tunnel() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.initiator.input(Input::Turn);
    pair.settle();
    pair.turn_clocks(TURN_TIMEOUT);
    pair.initiator.input(Input::Tick);
    pair.settle();
    for end in [&pair.initiator, &pair.responder] {
        assert_eq!(end.adrift.as_ref().unwrap().code, Code::Timeout);
        assert!(end.ending.is_none() && end.machine.is_adrift());
    }
}

#[test]
fn a_tunnel_adrift_is_still_watched() {
    let (fleet, a, b) = fleet_of_two();
    let adrift = || {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        pair.open();
        pair.initiator.input(Input::Disconnected);
        assert!(pair.initiator.machine.is_adrift());
        pair.initiator
    };
    let mut end = adrift();
    assert_eq!(end.machine.deadline().unwrap().since(end.boot), MINUTE * 10);
    end.turn_clock(MINUTE * 10);
    end.input(Input::Tick);
    assert_eq!(end.code(), Some(Code::Lease));
    assert!(end.was_cut() && end.sent.is_empty());

    let mut end = adrift();
    end.policy.refuse = true;
    end.input(Input::Recheck);
    assert!(end.was_cut() && end.sent.is_empty());

    let mut end = adrift();
    end.input(Input::Leave {
        code: Code::Superseded,
        cut: false,
    });
    assert!(end.ending.is_some() && !end.was_cut());
}

#[test]
fn a_bind_that_is_armed_but_not_open_is_cut_however_it_ends() {
    let (fleet, a, b) = fleet_of_two();
    for input in [
        Input::Disconnected,
        Input::Leave {
            code: Code::Glare,
            cut: false,
        },
    ] {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        pair.settle();
        pair.initiator.input(input);
        assert!(pair.initiator.was_cut());
    }
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.initiator.input(Input::Leave {
        code: Code::Cut,
        cut: true,
    });
    assert!(!pair.initiator.was_cut(), "nothing of this bind to cut");
}

#[test]
fn a_silent_peer_runs_out_of_time() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.initiator.sent.clear();
    let due = pair.responder.machine.deadline().unwrap();
    assert_eq!(due.since(pair.responder.boot), BIND_TIMEOUT);
    pair.turn_clocks(BIND_TIMEOUT);
    pair.responder.input(Input::Tick);
    assert_eq!(pair.responder.code(), Some(Code::Timeout));
    assert!(pair.responder.armed.is_empty());
    assert_eq!(pair.responder.machine.deadline(), None);
}

#[test]
fn what_is_armed_but_never_confirmed_is_cut() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.settle();
    pair.turn_clocks(BIND_TIMEOUT);
    pair.responder.input(Input::Tick);
    assert_eq!(pair.responder.code(), Some(Code::Timeout));
    assert!(pair.responder.was_cut());
}

#[test]
fn the_lease_ends_the_tunnel_and_a_new_result_extends_it() {
    let (fleet, mut a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.turn_clocks(MINUTE * 5);
    fleet.attest(&mut a, pair.responder.wall);
    pair.initiator.input(Input::OwnResult(&a.result));
    pair.settle();
    let until = *pair.responder.leases.last().unwrap();
    assert_eq!(until.since(pair.responder.boot), MINUTE * 10);
    pair.turn_clocks(MINUTE * 5);
    pair.initiator.input(Input::Tick);
    assert_eq!(
        pair.initiator.code(),
        Some(Code::Lease),
        "b never passed again"
    );
    assert!(pair.initiator.was_cut());
}

#[test]
fn a_result_that_came_while_binding_is_sent_once_open() {
    let (fleet, mut a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    fleet.attest(&mut a, TEST_NOW.plus(MINUTE));
    pair.initiator.input(Input::OwnResult(&a.result));
    pair.turn_clocks(Duration::from_secs(10));
    pair.open();
    pair.settle();
    assert_eq!(
        pair.responder
            .machine
            .presented()
            .unwrap()
            .claims
            .floor()
            .result,
        2
    );
}

#[test]
fn losing_the_cloud_lengthens_the_lease_and_finding_it_again_shortens_it() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    let end = &mut pair.initiator;
    end.turn_clock(MINUTE);
    end.link = CloudLink::CutOff {
        last_heartbeat: TEST_NOW,
    };
    end.input(Input::Recheck);
    assert_eq!(end.leases.last().unwrap().since(end.boot), MINUTE * 719);
    end.link = CloudLink::Online;
    end.input(Input::Recheck);
    assert_eq!(end.leases.last().unwrap().since(end.boot), MINUTE * 9);
    end.turn_clock(MINUTE * 9);
    end.input(Input::Recheck);
    assert_eq!(end.code(), Some(Code::Lease));
    assert!(end.was_cut());
}

#[test]
fn a_change_of_policy_cuts_or_changes_the_prefixes() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.responder
        .policy
        .prefixes
        .push("10.1.0.0/24".parse().unwrap());
    pair.responder.input(Input::Recheck);
    assert_eq!(pair.responder.leases.len(), 1);
    pair.responder.policy.refuse = true;
    pair.responder.input(Input::Recheck);
    assert_eq!(pair.responder.code(), Some(Code::Policy));
    assert!(pair.responder.was_cut());
    pair.settle();
    assert_eq!(pair.initiator.code(), Some(Code::Policy));
    assert!(pair.initiator.was_cut());
}

#[test]
fn a_peer_put_on_the_deny_list_is_cut_before_it_is_told() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    let denied = Denied {
        reason: "quarantined".into(),
        until: TEST_NOW.plus(MINUTE),
    };
    pair.responder.trust.deny = DenyList::new(1, [(a.spki(), denied)].into()).unwrap();
    let around = Surroundings {
        now: Now {
            wall: TEST_NOW,
            boot: pair.responder.boot,
        },
        link: CloudLink::Online,
        trust: &pair.responder.trust,
        keys: &fleet.keys,
        policy: &TestPolicy::granting(),
        memory: &TestMemory::default(),
        nonce: &[0; 32],
    };
    let outputs = pair.responder.machine.handle(Input::Recheck, &around);
    let [Output::End(ending), Output::Send(_)] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert_eq!((ending.code, ending.cut), (Code::Identity, true));
}

#[test]
fn a_cut_ends_both_ends_and_a_lost_connection_neither_tunnel() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.initiator.input(Input::Leave {
        code: Code::Cut,
        cut: true,
    });
    pair.settle();
    assert!(pair.initiator.was_cut() && pair.responder.was_cut());
    assert_eq!(pair.responder.ending.as_ref().unwrap().by, By::Peer);

    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    pair.initiator.input(Input::Disconnected);
    assert!(pair.initiator.sent.is_empty());
    assert!(pair.initiator.ending.is_none());
}

#[test]
fn a_machine_that_has_ended_answers_nothing() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    let offer = pair.initiator.sent.front().unwrap().clone();
    pair.responder.input(Input::Failed("no".into()));
    pair.responder.sent.clear();
    pair.responder.input(Input::Frame(&offer));
    pair.responder.input(Input::WireGuardConfirmed { epoch: 0 });
    pair.responder.input(Input::Tick);
    assert!(pair.responder.sent.is_empty() && pair.responder.armed.is_empty());
    assert!(pair.responder.machine.has_ended());
}

#[test]
fn debug_shows_no_secret() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.settle();
    let psk = hex::encode(pair.initiator.armed[0].psk.expose());
    let text = format!("{:?} {:?}", pair.initiator.machine, pair.initiator.armed[0]);
    assert!(!text.contains(&psk) && !text.contains("Secret"));
}
