//! Taking note of what is lost, and coverage page by page.

use edgeward_audit::record::BootId;
use edgeward_identity::{Kind, SpiffeId};

use super::*;
use crate::store::audit::{FaultKind, Gap, JournalFault};

const BOOT: [u8; 16] = [9; 16];

/// Records 3 to 9 of a boot of gw are missing; lost, if the node has signed that.
async fn missing(bench: &Bench, lost: bool) {
    let node = SpiffeId::new(bench.api.keys.trust_domain(), Kind::Node, "gw").unwrap();
    let boot = BootId::from_bytes(BOOT);
    let now = SystemClock.now();
    let gap = |lost| Gap {
        first_seq: 3,
        last_seq: 9,
        lost,
    };
    let fault = JournalFault {
        node: node.clone(),
        boot,
        first_seq: 3,
        last_seq: 9,
        kind: FaultKind::Missing,
        noticed: now,
        lost: None,
        resolved: None,
    };
    let mut tx = bench.store.begin("test").await.unwrap();
    tx.note_fault(&fault).await.unwrap();
    if lost {
        tx.replace_gap(&node, boot, gap(false), &[gap(true)], now)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

fn note(first_seq: u64, reason: &str) -> Value {
    json!({ "node": "gw", "boot": BootId::from_bytes(BOOT).to_string(), "first_seq": first_seq, "reason": reason })
}

const ACKNOWLEDGE: &str = "/api/v1/audit/coverage/acknowledge";

#[tokio::test]
async fn only_what_the_node_gave_up_is_noted_with_a_reason_and_stays_missing() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    missing(&bench, false).await;
    for (body, status, code) in [
        (note(3, "gone"), StatusCode::CONFLICT, "not_lost"),
        (note(4, "gone"), StatusCode::NOT_FOUND, ""),
        (note(3, " "), StatusCode::BAD_REQUEST, "loss_malformed"),
        (
            note(3, &"x".repeat(401)),
            StatusCode::BAD_REQUEST,
            "loss_malformed",
        ),
        (
            json!({ "node": "gw", "boot": "09", "first_seq": 3, "reason": "gone" }),
            StatusCode::BAD_REQUEST,
            "loss_malformed",
        ),
    ] {
        let (found, answer) = bench.post(&who, ACKNOWLEDGE, body).await;
        assert_eq!(found, status, "{answer}");
        assert!(code.is_empty() || answer["code"] == code, "{answer}");
    }
    assert!(
        bench
            .recorded(EventKind::JournalAcknowledged)
            .await
            .is_empty()
    );

    missing(&bench, true).await;
    let (status, answer) = bench
        .post(&who, ACKNOWLEDGE, note(3, "the disk broke"))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["acknowledged"]["reason"], "the disk broke");
    let events = bench.recorded(EventKind::JournalAcknowledged).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].detail.get("last_seq"), Some("9"));
    let (_, coverage) = bench.get(&who, "/api/v1/audit/coverage").await;
    assert_eq!(coverage["complete"], false);
    assert_eq!(
        (
            &coverage["open"],
            &coverage["lost"],
            &coverage["acknowledged"]
        ),
        (&json!(0), &json!(0), &json!(1))
    );
    let fault = &coverage["unknown_boots"][0];
    assert_eq!(
        fault["acknowledged"]["by"],
        "spiffe://plant.example/operator/operator"
    );
}

#[tokio::test]
async fn coverage_refuses_what_is_no_page_of_it() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for query in [
        "limit=0",
        "limit=10001",
        "limit=1&limit=1",
        "cursor=x",
        "cursor=AAAA",
        "node=gw&node=gw",
        "from=-1h",
    ] {
        let path = format!("/api/v1/audit/coverage?{query}");
        let (status, answer) = bench.get(&who, &path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
    }
    let (_, page) = bench.get(&who, "/api/v1/audit/coverage?limit=1").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["more"], false);
}

#[tokio::test]
async fn an_export_that_is_not_configured_has_nothing_given_again() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let (status, answer) = bench
        .post(&who, "/api/v1/audit/exports/siem/retry", json!({}))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    assert!(bench.recorded(EventKind::ExportRetried).await.is_empty());
}
