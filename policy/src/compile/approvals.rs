//! Who must say yes before a rule counts, and what may be opened with the cloud gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgeward_identity::{Kind, SpiffeId};

use super::CompiledPolicy;
use crate::seconds::Seconds;
use crate::slice::{Slice, SliceBreakGlass};

/// What a rule asks for besides its conditions.
#[derive(Debug)]
pub(crate) struct Approval {
    /// Operator groups.
    pub(crate) by: BTreeSet<usize>,
    pub(crate) quorum: u16,
    pub(crate) ttl: Seconds,
    /// SHA-256 over the rule as it is written: an approval of it is none of another rule under its name.
    pub(crate) digest: [u8; 32],
}

#[derive(Debug)]
pub(crate) struct BreakGlass {
    pub(crate) name: String,
    /// Indices of allow rules, never empty.
    pub(crate) rules: BTreeSet<usize>,
    /// Operator groups.
    pub(crate) by: BTreeSet<usize>,
    pub(crate) quorum: u16,
    pub(crate) ttl: Seconds,
}

/// What it takes to approve a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalTerms {
    pub rule: Arc<str>,
    /// SHA-256 over the rule as it is written.
    pub digest: [u8; 32],
    /// Names of the operators who may, groups flattened.
    pub by: BTreeSet<String>,
    /// How many of them it takes.
    pub quorum: u16,
    /// How long an approval may hold from when it is given.
    pub ttl: Seconds,
}

impl CompiledPolicy {
    /// `None`: there is no such rule, or it asks for none.
    pub fn approval_terms(&self, rule: &str) -> Option<ApprovalTerms> {
        let rule = self.rules.iter().find(|known| *known.id == *rule)?;
        let approval = rule.approval.as_ref()?;
        Some(ApprovalTerms {
            rule: Arc::clone(&rule.id),
            digest: approval.digest,
            by: self.members_of(&approval.by),
            quorum: approval.quorum,
            ttl: approval.ttl,
        })
    }

    /// Whether `[break-glass.<name>]` is in the policy.
    pub fn has_break_glass(&self, name: &str) -> bool {
        self.break_glass.iter().any(|known| known.name == name)
    }

    pub(crate) fn members_of(&self, groups: &BTreeSet<usize>) -> BTreeSet<String> {
        let groups = groups.iter();
        groups
            .filter_map(|group| self.operator_groups.get(*group))
            .flat_map(|group| group.members.iter().cloned())
            .collect()
    }

    /// What break-glass opens on a node: of the rules it names those that let somebody in there, or let the node out.
    pub(super) fn break_glass_of(&self, slice: &Slice) -> Vec<SliceBreakGlass> {
        if self.break_glass.is_empty() {
            return Vec::new();
        }
        let inward = slice
            .interfaces
            .iter()
            .flat_map(|interface| &interface.rows);
        let outward = slice.egress.iter().flat_map(|egress| &egress.rows);
        let here: BTreeSet<&Arc<str>> = inward
            .map(|row| &row.rule)
            .chain(outward.map(|row| &row.rule))
            .collect();
        let domain = slice.node.trust_domain();
        let mut found: Vec<SliceBreakGlass> = self
            .break_glass
            .iter()
            .filter_map(|glass| {
                let rules = glass.rules.iter();
                let rules = rules.filter_map(|rule| self.rules.get(*rule));
                let rules: Vec<Arc<str>> = rules
                    .map(|rule| &rule.id)
                    .filter(|id| here.contains(id))
                    .cloned()
                    .collect();
                let by = self.members_of(&glass.by);
                let by = by
                    .iter()
                    .filter_map(|name| SpiffeId::new(domain, Kind::Operator, name).ok());
                (!rules.is_empty()).then(|| SliceBreakGlass {
                    name: glass.name.clone(),
                    rules,
                    by: by.collect(),
                    quorum: glass.quorum,
                    ttl: glass.ttl,
                    revoked: Vec::new(),
                })
            })
            .collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }
}
