//! Orders about what nodes have, through the router: revoked, led back, carried.

use std::time::Duration;

use edgeward_apps::Digest;
use edgeward_apps::testing::{Content, noise};

use super::apps::{offline, put, raw};
use super::*;

const RELEASE: &str = "/api/v1/apps/acme/x/1.0/revoke";

/// With `acme/x` 1.0 published; the digests of its manifest and of its program.
async fn published() -> (Bench, Digest, Digest) {
    let bench = Bench::new().await;
    let admin = bench.operator_named("root", Role::Admin).await;
    let mut offline = offline(&bench);
    let program = noise(9_000, 5);
    offline.release("acme/x", "1.0", &[("bin/x", Content::Program(&program))]);
    let files = offline.repository.files();
    for role in ["root", "targets"] {
        let path = format!("/api/v1/publishers/metadata?role={role}");
        let (status, answer) = put(
            &bench,
            &admin,
            &path,
            files[&format!("1.{role}.json")].clone(),
        )
        .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let contents = [
        ("manifests", &offline.manifests),
        ("chunks", &offline.chunks),
    ];
    for (kind, contents) in contents {
        for (digest, bytes) in contents {
            let path = format!("/api/v1/apps/{kind}/{digest}?publisher=acme");
            assert_eq!(
                put(&bench, &admin, &path, bytes.clone()).await.0,
                StatusCode::NO_CONTENT
            );
        }
    }
    let releases = files["1.acme.json"].clone();
    let (status, answer) = raw(
        &bench,
        &admin,
        Method::POST,
        "/api/v1/apps?publisher=acme",
        releases,
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let manifest = *offline.manifests.keys().next().unwrap();
    (bench, manifest, Digest::of(&program))
}

fn why(reason: &str) -> Value {
    json!({ "reason": reason })
}

#[tokio::test]
async fn a_revocation_names_a_release_or_a_digest_and_says_how_far_it_came() {
    let (bench, manifest, program) = published().await;
    let operator = bench.operator(Role::Operator).await;
    let (status, answer) = bench.post(&operator, RELEASE, why("a stolen key")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["digest"], manifest.to_string());
    assert_eq!(
        (&answer["app"], &answer["version"]),
        (&json!("acme/x"), &json!("1.0"))
    );
    let nodes = &answer["nodes"];
    let counts = ["ended", "told", "away"].map(|what| nodes[what].as_u64().unwrap());
    assert_eq!(counts, [120, 1, 120]);
    assert_eq!(nodes["waited_for"], json!(["gw-7"]));
    assert_eq!(nodes["out_of_reach"].as_array().unwrap().len(), 100);
    // A file is known by the releases that have it; what nobody has may be revoked all the same.
    let upper = program.to_string().to_uppercase();
    for (digest, release) in [
        (program.to_string(), "spread acme/x@1.0"),
        ("ab".repeat(32), "spread "),
    ] {
        let body = json!({ "digest": digest, "reason": "a stolen build" });
        let (status, answer) = bench.post(&operator, "/api/v1/apps/revoke", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["digest"], digest);
        assert_eq!(bench.control.asked().last().unwrap(), release);
    }
    let body = json!({ "digest": upper, "reason": "not as digests are written" });
    let (status, _) = bench.post(&operator, "/api/v1/apps/revoke", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let asked: Vec<String> = bench.control.asked();
    let revoked: Vec<&String> = asked
        .iter()
        .filter(|what| what.starts_with("revoke"))
        .collect();
    assert_eq!(revoked.len(), 3, "{asked:?}");
    assert!(
        revoked[0].starts_with(&format!("revoke acme/x {manifest} ")),
        "{asked:?}"
    );
    assert!(revoked[0].ends_with("a stolen key"), "{asked:?}");
}

#[tokio::test]
async fn how_far_a_revocation_came_is_read_and_only_of_what_was_revoked() {
    let (bench, manifest, _) = published().await;
    let auditor = bench.operator(Role::Auditor).await;
    let path = format!("/api/v1/apps/revoked/{manifest}");
    let (status, answer) = bench.get(&auditor, &path).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    let row = crate::store::director::DeniedRow {
        digest: manifest,
        app: "acme/x".to_owned(),
        version: "1.0".to_owned(),
        reason: "a stolen key".to_owned(),
        since: SystemClock.now(),
        denied_by: "li".to_owned(),
    };
    let mut tx = bench.store.begin("test").await.unwrap();
    tx.deny_app(&row).await.unwrap();
    tx.commit().await.unwrap();
    let (status, answer) = bench.get(&auditor, &path).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["reason"], "a stolen key");
    assert_eq!(answer["nodes"]["told"], 1);
    let (status, answer) = bench.get(&auditor, "/api/v1/apps/revoked/beef").await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::BAD_REQUEST, &json!("digest"))
    );
    // Reading is all that an auditor may.
    for (path, body) in [
        (RELEASE, why("mischief")),
        (
            "/api/v1/apps/revoke",
            json!({ "digest": "ab".repeat(32), "reason": "mischief" }),
        ),
        (
            "/api/v1/apps/acme/x/back",
            json!({ "node": "gw-1", "reason": "mischief" }),
        ),
    ] {
        let (status, _) = bench.post(&auditor, path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    let asked = bench.control.asked();
    assert!(
        asked.iter().all(|what| what.starts_with("spread")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn orders_that_name_nothing_or_give_no_reason_are_refused() {
    let (bench, manifest, _) = published().await;
    let operator = bench.operator(Role::Operator).await;
    let long = "x".repeat(1_001);
    let digest = manifest.to_string();
    let node = |reason: &str| json!({ "node": "gw-1", "reason": reason });
    let cases = [
        (
            "/api/v1/apps/acme/x/1.1/revoke",
            why("x"),
            StatusCode::NOT_FOUND,
            "not_found",
        ),
        (
            "/api/v1/apps/acme/y/1.0/revoke",
            why("x"),
            StatusCode::NOT_FOUND,
            "not_found",
        ),
        (
            "/api/v1/apps/ACME/x/1.0/revoke",
            why("x"),
            StatusCode::BAD_REQUEST,
            "app",
        ),
        (
            "/api/v1/apps/acme/x/one/revoke",
            why("x"),
            StatusCode::BAD_REQUEST,
            "version",
        ),
        (RELEASE, why(""), StatusCode::BAD_REQUEST, "reason"),
        (RELEASE, why(" \t "), StatusCode::BAD_REQUEST, "reason"),
        (
            RELEASE,
            why("two\nlines"),
            StatusCode::BAD_REQUEST,
            "reason",
        ),
        (RELEASE, why(&long), StatusCode::BAD_REQUEST, "reason"),
        (
            "/api/v1/apps/revoke",
            json!({ "digest": "beef", "reason": "x" }),
            StatusCode::BAD_REQUEST,
            "digest",
        ),
        (
            "/api/v1/apps/revoke",
            json!({ "digest": digest, "reason": "" }),
            StatusCode::BAD_REQUEST,
            "reason",
        ),
        (
            "/api/v1/apps/acme/x/back",
            why("x"),
            StatusCode::BAD_REQUEST,
            "whom",
        ),
        (
            "/api/v1/apps/acme/x/back",
            json!({ "node": "gw-1", "group": "g", "reason": "x" }),
            StatusCode::BAD_REQUEST,
            "whom",
        ),
        (
            "/api/v1/apps/acme/x/back",
            json!({ "group": "none", "reason": "x" }),
            StatusCode::CONFLICT,
            "app-no-way-back",
        ),
        (
            "/api/v1/apps/acme/x/back",
            node(""),
            StatusCode::BAD_REQUEST,
            "reason",
        ),
    ];
    for (path, body, status, code) in cases {
        let (found, answer) = bench.post(&operator, path, body.clone()).await;
        assert_eq!(
            (found, answer["code"].as_str()),
            (status, Some(code)),
            "{path} {body}"
        );
    }
    let more = json!({ "reason": "x", "wait": 1 });
    let (status, _) = bench.post(&operator, RELEASE, more).await;
    assert!(status.is_client_error());
    let asked = bench.control.asked();
    assert!(
        asked
            .iter()
            .all(|what| what.starts_with("back acme/x Group")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn the_way_back_and_the_directors_word_are_for_operators_and_named_nodes() {
    let (bench, _, _) = published().await;
    let operator = bench.operator(Role::Operator).await;
    let body = json!({ "group": "gateways", "reason": "a leak" });
    let (status, answer) = bench
        .post(&operator, "/api/v1/apps/acme/x/back", body)
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer["nodes"],
        json!([{ "node": "gw-1", "from": "2.1", "to": "2.0" }])
    );
    let request = Request::get("/api/v1/nodes/gw-1/director").body(Body::empty());
    let response = bench.send(&operator, request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&bytes[..], [1, 2, 3]);
    let (status, _) = bench.get(&operator, "/api/v1/nodes/gw-9/director").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for class in [
        Class::Node,
        Class::Operator(Role::Auditor),
        Class::Anonymous,
    ] {
        let someone = bench.someone(class).await;
        let (status, _) = bench.get(&someone, "/api/v1/nodes/gw-1/director").await;
        assert!(
            status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED,
            "{class:?}: {status}"
        );
    }
}

/// Uploads take all the room there is for them.
#[tokio::test]
async fn a_revocation_does_not_wait_for_uploads() {
    let (bench, manifest, _) = published().await;
    let operator = bench.operator(Role::Operator).await;
    let every = u32::try_from(bench.api.app_uploads.available_permits()).unwrap();
    let _uploads = bench.api.app_uploads.acquire_many(every).await.unwrap();
    let revoking = bench.post(&operator, RELEASE, why("a stolen key"));
    let (status, answer) = tokio::time::timeout(Duration::from_secs(5), revoking)
        .await
        .expect("it waits for uploads");
    assert_eq!(
        (status, &answer["digest"]),
        (StatusCode::OK, &json!(manifest.to_string()))
    );
}

/// What the director goes by where a policy denies a file.
#[tokio::test]
async fn of_every_release_it_is_known_which_files_it_holds() {
    let (bench, manifest, program) = published().await;
    let releases = bench.api.apps.releases();
    let held = releases
        .apps
        .values()
        .flat_map(|versions| versions.values());
    let held: Vec<_> = held.map(|release| &release.content).collect();
    assert_eq!(held.len(), 1);
    assert!(held[0].has(&program) && !held[0].has(&manifest));
}
