//! Engine, rows, filter rows and slices against Cedar, which decides by the whole policy: random policies over random
//! fleets, random and boundary requests, for every node. No disagreement in `EDGEWARD_DIFFERENTIAL` answers, or in as
//! many as the tests can afford.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Timestamp};
use edgeward_policy::filter::{self, FilterSubject};
use edgeward_policy::testing::Whole;
use edgeward_policy::{
    ActionId, Decision, DeviceIndex, Effect, Engine, Link, Opened, PeerIndex, ProfileLabel, Reason,
    Request, Slice, SliceApproval, Standing, StatedProfiles, Subject, Target, WrittenRequest,
};

use crate::cedar::{self, Asker, Lifted, Oracle, Question};
use crate::dice::Dice;
use crate::world::{self, DEVICES, INTERFACES, MONDAY, NODES, OPERATORS, PROTOCOLS, WEEK, World};

/// Answers compared where nobody asks for more.
const ANSWERS: u64 = 20_000;
const NAMES: [&str; NODES] = ["n0", "n1", "n2", "n3", "n4"];
/// Requests for each node of each policy.
const REQUESTS: usize = 60;

type Named = Option<Vec<(String, bool)>>;

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
        "{answers} answers, {allowed} of them allow, {} about l7 requests, {} by filter rows, {} about devices, from {} policies: no disagreement",
        count(&tally.l7),
        count(&tally.filtered),
        count(&tally.devices),
        count(&seeds) - first
    );
    // A comparison in which nearly everything is denied says little.
    assert!(answers / 30 < allowed && allowed < answers / 30 * 29);
}

#[derive(Default)]
struct Tally {
    answers: AtomicU64,
    allowed: AtomicU64,
    l7: AtomicU64,
    filtered: AtomicU64,
    devices: AtomicU64,
}

/// One policy and fleet, seen from one node.
struct Scene<'w> {
    world: &'w World,
    whole: &'w Whole<'w>,
    oracle: &'w Oracle<'w>,
    engine: &'w Engine,
    lifted: &'w Lifted,
    target: String,
    tally: &'w Tally,
    seed: u64,
}

fn compare_world(seed: u64, tally: &Tally) {
    let mut dice = Dice(seed);
    let world = World::random(&mut dice);
    let whole = world.policy.whole();
    let oracle = Oracle::new(&whole, &world.fleet);
    let index = world.policy.index(&world.fleet);
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
            lifted: &lifted,
            target: node.name().to_owned(),
            tally,
            seed,
        };
        for _ in 0..REQUESTS {
            scene.compare_one(&mut dice);
        }
        scene.compare_filter(&mut dice);
    }
}

/// Approvals for some subjects, and some rules opened by breaking glass.
fn lift(whole: &Whole<'_>, dice: &mut Dice) -> Lifted {
    let mut lifted = Lifted::default();
    for rule in &whole.rules {
        let time = |dice: &mut Dice| {
            Timestamp::from_secs(
                MONDAY + u64::try_from(dice.below(usize::try_from(WEEK).unwrap())).unwrap(),
            )
        };
        if rule.effect == Effect::Allow && dice.one_in(8) {
            lifted.opened.push((rule.id.to_string(), time(dice)));
        }
        if !rule.approval {
            continue;
        }
        let nodes = (0..NODES).map(|node| format!("n{node}"));
        let others = OPERATORS
            .iter()
            .chain(&DEVICES)
            .map(|name| (*name).to_owned());
        for subject in nodes.chain(others) {
            if dice.one_in(2) {
                lifted
                    .approved
                    .push((rule.id.to_string(), subject, time(dice)));
            }
        }
    }
    lifted
}

