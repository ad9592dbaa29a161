//! What lifts conditions of single rules for a while: approvals that came with the slice, and rules that break-glass
//! opened on this node.

use std::collections::HashMap;
use std::sync::Arc;

use edgeward_identity::{SpiffeId, Timestamp};

use crate::slice::Slice;

/// A rule that break-glass opened on this node: its window, end, approval and age are waived. Who, what, state, tier,
/// profile and every deny stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub rule: Arc<str>,
    pub until: Timestamp,
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Looked up by rule, when a row is judged.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    opened: Map<Arc<str>, Timestamp>,
    /// By rule, then by the subject's number.
    approvals: Map<Arc<str>, Map<usize, Timestamp>>,
    /// Rules for which this node itself has an approval.
    own: Map<Arc<str>, Timestamp>,
}

impl Openings {
    /// `subjects` are the numbers that the engine gave to those it knows. An approval for somebody else is none.
    pub(crate) fn new(slice: &Slice, subjects: &Map<SpiffeId, usize>, opened: &[Opened]) -> Self {
        let mut openings = Self::default();
        for one in opened {
            later(
                openings.opened.entry(Arc::clone(&one.rule)).or_default(),
                one.until,
            );
        }
        for approval in &slice.approvals {
            let rule = Arc::clone(&approval.rule);
            if approval.subject == slice.node {
                later(openings.own.entry(rule).or_default(), approval.until);
            } else if let Some(subject) = subjects.get(&approval.subject) {
                let of_rule = openings.approvals.entry(rule).or_default();
                later(of_rule.entry(*subject).or_default(), approval.until);
            }
        }
        openings
    }

    /// Until when a rule is open, if it is now.
    pub(crate) fn opened(&self, rule: &str, now: Timestamp) -> Option<Timestamp> {
        if self.opened.is_empty() {
            return None;
        }
        self.opened.get(rule).copied().filter(|until| now < *until)
    }

    /// Until when a subject has, or had, an approval.
    pub(crate) fn approved(&self, rule: &str, subject: usize) -> Option<Timestamp> {
        self.approvals.get(rule)?.get(&subject).copied()
    }

    /// Until when this node itself has, or had, an approval.
    pub(crate) fn approved_here(&self, rule: &str) -> Option<Timestamp> {
        self.own.get(rule).copied()
    }
}

fn later(held: &mut Timestamp, until: Timestamp) {
    *held = (*held).max(until);
}
