//! Filters against rows.

use super::{Cells, Names, Row};
use crate::event::{Actor, EventKind, Verdict};
use crate::query::{ActorFilter, Filter};

/// How the text of every actor that proved nothing begins, and of no other.
const ANONYMOUS: &str = "anonymous";

/// A filter in the numbers of one part.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    filter: &'a Filter,
    /// Of each name, whether it is an actor that is asked for.
    actors: Option<Vec<bool>>,
    node: Option<usize>,
    rule: Option<usize>,
    serial: Option<usize>,
}

impl<'a> Asked<'a> {
    /// None if the part lacks a name that is asked for.
    pub(super) fn of(filter: &'a Filter, names: &Names) -> Option<Self> {
        /// The number of what is asked for; none inside where nothing is asked.
        fn number(names: &Names, asked: Option<&str>) -> Option<Option<usize>> {
            match asked {
                Some(name) => names.find(name).map(Some),
                None => Some(None),
            }
        }
        let node = filter.node.as_ref().map(ToString::to_string);
        let rule = filter.rule.as_ref().map(|rule| rule.as_str());
        let actors = match &filter.actor {
            Some(ActorFilter::Exactly(actor)) => {
                let number = names.find(&actor.to_string())?;
                Some((0..names.len()).map(|other| other == number).collect())
            }
            Some(ActorFilter::AnyAnonymous) => {
                let is_one = |number| names.get(number).is_some_and(is_anonymous);
                Some((0..names.len()).map(is_one).collect())
            }
            None => None,
        };
        Some(Self {
            actors,
            node: number(names, node.as_deref())?,
            rule: number(names, rule)?,
            serial: number(names, filter.serial.as_deref())?,
            filter,
        })
    }

    pub(super) fn includes(&self, cells: &Cells) -> bool {
        rest_matches(self.filter, cells.time, cells.kind, cells.verdict)
            && self
                .node
                .is_none_or(|node| cells.node == node || cells.subject == Some(node))
            && self
                .actors
                .as_ref()
                .is_none_or(|actors| actors.get(cells.actor).copied().unwrap_or(false))
            && self.rule.is_none_or(|rule| cells.rule == Some(rule))
            && self
                .serial
                .is_none_or(|serial| cells.serial == Some(serial))
    }
}

impl Row<'_> {
    /// Whether the event is asked for: what [`Filter::matches`] says of its record. For many rows of a part see
    /// [`super::Columns::asked`].
    pub fn matches(&self, filter: &Filter) -> bool {
        rest_matches(filter, self.time.millis(), self.kind, self.verdict)
            && filter.node.as_ref().is_none_or(|node| {
                let node = node.to_string();
                self.node == node || self.subject == Some(&node)
            })
            && match &filter.actor {
                Some(ActorFilter::Exactly(actor)) => self.actor == actor.to_string(),
                Some(ActorFilter::AnyAnonymous) => is_anonymous(self.actor),
                None => true,
            }
            && filter
                .rule
                .as_ref()
                .is_none_or(|rule| self.rule == Some(rule.as_str()))
            && filter
                .serial
                .as_deref()
                .is_none_or(|serial| self.serial == Some(serial))
    }
}

/// The conditions that need no name.
fn rest_matches(filter: &Filter, time: u64, kind: EventKind, verdict: Verdict) -> bool {
    filter.from.is_none_or(|from| time >= from.millis())
        && filter.to.is_none_or(|to| time < to.millis())
        && filter.kind.is_none_or(|asked| asked.matches(kind))
        && filter.verdict.is_none_or(|asked| asked == verdict)
}

/// As [`Actor`] reads it.
fn is_anonymous(actor: &str) -> bool {
    actor.starts_with(ANONYMOUS) && matches!(actor.parse(), Ok(Actor::Anonymous(_)))
}
