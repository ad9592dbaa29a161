//! What is looked for.

use std::collections::BTreeSet;

use edgeward_audit::block::{Columns, Places, Row, Term, TermKey, terms_wanted};
use edgeward_audit::event::EventKind;
use edgeward_audit::query::{Filter, KindFilter};
use edgeward_audit::record::Record;

/// A filter, which kinds, and where to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) filter: &'a Filter,
    /// Any of these.
    pub(super) kinds: Option<&'a BTreeSet<EventKind>>,
    /// Only leaves before this one.
    pub(super) before: u64,
}

impl<'a> Asked<'a> {
    pub(super) fn by(filter: &'a Filter) -> Self {
        Self {
            filter,
            kinds: None,
            before: u64::MAX,
        }
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        self.kinds
            .is_none_or(|kinds| kinds.contains(&record.event.kind))
            && self.filter.matches(record)
    }

    /// The rows that match at these places, with their numbers in the part.
    pub(super) fn rows<'c>(
        &self,
        columns: &'c Columns,
        places: Places,
    ) -> impl Iterator<Item = (usize, Row<'c>)> + use<'c, 'a> {
        let kinds = self.kinds;
        columns.asked(self.filter).filter(move |(_, row)| {
            places.contains(row.place) && kinds.is_none_or(|kinds| kinds.contains(&row.kind))
        })
    }

    /// Of each of these, every event that matches has at least one.
    pub(super) fn terms(&self, key: &TermKey) -> Vec<Vec<Term>> {
        let mut all = terms_wanted(key, self.filter);
        if let Some(kinds) = self.kinds {
            let any = kinds.iter().flat_map(|kind| {
                let one = Filter {
                    kind: Some(KindFilter::Exactly(*kind)),
                    ..Filter::default()
                };
                terms_wanted(key, &one).into_iter().flatten()
            });
            all.push(any.collect());
        }
        all
    }

    pub(super) fn has_times(&self) -> bool {
        self.filter.from.is_some() || self.filter.to.is_some()
    }
}
