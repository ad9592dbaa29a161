//! Engine, rows, filter rows and slices against Cedar, which decides by the whole policy: random policies over random
//! fleets, random and boundary requests, for every node. No disagreement in `EDGEWARD_DIFFERENTIAL` answers, or in as
//! many as the tests can afford.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::{Kind, SpiffeId, Timestamp};
use edgeward_policy::filter::{self, FilterSubject};
use edgeward_policy::testing::Whole;
use edgeward_policy::{
    ActionId, AllWants, Decision, DeviceIndex, Engine, Link, Opened, PeerIndex, Reason, Request,
    Slice, Subject, Target, WrittenRequest,
};

use crate::cedar::{Asker, Lifted, Oracle, Question};
use crate::chance::{NAMES, approvals, lift, millis, minutes};
use crate::dice::Dice;
use crate::world::{self, MONDAY, NODES, PROTOCOLS, WEEK, World};

/// Answers compared where nobody asks for more.
const ANSWERS: u64 = 40_000;
/// One answer of so many is asked for again without what runs: to see that it matters.
const RUNS_SAMPLED: u64 = 8;
/// Requests for each node of each policy.
const REQUESTS: usize = 30;

pub(crate) type Named = Option<Vec<(String, bool)>>;
pub(crate) type Running = Option<BTreeMap<&'static str, usize>>;

#[test]
fn engine_rows_filter_and_slices_decide_as_cedar_decides_by_the_whole_policy() {
    let wanted = match std::env::var("EDGEWARD_DIFFERENTIAL") {
        Ok(count) => count
            .parse()
            .expect("EDGEWARD_DIFFERENTIAL is a number of answers"),
        Err(_) => ANSWERS,
    };
    let first: u64 = match std::env::var("EDGEWARD_DIFFERENTIAL_SEED") {
        Ok(seed) => seed
            .parse()
            .expect("EDGEWARD_DIFFERENTIAL_SEED is a number"),
        Err(_) => 0,
    };
    let (seeds, tally) = (AtomicU64::new(first), Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while tally.answers.load(Ordering::Relaxed) < wanted {
                    compare_world(seeds.fetch_add(1, Ordering::Relaxed), &tally);
                }
            });
        }
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (answers, allowed) = (count(&tally.answers), count(&tally.allowed));
    eprintln!(
        "{answers} answers, {allowed} of them allow, {} about l7 requests, {} by filter rows, {} about devices, {} of a sample by what runs, from {} policies: no disagreement",
        count(&tally.l7),
        count(&tally.filtered),
        count(&tally.devices),
        count(&tally.runs),
        count(&seeds) - first
    );
    // A comparison in which nearly everything is denied says little.
    assert!(answers / 30 < allowed && allowed < answers / 30 * 29);
    assert!(
        count(&tally.runs) > 0,
        "nothing was ever decided by what runs"
    );
}

#[derive(Default)]
pub(crate) struct Tally {
    answers: AtomicU64,
    allowed: AtomicU64,
    l7: AtomicU64,
    filtered: AtomicU64,
    devices: AtomicU64,
    runs: AtomicU64,
}

/// One policy and fleet, seen from one node.
pub(crate) struct Scene<'w> {
    pub(crate) world: &'w World,
    pub(crate) whole: &'w Whole<'w>,
    pub(crate) oracle: &'w Oracle<'w>,
    pub(crate) engine: &'w Engine,
    /// Of the node before this one.
    pub(crate) other_wants: &'w AllWants,
    pub(crate) lifted: &'w Lifted,
    pub(crate) target: String,
    pub(crate) tally: &'w Tally,
    pub(crate) seed: u64,
}

fn compare_world(seed: u64, tally: &Tally) {
    let mut dice = Dice(seed);
    let world = World::random(&mut dice);
    let whole = world.policy.whole();
    let oracle = Oracle::new(&whole, &world.fleet);
    let index = world.policy.index(&world.fleet);
    let mut other_wants = AllWants::default();
    for target in 0..NODES {
        let node = world::name(target);
        let slice = world.policy.slice_of(&index, &node, end()).unwrap();
        let mut slice = Slice::parse(&slice.to_json()).unwrap();
        let lifted = lift(&whole, &mut dice);
        slice.approvals = approvals(&lifted);
        let opened = lifted.opened.iter().map(|(rule, until)| Opened {
            rule: rule.as_str().into(),
            until: *until,
        });
        let opened: Vec<Opened> = opened.collect();
        let engine = Engine::with_opened(Arc::new(slice), &opened).unwrap();
        let scene = Scene {
            world: &world,
            whole: &whole,
            oracle: &oracle,
            engine: &engine,
            other_wants: &other_wants,
            lifted: &lifted,
            target: node.name().to_owned(),
            tally,
            seed,
        };
        for _ in 0..REQUESTS {
            scene.compare_one(&mut dice);
        }
        scene.compare_filter(&mut dice);
        other_wants = engine.wants().clone();
    }
}

