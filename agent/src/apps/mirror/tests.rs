use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use edgeward_apps::ImageFloors;
use edgeward_apps::admit::publishers;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::Chunk;
use edgeward_apps::testing::{Content, Published, noise};
use edgeward_apps::{AppPath, Release};
use edgeward_identity::testing::TEST_NOW;

use edgeward_identity::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::super::fetch::{NeighbourSource, NotFetched, Source, refresh};
use super::super::store::StoreError;
use super::super::testing::{Ground, WORDS, install};
use super::*;

const APP: &str = "acme/collector";

/// The publisher's files, in the place of the cloud.
struct Memory {
    published: Arc<Published>,
    /// Signed once: no two signatures are the same.
    metadata: BTreeMap<String, Vec<u8>>,
    lies: AtomicBool,
}

#[async_trait::async_trait]
impl Source for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        let mut bytes = self.metadata.get(&wanted.name).cloned();
        if let Some(last) = bytes.as_mut().and_then(|bytes| bytes.last_mut())
            && self.lies.load(Ordering::Relaxed)
        {
            *last = b'x';
        }
        Ok(bytes)
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        Ok(self.published.manifests.get(&release.digest).cloned())
    }

    async fn chunks(
        &self,
        _: &[Chunk],
        _: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        Ok(())
    }
}

struct Scene {
    published: Arc<Published>,
    /// A port of the loopback, which stands for the tunnel's device.
    port: u16,
    near: Ground,
    far: Ground,
    mirror: Arc<Installer>,
    memory: Arc<Memory>,
    remembering: Remembering,
    token: CancellationToken,
}

impl Scene {
    async fn new() -> Self {
        Self::within(BOUNDS).await
    }

