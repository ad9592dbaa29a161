//! Rules that nothing can come of any more, at a time that is told.

use edgeward_identity::Timestamp;

use crate::compile::{CompiledPolicy, Rule};
use crate::diagnostic::{Code, Diagnostics};
use crate::source::Place;
use crate::window::Schedule;

pub(super) fn check(
    policy: &CompiledPolicy,
    places: &[Option<Place>],
    now: Timestamp,
    found: &mut Diagnostics<'_>,
) {
    let schedules: Vec<Schedule> = policy.windows.iter().map(Schedule::new).collect();
    for (rule, at) in policy.rules.iter().zip(places) {
        let (Some(at), Some((why, help))) = (at, dead(rule, &schedules, now)) else {
            continue;
        };
        let message = format!("rule `{}` {why}", rule.id);
        found.error_with_help(*at, Code::Dead, message, help);
    }
}

fn dead(
    rule: &Rule,
    schedules: &[Schedule],
    now: Timestamp,
) -> Option<(&'static str, &'static str)> {
    let until = rule.until?;
    if until <= now {
        return Some((
            "has ended",
            "take it out, or give `until` a time to come: what has ended reads like a grant",
        ));
    }
    let schedule = schedules.get(rule.window?)?;
    if schedule.is_open(now)? {
        return None;
    }
    let opens = schedule.next_edge(now);
    opens.is_none_or(|opens| opens >= until).then_some((
        "ends before its window opens again",
        "take it out, or set `until` after the window's next opening",
    ))
}
