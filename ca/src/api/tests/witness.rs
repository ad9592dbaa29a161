use edgeward_audit::Digest;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::cosignature::WitnessKey;
use edgeward_audit::merkle::{consistency_proof, leaf_hash, root};
use edgeward_audit::note::{Note, NoteSigner};
use edgeward_audit::witness::Submission;

use super::*;
use crate::config::witness::WitnessedLog;

const ORIGIN: &str = "other.example/audit";
const ADD: &str = "/witness/v0/add-checkpoint";

/// A log elsewhere, and the cloud that witnesses it.
struct Other {
    bench: Bench,
    log: NoteSigner,
}

impl Other {
    async fn new() -> Self {
        Self::limited(120).await
    }

    async fn limited(per_minute: u32) -> Self {
        let log = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
        let mut config = crate::config::Witness::default();
        let keys = vec![log.verifier().clone()];
        let witnessed = WitnessedLog { keys, per_minute };
        config.logs.insert(ORIGIN.to_owned(), witnessed);
        let bench = Bench::witnessing(config).await;
        bench.events(1).await;
        bench.integrate();
        bench.signed(1).await;
        Self { bench, log }
    }

    /// What the log would submit; another `salt` is another history.
    fn submission(&self, old: u64, size: u64, salt: u8) -> Submission {
        let leaf = |n: u64| leaf_hash(&[&n.to_be_bytes()[..], &[salt]].concat());
        let leaves: Vec<Digest> = (0..size).map(leaf).collect();
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root(leaves.as_slice(), size).unwrap(),
        };
        let proof = consistency_proof(leaves.as_slice(), old, size).unwrap_or_default();
        let note = checkpoint.sign(&self.log).unwrap();
        Submission { old, proof, note }
    }

    async fn submit(&self, body: &str) -> (StatusCode, String, String) {
        let nobody = self.bench.someone(Class::Anonymous).await;
        let request = Request::post(ADD)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.bench.send(&nobody, request).await;
        let (status, kind) = (
            response.status(),
            response.headers().get(header::CONTENT_TYPE),
        );
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (status, kind.unwrap_or_default(), body)
    }

    async fn key(&self) -> WitnessKey {
        let auditor = self.bench.operator(Role::Auditor).await;
        let (_, view) = self.bench.get(&auditor, "/api/v1/audit/witness").await;
        WitnessKey::parse(view["key"].as_str().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_cloud_that_witnesses_nobody_says_so() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    let (status, view) = bench.get(&auditor, "/api/v1/audit/witness").await;
    assert_eq!((status, &view["key"]), (StatusCode::OK, &Value::Null));
    assert!(!bench.folder.path().join("keys/witness.key").exists());
    let hash = Digest::of(&[ORIGIN.as_bytes()]);
    let path = format!("/witness/v0/{hash}/checkpoint");
    let (status, problem) = bench.get(&auditor, &path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["code"], "witness_unknown_log");
}

#[tokio::test]
async fn what_the_protocol_refuses_gets_its_status_and_no_cosignature() {
    let other = Other::new().await;
    let (status, ..) = other.submit(&other.submission(0, 5, 0).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let good = other.submission(5, 9, 0);
    let foreign = good.to_string().replace(ORIGIN, "unknown.example/audit");
    let stranger = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    let text = Checkpoint::parse_text(good.note.unverified_text()).unwrap();
    let mut unsigned = good.clone();
    unsigned.note = text.sign(&stranger).unwrap();
    let mut tampered = good.clone();
    let line = other.submission(5, 8, 0).note.signatures()[0].clone();
    tampered.note.add(line).unwrap();
    let mut cut = good.clone();
    cut.proof.pop();
    for (body, status, code) in [
        ("hello".to_owned(), 400, "witness_malformed"),
        (String::new(), 400, "witness_malformed"),
        (
            good.to_string().replace("old 5", "old 05"),
            400,
            "witness_malformed",
        ),
        (
            other.submission(6, 5, 0).to_string(),
            400,
            "witness_old_above",
        ),
        (foreign, 404, "witness_unknown_log"),
        (unsigned.to_string(), 403, "witness_not_signed"),
        (tampered.to_string(), 403, "witness_not_signed"),
        (cut.to_string(), 422, "witness_inconsistent"),
        (
            other.submission(5, 9, 1).to_string(),
            422,
            "witness_inconsistent",
        ),
        (other.submission(5, 5, 1).to_string(), 422, "witness_forked"),
        ("a".repeat(70_000), 413, "body_too_large"),
    ] {
        let (found, _, answer) = other.submit(&body).await;
        assert_eq!(found.as_u16(), status, "{body}: {answer}");
        assert!(answer.contains(code), "{answer}");
        assert!(!answer.contains('\u{2014}'), "{answer}");
    }
    // The last one is another tree of the size that was cosigned: evidence, and the size is told all the same.
    for (old, size, salt) in [(0, 9, 0), (4, 9, 0), (0, 5, 2)] {
        let submission = other.submission(old, size, salt).to_string();
        let (status, kind, answer) = other.submit(&submission).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(
            (kind.as_str(), answer.as_str()),
            ("text/x.tlog.size", "5\n")
        );
    }
    // The fork is kept, and told once.
    let refused = other.bench.recorded(EventKind::WitnessRefused).await;
    let codes: Vec<&str> = refused
        .iter()
        .filter_map(|event| event.code.as_ref())
        .map(|code| code.as_str())
        .collect();
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == "witness_forked")
            .count(),
        1,
        "{codes:?}"
    );
    let auditor = other.bench.operator(Role::Auditor).await;
    let (_, view) = other.bench.get(&auditor, "/api/v1/audit/witness").await;
    let fork = view["logs"][0]["fork"].as_str().unwrap();
    assert!(
        Note::parse(fork.as_bytes())
            .unwrap()
            .open(other.log.verifier())
            .is_ok()
    );
    assert_eq!(view["logs"][0]["size"], 5);
}

