use std::time::Duration;

use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::event::{Event, EventKind};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salt};
use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::signed::{EVERYBODY, Expect};
use edgeward_identity::{AttestationState, Purpose, SignedObject, Signer, SoftwareKey, Svid};
use edgeward_wire::control::{Cut, CutReason, Heartbeat};
use edgeward_wire::v1::{self, cloud_message::Body, node_message};

use crate::testing::{Agent, Cloud, Machine, copy_of, domain, eventually, node, now};

mod apps;
mod deltas;
mod join;
mod journal;
mod logs;
mod revoke;
mod stages;
mod stale;

/// Challenges every second, answers within one: silence shows after two.
const QUICK: &str = "[attest]\ninterval = \"1s\"\njitter = \"0s\"\ndeadline = \"1s\"\n";

/// A cloud with two enrolled machines, `a` and `b`, and a policy whose profile both measure.
async fn two(more: &str) -> (Cloud, Machine, Machine) {
    let (mut a, mut b) = (Machine::new(), Machine::new());
    let cloud = Cloud::start_with(&[&a, &b], more).await;
    cloud.profile_of(&a);
    cloud.token(|token| token.uses = 2).await;
    cloud.enrol(&mut a, "t1", "a").await.unwrap();
    cloud.enrol(&mut b, "t1", "b").await.unwrap();
    (cloud, a, b)
}

fn open<T: serde::de::DeserializeOwned>(
    cloud: &Cloud,
    bytes: &[u8],
    purpose: Purpose,
    audience: &str,
) -> T {
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let expect = Expect {
        purpose,
        trust_domain: &domain(),
        audience,
        least_number: 0,
        now: now(),
    };
    SignedObject::parse(bytes)
        .unwrap()
        .open_json(&keys, &expect)
        .unwrap()
}

async fn welcome(agent: &mut Agent) -> v1::Welcome {
    match agent.next().await {
        Some(Body::Welcome(welcome)) => welcome,
        other => panic!("{other:?}"),
    }
}

async fn cut(agent: &mut Agent, cloud: &Cloud) -> Cut {
    let bytes = agent
        .until(|body| match body {
            Body::Cut(bytes) => Some(bytes),
            _ => None,
        })
        .await
        .unwrap();
    open(cloud, &bytes, Purpose::Control, EVERYBODY)
}

fn state(cloud: &Cloud, name: &str) -> AttestationState {
    cloud.hub.member(name).unwrap().standing.state
}

