use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_evidence::testing::SoftwareTpm;
use edgeward_identity::signed::{EVERYBODY, Expect};
use edgeward_identity::{
    AttestationState, Kind, Purpose, SignedObject, Signer, SoftwareKey, SpkiHash, Svid, Tier,
};
use edgeward_wire::v1::{self, enrol_proof::Proof, enrol_response::Step};

use crate::store::nodes::NodeStatus;
use crate::store::tokens::TokenRow;
use crate::testing::{Attempt, Cloud, Machine, SECRET, copy_of, domain, eventually, node, now};

mod recover;
mod replace;

/// The code of the refusal that comes next.
async fn refusal(attempt: &mut Attempt) -> String {
    match attempt.next().await {
        Step::Refused(refused) => refused.code,
        other => panic!("{other:?}"),
    }
}

async fn challenge(attempt: &mut Attempt) -> v1::EnrolChallenge {
    match attempt.next().await {
        Step::Challenge(challenge) => challenge,
        other => panic!("{other:?}"),
    }
}

/// Every claim that is refused at once: its code, an audit row, no change.
async fn refused_at_once(change: impl FnOnce(&mut v1::EnrolBegin), kind: &str, code: &str) {
    let machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let before = cloud.state().await;
    let mut begin = machine.begin("t1", "a");
    change(&mut begin);
    let mut attempt = cloud.attempt().await;
    attempt.begin(begin).await;
    assert_eq!(refusal(&mut attempt).await, code);
    assert!(cloud.recorded(kind, code).await, "{code}");
    assert_eq!(cloud.state().await, before, "{code}");
}

/// Every proof that is refused: its code, an audit row, no change, and the token still good.
async fn refused_proof(change: impl FnOnce(&mut v1::TpmProof), code: &str) {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let before = cloud.state().await;
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin("t1", "a")).await;
    let challenge = challenge(&mut attempt).await;
    let mut proof = machine.prove(&challenge, &attempt.exporter, "t1");
    if let Some(Proof::Tpm(proof)) = &mut proof.proof {
        change(proof);
    }
    attempt.prove(proof).await;
    assert_eq!(refusal(&mut attempt).await, code);
    assert!(cloud.recorded("enrolment.refused", code).await, "{code}");
    assert_eq!(cloud.state().await, before, "{code}");
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
}

