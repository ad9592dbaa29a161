//! Nodes that are not trusted although nothing is known against them: by their clock, by silence, by age.

use super::*;

#[tokio::test]
async fn a_node_whose_clock_is_behind_is_stale_and_cut_off_until_it_is_right_again() {
    let (cloud, mut a, mut b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    peer.pass(&mut b, "b").await;
    let mut agent = cloud.agent(&a).await;
    a.clock_off = (Duration::ZERO, Duration::from_secs(61));
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(outcome.refused.unwrap().code, "clock_behind");
    assert_eq!(outcome.findings[0].code, "clock_behind");
    let told = cut(&mut peer, &cloud).await;
    assert_eq!((told.node, told.reason), (node("a"), CutReason::Stale));
    assert_eq!(state(&cloud, "a"), AttestationState::Stale);
    eventually(|| async { cloud.recorded("attestation.stale", "clock_behind").await }).await;
    a.clock_off = (Duration::ZERO, Duration::from_secs(30));
    cloud.hasten("a");
    assert!(agent.pass(&mut a, "a").await.refused.is_none());
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
}

#[tokio::test]
async fn a_node_whose_clock_is_ahead_is_told_so() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    a.clock_off = (Duration::from_secs(601), Duration::ZERO);
    let outcome = agent.pass(&mut a, "a").await;
    assert!(outcome.refused.is_none());
    assert_eq!(outcome.findings[0].code, "clock_ahead");
    assert!(outcome.findings[0].monitored);
}

#[tokio::test]
async fn a_node_that_says_no_time_is_not_trusted() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let mut answer = a.answer(&challenge, &agent.exporter, "a");
    answer.time = 0;
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(agent.outcome().await.refused.unwrap().code, "clock_behind");
    assert_eq!(state(&cloud, "a"), AttestationState::Stale);
}

#[tokio::test]
async fn an_old_pass_counts_for_nothing_from_the_first_moment_of_a_restarted_cloud() {
    let (cloud, mut a, b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let passed = cloud.hub.member("a").unwrap().standing.passed;
    let written = async || {
        let row = cloud.hub.store.attestation("a").await.unwrap().unwrap();
        row.passed == passed
    };
    eventually(written).await;
    // Nobody asked for an hour: the cloud was down.
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    sqlx::query("UPDATE attestations SET passed = passed - 3600000 WHERE node = 'a'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let cloud = cloud.restart().await;
    assert_eq!(state(&cloud, "a"), AttestationState::Stale);
    cloud.profile_of(&a);
    let mut peer = cloud.agent(&b).await;
    let told = welcome(&mut peer).await.peers.unwrap();
    let a = told
        .peers
        .iter()
        .find(|peer| peer.spiffe_id == node("a").to_string())
        .unwrap();
    assert!(
        a.result.is_empty(),
        "no result of a node that is not trusted"
    );
    eventually(|| async { cloud.recorded("attestation.stale", "silent").await }).await;
}

#[tokio::test]
async fn a_cloud_whose_clock_was_set_back_trusts_nobody_for_longer() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    cloud.hub.update_member("a", |member| {
        let passed = member.standing.passed.unwrap();
        member.standing.passed = Some(passed.plus(Duration::from_secs(86_400)));
    });
    cloud.hub.sweep().await;
    assert_eq!(state(&cloud, "a"), AttestationState::Stale);
}

#[tokio::test]
async fn a_node_that_may_meet_many_is_told_when_they_passed_and_not_by_what() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    let few = cloud.hub.member("a").unwrap().to_wire(64);
    let many = cloud.hub.member("a").unwrap().to_wire(65);
    assert!(!few.result.is_empty() && many.result.is_empty());
    assert!(few.passed > 0 && many.passed == few.passed);
    assert_eq!(
        (few.endpoints, few.spki_hash),
        (many.endpoints, many.spki_hash)
    );
    // Ten thousand such lines and a slice fit one message each.
    let line = prost::Message::encoded_len(&cloud.hub.member("a").unwrap().to_wire(65));
    assert!(
        line * 10_000 < edgeward_wire::limits::MAX_MESSAGE_BYTES,
        "{line} bytes"
    );

    cloud.hub.update_member("a", |member| {
        member.standing.state = AttestationState::Stale
    });
    let fallen = cloud.hub.member("a").unwrap().to_wire(65);
    assert_eq!((fallen.passed, fallen.result.len()), (0, 0));
}
