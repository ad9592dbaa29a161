//! The log as its readers see it: what they need is the key and what the routes give.

use edgeward_audit::Digest;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::merkle::{leaf_hash, root};
use edgeward_audit::note::NoteVerifier;
use edgeward_audit::tiles::{Row, Tile, TileNodes, tiles_of_root};

use super::*;
use crate::audit::Integrator;

/// Status, content type, caching and body.
type Answer = (StatusCode, String, String, Vec<u8>);

impl Bench {
    /// Keeps the log's tree from now on.
    pub(super) fn integrate(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        let integrator = Integrator::new(
            self.api.audit.clone(),
            self.api.store.clone(),
            self.api.keys.clone(),
            self.folder.path().to_owned(),
            Arc::new(SystemClock),
        );
        tokio::spawn(integrator.run(stop.clone()));
        stop
    }

    /// Waits for a checkpoint of at least so many events, and returns its size.
    pub(super) async fn signed(&self, least: u64) -> u64 {
        let head = self.api.audit.log_head();
        let size = || head.newest().map_or(0, |newest| newest.size);
        crate::testing::eventually(|| async { size() >= least }).await;
        size()
    }

    async fn log(&self, who: &Someone, path: &str) -> Answer {
        let request = Request::get(format!("/api/v1/audit/log/{path}"))
            .body(Body::empty())
            .unwrap();
        let response = self.send(who, request).await;
        let header = |name| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let (kind, cache) = (header(header::CONTENT_TYPE), header(header::CACHE_CONTROL));
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, cache, body.to_vec())
    }

    pub(super) async fn events(&self, count: usize) {
        let node = SpiffeId::new(&domain(), Kind::Node, "gw").unwrap();
        let mut tx = self.store.begin("test").await.unwrap();
        for _ in 0..count {
            let event = Event::new(SystemClock.now(), Actor::Cloud, EventKind::NodeApproved);
            let event = event.subject(node.clone());
            self.api.audit.record_in(&mut tx, event).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn tiles_that_no_checkpoint_reaches_and_other_spellings_are_not_found() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    let (status, ..) = bench.log(&auditor, "checkpoint").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "nothing was signed yet");
    let (status, ..) = bench.log(&auditor, "tile/0/000.p/1").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    bench.events(300).await;
    let stop = bench.integrate();
    let size = bench.signed(300).await;
    stop.cancel();
    let (status, ..) = bench.log(&auditor, "tile/0/000").await;
    assert_eq!(status, StatusCode::OK);
    let width = size - 256;
    for path in [
        "tile/0/001".to_owned(),
        format!("tile/0/001.p/{}", width + 1),
        format!("tile/entries/001.p/{}", width + 1),
        "tile/entries/001".to_owned(),
        "tile/0/002.p/1".to_owned(),
        "tile/1/000.p/2".to_owned(),
        "tile/2/000.p/1".to_owned(),
        "tile/64/000".to_owned(),
        "tile/0/0".to_owned(),
        "tile/00/000".to_owned(),
        "tile/0/000.p/256".to_owned(),
        "tile/0/000.p/0".to_owned(),
        "tile/0/x000/000".to_owned(),
        "tile/0/..%2F000".to_owned(),
        "tile/entries/x018/x446/x744/x073/x709/x551/615".to_owned(),
        "tile/".to_owned(),
        "tile/0".to_owned(),
    ] {
        let (status, kind, ..) = bench.log(&auditor, &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(kind, "application/problem+json", "{path}");
    }
}

#[tokio::test]
async fn a_log_that_is_halted_shows_no_checkpoint_and_says_why() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    std::fs::write(bench.folder.path().join("log-checkpoint"), "torn").unwrap();
    let _stop = bench.integrate();
    crate::testing::eventually(|| async { bench.api.audit.log_head().halted().is_some() }).await;
    let (status, answer) = bench.get(&auditor, "/api/v1/audit/log/checkpoint").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["code"], "audit_log_halted");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("log_anchor_unreadable"), "{detail}");
}

