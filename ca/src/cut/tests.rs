//! Cuts whose write fails once: they hold in memory, and must be written after all.

use sqlx::Executor;

use super::*;
use crate::testing::{Cloud, Machine, eventually};

const STUCK: &str =
    "CREATE TRIGGER stuck BEFORE INSERT ON denied BEGIN SELECT RAISE(ABORT, 'stuck'); END";
const LOOSE: &str = "DROP TRIGGER stuck";

async fn sql(cloud: &Cloud, text: &'static str) {
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.connection().execute(text).await.unwrap();
    tx.commit().await.unwrap();
}

/// A cloud with the node `a`.
async fn one() -> Cloud {
    let mut machine = Machine::new();
    let cloud = Cloud::start_with(&[&machine], "[alerts]\nquarantine = false\n").await;
    cloud.token(|_| {}).await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    cloud
}

async fn stored(cloud: &Cloud) -> NodeStatus {
    cloud.hub.store.node("a").await.unwrap().unwrap().status
}

fn known(cloud: &Cloud) -> NodeStatus {
    cloud.hub.member("a").unwrap().row.status
}

/// As a rule intended it.
async fn intended(cloud: &Cloud) -> ActRow {
    let act = ActRow {
        number: 7,
        alert: 1,
        node: "a".to_owned(),
        leaf: 3,
        proof: "quote".to_owned(),
        made: cloud.hub.clock.now(),
        outcome: Outcome::Intended,
    };
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.add_act(&act).await.unwrap();
    tx.commit().await.unwrap();
    act
}

async fn quarantines(cloud: &Cloud) -> usize {
    let events = cloud.events().await;
    events
        .iter()
        .filter(|(kind, _)| kind == "node.quarantined")
        .count()
}

#[tokio::test]
async fn an_automatic_quarantine_that_could_not_be_written_is_written_at_the_next_attempt() {
    let cloud = one().await;
    sql(&cloud, STUCK).await;
    let act = intended(&cloud).await;
    let control = cloud.control();
    for _ in 0..2 {
        assert_eq!(
            Cutter::quarantine(&control, &act, "why").await,
            Outcome::Failed
        );
        assert_eq!(
            (known(&cloud), stored(&cloud).await),
            (NodeStatus::Quarantined, NodeStatus::Active)
        );
        assert_eq!(cloud.hub.store.acts_intended().await.unwrap().len(), 1);
    }
    sql(&cloud, LOOSE).await;
    // Or the cloud's own desk was quicker: it has seen the act, too.
    let outcome = Cutter::quarantine(&control, &act, "why").await;
    assert!(
        matches!(outcome, Outcome::Quarantined | Outcome::NotActive),
        "{outcome:?}"
    );
    assert_eq!(stored(&cloud).await, NodeStatus::Quarantined);
    // It counts from the moment that it is written, whatever comes of the word about it.
    assert!(cloud.hub.store.acts_intended().await.unwrap().is_empty());
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    assert_eq!(tx.acts_since(Timestamp::default()).await.unwrap(), 1);
    drop(tx);
    // Once is enough.
    let again = ActRow { number: 8, ..act };
    assert_eq!(
        Cutter::quarantine(&control, &again, "why").await,
        Outcome::NotActive
    );
    assert_eq!(quarantines(&cloud).await, 1);
    let cloud = cloud.restart().await;
    assert_eq!(known(&cloud), NodeStatus::Quarantined);
}

#[tokio::test]
async fn a_lock_of_two_holders_that_could_not_be_written_is_tried_until_it_is() {
    let cloud = one().await;
    let why = JoinRefused::Behind {
        said: 1,
        confirmed: 2,
    };
    sql(&cloud, STUCK).await;
    cloud.control().lock_holders("a", "192.0.2.1", &why).await;
    assert_eq!(
        (known(&cloud), stored(&cloud).await),
        (NodeStatus::Quarantined, NodeStatus::Active)
    );
    sql(&cloud, LOOSE).await;
    eventually(|| async { stored(&cloud).await == NodeStatus::Quarantined }).await;
    assert!(cloud.recorded("node.quarantined", "clone").await);
    // Whoever comes next finds nothing to do.
    cloud.control().lock_holders("a", "192.0.2.1", &why).await;
    assert_eq!(quarantines(&cloud).await, 1);
}

#[tokio::test]
async fn a_lock_that_is_tried_again_leaves_alone_whom_somebody_released() {
    let cloud = one().await;
    sql(&cloud, STUCK).await;
    let why = JoinRefused::Behind {
        said: 1,
        confirmed: 2,
    };
    cloud.control().lock_holders("a", "192.0.2.1", &why).await;
    sql(&cloud, LOOSE).await;
    cloud.release("a").await;
    tokio::time::sleep(LOCK_PAUSES.0 * 2).await;
    assert_eq!(
        (known(&cloud), stored(&cloud).await),
        (NodeStatus::Active, NodeStatus::Active)
    );
}
