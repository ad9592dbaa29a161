use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_apps::Digest;
use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_identity::signed::PurposeKey;
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_identity::{Purpose, Signer, SoftwareKey, SvidLeaf};
use edgeward_policy::{Seconds, Selectors, Workload};
use edgeward_wire::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use edgeward_wire::spiffe::*;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::testing::{FakeAuthority, LIFETIME};
use super::*;
use crate::boot::Boot;
use crate::enforce::RecordRefused;
use crate::view::{self, HeldSlice, Publisher, testing};

/// What was recorded.
#[derive(Default)]
struct Notes(Mutex<Vec<Event>>);

#[async_trait]
impl Recorder for Notes {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        self.record_after(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// An agent's Workload API on a socket of its own.
struct World {
    publisher: Publisher,
    authority: Arc<FakeAuthority>,
    clock: Arc<TurnedClock>,
    notes: Arc<Notes>,
    socket: PathBuf,
    /// Applications that this node started.
    launched: watch::Sender<Arc<Vec<Launched>>>,
    _folder: tempfile::TempDir,
    _ends: tokio_util::sync::DropGuard,
}

type Client = SpiffeWorkloadApiClient<Channel>;

impl World {
    /// With these registrations, by name.
    fn new(workloads: &[(&str, Selectors)]) -> Self {
        let clock = TurnedClock::at(TEST_NOW);
        let authority = FakeAuthority::new(TestAuthority::new("plant.example"), clock.clone());
        let (publisher, view) = holding(&authority, clock.clone(), slice(1, workloads));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workload.sock");
        let notes = Arc::new(Notes::default());
        let svids = Arc::new(Svids::new(authority.clone(), clock.clone()));
        let (launched_to, launched) = watch::channel(Arc::default());
        let desk = Desk::new(view, svids, Pods::default(), launched, notes.clone());
        let socket = Socket::bind(&path).unwrap();
        let token = CancellationToken::new();
        let serving = Serving {
            socket,
            api: Api::new(Arc::new(desk), Places::default()),
        };
        tokio::spawn(serving.run(token.clone()));
        Self {
            publisher,
            authority,
            clock,
            notes,
            socket: path,
            launched: launched_to,
            _folder: folder,
            _ends: token.drop_guard(),
        }
    }

    async fn client(&self) -> Client {
        SpiffeWorkloadApiClient::new(self.channel().await)
    }

    async fn channel(&self) -> Channel {
        let path = self.socket.clone();
        Endpoint::from_static("http://workload")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap()
    }

    fn put_slice(&self, number: u64, workloads: &[(&str, Selectors)]) {
        self.publisher
            .slice
            .send_replace(Some(slice(number, workloads)));
    }

    fn recorded(&self, kind: EventKind) -> usize {
        let notes = self.notes.0.lock();
        notes.iter().filter(|event| event.kind == kind).count()
    }
}

/// What a node holds that was given this slice.
pub(crate) fn holding(
    authority: &FakeAuthority,
    clock: Arc<TurnedClock>,
    slice: Arc<HeldSlice>,
) -> (Publisher, crate::view::NodeView) {
    let keys = [PurposeKey {
        purpose: Purpose::Jwt,
        key: *authority.jwt_key.public_key(),
        not_after: TEST_NOW.plus(Duration::from_secs(86_400)),
    }];
    let mut initial = testing::initial(&authority.ca, "node/a", &keys);
    initial.slice = Some(slice);
    let boot = Arc::new(Boot::new("kernel", None).unwrap());
    view::channel(clock, boot, initial)
}

pub(crate) fn slice(number: u64, workloads: &[(&str, Selectors)]) -> Arc<HeldSlice> {
    let mut slice = testing::slice(number, "spiffe://plant.example/node/a");
    let named = workloads.iter().map(|(name, selectors)| Workload {
        id: format!("spiffe://plant.example/workload/{name}")
            .parse()
            .unwrap(),
        selectors: selectors.clone(),
        ttl: Seconds::new(600),
    });
    slice.workloads = named.collect();
    testing::held(slice)
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn mine() -> Selectors {
    Selectors {
        uid: Some(own_uid()),
        ..Selectors::default()
    }
}

fn others() -> Selectors {
    Selectors {
        uid: Some(own_uid() + 1),
        ..Selectors::default()
    }
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

fn for_audience(audience: &str, id: &str) -> Request<JwtsvidRequest> {
    asked(JwtsvidRequest {
        audience: vec![audience.to_owned()],
        spiffe_id: id.to_owned(),
    })
}

async fn x509(client: &mut Client) -> Result<tonic::Streaming<X509svidResponse>, Status> {
    let stream = client.fetch_x509svid(asked(X509svidRequest {})).await?;
    Ok(stream.into_inner())
}

/// The next message within ten seconds.
async fn next<T>(stream: &mut tonic::Streaming<T>) -> Result<T, Status> {
    let next = tokio::time::timeout(Duration::from_secs(10), stream.message());
    next.await
        .expect("a message")
        .map(|message| message.expect("not the end"))
}

fn ids(response: &X509svidResponse) -> Vec<&str> {
    response
        .svids
        .iter()
        .map(|svid| svid.spiffe_id.rsplit('/').next().unwrap())
        .collect()
}

#[tokio::test]
async fn a_request_without_the_header_is_refused_whoever_asks() {
    let world = World::new(&[("a", mine())]);
    let mut client = world.client().await;
    let mut codes = vec![
        client
            .fetch_x509svid(X509svidRequest {})
            .await
            .unwrap_err()
            .code(),
        client
            .fetch_x509_bundles(X509BundlesRequest {})
            .await
            .unwrap_err()
            .code(),
        client
            .fetch_jwtsvid(JwtsvidRequest::default())
            .await
            .unwrap_err()
            .code(),
        client
            .fetch_jwt_bundles(JwtBundlesRequest {})
            .await
            .unwrap_err()
            .code(),
        client
            .validate_jwtsvid(ValidateJwtsvidRequest::default())
            .await
            .unwrap_err()
            .code(),
    ];
    for value in ["false", "TRUE", ""] {
        let mut request = Request::new(X509svidRequest {});
        let metadata = request.metadata_mut();
        metadata.insert("workload.spiffe.io", value.parse().unwrap());
        codes.push(client.fetch_x509svid(request).await.unwrap_err().code());
    }
    assert_eq!(codes, [Code::InvalidArgument; 8]);
}

#[tokio::test]
async fn a_process_that_no_registration_matches_is_told_nothing() {
    let world = World::new(&[("a", others())]);
    let mut client = world.client().await;
    let x509 = next(&mut x509(&mut client).await.unwrap()).await;
    let bundles = client
        .fetch_x509_bundles(asked(X509BundlesRequest {}))
        .await;
    let bundles = next(&mut bundles.unwrap().into_inner()).await;
    let keys = client.fetch_jwt_bundles(asked(JwtBundlesRequest {})).await;
    let keys = next(&mut keys.unwrap().into_inner()).await;
    let jwt = client.fetch_jwtsvid(for_audience("x", "")).await;
    let valid = client
        .validate_jwtsvid(asked(ValidateJwtsvidRequest {
            audience: "x".to_owned(),
            svid: "a.b.c".to_owned(),
        }))
        .await;
    for refused in [
        x509.unwrap_err(),
        bundles.unwrap_err(),
        keys.unwrap_err(),
        jwt.unwrap_err(),
        valid.unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::PermissionDenied, "no_identity")
        );
    }
    assert_eq!(world.authority.asked(), 0);
    // Five refusals of one user within a minute are one record.
    assert_eq!(world.recorded(EventKind::WorkloadRefused), 1);
}

#[tokio::test]
async fn a_profile_that_is_not_served_is_unimplemented() {
    let world = World::new(&[("a", mine())]);
    let mut grpc = tonic::client::Grpc::new(world.channel().await);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchWITSVID");
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidResponse>::default();
    let answer = grpc.unary(asked(X509svidRequest {}), path, codec).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

/// This process, as if it were an application of which these are the files.
fn as_application(files: &[Vec<u8>]) -> Launched {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    Launched {
        cgroup: cgroup::read(&text).unified.unwrap(),
        uid: own_uid(),
        facts: selectors::AppFacts {
            name: "acme/collector".to_owned(),
            files: Arc::new(files.iter().map(|file| Digest::of(file)).collect()),
        },
    }
}

#[tokio::test]
async fn an_application_has_its_identity_while_it_runs_and_what_it_was_made_to_run_has_none() {
    let app = Selectors {
        app: Some("acme/collector".to_owned()),
        ..Selectors::default()
    };
    let world = World::new(&[("a", app)]);
    let mut client = world.client().await;
    let refused = async |client: &mut Client| {
        let refused = next(&mut x509(client).await.unwrap()).await;
        assert_eq!(refused.unwrap_err().message(), "no_identity");
    };
    refused(&mut client).await;
    // The program is none of the application's files.
    let launched = as_application(&[b"another program".to_vec()]);
    world.launched.send_replace(Arc::new(vec![launched]));
    refused(&mut client).await;
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let launched = as_application(&[b"a library".to_vec(), own]);
    world.launched.send_replace(Arc::new(vec![launched]));
    let mut stream = x509(&mut client).await.unwrap();
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["a"]);
    // Before it is ended: what it holds open says that it is nobody any more.
    world.launched.send_replace(Arc::default());
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.message(), "no_identity");
}

#[tokio::test]
async fn a_process_gets_every_identity_it_may_have_with_key_and_bundle() {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap().to_owned();
    let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(&program).unwrap());
    let precise = Selectors {
        path: Some(program),
        digest: Some(hex::encode(digest)),
        ..mine()
    };
    let wrong = Selectors {
        digest: Some("00".repeat(32)),
        ..precise.clone()
    };
    let world = World::new(&[("a", mine()), ("b", precise), ("c", wrong), ("d", others())]);
    let mut client = world.client().await;
    let response = next(&mut x509(&mut client).await.unwrap()).await.unwrap();
    assert_eq!(ids(&response), ["a", "b"]);
    for svid in &response.svids {
        let key =
            SoftwareKey::from_pkcs8(edgeward_identity::Secret::new(svid.x509_svid_key.clone()));
        let length = usize::from(u16::from_be_bytes([svid.x509_svid[2], svid.x509_svid[3]])) + 4;
        let leaf = SvidLeaf::parse(&svid.x509_svid[..length]).unwrap();
        assert_eq!(leaf.key, *key.unwrap().public_key());
        assert_eq!(leaf.id.to_string(), svid.spiffe_id);
        let roots = world.authority.ca.bundle();
        assert_eq!(svid.bundle, roots.roots()[0].to_vec());
    }
    assert_eq!(world.recorded(EventKind::WorkloadServed), 2);
}