impl Scene<'_> {
    fn compare_one(&self, dice: &mut Dice) {
        let (service, interface, net, _, protocol) = self.interface(dice);
        let mut asker = self.asker(dice);
        // Where a device can come from is known before anybody asks.
        if let Asker::Device(name) = asker {
            let devices = &self.whole.devices;
            let hangs = devices
                .iter()
                .any(|device| device.name == name && device.net == net);
            if !hangs {
                asker = Asker::Node(NAMES[dice.below(NODES)]);
            }
        }
        let now = self.time(dice);
        let evidence = self.standing(asker, now, dice);
        let link = match !dice.one_in(3) {
            true => Link::Online,
            false => Link::Offline {
                last_heartbeat: now.minus(minutes(dice.minutes())).plus(millis(dice)),
            },
        };
        let (written, actions) = match protocol {
            None => (None, vec!["connect"]),
            Some(protocol) => {
                let protocol = &PROTOCOLS[protocol];
                // Twice the chance for what fits several actions: it is where they meet.
                let mut requests = protocol.requests.iter();
                let several = requests.find(|(_, fits)| fits.len() > 1);
                let chosen = &protocol.requests[dice.below(protocol.requests.len())];
                let (text, fits) = several.filter(|_| dice.one_in(3)).unwrap_or(chosen);
                let one = dice.one_in(4);
                match one {
                    true => (
                        None,
                        vec![protocol.actions[dice.below(protocol.actions.len())]],
                    ),
                    false => (Some(*text), fits.to_vec()),
                }
            }
        };
        let question = Question {
            asker,
            target: &self.target,
            interface: (service, interface),
            actions: actions.into_iter().collect(),
            standing: evidence.standing,
            named: &evidence.named,
            running: &evidence.running,
            link,
            now,
        };
        let decision = self.ask(&question, written);
        self.compare(&question, &decision);
        assert_eq!(self.ask(&question, written), decision, "asked twice");
        self.compare_until_it_ends(&question, &decision);
        if protocol.is_some() && dice.one_in(4) {
            self.compare_admission(&question);
        }
    }

    /// Until a decision ends nothing but news may change it; and it ends in the future.
    fn compare_until_it_ends(&self, question: &Question<'_>, decision: &Decision) {
        let (now, until) = (question.now, decision.valid_until);
        assert!(until > now || now >= end(), "{decision:?}");
        let last = until.minus(Duration::from_millis(1));
        let middle = Timestamp::from_millis(now.millis().midpoint(last.millis()));
        for later in [middle, last] {
            if later > now && later < end() {
                let question = Question {
                    now: later,
                    ..question.clone()
                };
                self.compare(&question, decision);
            }
        }
    }

    fn compare_admission(&self, question: &Question<'_>) {
        let (service, name) = question.interface;
        let Some(interface) = self.engine.interface(service, name) else {
            return;
        };
        let id = subject(question.asker);
        let admitted = self.engine.admit(
            Subject::Id(&id),
            question.standing,
            interface,
            question.link,
            question.now,
        );
        let names = self.engine.slice().interfaces[interface.0 as usize].actions();
        let any = names.iter().any(|name| {
            let question = Question {
                actions: [*name].into(),
                ..question.clone()
            };
            self.expected(&question)
        });
        assert_eq!(admitted.is_allow(), any, "seed {}: {question:?}", self.seed);
    }

    fn ask(&self, question: &Question<'_>, written: Option<&str>) -> Decision {
        let (service, name) = question.interface;
        let id = subject(question.asker);
        let interface = self.engine.interface(service, name);
        let known = interface.map(|index| &self.engine.slice().interfaces[index.0 as usize]);
        if let (Some(index), Some(known), Some(text)) = (interface, known, written) {
            let l7 = known.l7.as_ref().unwrap();
            let request = WrittenRequest::parse(l7, text).unwrap();
            self.tally.l7.fetch_add(1, Ordering::Relaxed);
            return self.engine.decide_l7(
                Subject::Id(&id),
                question.standing,
                index,
                &request.as_request(),
                question.link,
                question.now,
            );
        }
        let action = question.actions.first().copied();
        let action = known.and_then(|known| known.action(action?));
        self.engine.decide(&Request {
            subject: Subject::Id(&id),
            standing: question.standing,
            target: Target::Named {
                service,
                interface: name,
            },
            action: action.unwrap_or(ActionId::CONNECT),
            link: question.link,
            now: question.now,
        })
    }

    fn compare(&self, question: &Question<'_>, decision: &Decision) {
        assert_ne!(
            decision.reason,
            Reason::Internal,
            "seed {}: {question:?}",
            self.seed
        );
        let expected = self.expected(question);
        assert_eq!(
            decision.is_allow(),
            expected,
            "seed {}: {question:?} {decision:?} {:?}",
            self.seed,
            self.lifted
        );
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
        self.tally
            .allowed
            .fetch_add(u64::from(expected), Ordering::Relaxed);
        let without = Question {
            running: &None,
            ..question.clone()
        };
        let answers = self.tally.answers.load(Ordering::Relaxed);
        let sampled = answers.is_multiple_of(RUNS_SAMPLED);
        let by_runs = sampled && question.running.is_some() && self.expected(&without) != expected;
        self.tally
            .runs
            .fetch_add(u64::from(by_runs), Ordering::Relaxed);
        let device = matches!(question.asker, Asker::Device(_));
        self.tally
            .devices
            .fetch_add(u64::from(device), Ordering::Relaxed);
    }

    fn expected(&self, question: &Question<'_>) -> bool {
        question.now < end() && self.oracle.allows(question, self.lifted)
    }

    /// Every interface without a protocol of its own, for everybody whom a filter can tell apart.
    fn compare_filter(&self, dice: &mut Dice) {
        let now = self.time(dice);
        let slice = self.engine.slice();
        let peers = (0_u32..).zip(&slice.peers);
        let peers =
            peers.map(|(index, peer)| (FilterSubject::Peer(PeerIndex(index)), peer.id.clone()));
        let devices = (0_u32..).zip(&slice.devices);
        let devices = devices
            .map(|(index, device)| (FilterSubject::Device(DeviceIndex(index)), device.id.clone()));
        let parties = peers.chain(devices).map(|(subject, id)| {
            let evidence = self.standing(asker(&id), now, dice);
            (subject, id, evidence)
        });
        let parties: Vec<_> = parties.collect();
        let subjects: Vec<_> = parties
            .iter()
            .map(|(subject, _, evidence)| (*subject, evidence.standing))
            .collect();
        let rows = filter::rows(self.engine, &subjects, Link::Online, now);
        for interface in &rows.interfaces {
            let known = &slice.interfaces[interface.interface.0 as usize];
            if known.l7.is_some() {
                continue;
            }
            for (subject, id, evidence) in &parties {
                let comes_here = match subject {
                    FilterSubject::Peer(_) => known.net == "mesh",
                    FilterSubject::Device(DeviceIndex(device)) => {
                        slice.devices[*device as usize].net == known.net
                    }
                };
                let question = Question {
                    asker: asker(id),
                    target: &self.target,
                    interface: (&known.service, &known.name),
                    actions: ["connect"].into(),
                    standing: evidence.standing,
                    named: &evidence.named,
                    running: &evidence.running,
                    link: Link::Online,
                    now,
                };
                let entry = interface
                    .allowed
                    .iter()
                    .find(|entry| entry.subject == *subject);
                let expected = comes_here && self.expected(&question);
                assert_eq!(
                    entry.is_some(),
                    expected,
                    "seed {}: {question:?}",
                    self.seed
                );
                self.tally.answers.fetch_add(1, Ordering::Relaxed);
                self.tally.filtered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn subject(asker: Asker<'_>) -> SpiffeId {
    match asker {
        Asker::Node(name) => world::id(Kind::Node, name),
        Asker::Operator(name) => world::id(Kind::Operator, name),
        Asker::Device(name) => world::id(Kind::Device, name),
    }
}

fn asker(id: &SpiffeId) -> Asker<'_> {
    match id.kind() {
        Kind::Device => Asker::Device(id.name()),
        _ => Asker::Node(id.name()),
    }
}

fn end() -> Timestamp {
    Timestamp::from_secs(MONDAY + WEEK + 86_400)
}