fn tpm_claims(begin: &mut v1::EnrolBegin) -> &mut v1::TpmClaims {
    match &mut begin.root {
        Some(v1::enrol_begin::Root::Tpm(claims)) => claims,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unknown_token_and_a_wrong_secret_look_the_same() {
    refused_at_once(
        |begin| begin.token_id = "t2".into(),
        "token.refused",
        "token_refused",
    )
    .await;
    refused_at_once(
        |begin| begin.token_secret = b"guess".to_vec(),
        "token.refused",
        "token_refused",
    )
    .await;
}

#[tokio::test]
async fn incomplete_claims_are_refused() {
    refused_at_once(
        |begin| begin.root = None,
        "enrolment.refused",
        "enrol_incomplete",
    )
    .await;
    refused_at_once(
        |begin| begin.boot_key.clear(),
        "enrolment.refused",
        "enrol_incomplete",
    )
    .await;
}

#[tokio::test]
async fn an_ek_that_leads_nowhere_is_refused_before_any_challenge() {
    let other = SoftwareTpm::new().ek_public().to_bytes();
    refused_at_once(
        |begin| tpm_claims(begin).ek_public = other,
        "enrolment.refused",
        "ek_not_listed",
    )
    .await;
}

#[tokio::test]
async fn an_attestation_key_that_could_sign_anything_is_refused_before_any_challenge() {
    let unrestricted = SoftwareTpm::new().svid_public().to_bytes();
    refused_at_once(
        |begin| tpm_claims(begin).ak_public = unrestricted,
        "enrolment.refused",
        "ak_not_restricted",
    )
    .await;
}

#[tokio::test]
async fn a_name_that_the_token_does_not_give_is_refused() {
    refused_at_once(
        |begin| begin.wanted_name = "a/../b".into(),
        "enrolment.refused",
        "node_name_refused",
    )
    .await;
    refused_at_once(
        |begin| begin.wanted_name.clear(),
        "enrolment.refused",
        "node_name_missing",
    )
    .await;
}

#[tokio::test]
async fn tier_software_is_refused_where_no_group_names_it() {
    let key = SoftwareKey::generate()
        .unwrap()
        .public_key()
        .point()
        .to_vec();
    refused_at_once(
        |begin| {
            let claims = v1::SoftwareClaims { svid_key: key };
            begin.root = Some(v1::enrol_begin::Root::Software(claims));
        },
        "enrolment.refused",
        "tier_software",
    )
    .await;
}

#[tokio::test]
async fn tokens_that_are_expired_revoked_used_up_or_for_another_ek_are_refused() {
    type Change = fn(&mut TokenRow);
    let cases: [(Change, &str); 4] = [
        (|token| token.expires = now(), "token_expired"),
        (|token| token.used = 1, "token_used"),
        (
            |token| token.ek = Some("ab".repeat(32)),
            "token_ek_mismatch",
        ),
        (|token| token.uses = 0, "token_used"),
    ];
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    for (index, (change, code)) in cases.into_iter().enumerate() {
        let id = format!("t{index}");
        cloud
            .token(|token| {
                token.id.clone_from(&id);
                change(token);
            })
            .await;
        let before = cloud.state().await;
        assert_eq!(
            cloud.enrol(&mut machine, &id, "a").await,
            Err(code.to_owned())
        );
        assert!(cloud.recorded("token.refused", code).await);
        assert_eq!(cloud.state().await, before);
    }
    cloud.token(|token| token.id = "gone".to_owned()).await;
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.revoke_token("gone", "cloud", now()).await.unwrap();
    tx.commit().await.unwrap();
    let refused = cloud.enrol(&mut machine, "gone", "a").await;
    assert_eq!(refused, Err("token_revoked".to_owned()));
}

#[tokio::test]
async fn altered_proofs_are_refused_each_with_its_own_code() {
    refused_proof(|proof| proof.quote = None, "enrol_incomplete").await;
    refused_proof(
        |proof| proof.certify_attest = proof.quote.as_ref().unwrap().attest.clone(),
        "certify_type",
    )
    .await;
    refused_proof(
        |proof| proof.quote.as_mut().unwrap().pcrs[0].digest = vec![9; 32],
        "pcr_digest_mismatch",
    )
    .await;
    refused_proof(
        |proof| {
            let other = SoftwareTpm::new();
            let attest = proof.quote.as_ref().unwrap().attest.clone();
            proof.quote.as_mut().unwrap().signature = other.sign_bytes(attest).signature;
        },
        "quote_signature_mismatch",
    )
    .await;
}

#[tokio::test]
async fn a_wrong_activation_secret_burns_the_challenge() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let before = cloud.state().await;
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin("t1", "a")).await;
    let challenge = challenge(&mut attempt).await;
    let exporter = attempt.exporter;
    let wrong = machine.prove_with(&challenge, &exporter, "t1", [1; 32]);
    attempt.prove(wrong).await;
    assert_eq!(refusal(&mut attempt).await, "quote_nonce_mismatch");
    // The right one afterwards: nobody listens any more.
    let right = machine.prove(&challenge, &exporter, "t1");
    attempt.prove(right).await;
    eventually(|| async {
        cloud
            .recorded("enrolment.refused", "quote_nonce_mismatch")
            .await
    })
    .await;
    assert_eq!(cloud.state().await, before);
}

#[tokio::test]
async fn a_proof_for_another_attempt_or_over_another_connection_is_refused() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let (mut one, mut other) = (cloud.attempt().await, cloud.attempt().await);
    one.begin(machine.begin("t1", "a")).await;
    other.begin(machine.begin("t1", "a")).await;
    let (first, second) = (challenge(&mut one).await, challenge(&mut other).await);
    // The secret and nonce of the one on the stream of the other.
    let crossed = machine.prove(&first, &other.exporter, "t1");
    other.prove(crossed).await;
    assert_eq!(refusal(&mut other).await, "quote_nonce_mismatch");
    // The right challenge, but bound to another TLS session: a relay.
    let relayed = machine.prove(&first, &other.exporter, "t1");
    one.prove(relayed).await;
    assert_eq!(refusal(&mut one).await, "quote_nonce_mismatch");
    drop(second);
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
}

#[tokio::test]
async fn a_challenge_that_is_answered_after_its_deadline_is_refused() {
    let mut machine = Machine::new();
    let cloud = Cloud::start_with(&[&machine], "[enrol]\ndeadline = \"300ms\"\n").await;
    cloud.token(|_| {}).await;
    let before = cloud.state().await;
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin("t1", "a")).await;
    let challenge = challenge(&mut attempt).await;
    assert_eq!(refusal(&mut attempt).await, "enrol_deadline");
    let late = machine.prove(&challenge, &attempt.exporter, "t1");
    attempt.prove(late).await;
    assert!(cloud.recorded("enrolment.refused", "enrol_deadline").await);
    assert_eq!(cloud.state().await, before);
}

