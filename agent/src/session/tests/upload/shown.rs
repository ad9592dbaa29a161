//! What the log proved to have, and what the cloud learns where a word of it is not believed.

use super::*;

/// A process of the node whose journal has several segments of one boot; all of it is sent.
async fn long() -> (Side, BootId, edgeward_audit::Head) {
    let world = World::new().await;
    let (journal, boot) = opened(&world).await;
    written(&world, &journal, 4_000).await;
    let end = journal.end().await.unwrap().head;
    let next = edgeward_audit::Position {
        boot,
        seq: end.seq + 1,
    };
    journal.set_sent(Some(next));
    (Side::begin(world, journal, false), boot, end)
}

impl Side {
    async fn not_shown(&mut self) -> u64 {
        match self.next().await {
            node_message::Body::AuditNotShown(said) => said.log_size,
            other => panic!("{other:?}"),
        }
    }

    /// Takes in what is sent until a heartbeat is answered: nothing of it is the word of a loss.
    async fn until_head(&mut self) {
        self.upload.heard(1);
        loop {
            match self.next().await {
                node_message::Body::Audit(audit) => {
                    let batch = self.verified(&audit);
                    self.answer(batch.boot(), batch.head().seq + 1, "");
                }
                node_message::Body::JournalHead(_) => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// How often the journal says that the log contradicts itself in this way.
    async fn contradictions(&self, code: &str) -> usize {
        self.journal.flush().await;
        let (mut from, mut found) = (None, 0);
        while let Some(pending) = self.journal.pending(from).await.unwrap() {
            let records = pending.records.iter();
            let events = records.map(|bytes| {
                let record = edgeward_audit::SealedRecord::parse(bytes).unwrap();
                record.event().clone()
            });
            found += events
                .filter(|event| event.kind == EventKind::AuditContradicted)
                .filter(|event| {
                    event
                        .code
                        .as_ref()
                        .is_some_and(|said| said.as_str() == code)
                })
                .count();
            from = Some(pending.next());
        }
        found
    }

    fn wants(&self, boot: BootId, first_seq: u64, last_seq: u64) {
        self.upload.wanted(&v1::JournalWanted {
            boot_id: boot.as_bytes().to_vec(),
            first_seq,
            last_seq,
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_proved_to_have_is_never_signed_as_lost_and_asking_for_it_is_on_record() {
    let (mut side, boot, end) = long().await;
    let mut log = Log::new(&side.world);
    // Of all its records the log has the last one only: that is all that it can be made to prove.
    let index = log.append(end.hash);
    side.covered(log.covered(boot, end.seq + 1, index)).await;
    let (_, kept) = side.oldest().await;
    assert!(kept > 5, "nothing was deleted");
    for last_seq in [kept - 1, 3] {
        side.wants(boot, 0, last_seq);
        for _ in 0..2 {
            // Whatever is said of these records is said in this time.
            tokio::time::sleep(Duration::from_millis(200)).await;
            side.until_head().await;
        }
    }
    assert_eq!(side.contradictions("log_lost_covered").await, 1);
    // Also in the next process of the node.
    let Side {
        world,
        journal,
        upload,
        ..
    } = side;
    drop((journal, upload));
    let (journal, _) = opened(&world).await;
    let losable = |first, last| journal.losable(boot, first, last);
    assert_eq!(losable(0, end.seq).await, Ok(None));
    // What was never covered may be lost.
    let first = end.seq + 1;
    assert_eq!(losable(first, first + 7).await, Ok(Some(first)));
    assert_eq!(losable(3, first + 7).await, Ok(Some(first)));
    let side = Side::begin(world, journal, false);
    assert_eq!(side.contradictions("log_lost_covered").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_is_on_disk_before_anything_is_deleted_for_it() {
    let (mut side, boot, end) = long().await;
    let path = side.world.folder.path().join("log-checkpoint");
    let saved = || {
        let note = std::fs::read_to_string(&path).unwrap();
        note.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut log = Log::new(&side.world);
    side.covered(log.covered(BootId::from_bytes([9; 16]), 1, 0))
        .await;
    assert_eq!(saved(), 1);
    log.shown = 1;
    let index = log.append(end.hash);
    // Within the minute in which it is saved once, and the disk does not take it.
    for name in ["log-checkpoint.new", "log-deleted.new"] {
        let staged = side.world.folder.path().join(name);
        std::fs::create_dir(&staged).unwrap();
        side.covered(log.covered(boot, end.seq + 1, index)).await;
        assert_eq!(side.oldest().await, (boot, 0), "{name}");
        // It is to be said again.
        assert_eq!(side.not_shown().await, 2);
        log.shown = 2;
        std::fs::remove_dir(&staged).unwrap();
    }
    side.covered(log.covered(boot, end.seq + 1, index)).await;
    assert!(side.oldest().await.1 > 0);
    // The power may go now.
    assert_eq!(saved(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_is_not_believed_is_answered_and_a_good_one_in_the_same_session_counts() {
    let (mut side, boot, end) = long().await;
    let mut log = Log::new(&side.world);
    let own = log.append(end.hash);
    let without_key = v1::AuditCovered {
        log_key: Vec::new(),
        ..log.covered(boot, end.seq + 1, own)
    };
    side.covered(without_key).await;
    assert_eq!(side.not_shown().await, 0);
    side.covered(log.covered(boot, end.seq + 1, 0)).await;
    assert_eq!(side.not_shown().await, 0);
    assert_eq!(side.oldest().await, (boot, 0));
    side.covered(log.covered(boot, end.seq + 1, own)).await;
    assert!(side.oldest().await.1 > 0);
    // From another size than this node knows.
    log.append(Digest::of(&[b"more"]));
    side.covered(log.covered(boot, end.seq + 1, own)).await;
    assert_eq!(side.not_shown().await, 2);
}