    async fn within(bounds: Bounds) -> Self {
        let near = Ground::new();
        let mirror = Arc::new(near.installer());
        let mut published = Published::new();
        let program = noise(900_000, 31);
        published.release(APP, "1.0", &[("bin/collector", Content::Program(&program))]);
        install(&mirror, &mut published, APP);
        let published = Arc::new(published);
        let remembered = Arc::new(Remembered::open(&near.state().join("metadata")).unwrap());
        let memory = Arc::new(Memory {
            published: published.clone(),
            metadata: published.repository.files(),
            lies: AtomicBool::new(false),
        });
        let listener = listen("lo", 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let token = CancellationToken::new();
        let service = Mirror::new(
            mirror.clone(),
            remembered.clone(),
            Arc::new(SystemClock),
            bounds,
        );
        let ended = token.clone();
        tokio::spawn(service.serve_on(listener, ended));
        Self {
            published,
            port,
            near,
            far: Ground::new(),
            mirror,
            remembering: Remembering::new(memory.clone(), remembered),
            memory,
            token,
        }
    }

    fn neighbour(&self) -> NeighbourSource {
        NeighbourSource::new(&format!("127.0.0.1:{}", self.port)).unwrap()
    }

    async fn refresh(&self, source: &dyn Source) -> Option<edgeward_apps::Image> {
        let root = &self.published.repository.roots[&1];
        let director = self.published.director();
        let publishers = publishers(&director, &self.published.rules);
        let none = ImageFloors::default();
        let refreshed = refresh(source, root, &none, publishers, TEST_NOW).await;
        refreshed.image.ok()
    }
}

async fn fetch_from(source: &dyn Source, wanted: &[Chunk]) -> Vec<(Digest, Vec<u8>)> {
    let (take, mut taken) = mpsc::channel(2);
    let collected = async {
        let mut all = Vec::new();
        while let Some(one) = taken.recv().await {
            all.push(one);
        }
        all
    };
    let (done, all) = tokio::join!(source.chunks(wanted, take), collected);
    done.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_installs_from_its_neighbour_what_the_cloud_never_sent_it() {
    let scene = Scene::new().await;
    let neighbour = scene.neighbour();
    assert!(
        scene.refresh(&neighbour).await.is_none(),
        "it has no metadata yet"
    );
    scene.refresh(&scene.remembering).await.unwrap();
    let image = scene
        .refresh(&neighbour)
        .await
        .expect("the same, from nearby");
    let (director, app) = (scene.published.director(), APP.parse().unwrap());
    let agreed = director.agree(&image, &app, TEST_NOW).unwrap();
    let bytes = neighbour.manifest(agreed.release()).await.unwrap().unwrap();
    let (rules, floors) = (&scene.published.rules, Default::default());
    let release =
        edgeward_apps::admit(&agreed, &bytes, &director, rules, &floors, TEST_NOW).unwrap();

    let node = scene.far.installer();
    node.want(&[release.manifest()]).unwrap();
    let missing = node.missing(release.manifest()).unwrap();
    assert!(missing.len() > 3);
    for (digest, bytes) in fetch_from(&neighbour, &missing).await {
        node.put(digest, &bytes).unwrap();
    }
    assert_eq!(node.missing(release.manifest()).unwrap(), []);
    let staged = node.stage(&release, &bytes).unwrap();
    node.activate(&staged, WORDS, TEST_NOW).unwrap();
    node.check(&node.installed()[0]).unwrap();
    scene.token.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_gives_nothing_that_it_does_not_have_and_none_of_its_files() {
    let scene = Scene::new().await;
    scene.refresh(&scene.remembering).await.unwrap();
    let neighbour = scene.neighbour();
    for name in [
        "../releases",
        "../chunks",
        "/etc/passwd",
        "1.root.json/../timestamp.json",
        "",
    ] {
        let wanted = Wanted {
            name: name.to_owned(),
            max_bytes: 1 << 20,
        };
        assert!(
            neighbour.metadata(&wanted).await.unwrap().is_none(),
            "{name}"
        );
    }
    let other = Release {
        app: APP.parse().unwrap(),
        version: "1.0".parse().unwrap(),
        digest: Digest::of(b"other"),
        length: 100,
    };
    assert!(neighbour.manifest(&other).await.unwrap().is_none());
    let installed = scene.mirror.installed().remove(0);
    let manifest = scene.mirror.manifest(&installed.digest).unwrap();
    let mut wanted: Vec<Chunk> = manifest.chunks().collect();
    let held = wanted.len();
    wanted.insert(
        0,
        Chunk {
            digest: Digest::of(b"absent"),
            size: 6,
        },
    );
    let given = fetch_from(&neighbour, &wanted).await;
    assert_eq!(given.len(), held, "what is absent is left out");

    // What somebody changed on its disk is left out, too, and what was removed.
    let path: AppPath = "bin/collector".parse().unwrap();
    let file = installed.tree.join(path.as_str());
    let mut content = std::fs::read(&file).unwrap();
    content[10] ^= 1;
    let open = std::fs::File::open(&file).unwrap();
    super::super::folder::unlock(&open).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, mode).unwrap();
    std::fs::write(&file, content).unwrap();
    assert_eq!(fetch_from(&neighbour, &wanted).await.len(), held - 1);
    scene.mirror.remove(&installed).unwrap();
    assert_eq!(fetch_from(&neighbour, &wanted).await.len(), 0);
    assert!(scene.near.volume().join(".staging").exists());
    scene.token.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_lies_makes_nobody_believe_it() {
    let scene = Scene::new().await;
    scene.memory.lies.store(true, Ordering::Relaxed);
    assert!(scene.refresh(&scene.remembering).await.is_none());
    assert!(
        scene.refresh(&scene.neighbour()).await.is_none(),
        "a lie that was passed on"
    );
    scene.memory.lies.store(false, Ordering::Relaxed);
    scene.refresh(&scene.remembering).await.unwrap();
    scene
        .refresh(&scene.neighbour())
        .await
        .expect("the truth takes its place");

    let installed = scene.mirror.installed().remove(0);
    let manifest = scene.mirror.manifest(&installed.digest).unwrap();
    let node = scene.far.installer();
    node.want(&[&manifest]).unwrap();
    let given = fetch_from(&scene.neighbour(), &manifest.chunks().collect::<Vec<_>>()).await;
    for (digest, mut bytes) in given {
        bytes[0] ^= 1;
        assert!(matches!(
            node.put(digest, &bytes),
            Err(StoreError::Other(_))
        ));
    }
    assert_eq!(
        node.missing(&manifest).unwrap().len(),
        manifest.chunks().count()
    );
    // Nobody there, or nobody who speaks: the next source is asked.
    scene.token.cancel();
    let nobody = NeighbourSource::new("127.0.0.1:1").unwrap();
    assert!(scene.refresh(&nobody).await.is_none());
    assert!(NeighbourSource::new("not an address").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_has_few_connections_and_leaves_room_for_others() {
    let scene = Scene::new().await;
    scene.refresh(&scene.remembering).await.unwrap();
    let connect = async || {
        let connected = TcpStream::connect(("127.0.0.1", scene.port)).await;
        let mut stream = connected.unwrap();
        stream.write_all(b"P").await.unwrap();
        stream
    };
    scene.refresh(&scene.neighbour()).await.expect("it serves");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut held = Vec::new();
    for _ in 0..MAX_FROM_ONE {
        held.push(connect().await);
    }
    // The mirror has taken them all up before the next one comes: they are accepted in order.
    let mut refused = connect().await;
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(5), refused.read(&mut byte)).await;
    assert!(
        matches!(read.expect("it is closed"), Ok(0) | Err(_)),
        "one connection more than one address may have"
    );
    assert!(scene.refresh(&scene.neighbour()).await.is_none());
    drop(held);
    for _ in 0..50 {
        if scene.refresh(&scene.neighbour()).await.is_some() {
            scene.token.cancel();
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("places are not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_asks_without_end_gets_what_its_share_gives() {
    let share = Bounds {
        bytes_per_second: 100_000,
        ..BOUNDS
    };
    let scene = Scene::within(share).await;
    let installed = scene.mirror.installed().remove(0);
    let manifest = scene.mirror.manifest(&installed.digest).unwrap();
    let wanted: Vec<Chunk> = manifest.chunks().collect();
    let bytes: u64 = wanted.iter().map(|chunk| u64::from(chunk.size)).sum();
    let begun = std::time::Instant::now();
    for _ in 0..2 {
        let given = fetch_from(&scene.neighbour(), &wanted).await;
        assert_eq!(given.len(), wanted.len());
    }
    let beyond = (2 * bytes).saturating_sub(share.bytes_per_second * 10);
    let least = Duration::from_secs_f64(beyond as f64 / share.bytes_per_second as f64);
    assert!(
        least > Duration::from_secs(5),
        "the test asks for too little"
    );
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    scene.token.cancel();
}