#[tokio::test]
async fn messages_out_of_order_are_refused() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let mut attempt = cloud.attempt().await;
    let proof = machine.prove_with(
        &v1::EnrolChallenge {
            nonce: vec![0; 32],
            pcr_selection: Some(v1::PcrSelection {
                bank: 0x0b,
                indexes: vec![0],
            }),
            ..v1::EnrolChallenge::default()
        },
        &[0; 32],
        "t1",
        [0; 32],
    );
    attempt.prove(proof).await;
    assert_eq!(refusal(&mut attempt).await, "enrol_order");
}

#[tokio::test]
async fn a_machine_that_measures_something_else_than_its_profile_is_refused() {
    let (mut good, mut other) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&good, &other]).await;
    cloud.profile_of(&good);
    cloud.token(|token| token.uses = 2).await;
    other.tpm.pcrs[7] = [0xee; 32];
    let before = cloud.state().await;
    let refused = cloud.enrol(&mut other, "t1", "b").await;
    assert_eq!(refused, Err("profile_pcr_value".to_owned()));
    assert!(
        cloud
            .recorded("enrolment.refused", "profile_pcr_value")
            .await
    );
    assert_eq!(cloud.state().await, before);
    cloud.enrol(&mut good, "t1", "a").await.unwrap();
    let member = cloud.hub.member("a").unwrap();
    assert_eq!(member.standing.state, AttestationState::Trusted);
}

#[tokio::test]
async fn a_hundred_parallel_uses_of_one_token_make_one_node() {
    let mut machines: Vec<Machine> = (0..100).map(|_| Machine::new()).collect();
    let cloud = Cloud::start(&machines.iter().collect::<Vec<_>>()).await;
    cloud.token(|_| {}).await;
    let attempts = machines.iter_mut().enumerate().map(|(index, machine)| {
        let cloud = &cloud;
        async move { cloud.enrol(machine, "t1", &format!("n{index}")).await }
    });
    let outcomes = futures::future::join_all(attempts).await;
    let (issued, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((issued.len(), refused.len()), (1, 99));
    assert!(
        refused
            .iter()
            .all(|code| *code == Err("token_used".to_owned()))
    );
    let nodes = cloud.hub.store.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1);
}

#[tokio::test]
async fn a_name_belongs_to_one_machine_and_a_machine_has_one_name() {
    let (mut one, mut other) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&one, &other]).await;
    cloud.token(|token| token.uses = 9).await;
    cloud.token(|token| token.id = "t2".to_owned()).await;
    cloud.enrol(&mut one, "t1", "a").await.unwrap();
    let before = cloud.state().await;
    let taken = cloud.enrol(&mut other, "t1", "a").await;
    assert_eq!(taken, Err("node_name_taken".to_owned()));
    one.tpm.svid = SoftwareKey::generate().unwrap();
    let twice = cloud.enrol(&mut one, "t2", "b").await;
    assert_eq!(twice, Err("ek_already_enrolled".to_owned()));
    assert_eq!(cloud.state().await, before);
    for code in ["node_name_taken", "ek_already_enrolled"] {
        let events = cloud.events().await;
        let alert = events
            .iter()
            .any(|(_, record)| record.contains(code) && record.contains("takeover"));
        assert!(alert, "{code}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_made_good_by_a_retry_that_denies_the_earlier_certificate() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    // The certificate is issued, but never acknowledged.
    let mut attempt = cloud.attempt().await;
    attempt.begin(machine.begin("t1", "a")).await;
    let first = challenge(&mut attempt).await;
    let proof = machine.prove(&first, &attempt.exporter, "t1");
    attempt.prove(proof).await;
    assert!(matches!(attempt.next().await, Step::Issued(_)));
    drop(attempt);
    let lost = machine.tpm.svid.public_key().spki_hash();
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    let deny = cloud.hub.store.deny_list(now()).await.unwrap();
    assert_eq!(deny.get(&lost).unwrap().reason, "superseded");
    assert!(cloud.hub.trust.load().deny.get(&lost).is_some());
    // Once the machine is known to hold it there is nothing to retry.
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    let again = cloud.enrol(&mut machine, "t1", "a").await;
    assert_eq!(again, Err("token_used".to_owned()));
}

#[tokio::test]
async fn another_machine_cannot_retry_with_a_used_token() {
    let (mut machine, mut thief) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&machine, &thief]).await;
    cloud.token(|_| {}).await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    let refused = cloud.enrol(&mut thief, "t1", "b").await;
    assert_eq!(refused, Err("token_used".to_owned()));
}