#[tokio::test]
async fn a_change_of_the_policy_is_pushed_as_the_whole_set() {
    let world = World::new(&[("a", mine()), ("b", mine())]);
    let mut client = world.client().await;
    let mut stream = x509(&mut client).await.unwrap();
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["a", "b"]);
    world.put_slice(2, &[("b", mine()), ("c", mine())]);
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["b", "c"]);
    world.put_slice(3, &[("b", others())]);
    let refused = next(&mut stream).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_renewal_is_pushed_to_everybody_who_listens() {
    let world = World::new(&[("a", mine())]);
    let (mut one, mut other) = (world.client().await, world.client().await);
    let mut streams = [
        x509(&mut one).await.unwrap(),
        x509(&mut other).await.unwrap(),
    ];
    let mut before = Vec::new();
    for stream in &mut streams {
        before.push(next(stream).await.unwrap().svids[0].x509_svid.clone());
    }
    assert_eq!(before[0], before[1]);
    world.clock.turn(LIFETIME / 2);
    // Whoever asks next renews it for all.
    let renewed = next(&mut x509(&mut one).await.unwrap()).await.unwrap();
    for stream in &mut streams {
        let pushed = next(stream).await.unwrap();
        assert_eq!(pushed.svids[0].x509_svid, renewed.svids[0].x509_svid);
        assert_ne!(pushed.svids[0].x509_svid, before[0]);
    }
    assert_eq!(world.authority.asked(), 2);
}

