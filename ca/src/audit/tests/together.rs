//! Batches of several nodes in one transaction.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{join_all, poll_immediate};

use super::*;
use crate::store::testing::TestStore;

fn batch_of(node: &str) -> VerifiedBatch {
    let mut journal = Journal::of(node, 3, None);
    journal.write(4);
    journal.batch(0, 5)
}

async fn next_of(store: &Store, node: &str) -> u64 {
    let boot = BootId::from_bytes([3; 16]);
    store
        .next_record(&id(Kind::Node, node), boot)
        .await
        .unwrap()
}

/// Does it as far as it goes without anybody else's help.
async fn begun<F: Future>(what: std::pin::Pin<&mut F>) {
    assert!(poll_immediate(what).await.is_none(), "somebody else writes");
}

store_tests! {
    async fn who_gives_up_on_its_turn_leaves_it_to_the_next_and_nothing_of_it_is_stored(store) {
        let log = open(&store, 1).await;
        let writing = store.begin("test").await.unwrap();
        let mut first = Box::pin(log.ingest(batch_of("first"), NOW));
        begun(first.as_mut()).await;
        let mut second = pin!(log.ingest(batch_of("second"), NOW));
        begun(second.as_mut()).await;
        drop(first);
        drop(writing);
        let done = tokio::time::timeout(Duration::from_secs(20), second).await;
        assert_eq!(done.unwrap().unwrap().next_seq, 5);
        assert_eq!(next_of(&store, "first").await, 0);
        assert!(log.intake.group().is_empty());
    }

    async fn no_more_is_taken_in_than_checkpoints_follow(store) {
        store.cover_by_checkpoints();
        let mut log = open(&store, 1).await;
        log.intake.most_uncovered = 8;
        log.ingest(batch_of("first"), NOW).await.unwrap();
        log.ingest(batch_of("second"), NOW).await.unwrap();
        let mut third = Box::pin(log.ingest(batch_of("third"), NOW));
        let waited = tokio::time::timeout(Duration::from_millis(500), &mut third).await;
        assert!(waited.is_err(), "11 events are covered by nothing");
        assert_eq!(next_of(&store, "third").await, 0);
        store.cover(4);
        let done = tokio::time::timeout(Duration::from_secs(20), third).await;
        assert_eq!(done.unwrap().unwrap().next_seq, 5);
    }

    async fn batches_that_wait_are_stored_together_and_each_gets_its_own_answer(store) {
        let log = open(&store, 1).await;
        log.ingest(batch_of("n0"), NOW).await.unwrap();
        let writing = store.begin("test").await.unwrap();
        let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
        let mut forged = Journal::of("forged", 3, None);
        forged.write(9);
        let gap = log.ingest(forged.batch(5, 10), NOW);
        let mut all = pin!(async {
            let batches = names.iter().map(|name| log.ingest(batch_of(name), NOW));
            tokio::join!(join_all(batches), gap)
        });
        begun(all.as_mut()).await;
        assert_eq!(log.intake.group().len(), 21, "all wait in one line");
        drop(writing);
        let (answers, gap) = tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        for (answer, name) in answers.into_iter().zip(&names) {
            assert_eq!(answer.unwrap().next_seq, 5, "{name}");
            assert_eq!(next_of(&store, name).await, 5);
        }
        assert_eq!(gap.unwrap_err().code(), "audit_gap");
        assert!(log.intake.group().is_empty());
    }
}

#[tokio::test]
async fn what_the_database_refuses_of_one_node_is_stored_of_the_others() {
    let test = TestStore::sqlite().await;
    let log = open(&test, 1).await;
    let mut tx = test.begin("test").await.unwrap();
    sqlx::query(
        "CREATE TRIGGER refuse BEFORE INSERT ON journals WHEN NEW.node LIKE '%/bad' \
         BEGIN SELECT RAISE(ABORT, 'refused'); END",
    )
    .execute(tx.connection())
    .await
    .unwrap();
    let mut all = pin!(join_all(
        ["good", "bad", "other"].map(|name| log.ingest(batch_of(name), NOW))
    ));
    begun(all.as_mut()).await;
    tx.commit().await.unwrap();
    let answers = tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(IngestError::code))
        .collect();
    assert_eq!(codes, [None, Some("audit_unavailable"), None]);
    for (name, next) in [("good", 5), ("bad", 0), ("other", 5)] {
        assert_eq!(next_of(&test, name).await, next, "{name}");
    }
}