#[tokio::test]
async fn a_thief_who_names_somebody_elses_ek_keeps_its_owner_from_nothing() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|_| {}).await;
    let mut held = Vec::new();
    for _ in 0..super::MAX_RESERVATIONS * 2 {
        let mut attempt = cloud.attempt().await;
        attempt.begin(machine.begin("t1", "mine")).await;
        challenge(&mut attempt).await;
        held.push(attempt);
    }
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    assert!(cloud.recorded("enrolment.refused", "enrol_evicted").await);
}

#[tokio::test]
async fn a_pending_machine_gets_its_certificate_after_approval_and_not_before() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|token| token.approval = true).await;
    let pending = Err("pending spiffe://plant.example/node/a".to_owned());
    assert_eq!(cloud.enrol(&mut machine, "t1", "a").await, pending);
    assert_eq!(cloud.enrol(&mut machine, "t1", "a").await, pending);
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Pending
    );
    let cloud = cloud.restart().await;
    cloud.approve("a").await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    assert_eq!(
        cloud.hub.member("a").unwrap().row.status,
        NodeStatus::Active
    );
}

#[tokio::test]
async fn a_tpm_that_nobody_vouches_for_waits_only_where_its_token_needs_approval() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[]).await;
    cloud.token(|_| {}).await;
    assert_eq!(
        cloud.enrol(&mut machine, "t1", "a").await,
        Err("ek_not_listed".to_owned())
    );
    cloud
        .token(|token| {
            token.id = "t2".to_owned();
            token.approval = true;
        })
        .await;
    let pending = Err("pending spiffe://plant.example/node/a".to_owned());
    assert_eq!(cloud.enrol(&mut machine, "t2", "a").await, pending);
    assert_eq!(cloud.enrol(&mut machine, "t2", "a").await, pending);
    // Its one use is spent: another machine gets no place in the queue, and no other name is to be had.
    let mut other = Machine::new();
    assert_eq!(
        cloud.enrol(&mut other, "t2", "b").await,
        Err("token_used".to_owned())
    );
    let row = cloud.hub.member("a").unwrap().row;
    assert_eq!((row.status, row.ak.len()), (NodeStatus::Pending, 0));
    assert!(cloud.hub.store.listed_eks().await.unwrap().is_empty());
    cloud.approve("a").await;
    // The allow-list is read every few seconds; until then it waits on.
    assert_eq!(cloud.enrol(&mut machine, "t2", "a").await, pending);
    let cloud = cloud.restart().await;
    cloud.enrol(&mut machine, "t2", "a").await.unwrap();
    let row = cloud.hub.member("a").unwrap().row;
    assert_eq!((row.status, row.tier), (NodeStatus::Active, Tier::Listed));
    assert!(!row.ak.is_empty());
}

#[tokio::test]
async fn a_quarantined_machine_cannot_enrol_itself_free_and_a_removed_one_needs_a_new_token() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    for id in ["t1", "t2", "t3"] {
        cloud.token(|token| token.id = id.to_owned()).await;
    }
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    cloud.quarantine("a").await;
    machine.tpm.svid = SoftwareKey::generate().unwrap();
    let refused = cloud.enrol(&mut machine, "t2", "a").await;
    assert_eq!(refused, Err("node_quarantined".to_owned()));
    cloud.remove("a").await;
    let refused = cloud.enrol(&mut machine, "t1", "a").await;
    assert_eq!(refused, Err("token_used".to_owned()));
    cloud.enrol(&mut machine, "t2", "a").await.unwrap();
}

#[tokio::test]
async fn a_key_on_the_deny_list_gets_no_certificate() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.token(|token| token.uses = 2).await;
    cloud.token(|token| token.id = "t2".to_owned()).await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    cloud.remove("a").await;
    let refused = cloud.enrol(&mut machine, "t2", "a").await;
    assert_eq!(refused, Err("svid_key_denied".to_owned()));
}

