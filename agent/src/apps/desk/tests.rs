use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use edgeward_apps::director::Wish;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::Chunk;
use edgeward_apps::testing::{Content, Published, noise};
use edgeward_apps::{ImageFloors, Release};
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use parking_lot::Mutex;

use super::super::fetch::NotFetched;
use super::super::floors::{AppsOrder, Taken};
use super::super::testing::{Ground, slice};
use super::*;
use crate::boot::Boot;
use crate::enforce::RecordRefused;
use crate::view::{self, Held, HeldSlice, Order, Publisher};

mod acting;
mod attacks;

const APP: &str = "acme/collector";
const LIMIT: Duration = Duration::from_secs(20);

/// Everything that happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

struct Notes {
    log: Log,
    refuses: AtomicBool,
}

#[async_trait]
impl Recorder for Notes {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(RecordRefused("full".to_owned()));
        }
        self.record_after(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        let code = event
            .code
            .map(|code| format!(" {code}"))
            .unwrap_or_default();
        self.log.lock().push(format!("record {}{code}", event.kind));
    }
}

/// The guard, the runs and the measurements.
struct Machine {
    log: Log,
    volume: PathBuf,
    guard_away: AtomicBool,
    /// By what is known of it: nothing runs here in truth.
    stages: Mutex<BTreeMap<AppName, State>>,
    news: tokio::sync::Notify,
}

impl Machine {
    fn stage(&self, stages: &[(&str, State)]) {
        let stages = stages.iter().map(|(app, at)| (app.parse().unwrap(), *at));
        *self.stages.lock() = stages.collect();
        self.news.notify_one();
    }

    fn guard(&self, away: bool) {
        self.guard_away.store(away, Ordering::Relaxed);
        self.news.notify_one();
    }
}

#[async_trait]
impl Operations for Machine {
    async fn book(&self, _mode: Mode, releases: &[Arc<Manifest>]) -> Result<(), String> {
        if self.guard_away.load(Ordering::Relaxed) {
            return Err("away".to_owned());
        }
        let names: Vec<String> = releases
            .iter()
            .map(|manifest| manifest.version.to_string())
            .collect();
        let used = match self.volume.join(APP).join("current").exists() {
            true => "used",
            false => "unused",
        };
        self.log
            .lock()
            .push(format!("book {} {used}", names.join("+")));
        Ok(())
    }

    async fn want(&self, wanted: BTreeMap<AppName, ToRun>) {
        let names: Vec<String> = wanted
            .values()
            .map(|to_run| format!("{}@{}", to_run.manifest.version, to_run.uid))
            .collect();
        let line = format!("want {}", names.join("+"));
        let mut log = self.log.lock();
        // Said at every turn: only what is new tells something.
        if log.iter().rev().find(|said| said.starts_with("want")) != Some(&line) {
            log.push(line);
        }
    }

    async fn end(&self, app: &AppName, why: &'static str) -> Result<(), String> {
        self.log.lock().push(format!("end {app} {why}"));
        Ok(())
    }

    async fn measure(&self, happened: Happened, manifest: &Manifest, _digest: Digest) {
        let line = format!("measure {happened:?} {}", manifest.version);
        self.log.lock().push(line);
    }

    fn stages(&self) -> BTreeMap<AppName, State> {
        self.stages.lock().clone()
    }

    fn ending(&self) -> Option<BTreeSet<AppName>> {
        let stages = self.stages.lock();
        let ending = stages.iter().filter(|(_, at)| **at == State::Stopped);
        let ending = ending.map(|(app, _)| app.clone()).collect();
        (!self.guard_away.load(Ordering::Relaxed)).then_some(ending)
    }

    fn control(&self) -> String {
        "fanotify".to_owned()
    }

    async fn changed(&self) {
        self.news.notified().await;
    }
}

/// A place with files in it, which may be changed or lacking.
#[derive(Default)]
struct Shelf {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    manifests: Mutex<BTreeMap<Digest, Vec<u8>>>,
    chunks: Mutex<BTreeMap<Digest, Vec<u8>>>,
    given: Mutex<u64>,
    /// After how many chunks the line breaks.
    tears_after: Mutex<Option<usize>>,
}

impl Shelf {
    fn fill(&self, published: &Published) {
        *self.files.lock() = published.repository.files();
        *self.manifests.lock() = published.manifests.clone();
        *self.chunks.lock() = published.chunks.clone();
    }
}

#[async_trait]
impl Source for Shelf {
    fn name(&self) -> String {
        "shelf".to_owned()
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        Ok(self.files.lock().get(&wanted.name).cloned())
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        Ok(self.manifests.lock().get(&release.digest).cloned())
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        for (at, chunk) in wanted.iter().enumerate() {
            if self.tears_after.lock().is_some_and(|most| at >= most) {
                return Err(NotFetched::Silent);
            }
            let bytes = self.chunks.lock().get(&chunk.digest).cloned();
            if let Some(bytes) = bytes {
                *self.given.lock() += bytes.len() as u64;
                let taken = take.send((chunk.digest, bytes)).await;
                taken.map_err(|_| NotFetched::Over)?;
            }
        }
        Ok(())
    }
}

