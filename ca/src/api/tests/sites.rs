//! Erasure by the key of a site, as its askers and the log's readers see it.

use edgeward_audit::log_proof::LogProof;

use super::*;
use crate::keys::sites::{Site, SiteKeyFault};

const SITES: &str = "/api/v1/audit/sites";

impl Bench {
    async fn erase(&self, who: &Someone, site: &str, body: Value) -> (StatusCode, Value) {
        let path = format!("{SITES}/{site}/erase");
        self.call(who, Method::POST, &path, Some(body)).await
    }
}

#[tokio::test]
async fn an_erasure_that_is_not_confirmed_or_of_no_site_destroys_nothing() {
    let bench = Bench::new().await;
    let admin = bench.someone(Class::Operator(Role::Admin)).await;
    let before = bench.store.site_keys().list();
    for (site, body, status, code) in [
        (
            "default",
            json!({"confirm": "berlin"}),
            400,
            "erase_not_confirmed",
        ),
        (
            "default",
            json!({"confirm": ""}),
            400,
            "erase_not_confirmed",
        ),
        ("a%20b", json!({"confirm": "a b"}), 400, "site_malformed"),
        ("berlin", json!({"confirm": "berlin"}), 404, "not_found"),
    ] {
        let (found, answer) = bench.erase(&admin, site, body).await;
        assert_eq!(
            (found.as_u16(), answer["code"].as_str()),
            (status, Some(code)),
            "{site}"
        );
    }
    let (status, _) = bench.erase(&admin, "default", json!({})).await;
    assert!(status.is_client_error());
    assert_eq!(bench.store.site_keys().list(), before);
    assert!(bench.recorded(EventKind::AuditErased).await.is_empty());
}

#[tokio::test]
async fn what_the_cloud_did_outlives_every_erasure_and_is_itself_not_erased() {
    let bench = Bench::new().await;
    let admin = bench.someone(Class::Operator(Role::Admin)).await;
    for _ in 0..2 {
        bench.events(3).await;
        let (status, erased) = bench
            .erase(&admin, "default", json!({"confirm": "default"}))
            .await;
        assert_eq!(status, StatusCode::OK, "{erased}");
    }
    let (status, answer) = bench
        .erase(&admin, "%3Acloud", json!({"confirm": ":cloud"}))
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::CONFLICT, Some("site_not_erasable"))
    );
    let reserved = bench
        .store
        .site_keys()
        .erase(&Site::cloud(), SystemClock.now());
    assert!(matches!(reserved, Err(SiteKeyFault::Reserved(_))));
    assert_eq!(bench.recorded(EventKind::AuditErased).await.len(), 2);
    assert!(bench.recorded(EventKind::NodeApproved).await.is_empty());
    let (_, sites) = bench.get(&admin, SITES).await;
    let shown: Vec<_> = sites["items"].as_array().unwrap().iter().collect();
    let shown: Vec<_> = shown
        .iter()
        .map(|site| (site["site"].as_str().unwrap(), site["erasable"].as_bool()))
        .collect();
    assert_eq!(shown, [(":cloud", Some(false)), ("default", Some(true))]);
}

#[tokio::test]
async fn what_was_erased_is_gone_and_proven() {
    let bench = Bench::new().await;
    let stop = bench.integrate();
    let (admin, auditor) = (
        bench.someone(Class::Operator(Role::Admin)).await,
        bench.someone(Class::Operator(Role::Auditor)).await,
    );
    bench.events(600).await;
    bench.signed(600).await;
    let (status, first) = bench.get(&auditor, "/api/v1/audit/events/7").await;
    assert_eq!(status, StatusCode::OK, "{first}");
    let hash = first["hash"].as_str().unwrap().to_owned();
    let (status, erased) = bench
        .erase(&admin, "default", json!({"confirm": "default"}))
        .await;
    assert_eq!(status, StatusCode::OK, "{erased}");
    assert_eq!(erased["keys"].as_array().unwrap().len(), 1);
    // In a block, and in the tail.
    for index in [7, 590] {
        let (status, answer) = bench
            .get(&auditor, &format!("/api/v1/audit/events/{index}"))
            .await;
        assert_eq!(status, StatusCode::GONE, "{answer}");
        assert_eq!(answer["code"], "event_erased");
    }
    let (status, page) = bench
        .get(&auditor, "/api/v1/audit/events?type=audit.erased")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        page["items"].as_array().unwrap().len(),
        1,
        "its own word outlives it: {page}"
    );
    assert_eq!(page["items"][0]["detail"]["site"], "default");
    let (_, page) = bench
        .get(&auditor, "/api/v1/audit/events?type=node.approved")
        .await;
    assert!(page["items"].as_array().unwrap().is_empty());
    let request = Request::get("/api/v1/audit/events/7/proof")
        .body(Body::empty())
        .unwrap();
    let response = bench.send(&auditor, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let proof = LogProof::parse(&body).unwrap();
    assert_eq!(proof.extra, None);
    let log = bench.api.keys.checkpoint_verifier();
    let entry: edgeward_audit::Digest = hash.parse().unwrap();
    proof.verify(entry.as_bytes(), log.name(), log).unwrap();
    let (_, sites) = bench.get(&auditor, SITES).await;
    assert_eq!(sites["items"][1]["site"], "default");
    assert_eq!(
        (&sites["items"][1]["keys"], &sites["items"][1]["erased"]),
        (&json!(1), &json!(1))
    );
    // What comes is sealed by the new key, and read.
    bench.events(1).await;
    let (_, page) = bench
        .get(&auditor, "/api/v1/audit/events?type=node.approved")
        .await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    stop.cancel();
}
