//! The chains of many journals, from records in whatever order the log got them: what was missing comes late.

use std::collections::{BTreeMap, HashMap};

use edgeward_identity::SpiffeId;

use crate::digest::Digest;
use crate::record::{BootId, SealedRecord};

/// Records without a gap, as far as they were seen.
#[derive(Debug)]
struct Run {
    last_seq: u64,
    /// What the first of them says of the one before it.
    prev: Digest,
    /// Hash of the last.
    head: Digest,
}

/// What was seen of each journal.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// By the sequence number of the first record of a run.
    runs: HashMap<(SpiffeId, BootId), BTreeMap<u64, Run>>,
    count: usize,
}

/// A record that does not continue its journal, or that comes twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Journals {
    /// Takes a record in, and says with how many neighbours it fits together: 0, 1 or 2. Over `limit` runs nothing more is
    /// followed.
    pub(super) fn add(&mut self, sealed: &SealedRecord, limit: usize) -> Result<u64, Broken> {
        let record = sealed.record();
        let (seq, head) = (record.seq, sealed.hash());
        let journal = (record.node.clone(), record.boot);
        if self.count >= limit && !self.runs.contains_key(&journal) {
            return Ok(0);
        }
        let runs = self.runs.entry(journal).or_default();
        let before = runs
            .range(..=seq)
            .next_back()
            .map(|(first, run)| (*first, run.last_seq, run.head));
        let left = match before {
            Some((_, last, _)) if seq <= last => return Err(Broken),
            Some((first, last, hash)) if last + 1 == seq => {
                if hash != record.prev {
                    return Err(Broken);
                }
                Some(first)
            }
            Some(_) | None => None,
        };
        let next = seq.saturating_add(1);
        let right = match runs.get(&next) {
            Some(run) if run.prev != head => return Err(Broken),
            Some(_) => runs.remove(&next),
            None => None,
        };
        let links = u64::from(left.is_some()) + u64::from(right.is_some());
        self.count -= usize::from(right.is_some());
        let (last_seq, head) = right.map_or((seq, head), |run| (run.last_seq, run.head));
        match left.and_then(|first| runs.get_mut(&first)) {
            Some(run) => (run.last_seq, run.head) = (last_seq, head),
            None => {
                let prev = record.prev;
                runs.insert(
                    seq,
                    Run {
                        last_seq,
                        prev,
                        head,
                    },
                );
                self.count += 1;
            }
        }
        Ok(links)
    }
}
