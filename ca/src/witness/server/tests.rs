use std::net::{IpAddr, Ipv4Addr};

use edgeward_audit::Digest;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::merkle::{consistency_proof, leaf_hash, root};
use edgeward_audit::note::NoteSigner;
use edgeward_audit::query::Filter;
use edgeward_audit::record::BootId;
use edgeward_identity::testing::TurnedClock;
use edgeward_identity::{Kind, SpiffeId, SystemClock, TrustDomain};
use sqlx::Executor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::audit::Integrator;
use crate::config::Witness;
use crate::keys::CloudKeys;
use crate::store_tests;
use crate::testing::eventually;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ORIGIN: &str = "other.example/audit";

/// The keys of a witness in their folder, and the log of others that it names.
struct Keeper {
    folder: tempfile::TempDir,
    log: NoteSigner,
    clock: Arc<TurnedClock>,
}

/// A process of this witness over some database.
struct Process {
    parts: Parts,
    integrator: Option<Integrator>,
    task: Option<AbortOnDropHandle<()>>,
}

impl Keeper {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            log: NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap(),
            clock: TurnedClock::at(SystemClock.now()),
        }
    }

    /// A process, whose own log is not looked at before [`Process::integrate`].
    async fn process(&self, store: &Store, boot: u8) -> Process {
        let domain = TrustDomain::new("witness.example").unwrap();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let (data, now) = (self.folder.path(), clock.now());
        let keys = match CloudKeys::exist(data).unwrap() {
            true => CloudKeys::open(data, &domain, now),
            false => CloudKeys::create(data, &domain, now, |_| Ok(())),
        };
        let keys = Arc::new(keys.unwrap());
        let keeper = SpiffeId::new(&domain, Kind::Cloud, "c").unwrap();
        let boot = BootId::from_bytes([boot; 16]);
        let opened = AuditLog::open(store.clone(), keeper, boot, now).await;
        let audit = Arc::new(opened.unwrap().0);
        let event = Event::new(now, Actor::Cloud, EventKind::NodeApproved);
        audit.record(event).await.unwrap();
        let integrator = Integrator::new(
            audit.clone(),
            store.clone(),
            keys.clone(),
            data.to_owned(),
            clock.clone(),
        );
        let mut config = Witness::default();
        let log = WitnessedLog {
            keys: vec![self.log.verifier().clone()],
            per_minute: 6000,
        };
        config.logs.insert(ORIGIN.to_owned(), log);
        let parts = Parts {
            store: store.clone(),
            audit,
            clock,
            keys,
            config,
        };
        Process {
            parts,
            integrator: Some(integrator),
            task: None,
        }
    }

    /// What the log would submit; another `salt` is another history.
    fn submission(&self, old: u64, size: u64, salt: u8) -> Vec<u8> {
        let leaf = |n: u64| leaf_hash(&[&n.to_be_bytes()[..], &[salt]].concat());
        let leaves: Vec<Digest> = (0..size).map(leaf).collect();
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root(leaves.as_slice(), size).unwrap(),
        };
        let proof = consistency_proof(leaves.as_slice(), old, size).unwrap_or_default();
        let note = checkpoint.sign(&self.log).unwrap();
        let submission = Submission { old, proof, note };
        submission.to_string().into_bytes()
    }
}

impl Process {
    async fn server(&self) -> Server {
        Server::open(&self.parts).await.unwrap()
    }

    /// Looks after the own log from now on, and waits until it was looked at.
    async fn integrate(&mut self) {
        let integrator = self.integrator.take().unwrap();
        let task = tokio::spawn(integrator.run(CancellationToken::new()));
        self.task = Some(AbortOnDropHandle::new(task));
        let head = self.parts.audit.log_head();
        eventually(|| async { head.newest().is_some() || head.halted().is_some() }).await;
    }

    async fn sql(&self, text: &'static str) {
        let mut tx = self.parts.store.begin("test").await.unwrap();
        tx.connection().execute(text).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn told(&self, code: &str) -> usize {
        let found = self.parts.store.events(&Filter::default(), None, 100).await;
        let events = found.unwrap().0.into_iter().map(|stored| stored.event);
        let refused = events.filter(|event| event.kind == EventKind::WitnessRefused);
        refused
            .filter(|event| {
                event
                    .code
                    .as_ref()
                    .is_some_and(|found| found.as_str() == code)
            })
            .count()
    }
}

async fn refused(server: &Server, body: &[u8]) -> &'static str {
    server
        .add(HERE, body)
        .await
        .map_or_else(|why| why.code(), |_| "ok")
}

