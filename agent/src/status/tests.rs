use std::sync::Arc;

use edgeward_identity::testing::TEST_NOW;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::enforce::decide::Picture;
use crate::enforce::testing::*;
use crate::reach::shown::{PathStatus, SwitchStatus};
use crate::view::{Held, Standing};

struct Fixed;

impl Sources for Fixed {
    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Refused {
                reason: "not now".to_owned(),
            },
            Request::Check(Asked { from, to, .. }) => Answer::Check {
                checked: vec![Checked {
                    at: from.clone(),
                    from,
                    to,
                    allow: false,
                    reason: "no-rule".to_owned(),
                    rule: None,
                    nearest: None,
                    state: None,
                    tier: None,
                    passed: None,
                    valid_until: None,
                    bound: false,
                    rules: Vec::new(),
                }],
            },
        }
    }
}

fn serve() -> (tempfile::TempDir, std::path::PathBuf, CancellationToken) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let token = CancellationToken::new();
    let server = Server::bind(&path).unwrap();
    tokio::spawn(server.serve(Arc::new(Fixed), token.clone()));
    (folder, path, token)
}

async fn raw(path: &std::path::Path, bytes: &[u8]) -> String {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    // The server may answer and close before everything is written.
    let _early = stream.write_all(bytes).await;
    let mut answer = String::new();
    let _early = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn requests_that_are_too_long_unknown_or_no_json_are_refused() {
    let (_folder, path, _token) = serve();
    let long = vec![b'x'; MAX_REQUEST_BYTES + 1];
    assert!(raw(&path, &long).await.contains("limit in bytes"));
    for bad in [
        &b"\n"[..],
        b"{}\n",
        b"{\"ask\":\"keys\"}\n",
        b"{\"ask\":\"check\",\"from\":\"spiffe://plant.example/nobody/x\",\"to\":\"a/b\"}\n",
        b"{\"ask\":\"check\",\"from\":\"spiffe://plant.example/node/x\",\"to\":\"a/b\",\"more\":1}\n",
    ] {
        let answer = raw(&path, bad).await;
        assert!(answer.contains("\"refused\""), "{answer}");
    }
}

#[tokio::test]
async fn a_check_is_asked_and_answered() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path, token) = serve();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let checked = check(&path, asked("b", "line3/modbus")).await.unwrap();
    assert_eq!(checked[0].reason, "no-rule");
    assert!(matches!(ask(&path).await, Err(AskFailed::Refused(_))));
    token.cancel();
}

