//! Everything dies at every moment, and the log has every record that the node's disk kept, once, and raises no alarm.
//!
//! The journal is the real one over storage that forgets what was not flushed; the log is the real one over both
//! databases, with the task that signs checkpoints and makes blocks. The node is killed or loses its power, the cloud is
//! killed (in the midst of a transaction or a round, too) or its
//! connections to the database are, and answers get lost, in an order drawn from a seed. `EDGEWARD_CHAOS_ROUNDS` asks
//! for more rounds, `EDGEWARD_CHAOS_SEED` for a certain one; a failure names its seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::journal::{Boot, Limits, MIN_SEGMENT_BYTES, MemoryStore};
use edgeward_audit::merkle::{leaf_hash, root};
use edgeward_audit::record::Position;
use edgeward_audit::statement::HeadStated;
use edgeward_identity::{BootTime, SystemClock};
use tokio::task::JoinHandle;

use super::*;
use crate::keys::CloudKeys;
use crate::store::testing::TestStore;

/// Events of one round.
const EVENTS: usize = 10_000;
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Numbers that follow from a seed (xorshift64*).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % bound
    }
}

struct World<'a> {
    database: &'a TestStore,
    store: Store,
    log: Arc<AuditLog>,
    /// Checkpoints and blocks of the running cloud.
    rounds: JoinHandle<()>,
    folder: tempfile::TempDir,
    keys: Arc<CloudKeys>,
    clouds: u64,
    journal: Option<edgeward_audit::Journal<MemoryStore>>,
    boot: u8,
    sent: Option<Position>,
    /// What the disk keeps of each boot.
    truth: BTreeMap<BootId, Vec<Digest>>,
    /// The last record of the running boot of which the journal promised that it is on disk.
    promised: usize,
    svid: SoftwareKey,
    key: SoftwareKey,
    draw: Draw,
    /// What happened, for the reader of a failure.
    deaths: BTreeMap<&'static str, usize>,
}

fn boot_of(n: u8) -> Boot {
    Boot {
        id: BootId::from_bytes([n; 16]),
        reset_count: Some(u32::from(n)),
        restart_count: Some(0),
    }
}

/// A cloud process of its own.
async fn cloud(
    store: &Store,
    number: u64,
    keys: &Arc<CloudKeys>,
    data: &Path,
) -> (Arc<AuditLog>, JoinHandle<()>) {
    let mut boot = [0xcc; 16];
    boot[..8].copy_from_slice(&number.to_be_bytes());
    let boot = BootId::from_bytes(boot);
    let keeper = id(Kind::Cloud, "c");
    // Also what it writes before there is a task that signs.
    store.cover_by_checkpoints();
    let (log, writer) = AuditLog::open(store.clone(), keeper, boot, NOW)
        .await
        .unwrap();
    tokio::spawn(writer.run(CancellationToken::new()));
    let (log, clock) = (Arc::new(log), Arc::new(SystemClock));
    let rounds = Integrator::new(
        log.clone(),
        store.clone(),
        keys.clone(),
        data.to_owned(),
        clock,
    );
    (log, tokio::spawn(rounds.run(CancellationToken::new())))
}

fn journal_of(disk: MemoryStore, boot: u8) -> edgeward_audit::Journal<MemoryStore> {
    let limits = Limits::new(JOURNAL_BYTES, MIN_SEGMENT_BYTES).unwrap();
    let node = id(Kind::Node, "gw");
    edgeward_audit::Journal::open(
        disk,
        &node,
        &boot_of(boot),
        limits,
        NOW,
        fresh_salts().unwrap(),
    )
    .unwrap()
    .0
}

impl<'a> World<'a> {
    async fn begin(database: &'a TestStore, seed: u64) -> Self {
        let store = database.another().await;
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("plant.example").unwrap();
        let keys = CloudKeys::create(folder.path(), &domain, NOW, |_| Ok(())).unwrap();
        let keys = Arc::new(keys);
        let (log, rounds) = cloud(&store, 1, &keys, folder.path()).await;
        let mut world = Self {
            log,
            rounds,
            folder,
            keys,
            database,
            store,
            clouds: 1,
            journal: Some(journal_of(MemoryStore::new(), 1)),
            boot: 1,
            sent: None,
            truth: BTreeMap::new(),
            promised: 0,
            svid: SoftwareKey::generate().unwrap(),
            key: SoftwareKey::generate().unwrap(),
            draw: Draw(seed | 1),
            deaths: BTreeMap::new(),
        };
        world.opened();
        world
    }

    fn journal(&mut self) -> &mut edgeward_audit::Journal<MemoryStore> {
        self.journal.as_mut().unwrap()
    }

    /// Notes the record that a boot begins with.
    fn opened(&mut self) {
        let chain = self.journal().chain().clone();
        let hash = chain.head().unwrap().hash;
        self.truth.insert(chain.boot(), vec![hash]);
        self.promised = 0;
    }

