use std::collections::BTreeMap;
use std::future::Future;

use axum::Extension;
use axum::routing::get;
use edgeward_identity::deny::Denied;
use edgeward_identity::tls::{PinnedVerifier, anonymous_client, client};
use edgeward_identity::{
    DenyList, SoftwareKey, SpiffeId, SpkiHash, Svid, SystemClock, Timestamp, TrustDomain,
};
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::keys::CloudKeys;

struct Cloud {
    address: SocketAddr,
    keys: CloudKeys,
    trust: Arc<ArcSwap<TrustView>>,
    connections: Arc<Connections>,
    refused: Arc<parking_lot::Mutex<Vec<String>>>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    _folder: tempfile::TempDir,
}

type Client = hyper::client::conn::http1::SendRequest<http_body_util::Empty<bytes::Bytes>>;

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

async fn who(Extension(caller): Extension<Caller>) -> String {
    let id = caller
        .peer
        .map_or("nobody".to_owned(), |peer| peer.id().to_string());
    format!("{id} {}", hex::encode(caller.exporter))
}

impl Cloud {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let keys = CloudKeys::create(folder.path(), &domain(), now, |_| Ok(())).unwrap();
        let id = SpiffeId::new(&domain(), Kind::Cloud, "c").unwrap();
        let svid = keys
            .issuer()
            .issue_cloud(&id, Arc::new(SoftwareKey::generate().unwrap()), now)
            .unwrap();
        let trust = Arc::new(ArcSwap::from_pointee(TrustView {
            bundle: keys.bundle(),
            deny: DenyList::default(),
        }));
        let refused = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let told = refused.clone();
        let server = Server {
            credentials: Credentials::new(&svid),
            trust: trust.clone(),
            clock: Arc::new(SystemClock),
            connections: Connections::new(),
            grpc: Router::new(),
            rest: Router::new().route("/who", get(who)).route(
                "/slow",
                get(|| async { tokio::time::sleep(Duration::from_secs(1)).await }),
            ),
            on_refused: Arc::new(move |_, reason| told.lock().push(reason)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        Self {
            address,
            keys,
            trust,
            connections: server.connections.clone(),
            refused,
            stop: stop.clone(),
            running: tokio::spawn(server.run(listener, stop)),
            _folder: folder,
        }
    }

    fn operator(&self, name: &str) -> Svid {
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let id = SpiffeId::new(&domain(), Kind::Operator, name).unwrap();
        let issued = self
            .keys
            .issuer()
            .issue_operator(
                &id,
                edgeward_identity::Signer::public_key(&*key),
                Duration::from_secs(600),
                SystemClock.now(),
            )
            .unwrap();
        Svid::new(issued.chain, key).unwrap()
    }

    fn deny(&self, key: SpkiHash) {
        let denied = Denied {
            reason: "removed".to_owned(),
            until: Timestamp::from_millis(u64::MAX),
        };
        self.trust.store(Arc::new(TrustView {
            bundle: self.keys.bundle(),
            deny: DenyList::new(1, BTreeMap::from([(key, denied)])).unwrap(),
        }));
    }

    fn anonymous(&self) -> rustls::ClientConfig {
        let verifier = PinnedVerifier::new(self.keys.root_pin(), domain(), Arc::new(SystemClock));
        anonymous_client(verifier, &[ALPN_HTTP1])
    }

    fn with(&self, svid: &Svid) -> rustls::ClientConfig {
        let verifier =
            PeerVerifier::mandatory(self.trust.clone(), Arc::new(SystemClock), &[Kind::Cloud]);
        client(Credentials::new(svid), verifier, &[ALPN_HTTP1])
    }

    async fn connect(&self, config: rustls::ClientConfig) -> std::io::Result<(Client, [u8; 32])> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("cloud").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], EVIDENCE_EXPORTER_LABEL, None)
            .unwrap();
        let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok((client, exporter))
    }
}

