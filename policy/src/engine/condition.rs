//! The conditions of a row that depend on time and on evidence, evaluated before the matcher is asked.
//!
//! A condition that cannot be evaluated fails an allow and matches a deny.

use edgeward_identity::{AttestationState, Kind, Tier, Timestamp};

use crate::decision::{Link, Reason, Standing};
use crate::profile::StatedProfiles;
use crate::runs::AllWants;
use crate::seconds::Seconds;
use crate::slice::{Effect, EgressRow, Profiles, Row, States, Tiers};
use crate::window::Schedule;

use super::openings::Openings;

/// What is known of a subject when its rows are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'e> {
    /// The number that the engine gave it.
    pub(crate) subject: usize,
    pub(crate) kind: Kind,
    pub(crate) standing: Standing,
    /// What its profiles allow at most.
    pub(crate) profile: ProfileTerms,
    pub(crate) link: Link,
    pub(crate) now: Timestamp,
    pub(crate) openings: &'e Openings,
    pub(crate) wants: &'e AllWants,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProfileTerms {
    pub(crate) fresh: Option<Seconds>,
    pub(crate) offline: Option<Seconds>,
}

/// One row, judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) active: bool,
    /// How many conditions failed, and the first of them.
    pub(crate) failed: u8,
    pub(crate) first_failure: Option<Reason>,
    /// When time alone may change this judgement; `None`: never.
    pub(crate) next_change: Option<Timestamp>,
    pub(crate) fresh: Seconds,
    pub(crate) offline: Seconds,
}

/// `None`: cannot be told.
type Answer = Option<bool>;

pub(crate) fn judge(row: &Row, facts: &Facts<'_>, schedules: &[Schedule]) -> Judged {
    let mut judged = Judged::of_terms(
        row.fresh.for_profile(facts.profile.fresh),
        row.offline.for_profile(facts.profile.offline),
    );
    judged.note(row.effect, Reason::State, state_matches(&row.states, facts));
    judged.note(
        row.effect,
        Reason::Tier,
        tier_matches(&row.tiers, facts.standing.tier),
    );
    judged.note(
        row.effect,
        Reason::Profile,
        profile_matches(&row.profiles, facts.standing.profiles),
    );
    judged.note(
        row.effect,
        Reason::Runs,
        facts.wants.answer(&row.runs, facts.standing.runs),
    );
    // Only an allow is ever opened: a deny stays whatever glass is broken.
    if row.effect == Effect::Allow
        && let Some(until) = facts.openings.opened(&row.rule, facts.now)
    {
        judged.open_until(until, facts);
        return judged;
    }
    if row.approval {
        let until = facts.openings.approved(&row.rule, facts.subject);
        judged.note_approval(row.effect, until, facts.now);
    }
    if row.effect == Effect::Allow {
        let names_age = row.fresh.own.is_some() || row.offline.own.is_some();
        judged.note_age(facts, names_age);
    }
    judged.note_time(row.effect, row.window, row.until, facts.now, schedules);
    judged
}

/// The terms under which this side opens its own filter towards a peer: the peer must have proved itself too. `device`
/// is the number of who goes there, if it is not this node itself.
pub(crate) fn judge_towards_peer(
    row: &EgressRow,
    software_named: bool,
    facts: &Facts<'_>,
    device: Option<usize>,
    schedules: &[Schedule],
) -> Judged {
    let mut judged = Judged::of_terms(
        row.fresh.for_profile(facts.profile.fresh),
        row.offline.for_profile(facts.profile.offline),
    );
    let (state, tier) = (facts.standing.state, facts.standing.tier);
    let proven =
        state == AttestationState::Trusted && tier.is_some_and(|tier| tier != Tier::Software);
    let unrooted =
        software_named && state == AttestationState::None && tier == Some(Tier::Software);
    judged.note(Effect::Allow, Reason::State, Some(proven || unrooted));
    // What was opened on the peer says nothing here: without glass broken on this side, too, this side's terms hold.
    if let Some(until) = facts.openings.opened(&row.rule, facts.now) {
        judged.open_until(until, facts);
        return judged;
    }
    if row.approval {
        let until = match device {
            Some(device) => facts.openings.approved(&row.rule, device),
            None => facts.openings.approved_here(&row.rule),
        };
        judged.note_approval(Effect::Allow, until, facts.now);
    }
    judged.note_age(facts, false);
    judged.note_time(Effect::Allow, row.window, row.until, facts.now, schedules);
    judged
}

impl Judged {
    fn of_terms(fresh: Seconds, offline: Seconds) -> Self {
        Self {
            active: true,
            failed: 0,
            first_failure: None,
            next_change: None,
            fresh,
            offline,
        }
    }

