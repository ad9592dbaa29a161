//! Sets of labels: conjunctions of `key in {values}`, one value per key on every node.

use std::collections::{BTreeSet, HashMap};

use crate::ast::LabelSets;
use crate::fleet::Labels;

/// Whether a node with these labels is matched.
pub(crate) fn matches(sets: &LabelSets, labels: &Labels) -> bool {
    sets.iter()
        .all(|(key, values)| labels.get(key).is_some_and(|value| values.contains(value)))
}

/// Whether everything `inner` matches, `outer` matches too.
pub(crate) fn is_within(inner: &LabelSets, outer: &LabelSets) -> bool {
    outer
        .iter()
        .all(|(key, values)| inner.get(key).is_some_and(|inner| inner.is_subset(values)))
}

/// What both match; `None` where nothing can.
pub(crate) fn meet(one: &LabelSets, other: &LabelSets) -> Option<LabelSets> {
    let mut both = one.clone();
    for (key, values) in other {
        match both.get_mut(key) {
            Some(mine) => {
                mine.retain(|value| values.contains(value));
                if mine.is_empty() {
                    return None;
                }
            }
            None => {
                both.insert(key.clone(), values.clone());
            }
        }
    }
    Some(both)
}

/// Whether one node may be matched by both.
pub(crate) fn may_meet(one: &LabelSets, other: &LabelSets) -> bool {
    one.iter().all(|(key, values)| {
        other
            .get(key)
            .is_none_or(|others| !values.is_disjoint(others))
    })
}

/// Finds the sets that match a node without trying all of them: each stands under the values of one of its keys.
#[derive(Debug)]
pub(crate) struct Lookup {
    by_pair: HashMap<(String, String), Vec<usize>, foldhash::fast::RandomState>,
}

impl Lookup {
    pub(crate) fn new<'s>(sets: impl Iterator<Item = &'s LabelSets> + Clone) -> Self {
        let mut frequency: HashMap<(&str, &str), usize, foldhash::fast::RandomState> =
            HashMap::default();
        for (key, value) in sets.clone().flat_map(pairs) {
            *frequency.entry((key, value)).or_default() += 1;
        }
        let mut by_pair: HashMap<_, Vec<usize>, _> = HashMap::default();
        for (index, set) in sets.enumerate() {
            let cost = |key: &str, values: &BTreeSet<String>| -> usize {
                let frequencies = values
                    .iter()
                    .filter_map(|value| frequency.get(&(key, value.as_str())));
                frequencies.sum()
            };
            let rarest = set.iter().min_by_key(|(key, values)| cost(key, values));
            for (key, value) in rarest
                .into_iter()
                .flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
            {
                let pair = (key.clone(), value.clone());
                by_pair.entry(pair).or_default().push(index);
            }
        }
        Self { by_pair }
    }

    /// Every set that might match, each once; [`matches`] has the last word.
    pub(crate) fn candidates(&self, labels: &Labels) -> BTreeSet<usize> {
        let pairs = labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        pairs
            .filter_map(|pair| self.by_pair.get(&pair))
            .flatten()
            .copied()
            .collect()
    }
}

fn pairs(sets: &LabelSets) -> impl Iterator<Item = (&str, &str)> {
    sets.iter().flat_map(|(key, values)| {
        values
            .iter()
            .map(move |value| (key.as_str(), value.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_label_matches_nothing() {
        let sets = sets(&[("site", &["a", "b"]), ("role", &["x"])]);
        assert!(!matches(&sets, &labels(&[("site", "a")])));
        assert!(!matches(&sets, &labels(&[("site", "c"), ("role", "x")])));
        assert!(matches(
            &sets,
            &labels(&[("site", "b"), ("role", "x"), ("more", "y")])
        ));
    }

    #[test]
    fn within_is_narrower_in_every_key_of_the_outer() {
        let outer = sets(&[("site", &["a", "b"])]);
        assert!(is_within(
            &sets(&[("site", &["a"]), ("role", &["x"])]),
            &outer
        ));
        assert!(!is_within(&sets(&[("site", &["a", "c"])]), &outer));
        assert!(!is_within(&sets(&[("role", &["x"])]), &outer));
    }

    #[test]
    fn two_sets_meet_unless_a_shared_key_has_no_shared_value() {
        let a = sets(&[("site", &["a"])]);
        let b = sets(&[("site", &["b"])]);
        let x = sets(&[("role", &["x"])]);
        assert!(!may_meet(&a, &b));
        assert_eq!(meet(&a, &b), None);
        assert!(may_meet(&a, &x));
        assert_eq!(
            meet(&a, &x),
            Some(sets(&[("site", &["a"]), ("role", &["x"])]))
        );
    }

    fn sets(pairs: &[(&str, &[&str])]) -> LabelSets {
        pairs
            .iter()
            .map(|(key, values)| ((*key).into(), values.iter().map(|v| (*v).into()).collect()))
            .collect()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }
}