async fn ask(client: &mut Client, path: &str) -> Result<String, hyper::Error> {
    let request = Request::get(path)
        .header("host", "cloud")
        .body(http_body_util::Empty::new())
        .unwrap();
    let response = client.send_request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

async fn eventually<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    for _ in 0..500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_told() {
    let cloud = Cloud::start().await;
    let other = Cloud::start().await;
    let mut config = cloud.with(&other.operator("li"));
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    // In TLS 1.3 the client learns of it when it first reads.
    if let Ok((mut client, _)) = cloud.connect(config).await {
        assert!(ask(&mut client, "/who").await.is_err());
    }
    eventually(|| async { !cloud.refused.lock().is_empty() }).await;
}

#[tokio::test]
async fn a_denied_certificate_is_refused_at_the_handshake() {
    let cloud = Cloud::start().await;
    let li = cloud.operator("li");
    cloud.deny(li.leaf().key.spki_hash());
    if let Ok((mut client, _)) = cloud.connect(cloud.with(&li)).await {
        assert!(ask(&mut client, "/who").await.is_err());
    }
    eventually(|| async { !cloud.refused.lock().is_empty() }).await;
}

#[tokio::test]
async fn an_open_connection_of_a_key_that_gets_denied_is_closed_at_once() {
    let cloud = Cloud::start().await;
    let li = cloud.operator("li");
    let (mut denied, _) = cloud.connect(cloud.with(&li)).await.unwrap();
    let (mut other, _) = cloud
        .connect(cloud.with(&cloud.operator("wang")))
        .await
        .unwrap();
    ask(&mut denied, "/who").await.unwrap();
    ask(&mut other, "/who").await.unwrap();
    cloud.deny(li.leaf().key.spki_hash());
    assert_eq!(cloud.connections.close_denied(&cloud.trust.load().deny), 1);
    assert!(ask(&mut denied, "/who").await.is_err());
    assert!(ask(&mut other, "/who").await.is_ok());
    eventually(|| async { cloud.connections.count() == 1 }).await;
}

#[tokio::test]
async fn a_thousand_half_open_handshakes_keep_nobody_out() {
    let cloud = Cloud::start().await;
    let mut lingering = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(cloud.address).await.unwrap();
        // The begin of a TLS record that never comes.
        stream.write_all(&[22, 3, 1, 2]).await.unwrap();
        lingering.push(stream);
    }
    let (mut client, _) = cloud.connect(cloud.anonymous()).await.unwrap();
    assert!(
        ask(&mut client, "/who")
            .await
            .unwrap()
            .starts_with("nobody")
    );
    // Those beyond the bound of one source were closed.
    let mut first = lingering.swap_remove(0);
    assert_eq!(first.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn every_request_carries_who_asks_and_on_which_connection() {
    let cloud = Cloud::start().await;
    let (mut anonymous, exporter) = cloud.connect(cloud.anonymous()).await.unwrap();
    let answer = ask(&mut anonymous, "/who").await.unwrap();
    assert_eq!(answer, format!("nobody {}", hex::encode(exporter)));
    let (mut li, other) = cloud
        .connect(cloud.with(&cloud.operator("li")))
        .await
        .unwrap();
    assert_ne!(exporter, other);
    let answer = ask(&mut li, "/who").await.unwrap();
    assert_eq!(
        answer,
        format!("spiffe://plant.example/operator/li {}", hex::encode(other))
    );
}

#[tokio::test]
async fn shutdown_lets_an_open_request_end() {
    let cloud = Cloud::start().await;
    let (mut client, _) = cloud.connect(cloud.anonymous()).await.unwrap();
    let stop = cloud.stop.clone();
    let asked = tokio::spawn(async move { ask(&mut client, "/slow").await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    assert!(asked.await.unwrap().is_ok());
    cloud.running.await.unwrap().unwrap();
    assert!(TcpStream::connect(cloud.address).await.is_err());
}