/// A node with a desk.
struct World {
    published: Published,
    director: watch::Sender<Option<Arc<Director>>>,
    slice: watch::Sender<Option<Arc<HeldSlice>>>,
    standing: watch::Sender<Standing>,
    ground: Ground,
    log: Log,
    notes: Arc<Notes>,
    machine: Arc<Machine>,
    shelf: Arc<Shelf>,
    clock: Arc<TurnedClock>,
    /// As the state file has it.
    stored: Arc<Mutex<Taken>>,
    stores: Arc<AtomicBool>,
    view: NodeView,
    orders: Orders,
    policy: u64,
    ends: Option<CancellationToken>,
}

impl World {
    fn new() -> Self {
        let clock = TurnedClock::at(TEST_NOW);
        let authority = TestAuthority::new("plant.example");
        let initial = view::testing::initial(&authority, "node/gw-3", &[]);
        let boot = Arc::new(Boot::new("kernel", None).unwrap());
        let (publisher, view) = view::channel(clock.clone(), boot, initial);
        let Publisher {
            director,
            slice,
            standing,
            orders: wishes,
            ..
        } = publisher;
        let log = Log::default();
        let (stored, stores) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        tokio::spawn(write_state(
            wishes,
            log.clone(),
            Arc::clone(&stored),
            Arc::clone(&stores),
        ));
        let ground = Ground::new();
        let (asks, _nobody) = orders();
        Self {
            published: Published::new(),
            director,
            slice,
            standing,
            notes: Arc::new(Notes {
                log: log.clone(),
                refuses: AtomicBool::new(false),
            }),
            machine: Arc::new(Machine {
                log: log.clone(),
                volume: ground.volume().to_owned(),
                guard_away: AtomicBool::new(false),
                stages: Mutex::default(),
                news: tokio::sync::Notify::new(),
            }),
            log,
            ground,
            shelf: Arc::default(),
            clock,
            stored,
            stores,
            view,
            orders: asks,
            policy: 0,
            ends: None,
        }
    }

    fn release(&mut self, version: &str, seed: u64) {
        let (program, library) = (noise(400_000, seed), noise(150_000, 9));
        let tree = [
            ("bin/collector", Content::Program(&program)),
            ("lib/libx.so.1", Content::Data(&library)),
            ("lib/libx.so", Content::Link("libx.so.1")),
        ];
        self.published.release(APP, version, &tree);
    }

    /// A new word of the director, with what the repository has by now.
    fn say(&mut self) {
        self.published.number += 1;
        self.shelf.fill(&self.published);
        self.speak();
    }

    fn speak(&self) {
        let word = Arc::new(self.published.director());
        self.director.send_replace(Some(word));
    }

    fn rule(&mut self) {
        self.policy += 1;
        let slice = slice(self.policy, self.published.rules.clone());
        self.slice.send_replace(Some(slice));
    }

    /// Begins the desk, as a start of the agent does.
    async fn begin(&mut self) {
        self.stop().await;
        let (asks, arriving) = orders();
        self.orders = asks;
        let taken = self.stored.lock().clone();
        let setup = Setup {
            view: self.view.clone(),
            recorder: self.notes.clone(),
            floors: Floors::new(self.view.ledger.clone(), taken),
            installer: Arc::new(self.ground.installer()),
            operations: self.machine.clone(),
            sources: vec![self.shelf.clone()],
            first_root: Some(self.published.repository.root().to_vec()),
            uids: 61_184..=61_200,
            orders: arriving,
        };
        let token = CancellationToken::new();
        self.ends = Some(token.clone());
        tokio::spawn(Desk::new(setup).run(token));
    }