    fn write(&mut self, count: usize) {
        for n in 0..count {
            let must = self.draw.below(40) == 0;
            let kind = match must {
                true => EventKind::BindOpened,
                false => EventKind::FlowDenied,
            };
            let event = event(kind).detail("n", n);
            let journal = self.journal.as_mut().unwrap();
            journal.append(event, BootTime::default()).unwrap();
            let head = journal.chain().head().unwrap();
            let boot = journal.chain().boot();
            let kept = self.truth.get_mut(&boot).unwrap();
            kept.push(head.hash);
            if must {
                self.promised = kept.len() - 1;
            }
        }
    }

    fn died(&mut self, how: &'static str) {
        *self.deaths.entry(how).or_default() += 1;
    }

    /// `kill -9`: what was written is in the kernel's hands.
    fn kill_agent(&mut self) {
        self.died("agent killed");
        let disk = self.journal.take().unwrap().into_store();
        self.journal = Some(journal_of(disk, self.boot));
        self.sent = None;
    }

    fn cut_power(&mut self) {
        self.died("power cut");
        let mut disk = self.journal.take().unwrap().into_store();
        let keep = [0, 1, 40, 700, 5_000][self.draw.below(5)];
        disk.power_cut(keep);
        let before = BootId::from_bytes([self.boot; 16]);
        self.boot += 1;
        let mut journal = journal_of(disk, self.boot);
        let opening = journal.pending(None).unwrap();
        assert!(opening.is_some());
        let at = Position {
            boot: journal.chain().boot(),
            seq: 0,
        };
        let opening = journal.pending(Some(at)).unwrap().unwrap();
        let record = SealedRecord::parse(&opening.records[0]).unwrap();
        let previous = record.record().opened.as_ref().unwrap().previous.unwrap();
        assert_eq!(previous.boot, before);
        let last = usize::try_from(previous.last_seq).unwrap();
        assert!(last >= self.promised, "a promised record is gone");
        let kept = self.truth.get_mut(&before).unwrap();
        kept.truncate(last + 1);
        assert_eq!(kept.last(), Some(&previous.head));
        self.journal = Some(journal);
        self.sent = None;
        self.truth.insert(at.boot, vec![record.hash()]);
        self.promised = 0;
        // A torn end is a record, too.
        let more: Vec<_> = opening.records[1..]
            .iter()
            .map(|bytes| SealedRecord::parse(bytes).unwrap().hash())
            .collect();
        self.truth.get_mut(&at.boot).unwrap().extend(more);
    }

    async fn kill_cloud(&mut self) {
        self.died("cloud killed");
        self.clouds += 1;
        self.rounds.abort();
        let gone = std::mem::replace(&mut self.store, self.database.another().await);
        gone.close().await;
        let data = self.folder.path();
        (self.log, self.rounds) = cloud(&self.store, self.clouds, &self.keys, data).await;
    }

    async fn kill_connections(&mut self) {
        if !self.store.is_shared() {
            return self.kill_cloud().await;
        }
        self.died("database's connections killed");
        let kill = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut connection = self.database.read().await.unwrap();
        sqlx::query(kill).execute(&mut *connection).await.unwrap();
    }

    fn batch(&mut self) -> Option<(VerifiedBatch, Position)> {
        let from = self.sent;
        let pending = self.journal().pending(from).unwrap()?;
        self.promised = self.truth[&BootId::from_bytes([self.boot; 16])].len() - 1;
        let next = pending.next();
        let node = id(Kind::Node, "gw");
        let boot = BootId::from_bytes([self.boot; 16]);
        let statement =
            JournalKeyStatement::sign(&self.svid, &node, boot, self.key.public_key(), NOW).unwrap();
        let key = statement
            .verify(&node, self.svid.public_key(), NOW)
            .unwrap();
        let batch = Batch::sign(&statement, &self.key, pending.records).unwrap();
        Some((batch.verify(&key).unwrap(), next))
    }

    /// Sends one batch; the cloud may die over it, or its answer get lost. Whether there was one.
    async fn upload(&mut self, calm: bool) -> bool {
        let Some((batch, next)) = self.batch() else {
            return false;
        };
        let fate = match calm {
            true => 0,
            false => self.draw.below(6),
        };
        match fate {
            1 => {
                let within = Duration::from_micros(self.draw.below(20_000) as u64);
                let _ = tokio::time::timeout(within, self.log.ingest(batch.clone(), NOW)).await;
                self.kill_cloud().await;
            }
            2 => {
                let within = Duration::from_micros(self.draw.below(20_000) as u64);
                let _ = tokio::time::timeout(within, self.log.ingest(batch.clone(), NOW)).await;
                self.kill_connections().await;
            }
            3 => {
                self.died("answer lost");
                let _ = self.log.ingest(batch.clone(), NOW).await;
            }
            _ => match self.log.ingest(batch.clone(), NOW).await {
                Ok(_) => self.sent = Some(next),
                Err(IngestError::Refused { refused, .. }) => {
                    panic!("an honest batch is refused: {refused}")
                }
                Err(IngestError::Store(_) | IngestError::Record(_)) => {}
            },
        }
        true
    }

