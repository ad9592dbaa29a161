//! Reading rows straight: which decides, why, for how long, and which came nearest.

use std::sync::Arc;

use edgeward_identity::Timestamp;

use super::condition::{Facts, Judged, judge};
use super::guests::Comes;
use crate::decision::{Decision, Reason, Verdict};
use crate::seconds::Seconds;
use crate::slice::{ActionId, Effect, Profiles, Row, Sources, States, Tiers};
use crate::window::Schedule;

/// Where the rows of one interface are found by the group they name.
pub(crate) struct InterfaceRows {
    /// Sorted pairs (group, row).
    by_group: Vec<(u32, usize)>,
    /// Rows about everybody.
    everybody: Vec<usize>,
}

/// A decision, and the rows in force that it came from.
pub(crate) struct Explained {
    pub(crate) decision: Decision,
    /// Rows about this subject whose conditions hold.
    pub(crate) active: Vec<usize>,
}

impl InterfaceRows {
    pub(crate) fn new(rows: &[Row]) -> Self {
        let mut by_group = Vec::new();
        let mut everybody = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            match &row.from {
                Sources::Any => everybody.push(index),
                Sources::Groups(groups) => by_group.extend(groups.iter().map(|id| (id.0, index))),
            }
        }
        by_group.sort_unstable();
        Self {
            by_group,
            everybody,
        }
    }

    pub(crate) fn explain(
        &self,
        rows: &[Row],
        (members, comes): (&[u32], Comes),
        action: ActionId,
        facts: &Facts<'_>,
        schedules: &[Schedule],
        expires: Timestamp,
    ) -> Explained {
        let about: Vec<(usize, &Row, Judged)> = self
            .about(members)
            .into_iter()
            .filter_map(|index| Some((index, rows.get(index)?)))
            .filter(|(_, row)| is_meant(row, comes))
            .filter(|(_, row)| row.actions.contains(&action))
            .map(|(index, row)| (index, row, judge(row, facts, schedules)))
            .collect();
        let active = about
            .iter()
            .filter(|(_, _, judged)| judged.active)
            .map(|(index, ..)| *index)
            .collect();
        Explained {
            decision: combine(&about, expires),
            active,
        }
    }

    /// Rows about a member of these groups, in order.
    fn about(&self, members: &[u32]) -> Vec<usize> {
        let mut rows = self.everybody.clone();
        for member in members {
            let start = self.by_group.partition_point(|(group, _)| group < member);
            let of_member = self.by_group.iter().skip(start);
            rows.extend(
                of_member
                    .take_while(|(group, _)| group == member)
                    .map(|(_, row)| *row),
            );
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// Whom nobody but another node's word tells apart is let in by name only.
fn is_meant(row: &Row, comes: Comes) -> bool {
    let lets_anybody_in = row.effect == Effect::Allow && row.from == Sources::Any;
    !(comes == Comes::AsGuest && lets_anybody_in)
}

/// The decision of a single allow.
pub(crate) fn of_one_allow(rule: &Arc<str>, judged: &Judged, expires: Timestamp) -> Decision {
    let valid_until = judged.next_change.map_or(expires, |next| next.min(expires));
    match judged.first_failure {
        None => allow(rule, judged, valid_until),
        Some(reason) => by_default(Some(Arc::clone(rule)), reason, valid_until),
    }
}

/// Deny wins, else any allow, else deny.
fn combine(about: &[(usize, &Row, Judged)], expires: Timestamp) -> Decision {
    let soonest = |effect: Option<Effect>| {
        about
            .iter()
            .filter(|(_, row, _)| effect.is_none_or(|effect| row.effect == effect))
            .filter_map(|(_, _, judged)| judged.next_change)
            .fold(expires, Timestamp::min)
    };
    let in_force = |effect: Effect| {
        about
            .iter()
            .filter(move |(_, row, judged)| row.effect == effect && judged.active)
    };
    if let Some((_, row, _)) = in_force(Effect::Deny).next() {
        return Decision {
            verdict: Verdict::Deny,
            rule: Some(Arc::clone(&row.rule)),
            nearest: None,
            reason: reason_of_deny(row),
            valid_until: soonest(None),
            fresh: Seconds::default(),
            offline: Seconds::default(),
        };
    }
    // The allow that lasts longest speaks; the first of equals, so that the answer is always the same one.
    let lasting = |judged: &Judged| judged.next_change.unwrap_or(expires).min(expires);
    let longest = in_force(Effect::Allow).reduce(|best, other| {
        if lasting(&other.2) > lasting(&best.2) {
            other
        } else {
            best
        }
    });
    if let Some((_, row, judged)) = longest {
        let valid_until = lasting(judged).min(soonest(Some(Effect::Deny)));
        return allow(&row.rule, judged, valid_until);
    }
    let nearest = about
        .iter()
        .filter(|(_, row, _)| row.effect == Effect::Allow)
        .min_by_key(|(_, _, judged)| judged.failed);
    match nearest {
        Some((_, row, judged)) => by_default(
            Some(Arc::clone(&row.rule)),
            judged.first_failure.unwrap_or(Reason::Internal),
            soonest(None),
        ),
        None => by_default(None, Reason::NoRule, soonest(None)),
    }
}

/// A deny that is about a state, tier, profile or window is explained by it.
fn reason_of_deny(row: &Row) -> Reason {
    if matches!(row.states, States::Unless(_)) {
        Reason::State
    } else if matches!(row.tiers, Tiers::These(_)) {
        Reason::Tier
    } else if matches!(row.profiles, Profiles::These(_)) {
        Reason::Profile
    } else if row.window.is_some() {
        Reason::Window
    } else {
        Reason::Rule
    }
}

fn allow(rule: &Arc<str>, judged: &Judged, valid_until: Timestamp) -> Decision {
    Decision {
        verdict: Verdict::Allow,
        rule: Some(Arc::clone(rule)),
        nearest: None,
        reason: Reason::Allowed,
        valid_until,
        fresh: judged.fresh,
        offline: judged.offline,
    }
}

fn by_default(nearest: Option<Arc<str>>, reason: Reason, valid_until: Timestamp) -> Decision {
    Decision {
        verdict: Verdict::Deny,
        rule: None,
        nearest,
        reason,
        valid_until,
        fresh: Seconds::default(),
        offline: Seconds::default(),
    }
}
