//! A node that comes back by its EK. Numbers are those of the checklist of refusals that the project keeps.

use super::*;
use edgeward_identity::Tier;
use edgeward_wire::v1::node_message;

/// A cloud with one enrolled machine, `a`.
async fn one(more: &str) -> (Cloud, Machine) {
    let mut machine = Machine::new();
    let cloud = Cloud::start_with(&[&machine], more).await;
    cloud.token(|token| token.uses = 9).await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    (cloud, machine)
}

/// A recovery that is refused: its code for the machine, its code in the audit log, no change.
async fn refused(cloud: &Cloud, machine: &mut Machine, name: &str, told: &str, code: &str) {
    let before = cloud.state().await;
    assert_eq!(cloud.recover(machine, name).await, Err(told.to_owned()));
    assert!(cloud.recorded("enrolment.refused", code).await, "{code}");
    assert_eq!(cloud.state().await, before, "{code}");
}

/// Test 64.
#[tokio::test]
async fn another_tpm_takes_over_nobodys_name_and_the_attempt_is_an_alert() {
    let (mut owner, mut thief) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&owner, &thief]).await;
    cloud.token(|_| {}).await;
    cloud.enrol(&mut owner, "t1", "a").await.unwrap();
    refused(
        &cloud,
        &mut thief,
        "a",
        "recover_refused",
        "recover_other_ek",
    )
    .await;
    let alert = cloud
        .events()
        .await
        .iter()
        .any(|(_, record)| record.contains("recover_other_ek") && record.contains("takeover"));
    assert!(alert);
    // Whoever asks learns nothing about names: an unknown one is refused alike, after the same proof.
    refused(
        &cloud,
        &mut thief,
        "nobody",
        "recover_refused",
        "recover_unknown",
    )
    .await;
}

/// Test 65.
#[tokio::test]
async fn one_tpm_comes_back_under_its_own_name_only() {
    let (mut a, mut b) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&a, &b]).await;
    cloud.token(|token| token.uses = 2).await;
    cloud.enrol(&mut a, "t1", "a").await.unwrap();
    cloud.enrol(&mut b, "t1", "b").await.unwrap();
    refused(&cloud, &mut a, "b", "recover_refused", "recover_other_ek").await;
}

#[tokio::test]
async fn a_name_that_is_no_nodes_is_refused_at_once() {
    for name in [
        "",
        "a",
        "spiffe://other.example/node/a",
        "spiffe://plant.example/cloud/main",
    ] {
        let machine = Machine::new();
        let cloud = Cloud::start(&[&machine]).await;
        let mut begin = machine.begin_recovery("a");
        begin.recover = name.to_owned();
        let mut attempt = cloud.attempt().await;
        attempt.begin(begin).await;
        let told = if name.is_empty() {
            "token_refused"
        } else {
            "recover_refused"
        };
        assert_eq!(refusal(&mut attempt).await, told, "{name}");
    }
}

#[tokio::test]
async fn without_a_tpm_there_is_nothing_to_recover_by() {
    let (cloud, machine) = one("").await;
    let mut begin = machine.begin_recovery("a");
    begin.root = Some(v1::enrol_begin::Root::Software(v1::SoftwareClaims {
        svid_key: machine.tpm.svid.public_key().point().to_vec(),
    }));
    let mut attempt = cloud.attempt().await;
    attempt.begin(begin).await;
    assert_eq!(refusal(&mut attempt).await, "recover_software");
    assert!(
        cloud
            .recorded("enrolment.refused", "recover_software")
            .await
    );
}

/// Test 68: no fresh proof, no certificate; with one, one, and it is counted.
#[tokio::test]
async fn an_enrolments_proof_recovers_nobody_and_a_fresh_one_counts_once() {
    let (cloud, mut machine) = one("").await;
    let before = cloud.state().await;
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin_recovery("a")).await;
    let first = challenge(&mut attempt).await;
    let proof = machine.prove(&first, &attempt.exporter, "");
    attempt.prove(proof).await;
    assert_eq!(refusal(&mut attempt).await, "quote_nonce_mismatch");
    // Nor does a proof that was made for an earlier challenge.
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin_recovery("a")).await;
    challenge(&mut attempt).await;
    let stale = machine.prove_recovery(&first, &attempt.exporter, "a");
    attempt.prove(stale).await;
    assert_eq!(refusal(&mut attempt).await, "quote_nonce_mismatch");
    assert_eq!(cloud.state().await, before);

    cloud.recover(&mut machine, "a").await.unwrap();
    let counted = cloud
        .hub
        .store
        .recoveries_since("a", edgeward_identity::Timestamp::default());
    assert_eq!(counted.await.unwrap(), 1);
}

#[tokio::test]
async fn a_node_comes_back_under_its_name_and_address_and_its_old_keys_are_denied() {
    let (cloud, mut machine) = one("").await;
    let address = cloud.hub.member("a").unwrap().row.v4;
    let old = machine.tpm.svid.public_key().spki_hash();
    let issued = cloud.recover(&mut machine, "a").await.unwrap();
    assert_eq!(issued.spiffe_id, node("a").to_string());
    assert_eq!(issued.overlay.unwrap().ipv4, address.to_string());
    assert_eq!(
        cloud.hub.trust.load().deny.get(&old).unwrap().reason,
        "superseded"
    );
    let record = cloud
        .events()
        .await
        .into_iter()
        .find(|(kind, _)| kind == "node.recovered")
        .unwrap()
        .1;
    assert!(record.contains("\"new_ak\":\"false\""), "{record}");
    // And it may open a session.
    let mut agent = cloud.agent(&machine).await;
    let outcome = agent.pass(&mut machine, "a").await;
    assert!(outcome.refused.is_none());
}