#[tokio::test]
async fn new_roots_are_pushed() {
    let world = World::new(&[("a", mine())]);
    let mut client = world.client().await;
    let mut svids = x509(&mut client).await.unwrap();
    let bundles = client
        .fetch_x509_bundles(asked(X509BundlesRequest {}))
        .await;
    let mut bundles = bundles.unwrap().into_inner();
    next(&mut svids).await.unwrap();
    let first = next(&mut bundles).await.unwrap();
    assert_eq!(first.bundles.len(), 1);
    let mut trust = world.authority.ca.trust_view();
    let second = TestAuthority::new("plant.example").bundle();
    let mut roots = trust.bundle.roots().to_vec();
    roots.extend(second.roots().iter().cloned());
    let domain = trust.bundle.trust_domain().clone();
    let both: Vec<u8> = roots.iter().flat_map(|root| root.to_vec()).collect();
    trust.bundle = edgeward_identity::TrustBundle::new(domain, 2, 60, roots).unwrap();
    world.publisher.set_trust(trust);
    let pushed = next(&mut bundles).await.unwrap();
    assert_eq!(pushed.bundles["spiffe://plant.example"], both);
    let pushed = next(&mut svids).await.unwrap();
    assert_eq!(pushed.svids[0].bundle, both);
}

#[tokio::test]
async fn when_nothing_is_issued_a_new_caller_is_told_why_and_an_old_one_keeps_what_it_has() {
    let world = World::new(&[("a", mine())]);
    let mut client = world.client().await;
    let held = next(&mut x509(&mut client).await.unwrap()).await.unwrap();
    world.authority.refuse(Some("node_not_trusted"));
    world.clock.turn(LIFETIME / 2);
    let still = next(&mut x509(&mut client).await.unwrap()).await.unwrap();
    assert_eq!(still, held);
    world.clock.turn(LIFETIME / 2);
    let over = next(&mut x509(&mut client).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        (over.code(), over.message()),
        (Code::Unavailable, "node_not_trusted")
    );
    let token = client
        .fetch_jwtsvid(for_audience("x", ""))
        .await
        .unwrap_err();
    assert_eq!(
        (token.code(), token.message()),
        (Code::Unavailable, "node_not_trusted")
    );
}

