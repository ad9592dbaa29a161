//! Why one request is allowed or denied: every rule of the interface, dimension by dimension.
//!
//! A second reading of the rows, beside the engine's: where the two do not come to the same verdict, nothing is said
//! but that.

use std::fmt;

use edgeward_identity::{Kind, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decision::{Link, Standing, Subject, Verdict};
use crate::engine::Engine;
use crate::l7::ActionSet;
use crate::seconds::Seconds;
use crate::slice::{Effect, InterfaceIndex, Row, Slice, SliceInterface};

mod dimensions;

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    pub subject: &'q SpiffeId,
    pub standing: Standing,
    pub interface: InterfaceIndex,
    /// One action, or all that a request of the interface's protocol fits.
    pub actions: ActionSet,
    pub link: Link,
    pub now: Timestamp,
}

/// The verdict, and how near every rule came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub verdict: Verdict,
    /// The engine's reason, in its stable words.
    pub reason: String,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Every rule of the interface: what decides first, then what came nearest.
    pub rules: Vec<RuleSaid>,
}

/// One rule about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSaid {
    pub rule: String,
    pub effect: Effect,
    /// Every dimension holds.
    pub in_force: bool,
    pub dimensions: Vec<Dimension>,
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// `who`, `where`, `what`, `state`, `tier`, `profile`, `runs`, `approval`, `age`, `window` or `until`.
    pub name: String,
    pub holds: bool,
    pub found: String,
    pub wanted: String,
}

/// No explanation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    #[error("this node has no such interface")]
    NoInterface,
    /// Our fault.
    #[error("the explanation and the engine disagree: engine {engine}, explanation {explanation}")]
    Disagree {
        engine: &'static str,
        explanation: &'static str,
    },
}

/// Explains one request as a node's engine decides it.
pub fn explain(engine: &Engine, question: &Question<'_>) -> Result<Explanation, Unexplained> {
    let slice = engine.slice();
    let index = question.interface.0 as usize;
    let interface = slice
        .interfaces
        .get(index)
        .ok_or(Unexplained::NoInterface)?;
    let facts = Facts::new(engine, interface, question);
    let mut rules: Vec<RuleSaid> = interface
        .rows
        .iter()
        .map(|row| {
            let dimensions = facts.dimensions(row);
            RuleSaid {
                rule: row.rule.to_string(),
                effect: row.effect,
                in_force: dimensions.iter().all(|dimension| dimension.holds),
                dimensions,
            }
        })
        .collect();
    let decision = engine.decide_actions(
        Subject::Id(question.subject),
        question.standing,
        (question.interface, question.actions),
        question.link,
        question.now,
    );
    let in_force = |effect: Effect| {
        let mut rules = rules.iter();
        rules.any(|said| said.in_force && said.effect == effect)
    };
    let expired = question.now >= slice.expires;
    let allows = in_force(Effect::Allow) && !in_force(Effect::Deny) && !expired;
    if allows != decision.is_allow() {
        let verdict = |allow| if allow { Verdict::Allow } else { Verdict::Deny };
        return Err(Unexplained::Disagree {
            engine: decision.verdict.as_str(),
            explanation: verdict(allows).as_str(),
        });
    }
    let decider = decision.rule.as_ref().map(ToString::to_string);
    rules.sort_by_key(|said| {
        let missed = said.dimensions.iter().filter(|one| !one.holds).count();
        // Who comes first: a rule about somebody else explains little, however near it is otherwise.
        let about = said.dimensions.first().is_some_and(|who| who.holds);
        let what = said.dimensions.get(2).is_some_and(|what| what.holds);
        let decides = Some(&said.rule) == decider.as_ref();
        (
            !decides,
            !said.in_force,
            !about,
            !what,
            missed,
            said.rule.clone(),
        )
    });
    Ok(Explanation {
        verdict: decision.verdict,
        reason: decision.reason.to_string(),
        rule: decider,
        rules,
    })
}

/// What is found, against which rows are held.
struct Facts<'f> {
    engine: &'f Engine,
    slice: &'f Slice,
    interface: &'f SliceInterface,
    question: &'f Question<'f>,
    kind: Kind,
    /// Numbers of the subject's groups; `None`: not known here.
    groups: Option<Vec<u32>>,
    /// `fresh` and `offline` of its profiles.
    terms: (Option<Seconds>, Option<Seconds>),
}

impl<'f> Facts<'f> {
    fn new(engine: &'f Engine, interface: &'f SliceInterface, question: &'f Question<'f>) -> Self {
        let slice: &Slice = engine.slice();
        let id = question.subject;
        let peer = slice.peers.iter().find(|peer| peer.id == *id);
        let operator = slice.operators.iter().find(|operator| operator.id == *id);
        let device = slice.devices.iter().find(|device| device.id == *id);
        let groups = peer
            .map(|peer| &peer.groups)
            .or(operator.map(|operator| &operator.groups))
            .or(device.map(|device| &device.groups));
        Self {
            engine,
            slice,
            interface,
            question,
            kind: id.kind(),
            groups: groups.map(|groups| groups.iter().map(|group| group.0).collect()),
            terms: peer.map_or((None, None), |peer| (peer.fresh, peer.offline)),
        }
    }

    fn dimensions(&self, row: &Row) -> Vec<Dimension> {
        let mut found = vec![self.who(row), self.place(), self.what(row)];
        found.push(self.state(row));
        found.push(self.tier(row));
        found.extend(self.profile(row));
        found.extend(self.runs(row));
        found.extend(self.approval(row));
        found.extend(self.age(row));
        found.extend(self.window(row));
        found.extend(self.until(row));
        found
    }
}

impl fmt::Display for Explanation {
    /// The verdict, then each rule with what it missed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.reason)?;
        if let Some(rule) = &self.rule {
            write!(f, ", by rule {rule}")?;
        }
        for said in &self.rules {
            write!(f, "\n{said}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleSaid {
    /// The rule, then each dimension.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        let word = match self.in_force {
            true => "in force",
            false => "not in force",
        };
        write!(f, "  {} ({effect}): {word}", self.rule)?;
        for dimension in &self.dimensions {
            let mark = if dimension.holds { "ok  " } else { "MISS" };
            write!(
                f,
                "\n    {mark} {:<8} {}; wanted {}",
                dimension.name, dimension.found, dimension.wanted
            )?;
        }
        Ok(())
    }
}
