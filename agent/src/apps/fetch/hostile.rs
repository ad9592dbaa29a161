//! A server that means harm. Whatever it does costs a bounded time and bounded bytes, and nothing of it is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edgeward_apps::admit::publishers;
use edgeward_apps::manifest::Manifest;
use edgeward_apps::testing::{Content, Published, noise};
use edgeward_identity::testing::TEST_NOW;
use edgeward_wire::v1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::cloud::Pace;
use super::*;

mod server;

use server::{Hostile, Way, serve};

const QUICK: Pace = Pace {
    first: Duration::from_millis(400),
    least: 100_000,
};
/// No harm holds a node up for longer, at this pace.
const SOON: Duration = Duration::from_secs(10);
/// What a connection takes in before anybody reads it, in bytes.
const WINDOWS: u64 = 4 << 20;

/// What is published, and a server that has it.
struct Scene {
    published: Published,
    manifest: Manifest,
    server: Hostile,
}

impl Scene {
    fn new() -> Self {
        let mut published = Published::new();
        let program = noise(700_000, 5);
        let tree = [("bin/x", Content::Program(&program))];
        let manifest = published.release("acme/x", "1.0", &tree);
        let server = Hostile {
            files: Arc::new(published.repository.files()),
            manifests: Arc::new(published.manifests.clone()),
            chunks: Arc::new(published.chunks.clone()),
            way: Way::Honest,
            sent: Arc::default(),
        };
        Self {
            published,
            manifest,
            server,
        }
    }

    async fn source(&self, way: Way) -> NeighbourSource {
        let server = Hostile {
            way,
            ..self.server.clone()
        };
        self.server.sent.store(0, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, server.clone()));
            }
        });
        NeighbourSource::at(&address.to_string(), QUICK).unwrap()
    }

    async fn refreshed(&self, way: Way) -> Result<Image, NotRefreshed> {
        let source = self.source(way).await;
        let root = self.published.repository.root();
        let keys = publishers(&self.published.director(), &self.published.rules);
        let none = ImageFloors::default();
        refresh(&source, root, &none, keys, TEST_NOW).await.image
    }

    fn release(&self) -> Release {
        let (digest, bytes) = self.published.manifests.first_key_value().unwrap();
        Release {
            app: self.manifest.app.clone(),
            version: self.manifest.version.clone(),
            digest: *digest,
            length: bytes.len() as u64,
        }
    }

    fn wanted(&self) -> Vec<Chunk> {
        self.manifest.chunks().collect()
    }

    fn honest(&self) -> Vec<v1::AppsChunk> {
        let chunk = |(digest, content): (&Digest, &Vec<u8>)| v1::AppsChunk {
            sha256: digest.as_bytes().to_vec(),
            content: content.clone(),
        };
        self.published.chunks.iter().map(chunk).collect()
    }
}

fn timestamp(max_bytes: u64) -> Wanted {
    Wanted {
        name: "timestamp.json".to_owned(),
        max_bytes,
    }
}

async fn chunks_from(
    source: &dyn Source,
    wanted: &[Chunk],
) -> (Result<(), NotFetched>, Vec<(Digest, Vec<u8>)>) {
    let (take, mut taken) = mpsc::channel(MAX_CHUNKS_UNDER_WAY);
    let kept = async {
        let mut kept = Vec::new();
        while let Some(one) = taken.recv().await {
            kept.push(one);
        }
        kept
    };
    tokio::join!(source.chunks(wanted, take), kept)
}

