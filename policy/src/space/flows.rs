//! Which recorded flows a candidate would end.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Timestamp};
use serde::Serialize;

use crate::compile::CompiledPolicy;
use crate::decision::{Decision, Link, Reason, Request, Standing, Subject, Target};
use crate::engine::Engine;
use crate::fleet::{Fleet, FleetNode};
use crate::profile::{Mode, Profile, StatedProfiles};
use crate::runs::MetWants;

/// One flow that was allowed, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flow {
    pub subject: SpiffeId,
    /// The node that let it in.
    pub node: SpiffeId,
    pub service: String,
    pub interface: String,
    /// `None`: recorded when it was opened, before anything was asked for.
    pub action: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<String>,
}

/// A flow that a candidate would end, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Closing {
    pub flow: Flow,
    /// In the engine's stable words.
    pub because: String,
    /// The rule that would deny it, or that comes nearest to allowing it.
    pub rule: Option<String>,
}

/// The flows that a candidate would not allow, in their order. Everybody is taken to stand as well as the candidate
/// lets it: in the tier that the fleet has it, just attested, with the profiles of its groups. So what is listed ends
/// because of the candidate, not because of somebody's state. Each kind of flow is listed once.
pub fn closing(
    flows: &[Flow],
    candidate: &CompiledPolicy,
    fleet: &Fleet,
    now: Timestamp,
) -> Vec<Closing> {
    let index = candidate.index(fleet);
    let nodes: BTreeMap<&SpiffeId, &FleetNode> =
        fleet.nodes.iter().map(|node| (&node.id, node)).collect();
    let end = Timestamp::from_millis(u64::MAX);
    let mut engines: BTreeMap<&SpiffeId, Option<Engine>> = BTreeMap::new();
    let mut found: Vec<Closing> = Vec::new();
    for flow in flows {
        if found.iter().any(|closing| closing.flow == *flow) {
            continue;
        }
        let engine = engines.entry(&flow.node).or_insert_with(|| {
            let slice = candidate.slice_of(&index, &flow.node, end).ok()?;
            Engine::new(Arc::new(slice)).ok()
        });
        let decision = engine.as_ref().map(|engine| {
            let standing = best_standing(candidate, nodes.get(&flow.subject).copied(), flow, now);
            decide(engine, flow, standing, now)
        });
        let (because, rule) = match decision {
            None => (Reason::UnknownInterface, None),
            Some(decision) if decision.is_allow() => continue,
            Some(decision) => (decision.reason, decision.rule.or(decision.nearest)),
        };
        found.push(Closing {
            flow: flow.clone(),
            because: because.to_string(),
            rule: rule.map(|rule| rule.to_string()),
        });
    }
    found
}

fn decide(engine: &Engine, flow: &Flow, standing: Standing, now: Timestamp) -> Decision {
    let Some(index) = engine.interface(&flow.service, &flow.interface) else {
        return engine.refusal(Reason::UnknownInterface);
    };
    let subject = Subject::Id(&flow.subject);
    let Some(action) = &flow.action else {
        return engine.admit(subject, standing, index, Link::Online, now);
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
        now,
    })
}

fn best_standing(
    candidate: &CompiledPolicy,
    node: Option<&FleetNode>,
    flow: &Flow,
    now: Timestamp,
) -> Standing {
    let profiles = node.map(|node| candidate.profiles_for(&node.labels));
    let profiles = profiles.unwrap_or_default();
    let enforced = profiles.iter().any(|profile| profile.mode == Mode::Enforce);
    let compared = profiles
        .into_iter()
        .filter(|profile| profile.compares() && (!enforced || profile.mode == Mode::Enforce));
    let labels: Vec<_> = compared.map(Profile::label).collect();
    let stated = match StatedProfiles::text(&labels).as_deref() {
        None => None,
        Some("") => Some(StatedProfiles::NONE),
        Some(text) => StatedProfiles::parse(text),
    };
    let software = node.is_some_and(|node| node.tier == edgeward_identity::Tier::Software);
    Standing {
        state: match flow.subject.kind() {
            Kind::Device => AttestationState::Vouched,
            _ if software => AttestationState::None,
            _ => AttestationState::Trusted,
        },
        // Operators and devices stand as a node does: as well as any.
        tier: Some(node.map_or(edgeward_identity::Tier::Hardware, |node| node.tier)),
        last_pass: Some(now),
        profiles: stated,
        runs: Some(MetWants::AT_BEST),
    }
}
