//! The cloud's audit log from end to end: signed batches of many journals, verified, stored, put under checkpoints; then
//! proofs and questions.
//!
//! `tests/bench/audit/run`, or `cargo run --release -p edgeward-ca --example audit-log -- [EVENTS] [URL OF A DATABASE]`:
//! without a database SQLite in `/var/tmp`. Every commit is durable, if the PostgreSQL is.

#![expect(clippy::print_stdout, reason = "its output is the point")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_audit::record::BootId;
use edgeward_ca::audit::{AuditLog, Integrator};
use edgeward_ca::keys::CloudKeys;
use edgeward_ca::keys::sites::SiteKeys;
use edgeward_ca::store::{Database, Store};
use edgeward_identity::{Clock, Kind, SpiffeId, SystemClock, TrustDomain};
use sqlx::Row;
use tokio_util::sync::CancellationToken;

mod fleet;
mod intake;
mod proofs;
mod questions;

/// Events of each of the first runs.
const RUN_EVENTS: u64 = 300_000;
/// Events a second where the load is less than the log can take.
const PACE: u64 = 5_000;
const PACED_EVENTS: u64 = 60_000;

/// A cloud, as far as its audit log goes.
struct Cloud {
    store: Store,
    log: Arc<AuditLog>,
    folder: PathBuf,
    database: Option<String>,
    stop: CancellationToken,
    rounds: tokio::task::JoinHandle<()>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::Builder::new()
        .prefix("edgeward-audit-")
        .tempdir_in("/var/tmp")?;
    let cloud = Cloud::open(folder.path(), arguments.next()).await?;
    println!("{}, load {}", cloud.name(), load()?);
    let mut fleet = fleet::Fleet::new()?;
    let few = RUN_EVENTS.min(events / 3);
    intake::few_nodes(&cloud, "sustained", few, intake::With::Nothing).await?;
    intake::few_nodes(&cloud, "beside questions", few, intake::With::Questions).await?;
    let paced = PACED_EVENTS.min(events / 10);
    intake::few_nodes(&cloud, "paced", paced, intake::With::Pace(PACE)).await?;
    intake::whole_fleet(&cloud, &mut fleet, events).await?;
    let leaves = *cloud.log.covered().borrow();
    let bytes = cloud.bytes().await?;
    println!("on disk: {} bytes an event, of {leaves}", bytes / leaves);
    proofs::measure(&cloud, leaves).await?;
    questions::measure(&cloud.store, events).await?;
    println!("load {}", load()?);
    cloud.close().await
}

impl Cloud {
    async fn open(folder: &Path, database: Option<String>) -> anyhow::Result<Self> {
        let at: Database = match &database {
            Some(url) => url.parse()?,
            None => Database::file(folder.join("store.db")),
        };
        let store = Store::open(&at, SiteKeys::open(&folder.join("sites"))?).await?;
        let domain = TrustDomain::new("plant.example")?;
        let now = SystemClock.now();
        let keys = Arc::new(CloudKeys::create(folder, &domain, now, |_| Ok(()))?);
        let keeper = SpiffeId::new(&domain, Kind::Cloud, "c")?;
        let boot = BootId::from_bytes([0xcc; 16]);
        let (log, writer) = AuditLog::open(store.clone(), keeper, boot, now).await?;
        let log = Arc::new(log);
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        let clock = Arc::new(SystemClock);
        let integrator =
            Integrator::new(log.clone(), store.clone(), keys, folder.to_owned(), clock);
        Ok(Self {
            rounds: tokio::spawn(integrator.run(stop.clone())),
            store,
            log,
            folder: folder.to_owned(),
            database,
            stop,
        })
    }

    fn name(&self) -> &'static str {
        match self.database {
            Some(_) => "postgresql",
            None => "sqlite",
        }
    }

    async fn bytes(&self) -> anyhow::Result<u64> {
        if self.database.is_some() {
            let size = sqlx::query("SELECT pg_database_size(current_database()) AS bytes");
            let row = size.fetch_one(&mut *self.store.read().await?).await?;
            return Ok(u64::try_from(row.try_get::<i64, _>("bytes")?)?);
        }
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        emptied.fetch_all(&mut *self.store.read().await?).await?;
        Ok(std::fs::metadata(self.folder.join("store.db"))?.len())
    }

    async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.rounds.await.context("the rounds ended early")?;
        self.store.close().await;
        Ok(())
    }
}

/// Processor time of this process so far, user and system. `/proc` counts in hundredths of a second.
fn processor() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, which is second, may hold blanks.
    let (_, rest) = stat.rsplit_once(')').context("a line of /proc")?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn load() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string("/proc/loadavg")?.trim().to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn per_second(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

/// Milliseconds at a hundredth of what was measured.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
}

async fn timed<T>(work: impl Future<Output = T>, took: &mut Vec<Duration>) -> T {
    let begun = Instant::now();
    let done = work.await;
    took.push(begun.elapsed());
    done
}