/// In time, or the test fails.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work)
        .await
        .expect("it holds the node up")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_costs_what_it_may_be_long() {
    let scene = Scene::new();
    for size in [1, 100_000, 256 * 1024] {
        let source = scene.source(Way::Endless(size)).await;
        let answer = soon(source.metadata(&timestamp(16_384))).await;
        assert!(matches!(answer, Err(NotFetched::TooLong(_))), "{answer:?}");
        let sent = scene.server.sent.load(Ordering::Relaxed);
        assert!(sent <= 16_384 + WINDOWS, "{sent} bytes sent");
        let source = scene.source(Way::Endless(size)).await;
        let answer = soon(source.manifest(&scene.release())).await;
        assert!(matches!(answer, Err(NotFetched::TooLong(_))), "{answer:?}");
    }
    // Nothing, over and over.
    let source = scene.source(Way::Endless(0)).await;
    let answer = soon(source.metadata(&timestamp(16_384))).await;
    assert!(matches!(answer, Err(NotFetched::Refused(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_is_longer_than_any_may_be_is_not_taken_in() {
    let scene = Scene::new();
    let source = scene.source(Way::Long(3 << 20)).await;
    // Even where the file itself might be as long.
    let answer = soon(source.metadata(&timestamp(5 << 20))).await;
    assert!(matches!(answer, Err(NotFetched::Refused(_))), "{answer:?}");
    let content = vec![1; 3 << 20];
    let digest = Digest::of(&content);
    let long = v1::AppsChunk {
        sha256: digest.as_bytes().to_vec(),
        content,
    };
    let source = scene.source(Way::Chunks(vec![long])).await;
    let size = 3 << 20;
    let (answer, kept) = soon(chunks_from(&source, &[Chunk { digest, size }])).await;
    assert!(matches!(answer, Err(NotFetched::Refused(_))), "{answer:?}");
    assert!(kept.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_silent_or_gives_a_byte_now_and_then_is_left_in_time() {
    let scene = Scene::new();
    for way in [Way::Silent, Way::Drip(Duration::from_millis(100))] {
        let source = scene.source(way.clone()).await;
        let begun = Instant::now();
        let answer = soon(source.metadata(&timestamp(16_384))).await;
        assert!(matches!(answer, Err(NotFetched::Silent)), "{answer:?}");
        // And then not asked again at once: neither this nor anything else.
        let answer = soon(source.manifest(&scene.release())).await;
        assert!(matches!(answer, Err(NotFetched::Resting(_))), "{answer:?}");
        let (answer, _) = soon(chunks_from(&source, &scene.wanted())).await;
        assert!(matches!(answer, Err(NotFetched::Resting(_))), "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    let source = scene.source(Way::Silent).await;
    let (answer, _) = soon(chunks_from(&source, &scene.wanted())).await;
    assert!(matches!(answer, Err(NotFetched::Silent)), "{answer:?}");
    // Takes the connection up and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let source = NeighbourSource::at(&address, QUICK).unwrap();
    let answer = soon(source.metadata(&timestamp(16_384))).await;
    assert!(answer.is_err(), "{answer:?}");
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_nobody_asked_for_is_not_taken() {
    let scene = Scene::new();
    let (honest, wanted) = (scene.honest(), scene.wanted());
    let first = honest[0].clone();
    let with = |change: fn(&mut v1::AppsChunk)| {
        let mut chunk = first.clone();
        change(&mut chunk);
        vec![chunk]
    };
    let other = v1::AppsChunk {
        sha256: Digest::of(b"other").as_bytes().to_vec(),
        content: b"other".to_vec(),
    };
    let wrong = [
        ("another one", vec![other]),
        ("one twice", vec![first.clone(), first.clone()]),
        ("one that is longer", with(|chunk| chunk.content.push(1))),
        ("one that is torn", with(|chunk| chunk.content.truncate(9))),
        ("one of nothing", with(|chunk| chunk.content.clear())),
        (
            "a name that is torn",
            with(|chunk| chunk.sha256.truncate(31)),
        ),
        ("no name", with(|chunk| chunk.sha256.clear())),
    ];
    for (what, given) in wrong {
        let source = scene.source(Way::Chunks(given)).await;
        let (answer, kept) = soon(chunks_from(&source, &wanted)).await;
        assert!(
            matches!(answer, Err(NotFetched::Refused(_))),
            "{what}: {answer:?}"
        );
        assert!(kept.len() <= 1, "{what}");
    }
    // Less than was asked for is no lie; the rest is asked of others.
    let source = scene.source(Way::Chunks(honest[..1].to_vec())).await;
    let (answer, kept) = soon(chunks_from(&source, &wanted)).await;
    answer.unwrap();
    assert_eq!(kept.len(), 1);
    // Asked for twice, it comes once.
    let twice = [wanted.clone(), wanted.clone()].concat();
    let source = scene.source(Way::Honest).await;
    let (answer, kept) = soon(chunks_from(&source, &twice)).await;
    answer.unwrap();
    assert_eq!(kept.len(), wanted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn content_with_another_byte_under_the_right_name_is_kept_by_nobody() {
    use super::super::store::StoreError;
    use super::super::testing::Ground;
    let scene = Scene::new();
    let ground = Ground::new();
    let installer = ground.installer();
    installer.want(&[&scene.manifest]).unwrap();
    let mut lies = scene.honest();
    for lie in &mut lies {
        let middle = lie.content.len() / 2;
        lie.content[middle] ^= 1;
    }
    let source = scene.source(Way::Chunks(lies)).await;
    let (_, given) = soon(chunks_from(&source, &scene.wanted())).await;
    assert_eq!(given.len(), scene.wanted().len());
    for (digest, bytes) in given {
        let put = installer.put(digest, &bytes);
        assert!(matches!(put, Err(StoreError::Other(_))));
    }
    let missing = installer.missing(&scene.manifest).unwrap();
    assert_eq!(missing.len(), scene.wanted().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_torn_anywhere_is_refused() {
    let scene = Scene::new();
    for share in (0..1000).step_by(37) {
        let refused = soon(scene.refreshed(Way::Torn(share))).await;
        assert!(refused.is_err(), "{share} of a thousand");
        let source = scene.source(Way::Torn(share)).await;
        let torn = soon(source.manifest(&scene.release())).await;
        let same = matches!(&torn, Ok(Some(bytes)) if Digest::of(bytes) == scene.release().digest);
        assert!(!same, "{share} of a thousand");
    }
    // One file at a time: all but the last byte of it.
    for (name, bytes) in scene.server.files.iter() {
        let torn = bytes[..bytes.len() - 1].to_vec();
        let instead = Way::Instead(BTreeMap::from([(name.clone(), torn)]));
        let outcome = soon(scene.refreshed(instead)).await;
        assert!(
            !takes_all(&scene, &outcome) || name.ends_with("root.json"),
            "{name}"
        );
    }
    soon(scene.refreshed(Way::Honest)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_another_is_refused() {
    let scene = Scene::new();
    let files = scene.server.files.clone();
    let mut tried = 0;
    for name in files.keys().filter(|name| !name.ends_with("root.json")) {
        for (other, bytes) in files.iter().filter(|(other, _)| *other != name) {
            let instead = Way::Instead(BTreeMap::from([(name.clone(), bytes.clone())]));
            let outcome = soon(scene.refreshed(instead)).await;
            assert!(
                !takes_all(&scene, &outcome),
                "{other} in the place of {name}"
            );
            tried += 1;
        }
    }
    assert!(tried >= 12, "{tried}");
    // A root that follows, and is none.
    for bytes in files.values() {
        let next = Way::Instead(BTreeMap::from([("2.root.json".to_owned(), bytes.clone())]));
        let outcome = soon(scene.refreshed(next)).await;
        assert!(
            !takes_all(&scene, &outcome),
            "another file as the next root"
        );
    }
}

/// Whether the release could be agreed upon after this.
fn takes_all(scene: &Scene, outcome: &Result<Image, NotRefreshed>) -> bool {
    let director = scene.published.director();
    outcome.as_ref().is_ok_and(|image| {
        let agreed = director.agree(image, &scene.manifest.app, TEST_NOW);
        agreed.is_ok()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = elsewhere.local_addr().unwrap();
    let followed = Arc::new(AtomicUsize::new(0));
    let counts = followed.clone();
    tokio::spawn(async move {
        while elsewhere.accept().await.is_ok() {
            counts.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let status = match request.uri().path().ends_with("Metadata") {
                        true => 307,
                        false => 302,
                    };
                    let answer = http::Response::builder()
                        .status(status)
                        .header(
                            "location",
                            format!("http://{there}{}", request.uri().path()),
                        )
                        .body(tonic::body::Body::empty());
                    async { answer }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                drop(
                    connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    });
    let scene = Scene::new();
    let fresh = || NeighbourSource::at(&address.to_string(), QUICK).unwrap();
    let answer = soon(fresh().metadata(&timestamp(16_384))).await;
    assert!(answer.is_err(), "{answer:?}");
    let answer = soon(fresh().manifest(&scene.release())).await;
    assert!(answer.is_err(), "{answer:?}");
    let (answer, kept) = soon(chunks_from(&fresh(), &scene.wanted())).await;
    assert!(answer.is_err() && kept.is_empty(), "{answer:?}");
    assert_eq!(followed.load(Ordering::Relaxed), 0);
}
