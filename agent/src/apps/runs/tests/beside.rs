//! The loop over a guard whose part is played word by word: nothing that takes its time holds up an end.

use std::collections::BTreeSet;
use std::time::Instant;

use async_trait::async_trait;
use edgeward_guard::control::{Lines, Told, line};
use edgeward_guard::level::Level;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::apps::floors::{AppsOrder, Ledger, ledger};
use crate::apps::guard::guard;
use crate::apps::records::Records;
use crate::apps::records::tests::{Measured, teller};
use crate::apps::runs::{NotGranted, Rights, Runs, Said, runs};

const LIMIT: Duration = Duration::from_secs(20);
/// Far below what anything in the loop takes that waits for what never comes to its end; a busy machine takes its time.
const AT_ONCE: Duration = Duration::from_secs(2);

type Log = Arc<Mutex<Vec<(Instant, String)>>>;

/// Rights of which some never come to an end.
struct Slow {
    log: Log,
    /// Withdrawing from these.
    withdraw: BTreeSet<AppName>,
    /// Clearing away after these.
    ended: BTreeSet<AppName>,
}

#[async_trait]
impl Rights for Slow {
    async fn grant(&self, running: &Running) -> Result<(), NotGranted> {
        say(&self.log, format!("grant {}", running.app.name()));
        Ok(())
    }

    async fn withdraw(&self, app: &AppName) {
        say(&self.log, format!("withdraw {}", app.name()));
        if self.withdraw.contains(app) {
            std::future::pending().await
        }
    }

    async fn ended(&self, app: &AppName, _lasting: bool) {
        say(&self.log, format!("ended {}", app.name()));
        if self.ended.contains(app) {
            std::future::pending().await
        }
    }
}

struct World {
    runs: Runs,
    log: Log,
    director: watch::Sender<Option<Arc<Director>>>,
    _slice: watch::Sender<Option<Arc<HeldSlice>>>,
    _ends: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}

fn say(log: &Log, what: String) {
    log.lock().push((Instant::now(), what));
}

fn named(name: &str) -> AppName {
    format!("acme/{name}").parse().unwrap()
}

/// Each is a manifest of its own.
fn wanted_of(name: &str) -> (AppName, Wanted) {
    let mut wanted = wanted("1.0");
    let mut manifest = manifest("1.0");
    manifest.app = named(name);
    wanted.manifest = Arc::new(manifest);
    wanted.digest = Digest::of(name.as_bytes());
    (named(name), wanted)
}

impl World {
    /// These run.
    async fn new(names: &[&str], slow: Slow, keeper: Ledger) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("guard.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let log = slow.log.clone();
        tokio::spawn(play_guard(listener, log.clone()));
        let (teller, _notes) = teller();
        let records = Arc::new(Records::new(teller.clone(), Arc::new(Measured::default())));
        let (guard, link, heard) = guard(&socket, records);
        let token = CancellationToken::new();
        let (director, said_by_director) = watch::channel(None);
        let (slice, said_by_policy) = watch::channel(None);
        let said = Said {
            director: said_by_director,
            slice: said_by_policy,
            ledger: keeper,
        };
        let (runs, runner) = runs(guard, heard, Arc::new(slow), teller, (places(), said));
        tokio::spawn(link.run(token.clone()));
        tokio::spawn(runner.run(token.clone()));
        let all = names.iter().map(|name| {
            let (app, mut wanted) = wanted_of(name);
            wanted.until = edgeward_identity::testing::TEST_NOW.plus(Duration::from_secs(3600));
            (app, wanted)
        });
        runs.want(all.collect()).await;
        let mut stages = runs.stages();
        let up = stages.wait_for(|stages| {
            stages.len() == names.len() && stages.values().all(|stage| *stage == Stage::Running)
        });
        tokio::time::timeout(LIMIT, up).await.unwrap().unwrap();
        Self {
            runs,
            log,
            director,
            _slice: slice,
            _ends: token.drop_guard(),
            _folder: folder,
        }
    }

