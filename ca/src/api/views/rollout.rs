//! Policies that come into force by stages, as the API says them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::hub::Progress;
use crate::rollout::{BEFORE, Phase};
use crate::when::When;

/// How a policy is to come into force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyStage {
    /// Shares of the nodes in percent, rising to 100.
    pub percent: Vec<u8>,
    /// How long each stage is held.
    pub hold_seconds: u64,
    /// As `signature`, over the next number and the policy that is in force now: with it the cloud may go back by itself,
    /// where that opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_signature: Option<String>,
}

/// `POST /api/v1/policies/stage/abort`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyAbort {
    /// The number under which the policy before the staged one is in force again.
    pub number: u64,
    /// As for applying it.
    pub signature: String,
}

/// `POST /api/v1/policies/rollback`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRollback {
    /// The policy whose sources are applied again.
    pub to: u64,
    /// The number that they get now.
    pub number: u64,
    /// As for applying it.
    pub signature: String,
}

/// A policy that is being tried.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    pub number: u64,
    /// What is in force for the other nodes.
    pub base: u64,
    /// `holding` or `paused`.
    pub phase: String,
    /// Why it is paused.
    pub why: Option<String>,
    /// Share of this stage.
    pub percent: u8,
    pub stages: Vec<u8>,
    pub hold_seconds: u64,
    pub begun: When,
    /// When this stage began.
    pub entered: When,
    /// When it goes on by itself; none while it is paused.
    pub next: Option<When>,
    /// Nodes on which it is tried; at most 100 are named.
    pub nodes: Vec<String>,
    pub node_count: u64,
    pub connected: u64,
    pub other_nodes: u64,
    /// What it is to the policy before it: `same`, `narrower`, `wider` or `mixed`.
    pub change: String,
    /// Whether rising denials take it back; otherwise they only pause it.
    pub returns_by_itself: bool,
    pub denials: DenialsView,
}

/// Reports of denied flows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DenialsView {
    /// By nodes of the stage since it began.
    pub found: u64,
    /// By how many they would be expected, after what these nodes showed before and what the others show now.
    pub expected: u64,
    /// More than this stops the stage.
    pub tolerated: u64,
    /// Whether they are asked about in this stage: not again after it was resumed.
    pub watched: bool,
    /// By these nodes in the time before the first stage.
    pub before: u64,
    pub before_seconds: u64,
    /// By the other nodes since the stage began.
    pub others: u64,
}

impl RolloutView {
    /// Most names of nodes.
    const MAX_NODES: usize = 100;

    pub(crate) fn of(progress: Progress) -> Self {
        let (rollout, denials) = (progress.rollout, progress.denials);
        Self {
            number: rollout.number,
            base: rollout.base,
            phase: rollout.phase.as_str().to_owned(),
            why: match &rollout.phase {
                Phase::Paused(why) => Some(why.clone()),
                _ => None,
            },
            percent: rollout.percent().get(),
            stages: rollout.plan.steps().iter().map(|step| step.get()).collect(),
            hold_seconds: rollout.plan.hold().as_secs(),
            begun: rollout.begun.into(),
            entered: rollout.entered.into(),
            next: (rollout.phase == Phase::Holding).then(|| rollout.due().into()),
            node_count: denials.staged.nodes,
            nodes: progress.nodes.into_iter().take(Self::MAX_NODES).collect(),
            connected: u64::try_from(progress.connected).unwrap_or(u64::MAX),
            other_nodes: denials.others.nodes,
            change: change_word(rollout.change).to_owned(),
            returns_by_itself: rollout.returns_by_itself(),
            denials: DenialsView {
                found: denials.staged.now,
                expected: denials.expected(),
                tolerated: denials.tolerated(),
                watched: rollout.watched,
                before: denials.staged.before,
                before_seconds: BEFORE.as_secs(),
                others: denials.others.now,
            },
        }
    }
}

fn change_word(change: edgeward_policy::space::Change) -> &'static str {
    use edgeward_policy::space::Change;
    match change {
        Change::Same => "same",
        Change::Narrower => "narrower",
        Change::Wider => "wider",
        Change::Mixed => "mixed",
    }
}
