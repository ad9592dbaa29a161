//! Two holders of one identity. Number 69 of the checklist of refusals that the project keeps.

use super::*;
use crate::store::nodes::NodeStatus;

/// A session of a machine that says this counter, its Welcome read.
async fn joined(cloud: &Cloud, machine: &Machine, join: u64) -> (Agent, u64) {
    let mut agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        join,
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    let offered = welcome(&mut agent).await.join;
    (agent, offered)
}

/// As [`joined`], and what was offered is stored: the session passes, so that the cloud has read it.
async fn stored(cloud: &Cloud, machine: &mut Machine, name: &str, join: u64) -> (Agent, u64) {
    let (mut agent, offered) = joined(cloud, machine, join).await;
    let stored = v1::JoinStored { join: offered };
    agent.send(node_message::Body::JoinStored(stored)).await;
    assert!(agent.pass(machine, name).await.refused.is_none());
    (agent, offered)
}

/// How the cloud ends a session that says this counter.
async fn turned_away(cloud: &Cloud, machine: &Machine, join: u64) -> Option<String> {
    let mut agent = cloud.stranger(&machine.svid()).await.ok()?;
    let hello = v1::Hello {
        join,
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    agent.goodbye().await
}

async fn gone(cloud: &Cloud, name: &str) {
    eventually(|| async { !cloud.hub.is_attached(name) }).await;
}

/// Test 69.
#[tokio::test]
async fn a_counter_behind_locks_both_holders_until_a_release() {
    let (cloud, mut a, mut b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    peer.pass(&mut b, "b").await;
    let (mut original, mine) = stored(&cloud, &mut a, "a", 0).await;
    assert_eq!(mine, 1);
    // A copy of the state as it was before that session.
    let code = turned_away(&cloud, &a, 0).await;
    assert!(
        code.is_none() || code.as_deref() == Some("join_behind"),
        "{code:?}"
    );
    let cut = cut(&mut peer, &cloud).await;
    assert_eq!((cut.node, cut.reason), (node("a"), CutReason::Quarantined));
    assert!(
        original.until(|_| None::<()>).await.is_none(),
        "its connection is closed"
    );
    let member = cloud.hub.member("a").unwrap();
    assert_eq!(member.row.status, NodeStatus::Quarantined);
    eventually(|| async {
        cloud.recorded("node.cloned", "join_behind").await
            && cloud.recorded("node.quarantined", "clone").await
            && cloud.recorded("session.refused", "join_behind").await
    })
    .await;
    let shown = cloud.hub.store.attestation("a").await.unwrap().unwrap();
    assert_eq!(shown.code.as_deref(), Some("join_behind"));
    // Neither gets in, in TLS already; nor by the EK.
    assert!(cloud.stranger(&a.svid()).await.is_err());

    cloud.release("a").await;
    let (first, _) = stored(&cloud, &mut a, "a", 1).await;
    // The copy is still there: found again.
    turned_away(&cloud, &a, 0).await;
    eventually(|| async { cloud.hub.member("a").unwrap().row.status == NodeStatus::Quarantined })
        .await;
    drop(first);
}

#[tokio::test]
async fn of_two_live_holders_one_is_found_at_the_second_reconnect() {
    let (cloud, mut a, _b) = two("").await;
    let (original, mine) = stored(&cloud, &mut a, "a", 0).await;
    // A copy of this very state, with a TPM that was copied too, comes while the original is there, and passes.
    let (copy, its) = stored(&cloud, &mut a, "a", mine).await;
    assert_eq!(its, mine + 1);
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
    drop(original);
    // The original comes again with what it stored.
    turned_away(&cloud, &a, mine).await;
    eventually(|| async { cloud.hub.member("a").unwrap().row.status == NodeStatus::Quarantined })
        .await;
    drop(copy);
}

#[tokio::test]
async fn a_crash_around_the_storing_costs_an_honest_node_nothing() {
    let (cloud, mut a, _b) = two("").await;
    // The Welcome is lost, twice; then it is stored and the word of it is lost.
    for _ in 0..2 {
        let (agent, offered) = joined(&cloud, &a, 0).await;
        assert_eq!(offered, 1);
        drop(agent);
        gone(&cloud, "a").await;
    }
    let (agent, offered) = joined(&cloud, &a, 1).await;
    assert_eq!(offered, 2);
    drop(agent);
    gone(&cloud, "a").await;
    let (agent, _) = stored(&cloud, &mut a, "a", 2).await;
    drop(agent);
    gone(&cloud, "a").await;
    // The cloud keeps the count across its restarts.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let cloud = cloud.restart().await;
    let (agent, offered) = joined(&cloud, &a, 3).await;
    assert_eq!(offered, 4);
    drop(agent);
    gone(&cloud, "a").await;
    turned_away(&cloud, &a, 2).await;
    eventually(|| async { cloud.hub.member("a").unwrap().row.status == NodeStatus::Quarantined })
        .await;
}

#[tokio::test]
async fn a_node_ahead_of_a_database_that_was_put_back_passes() {
    let (cloud, mut a, _b) = two("").await;
    let (agent, offered) = stored(&cloud, &mut a, "a", 700).await;
    assert_eq!(offered, 701);
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
    drop(agent);
}

#[tokio::test]
async fn a_number_that_was_never_offered_ends_the_session_and_locks_nobody() {
    let (cloud, a, _b) = two("").await;
    let (mut agent, offered) = joined(&cloud, &a, 0).await;
    let made_up = v1::JoinStored { join: offered + 1 };
    agent.send(node_message::Body::JoinStored(made_up)).await;
    assert_eq!(agent.goodbye().await.as_deref(), Some("join_not_offered"));
    assert_eq!(
        turned_away(&cloud, &a, u64::MAX).await.as_deref(),
        Some("join_not_offered")
    );
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
    let (_agent, offered) = joined(&cloud, &a, 0).await;
    assert_eq!(offered, 1);
}