store_tests! {
    async fn nothing_is_cosigned_before_the_own_log_was_looked_at_or_after_its_database_went_back(store) {
        let keeper = Keeper::new();
        let mut process = keeper.process(&store, 1).await;
        let server = process.server().await;
        assert_eq!(refused(&server, &keeper.submission(0, 5, 0)).await, "witness_not_ready");
        process.integrate().await;
        assert_eq!(refused(&server, &keeper.submission(0, 5, 0)).await, "ok");
        // The database is put back under the running process, to before what was cosigned.
        process.sql("DELETE FROM log_checkpoints").await;
        assert_eq!(refused(&server, &keeper.submission(5, 6, 0)).await, "witness_own_log");
        process.sql("DELETE FROM witnessed_logs").await;
        assert_ne!(refused(&server, &keeper.submission(0, 4, 1)).await, "ok");
        assert_ne!(refused(&server, &keeper.submission(0, 5, 0)).await, "ok");
        // And the next process finds it so.
        drop(process);
        let mut process = keeper.process(&store, 2).await;
        process.integrate().await;
        assert!(process.parts.audit.log_head().halted().is_some());
        let server = process.server().await;
        assert_eq!(refused(&server, &keeper.submission(0, 4, 1)).await, "witness_own_log");
        assert_eq!(store.witnessed(ORIGIN).await.unwrap(), None);
    }

    async fn a_database_that_went_back_while_the_own_log_stood_still_is_noticed(store) {
        let keeper = Keeper::new();
        let mut process = keeper.process(&store, 1).await;
        let server = process.server().await;
        process.integrate().await;
        assert_eq!(refused(&server, &keeper.submission(0, 5, 0)).await, "ok");
        process.sql("CREATE TABLE kept AS SELECT * FROM witnessed_logs").await;
        assert_eq!(refused(&server, &keeper.submission(5, 9, 0)).await, "ok");
        for back in ["DELETE FROM witnessed_logs", "INSERT INTO witnessed_logs SELECT * FROM kept"] {
            process.sql(back).await;
            // By this process, and by the next.
            for server in [&server, &process.server().await] {
                assert!(server.forgetful().is_none());
                for (old, size, salt) in [(0, 5, 0), (0, 4, 1), (5, 7, 0), (5, 9, 0)] {
                    let body = keeper.submission(old, size, salt);
                    assert_eq!(refused(server, &body).await, "witness_went_back", "{back}");
                }
            }
        }
    }

    async fn a_key_that_has_cosigned_is_of_no_use_over_a_database_that_never_heard_of_it(store) {
        let keeper = Keeper::new();
        let first = crate::store::testing::TestStore::sqlite().await;
        let mut process = keeper.process(&first, 1).await;
        let server = process.server().await;
        process.integrate().await;
        assert_eq!(refused(&server, &keeper.submission(0, 5, 0)).await, "ok");
        // A second cloud of the same database and key, or the next start.
        let again = process.server().await;
        assert_eq!(again.key(), server.key());
        assert_eq!(refused(&again, &keeper.submission(5, 6, 0)).await, "ok");
        drop((process, server));
        // The same keys over an empty database; what told of the own log was taken away.
        std::fs::remove_file(keeper.folder.path().join("log-checkpoint")).unwrap();
        let mut process = keeper.process(&store, 2).await;
        process.integrate().await;
        assert!(process.parts.audit.log_head().halted().is_none());
        for _ in 0..2 {
            let server = process.server().await;
            assert_eq!(refused(&server, &keeper.submission(0, 4, 1)).await, "witness_key_unknown");
        }
        // The operator retires the key: another one promises nothing yet.
        std::fs::remove_file(keeper.folder.path().join("keys/witness.key")).unwrap();
        let server = process.server().await;
        assert_ne!(server.key(), again.key());
        assert_eq!(refused(&server, &keeper.submission(0, 4, 1)).await, "ok");
    }

    async fn of_two_trees_of_one_size_that_come_at_once_one_is_cosigned_and_the_other_kept(store) {
        let keeper = Keeper::new();
        let mut process = keeper.process(&store, 1).await;
        let server = process.server().await;
        process.integrate().await;
        let (one, other) = (keeper.submission(0, 5, 0), keeper.submission(0, 5, 7));
        // Both are looked at before either is decided on.
        let turn = store.begin("test").await.unwrap();
        let answers = tokio::join!(refused(&server, &one), refused(&server, &other), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            drop(turn);
        });
        let mut answers = [answers.0, answers.1];
        answers.sort_unstable();
        // Both began at nothing, which it is not any more.
        assert_eq!(answers, ["ok", "witness_other_size"]);
        let row = store.witnessed(ORIGIN).await.unwrap().unwrap();
        assert!(row.fork.is_some(), "what was signed twice is kept");
        assert_eq!(process.told("witness_forked").await, 1);
    }
}

#[tokio::test]
async fn a_cosignature_of_the_future_is_not_given_again() {
    let keeper = Keeper::new();
    let store = crate::store::testing::TestStore::sqlite().await;
    let mut process = keeper.process(&store, 1).await;
    let server = process.server().await;
    process.integrate().await;
    let body = keeper.submission(0, 5, 0);
    let first = server.add(HERE, &body).await.unwrap();
    let body = keeper.submission(5, 5, 0);
    assert_eq!(server.add(HERE, &body).await.unwrap(), first);
    let before = keeper.clock.now().millis() - 3_600_000;
    keeper.clock.set_now(Timestamp::from_millis(before));
    let second = server.add(HERE, &body).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(server.add(HERE, &body).await.unwrap(), second);
}