#[tokio::test]
async fn a_cleared_tpm_comes_back_with_a_new_ak_and_counts_from_zero() {
    let (cloud, mut machine) = one("").await;
    let before = cloud.hub.member("a").unwrap().row.ak;
    machine.tpm.clock.reset_count = 0;
    machine.tpm.clock.restart_count = 0;
    machine.tpm.clock.clock_ms = 0;
    machine.tpm.ak = SoftwareKey::generate().unwrap();
    cloud.recover(&mut machine, "a").await.unwrap();
    assert_ne!(cloud.hub.member("a").unwrap().row.ak, before);
    let mut agent = cloud.agent(&machine).await;
    let outcome = agent.pass(&mut machine, "a").await;
    assert!(outcome.refused.is_none(), "{:?}", outcome.refused);
}

#[tokio::test]
async fn a_tpm_whose_firmware_was_updated_attests_and_recovers_as_before() {
    let (cloud, mut machine) = one("").await;
    machine.tpm.firmware += 1;
    let mut agent = cloud.agent(&machine).await;
    assert!(agent.pass(&mut machine, "a").await.refused.is_none());
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    cloud.recover(&mut machine, "a").await.unwrap();
}

#[tokio::test]
async fn what_a_node_measures_counts_when_it_comes_back_too() {
    let (cloud, mut machine) = one("").await;
    cloud.profile_of(&machine);
    machine.tpm.pcrs[7] = [0xee; 32];
    refused(
        &cloud,
        &mut machine,
        "a",
        "profile_pcr_value",
        "profile_pcr_value",
    )
    .await;
}

#[tokio::test]
async fn a_quarantined_or_removed_node_does_not_come_back_by_itself() {
    let (cloud, mut machine) = one("").await;
    cloud.quarantine("a").await;
    refused(
        &cloud,
        &mut machine,
        "a",
        "node_quarantined",
        "node_quarantined",
    )
    .await;
    cloud.remove("a").await;
    refused(
        &cloud,
        &mut machine,
        "a",
        "recover_refused",
        "recover_unknown",
    )
    .await;
}

#[tokio::test]
async fn a_node_that_never_got_its_first_certificate_needs_its_token() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|token| token.approval = true).await;
    assert!(cloud.enrol(&mut machine, "t1", "a").await.is_err());
    refused(&cloud, &mut machine, "a", "node_status", "node_status").await;
}

#[tokio::test]
async fn nobody_recovers_a_node_whose_session_is_open() {
    let (cloud, mut machine) = one("").await;
    let mut agent = cloud.agent(&machine).await;
    agent.pass(&mut machine, "a").await;
    let svid = copy_of(&machine.tpm.svid);
    refused(&cloud, &mut machine, "a", "node_attached", "node_attached").await;
    drop((agent, svid));
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    cloud.recover(&mut machine, "a").await.unwrap();
}

#[tokio::test]
async fn beyond_the_allowance_an_operator_lets_each_one_through() {
    let (cloud, mut machine) = one("[recover]\nautomatic = 1\nper = \"1h\"\n").await;
    cloud.recover(&mut machine, "a").await.unwrap();
    let waits = Err("pending spiffe://plant.example/node/a".to_owned());
    assert_eq!(cloud.recover(&mut machine, "a").await, waits);
    assert_eq!(cloud.recover(&mut machine, "a").await, waits);
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Pending
    );
    let told = cloud.events().await;
    let told = told.iter().filter(|(kind, _)| kind == "node.waits").count();
    assert_eq!(told, 1, "said once, not at every attempt");
    // What was asked stays asked, across restarts.
    let cloud = cloud.restart().await;
    assert_eq!(cloud.recover(&mut machine, "a").await, waits);
    cloud.approve("a").await;
    cloud.recover(&mut machine, "a").await.unwrap();
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
    // One word, one recovery.
    assert_eq!(cloud.recover(&mut machine, "a").await, waits);
    // A token is a word, too.
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    cloud.token(|token| token.id = "t2".to_owned()).await;
    cloud.enrol(&mut machine, "t2", "a").await.unwrap();
    assert_eq!(cloud.hub.store.recovery_wait("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_cloud_that_allows_none_asks_at_the_first() {
    let (cloud, mut machine) = one("[recover]\nautomatic = 0\n").await;
    let waits = Err("pending spiffe://plant.example/node/a".to_owned());
    assert_eq!(cloud.recover(&mut machine, "a").await, waits);
}

#[tokio::test]
async fn a_tier_never_falls_by_coming_back() {
    let (cloud, mut machine) = one("").await;
    let mut member = cloud.hub.member("a").unwrap();
    member.row.tier = Tier::Hardware;
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.put_node(&member.row).await.unwrap();
    tx.commit().await.unwrap();
    refused(&cloud, &mut machine, "a", "tier_lower", "tier_lower").await;
    // Nor by a token.
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    cloud.token(|token| token.id = "t2".to_owned()).await;
    assert_eq!(
        cloud.enrol(&mut machine, "t2", "a").await,
        Err("tier_lower".to_owned())
    );
}

#[tokio::test]
async fn a_recovery_begins_a_new_join_counter() {
    let (cloud, mut machine) = one("").await;
    let mut agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        join: 9,
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    agent.pass(&mut machine, "a").await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    cloud.recover(&mut machine, "a").await.unwrap();
    let mut agent = cloud.agent(&machine).await;
    assert!(agent.pass(&mut machine, "a").await.refused.is_none());
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
}
