//! Each dimension of a rule: what was found, what was wanted, and whether that will do.

use edgeward_identity::{AttestationState, Kind, Tier, Timestamp};

use super::{Dimension, Facts};
use crate::decision::Link;
use crate::slice::{ActionId, Effect, Profiles, Row, Sources, States, Tiers};
use crate::space::wording::written;
use crate::window::{Schedule, Window};

impl Facts<'_> {
    /// `operator/li`: all that is shown is of one trust domain.
    fn shown(&self) -> String {
        let id = self.question.subject;
        format!("{}/{}", id.kind().as_str(), id.name())
    }

    pub(super) fn who(&self, row: &Row) -> Dimension {
        let names = |groups: &mut dyn Iterator<Item = u32>| {
            let names: Vec<&str> = groups
                .filter_map(|group| self.slice.groups.get(group as usize))
                .map(String::as_str)
                .collect();
            names.join(", ")
        };
        let found = match &self.groups {
            None => format!("{} is not known here", self.shown()),
            Some(groups) if groups.is_empty() => {
                format!("{} in no group that a rule here names", self.shown())
            }
            Some(groups) => format!(
                "{} in {}",
                self.question.subject,
                names(&mut groups.iter().copied())
            ),
        };
        let (holds, wanted) = match &row.from {
            Sources::Any => (self.groups.is_some(), "any".to_owned()),
            Sources::Groups(wanted) => (
                wanted
                    .iter()
                    .any(|group| self.groups.iter().flatten().any(|own| *own == group.0)),
                names(&mut wanted.iter().map(|group| group.0)),
            ),
        };
        dimension("who", holds, found, wanted)
    }

    pub(super) fn place(&self) -> Dimension {
        let interface = self.interface;
        let name = format!("{}/{}", interface.service, interface.name);
        let at = format!(
            "{name} on {}, {} {}",
            interface.net,
            interface.proto.as_str(),
            interface.port
        );
        dimension("where", true, at, name)
    }

    pub(super) fn what(&self, row: &Row) -> Dimension {
        let names = self.interface.actions();
        let show = |actions: &mut dyn Iterator<Item = ActionId>| {
            let names: Vec<&str> = actions
                .filter_map(|action| names.get(usize::from(action.0)).copied())
                .collect();
            names.join(", ")
        };
        let asked = self.question.actions;
        let found = match asked.is_empty() {
            true => "a request that fits no action".to_owned(),
            false => show(&mut asked.iter()),
        };
        let holds = row.actions.iter().any(|action| asked.contains(*action));
        dimension("what", holds, found, show(&mut row.actions.iter().copied()))
    }

    pub(super) fn state(&self, row: &Row) -> Dimension {
        let state = self.question.standing.state;
        let proven = match self.kind {
            Kind::Device => AttestationState::Vouched,
            _ => AttestationState::Trusted,
        };
        let list = |states: &[AttestationState]| {
            let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            words.join(" or ")
        };
        let (holds, wanted) = match &row.states {
            States::Every => (true, "any".to_owned()),
            States::Proven => (state == proven, proven.to_string()),
            States::These(these) => (these.contains(&state), list(these)),
            States::Unless(these) => (!these.contains(&state), format!("not {}", list(these))),
        };
        dimension("state", holds, state.to_string(), wanted)
    }

    pub(super) fn tier(&self, row: &Row) -> Dimension {
        let tier = self.question.standing.tier;
        let (holds, wanted) = match &row.tiers {
            Tiers::Every => (Some(true), "any".to_owned()),
            Tiers::Rooted => (
                tier.map(|tier| tier != Tier::Software),
                "any but software".to_owned(),
            ),
            Tiers::These(these) => {
                let words: Vec<&str> = these.iter().map(|tier| tier.as_str()).collect();
                (tier.map(|tier| these.contains(&tier)), words.join(" or "))
            }
        };
        let found = tier.map_or("unknown", Tier::as_str).to_owned();
        dimension("tier", told(holds, row), found, wanted)
    }

    pub(super) fn profile(&self, row: &Row) -> Option<Dimension> {
        let Profiles::These(these) = &row.profiles else {
            return None;
        };
        let stated = self.question.standing.profiles;
        let answers: Option<Vec<Option<bool>>> =
            stated.map(|stated| these.iter().map(|label| stated.names(label)).collect());
        let holds = answers.and_then(|answers| {
            match (answers.contains(&Some(true)), answers.contains(&None)) {
                (true, _) => Some(true),
                (false, true) => None,
                (false, false) => Some(false),
            }
        });
        let found = match (stated.is_some(), holds) {
            (false, _) => "not known which were compared",
            (true, Some(true)) => "compared as it is now",
            (true, Some(false)) => "not compared",
            (true, None) => "compared as it was at another time",
        };
        let wanted: Vec<&str> = these.iter().map(|label| label.name()).collect();
        let wanted = wanted.join(" or ");
        Some(dimension(
            "profile",
            told(holds, row),
            found.to_owned(),
            wanted,
        ))
    }

    pub(super) fn runs(&self, row: &Row) -> Option<Dimension> {
        (!row.runs.is_empty()).then(|| {
            let runs = self.question.standing.runs;
            let answer = self.engine.wants().answer(&row.runs, runs);
            let found = match answer {
                Some(true) => "its evidence says so",
                Some(false) => "its evidence does not say so",
                None => "no evidence says what runs",
            };
            dimension(
                "runs",
                told(answer, row),
                found.to_owned(),
                row.runs.join(", "),
            )
        })
    }

    pub(super) fn approval(&self, row: &Row) -> Option<Dimension> {
        if !row.approval {
            return None;
        }
        let own = self.slice.approvals.iter();
        let until = own
            .filter(|one| one.rule == row.rule && one.subject == *self.question.subject)
            .map(|one| one.until)
            .max();
        let holds = until.is_some_and(|until| self.question.now < until);
        let found = match until {
            None => "none".to_owned(),
            Some(until) => format!("until {}", written(until)),
        };
        let wanted = "an approval that holds".to_owned();
        Some(self.unless_opened(row, dimension("approval", holds, found, wanted)))
    }

    /// Only an allow ages.
    pub(super) fn age(&self, row: &Row) -> Option<Dimension> {
        if row.effect == Effect::Deny {
            return None;
        }
        let standing = self.question.standing;
        let now = self.question.now;
        let rests = matches!(
            standing.state,
            AttestationState::Trusted | AttestationState::Vouched
        );
        let counts = rests || row.fresh.own.is_some() || row.offline.own.is_some();
        let fresh = row.fresh.for_profile(self.terms.0);
        let offline = row.offline.for_profile(self.terms.1);
        let since = |at: Timestamp| now.since(at.min(now));
        let pass = standing.last_pass.map(since);
        let shown =
            |age: std::time::Duration| format!("{}.{:03}s", age.as_secs(), age.subsec_millis());
        let passed = pass.map_or("no pass known".to_owned(), |age| {
            format!("passed {} ago", shown(age))
        });
        let (holds, found, wanted) = match self.question.link {
            Link::Online if !counts => (true, "no pass needed".to_owned(), "any".to_owned()),
            Link::Online => (
                pass.is_some_and(|age| age < fresh.as_duration()),
                passed,
                format!("a pass under {fresh} old"),
            ),
            Link::Offline { last_heartbeat } => {
                let heard = since(last_heartbeat);
                let young = pass.is_some_and(|age| age < offline.as_duration()) || !counts;
                (
                    young && heard < offline.as_duration(),
                    format!("{passed}, cloud last heard {} ago", shown(heard)),
                    match counts {
                        true => format!("both under {offline} ago, cut off from the cloud"),
                        false => format!("heard under {offline} ago, cut off from the cloud"),
                    },
                )
            }
        };
        Some(self.unless_opened(row, dimension("age", holds, found, wanted)))
    }

    pub(super) fn window(&self, row: &Row) -> Option<Dimension> {
        let now = self.question.now;
        let window = self.slice.windows.get(row.window? as usize);
        let open = window.and_then(|window| Schedule::new(window).is_open(now));
        let found = match open {
            Some(true) => format!("open at {}", written(now)),
            Some(false) => format!("shut at {}", written(now)),
            None => "cannot be told".to_owned(),
        };
        let wanted = window.map_or("unknown".to_owned(), words);
        let dimension = dimension("window", told(open, row), found, wanted);
        Some(self.unless_opened(row, dimension))
    }

    pub(super) fn until(&self, row: &Row) -> Option<Dimension> {
        let until = row.until?;
        let now = self.question.now;
        let dimension = dimension(
            "until",
            now < until,
            written(now),
            format!("before {}", written(until)),
        );
        Some(self.unless_opened(row, dimension))
    }

    /// Broken glass waives time, approval and age of an allow.
    fn unless_opened(&self, row: &Row, dimension: Dimension) -> Dimension {
        let opened = self.engine.opened_until(&row.rule, self.question.now);
        match opened.filter(|_| row.effect == Effect::Allow) {
            None => dimension,
            Some(until) => Dimension {
                holds: true,
                found: format!(
                    "{}, waived by break-glass until {}",
                    dimension.found,
                    written(until)
                ),
                ..dimension
            },
        }
    }
}

/// A condition that cannot be told fails an allow and matches a deny.
fn told(answer: Option<bool>, row: &Row) -> bool {
    answer.unwrap_or(row.effect == Effect::Deny)
}

fn dimension(name: &'static str, holds: bool, found: String, wanted: String) -> Dimension {
    Dimension {
        name: name.to_owned(),
        holds,
        found,
        wanted,
    }
}

fn words(window: &Window) -> String {
    let days: Vec<&str> = window.days.iter().map(|day| day.as_str()).collect();
    let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    format!(
        "window {} ({} {}-{} {})",
        window.name,
        days.join(" "),
        clock(window.from),
        clock(window.to),
        window.tz
    )
}