fn approvals(lifted: &Lifted) -> Vec<SliceApproval> {
    let of = |(rule, subject, until): &(String, String, Timestamp)| SliceApproval {
        rule: rule.as_str().into(),
        subject: match OPERATORS.contains(&subject.as_str()) {
            true => world::id(Kind::Operator, subject),
            false if DEVICES.contains(&subject.as_str()) => world::id(Kind::Device, subject),
            false => world::id(Kind::Node, subject),
        },
        until: *until,
    };
    lifted.approved.iter().map(of).collect()
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
        let (standing, named) = self.standing(asker, now, dice);
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
                let (text, fits) = protocol.requests[dice.below(protocol.requests.len())];
                let one = dice.one_in(4);
                match one {
                    true => (
                        None,
                        vec![protocol.actions[dice.below(protocol.actions.len())]],
                    ),
                    false => (Some(text), fits.to_vec()),
                }
            }
        };
        let question = Question {
            asker,
            target: &self.target,
            interface: (service, interface),
            actions: actions.into_iter().collect(),
            standing,
            named: &named,
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

    /// Mostly one that the slice knows.
    fn asker(&self, dice: &mut Dice) -> Asker<'_> {
        let slice = self.engine.slice();
        match dice.below(8) {
            0 => Asker::Operator(OPERATORS[dice.below(3)]),
            1 => Asker::Device(DEVICES[dice.below(3)]),
            2 => Asker::Node(NAMES[dice.below(NODES)]),
            3 | 4 if !slice.devices.is_empty() => {
                Asker::Device(slice.devices[dice.below(slice.devices.len())].id.name())
            }
            5 if !slice.operators.is_empty() => {
                Asker::Operator(slice.operators[dice.below(slice.operators.len())].id.name())
            }
            _ if !slice.peers.is_empty() => {
                Asker::Node(slice.peers[dice.below(slice.peers.len())].id.name())
            }
            _ => Asker::Node(NAMES[dice.below(NODES)]),
        }
    }

    /// Mostly one that the node has.
    fn interface(
        &self,
        dice: &mut Dice,
    ) -> (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        Option<usize>,
    ) {
        let known = &self.engine.slice().interfaces;
        if known.is_empty() || dice.one_in(6) {
            return INTERFACES[dice.below(INTERFACES.len())];
        }
        let chosen = &known[dice.below(known.len())];
        let mut all = INTERFACES.into_iter();
        let same =
            all.find(|(service, name, ..)| (*service, *name) == (&*chosen.service, &*chosen.name));
        same.unwrap()
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
            let (standing, named) = self.standing(asker(&id), now, dice);
            (subject, id, standing, named)
        });
        let parties: Vec<_> = parties.collect();
        let subjects: Vec<_> = parties
            .iter()
            .map(|(subject, _, standing, _)| (*subject, *standing))
            .collect();
        let rows = filter::rows(self.engine, &subjects, Link::Online, now);
        for interface in &rows.interfaces {
            let known = &slice.interfaces[interface.interface.0 as usize];
            if known.l7.is_some() {
                continue;
            }
            for (subject, id, standing, named) in &parties {
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
                    standing: *standing,
                    named,
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

    /// Often near something that changes.
    fn time(&self, dice: &mut Dice) -> Timestamp {
        let policy = self.whole;
        let untils = policy.rules.iter().filter_map(|rule| rule.until);
        let lifted = self.lifted.opened.iter().map(|(_, until)| *until);
        let lifted = lifted.chain(self.lifted.approved.iter().map(|(_, _, until)| *until));
        let edges: Vec<Timestamp> = untils.chain(lifted).collect();
        let nearly = millis(dice);
        match dice.below(3) {
            0 if !edges.is_empty() => edges[dice.below(edges.len())]
                .plus(nearly)
                .minus(Duration::from_millis(1)),
            1 if !policy.windows.is_empty() => {
                let window = &policy.windows[dice.below(policy.windows.len())];
                let (_, offset) = cedar::ZONES
                    .into_iter()
                    .find(|(name, _)| *name == window.tz)
                    .unwrap();
                let minute = i64::from(if dice.one_in(2) {
                    window.from
                } else {
                    window.to
                });
                let day = i64::try_from(1 + dice.below(6)).unwrap();
                let minute = u64::try_from(day * 1440 + minute - offset).unwrap();
                Timestamp::from_secs(MONDAY + minute * 60)
                    .plus(nearly)
                    .minus(Duration::from_millis(1))
            }
            _ => {
                let second = dice.below(usize::try_from(WEEK + 2 * 86_400).unwrap());
                Timestamp::from_secs(MONDAY + u64::try_from(second).unwrap())
            }
        }
    }

    fn standing(&self, asker: Asker<'_>, now: Timestamp, dice: &mut Dice) -> (Standing, Named) {
        let profiles = &self.world.profiles;
        let named: Named = match dice.below(6) {
            0 => None,
            _ if profiles.is_empty() => Some(Vec::new()),
            _ => {
                let some = dice.some(profiles);
                Some(
                    some.into_iter()
                        .map(|name| (name, !dice.one_in(4)))
                        .collect(),
                )
            }
        };
        let tier = match asker {
            Asker::Node(name) if !dice.one_in(4) => {
                let nodes = &self.world.fleet.nodes;
                nodes
                    .iter()
                    .find(|node| node.id.name() == name)
                    .map(|node| node.tier)
            }
            _ => {
                let tiers: Vec<_> = cedar::tiers().collect();
                tiers[dice.below(tiers.len())]
            }
        };
        let usual = match asker {
            Asker::Device(_) => AttestationState::Vouched,
            _ => AttestationState::Trusted,
        };
        let state = match dice.one_in(3) {
            true => AttestationState::ALL[dice.below(5)],
            false => usual,
        };
        let age = minutes(dice.minutes());
        let last_pass = match dice.below(8) {
            0 => None,
            1 => Some(now.plus(age)),
            2 => Some(now.minus(age).plus(millis(dice))),
            _ => Some(now.minus(Duration::from_secs(30))),
        };
        let standing = Standing {
            state,
            tier,
            last_pass,
            profiles: self.stated(&named),
        };
        (standing, named)
    }

    /// As a result would say it.
    fn stated(&self, named: &Named) -> Option<StatedProfiles> {
        let label = |(name, now): &(String, bool)| -> ProfileLabel {
            let labels = self.whole.labels;
            match now {
                true => labels
                    .iter()
                    .find(|label| label.name() == name)
                    .unwrap()
                    .clone(),
                false => format!("{name}@0123456789abcdef").parse().unwrap(),
            }
        };
        let labels: Vec<ProfileLabel> = named.as_ref()?.iter().map(label).collect();
        match labels.is_empty() {
            true => Some(StatedProfiles::NONE),
            false => StatedProfiles::parse(&StatedProfiles::text(&labels)?),
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

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// None, one or two.
fn millis(dice: &mut Dice) -> Duration {
    Duration::from_millis(u64::try_from(dice.below(3)).unwrap())
}

fn end() -> Timestamp {
    Timestamp::from_secs(MONDAY + WEEK + 86_400)
}
