use std::sync::Arc;

use edgeward_identity::testing::TEST_NOW;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::enforce::decide::Picture;
use crate::enforce::testing::*;
use crate::view::{Held, Standing};

struct Fixed;

impl Sources for Fixed {
    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Refused {
                reason: "not now".to_owned(),
            },
            Request::Check { from, to } => Answer::Check {
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
    let checked = check(&path, id("b"), "line3/modbus".to_owned())
        .await
        .unwrap();
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
    super::explain::check(&Picture::new(parts), &id(from), to, known, TEST_NOW)
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
