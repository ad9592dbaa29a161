//! The kept evidence of a node, and what is told of it.

use edgeward_evidence::Digest;
use edgeward_evidence::tpm::PcrBank;
use edgeward_identity::{AttestationState, Tier, Timestamp};

use super::*;
use crate::store::evidence::{EvidenceRow, KeptFinding, Which};
use crate::store::nodes::{NodeRow, NodeStatus, RootId};
use crate::store::results::{AttestationRow, Counters};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn finding() -> KeptFinding {
    KeptFinding {
        code: "profile_pcr_value".to_owned(),
        pcr: Some(7),
        event: "boot event 9".to_owned(),
        found: "bb".to_owned(),
        expected: vec!["aa".to_owned()],
        advice: "Look.".to_owned(),
        since: NOW,
        monitored: false,
    }
}

fn row(which: Which, log: &[u8]) -> EvidenceRow {
    EvidenceRow {
        node: "gw-3".to_owned(),
        which,
        taken: NOW,
        code: None,
        bank: PcrBank::Sha256,
        pcrs: BTreeMap::from([(7, "aa".repeat(32))]),
        firmware: 0x0002_0004_0003_0001,
        tier: Tier::Hardware,
        secure_boot: Some(true),
        boot_log: Some(log.to_vec()),
        ima: None,
        findings: Vec::new(),
    }
}

/// A node that passed once and then failed.
pub(super) async fn fallen(bench: &Bench) {
    let node = NodeRow {
        name: "gw-3".to_owned(),
        status: NodeStatus::Active,
        tier: Tier::Hardware,
        root: RootId::of_ek(&"00".repeat(32)),
        ak: vec![1],
        labels: BTreeMap::new(),
        v4: [100, 64, 0, 3].into(),
        token: "t".to_owned(),
        enrolled: NOW,
        updated: NOW,
    };
    let standing = AttestationRow {
        node: "gw-3".to_owned(),
        state: AttestationState::Failed,
        code: Some("profile_pcr_value".to_owned()),
        changed: NOW,
        passed: Some(NOW.minus(std::time::Duration::from_secs(60))),
        result: None,
        boot_key: None,
        counters: Counters {
            reset_count: 7,
            restart_count: 2,
            clock: 1,
            safe: true,
        },
        findings: vec![finding()],
    };
    let mut latest = row(Which::Latest, b"new log");
    latest.code = Some("profile_pcr_value".to_owned());
    latest.findings = vec![finding()];
    let mut tx = bench.store.begin("test").await.unwrap();
    tx.put_node(&node).await.unwrap();
    tx.put_attestation(&standing).await.unwrap();
    for (row, log) in [(row(Which::Passed, b"old log"), "old"), (latest, "new")] {
        let hash = Digest::of(log.as_bytes());
        tx.put_evidence(&row, Some(hash), None).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn evidence_of_nobody_and_senseless_questions_are_refused() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    let (status, answer) = bench.get(&auditor, "/api/v1/nodes/gw-3/evidence").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    fallen(&bench).await;
    for query in ["logs=yes", "logs=", "log=true", "logs=true&logs=true"] {
        let path = format!("/api/v1/nodes/gw-3/evidence?{query}");
        let (status, answer) = bench.get(&auditor, &path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
    }
}

#[tokio::test]
async fn both_pieces_of_evidence_are_shown_and_logs_only_where_asked_for() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    fallen(&bench).await;
    let path = "/api/v1/nodes/gw-3/evidence";
    let (_, bare) = bench.get(&auditor, path).await;
    assert_eq!(bare["latest"]["code"], "profile_pcr_value");
    assert_eq!(bare["latest"]["pcrs"]["7"], "aa".repeat(32));
    assert_eq!(bare["latest"]["firmware"], "0x0002000400030001");
    assert_eq!(bare["latest"]["findings"][0]["event"], "boot event 9");
    assert_eq!(bare["passed"]["code"], Value::Null);
    assert!(bare["latest"].get("boot_log").is_none());
    let (_, full) = bench.get(&auditor, &format!("{path}?logs=true")).await;
    let evidence: crate::profiles::NodeEvidence = serde_json::from_value(full).unwrap();
    let log = |view: Option<crate::profiles::EvidenceView>| view.unwrap().boot_log.unwrap();
    assert_eq!(log(evidence.latest), "bmV3IGxvZw==");
    assert_eq!(log(evidence.passed), "b2xkIGxvZw==");
}

#[tokio::test]
async fn a_node_is_explained_where_one_is_asked_for_and_named_with_its_reason_in_the_list() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    fallen(&bench).await;
    let (_, list) = bench.get(&auditor, "/api/v1/nodes").await;
    assert_eq!(list["items"][0]["reason"], "profile_pcr_value");
    assert_eq!(list["items"][0]["would_fail"], Value::Null);
    assert!(list["items"][0].get("explained").is_none());
    let (_, node) = bench.get(&auditor, "/api/v1/nodes/gw-3").await;
    let explained = &node["explained"];
    assert_eq!(
        explained["advice"],
        crate::advice::advice("profile_pcr_value")
    );
    assert_eq!(explained["findings"][0]["expected"][0], "aa");
    assert_eq!(explained["findings"][0]["advice"], "Look.");
    assert_eq!(explained["findings"][0]["since"], node["since"]);
    assert_eq!(
        (&explained["boots"], &explained["resumes"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(explained["secure_boot"], true);
}