#[tokio::test]
async fn what_continues_is_cosigned_served_and_given_again_to_whoever_repeats_it() {
    let other = Other::new().await;
    let key = other.key().await;
    assert_eq!(key.name(), "plant.example/witness");
    let mut old = 0;
    for size in [0, 1, 4, 4, 300] {
        let submission = other.submission(old, size, 0);
        let (status, _, answer) = other.submit(&submission.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let note = submission.note.with_lines(answer.as_bytes()).unwrap();
        assert!(key.verify(&note).is_ok());
        // The same again is the same again.
        let again = other.submission(size, size, 0);
        assert_eq!(other.submit(&again.to_string()).await.2, answer);
        old = size;
    }
    let nobody = other.bench.someone(Class::Anonymous).await;
    let path = format!(
        "/witness/v0/{}/checkpoint",
        Digest::of(&[ORIGIN.as_bytes()])
    );
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = other.bench.send(&nobody, request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let note = Note::parse(&body).unwrap();
    assert!(note.open(other.log.verifier()).is_ok() && key.verify(&note).is_ok());
    assert!(note.unverified_text().contains("\n300\n"));
}

#[tokio::test]
async fn two_that_come_at_once_do_not_take_the_log_back() {
    let other = Other::new().await;
    other.submit(&other.submission(0, 5, 0).to_string()).await;
    let (small, large) = (other.submission(5, 6, 0), other.submission(5, 9, 0));
    let (small, large) = (small.to_string(), large.to_string());
    let answers = tokio::join!(other.submit(&small), other.submit(&large));
    let granted = [answers.0.0, answers.1.0];
    assert_eq!(
        granted
            .iter()
            .filter(|status| **status == StatusCode::OK)
            .count(),
        1
    );
    assert!(granted.contains(&StatusCode::CONFLICT), "{granted:?}");
}

#[tokio::test]
async fn a_log_that_asks_too_often_waits() {
    let other = Other::limited(2).await;
    for (old, size, status) in [(0, 1, 200), (1, 2, 200), (2, 3, 429)] {
        let submission = other.submission(old, size, 0).to_string();
        let (found, _, answer) = other.submit(&submission).await;
        assert_eq!(found.as_u16(), status, "{answer}");
    }
    // What was cosigned is still answered.
    let (found, ..) = other.submit(&other.submission(2, 2, 0).to_string()).await;
    assert_eq!(found, StatusCode::OK);
}
