//! Digests of files that were read before. Holds what a file is, never whether it may run: a new book needs no new reading.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::identity::FileIdentity;

/// Most files of one generation; at most twice as many are remembered.
pub const MAX_GENERATION_FILES: usize = 32_768;

/// Two generations: what is asked for again moves to the new one, and when that is full the old one goes.
#[derive(Debug, Default)]
pub struct Cache {
    new: HashMap<FileIdentity, Digest>,
    old: HashMap<FileIdentity, Digest>,
}

impl Cache {
    pub fn get(&mut self, identity: &FileIdentity) -> Option<Digest> {
        if let Some(digest) = self.new.get(identity) {
            return Some(*digest);
        }
        let digest = self.old.remove(identity)?;
        self.put(*identity, digest);
        Some(digest)
    }

    pub fn put(&mut self, identity: FileIdentity, digest: Digest) {
        if self.new.len() >= MAX_GENERATION_FILES {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(identity, digest);
    }

    pub fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_asked_for_stays() {
        let file = tempfile::tempfile().unwrap();
        let mut cache = Cache::default();
        let mut first = None;
        for size in 0..3 * MAX_GENERATION_FILES as u64 {
            file.set_len(size).unwrap();
            let identity = FileIdentity::of(file.as_fd()).unwrap();
            let first = *first.get_or_insert(identity);
            cache.put(identity, Digest::new([1; 32]));
            assert!(cache.get(&first).is_some(), "after {size}");
        }
        assert!(cache.len() <= 2 * MAX_GENERATION_FILES);
    }
}