#[tokio::test]
async fn a_policy_past_its_end_gives_nobody_an_identity() {
    let world = World::new(&[("a", mine())]);
    let mut client = world.client().await;
    next(&mut x509(&mut client).await.unwrap()).await.unwrap();
    world.clock.turn(Duration::from_secs(86_400));
    let refused = next(&mut x509(&mut client).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_token_is_for_the_identity_that_was_asked_for_and_only_one_of_the_callers_own() {
    let world = World::new(&[("a", mine()), ("b", mine()), ("c", others())]);
    let mut client = world.client().await;
    let all = client.fetch_jwtsvid(for_audience("x", "")).await.unwrap();
    assert_eq!(all.into_inner().svids.len(), 2);
    let id = "spiffe://plant.example/workload/b";
    let one = client.fetch_jwtsvid(for_audience("x", id)).await.unwrap();
    assert_eq!(one.into_inner().svids[0].spiffe_id, id);
    for id in [
        "spiffe://plant.example/workload/c",
        "spiffe://plant.example/node/a",
        "x",
    ] {
        let refused = client
            .fetch_jwtsvid(for_audience("x", id))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{id}");
    }
    for audience in [vec![], vec![String::new()], vec!["a".to_owned(); 17]] {
        let request = asked(JwtsvidRequest {
            audience,
            spiffe_id: String::new(),
        });
        let refused = client.fetch_jwtsvid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_token_is_validated_for_its_audience_by_the_keys_of_the_cloud() {
    let world = World::new(&[("a", mine())]);
    let mut client = world.client().await;
    let token = client.fetch_jwtsvid(for_audience("x", "")).await.unwrap();
    let token = token.into_inner().svids[0].svid.clone();
    let request = |audience: &str, svid: &str| {
        asked(ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: svid.to_owned(),
        })
    };
    let valid = client.validate_jwtsvid(request("x", &token)).await.unwrap();
    let valid = valid.into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://plant.example/workload/a");
    let fields: BTreeMap<_, _> = valid.claims.unwrap().fields.into_iter().collect();
    assert!(fields.contains_key("exp") && fields.contains_key("aud"));
    let long = "a".repeat(20_000);
    for (audience, svid, code) in [
        ("y", token.as_str(), "jwt_audience"),
        ("", token.as_str(), "jwt_audience"),
        ("x", "a.b", "jwt_malformed"),
        ("x", long.as_str(), "jwt_malformed"),
    ] {
        let refused = client.validate_jwtsvid(request(audience, svid)).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::InvalidArgument, code)
        );
    }
    let bundles = client.fetch_jwt_bundles(asked(JwtBundlesRequest {})).await;
    let bundles = next(&mut bundles.unwrap().into_inner()).await.unwrap();
    let jwks = &bundles.bundles["spiffe://plant.example"];
    let kid = world.authority.jwt_key.public_key().spki_hash().to_string();
    assert!(String::from_utf8_lossy(jwks).contains(&kid));
    world.clock.turn(Duration::from_secs(301));
    let over = client.validate_jwtsvid(request("x", &token)).await;
    assert_eq!(over.unwrap_err().message(), "jwt_expired");
}

#[test]
fn the_socket_is_for_everybody_and_taken_over_only_from_the_dead() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("workload.sock");
    let socket = Socket::bind(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    assert!(Socket::bind(&path).is_err());
    drop(socket);
    assert!(!path.exists());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    Socket::bind(&path).unwrap();
}

#[tokio::test]
async fn a_client_that_names_the_sockets_path_as_authority_is_served() {
    let world = World::new(&[("a", mine())]);
    let stream = UnixStream::connect(&world.socket).await.unwrap();
    let name = world.socket.to_str().unwrap().trim_start_matches('/');
    let encoded = name.replace('/', "%2F");
    let mut raw = RawHttp2::connect(stream).await;
    let answer = raw.fetch_x509_svid(&encoded).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("spiffe://plant.example/workload/a"), "{text}");
}

