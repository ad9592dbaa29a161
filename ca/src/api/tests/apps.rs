//! From the first root to a release that is listed, as an operator's commands do it.

use std::time::Duration;

use edgeward_apps::Digest;
use edgeward_apps::testing::{Content, Published, noise};

use super::*;

pub(super) async fn put(
    bench: &Bench,
    who: &Someone,
    path: &str,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    raw(bench, who, Method::PUT, path, body).await
}

pub(super) async fn raw(
    bench: &Bench,
    who: &Someone,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(Body::from(body))
        .unwrap();
    read(bench.send(who, request).await).await
}

pub(super) fn offline(bench: &Bench) -> Published {
    let mut offline = Published::new();
    let key = bench.folder.path().join("keys/apps-online.key");
    let repository = &mut offline.repository;
    repository.online = crate::keys::files::read_key(&key).unwrap();
    let end = SystemClock.now().plus(Duration::from_secs(90 * 86_400));
    let expires = &mut repository.expires;
    (expires.root, expires.targets, expires.publisher) = (end, end, end);
    repository.sign_root(&[]);
    offline
}

#[tokio::test]
async fn a_release_goes_from_the_first_root_to_the_list() {
    let bench = Bench::new().await;
    let (admin, operator) = (
        bench.operator(Role::Admin).await,
        bench.operator(Role::Operator).await,
    );
    let mut offline = offline(&bench);
    let program = noise(200_000, 5);
    offline.release("acme/x", "1.0", &[("bin/x", Content::Program(&program))]);
    let files = offline.repository.files();
    let root = "/api/v1/publishers/metadata?role=root";
    let (status, answer) = put(&bench, &operator, root, files["1.root.json"].clone()).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::FORBIDDEN, &json!("forbidden"))
    );
    let (status, answer) = put(&bench, &admin, root, files["1.targets.json"].clone()).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::BAD_REQUEST, &json!("metadata-malformed"))
    );
    let (status, _) = put(&bench, &admin, root, files["1.root.json"].clone()).await;
    assert_eq!(status, StatusCode::OK);
    let image = "/api/v1/publishers/metadata?role=targets";
    let (status, answer) = put(&bench, &admin, image, files["1.targets.json"].clone()).await;
    assert_eq!((status, &answer["version"]), (StatusCode::OK, &json!(1)));
    let (_, view) = bench.get(&operator, "/api/v1/publishers").await;
    assert_eq!(view["publishers"][0]["publisher"], "acme");
    assert_eq!(
        (&view["publishers"][0]["releases"], &view["ending"]),
        (&json!(0), &Value::Null)
    );

    let publish = "/api/v1/apps?publisher=acme";
    let releases = || files["1.acme.json"].clone();
    let (status, answer) = raw(&bench, &operator, Method::POST, publish, releases()).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::CONFLICT, &json!("app-incomplete"))
    );
    let (digest, manifest) = offline.manifests.first_key_value().unwrap();
    assert_eq!(answer["findings"], json!([digest.to_string()]));
    let path = format!("/api/v1/apps/manifests/{digest}?publisher=acme");
    let (status, _) = put(&bench, &operator, &path, manifest.clone()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let chunks: Vec<String> = offline.chunks.keys().map(ToString::to_string).collect();
    let (_, answer) = bench
        .post(
            &operator,
            "/api/v1/apps/missing",
            json!({ "chunks": chunks }),
        )
        .await;
    assert_eq!(answer["missing"], json!(chunks));
    for (digest, bytes) in &offline.chunks {
        let path = format!("/api/v1/apps/chunks/{digest}?publisher=acme");
        let (status, answer) = put(&bench, &operator, &path, b"else".to_vec()).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("chunk-mismatch"))
        );
        let (status, _) = put(&bench, &operator, &path, bytes.clone()).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let (status, answer) = raw(&bench, &operator, Method::POST, publish, releases()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["published"][0]["digest"], digest.to_string());

    let (_, list) = bench.get(&operator, "/api/v1/apps?app=acme/x").await;
    assert_eq!(list["items"][0]["versions"][0]["size"], 200_000);
    let (_, other) = bench.get(&operator, "/api/v1/apps?app=acme/y").await;
    assert_eq!(other["items"], json!([]));
    let (_, shown) = bench.get(&operator, "/api/v1/apps/acme/x/1.0").await;
    assert_eq!(
        (&shown["entry"], &shown["entries"]),
        (&json!("bin/x"), &json!(1))
    );
    let (status, _) = bench.get(&operator, "/api/v1/apps/acme/x/1.1").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let request = Request::get("/api/v1/apps/metadata/timestamp.json").body(Body::empty());
    let response = bench.send(&operator, request.unwrap()).await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let stored = bench.api.apps.metadata("timestamp.json").await.unwrap();
    assert_eq!(Digest::of(&bytes), Digest::of(&stored.unwrap()));
    assert_eq!(bench.recorded(EventKind::AppPublished).await.len(), 1);
    assert_eq!(bench.recorded(EventKind::PublisherChanged).await.len(), 2);
}

#[tokio::test]
async fn uploads_that_say_too_much_or_too_little_are_refused() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let digest = Digest::of(b"x");
    for (path, bytes, status, code) in [
        (
            "/api/v1/publishers/metadata",
            9,
            StatusCode::BAD_REQUEST,
            "role",
        ),
        (
            "/api/v1/publishers/metadata?role=snapshot",
            9,
            StatusCode::BAD_REQUEST,
            "role",
        ),
        (
            "/api/v1/publishers/metadata?role=root",
            9_000_000,
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
        ),
        (
            &format!("/api/v1/apps/chunks/{digest}"),
            1,
            StatusCode::BAD_REQUEST,
            "publisher",
        ),
        (
            "/api/v1/apps/chunks/beef?publisher=acme",
            1,
            StatusCode::BAD_REQUEST,
            "digest",
        ),
        (
            &format!("/api/v1/apps/chunks/{digest}?publisher=root"),
            1,
            StatusCode::BAD_REQUEST,
            "publisher",
        ),
    ] {
        let (found, answer) = put(&bench, &admin, path, vec![b'x'; bytes]).await;
        assert_eq!(
            (found, answer["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let many = vec!["0".repeat(64); 65_537];
    let (status, answer) = bench
        .post(&admin, "/api/v1/apps/missing", json!({ "chunks": many }))
        .await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::BAD_REQUEST, &json!("too_many"))
    );
}
