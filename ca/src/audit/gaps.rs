//! Gaps: what of a batch belongs into one, and what is left of it then. Pure.

use edgeward_audit::batch::{Accepted, DedupError, VerifiedBatch, accept};
use edgeward_audit::digest::Digest;
use edgeward_audit::record::{Head, SealedRecord};

use crate::store::audit::Gap;

/// As [`accept`]; what follows a range that the node signed as lost is taken in, too.
pub(super) fn admit<'a>(
    batch: &'a VerifiedBatch,
    head: Option<Head>,
    gaps: &[Gap],
    known: Option<Digest>,
) -> Result<Accepted<'a>, DedupError> {
    match accept(batch, head, |_| known) {
        Err(DedupError::Gap { expected, first }) if is_lost(gaps, expected, first) => {
            Ok(Accepted {
                new: batch.records(),
                duplicates: 0,
                head: batch.head(),
            })
        }
        other => other,
    }
}

/// Whether the node signed all that lies between the head and a batch as lost.
fn is_lost(gaps: &[Gap], expected: u64, first: u64) -> bool {
    let lost = gaps.iter().filter(|gap| gap.lost);
    unknown(lost, expected, first.saturating_sub(1)).is_empty()
}

/// What of `first..=last` is in none of the gaps.
pub(super) fn unknown<'a>(gaps: impl Iterator<Item = &'a Gap>, first: u64, last: u64) -> Vec<Gap> {
    let whole = Gap {
        first_seq: first,
        last_seq: last,
        lost: false,
    };
    gaps.fold(vec![whole], |left, gap| {
        left.into_iter()
            .flat_map(|part| without(part, gap.first_seq, gap.last_seq))
            .collect()
    })
}

/// The records that fill a gap from its front on. None where the batch has none of them.
pub(super) fn filling<'a>(records: &'a [SealedRecord], gap: &Gap) -> Option<&'a [SealedRecord]> {
    let from = records.partition_point(|record| record.record().seq < gap.first_seq);
    let to = records.partition_point(|record| record.record().seq <= gap.last_seq);
    let part = records.get(from..to)?;
    let first = part.first()?;
    (first.record().seq == gap.first_seq).then_some(part)
}

/// What is left of a gap once `first..=last` is stored.
pub(super) fn without(gap: Gap, first: u64, last: u64) -> Vec<Gap> {
    if !gap.overlaps(first, last) {
        return vec![gap];
    }
    let before = first
        .checked_sub(1)
        .filter(|end| gap.first_seq <= *end)
        .map(|end| Gap {
            last_seq: end,
            ..gap
        });
    let after = last
        .checked_add(1)
        .filter(|start| *start <= gap.last_seq)
        .map(|start| Gap {
            first_seq: start,
            ..gap
        });
    before.into_iter().chain(after).collect()
}

/// What a gap becomes once the node signed that it has not got `first..=last` any more; none if that says nothing of this
/// gap. A node that lost the middle only sends what comes before first.
pub(super) fn lose(gap: Gap, first: u64, last: u64) -> Option<Vec<Gap>> {
    if gap.lost || gap.first_seq != first {
        return None;
    }
    let lost = Gap {
        last_seq: last.min(gap.last_seq),
        lost: true,
        ..gap
    };
    let mut left = vec![lost];
    if lost.last_seq < gap.last_seq {
        left.push(Gap {
            first_seq: lost.last_seq + 1,
            ..gap
        });
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first_seq: u64, last_seq: u64) -> Gap {
        Gap {
            first_seq,
            last_seq,
            lost: false,
        }
    }

    fn lost(first_seq: u64, last_seq: u64) -> Gap {
        Gap {
            lost: true,
            ..gap(first_seq, last_seq)
        }
    }

    #[test]
    fn a_loss_is_heeded_only_from_the_front_of_a_gap_that_is_open() {
        assert_eq!(lose(gap(5, 9), 6, 9), None);
        assert_eq!(lose(gap(5, 9), 4, 9), None);
        assert_eq!(lose(lost(5, 9), 5, 9), None);
        assert_eq!(lose(gap(5, 9), 5, 9), Some(vec![lost(5, 9)]));
        assert_eq!(lose(gap(5, 9), 5, u64::MAX), Some(vec![lost(5, 9)]));
        assert_eq!(lose(gap(5, 9), 5, 7), Some(vec![lost(5, 7), gap(8, 9)]));
    }

    #[test]
    fn what_arrives_leaves_exactly_the_rest_missing() {
        for first in 0..12 {
            for last in first..12 {
                let left: Vec<u64> = without(gap(3, 8), first, last)
                    .iter()
                    .flat_map(|gap| gap.first_seq..=gap.last_seq)
                    .collect();
                let expected: Vec<u64> = (3..=8)
                    .filter(|seq| !(first..=last).contains(seq))
                    .collect();
                assert_eq!(left, expected, "{first} to {last}");
            }
        }
        assert_eq!(without(gap(0, 3), 0, u64::MAX), []);
    }

    #[test]
    fn only_a_range_that_is_lost_as_a_whole_is_passed_over() {
        assert!(!is_lost(&[], 5, 8));
        assert!(!is_lost(&[gap(5, 7)], 5, 8));
        assert!(!is_lost(&[lost(5, 6)], 5, 8));
        assert!(!is_lost(&[lost(6, 7)], 5, 8));
        assert!(!is_lost(&[lost(5, 5), gap(6, 6), lost(7, 7)], 5, 8));
        assert!(is_lost(&[gap(0, 1), lost(5, 7)], 5, 8));
        assert!(is_lost(&[lost(5, 5), lost(6, 9)], 5, 8));
        assert_eq!(
            unknown([gap(5, 5), lost(7, 7)].iter(), 5, 8),
            [gap(6, 6), gap(8, 8)]
        );
    }
}
