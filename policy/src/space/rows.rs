//! One rule as it bears on one interface, in the words that two policies share.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgeward_identity::Timestamp;

use super::cells::{Cell, Members};
use super::side::Side;
use crate::compile::Rule;
use crate::profile::ProfileLabel;
use crate::runs::Wants;
use crate::slice::{Effect, States, Term, Tiers};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpaceRow {
    pub(super) rule: Arc<str>,
    pub(super) effect: Effect,
    pub(super) any: bool,
    /// Numbers of groups among those of both policies.
    pub(super) groups: BTreeSet<usize>,
    /// Names, groups flattened.
    pub(super) operators: BTreeSet<String>,
    pub(super) actions: BTreeSet<String>,
    pub(super) window: Option<usize>,
    pub(super) until: Option<Timestamp>,
    pub(super) tiers: Tiers,
    pub(super) states: States,
    pub(super) profiles: Option<BTreeSet<ProfileLabel>>,
    pub(super) runs: Vec<Wants>,
    /// Digest of the rule, to which approvals are bound.
    pub(super) approval: Option<[u8; 32]>,
    pub(super) fresh: Term,
    pub(super) offline: Term,
}

impl SpaceRow {
    /// `None` for a rule that names none of the interface's actions.
    pub(super) fn new(side: &Side<'_>, rule: &Rule, actions: &[&str]) -> Option<Self> {
        let named: BTreeSet<String> = actions
            .iter()
            .filter(|name| rule.actions.iter().any(|action| action == *name))
            .map(|name| (*name).to_owned())
            .collect();
        if named.is_empty() {
            return None;
        }
        let policy = side.policy;
        let profiles = rule.profiles.as_ref().map(|indices| {
            let labels = indices.iter().filter_map(|index| policy.labels.get(*index));
            labels.cloned().collect()
        });
        Some(Self {
            rule: Arc::clone(&rule.id),
            effect: rule.effect,
            any: rule.from.any,
            groups: rule
                .from
                .groups
                .iter()
                .filter_map(|group| side.groups.get(*group).copied())
                .collect(),
            operators: rule
                .from
                .operator_groups
                .iter()
                .filter_map(|group| policy.operator_groups.get(*group))
                .flat_map(|group| group.members.iter().cloned())
                .collect(),
            actions: named,
            window: rule
                .window
                .and_then(|window| side.windows.get(window).copied()),
            until: rule.until,
            tiers: rule.tiers.clone(),
            states: rule.states.clone(),
            profiles,
            runs: rule
                .runs
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            approval: rule.approval.as_ref().map(|approval| approval.digest),
            fresh: rule.fresh,
            offline: rule.offline,
        })
    }

    pub(super) fn is_allow(&self) -> bool {
        self.effect == Effect::Allow
    }

    pub(super) fn is_about(&self, cell: &Cell, side: &Side<'_>) -> bool {
        match &cell.members {
            Members::Node(groups) => self.any || !self.groups.is_disjoint(groups),
            Members::Device(device) => {
                let groups = device.groups.get(side.number).and_then(Option::as_ref);
                // Who comes through another node is let in by name only.
                let any = self.any && !(device.offered.is_none() && self.is_allow());
                groups.is_some_and(|groups| any || !self.groups.is_disjoint(groups))
            }
            Members::Operator(name) => {
                self.operators.contains(name)
                    || (self.any && side.operators.contains(name.as_str()))
            }
        }
    }
}
