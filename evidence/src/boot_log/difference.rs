//! What changed between two boots, event by event, for people who judge an update.

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::{BootLog, EventView, SHOWN_FIRST};
use crate::tpm::HashAlg;
use crate::tpm::pcr::PCR_COUNT;

/// Most comparisons of one PCR's events: about a millisecond. Beyond it, what lies between the same beginning and the same end is told as
/// gone and come.
const MAX_COMPARISONS: usize = 1 << 18;

/// One change within one PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub pcr: u8,
    pub kind: ChangeKind,
    /// `None` where it is added.
    pub before: Option<EventView>,
    /// `None` where it is removed.
    pub after: Option<EventView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Removed,
    /// An event of the same type with another digest.
    Changed,
}

/// All changes, by PCR and then in the order of the boot.
///
/// Both logs are compared in one bank: SHA-256 where both have it; without a common one nothing is the same. Events count
/// as the same if type and digest are; what else a log says about them is not evidence.
pub fn difference(before: &BootLog, after: &BootLog) -> Vec<Change> {
    (0..PCR_COUNT)
        .flat_map(|pcr| difference_of(before, after, pcr))
        .collect()
}

/// The changes of one PCR.
pub fn difference_of(before: &BootLog, after: &BootLog, pcr: u8) -> Vec<Change> {
    let bank = common_bank(before, after);
    let (old, new) = (items(before, pcr, bank), items(after, pcr, bank));
    changes(pcr, align(&old, &new), bank)
}

fn common_bank(before: &BootLog, after: &BootLog) -> Option<HashAlg> {
    let has = |log: &BootLog, wanted| log.banks().any(|bank| bank == wanted);
    SHOWN_FIRST
        .into_iter()
        .find(|bank| has(before, *bank) && has(after, *bank))
}

/// An event with its digest of the common bank.
#[derive(Clone, Copy)]
struct Item<'a> {
    event: Event<'a>,
    digest: Option<&'a [u8]>,
}

fn items(log: &BootLog, pcr: u8, bank: Option<HashAlg>) -> Vec<Item<'_>> {
    log.events()
        .filter(|event| event.pcr() == Some(pcr))
        .map(|event| Item {
            event,
            digest: bank.and_then(|bank| event.digest(bank)),
        })
        .collect()
}

fn same(old: &Item<'_>, new: &Item<'_>) -> bool {
    old.digest.is_some() && old.digest == new.digest && old.event.kind() == new.event.kind()
}

/// A stretch in which nothing is the same: what went and what came.
type Run<'a> = (Vec<Item<'a>>, Vec<Item<'a>>);

/// Longest common subsequence, after the same beginning and the same end are cut away.
fn align<'a>(old: &[Item<'a>], new: &[Item<'a>]) -> Vec<Run<'a>> {
    let pairs = old.iter().zip(new);
    let head = pairs.take_while(|(a, b)| same(a, b)).count();
    let (old, new) = (
        old.get(head..).unwrap_or_default(),
        new.get(head..).unwrap_or_default(),
    );
    let pairs = old.iter().rev().zip(new.iter().rev());
    let tail = pairs.take_while(|(a, b)| same(a, b)).count();
    let (old, new) = (
        old.get(..old.len() - tail).unwrap_or_default(),
        new.get(..new.len() - tail).unwrap_or_default(),
    );
    if old.len().saturating_mul(new.len()) > MAX_COMPARISONS {
        return vec![(old.to_vec(), new.to_vec())];
    }
    common(old, new)
}

fn common<'a>(old: &[Item<'a>], new: &[Item<'a>]) -> Vec<Run<'a>> {
    // lengths[i][j]: longest common subsequence of old[i..] and new[j..].
    let mut lengths = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    let at = |lengths: &[Vec<u32>], i: usize, j: usize| {
        lengths
            .get(i)
            .and_then(|row| row.get(j))
            .copied()
            .unwrap_or(0)
    };
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let length = if same(a, b) {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(cell) = lengths.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = length;
            }
        }
    }
    let mut runs: Vec<Run<'a>> = vec![Run::default()];
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if same(a, b) => {
                runs.push(Run::default());
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) => {
                if let Some((gone, _)) = runs.last_mut() {
                    gone.push(*a);
                }
                i += 1;
            }
            (_, Some(b)) => {
                if let Some((_, came)) = runs.last_mut() {
                    came.push(*b);
                }
                j += 1;
            }
            (_, None) => return runs,
        }
    }
}

/// Within a run, an event that went and the next one of its type that came are one change.
fn changes(pcr: u8, runs: Vec<Run<'_>>, bank: Option<HashAlg>) -> Vec<Change> {
    let mut all = Vec::new();
    for (gone, came) in runs {
        let mut came = came.as_slice();
        for old in gone {
            let partner = came
                .iter()
                .position(|new| new.event.kind() == old.event.kind());
            let at = partner.unwrap_or(0);
            let (first, rest) = came.split_at_checked(at).unwrap_or_default();
            // Keeps the order of the boot: what came before the partner is told first.
            all.extend(first.iter().map(|new| change(pcr, None, Some(*new), bank)));
            let (new, rest) = match (partner, rest.split_first()) {
                (Some(_), Some((new, rest))) => (Some(*new), rest),
                _ => (None, rest),
            };
            all.push(change(pcr, Some(old), new, bank));
            came = rest;
        }
        all.extend(came.iter().map(|new| change(pcr, None, Some(*new), bank)));
    }
    all
}

fn change(
    pcr: u8,
    before: Option<Item<'_>>,
    after: Option<Item<'_>>,
    bank: Option<HashAlg>,
) -> Change {
    let kind = match (&before, &after) {
        (Some(_), Some(_)) => ChangeKind::Changed,
        (Some(_), None) => ChangeKind::Removed,
        _ => ChangeKind::Added,
    };
    let view = |item: Item<'_>| {
        let bank = bank.unwrap_or_else(|| item.event.log().shown_bank());
        item.event.describe(bank)
    };
    Change {
        pcr,
        kind,
        before: before.map(view),
        after: after.map(view),
    }
}
