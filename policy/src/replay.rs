//! Recorded decisions asked again of a candidate: which would come out otherwise, and which cannot be told.
//!
//! A record says who asked for what, and mostly how it stood. What it does not say is tried both ways: where the verdict
//! is the same every way, it is told; where it is not, what is missing is named. Evidence is never older than two rounds
//! of attestation while a node is trusted, and the verifier is taken to hear from the cloud. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};
use serde::Serialize;

use crate::compile::CompiledPolicy;
use crate::decision::{Decision, Link, Reason, Request, Standing, Subject, Target};
use crate::engine::Engine;
use crate::fleet::Fleet;
use crate::profile::StatedProfiles;
use crate::runs::MetWants;
use crate::slice::{InterfaceIndex, MESH, Proto};

/// The oldest evidence of a node that is trusted and hears from the cloud: challenges come about every minute.
const TRUSTED_AGE: Duration = Duration::from_secs(120);

/// A decision as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recorded {
    pub subject: SpiffeId,
    /// Whose interface it is.
    pub node: SpiffeId,
    pub place: Place,
    /// `None`: decided when it was opened, before anything was asked for.
    pub action: Option<String>,
    pub state: Option<AttestationState>,
    /// `None`: as the fleet has it.
    pub tier: Option<Tier>,
    pub allowed: bool,
    /// The rule that decided.
    pub rule: Option<String>,
    /// When it was decided last.
    pub at: Timestamp,
}

/// What was to be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Interface {
        service: String,
        name: String,
    },
    /// A port of the tunnel that no interface of that time had.
    Port(Proto, u16),
}

/// What the candidate makes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Same,
    /// Was denied, would be allowed.
    Opens {
        rule: String,
    },
    /// Was allowed, would be denied. The rule: the one that denies, or comes nearest to allowing.
    Closes {
        because: Reason,
        rule: Option<String>,
    },
    /// What would have to be known: `state`, `tier`, `age`, `profile`, `approval`; or `node`: it is not there any more.
    Undecidable {
        missing: Vec<&'static str>,
    },
}

/// Asks a candidate again what was decided once.
pub struct Replay<'a> {
    candidate: &'a CompiledPolicy,
    index: crate::compile::FleetIndex,
    tiers: BTreeMap<&'a SpiffeId, Tier>,
    /// One for each node whose decisions were recorded.
    engines: BTreeMap<SpiffeId, Option<Engine>>,
}

/// What a record leaves open: one of these for each, the first the best.
struct Open {
    states: Vec<AttestationState>,
    tiers: Vec<Option<Tier>>,
    ages: Vec<Option<Timestamp>>,
    profiles: Vec<Option<StatedProfiles>>,
    /// Whether it matters what it runs.
    runs: bool,
}

impl<'a> Replay<'a> {
    pub fn new(candidate: &'a CompiledPolicy, fleet: &'a Fleet) -> Self {
        Self {
            candidate,
            index: candidate.index(fleet),
            tiers: fleet
                .nodes
                .iter()
                .map(|node| (&node.id, node.tier))
                .collect(),
            engines: BTreeMap::new(),
        }
    }

    pub fn ask(&mut self, recorded: &Recorded) -> Outcome {
        let gone = || Outcome::Undecidable {
            missing: vec!["node"],
        };
        let known_tier = self.tiers.get(&recorded.subject).copied();
        if !self.tiers.contains_key(&recorded.node) {
            return gone();
        }
        let Some(engine) = self.engine(&recorded.node) else {
            return gone();
        };
        let open = Open::of(recorded, known_tier, engine);
        let best = decide(engine, recorded, open.best());
        let mut missing = BTreeSet::new();
        for (what, standing) in open.others() {
            if decide(engine, recorded, standing).is_allow() != best.is_allow() {
                missing.insert(what);
            }
        }
        if best.reason == Reason::Approval {
            missing.insert("approval");
        }
        if !missing.is_empty() {
            return Outcome::Undecidable {
                missing: missing.into_iter().collect(),
            };
        }
        match (recorded.allowed, best.is_allow()) {
            (false, true) => Outcome::Opens {
                rule: best.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            },
            (true, false) => Outcome::Closes {
                because: best.reason,
                rule: best.rule.or(best.nearest).map(|rule| rule.to_string()),
            },
            _ => Outcome::Same,
        }
    }