/// An answer that is refused: its code, a recorded failure, a cut at the peer.
async fn refused_answer(change: impl FnOnce(&mut v1::AttestEvidence, &mut Machine), code: &str) {
    let (cloud, mut a, mut b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    peer.pass(&mut b, "b").await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let mut answer = a.answer(&challenge, &agent.exporter, "a");
    change(&mut answer, &mut a);
    agent.send(node_message::Body::Evidence(answer)).await;
    let outcome = agent.outcome().await;
    assert_eq!(outcome.refused.unwrap().code, code);
    assert!(outcome.result.is_empty());
    let cut = cut(&mut peer, &cloud).await;
    assert_eq!((cut.node, cut.reason), (node("a"), CutReason::Failed));
    eventually(|| async { cloud.recorded("attestation.failed", code).await }).await;
    assert_eq!(state(&cloud, "a"), AttestationState::Failed);
    let stored = cloud.hub.store.attestation("a").await.unwrap().unwrap();
    assert_eq!(stored.state, AttestationState::Failed);
    assert_eq!(stored.result, None);
}

fn quote(evidence: &mut v1::AttestEvidence) -> &mut v1::Quote {
    match &mut evidence.root {
        Some(v1::attest_evidence::Root::Tpm(tpm)) => tpm.quote.as_mut().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bad_evidence_fails_the_node_and_cuts_it_off() {
    refused_answer(
        |answer, _| quote(answer).pcrs[0].digest[0] ^= 1,
        "pcr_digest_mismatch",
    )
    .await;
    refused_answer(|answer, _| answer.root = None, "evidence_incomplete").await;
    refused_answer(
        |answer, _| {
            let proof = v1::SoftwareProof { signature: vec![1] };
            answer.root = Some(v1::attest_evidence::Root::Software(proof));
        },
        "evidence_other_root",
    )
    .await;
}

#[tokio::test]
async fn evidence_of_another_connection_or_of_another_state_fails_the_node() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let relayed = a.answer(&challenge, &[9; 32], "a");
    agent.send(node_message::Body::Evidence(relayed)).await;
    assert_eq!(
        agent.outcome().await.refused.unwrap().code,
        "quote_nonce_mismatch"
    );
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    a.tpm.pcrs[7] = [0xee; 32];
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(outcome.refused.unwrap().code, "profile_pcr_value");
    assert_eq!(state(&cloud, "a"), AttestationState::Failed);
}

#[tokio::test]
async fn a_clock_that_falls_back_within_one_boot_fails_the_node_across_cloud_restarts() {
    // The rule over it would quarantine the node meanwhile.
    let (cloud, mut a, _b) = two("[alerts]\nquarantine = false\n").await;
    let mut agent = cloud.agent(&a).await;
    assert!(agent.pass(&mut a, "a").await.refused.is_none());
    let cloud = cloud.restart().await;
    cloud.profile_of(&a);
    a.tpm.clock.clock_ms -= 100;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(outcome.refused.unwrap().code, "clock_not_advanced");
    // A power cut sets it back, too, but counts: that passes.
    a.tpm.reboot(false);
    a.boot_key = SoftwareKey::generate().unwrap();
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    assert!(agent.pass(&mut a, "a").await.refused.is_none());
    let member = cloud.hub.member("a").unwrap();
    assert_eq!(member.standing.boot_key, Some(*a.boot_key.public_key()));
    a.tpm.clock.reset_count -= 1;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(outcome.refused.unwrap().code, "clock_reset_count_below");
}

#[tokio::test]
async fn a_tpm_that_was_set_back_quarantines_its_node_and_what_proves_nothing_does_not() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let relayed = a.answer(&challenge, &[9; 32], "a");
    agent.send(node_message::Body::Evidence(relayed)).await;
    assert!(agent.outcome().await.refused.is_some());
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    assert!(agent.pass(&mut a, "a").await.refused.is_none());
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    a.tpm.clock.clock_ms -= 100;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(outcome.refused.unwrap().code, "clock_not_advanced");
    let is_quarantined = || async { cloud.recorded("node.quarantined", "automatic").await };
    for _ in 0..300 {
        if is_quarantined().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_quarantined().await);
    let failed: Vec<String> = (cloud.events().await.into_iter())
        .filter(|(kind, _)| kind == "attestation.failed")
        .map(|(_, record)| record)
        .collect();
    let proof = "\"proof\":\"quote\"";
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].contains("quote_nonce_mismatch") && !failed[0].contains(proof));
    assert!(failed[1].contains("clock_not_advanced") && failed[1].contains(proof));
}

#[tokio::test]
async fn an_answer_that_nothing_asked_for_changes_nothing() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let answer = a.answer(&challenge, &agent.exporter, "a");
    agent
        .send(node_message::Body::Evidence(answer.clone()))
        .await;
    assert!(agent.outcome().await.refused.is_none());
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(
        agent.outcome().await.refused.unwrap().code,
        "challenge_unknown"
    );
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
    eventually(|| async { cloud.recorded("svid.denied", "challenge_unknown").await }).await;
}

#[tokio::test]
async fn silence_makes_a_node_stale_at_its_peers_and_a_pass_restores_it() {
    let (cloud, mut a, mut b) = two(QUICK).await;
    let mut silent = cloud.agent(&a).await;
    silent.pass(&mut a, "a").await;
    let mut peer = cloud.agent(&b).await;
    let machine = &mut b;
    let told = loop {
        match peer.next().await.unwrap() {
            Body::Challenge(challenge) => {
                let answer = machine.answer(&challenge, &peer.exporter, "b");
                peer.send(node_message::Body::Evidence(answer)).await;
            }
            Body::Cut(bytes) => break open::<Cut>(&cloud, &bytes, Purpose::Control, EVERYBODY),
            _ => {}
        }
    };
    assert_eq!((told.node, told.reason), (node("a"), CutReason::Stale));
    assert_eq!(state(&cloud, "a"), AttestationState::Stale);
    eventually(|| async {
        cloud
            .recorded("attestation.stale", "challenge_unanswered")
            .await
    })
    .await;
    // What waits in the queue is old; the newest challenge is answered.
    loop {
        let challenge = silent.challenge().await;
        let answer = a.answer(&challenge, &silent.exporter, "a");
        silent.send(node_message::Body::Evidence(answer)).await;
        if silent.outcome().await.refused.is_none() {
            break;
        }
    }
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
}

