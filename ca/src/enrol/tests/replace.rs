//! Another TPM under a name that is in use.

use super::*;
use crate::store::recoveries::Replacement;
use edgeward_identity::Tier;

/// A token as `edgeward node replace-tpm a` makes it.
async fn replacement(cloud: &Cloud, least_tier: Tier) {
    cloud
        .token(|token| {
            token.id = "r1".to_owned();
            token.name = Some("a".parse().unwrap());
        })
        .await;
    let replacement = Replacement {
        node: "a".to_owned(),
        least_tier,
    };
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.insert_replacement("r1", &replacement).await.unwrap();
    tx.commit().await.unwrap();
}

/// A cloud with a node `a`, a node `b`, and a machine that is none.
async fn three() -> (Cloud, Machine, Machine, Machine) {
    let (mut a, mut b, new) = (Machine::new(), Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&a, &b, &new]).await;
    cloud.token(|token| token.uses = 9).await;
    cloud.enrol(&mut a, "t1", "a").await.unwrap();
    cloud.enrol(&mut b, "t1", "b").await.unwrap();
    (cloud, a, b, new)
}

#[tokio::test]
async fn a_lesser_tpm_does_not_take_a_name_over_unless_the_operator_said_so() {
    let (cloud, _a, _b, mut new) = three().await;
    replacement(&cloud, Tier::Hardware).await;
    let before = cloud.state().await;
    let refused = cloud.enrol(&mut new, "r1", "a").await;
    assert_eq!(refused, Err("tier_lower".to_owned()));
    assert_eq!(cloud.state().await, before);
}

#[tokio::test]
async fn a_tpm_that_is_another_node_already_takes_no_name_over() {
    let (cloud, _a, mut b, _new) = three().await;
    replacement(&cloud, Tier::Virtual).await;
    b.tpm.svid = SoftwareKey::generate().unwrap();
    let refused = cloud.enrol(&mut b, "r1", "a").await;
    assert_eq!(refused, Err("ek_already_enrolled".to_owned()));
}

#[tokio::test]
async fn a_quarantined_name_is_taken_over_by_nobody() {
    let (cloud, _a, _b, mut new) = three().await;
    replacement(&cloud, Tier::Virtual).await;
    cloud.quarantine("a").await;
    let refused = cloud.enrol(&mut new, "r1", "a").await;
    assert_eq!(refused, Err("node_quarantined".to_owned()));
}

#[tokio::test]
async fn another_tpm_takes_the_name_over_once_and_the_old_one_is_out() {
    let (cloud, mut old, _b, mut new) = three().await;
    let row = cloud.hub.member("a").unwrap().row;
    replacement(&cloud, Tier::Listed).await;
    let key = old.tpm.svid.public_key().spki_hash();
    let issued = cloud.enrol(&mut new, "r1", "").await.unwrap();
    assert_eq!(issued.spiffe_id, node("a").to_string());
    let now_it_is = cloud.hub.member("a").unwrap().row;
    assert_eq!((now_it_is.v4, &now_it_is.labels), (row.v4, &row.labels));
    assert_ne!(now_it_is.root, row.root);
    assert_eq!(
        cloud.hub.trust.load().deny.get(&key).unwrap().reason,
        "superseded"
    );
    let events = cloud.events().await;
    let replaced = events.iter().find(|(kind, _)| kind == "node.replaced");
    assert!(replaced.unwrap().1.contains(row.root.as_str()));
    // The old TPM is nobody now, and a third one is not let in by the same token.
    let refused = cloud.recover(&mut old, "a").await;
    assert_eq!(refused, Err("recover_refused".to_owned()));
    old.tpm.svid = SoftwareKey::generate().unwrap();
    let refused = cloud.enrol(&mut old, "r1", "a").await;
    assert_eq!(refused, Err("token_used".to_owned()));
    // The new one comes back by itself, as any node does.
    cloud.recover(&mut new, "a").await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_a_replaced_tpm_is_made_good_by_a_retry() {
    let (cloud, _old, _b, mut new) = three().await;
    replacement(&cloud, Tier::Listed).await;
    let mut attempt = cloud.attempt().await;
    attempt.begin(new.begin("r1", "")).await;
    let first = challenge(&mut attempt).await;
    let proof = new.prove(&first, &attempt.exporter, "r1");
    attempt.prove(proof).await;
    assert!(matches!(attempt.next().await, Step::Issued(_)));
    drop(attempt);
    new.tpm.svid = SoftwareKey::generate().unwrap();
    cloud.enrol(&mut new, "r1", "").await.unwrap();
}
