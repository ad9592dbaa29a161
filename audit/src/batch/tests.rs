use edgeward_identity::{SoftwareKey, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventKind};
use crate::record::{BootOpened, PreviousBoot, Salt};
use crate::vectors::mutations;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

fn node() -> SpiffeId {
    "spiffe://plant.example/node/gw-3".parse().unwrap()
}

fn boot(n: u8) -> BootId {
    BootId::from_bytes([n; 16])
}

fn records(salt: u8, count: usize) -> Vec<SealedRecord> {
    let mut chain = Chain::new(node(), boot(1));
    let mut records = Vec::new();
    for n in 0..count {
        let kind = if n == 0 {
            EventKind::JournalOpened
        } else {
            EventKind::FlowDenied
        };
        let event = Event::new(NOW, node(), kind)
            .detail("n", n)
            .detail("salt", salt);
        let opened = BootOpened {
            previous: None,
            reset_count: None,
            restart_count: None,
        };
        let sealed = if n == 0 {
            chain.seal_opening(opened, event, Salt::from_bytes([7; 16]))
        } else {
            chain.seal(event, Salt::from_bytes([7; 16]))
        }
        .unwrap();
        chain.advance(&sealed).unwrap();
        records.push(sealed);
    }
    records
}

fn bytes_of(records: &[SealedRecord]) -> Vec<Vec<u8>> {
    records
        .iter()
        .map(|record| record.bytes().to_vec())
        .collect()
}

struct Keys {
    svid: SoftwareKey,
    journal: SoftwareKey,
    statement: JournalKeyStatement,
}

fn keys() -> Keys {
    let svid = SoftwareKey::generate().unwrap();
    let journal = SoftwareKey::generate().unwrap();
    let statement =
        JournalKeyStatement::sign(&svid, &node(), boot(1), journal.public_key(), NOW).unwrap();
    Keys {
        svid,
        journal,
        statement,
    }
}

impl Keys {
    fn batch(&self, records: &[SealedRecord]) -> Batch {
        Batch::sign(&self.statement, &self.journal, bytes_of(records)).unwrap()
    }

    fn verified(&self) -> JournalKey {
        self.statement
            .verify(&node(), self.svid.public_key(), NOW)
            .unwrap()
    }
}

#[test]
fn a_statement_holds_only_for_its_node_svid_key_and_time() {
    let keys = keys();
    let other: SpiffeId = "spiffe://plant.example/node/other".parse().unwrap();
    let foreign: SpiffeId = "spiffe://other.example/node/gw-3".parse().unwrap();
    let end = NOW.plus(JOURNAL_KEY_LIFETIME);
    let code = |node: &SpiffeId, key: &SoftwareKey, now| {
        keys.statement
            .verify(node, key.public_key(), now)
            .unwrap_err()
            .code()
    };
    assert_eq!(code(&other, &keys.svid, NOW), "audit_statement_node");
    assert_eq!(code(&foreign, &keys.svid, NOW), "signed_trust_domain");
    assert_eq!(code(&node(), &keys.journal, NOW), "signed_key");
    assert_eq!(code(&node(), &keys.svid, end), "signed_expired");
    let key = keys.verified();
    assert!(key.came_from(&keys.statement.to_bytes(), NOW));
    assert!(!key.came_from(&keys.statement.to_bytes(), end));
    assert!(!key.came_from(b"other", NOW));
    let long = vec![0; MAX_STATEMENT_BYTES + 1];
    assert_eq!(
        JournalKeyStatement::parse(&long).unwrap_err().code(),
        "audit_statement_malformed"
    );
}

#[test]
fn a_statement_that_was_changed_anywhere_is_refused() {
    let keys = keys();
    let good = keys.statement.to_bytes();
    mutations(&good, |bytes| {
        let held = JournalKeyStatement::parse(bytes).is_ok_and(|statement| {
            statement
                .verify(&node(), keys.svid.public_key(), NOW)
                .is_ok()
        });
        assert!(!held);
    });
}

#[test]
fn a_statement_that_holds_for_longer_than_allowed_is_refused() {
    use edgeward_identity::signed::{EVERYBODY, Header};
    use edgeward_identity::{Purpose, SignedObject};
    let keys = keys();
    let header = Header {
        purpose: Purpose::Journal,
        trust_domain: node().trust_domain().clone(),
        audience: EVERYBODY.to_owned(),
        number: 0,
        issued: NOW,
        expires: NOW.plus(JOURNAL_KEY_LIFETIME * 2),
    };
    let payload =
        serde_json::json!({"node": node(), "boot": boot(1), "key": keys.journal.public_key()});
    let object = SignedObject::sign_json(&keys.svid, header, &payload).unwrap();
    let statement = JournalKeyStatement::parse(&object.to_bytes()).unwrap();
    let refused = statement
        .verify(&node(), keys.svid.public_key(), NOW)
        .unwrap_err();
    assert_eq!(refused.code(), "audit_statement_lifetime");
}

