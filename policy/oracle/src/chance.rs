//! What is asked: mostly of those whom a slice knows, often near something that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::{AttestationState, Kind, Timestamp};
use edgeward_policy::testing::Whole;
use edgeward_policy::{Effect, MetWants, ProfileLabel, SliceApproval, Standing, StatedProfiles};

use crate::cedar::{self, Asker, Lifted};
use crate::dice::Dice;
use crate::differential::{Named, Running, Scene};
use crate::world::{self, APPS, DEVICES, INTERFACES, MONDAY, NODES, OPERATORS, VERSIONS, WEEK};

pub(crate) const NAMES: [&str; NODES] = ["n0", "n1", "n2", "n3", "n4"];

/// What is known of who asks.
pub(crate) struct Evidence {
    pub(crate) standing: Standing,
    pub(crate) named: Named,
    pub(crate) running: Running,
}

/// Approvals for some subjects, and some rules opened by breaking glass.
pub(crate) fn lift(whole: &Whole<'_>, dice: &mut Dice) -> Lifted {
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

pub(crate) fn approvals(lifted: &Lifted) -> Vec<SliceApproval> {
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
    /// Mostly one that the slice knows.
    pub(crate) fn asker(&self, dice: &mut Dice) -> Asker<'_> {
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
    pub(crate) fn interface(
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

    /// Often near something that changes.
    pub(crate) fn time(&self, dice: &mut Dice) -> Timestamp {
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

    pub(crate) fn standing(&self, asker: Asker<'_>, now: Timestamp, dice: &mut Dice) -> Evidence {
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
        let (runs, running) = self.running(dice);
        let standing = Standing {
            state,
            tier,
            last_pass,
            profiles: self.stated(&named),
            runs,
        };
        Evidence {
            standing,
            named,
            running,
        }
    }

    /// As the engine is told, and as it is. What was reckoned for another node's rules is unknown under these.
    fn running(&self, dice: &mut Dice) -> (Option<MetWants>, Running) {
        if dice.one_in(5) {
            return (None, None);
        }
        let mut running = BTreeMap::new();
        for app in APPS {
            if !dice.one_in(3) {
                running.insert(app, dice.below(VERSIONS.len()));
            }
        }
        let told: BTreeMap<String, String> = running
            .iter()
            .map(|(app, version)| ((*app).to_owned(), VERSIONS[*version].to_owned()))
            .collect();
        let wants = self.engine.wants();
        let others = dice.one_in(6) && self.other_wants != wants;
        match others {
            true => (Some(self.other_wants.met_by(&told)), None),
            false => (Some(wants.met_by(&told)), Some(running)),
        }
    }

    /// As a result would say it.
    pub(crate) fn stated(&self, named: &Named) -> Option<StatedProfiles> {
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

pub(crate) fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// None, one or two.
pub(crate) fn millis(dice: &mut Dice) -> Duration {
    Duration::from_millis(u64::try_from(dice.below(3)).unwrap())
}