    /// As at the beginning of a session: where the journal ends, and what may go.
    async fn session(&mut self) {
        let node = id(Kind::Node, "gw");
        let mark = self.journal().mark().unwrap().unwrap();
        let oldest = self.journal().oldest();
        self.promised = self.truth[&mark.boot].len() - 1;
        let stated = HeadStated {
            boot: mark.boot,
            head: mark.head,
            oldest,
            answers: 0,
        };
        let Ok(next) = self.store.next_record(&node, mark.boot).await else {
            return;
        };
        if let Ok(heard) = self.log.hear_head(&node, &stated, (next, true), NOW).await {
            assert_eq!(heard, None, "a false alarm");
        }
        let Ok(reaches) = self.store.reaches(&node, oldest, 64).await else {
            return;
        };
        for reach in reaches {
            let position = Position {
                boot: reach.boot,
                seq: reach.next_seq - 1,
            };
            let own = self.journal().hash_at(position).unwrap();
            assert!(own.is_none_or(|own| own == reach.hash));
            self.journal()
                .acknowledge(reach.boot, reach.next_seq)
                .unwrap();
        }
    }

    async fn run(&mut self) {
        let mut left = EVENTS;
        while left > 0 {
            let count = self.draw.below(400).min(left - 1) + 1;
            left -= count;
            self.write(count);
            for _ in 0..self.draw.below(4) {
                self.upload(false).await;
            }
            match self.draw.below(12) {
                0 => self.kill_agent(),
                1 => self.cut_power(),
                2 => self.kill_cloud().await,
                3 => self.kill_connections().await,
                4 | 5 => self.session().await,
                _ => {}
            }
        }
        for _ in 0..10_000 {
            if !self.upload(true).await {
                return;
            }
        }
        panic!("it does not end");
    }

    /// Until a checkpoint covers everything, which no death kept from being signed.
    async fn await_cover(&self) {
        let last = self.store.last_leaf().await.unwrap().unwrap();
        let mut covered = self.log.covered();
        let all = covered.wait_for(|size| *size > last);
        let waited = tokio::time::timeout(Duration::from_secs(60), all).await;
        let head = self.log.log_head();
        assert!(waited.is_ok(), "not covered: {:?}", head.halted());
        let newest = head.newest().unwrap();
        let limit = u32::try_from(newest.size).unwrap();
        let leaves = self.store.leaf_entries(0, limit).await.unwrap().entries;
        let hashes: Vec<Digest> = leaves
            .iter()
            .map(|leaf| leaf_hash(leaf.as_bytes()))
            .collect();
        let computed = root(hashes.as_slice(), newest.size).unwrap();
        assert_eq!(computed, newest.root);
    }

    /// The log against the disk.
    async fn compare(&self) {
        let mut found: BTreeMap<BootId, BTreeMap<u64, Vec<Digest>>> = BTreeMap::new();
        let mut after = None;
        loop {
            let filter = Filter {
                node: Some(id(Kind::Node, "gw")),
                ..Filter::default()
            };
            let (page, more) = self.store.events(&filter, after, 1000).await.unwrap();
            for event in &page {
                if event.node == id(Kind::Node, "gw") {
                    let of_boot = found.entry(event.boot).or_default();
                    of_boot.entry(event.seq).or_default().push(event.hash);
                }
            }
            after = page.last().map(|event| event.index);
            if !more {
                break;
            }
        }
        let expected: BTreeMap<BootId, BTreeMap<u64, Vec<Digest>>> = self
            .truth
            .iter()
            .map(|(boot, hashes)| {
                let each = hashes.iter().enumerate();
                (
                    *boot,
                    each.map(|(seq, hash)| (seq as u64, vec![*hash])).collect(),
                )
            })
            .collect();
        assert!(found == expected, "lost, doubled, or another");
        let faults = self.store.journal_faults(None, 100).await.unwrap();
        assert_eq!(faults, [], "false alarms");
    }
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

store_tests! {
    async fn nothing_is_lost_or_doubled_while_everything_dies_in_random_order(store) {
        let first = asked("EDGEWARD_CHAOS_SEED", 7);
        for seed in first..first + asked("EDGEWARD_CHAOS_ROUNDS", 1) {
            // Each round in a database of its own, but for the first.
            let more = match store.is_shared() {
                true => TestStore::postgresql().await,
                false => TestStore::sqlite().await,
            };
            println!("seed {seed}");
            let mut world = World::begin(&more, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).await;
            world.run().await;
            println!("{:?}", world.deaths);
            let deaths: usize = world.deaths.values().sum();
            assert!(deaths >= 20, "too quiet: {:?}", world.deaths);
            world.await_cover().await;
            world.compare().await;
            world.rounds.abort();
        }
    }
}