    fn engine(&mut self, node: &SpiffeId) -> Option<&Engine> {
        if !self.engines.contains_key(node) {
            let end = Timestamp::from_millis(u64::MAX);
            let slice = self.candidate.slice_of(&self.index, node, end).ok();
            let engine = slice.and_then(|slice| Engine::new(Arc::new(slice)).ok());
            self.engines.insert(node.clone(), engine);
        }
        self.engines.get(node)?.as_ref()
    }
}

impl Open {
    fn of(recorded: &Recorded, tier: Option<Tier>, engine: &Engine) -> Self {
        let states = match recorded.state {
            Some(state) => vec![state],
            None => AttestationState::ALL.to_vec(),
        };
        let tiers = match recorded.tier.or(tier) {
            Some(tier) => vec![Some(tier)],
            None => Tier::ALL.into_iter().map(Some).collect(),
        };
        let now = recorded.at;
        let ages = match recorded.state {
            Some(AttestationState::Trusted | AttestationState::Vouched) => {
                vec![Some(now), Some(now.minus(TRUSTED_AGE))]
            }
            _ => vec![Some(now), Some(now.minus(TRUSTED_AGE)), None],
        };
        let asked = engine.slice().profiles_asked_for();
        let all = StatedProfiles::text(asked.iter().copied());
        let all = all.and_then(|text| StatedProfiles::of_result(Some(text.as_str())));
        let profiles = match asked.is_empty() {
            true => vec![Some(StatedProfiles::NONE)],
            false => vec![all, Some(StatedProfiles::NONE)],
        };
        Self {
            states,
            tiers,
            ages,
            profiles,
            runs: !engine.wants().is_empty(),
        }
    }

    fn best(&self) -> Standing {
        Standing {
            state: self
                .states
                .first()
                .copied()
                .unwrap_or(AttestationState::None),
            tier: self.tiers.first().copied().flatten(),
            last_pass: self.ages.first().copied().flatten(),
            profiles: self.profiles.first().copied().flatten(),
            runs: Some(MetWants::AT_BEST),
        }
    }

    /// The best but for one thing, with its name.
    fn others(&self) -> Vec<(&'static str, Standing)> {
        let best = self.best();
        let states = self.states.iter().skip(1);
        let states = states.map(|state| {
            (
                "state",
                Standing {
                    state: *state,
                    ..best
                },
            )
        });
        let tiers = self.tiers.iter().skip(1);
        let tiers = tiers.map(|tier| {
            (
                "tier",
                Standing {
                    tier: *tier,
                    ..best
                },
            )
        });
        let ages = self.ages.iter().skip(1);
        let ages = ages.map(|age| {
            let standing = Standing {
                last_pass: *age,
                ..best
            };
            ("age", standing)
        });
        let profiles = self.profiles.iter().skip(1);
        let profiles = profiles.map(|profiles| {
            let standing = Standing {
                profiles: *profiles,
                ..best
            };
            ("profile", standing)
        });
        let runs = self.runs.then_some((
            "runs",
            Standing {
                runs: Some(MetWants::NONE),
                ..best
            },
        ));
        states
            .chain(tiers)
            .chain(ages)
            .chain(profiles)
            .chain(runs)
            .collect()
    }
}

fn decide(engine: &Engine, recorded: &Recorded, standing: Standing) -> Decision {
    let subject = Subject::Id(&recorded.subject);
    let Some(index) = place(engine, &recorded.place) else {
        return engine.refusal(Reason::UnknownInterface);
    };
    let Some(action) = &recorded.action else {
        return engine.admit(subject, standing, index, Link::Online, recorded.at);
    };
    let interface = engine.slice().interfaces.get(index.0 as usize);
    let Some(action) = interface.and_then(|interface| interface.action(action)) else {
        return engine.refusal(Reason::NoAction);
    };
    engine.decide(&Request {
        subject,
        standing,
        target: Target::Interface(index),
        action,
        link: Link::Online,
        now: recorded.at,
    })
}

fn place(engine: &Engine, place: &Place) -> Option<InterfaceIndex> {
    match place {
        Place::Interface { service, name } => engine.interface(service, name),
        Place::Port(proto, port) => engine.interface_at(MESH, *proto, *port),
    }
}

#[cfg(test)]
mod tests;