/// Just enough of a client to send an `:authority` that HTTP libraries here refuse to make.
struct RawHttp2(UnixStream);

impl RawHttp2 {
    async fn connect(mut stream: UnixStream) -> Self {
        use tokio::io::AsyncWriteExt;
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
        stream.write_all(&preface).await.unwrap();
        Self(stream)
    }

    /// All bytes of the answer until an identity is in them, or the server ends.
    async fn fetch_x509_svid(&mut self, authority: &str) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let mut block = vec![0x83, 0x86, 0x44];
        block.extend(text("/SpiffeWorkloadAPI/FetchX509SVID"));
        block.push(0x41);
        block.extend(text(authority));
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("workload.spiffe.io", "true"),
        ] {
            block.push(0x40);
            block.extend([text(name), text(value)].concat());
        }
        let length = u8::try_from(block.len()).unwrap();
        let headers = [&[0, 0, length, 1, 4, 0, 0, 0, 1][..], &block].concat();
        // An empty message ends the request.
        let data = [0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        self.0
            .write_all(&[&headers[..], &data].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        let wanted = b"spiffe://plant.example/workload/a";
        while !answer.windows(wanted.len()).any(|part| part == wanted) {
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read(&mut chunk));
            match read.await.expect("an answer").unwrap() {
                0 => break,
                count => answer.extend_from_slice(&chunk[..count]),
            }
        }
        answer
    }
}