#[tokio::test]
async fn a_machine_without_a_tpm_enrols_where_its_group_allows_that_and_is_never_trusted() {
    let cloud = Cloud::start(&[]).await;
    cloud.policy(1, "tier = [\"software\"]");
    cloud.token(|_| {}).await;
    let (svid, boot) = (
        SoftwareKey::generate().unwrap(),
        SoftwareKey::generate().unwrap(),
    );
    let mut attempt = cloud.attempt().await;
    let machine = Machine::new();
    let mut begin = machine.begin("t1", "a");
    begin.boot_key = boot.public_key().point().to_vec();
    begin.root = Some(v1::enrol_begin::Root::Software(v1::SoftwareClaims {
        svid_key: svid.public_key().point().to_vec(),
    }));
    attempt.begin(begin.clone()).await;
    let challenge = challenge(&mut attempt).await;
    let data = software_data(&challenge, &attempt, &svid, &boot);
    attempt
        .prove(v1::EnrolProof {
            proof: Some(Proof::Software(v1::SoftwareProof {
                signature: svid.sign(&data).unwrap(),
            })),
        })
        .await;
    let Step::Issued(issued) = attempt.next().await else {
        panic!("issued");
    };
    let leaf = Svid::new(
        issued
            .svid_chain
            .iter()
            .map(|der| der.clone().into())
            .collect(),
        copy_of(&svid),
    )
    .unwrap();
    assert_eq!(*leaf.id(), node("a"));
    let member = cloud.hub.member("a").unwrap();
    assert_eq!(member.standing.state, AttestationState::None);
    // A signature by another key proves nothing.
    cloud.token(|token| token.id = "t2".to_owned()).await;
    let mut attempt = cloud.attempt().await;
    begin.token_id = "t2".to_owned();
    attempt.begin(begin).await;
    let challenge = challenge_of(&mut attempt).await;
    let data = software_data(&challenge, &attempt, &svid, &boot);
    attempt
        .prove(v1::EnrolProof {
            proof: Some(Proof::Software(v1::SoftwareProof {
                signature: boot.sign(&data).unwrap(),
            })),
        })
        .await;
    assert_eq!(refusal(&mut attempt).await, "software_signature_mismatch");
}

async fn challenge_of(attempt: &mut Attempt) -> v1::EnrolChallenge {
    challenge(attempt).await
}

fn software_data(
    challenge: &v1::EnrolChallenge,
    attempt: &Attempt,
    svid: &SoftwareKey,
    boot: &SoftwareKey,
) -> Vec<u8> {
    use edgeward_evidence::transcript::Moment;
    use edgeward_evidence::{Exporter, Nonce, Transcript};
    let token = if challenge.nonce.is_empty() { "" } else { "t1" };
    Transcript {
        trust_domain: &domain(),
        boot_key: boot.public_key(),
        moment: Moment::EnrolSoftware {
            token_id: token,
            nonce: &Nonce::from_bytes(challenge.nonce.as_slice().try_into().unwrap()),
            exporter: &Exporter::from_bytes(attempt.exporter),
            svid_key: svid.public_key(),
        },
    }
    .qualifying_data()
    .as_bytes()
    .to_vec()
}

#[tokio::test]
async fn an_enrolled_machine_gets_all_that_it_needs_and_nothing_secret_is_recorded() {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    cloud.profile_of(&machine);
    cloud
        .token(|token| token.name = Some("gw-*".parse().unwrap()))
        .await;
    let issued = cloud.enrol(&mut machine, "t1", "gw-1").await.unwrap();
    assert_eq!(issued.spiffe_id, "spiffe://plant.example/node/gw-1");
    let leaf = machine.svid();
    assert_eq!(leaf.id().kind(), Kind::Node);
    assert_eq!(leaf.leaf().key, *machine.tpm.svid.public_key());
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let id = issued.spiffe_id.as_str();
    for (bytes, purpose, audience) in [
        (&issued.deny_list, Purpose::DenyList, EVERYBODY),
        (&issued.slice, Purpose::Policy, id),
    ] {
        let object = SignedObject::parse(bytes).unwrap();
        let expect = Expect {
            purpose,
            trust_domain: &domain(),
            audience,
            least_number: 0,
            now: now(),
        };
        object.open(&keys, &expect).unwrap();
    }
    let expect = ResultExpect {
        trust_domain: &domain(),
        spiffe_id: &node("gw-1"),
        svid_spki: &leaf.leaf().key.spki_hash(),
        least_number: 0,
        now: now(),
    };
    check_result(&issued.result, &keys, &expect).unwrap();
    let overlay = issued.overlay.unwrap();
    assert_eq!(overlay.ipv4, "100.64.0.1");
    assert_eq!(
        overlay.ipv6,
        edgeward_identity::overlay::ipv6_of(&node("gw-1")).to_string()
    );
    let kinds: Vec<String> = cloud
        .events()
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    for kind in ["token.used", "enrolment.issued", "enrolment.acknowledged"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind}");
    }
    let secret = String::from_utf8(SECRET.to_vec()).unwrap();
    assert!(
        !cloud
            .events()
            .await
            .iter()
            .any(|(_, record)| record.contains(&secret) || record.contains(&hex::encode(SECRET)))
    );
    let _: SpkiHash = leaf.leaf().key.spki_hash();
}
