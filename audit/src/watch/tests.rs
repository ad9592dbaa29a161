use super::*;
use crate::merkle::{consistency_proof, inclusion_proof, leaf_hash, root};
use crate::note::NoteSigner;

const ORIGIN: &str = "plant.example/audit";

/// A log whose entries from `changed` on are others than usual.
struct Log<'a> {
    signer: &'a NoteSigner,
    changed: u64,
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap()
}

impl Log<'_> {
    fn entry(&self, n: u64) -> Digest {
        let kind: &[u8] = if n < self.changed { b"" } else { b"changed" };
        Digest::of(&[&n.to_be_bytes(), kind])
    }

    fn leaves(&self, size: u64) -> Vec<Digest> {
        (0..size)
            .map(|n| leaf_hash(self.entry(n).as_bytes()))
            .collect()
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root(self.leaves(size).as_slice(), size).unwrap(),
        }
    }

    fn proof(&self, index: u64, size: u64) -> LogProof {
        LogProof {
            index,
            hashes: inclusion_proof(self.leaves(size).as_slice(), index, size).unwrap(),
            checkpoint: self.checkpoint(size).sign(self.signer).unwrap().to_string(),
            extra: None,
        }
    }

    fn consistency(&self, from: u64, to: u64) -> Vec<Digest> {
        consistency_proof(self.leaves(to).as_slice(), from, to).unwrap()
    }
}

fn watch(signer: &NoteSigner) -> LogWatch {
    let key = LogKey {
        origin: ORIGIN.to_owned(),
        verifier: signer.verifier().to_string(),
    };
    key.watch().unwrap()
}

fn shown<'a>(proof: &'a LogProof, from: u64, consistency: &'a [Digest]) -> Shown<'a> {
    Shown {
        proof,
        from,
        consistency,
    }
}

const NEVER: u64 = u64::MAX;

#[test]
fn a_log_that_was_changed_cut_short_or_shows_nothing_is_not_believed() {
    let signer = signer();
    let (log, other) = (
        Log {
            signer: &signer,
            changed: NEVER,
        },
        Log {
            signer: &signer,
            changed: 5,
        },
    );
    let watch = watch(&signer);
    let seen = log.checkpoint(10);
    let code = |proof: &LogProof, from, consistency: &[Digest], entry: &Digest| {
        let refused = watch
            .check(Some(&seen), shown(proof, from, consistency), Some(entry))
            .unwrap_err();
        (refused.code(), refused.is_contradiction())
    };
    let entry = log.entry(7);
    let changed = other.proof(7, 20);
    let forked = ("log_forked", true);
    for consistency in [other.consistency(10, 20), log.consistency(10, 20), vec![]] {
        assert_eq!(code(&changed, 10, &consistency, &entry), forked);
    }
    assert_eq!(code(&other.proof(7, 10), 10, &[], &entry), forked);
    assert_eq!(code(&other.proof(7, 10), 0, &[], &entry), forked);
    let behind = ("log_went_back", false);
    assert_eq!(code(&log.proof(7, 9), 10, &[], &entry), behind);
    assert_eq!(code(&other.proof(7, 9), 10, &[], &entry), behind);
    // As the log shows itself to somebody else: no word about what this reader saw.
    let good = log.proof(7, 20);
    let elsewhere = ("log_not_continued", false);
    assert_eq!(code(&good, 0, &[], &entry), elsewhere);
    assert_eq!(code(&good, 8, &log.consistency(8, 20), &entry), elsewhere);
    // Another record than the reader's own.
    let continued = log.consistency(10, 20);
    let not_included = ("proof_not_included", false);
    assert_eq!(code(&good, 10, &continued, &other.entry(7)), not_included);
    assert_eq!(
        code(&log.proof(8, 20), 10, &continued, &entry),
        not_included
    );
}

#[test]
fn another_key_or_another_log_is_refused() {
    let (signer, stranger) = (signer(), signer());
    let log = Log {
        signer: &signer,
        changed: NEVER,
    };
    let proof = log.proof(3, 8);
    let refused = watch(&stranger).check(None, shown(&proof, 0, &[]), Some(&log.entry(3)));
    assert_eq!(refused.unwrap_err().code(), "proof_checkpoint");
    let key = LogKey {
        origin: "other.example/audit".to_owned(),
        verifier: signer.verifier().to_string(),
    };
    let refused = key
        .watch()
        .unwrap()
        .check(None, shown(&proof, 0, &[]), None);
    assert_eq!(refused.unwrap_err().code(), "proof_checkpoint");
    let key = LogKey {
        verifier: "x".to_owned(),
        ..key
    };
    assert!(key.watch().is_err());
}

#[test]
fn a_log_that_goes_on_is_followed_from_checkpoint_to_checkpoint() {
    let signer = signer();
    let log = Log {
        signer: &signer,
        changed: NEVER,
    };
    let watch = watch(&signer);
    let mut seen: Option<Checkpoint> = None;
    for size in [1, 2, 2, 3, 7, 8, 9, 64, 100] {
        let index = size - 1;
        let from = seen.as_ref().map_or(0, |seen| seen.size);
        let consistency = match from {
            0 => Vec::new(),
            from => log.consistency(from, size),
        };
        let proof = log.proof(index, size);
        let entry = log.entry(index);
        let next = watch
            .check(
                seen.as_ref(),
                shown(&proof, from, &consistency),
                Some(&entry),
            )
            .unwrap();
        assert_eq!(next, log.checkpoint(size));
        let alone = watch.check(seen.as_ref(), shown(&proof, from, &consistency), None);
        assert_eq!(alone.as_ref(), Ok(&next));
        seen = Some(next);
    }
}