#[tokio::test]
async fn a_pass_gives_a_signed_result_and_the_peers_learn_of_it() {
    let (cloud, mut a, mut b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    let first = welcome(&mut peer).await;
    assert!(!first.slice.is_empty());
    assert_eq!(
        first.peers.unwrap().peers[0].spiffe_id,
        node("a").to_string()
    );
    let beat: Heartbeat = open(
        &cloud,
        &first.heartbeat,
        Purpose::Control,
        &node("b").to_string(),
    );
    assert_eq!(beat.deny_number, cloud.hub.deny_number());
    peer.pass(&mut b, "b").await;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let expect = ResultExpect {
        trust_domain: &domain(),
        spiffe_id: &node("a"),
        svid_spki: &a.tpm.svid.public_key().spki_hash(),
        least_number: 0,
        now: now(),
    };
    let checked = check_result(&outcome.result, &keys, &expect).unwrap();
    let result = checked.result();
    assert_eq!(*result.spiffe_id(), node("a"));
    assert_eq!(result.state(), AttestationState::Trusted);
    assert_eq!(*result.svid_spki(), a.tpm.svid.public_key().spki_hash());
    let told = peer
        .until(|body| match body {
            Body::Peers(update) => update
                .peers
                .into_iter()
                .find(|peer| peer.result == outcome.result),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(told.endpoints, ["192.0.2.1:51820"]);
    assert_eq!(told.spki_hash, result.svid_spki().as_bytes());
    eventually(|| async {
        let stored = cloud.hub.store.attestation("a").await.unwrap().unwrap();
        stored.result == Some(outcome.result.clone())
    })
    .await;
}

#[tokio::test]
async fn a_stranger_with_a_certificate_that_the_cloud_does_not_know_gets_no_session() {
    let (cloud, a, _b) = two("").await;
    let key = SoftwareKey::generate().unwrap();
    let operator =
        edgeward_identity::SpiffeId::new(&domain(), edgeward_identity::Kind::Operator, "admin")
            .unwrap();
    let issued = cloud
        .hub
        .keys
        .issuer()
        .issue_operator(&operator, key.public_key(), Duration::from_secs(60), now())
        .unwrap();
    let operator = Svid::new(issued.chain, copy_of(&key)).unwrap();
    let refused = cloud.stranger(&operator).await.err().unwrap();
    assert!(
        ["operator_refused", "forbidden"].contains(&refused.message()),
        "{refused}"
    );
    let before = cloud.state().await;
    // A node that sends something else than a Hello, or a malformed one.
    let mut agent = cloud.stranger(&a.svid()).await.unwrap();
    agent
        .send(node_message::Body::Status(v1::NodeStatus::default()))
        .await;
    assert_eq!(agent.goodbye().await.unwrap(), "session_no_hello");
    for change in [
        |hello: &mut v1::Hello| hello.boot_key.clear(),
        |hello: &mut v1::Hello| hello.boot_id.clear(),
        |hello: &mut v1::Hello| hello.endpoints = vec!["nowhere".to_owned()],
        |hello: &mut v1::Hello| hello.endpoints = vec!["h:1".to_owned(); 17],
    ] {
        let mut agent = cloud.stranger(&a.svid()).await.unwrap();
        let mut hello = a.hello();
        change(&mut hello);
        agent.send(node_message::Body::Hello(hello)).await;
        assert_eq!(agent.goodbye().await.unwrap(), "session_hello");
    }
    assert!(cloud.recorded("session.refused", "session_hello").await);
    assert_eq!(cloud.state().await, before);
}

#[tokio::test]
async fn of_two_sessions_the_one_that_passes_stays() {
    let (cloud, mut a, _b) = two("").await;
    let mut first = cloud.agent(&a).await;
    first.pass(&mut a, "a").await;
    // One that does not pass changes nothing for the other.
    let mut thief = cloud.agent(&a).await;
    let challenge = thief.challenge().await;
    let wrong = a.answer(&challenge, &[9; 32], "a");
    thief.send(node_message::Body::Evidence(wrong)).await;
    assert_eq!(thief.goodbye().await.unwrap(), "session_not_passed");
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
    assert!(cloud.hub.is_attached("a"));
    let mut second = cloud.agent(&a).await;
    assert!(second.pass(&mut a, "a").await.refused.is_none());
    assert_eq!(first.goodbye().await.unwrap(), "session_displaced");
    assert!(
        cloud
            .recorded("session.displaced", "session_displaced")
            .await
    );
    assert!(cloud.hub.is_attached("a"));
}

#[tokio::test]
async fn quarantine_cuts_at_every_peer_denies_the_key_and_ends_the_session() {
    let (cloud, mut a, mut b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    peer.pass(&mut b, "b").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    let number = cloud.hub.deny_number();
    cloud.quarantine("a").await;
    let told = cut(&mut peer, &cloud).await;
    assert_eq!(
        (told.node, told.reason),
        (node("a"), CutReason::Quarantined)
    );
    let list = peer
        .until(|body| match body {
            Body::Trust(update) => Some(update.deny_list),
            _ => None,
        })
        .await
        .unwrap();
    let list: edgeward_identity::DenyList = open(&cloud, &list, Purpose::DenyList, EVERYBODY);
    let key = a.tpm.svid.public_key().spki_hash();
    assert!(list.number() > number && list.get(&key).is_some());
    // Its stream ends, and no handshake brings another one.
    while agent.next().await.is_some() {}
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    assert!(cloud.hub.connections.count() <= 1);
    for (kind, code) in [
        ("node.quarantined", "quarantined"),
        ("cut.ordered", "quarantined"),
    ] {
        assert!(cloud.recorded(kind, code).await);
    }
    // Also after a restart.
    let cloud = cloud.restart().await;
    cloud.profile_of(&a);
    assert!(cloud.hub.trust.load().deny.get(&key).is_some());
    cloud.release("a").await;
    assert!(cloud.hub.trust.load().deny.get(&key).is_none());
    let mut agent = cloud.agent(&a).await;
    assert!(agent.pass(&mut a, "a").await.refused.is_none());
}

#[tokio::test]
async fn half_way_through_its_life_a_certificate_is_renewed_with_a_pass_and_not_without() {
    let (cloud, mut a, _b) = two("").await;
    // As if it had been issued long ago.
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    sqlx::query("UPDATE svids SET issued = issued - 864000000 WHERE node = 'a'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    assert!(challenge.renew);
    let uncertified = v1::AttestChallenge {
        renew: false,
        ..challenge.clone()
    };
    let answer = a.answer(&uncertified, &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(
        agent.outcome().await.refused.unwrap().code,
        "certify_missing"
    );
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert!(outcome.refused.is_none());
    a.chain = outcome
        .svid_chain
        .iter()
        .map(|der| der.clone().into())
        .collect();
    let renewed = a.svid();
    assert_eq!(*renewed.id(), node("a"));
    let key = renewed.leaf().key.spki_hash();
    agent
        .send(node_message::Body::SvidStored(v1::SvidStored {
            spki_hash: key.as_bytes().to_vec(),
        }))
        .await;
    let kinds = cloud.events().await;
    assert!(kinds.iter().any(|(kind, _)| kind == "svid.renewed"));
    let mut second = cloud.agent(&a).await;
    assert!(!second.challenge().await.renew);
}

#[tokio::test]
async fn a_new_policy_reaches_every_session_and_asks_for_evidence_at_once() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let number = |bytes: &[u8]| SignedObject::parse(bytes).unwrap().header().number;
    let first = number(&welcome(&mut agent).await.slice);
    agent.pass(&mut a, "a").await;
    a.tpm.pcrs[7] = [0x77; 32];
    let value = hex::encode([0x77; 32]);
    cloud.policy(
        2,
        &format!(
            "tier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{value}\"] }}\n"
        ),
    );
    let slice = agent
        .until(|body| match body {
            Body::Slice(slice) => Some(slice),
            _ => None,
        })
        .await
        .unwrap();
    assert!(number(&slice) > first);
    let read: edgeward_policy::Slice =
        open(&cloud, &slice, Purpose::Policy, &node("a").to_string());
    assert_eq!(read.version, 2);
}

#[tokio::test]
async fn audit_batches_are_stored_once_acknowledged_after_and_refused_from_others() {
    let (cloud, a, b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    let boot = BootId::from_bytes([7; 16]);
    assert_eq!(welcome(&mut agent).await.audit_next, 0);
    let journal = SoftwareKey::generate().unwrap();
    let batch_of = |machine: &Machine, name: &str| {
        let statement = JournalKeyStatement::sign(
            &machine.tpm.svid,
            &node(name),
            boot,
            journal.public_key(),
            now(),
        )
        .unwrap();
        let opened = BootOpened {
            previous: None,
            reset_count: Some(7),
            restart_count: Some(0),
        };
        let event = Event::new(now(), node(name), EventKind::JournalOpened);
        let record = Chain::new(node(name), boot)
            .seal_opening(opened, event, Salt::from_bytes([7; 16]))
            .unwrap();
        Batch::sign(&statement, &journal, vec![record.bytes().to_vec()])
            .unwrap()
            .to_bytes()
    };
    let acknowledged = |body| match body {
        Body::Audit(acknowledged) => Some(acknowledged),
        _ => None,
    };
    for (bytes, code) in [
        (vec![1, 2, 3], None),
        (batch_of(&b, "a"), Some("signed_key")),
        (batch_of(&a, "b"), None),
    ] {
        agent
            .send(node_message::Body::Audit(v1::AuditBatch { batch: bytes }))
            .await;
        let answer = agent.until(acknowledged).await.unwrap();
        assert_ne!(answer.refused_code, "");
        if let Some(code) = code {
            assert!(
                answer.refused_code.ends_with(code),
                "{}",
                answer.refused_code
            );
        }
    }
    let good = batch_of(&a, "a");
    for _ in 0..2 {
        agent
            .send(node_message::Body::Audit(v1::AuditBatch {
                batch: good.clone(),
            }))
            .await;
        let answer = agent.until(acknowledged).await.unwrap();
        assert_eq!((answer.refused_code.as_str(), answer.next_seq), ("", 1));
    }
    let stored = cloud
        .events()
        .await
        .into_iter()
        .filter(|(kind, record)| kind == "journal.opened" && record.contains("node/a"))
        .count();
    assert_eq!(stored, 1);
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = cloud.agent(&a).await;
    assert_eq!(welcome(&mut agent).await.audit_next, 1);
}

#[tokio::test]
async fn a_node_that_went_away_is_called_stale_once_its_pass_is_old_also_across_restarts() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let passed = cloud.hub.member("a").unwrap().standing.passed;
    eventually(|| async {
        cloud
            .hub
            .store
            .attestation("a")
            .await
            .unwrap()
            .unwrap()
            .passed
            == passed
    })
    .await;
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    sqlx::query("UPDATE attestations SET passed = passed - 3600000 WHERE node = 'a'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let cloud = cloud.restart().await;
    eventually(|| async { state(&cloud, "a") == AttestationState::Stale }).await;
    eventually(|| async { cloud.recorded("attestation.stale", "silent").await }).await;
}

#[tokio::test]
async fn shutdown_says_goodbye() {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    let ending = tokio::spawn(cloud.restart());
    assert_eq!(agent.goodbye().await.unwrap(), "cloud_shutdown");
    drop(agent);
    ending.await.unwrap();
}

#[tokio::test]
async fn a_node_that_floods_its_session_with_nonsense_loses_it() {
    let (cloud, a, _b) = two("").await;
    let mut agent = cloud.agent(&a).await;
    for _ in 0..100 {
        let batch = v1::AuditBatch { batch: vec![1] };
        agent.send(node_message::Body::Audit(batch)).await;
    }
    assert_eq!(agent.goodbye().await.unwrap(), "session_flood");
}

#[tokio::test]
async fn peers_learn_of_new_endpoints() {
    let (cloud, mut a, b) = two("").await;
    let mut peer = cloud.agent(&b).await;
    welcome(&mut peer).await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    let status = v1::NodeStatus {
        endpoints: vec!["198.51.100.9:51820".to_owned()],
        ..v1::NodeStatus::default()
    };
    agent.send(node_message::Body::Status(status)).await;
    let told = peer
        .until(|body| match body {
            Body::Peers(update) => update
                .peers
                .into_iter()
                .find(|peer| peer.endpoints == ["198.51.100.9:51820"]),
            _ => None,
        })
        .await;
    assert!(told.is_some());
}
