//! Which rows can concern a subject, and the enforcers that hold just these.
//!
//! Subjects in the same groups share them, and so do groups that the same rows name. They are made when they are first
//! asked for and kept within a bound. The rows are chosen by comparing groups one by one; `explain` finds its own
//! through an index, so that a fault in either shows as a disagreement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::bucket::{Bucket, BucketError};
use super::guests::Comes;
use crate::slice::{Effect, Row, Sources};

/// Most memory that the kept enforcers of one engine take, in bytes; what does not fit is made for one decision.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;
/// Most pairs of interface and class of subjects for which the enforcer is remembered.
const MAX_KEPT_CLASSES: usize = 65_536;

/// Subjects in the same groups that come the same way.
pub(crate) type Class = u32;
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The enforcers of one interface.
#[derive(Default)]
pub(crate) struct Buckets {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_class: Map<Class, Arc<Bucket>>,
    by_rows: Map<Box<[usize]>, Arc<Bucket>>,
}

/// What all interfaces of one engine keep together.
#[derive(Default)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    classes: AtomicUsize,
}

impl Buckets {
    /// The enforcers for a class of subjects: the groups are theirs, sorted.
    pub(crate) fn of(
        &self,
        (class, groups, comes): (Class, &[u32], Comes),
        rows: &[Row],
        budget: &Budget,
    ) -> Result<Arc<Bucket>, BucketError> {
        if let Ok(kept) = self.kept.lock()
            && let Some(bucket) = kept.by_class.get(&class)
        {
            return Ok(Arc::clone(bucket));
        }
        let chosen = about(rows, groups, comes);
        let same = match self.kept.lock() {
            Ok(kept) => kept.by_rows.get(chosen.as_slice()).cloned(),
            Err(_) => None,
        };
        if let Some(bucket) = same {
            self.remember(class, &bucket, budget);
            return Ok(bucket);
        }
        let of_row = |index: &usize| Some((*index, rows.get(*index)?));
        let bucket = Arc::new(Bucket::new(chosen.iter().filter_map(of_row))?);
        if budget.takes(bucket.bytes())
            && let Ok(mut kept) = self.kept.lock()
        {
            kept.by_rows.insert(chosen.into(), Arc::clone(&bucket));
            drop(kept);
            self.remember(class, &bucket, budget);
        }
        Ok(bucket)
    }

    /// As if nothing allowed anybody anything.
    #[cfg(test)]
    pub(crate) fn close_for_everybody(&mut self) {
        let closed = Arc::new(Bucket::new(std::iter::empty()).unwrap());
        let classes = (0..64).map(|class| (class, Arc::clone(&closed)));
        self.kept.get_mut().unwrap().by_class = classes.collect();
    }

    fn remember(&self, class: Class, bucket: &Arc<Bucket>, budget: &Budget) {
        if budget.classes.fetch_add(1, Ordering::Relaxed) < MAX_KEPT_CLASSES
            && let Ok(mut kept) = self.kept.lock()
        {
            kept.by_class.insert(class, Arc::clone(bucket));
        }
    }
}

impl Budget {
    fn takes(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= MAX_KEPT_BYTES;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// Rows, denies among them, about a subject in these groups.
fn about(rows: &[Row], groups: &[u32], comes: Comes) -> Vec<usize> {
    let concerns = |row: &Row| match &row.from {
        Sources::Any => row.effect == Effect::Deny || comes != Comes::AsGuest,
        Sources::Groups(named) => named
            .iter()
            .any(|group| groups.binary_search(&group.0).is_ok()),
    };
    let chosen = rows.iter().enumerate().filter(|(_, row)| concerns(row));
    chosen.map(|(index, _)| index).collect()
}