    /// Time and age are waived until then. The terms grow by as much, since leases are reckoned from them.
    fn open_until(&mut self, until: Timestamp, facts: &Facts<'_>) {
        self.changes_at(facts.now, until);
        let pass = facts.standing.last_pass.unwrap_or(facts.now).min(facts.now);
        let heard = match facts.link {
            Link::Online => pass,
            Link::Offline { last_heartbeat } => pass.min(last_heartbeat),
        };
        let reaching = |since: Timestamp| Seconds::new(until.since(since).as_secs());
        self.fresh = self.fresh.max(reaching(pass));
        self.offline = self.offline.max(reaching(heard));
    }

    fn note_approval(&mut self, effect: Effect, until: Option<Timestamp>, now: Timestamp) {
        let holds = until.is_some_and(|until| now < until);
        self.note(effect, Reason::Approval, Some(holds));
        if let Some(until) = until {
            self.changes_at(now, until);
        }
    }

    fn note(&mut self, effect: Effect, reason: Reason, answer: Answer) {
        let holds = answer.unwrap_or(effect == Effect::Deny);
        if !holds {
            self.active = false;
            self.failed += 1;
            self.first_failure.get_or_insert(reason);
        }
    }

    fn note_age(&mut self, facts: &Facts<'_>, names_age: bool) {
        match age_limit(facts, names_age, self.fresh, self.offline) {
            AgeLimit::None => {}
            AgeLimit::Unknown => self.note(Effect::Allow, Reason::Age, None),
            AgeLimit::Until(limit) => {
                self.note(Effect::Allow, Reason::Age, Some(facts.now < limit));
                self.changes_at(facts.now, limit);
            }
        }
    }

    fn note_time(
        &mut self,
        effect: Effect,
        window: Option<u32>,
        until: Option<Timestamp>,
        now: Timestamp,
        schedules: &[Schedule],
    ) {
        if let Some(index) = window {
            let schedule = schedules.get(index as usize);
            self.note(
                effect,
                Reason::Window,
                schedule.and_then(|s| s.is_open(now)),
            );
            if let Some(edge) = schedule.and_then(|s| s.next_edge(now)) {
                self.changes_at(now, edge);
            }
        }
        if let Some(until) = until {
            self.note(effect, Reason::Until, Some(now < until));
            self.changes_at(now, until);
        }
    }

    fn changes_at(&mut self, now: Timestamp, edge: Timestamp) {
        if edge > now {
            self.next_change = Some(self.next_change.map_or(edge, |next| next.min(edge)));
        }
    }
}

enum AgeLimit {
    /// Nothing that ages.
    None,
    /// No pass is known.
    Unknown,
    Until(Timestamp),
}

/// Up to when the evidence counts. Only a state that rests on a pass ages, unless the row names an age itself; cut
/// off from the cloud everything ages, for news of a revocation cannot arrive.
fn age_limit(facts: &Facts<'_>, names_age: bool, fresh: Seconds, offline: Seconds) -> AgeLimit {
    let rests_on_a_pass = matches!(
        facts.standing.state,
        AttestationState::Trusted | AttestationState::Vouched
    );
    // A time ahead of ours is a clock's error: it must not lengthen anything.
    let pass = facts.standing.last_pass.map(|pass| pass.min(facts.now));
    match (facts.link, pass) {
        (_, None) if rests_on_a_pass || names_age => AgeLimit::Unknown,
        (Link::Online, Some(pass)) if rests_on_a_pass || names_age => {
            AgeLimit::Until(pass.plus(fresh.as_duration()))
        }
        (Link::Online, _) => AgeLimit::None,
        (Link::Offline { last_heartbeat }, pass) => {
            let heard = last_heartbeat.min(facts.now);
            let since = match pass {
                Some(pass) if rests_on_a_pass || names_age => pass.min(heard),
                _ => heard,
            };
            AgeLimit::Until(since.plus(offline.as_duration()))
        }
    }
}

fn state_matches(states: &States, facts: &Facts<'_>) -> Answer {
    let state = facts.standing.state;
    Some(match states {
        States::Every => true,
        States::Proven if facts.kind == Kind::Device => state == AttestationState::Vouched,
        States::Proven => state == AttestationState::Trusted,
        States::These(these) => these.contains(&state),
        States::Unless(excepted) => !excepted.contains(&state),
    })
}

/// One that is named decides; else one that cannot be told leaves it open.
fn profile_matches(profiles: &Profiles, stated: Option<StatedProfiles>) -> Answer {
    let Profiles::These(these) = profiles else {
        return Some(true);
    };
    let stated = stated?;
    let answers: Vec<Answer> = these.iter().map(|label| stated.names(label)).collect();
    match answers.contains(&Some(true)) {
        true => Some(true),
        false if answers.contains(&None) => None,
        false => Some(false),
    }
}

fn tier_matches(tiers: &Tiers, tier: Option<Tier>) -> Answer {
    match tiers {
        Tiers::Every => Some(true),
        Tiers::Rooted => Some(tier? != Tier::Software),
        Tiers::These(these) => Some(these.contains(&tier?)),
    }
}