#[tokio::test]
async fn nobody_listening_is_said_with_the_path() {
    let error = ask(std::path::Path::new("/nonexistent/agent.sock"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/agent.sock"),
        "{error}"
    );
}

fn explain(
    parts: crate::enforce::decide::PictureParts,
    from: &str,
    to: &str,
) -> Result<Vec<Checked>, String> {
    let known = |_: &edgeward_identity::SpiffeId| (Some(evidence(TEST_NOW)), true);
    super::explain::check(&Picture::new(parts), &asked(from, to), known, TEST_NOW)
}

fn asked(from: &str, to: &str) -> Asked {
    Asked {
        from: id(from),
        to: to.to_owned(),
        action: None,
        request: None,
        through: None,
    }
}

#[test]
fn what_is_not_offered_or_not_granted_is_said() {
    assert!(
        explain(parts(), "b", "line3")
            .unwrap_err()
            .contains("service/interface")
    );
    assert!(
        explain(parts(), "b", "line3/x")
            .unwrap_err()
            .contains("no such interface")
    );
    assert!(
        explain(parts(), "a", "line3/modbus")
            .unwrap_err()
            .contains("no rule")
    );
    let mut held = parts();
    held.standing = Standing::Held(Held::NoFloor);
    assert!(
        explain(held, "b", "line3/modbus")
            .unwrap_err()
            .contains("held_no_floor")
    );
}

#[test]
fn a_check_says_rule_and_reason_both_ways() {
    let inward = explain(parts(), "b", "line3/modbus").unwrap();
    assert!(inward[0].allow);
    assert_eq!(inward[0].rule.as_deref(), Some("b-reads"));
    let stranger = explain(parts(), "c", "line3/modbus").unwrap();
    assert_eq!(stranger[0].reason, "unknown-subject");
    let outward = explain(parts(), "a", "broker/mqtt").unwrap();
    assert_eq!(outward[0].at, id("b"));
    assert!(
        outward[0].to_string().starts_with("allow: "),
        "{}",
        outward[0]
    );
}

fn status() -> Status {
    Status {
        node: id("a"),
        tier: None,
        state: Some(AttestationState::Failed),
        passed: Some(TEST_NOW),
        refused: None,
        findings: Vec::new(),
        svid_ends: TEST_NOW,
        overlay: Vec::new(),
        device: "edgeward0".to_owned(),
        listen: "[::]:51820".to_owned(),
        connected: true,
        session_secs: Some(5),
        link: "online".to_owned(),
        heartbeat_age_secs: Some(3),
        standing: "granting".to_owned(),
        upgraded: None,
        recovery: None,
        slice: None,
        deny_list: 0,
        cut: 0,
        directory: 0,
        binds: Vec::new(),
        flow_count: 0,
        flows: Vec::new(),
        rules: Vec::new(),
        dropped: Vec::new(),
        workloads: Vec::new(),
        glass: Vec::new(),
        gateways: Vec::new(),
        lan: LanReport::default(),
        names: NamesReport::default(),
        exit: None,
        reach: ReachStatus::default(),
        apps: Default::default(),
        now: TEST_NOW.plus(std::time::Duration::from_secs(90)),
    }
}

fn bind(lease_left_secs: u64) -> BindStatus {
    BindStatus {
        peer: id("b"),
        open: true,
        role: "initiator".to_owned(),
        epoch: 1,
        state: None,
        tier: None,
        passed: None,
        lease_left_secs,
        endpoint: None,
        handshake_age_secs: None,
        received_bytes: 0,
        sent_bytes: 0,
    }
}

#[test]
fn one_screen_says_which_register_which_event_what_was_expected_since_when_and_what_to_do() {
    let finding = Finding {
        code: "pcr_mismatch".to_owned(),
        pcr: Some(4),
        event: "event 31, EV_EFI_BOOT_SERVICES_APPLICATION, /EFI/BOOT/BOOTX64.EFI".to_owned(),
        found: "aa11".to_owned(),
        expected: vec!["bb22".to_owned(), "cc33".to_owned()],
        advice: "edgeward profile propose".to_owned(),
        since: Some(TEST_NOW),
        monitored: false,
    };
    let mut status = status();
    status.findings = vec![finding.clone()];
    let text = status.to_string();
    for word in [
        "finding      pcr_mismatch, PCR 4, event 31",
        "BOOTX64.EFI, since 90s ago",
        "  found      aa11",
        "  expected   bb22",
        "  or         cc33",
        "  to do      edgeward profile propose",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let monitored = Finding {
        monitored: true,
        ..finding.clone()
    };
    status.findings = vec![monitored];
    assert!(status.to_string().contains("\nmonitored    pcr_mismatch"));
    status.findings = vec![finding; 30];
    let text = status.to_string();
    assert!(text.contains("26 more, with -o json"), "{text}");
    assert!(text.lines().count() <= 40, "more than a screen: {text}");
}

#[test]
fn a_refusal_says_its_code_since_when_and_what_to_do() {
    let mut status = status();
    status.refused = Some(RefusedStatus {
        refusal: Refusal {
            code: "boot_log_missing".to_owned(),
            since: TEST_NOW,
        },
        advice: advice::on_refusal("boot_log_missing").to_owned(),
    });
    let text = status.to_string();
    assert!(
        text.contains("refused      boot_log_missing, first 90s ago"),
        "{text}"
    );
    assert!(text.contains("[logs] boot"), "{text}");
    assert!(
        text.contains("attestation  by its last result failed"),
        "{text}"
    );
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["refused"]["code"], "boot_log_missing");
}

#[test]
fn without_a_session_it_says_since_when_and_which_leases_still_run() {
    let mut status = status();
    status.connected = false;
    status.session_secs = Some(300);
    let text = status.to_string();
    assert!(text.contains("down for 5m"), "{text}");
    assert!(text.contains("no lease runs"), "{text}");
    status.binds = vec![bind(0), bind(600), bind(100)];
    let text = status.to_string();
    assert!(
        text.contains("leases that still run: 2, for 10m at most"),
        "{text}"
    );
    status.session_secs = None;
    assert!(status.to_string().contains("down since the agent started"));
}

#[test]
fn workloads_are_shown_with_their_serials_and_why_one_has_none() {
    let mut status = status();
    assert!(!status.to_string().contains("WORKLOAD"));
    status.workloads = vec![
        WorkloadStatus {
            id: "spiffe://plant.example/workload/collector".parse().unwrap(),
            serial: Some("0a1b".to_owned()),
            ends: Some(status.now.plus(std::time::Duration::from_secs(90))),
            failed: None,
        },
        WorkloadStatus {
            id: "spiffe://plant.example/workload/alerts".parse().unwrap(),
            serial: None,
            ends: None,
            failed: Some("node_not_trusted".to_owned()),
        },
    ];
    let text = status.to_string();
    for wanted in [
        "workload/collector",
        "0a1b",
        "in 90s",
        "workload/alerts",
        "node_not_trusted",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn ways_to_peers_are_shown_with_what_they_are_worth() {
    let mut status = status();
    let text = status.to_string();
    assert!(text.contains("reached at   not known yet"), "{text}");
    assert!(!text.contains("PATH"), "{text}");
    let path = PathStatus {
        peer: "spiffe://plant.example/node/b".parse().unwrap(),
        kind: "relay".to_owned(),
        through: Some("spiffe://plant.example/node/hub".parse().unwrap()),
        endpoint: None,
        in_use: true,
        answers: true,
        rtt_micros: Some(12_340),
        loss_percent: 3,
        largest_datagram: Some(1392),
        keepalive_secs: None,
        since_secs: Some(90),
    };
    let other = PathStatus {
        kind: "cloud".to_owned(),
        through: None,
        in_use: false,
        ..path.clone()
    };
    let silent = PathStatus {
        answers: false,
        ..other.clone()
    };
    status.reach = ReachStatus {
        endpoints: vec!["203.0.113.7:4711".to_owned()],
        translated: Some(true),
        paths: vec![path, other, silent],
        switched: vec![SwitchStatus {
            peer: "spiffe://plant.example/node/b".parse().unwrap(),
            from: "direct".to_owned(),
            to: "relay".to_owned(),
            times: 3,
            ago_secs: 7,
        }],
    };
    let text = status.to_string();
    for wanted in [
        "reached at   203.0.113.7:4711 (behind a router that translates)",
        "relay hub",
        "12.3 ms",
        "3 %",
        "1392",
        "direct -> relay, 3 times",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let line = text
        .lines()
        .find(|line| line.contains("relay hub"))
        .unwrap();
    assert!(line.ends_with("  1"), "one other answers: {line}");
}