    async fn stop(&mut self) {
        if let Some(token) = self.ends.take() {
            token.cancel();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a line was logged.
    async fn until(&self, line: &str) {
        let wait = async {
            while !self.log.lock().iter().any(|said| said == line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        assert!(waited.is_ok(), "no {line:?} in {:#?}", self.log.lock());
    }

    /// Waits until an app is reported with this code.
    async fn refused(&self, code: &str) -> AppReport {
        let mut report = self.view.apps.subscribe();
        let app: AppName = APP.parse().unwrap();
        let wait =
            report.wait_for(|report| report.apps.get(&app).is_some_and(|app| app.code == code));
        let waited = tokio::time::timeout(LIMIT, wait).await;
        match waited {
            Ok(Ok(report)) => report.apps[&app].clone(),
            _ => panic!("not {code:?}: {:#?}", self.view.apps.borrow().apps),
        }
    }

    fn count(&self, line: &str) -> usize {
        self.log.lock().iter().filter(|said| *said == line).count()
    }

    fn current(&self) -> Option<String> {
        let installed = self.ground.installer().installed();
        let current = installed.into_iter().find(|one| one.current);
        current.map(|one| one.version.to_string())
    }

    /// With 1.0 in use.
    async fn installed() -> Self {
        let mut world = Self::new();
        world.release("1.0", 1);
        world.rule();
        world.say();
        world.begin().await;
        world.until("want 1.0@61184").await;
        world
    }
}

async fn write_state(
    mut orders: view::Orders,
    log: Log,
    stored: Arc<Mutex<Taken>>,
    stores: Arc<AtomicBool>,
) {
    loop {
        match orders.next().await {
            Order::Apps(AppsOrder::Keep { taken, epoch, done }) => {
                let fine = stores.load(Ordering::Relaxed);
                if fine {
                    *stored.lock() = *taken;
                }
                if epoch {
                    log.lock().push("epoch".to_owned());
                }
                let _ = done.send(fine);
            }
            Order::Apps(AppsOrder::Word { done, .. } | AppsOrder::Settle { done }) => {
                let _ = done.send(true);
            }
            Order::Glass(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_recorded_remembered_and_known_to_the_guard_before_it_comes_into_use() {
    let world = World::installed().await;
    let log = world.log.lock().clone();
    let at = |line: &str| {
        let found = log.iter().position(|said| said == line);
        found.unwrap_or_else(|| panic!("no {line:?} in {log:#?}"))
    };
    let order = [
        at("record app.installing"),
        at("epoch"),
        at("book 1.0 unused"),
        at("record app.installed"),
        at("measure Installed 1.0"),
        at("want 1.0@61184"),
    ];
    assert!(order.is_sorted(), "{log:#?}");
    let stored = world.stored.lock().clone();
    let app: AppName = APP.parse().unwrap();
    assert_eq!(stored.apps.apps[&app].highest.to_string(), "1.0");
    assert_eq!(stored.image.roles["acme"].version, 1);
    assert_eq!(stored.uids[&app], 61_184);
    assert_eq!(world.current().as_deref(), Some("1.0"));
    let report = world.view.apps.borrow().clone();
    assert_eq!(report.apps[&app].code, "");
    assert_eq!(report.control, "fanotify");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_remembered_or_guarded_is_not_used() {
    for (code, breaks) in [("journal", 0), ("state-unwritable", 1), ("guard-away", 2)] {
        let mut world = World::new();
        match breaks {
            0 => world.notes.refuses.store(true, Ordering::Relaxed),
            1 => world.stores.store(false, Ordering::Relaxed),
            _ => world.machine.guard_away.store(true, Ordering::Relaxed),
        }
        world.release("1.0", 1);
        world.rule();
        world.say();
        world.begin().await;
        world.refused(code).await;
        assert_eq!(world.current(), None, "{code}");
        assert_eq!(world.count("record app.installed"), 0, "{code}");
        // And once it can be, it is.
        world.notes.refuses.store(false, Ordering::Relaxed);
        world.stores.store(true, Ordering::Relaxed);
        world.machine.guard_away.store(false, Ordering::Relaxed);
        world.speak();
        world.until("want 1.0@61184").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_app_ends_before_the_book_the_disk_and_the_log_hear_of_it() {
    let mut world = World::installed().await;
    world.log.lock().clear();
    let app: AppName = APP.parse().unwrap();
    let digest = world.published.orders.apps[&app].digest;
    world.published.orders.denied.insert(digest);
    world.published.orders.apps.clear();
    world.say();
    world.until("record app.removed app-denied").await;
    let mut log = world.log.lock().clone();
    log.retain(|said| !said.starts_with("want"));
    let expected = [
        "end acme/collector app-denied",
        "book  used",
        "record app.revoked app-denied",
        "measure Revoked 1.0",
        "record app.removed app-denied",
    ];
    assert_eq!(log[..expected.len()], expected, "{log:#?}");
    assert_eq!(world.current(), None);
    assert!(world.stored.lock().admitted.is_empty());
    // Assigned again it stays away: the word that assigns it denies it.
    world.published.publish(&world.published_manifest());
    world.say();
    world.refused("app-denied").await;
    assert_eq!(world.current(), None);
}

impl World {
    fn published_manifest(&self) -> Manifest {
        let bytes = self.published.manifests.values().next().unwrap();
        Manifest::parse(bytes).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_ends_with_the_words_that_it_rests_on_and_is_not_removed_for_that() {
    let world = World::installed().await;
    world.clock.turn(Duration::from_secs(86_400));
    world.director.send_modify(|_| {});
    world.until("want ").await;
    assert_eq!(world.current().as_deref(), Some("1.0"));
    world.refused("director-expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_fetches_what_is_new_and_keeps_the_release_before() {
    let mut world = World::installed().await;
    let first = *world.shelf.given.lock();
    world.release("2.0", 2);
    world.say();
    world.until("want 2.0@61184").await;
    let second = *world.shelf.given.lock() - first;
    assert!(
        second < first,
        "the library is here: {second} of {first} bytes"
    );
    let kept = world.ground.installer().installed();
    assert_eq!(kept.len(), 2);
    let app: AppName = APP.parse().unwrap();
    assert_eq!(world.stored.lock().admitted[&app].len(), 2);
    // Back by order, at once: nothing is fetched.
    let given = *world.shelf.given.lock();
    let old = kept.iter().find(|one| !one.current).unwrap().digest;
    let assigned = world.published.orders.apps.get_mut(&app).unwrap();
    assigned.version = "1.0".parse().unwrap();
    assigned.digest = old;
    assigned.length = world.published.manifests[&old].len() as u64;
    world.say();
    world.refused("app-rollback").await;
    assert_eq!(world.current().as_deref(), Some("2.0"));
    let assigned = world.published.orders.apps.get_mut(&app).unwrap();
    assigned.back = true;
    world.log.lock().clear();
    world.say();
    world.until("want 1.0@61184").await;
    assert_eq!(*world.shelf.given.lock(), given);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_installed_runs_again_after_a_restart_without_any_source() {
    let mut world = World::installed().await;
    *world.shelf.files.lock() = BTreeMap::new();
    world.stop().await;
    world.log.lock().clear();
    world.begin().await;
    world.until("want 1.0@61184").await;
    assert_eq!(world.count("record app.installing"), 0);
    // Held: the state was put back, say. Nothing runs, nothing is taken away.
    world
        .standing
        .send_replace(Standing::Held(Held::StateRolledBack));
    world.until("want ").await;
    world.refused("agent-held").await;
    assert_eq!(world.current().as_deref(), Some("1.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_to_be_installed_is_not_started() {
    let mut world = World::new();
    world.release("1.0", 1);
    let app: AppName = APP.parse().unwrap();
    world.published.orders.apps.get_mut(&app).unwrap().state = Wish::Installed;
    world.rule();
    world.say();
    world.begin().await;
    world.until("record app.installed").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.count("want 1.0@61184"), 0);
    assert_eq!(world.current().as_deref(), Some("1.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_download_goes_on_where_it_was() {
    let mut world = World::new();
    world.release("1.0", 1);
    world.rule();
    *world.shelf.tears_after.lock() = Some(1);
    world.say();
    world.begin().await;
    world.refused("apps-unreachable").await;
    let torn = *world.shelf.given.lock();
    assert!(torn > 0);
    *world.shelf.tears_after.lock() = None;
    world.speak();
    world.until("want 1.0@61184").await;
    let whole: u64 = world
        .published
        .chunks
        .values()
        .map(|chunk| chunk.len() as u64)
        .sum();
    assert_eq!(*world.shelf.given.lock(), whole, "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_rules_let_run_what_is_proven_and_tell_it() {
    let mut world = World::new();
    world.published.rules.allow.clear();
    world.published.rules.mode = Mode::Observe;
    world.release("1.0", 1);
    world.rule();
    world.say();
    world.begin().await;
    world.until("want 1.0@61184").await;
    world.until("record app.would_deny app-not-allowed").await;
    assert_eq!(world.count("record app.would_deny app-not-allowed"), 1);
    world.published.rules.mode = Mode::Enforce;
    world.rule();
    world.until("record app.removed app-not-allowed").await;
    assert_eq!(world.current(), None);
}

/// The TPM's counter wears out; and nothing comes into use that it does not cover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_that_follow_each_other_all_the_time_wait_and_a_revocation_does_not() {
    let mut world = World::installed().await;
    for minor in 1..8 {
        let version = format!("1.{minor}");
        world.release(&version, 2);
        world.say();
        world.until(&format!("want {version}@61184")).await;
    }
    world.release("1.8", 2);
    world.say();
    let told = world.refused("apps-paced").await;
    assert_eq!(told.version, Some("1.7".parse().unwrap()));
    assert_eq!(world.current().as_deref(), Some("1.7"));
    world.clock.turn(Duration::from_secs(60));
    world.speak();
    world.until("want 1.8@61184").await;

    world.release("1.9", 2);
    world.say();
    world.refused("apps-paced").await;
    let app: AppName = APP.parse().unwrap();
    let current = world.ground.installer().installed();
    let current = current.iter().find(|one| one.current).unwrap().digest;
    world.published.orders.denied.insert(current);
    world.published.number += 1;
    world.speak();
    world.until(&format!("end {app} app-denied")).await;
}