#[test]
fn a_batch_of_another_key_node_or_boot_is_refused() {
    let keys = keys();
    let batch = keys.batch(&records(0, 3));
    assert!(batch.verify(&keys.verified()).is_ok());
    let stranger = self::keys();
    assert!(matches!(
        batch.verify(&stranger.verified()),
        Err(BatchRefused::Signature)
    ));
    let other: SpiffeId = "spiffe://plant.example/node/other".parse().unwrap();
    let statement =
        JournalKeyStatement::sign(&keys.svid, &other, boot(1), keys.journal.public_key(), NOW)
            .unwrap();
    let other_key = statement
        .verify(&other, keys.svid.public_key(), NOW)
        .unwrap();
    assert!(matches!(
        batch.verify(&other_key),
        Err(BatchRefused::Signature)
    ));
    // The other node signs our records as its own.
    let mut stolen = batch.clone();
    stolen.signature = keys
        .journal
        .sign(&covered(&other, boot(1), 0, &stolen.records))
        .unwrap();
    assert!(matches!(stolen.verify(&other_key), Err(BatchRefused::Node)));
    let mut moved = batch.clone();
    moved.boot = boot(2);
    moved.signature = keys
        .journal
        .sign(&covered(&node(), boot(2), 0, &moved.records))
        .unwrap();
    assert!(matches!(
        moved.verify(&keys.verified()),
        Err(BatchRefused::Chain(ChainError::Boot(_)))
    ));
    let mut renumbered = batch;
    renumbered.first = 1;
    renumbered.signature = keys
        .journal
        .sign(&covered(&node(), boot(1), 1, &renumbered.records))
        .unwrap();
    assert!(matches!(
        renumbered.verify(&keys.verified()),
        Err(BatchRefused::Chain(ChainError::Sequence { .. }))
    ));
}

#[test]
fn records_that_are_no_chain_are_neither_signed_nor_accepted() {
    let keys = keys();
    let mut bytes = bytes_of(&records(0, 4));
    bytes.remove(2);
    let refused = Batch::sign(&keys.statement, &keys.journal, bytes.clone());
    assert!(matches!(
        refused,
        Err(BatchError::Records(BatchRefused::Chain(_)))
    ));
    let mut forged = keys.batch(&records(0, 4));
    forged.records = bytes;
    forged.signature = keys
        .journal
        .sign(&covered(&node(), boot(1), 0, &forged.records))
        .unwrap();
    assert!(matches!(
        forged.verify(&keys.verified()),
        Err(BatchRefused::Chain(_))
    ));
}

#[test]
fn batches_beyond_their_limits_are_refused() {
    let keys = keys();
    let refused = Batch::sign(&keys.statement, &keys.journal, Vec::new());
    assert!(matches!(
        refused,
        Err(BatchError::Shape(BatchMalformed::Count(0)))
    ));
    let many = bytes_of(&records(0, MAX_BATCH_RECORDS + 1));
    let refused = Batch::sign(&keys.statement, &keys.journal, many);
    assert!(matches!(
        refused,
        Err(BatchError::Shape(BatchMalformed::Count(501)))
    ));
    assert_eq!(
        Batch::parse(&vec![0; MAX_BATCH_BYTES + 1]),
        Err(BatchMalformed::TooLong)
    );
    let good = keys.batch(&records(0, 1)).to_bytes();
    assert_eq!(Batch::parse(b""), Err(BatchMalformed::Length));
    assert_eq!(
        Batch::parse(&[good.as_slice(), &[0]].concat()),
        Err(BatchMalformed::Length)
    );
    assert_eq!(
        Batch::parse(&[b"EWJB\x02".as_slice(), &good[5..]].concat()),
        Err(BatchMalformed::Magic)
    );
    let mut long_statement = good.clone();
    long_statement[5..7].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(
        Batch::parse(&long_statement),
        Err(BatchMalformed::PartTooLong)
    );
}

#[test]
fn a_batch_that_was_changed_anywhere_is_refused() {
    let keys = keys();
    let good = keys.batch(&records(0, 2)).to_bytes();
    let key = keys.verified();
    let statement_end = 7 + keys.statement.to_bytes().len();
    assert_eq!(Batch::parse(&good).unwrap().to_bytes(), good);
    mutations(&good, |bytes| {
        let Ok(batch) = Batch::parse(bytes) else {
            return;
        };
        // A changed statement is noticed when it is verified, and by its bytes.
        let statement_is_same = bytes[..statement_end] == good[..statement_end];
        assert_eq!(
            key.came_from(batch.statement_bytes(), NOW),
            statement_is_same
        );
        assert!(!statement_is_same || batch.verify(&key).is_err());
    });
}

