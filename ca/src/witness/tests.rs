use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::cosignature::WitnessKey;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::note::Note;
use edgeward_audit::query::Filter;
use edgeward_audit::record::BootId;
use edgeward_audit::witness::NotCosigned;
use edgeward_identity::testing::TurnedClock;
use edgeward_identity::{Kind, SpiffeId, SystemClock, TrustDomain};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::Integrator;
use crate::config::witness::{Asked, WitnessedLog};
use crate::dial::Endpoint;
use crate::store::testing::TestStore;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(30);
/// As the documents say it.
const SILENCE: Duration = Duration::from_secs(3600);

/// A cloud with nothing but its log, in a folder of its own.
struct Cloud {
    parts: Parts,
    folder: Arc<tempfile::TempDir>,
    store: TestStore,
    stop: CancellationToken,
}

impl Cloud {
    async fn new(name: &str) -> Self {
        Self::with(name, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// With the keys of this folder, and an empty database.
    async fn with(name: &str, folder: Arc<tempfile::TempDir>) -> Self {
        Self::by_clock(name, folder, Arc::new(SystemClock)).await
    }

    async fn by_clock(name: &str, folder: Arc<tempfile::TempDir>, clock: Arc<dyn Clock>) -> Self {
        let domain = TrustDomain::new(name).unwrap();
        let keys = match CloudKeys::exist(folder.path()).unwrap() {
            true => CloudKeys::open(folder.path(), &domain, clock.now()),
            false => CloudKeys::create(folder.path(), &domain, clock.now(), |_| Ok(())),
        };
        let store = TestStore::sqlite().await;
        let keeper = SpiffeId::new(&domain, Kind::Cloud, "c").unwrap();
        let boot = BootId::from_bytes([7; 16]);
        let opened = AuditLog::open((*store).clone(), keeper, boot, clock.now()).await;
        let (audit, writer) = opened.unwrap();
        let parts = Parts {
            store: (*store).clone(),
            audit: Arc::new(audit),
            clock,
            keys: Arc::new(keys.unwrap()),
            config: Witness::default(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        let tree = Integrator::new(
            parts.audit.clone(),
            parts.store.clone(),
            parts.keys.clone(),
            folder.path().to_owned(),
            parts.clock.clone(),
        );
        tokio::spawn(tree.run(stop.clone()));
        let cloud = Self {
            parts,
            folder,
            store,
            stop,
        };
        cloud.write(3).await;
        cloud
    }

    async fn write(&self, count: usize) {
        for _ in 0..count {
            let event = Event::new(
                self.parts.clock.now(),
                Actor::Cloud,
                EventKind::NodeApproved,
            );
            self.parts.audit.record(event).await.unwrap();
        }
    }

    /// As a witness of `log`.
    async fn witness_of(mut self, log: &Self) -> Arc<Witnessing> {
        let key = log.parts.keys.checkpoint_verifier().clone();
        let witnessed = WitnessedLog {
            keys: vec![key.clone()],
            per_minute: 6000,
        };
        let origin = key.name().to_owned();
        self.parts.config.logs.insert(origin, witnessed);
        let witnessing = Witnessing::open(&self.parts).await.unwrap();
        let server = witnessing.server.as_ref().unwrap();
        eventually("its own log is published", async || {
            server.forgetful().is_none().then_some(())
        })
        .await;
        // Its database lives as long as the test does.
        std::mem::forget(self);
        witnessing
    }

    /// Begins to ask this witness.
    async fn ask(&mut self, key: &WitnessKey, port: u16) -> Arc<Witnessing> {
        self.parts.config.every = Duration::from_millis(100);
        self.parts.config.ask = vec![Asked {
            key: key.clone(),
            endpoint: Endpoint::read(&format!("127.0.0.1:{port}"), None, None).unwrap(),
            path: "/add-checkpoint".to_owned(),
            cloud: None,
        }];
        let witnessing = Witnessing::open(&self.parts).await.unwrap();
        let (asking, stop) = (witnessing.clone(), self.stop.clone());
        tokio::spawn(async move { asking.asking.run(stop).await });
        witnessing
    }

    async fn recorded(&self, kind: EventKind) -> Vec<Event> {
        self.parts.audit.flush().await;
        let found = self.store.events(&Filter::default(), None, 1000).await;
        let events = found.unwrap().0.into_iter().map(|stored| stored.event);
        events.filter(|event| event.kind == kind).collect()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves a witness; what `answer` makes of its lines is sent.
async fn serve(witness: Arc<Witnessing>, listener: TcpListener, spoil: bool) {
    let handler = move |State(witness): State<Arc<Witnessing>>, body: String| async move {
        let server = witness.server.as_ref().unwrap();
        match server.add(HERE, body.as_bytes()).await {
            // The time is not the one that was signed.
            Ok(line) if spoil => (StatusCode::OK, line.replacen("AAAAB", "AAAAC", 1)),
            Ok(line) => (StatusCode::OK, line),
            Err(NotAdded::NotCosigned(NotCosigned::OtherSize(size))) => {
                (StatusCode::CONFLICT, format!("{size}\n"))
            }
            Err(NotAdded::NotCosigned(why)) => (StatusCode::UNPROCESSABLE_ENTITY, why.to_string()),
            Err(why) => (StatusCode::BAD_REQUEST, why.to_string()),
        }
    };
    let router = axum::Router::new()
        .route("/add-checkpoint", axum::routing::post(handler))
        .with_state(witness);
    axum::serve(listener, router).await.unwrap();
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn newest_is_cosigned(cloud: &Cloud, key: &WitnessKey) -> u64 {
    eventually("the newest checkpoint is cosigned", async || {
        let newest = cloud.parts.audit.log_head().newest()?;
        let lines = cloud.store.cosignatures(newest.size).await.unwrap();
        let whole = crate::store::witness::with_lines(&newest.note, &lines);
        let note = Note::parse(whole.as_bytes()).unwrap();
        key.verify(&note).ok().map(|_| newest.size)
    })
    .await
}

#[tokio::test]
async fn an_answer_that_is_not_the_witnesss_own_word_is_not_kept() {
    let mut log = Cloud::new("a.example").await;
    let witness = Cloud::new("b.example").await.witness_of(&log).await;
    let key = witness.server.as_ref().unwrap().key().clone();
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve(witness, listener, true));
    let asking = log.ask(&key, port).await;
    let why = eventually("it fails", async || {
        asking.asking.states()[0].failing.clone()
    })
    .await;
    assert!(why.0.contains("cosignature"), "{}", why.0);
    assert_eq!(log.store.last_cosigned(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_witness_that_was_away_gets_the_newest_and_the_log_did_not_wait() {
    let mut log = Cloud::new("a.example").await;
    let witness = Cloud::new("b.example").await.witness_of(&log).await;
    let key = witness.server.as_ref().unwrap().key().clone();
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let asking = log.ask(&key, port).await;
    eventually("it fails", async || {
        asking.asking.states()[0].failing.clone()
    })
    .await;
    log.write(300).await;
    eventually("the log goes on", async || {
        let newest = log.parts.audit.log_head().newest()?;
        (newest.size >= 300).then_some(())
    })
    .await;
    let listener = TcpListener::bind((HERE, port)).await.unwrap();
    let serving = tokio::spawn(serve(witness.clone(), listener, false));
    let first = newest_is_cosigned(&log, &key).await;
    log.write(5).await;
    eventually("it is covered", async || {
        let newest = log.parts.audit.log_head().newest()?;
        (newest.size > first).then_some(())
    })
    .await;
    let second = newest_is_cosigned(&log, &key).await;
    assert!(second > first);
    assert!(asking.asking.states()[0].failing.is_none());
    serving.abort();
    // Another process begins where this one ended.
    let best = log
        .store
        .cosigned(second, Timestamp::from_secs(0))
        .await
        .unwrap();
    assert_eq!(best.unwrap().size, second);
    assert!(log.recorded(EventKind::WitnessDisputed).await.is_empty());
}

#[tokio::test]
async fn a_witness_is_silent_once_nothing_came_for_an_hour_and_resumed_once_it_is_back() {
    let clock = TurnedClock::at(SystemClock.now());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut log = Cloud::by_clock("a.example", folder, clock.clone()).await;
    let witness = Cloud::new("b.example").await.witness_of(&log).await;
    let key = witness.server.as_ref().unwrap().key().clone();
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let asking = log.ask(&key, port).await;
    let told = async |kind| {
        let found = log.recorded(kind).await;
        let name = format!("witness/{}", key.name());
        for event in &found {
            assert_eq!(event.subject.as_ref().unwrap().to_string(), name);
        }
        found
    };
    eventually("it fails", async || {
        asking.asking.states()[0].failing.clone()
    })
    .await;
    // Almost an hour is none of the log's business yet.
    clock.turn(SILENCE - Duration::from_secs(60));
    an_attempt_fails(port).await;
    assert!(told(EventKind::WitnessSilent).await.is_empty());
    clock.turn(Duration::from_secs(61));
    let silent = eventually("it is silent", async || {
        told(EventKind::WitnessSilent).await.pop()
    })
    .await;
    assert!(silent.detail.get("reason").is_some());
    // Two more hours are the same silence.
    clock.turn(2 * SILENCE);
    an_attempt_fails(port).await;
    assert!(told(EventKind::WitnessResumed).await.is_empty());

    let listener = TcpListener::bind((HERE, port)).await.unwrap();
    tokio::spawn(serve(witness, listener, false));
    newest_is_cosigned(&log, &key).await;
    eventually("it is back", async || {
        told(EventKind::WitnessResumed).await.pop()
    })
    .await;
    assert_eq!(told(EventKind::WitnessSilent).await.len(), 1);
    assert_eq!(told(EventKind::WitnessResumed).await.len(), 1);
    assert!(told(EventKind::WitnessDisputed).await.is_empty());
}

/// Somebody answers at the port, and says nothing.
async fn an_attempt_fails(port: u16) {
    let listener = TcpListener::bind((HERE, port)).await.unwrap();
    let accepted = tokio::time::timeout(PATIENCE, listener.accept());
    drop(accepted.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_log_whose_database_was_put_back_is_disputed() {
    let mut log = Cloud::new("a.example").await;
    let witness = Cloud::new("b.example").await.witness_of(&log).await;
    let key = witness.server.as_ref().unwrap().key().clone();
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve(witness.clone(), listener, false));
    log.write(20).await;
    log.ask(&key, port).await;
    while newest_is_cosigned(&log, &key).await < 20 {}
    // The same keys over an empty database; the file that would have told was taken away.
    let folder = log.folder.clone();
    drop(log);
    remove_anchor(folder.path()).await;
    let mut again = Cloud::with("a.example", folder).await;
    let asking = again.ask(&key, port).await;
    eventually("it is disputed", async || {
        asking.asking.states()[0].disputed.then_some(())
    })
    .await;
    let told = eventually("it is told", async || {
        again.recorded(EventKind::WitnessDisputed).await.pop()
    })
    .await;
    assert_eq!(told.code.unwrap().as_str(), "witness_ahead");
    // It outgrows what was cosigned: another history.
    again.write(60).await;
    eventually("the other history is refused", async || {
        let state = asking.asking.states().remove(0);
        state
            .failing
            .filter(|(why, _)| why.contains("continues"))
            .map(drop)
    })
    .await;
    let known = witness
        .server
        .as_ref()
        .unwrap()
        .newest("a.example/audit")
        .await;
    assert!(known.unwrap().is_some());
}

/// Once the task that writes it has ended.
async fn remove_anchor(folder: &Path) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::remove_file(folder.join("log-checkpoint")).unwrap();
}