    /// Since when something has been so.
    async fn until(&self, what: &str) -> Instant {
        let wait = async {
            loop {
                let found = self.at(what);
                if let Some(at) = found {
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(LIMIT, wait).await;
        found.unwrap_or_else(|_| panic!("no {what:?} in {:#?}", self.log.lock()))
    }

    fn at(&self, what: &str) -> Option<Instant> {
        let log = self.log.lock();
        log.iter().find(|(_, said)| said == what).map(|(at, _)| *at)
    }
}

/// A guard that does at once what it is told.
async fn play_guard(listener: UnixListener, log: Log) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let here = Told::Here {
        level: Level::Fanotify,
        lacks: Vec::new(),
        runs: Vec::new(),
        shut: false,
    };
    tell(&mut stream, &here).await;
    let mut lines = Lines::default();
    let mut chunk = vec![0; 65_536];
    loop {
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        lines.push(&chunk[..count]).unwrap();
        while let Some(order) = lines.take_line::<Order>() {
            match order.unwrap() {
                Order::Make { name } => tell(&mut stream, &Told::Made { name }).await,
                Order::Start(start) => {
                    let run = Run {
                        name: start.name,
                        what: start.what,
                        pid: 1,
                        lacks: Vec::new(),
                    };
                    tell(&mut stream, &Told::Started(run)).await;
                }
                Order::End { name } => {
                    let app = app_of_group(&name).unwrap();
                    say(&log, format!("kill {}", app.name()));
                    let how = Ended {
                        code: None,
                        signal: Some(9),
                    };
                    let ended = Told::Ended {
                        name: name.clone(),
                        how,
                    };
                    tell(&mut stream, &ended).await;
                    tell(&mut stream, &Told::Gone { name }).await;
                }
                Order::Book(_) | Order::Keeper(_) => {}
            }
        }
    }
}

async fn tell(stream: &mut UnixStream, told: &Told) {
    stream.write_all(&line(told).unwrap()).await.unwrap();
}

/// One that stores at once.
fn keeps() -> Ledger {
    let (ledger, mut orders) = ledger();
    tokio::spawn(async move {
        loop {
            if let AppsOrder::Settle { done } = orders.next().await {
                let _ = done.send(true);
            }
        }
    });
    ledger
}

#[tokio::test]
async fn neither_a_slow_withdrawal_nor_a_slow_measurement_holds_up_the_end_of_another() {
    let log = Log::default();
    let slow = Slow {
        log: log.clone(),
        withdraw: [named("stuck")].into(),
        ended: [named("measured")].into(),
    };
    let world = World::new(&["measured", "stuck", "quick", "stays"], slow, keeps()).await;
    // What follows the end of this one never comes to its own end.
    world
        .runs
        .end(&named("measured"), "app-denied")
        .await
        .unwrap();
    world.until("ended measured").await;
    let digests = ["stuck", "quick"].map(|name| Digest::of(name.as_bytes()));
    // Signing takes its time, too.
    let word = revoking(&digests);
    let begun = Instant::now();
    world.director.send_replace(Some(word));
    assert!(world.until("kill quick").await - begun < AT_ONCE);
    assert!(world.until("withdraw stuck").await - begun < AT_ONCE);
    // Its network may not be gone: it is stopped all the same.
    let stuck = world.until("kill stuck").await - begun;
    assert!(stuck < AT_ONCE, "{stuck:?}");
    for order in [
        ["withdraw quick", "kill quick", "kill stuck"],
        ["withdraw quick", "withdraw stuck", "kill stuck"],
    ] {
        let order = order.map(|what| world.at(what).unwrap());
        let sorted = order[0] <= order[2] && order[1] <= order[2];
        assert!(sorted, "{:#?}", world.log.lock());
    }
    assert!(world.at("withdraw quick") <= world.at("kill quick"));
    assert_eq!(world.at("kill stays"), None);
    assert_eq!(world.at("withdraw stays"), None);
}

#[tokio::test]
async fn processes_are_killed_when_the_word_is_on_disk_and_not_much_later_if_it_is_not() {
    for stores_after in [Some(Duration::from_millis(100)), None] {
        let log = Log::default();
        let slow = Slow {
            log: log.clone(),
            withdraw: BTreeSet::new(),
            ended: BTreeSet::new(),
        };
        let (keeper, mut orders) = ledger();
        let (stored_to, mut stored) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                if let AppsOrder::Settle { done } = orders.next().await {
                    match stores_after {
                        Some(after) => {
                            tokio::time::sleep(after).await;
                            stored_to.send(Instant::now()).await.unwrap();
                            let _ = done.send(true);
                        }
                        None => held.push(done),
                    }
                }
            }
        });
        let world = World::new(&["x"], slow, keeper).await;
        let word = revoking(&[Digest::of(b"x")]);
        let begun = Instant::now();
        world.director.send_replace(Some(word));
        let killed = world.until("kill x").await;
        assert!(world.at("withdraw x").unwrap() < killed);
        match stores_after {
            Some(_) => assert!(stored.recv().await.unwrap() <= killed),
            None => assert!(killed - begun < AT_ONCE),
        }
    }
}