#[test]
fn a_batch_before_its_time_is_a_gap() {
    let keys = keys();
    let all = records(0, 6);
    let batch = keys.batch(&all[3..]).verify(&keys.verified()).unwrap();
    let refused = accept(&batch, None, |_| None);
    assert_eq!(
        refused,
        Err(DedupError::Gap {
            expected: 0,
            first: 3
        })
    );
    let refused = accept(&batch, Some(all[1].head()), |_| None);
    assert_eq!(
        refused,
        Err(DedupError::Gap {
            expected: 2,
            first: 3
        })
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "records 2 to 2 are missing"
    );
}

#[test]
fn another_record_of_the_same_number_is_an_equivocation() {
    let keys = keys();
    let (ours, fork) = (records(0, 6), records(1, 6));
    let hash_at = |seq: u64| Some(ours[seq as usize].hash());
    let check = |range: std::ops::Range<usize>, head: usize| {
        let batch = keys.batch(&fork[range]).verify(&keys.verified()).unwrap();
        match accept(&batch, Some(ours[head].head()), hash_at) {
            Err(DedupError::Equivocation { seq, .. }) => seq,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(check(0..6, 3), 3); // overlaps
    assert_eq!(check(4..6, 3), 3); // begins right after
    assert_eq!(check(0..2, 3), 1); // lies before
    assert_eq!(check(0..4, 3), 3); // ends together
}

#[test]
fn a_boot_that_does_not_fit_the_one_before_is_told_apart() {
    let all = records(0, 6);
    let hash_at = |seq: u64| all.get(seq as usize).map(SealedRecord::hash);
    let opened = |last_seq: u64, head| BootOpened {
        previous: Some(PreviousBoot {
            boot: boot(1),
            last_seq,
            head,
        }),
        reset_count: None,
        restart_count: None,
    };
    let stored = Some(all[3].head());
    let other = Digest::of(&[b"other"]);
    assert_eq!(
        continuity(&opened(3, other), stored, hash_at),
        Continuity::Forked {
            boot: boot(1),
            seq: 3
        }
    );
    assert_eq!(
        continuity(&opened(2, other), stored, hash_at),
        Continuity::Forked {
            boot: boot(1),
            seq: 2
        }
    );
    let rolled_back = Continuity::RolledBack {
        boot: boot(1),
        stored: 3,
        stated: 2,
    };
    assert_eq!(
        continuity(&opened(2, all[2].hash()), stored, hash_at),
        rolled_back
    );
    assert_eq!(
        continuity(&opened(2, all[2].hash()), stored, |_| None),
        rolled_back
    );
    let missing = Continuity::Missing {
        boot: boot(1),
        from: 4,
        to: 5,
    };
    assert_eq!(
        continuity(&opened(5, all[5].hash()), stored, |_| None),
        missing
    );
    let missing = Continuity::Missing {
        boot: boot(1),
        from: 0,
        to: 5,
    };
    assert_eq!(
        continuity(&opened(5, all[5].hash()), None, |_| None),
        missing
    );
    assert_eq!(
        continuity(&opened(3, all[3].hash()), stored, hash_at),
        Continuity::Complete
    );
    let first = BootOpened {
        previous: None,
        reset_count: None,
        restart_count: None,
    };
    assert_eq!(continuity(&first, None, |_| None), Continuity::First);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn batches_in_any_order_and_number_store_every_record_once(
        cuts in proptest::collection::vec((0_usize..20, 1_usize..8), 1..30),
    ) {
        let keys = keys();
        let key = keys.verified();
        let all = records(0, 20);
        let mut stored: Vec<SealedRecord> = Vec::new();
        // Random pieces, then everything in order: what a node does when nobody answers.
        let rest = (0..20).step_by(5).map(|at| (at, 5));
        for (at, count) in cuts.into_iter().chain(rest) {
            let batch = keys.batch(&all[at..(at + count).min(20)]).verify(&key).unwrap();
            let head = stored.last().map(SealedRecord::head);
            let accepted = accept(&batch, head, |seq| stored.get(seq as usize).map(SealedRecord::hash));
            match accepted {
                Ok(accepted) => {
                    prop_assert_eq!(accepted.new.len() + accepted.duplicates, batch.records().len());
                    stored.extend_from_slice(accepted.new);
                    prop_assert_eq!(stored.last().map(SealedRecord::head), Some(accepted.head));
                }
                Err(DedupError::Gap { expected, first }) => {
                    prop_assert_eq!((expected, first), (stored.len() as u64, at as u64));
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
        prop_assert_eq!(stored, all);
    }
}
