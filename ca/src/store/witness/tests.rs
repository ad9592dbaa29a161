use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::cosignature::Cosigner;
use edgeward_audit::merkle::leaf_hash;
use edgeward_audit::note::NoteSigner;
use edgeward_audit::witness::Submission;

use super::*;
use crate::store_tests;

const ORIGIN: &str = "plant.example/audit";
const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap()
}

fn cosigner(number: u32) -> Cosigner {
    let name = format!("w{number}.example/witness");
    Cosigner::new(&name, &NoteSigner::generate().unwrap()).unwrap()
}

fn stored(log: &NoteSigner, size: u64, signed: Timestamp) -> StoredCheckpoint {
    let root = leaf_hash(&size.to_be_bytes());
    let origin = ORIGIN.to_owned();
    let note = Checkpoint { origin, size, root }.sign(log).unwrap();
    StoredCheckpoint {
        size,
        root,
        note: note.to_string(),
        signed,
    }
}

/// As a witness that knows nothing of the log yet would.
fn cosign(
    checkpoint: &StoredCheckpoint,
    log: &NoteSigner,
    witness: &Cosigner,
    now: Timestamp,
) -> Cosignature {
    let submission = Submission {
        old: 0,
        proof: Vec::new(),
        note: Note::parse(checkpoint.note.as_bytes()).unwrap(),
    };
    let keys = [log.verifier().clone()];
    let stated = submission.stated().unwrap();
    let continued = submission.open(stated, &keys).unwrap().judge(None).unwrap();
    let line = continued.cosign(witness, now);
    let note = continued.noted(&keys, line).unwrap();
    witness.key().verify(&note).unwrap()
}

async fn put(store: &Store, log: &NoteSigner, witness: &Cosigner, size: u64, at: Timestamp) {
    let checkpoint = stored(log, size, at);
    let cosignature = cosign(&checkpoint, log, witness, at);
    let mut tx = store.begin("test").await.unwrap();
    tx.put_cosignature(&checkpoint, witness.key(), &cosignature)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

store_tests! {
    async fn what_was_not_cosigned_is_not_there(store) {
        assert_eq!(store.witnessed(ORIGIN).await.unwrap(), None);
        assert_eq!(store.cosigned(0, Timestamp::from_secs(0)).await.unwrap(), None);
        assert!(store.cosignatures(7).await.unwrap().is_empty());
        assert_eq!(store.last_cosigned(cosigner(1).key()).await.unwrap(), None);
        let note = Note::parse(stored(&signer(), 7, NOW).note.as_bytes()).unwrap();
        let mut tx = store.begin("test").await.unwrap();
        // A fork of what was never cosigned is none.
        assert!(!tx.put_fork(ORIGIN, &note, NOW).await.unwrap());
    }

    async fn what_a_transaction_did_not_commit_was_not_witnessed(store) {
        let checkpoint = stored(&signer(), 7, NOW);
        let note = Note::parse(checkpoint.note.as_bytes()).unwrap();
        let known = Known { size: 7, root: checkpoint.root };
        let mut tx = store.begin("test").await.unwrap();
        tx.put_witnessed(ORIGIN, known, &note, NOW).await.unwrap();
        drop(tx);
        assert_eq!(store.witnessed(ORIGIN).await.unwrap(), None);
        let mut tx = store.begin("test").await.unwrap();
        tx.put_witnessed(ORIGIN, known, &note, NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.witnessed(ORIGIN).await.unwrap().unwrap().known(), known);
    }

    async fn the_first_fork_stays_whatever_is_cosigned_later(store) {
        let log = signer();
        let note = |size| Note::parse(stored(&log, size, NOW).note.as_bytes()).unwrap();
        let known = |size: u64| Known { size, root: leaf_hash(&size.to_be_bytes()) };
        let mut tx = store.begin("test").await.unwrap();
        tx.put_witnessed(ORIGIN, known(7), &note(7), NOW).await.unwrap();
        assert!(tx.put_fork(ORIGIN, &note(8), NOW).await.unwrap());
        assert!(!tx.put_fork(ORIGIN, &note(9), NOW).await.unwrap());
        tx.put_witnessed(ORIGIN, known(10), &note(10), NOW).await.unwrap();
        tx.commit().await.unwrap();
        let row = store.witnessed(ORIGIN).await.unwrap().unwrap();
        assert_eq!((row.size, row.fork), (10, Some((note(8).to_string(), NOW))));
    }

    async fn the_checkpoint_with_most_cosignatures_is_given_with_all_of_them(store) {
        let (log, a, b) = (signer(), cosigner(1), cosigner(2));
        put(&store, &log, &a, 5, NOW).await;
        put(&store, &log, &b, 5, NOW).await;
        put(&store, &log, &a, 6, NOW).await;
        let none = Timestamp::from_secs(0);
        let best = store.cosigned(1, none).await.unwrap().unwrap();
        assert_eq!(best.size, 5);
        let note = Note::parse(best.note.as_bytes()).unwrap();
        assert!(note.open(log.verifier()).is_ok());
        assert!(a.key().verify(&note).is_ok() && b.key().verify(&note).is_ok());
        // The smaller one does not cover event 5, and neither does anything cover event 6.
        assert_eq!(store.cosigned(6, none).await.unwrap().unwrap().size, 6);
        assert_eq!(store.cosigned(7, none).await.unwrap(), None);
        let later = Timestamp::from_secs(NOW.secs() + 1);
        assert_eq!(store.cosigned(1, later).await.unwrap(), None);
        assert_eq!(store.last_cosigned(a.key()).await.unwrap().unwrap().size, 6);
        assert_eq!(store.last_cosigned(b.key()).await.unwrap().unwrap().size, 5);
        // Given anew, it replaces the older one.
        put(&store, &log, &a, 6, later).await;
        assert_eq!(store.cosignatures(6).await.unwrap().len(), 1);
        assert_eq!(store.last_cosigned(a.key()).await.unwrap().unwrap().time, later);
    }

    async fn of_an_hour_the_first_and_the_newest_stay(store) {
        let (log, a) = (signer(), cosigner(1));
        let newest = u64::from(KEPT_NEWEST);
        for size in 1..=newest + 9 {
            put(&store, &log, &a, size, NOW).await;
        }
        let next = Timestamp::from_secs(NOW.secs() + 3600);
        for size in newest + 10..=2 * newest + 20 {
            put(&store, &log, &a, size, next).await;
        }
        let mut kept = Vec::new();
        for size in 1..=2 * newest + 20 {
            if !store.cosignatures(size).await.unwrap().is_empty() {
                kept.push(size);
            }
        }
        let mut expected = vec![1, newest + 10];
        expected.extend(newest + 21..=2 * newest + 20);
        assert_eq!(kept, expected);
    }
}