#[tokio::test]
async fn a_self_check_is_asked_for_by_operators_and_read_by_auditors() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    let operator = bench.operator(Role::Operator).await;
    let path = "/api/v1/audit/log/self-check";
    let (status, answer) = bench.get(&auditor, path).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_checked"))
    );
    let (status, _) = bench.post(&auditor, path, json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    bench.events(300).await;
    let _stop = bench.integrate();
    bench.signed(300).await;
    let (status, asked) = bench.post(&operator, path, json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let check = crate::audit::SelfCheck::new(
        bench.api.audit.clone(),
        bench.api.store.clone(),
        bench.api.keys.clone(),
        Arc::new(SystemClock),
    );
    tokio::spawn(check.run(CancellationToken::new()));
    let head = bench.api.audit.log_head();
    crate::testing::eventually(|| async { head.last_check().is_some() }).await;
    let (status, done) = bench.get(&auditor, path).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(done["answers"], asked["request"]);
    assert_eq!(done["fault"], Value::Null, "{done}");
    assert!(done["size"].as_u64().unwrap() >= 300);
}

#[tokio::test]
async fn whoever_knows_the_key_derives_the_root_from_what_is_served() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    bench.events(600).await;
    let stop = bench.integrate();
    bench.signed(600).await;
    stop.cancel();
    let (status, key) = bench.get(&auditor, "/api/v1/audit/log/key").await;
    assert_eq!(status, StatusCode::OK, "{key}");
    let origin = key["origin"].as_str().unwrap();
    assert_eq!(origin, "plant.example/audit");
    let verifier = NoteVerifier::parse(key["verifier"].as_str().unwrap()).unwrap();
    let (status, kind, cache, note) = bench.log(&auditor, "checkpoint").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (kind.as_str(), cache.as_str()),
        ("text/plain; charset=utf-8", "no-cache")
    );
    let checkpoint = Checkpoint::open(&note, origin, &verifier).unwrap();
    let size = checkpoint.size;
    let mut leaves: Vec<Digest> = Vec::new();
    for index in 0..size.div_ceil(256) {
        let bundle = Tile::in_tree(Row::Entries, index, size).unwrap();
        let (status, kind, cache, bytes) = bench.log(&auditor, &bundle.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{bundle}");
        assert_eq!(kind, "application/octet-stream");
        assert!(cache.contains("immutable") && cache.contains("max-age=31536000"));
        let entries = bundle.parse_entries(&bytes).unwrap();
        leaves.extend(entries.iter().map(|entry| leaf_hash(entry)));
    }
    assert_eq!(root(&leaves[..], size).unwrap(), checkpoint.root);
    let mut tiles = TileNodes::new();
    for (level, index) in tiles_of_root(size) {
        let tile = Tile::in_tree(Row::Level(level), index, size).unwrap();
        let (status, _, _, bytes) = bench.log(&auditor, &tile.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{tile}");
        tiles.insert((level, index), tile.parse_hashes(&bytes).unwrap());
    }
    assert_eq!(root(&tiles, size).unwrap(), checkpoint.root);
    // A tile that a smaller checkpoint needed is the beginning of the one that is there now.
    let (status, _, _, narrow) = bench.log(&auditor, "tile/0/000.p/7").await;
    assert_eq!(status, StatusCode::OK);
    let narrow = Tile::new(Row::Level(0), 0, 7)
        .unwrap()
        .parse_hashes(&narrow)
        .unwrap();
    assert_eq!(narrow, leaves[..7]);
    let noted = bench
        .recorded(EventKind::AuditRead)
        .await
        .into_iter()
        .filter(|event| {
            event
                .subject
                .as_ref()
                .is_some_and(|s| s.to_string() == "audit-log")
        })
        .count();
    assert_eq!(noted, 1, "one reading, one event");
}

#[tokio::test]
async fn an_event_is_proven_by_one_text_as_soon_as_a_checkpoint_covers_it() {
    let bench = Bench::new().await;
    let auditor = bench.operator(Role::Auditor).await;
    bench.events(3).await;
    let path = "/api/v1/audit/events/1/proof";
    let (status, answer) = bench.get(&auditor, path).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("no_checkpoint"))
    );
    let stop = bench.integrate();
    bench.signed(3).await;
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = bench.send(&auditor, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let proof = edgeward_audit::log_proof::LogProof::parse(&body).unwrap();
    let key = bench.api.keys.checkpoint_verifier();
    let record = proof.extra.clone().unwrap();
    let sealed = edgeward_audit::SealedRecord::parse(&record).unwrap();
    proof
        .verify(sealed.hash().as_bytes(), key.name(), key)
        .unwrap();
    let stored = bench.store.event_at(1).await.unwrap().unwrap();
    assert_eq!((proof.index, sealed.hash()), (1, stored.hash));
    // Another event is not proven by it.
    let other = bench.store.event_at(2).await.unwrap().unwrap();
    assert!(
        proof
            .verify(other.hash.as_bytes(), key.name(), key)
            .is_err()
    );
    // Erased, it is gone, and whoever kept the record can still prove that it was there.
    let site = crate::keys::sites::Site::rest();
    bench
        .store
        .site_keys()
        .erase(&site, stored.received)
        .unwrap();
    let (status, answer) = bench.get(&auditor, "/api/v1/audit/events/1").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::GONE, Some("event_erased"))
    );
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = bench.send(&auditor, request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let proof = edgeward_audit::log_proof::LogProof::parse(&body).unwrap();
    assert_eq!(proof.extra, None);
    proof
        .verify(sealed.hash().as_bytes(), key.name(), key)
        .unwrap();
    stop.cancel();
}
