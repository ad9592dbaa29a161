//! The journal on its way up: what is deleted when, and what is said of what is not there.

use edgeward_audit::batch::{Batch, JournalKeyStatement, VerifiedBatch};
use edgeward_audit::statement::{HeadStated, LossStated, Signed};
use edgeward_audit::{BootId, Digest};

use super::super::upload::{Link, Upload};
use super::*;
use crate::journal::{self, JournalHandle};

mod log;
mod shown;

use log::Log;

struct Side {
    world: World,
    journal: JournalHandle,
    upload: Upload,
    up: mpsc::Receiver<v1::NodeMessage>,
}

/// The journal of `world`'s node in its folder, under a boot of its own.
async fn opened(world: &World) -> (JournalHandle, BootId) {
    let path = world.folder.path().join("journal");
    for _ in 0..500 {
        let boot = Boot::new("kernel", None).unwrap();
        if let Ok((journal, boot)) = journal::open(&path, &world.node(), boot, world.clock.clone())
        {
            return (journal, boot.id());
        }
        // The thread that held it ends on its own time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the journal does not open");
}

async fn written(world: &World, journal: &JournalHandle, count: usize) {
    for n in 0..count {
        let event = Event::new(world.clock.now(), world.node(), EventKind::FlowDenied);
        journal.record_after(event.detail("n", n));
        if n % 500 == 499 {
            journal.flush().await;
        }
    }
    journal.flush().await;
}

impl Side {
    fn begin(world: World, journal: JournalHandle, metered: bool) -> Self {
        let (sender, up) = mpsc::channel(16);
        let gather = Duration::from_millis(5);
        let link = Link { gather, metered };
        let upload = Upload::begin(journal.clone(), world.view.clone(), sender, link);
        Self {
            world,
            journal,
            upload,
            up,
        }
    }

    async fn next(&mut self) -> node_message::Body {
        let message = tokio::time::timeout(Duration::from_secs(20), self.up.recv());
        message.await.unwrap().unwrap().body.unwrap()
    }

    async fn batch(&mut self) -> VerifiedBatch {
        let node_message::Body::Audit(audit) = self.next().await else {
            panic!("no batch");
        };
        self.verified(&audit)
    }

    fn verified(&self, audit: &v1::AuditBatch) -> VerifiedBatch {
        let batch = Batch::parse(&audit.batch).unwrap();
        let statement = JournalKeyStatement::parse(batch.statement_bytes()).unwrap();
        let svid = self.world.view.svid.borrow().leaf().key;
        let now = self.world.clock.now();
        let key = statement.verify(&self.world.node(), &svid, now).unwrap();
        batch.verify(&key).unwrap()
    }

    async fn loss(&mut self) -> LossStated {
        let node_message::Body::JournalLoss(said) = self.next().await else {
            panic!("no loss");
        };
        let key = self.world.view.boot.public_key();
        Signed::<LossStated>::parse(&said.loss)
            .unwrap()
            .verify(&self.world.node(), key)
            .unwrap()
    }

    async fn head(&mut self) -> HeadStated {
        let node_message::Body::JournalHead(said) = self.next().await else {
            panic!("no head");
        };
        let key = self.world.view.boot.public_key();
        Signed::<HeadStated>::parse(&said.head)
            .unwrap()
            .verify(&self.world.node(), key)
            .unwrap()
    }

    fn answer(&self, boot: BootId, next_seq: u64, refused_code: &str) {
        self.upload.answered(v1::AuditAcknowledge {
            boot_id: boot.as_bytes().to_vec(),
            next_seq,
            refused_code: refused_code.to_owned(),
        });
    }

    async fn covered(&mut self, word: v1::AuditCovered) {
        self.upload.covered(word);
        self.journal.flush().await;
    }

    async fn oldest(&self) -> (BootId, u64) {
        let kept = self.journal.pending(None).await.unwrap().unwrap();
        (kept.boot, kept.first_seq)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_kept_until_a_checkpoint_covers_it_with_the_same_hash() {
    let world = World::new().await;
    let (journal, first) = opened(&world).await;
    written(&world, &journal, 3).await;
    let end = journal.end().await.unwrap().head;
    drop(journal);
    let (journal, second) = opened(&world).await;
    let mut side = Side::begin(world, journal, false);
    let batch = side.batch().await;
    assert_eq!((batch.boot(), batch.first_seq()), (first, 0));
    assert_eq!(batch.head(), end);
    let next = end.seq + 1;
    side.answer(first, next, "");
    let batch = side.batch().await;
    assert_eq!((batch.boot(), batch.first_seq()), (second, 0));
    side.answer(second, batch.head().seq + 1, "");
    assert_eq!(side.oldest().await, (first, 0));
    let mut log = Log::new(&side.world);
    let (own, other) = (log.append(end.hash), log.append(Digest::of(&[b"other"])));
    // Not the whole of it; another record than ours; more than there is; a boot that never was.
    let stranger = BootId::from_bytes([9; 16]);
    for (boot, next, index) in [
        (first, next - 1, own),
        (first, next, other),
        (first, next + 1, own),
        (first, u64::MAX, own),
        (stranger, next, own),
    ] {
        side.covered(log.covered(boot, next, index)).await;
        assert_eq!(side.oldest().await, (first, 0));
    }
    side.covered(log.covered(first, next, own)).await;
    assert_eq!(side.oldest().await, (second, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_for_a_word_without_proof_or_by_a_key_that_the_key_set_does_not_lead_to()
{
    let world = World::new().await;
    let (journal, first) = opened(&world).await;
    written(&world, &journal, 3).await;
    let end = journal.end().await.unwrap().head;
    drop(journal);
    let (journal, second) = opened(&world).await;
    let mut log = Log::new(&world);
    let mut forger = Log::new(&World::new().await);
    let (index, _) = (log.append(end.hash), forger.append(end.hash));
    let mut side = Side::begin(world, journal, false);
    let good = log.covered(first, end.seq + 1, index);
    let without = |word: v1::AuditCovered| v1::AuditCovered {
        log_key: Vec::new(),
        ..word
    };
    // The first three before any key was told.
    side.covered(without(good.clone())).await;
    side.covered(forger.covered(first, end.seq + 1, index))
        .await;
    let hashes = vec![vec![0; 32]; edgeward_audit::merkle::MAX_PROOF_HASHES + 1];
    for word in [
        v1::AuditCovered {
            consistency: hashes,
            ..good.clone()
        },
        v1::AuditCovered {
            proof: Vec::new(),
            ..good.clone()
        },
        without(forger.covered(first, end.seq + 1, index)),
    ] {
        side.covered(word).await;
        assert_eq!(side.oldest().await, (first, 0));
        assert_eq!(side.journal.log_size(), 0);
    }
    // The key was told with one of those.
    side.covered(without(good)).await;
    assert_eq!(side.oldest().await, (second, 0));
    assert_eq!(side.journal.log_size(), log.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_what_it_was_gets_nothing_deleted_and_is_told_of_once_also_after_a_restart()
 {
    let world = World::new().await;
    let (journal, first) = opened(&world).await;
    written(&world, &journal, 3).await;
    let end = journal.end().await.unwrap().head;
    drop(journal);
    let (journal, _) = opened(&world).await;
    let mut log = Log::new(&world);
    let mut side = Side::begin(world, journal, false);
    // A checkpoint is remembered, whatever it covers.
    log.append(Digest::of(&[b"others"]));
    side.covered(log.covered(BootId::from_bytes([9; 16]), 1, 0))
        .await;
    assert_eq!(side.journal.log_size(), 2);
    log.shown = 2;
    let Side {
        world,
        journal,
        upload,
        ..
    } = side;
    drop((journal, upload));
    let (journal, _) = opened(&world).await;
    assert_eq!(journal.log_size(), 2, "it is remembered on disk");
    let mut side = Side::begin(world, journal, false);
    log.change(0);
    let index = log.append(end.hash);
    for _ in 0..3 {
        side.covered(log.covered(first, end.seq + 1, index)).await;
        assert_eq!(side.oldest().await, (first, 0));
    }
    assert_eq!(side.journal.log_size(), 2);
    let mut told = 0;
    while let Some(pending) = side.journal.pending(side.journal.sent()).await.unwrap() {
        let records = pending.records.iter();
        let records = records.map(|bytes| edgeward_audit::SealedRecord::parse(bytes).unwrap());
        told += records
            .filter(|record| record.event().kind == EventKind::AuditContradicted)
            .count();
        side.journal.set_sent(Some(pending.next()));
    }
    assert_eq!(told, 1);
    for name in ["log-checkpoint", "log-contradicted"] {
        let note = std::fs::read_to_string(side.world.folder.path().join(name)).unwrap();
        assert!(note.starts_with("plant.example/audit\n"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_gone_are_signed_as_lost_before_what_follows_them() {
    let world = World::new().await;
    let (journal, boot) = opened(&world).await;
    // More than one segment of a mebibyte, of which somebody takes the first away.
    written(&world, &journal, 4_000).await;
    drop(journal);
    let (journal, _) = opened(&world).await;
    drop(journal);
    let files = std::fs::read_dir(world.folder.path().join("journal")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let is_full = |path: &std::path::PathBuf| path.metadata().unwrap().len() > 900_000;
    std::fs::remove_file(files.filter(is_full).min().unwrap()).unwrap();
    let (journal, _) = opened(&world).await;
    let mut side = Side::begin(world, journal, false);
    let first = side.batch().await.first_seq();
    assert!(first > 5, "nothing is gone");
    // No checkpoint ever covered it.
    side.answer(boot, 5, "audit_gap");
    let lost = side.loss().await;
    assert_eq!(
        (lost.boot, lost.first_seq, lost.last_seq),
        (boot, 5, first - 1)
    );
    let batch = side.batch().await;
    assert_eq!(batch.first_seq(), first);
    side.answer(boot, batch.head().seq + 1, "");
    assert_eq!(side.batch().await.first_seq(), batch.head().seq + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wanted_records_are_sent_again_and_those_of_no_boot_here_are_lost() {
    let world = World::new().await;
    let (journal, boot) = opened(&world).await;
    written(&world, &journal, 9).await;
    let mut side = Side::begin(world, journal, false);
    let next = side.batch().await.head().seq + 1;
    side.answer(boot, next, "");
    let wanted = |boot: BootId, first_seq, last_seq| v1::JournalWanted {
        boot_id: boot.as_bytes().to_vec(),
        first_seq,
        last_seq,
    };
    side.upload.wanted(&wanted(boot, 2, 4));
    let batch = side.batch().await;
    assert_eq!((batch.first_seq(), batch.head().seq), (2, 4));
    // As far as the cloud takes it; the rest follows.
    side.answer(boot, next, "");
    let stranger = BootId::from_bytes([9; 16]);
    side.upload.wanted(&wanted(stranger, 7, 8));
    let lost = side.loss().await;
    assert_eq!((lost.boot, lost.first_seq, lost.last_seq), (stranger, 7, 8));
    // What is new goes on where it was.
    written(&side.world, &side.journal, 1).await;
    assert_eq!(side.batch().await.first_seq(), next);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_heartbeat_is_answered_with_the_end_and_a_metered_link_only_with_a_new_one() {
    for metered in [false, true] {
        let world = World::new().await;
        let (journal, boot) = opened(&world).await;
        written(&world, &journal, 2).await;
        let mut side = Side::begin(world, journal, metered);
        let sent = side.batch().await.head();
        side.answer(boot, sent.seq + 1, "");
        side.upload.heard(11);
        let head = side.head().await;
        assert_eq!(
            (head.boot, head.head, head.oldest, head.answers),
            (boot, sent, boot, 11)
        );
        side.upload.heard(12);
        if metered {
            // Taken in before there is anything new to say.
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(side.up.try_recv().is_err(), "the end is as it was said");
        } else {
            assert_eq!(side.head().await.answers, 12);
        }
        written(&side.world, &side.journal, 1).await;
        let next = side.batch().await.head();
        side.upload.heard(13);
        let head = side.head().await;
        assert_eq!((head.head, head.answers), (next, 13));
    }
}
