//! Words on their way to receivers: HTTP that fails first, TLS by the right authority and by a wrong one.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::desk::{Scene, until};
use super::*;
use crate::config::alerts::{Sink, Target};
use crate::dial::{Endpoint, Roots, Trust};
use crate::store::testing::TestStore;

const SECRET: &str = "sixteen bytes and more";

#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<(HeaderMap, String)>>>);

async fn take(Shared(inbox): Shared<Inbox>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut taken = inbox.0.lock();
    taken.push((headers, String::from_utf8(body.to_vec()).unwrap()));
    match taken.len() {
        1 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NO_CONTENT,
    }
}

fn server(port: u16, roots: Option<std::path::PathBuf>) -> Endpoint {
    Endpoint {
        host: "localhost".to_owned(),
        port,
        tls: roots.map(|roots| Trust {
            roots: Roots::File(roots),
            client: None,
        }),
    }
}

fn signed(headers: &HeaderMap, body: &str) -> bool {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let message = format!(
        "{}.{}.{body}",
        text("webhook-id"),
        text("webhook-timestamp")
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = STANDARD
        .decode(text("webhook-signature").strip_prefix("v1,").unwrap())
        .unwrap();
    ring::hmac::verify(&key, message.as_bytes(), &tag).is_ok()
}

#[tokio::test]
async fn a_webhook_that_failed_gets_the_same_word_again_until_it_takes_it() {
    let store = TestStore::sqlite().await;
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inbox = Inbox::default();
    let router = Router::new()
        .route("/hook", post(take))
        .with_state(inbox.clone());
    tokio::spawn(axum::serve(listener, router).into_future());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let mut scene = Scene::new(&store, 1).await;
    scene.config.sinks = vec![Sink {
        name: "siem".to_owned(),
        least: Severity::Minor,
        to: Target::Webhook {
            server: server(port, None),
            path: "/hook".to_owned(),
            secret,
        },
    }];
    let _run = scene.run_with_sinks();
    until(async || scene.store.alert_position().await.unwrap().is_some()).await;
    scene.refuse_tokens(10).await;
    until(async || inbox.0.lock().len() == 1).await;
    until(async || {
        let waiting = scene.store.next_notice("siem").await.unwrap();
        waiting.is_some_and(|notice| notice.attempts == 1 && notice.error.contains("503"))
    })
    .await;
    scene.clock.turn(Duration::from_secs(2));
    until(async || scene.words().await == 0).await;
    let taken = inbox.0.lock().clone();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|(headers, body)| signed(headers, body)));
    assert_eq!(taken[0].0["webhook-id"], taken[1].0["webhook-id"]);
    let body: serde_json::Value = serde_json::from_str(&taken[1].1).unwrap();
    assert_eq!(body["type"], "alert.opened");
    assert_eq!(body["data"]["about"], "anonymous:192.0.2.1");
    assert_eq!(body["data"]["count"], 10);
}

#[tokio::test]
async fn syslog_over_tls_goes_to_whom_the_authority_vouches_for_and_to_nobody_else() {
    let key = || KeyPair::generate().unwrap();
    let authority = |key: KeyPair| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let (good, other) = (authority(key()), authority(key()));
    let leaf_key = key();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&leaf_key, &good)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (right, wrong) = (write("good", good.pem()), write("other", other.pem()));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![leaf.der().clone()],
        rustls_pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
    )
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let inbox = received.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            inbox.lock().push(text);
            let _ = stream.shutdown().await;
        }
    });
    let store = TestStore::sqlite().await;
    let mut scene = Scene::new(&store, 1).await;
    let sink = |name: &str, roots| Sink {
        name: name.to_owned(),
        least: Severity::Notice,
        to: Target::Syslog {
            server: server(port, Some(roots)),
            facility: 14,
        },
    };
    scene.config.sinks = vec![sink("right", right), sink("wrong", wrong)];
    let tried = scene.desk().try_sinks(None).await;
    assert!(tried[0].taken, "{tried:?}");
    assert!(
        !tried[1].taken && tried[1].error.contains("certificate"),
        "{tried:?}"
    );
    let received = received.lock();
    assert_eq!(received.len(), 1);
    let (length, message) = received[0].split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), message.len());
    assert!(
        message.starts_with("<117>1 ") && message.contains("word=\"alert.test\""),
        "{message}"
    );
}
