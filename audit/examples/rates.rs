//! What a record costs: `cargo run --release -p edgeward-audit --example rates`.
#![expect(clippy::print_stdout, reason = "its output is the point")]

use std::error::Error;
use std::time::Instant;

use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::journal::{
    Boot, FileStore, Limits, MAX_SEGMENT_BYTES, MemoryStore, Pending, SegmentStore,
};
use edgeward_audit::merkle::{Frontier, leaf_hash};
use edgeward_audit::record::Salts;
use edgeward_audit::{BootId, Event, EventKind, Journal};
use edgeward_identity::{BootTime, Clock, Signer, SoftwareKey, SpiffeId, SystemClock};

const EVENTS: u32 = 100_000;
const FLUSHED_EVENTS: u32 = 500;
const JOURNAL_BYTES: u64 = 256 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse()?;
    let directory = std::env::temp_dir().join(format!("edgeward-rates-{}", std::process::id()));
    append(
        "memory, class should",
        MemoryStore::new(),
        &node,
        EventKind::FlowDenied,
        EVENTS,
    )?;
    let mut journal = append(
        "file, class should",
        FileStore::open(&directory)?,
        &node,
        EventKind::FlowDenied,
        EVENTS,
    )?;
    println!(
        "bytes per event on disk: {}",
        journal.bytes() / u64::from(EVENTS)
    );
    append_to(
        &mut journal,
        "file, class must (one flush each)",
        &node,
        EventKind::BindOpened,
        FLUSHED_EVENTS,
    )?;
    verify(&mut journal, &node)?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn append<S: SegmentStore>(
    what: &str,
    store: S,
    node: &SpiffeId,
    kind: EventKind,
    count: u32,
) -> Result<Journal<S>, Box<dyn Error>> {
    let boot = Boot {
        id: BootId::from_bytes([1; 16]),
        reset_count: None,
        restart_count: None,
    };
    let limits = Limits::new(JOURNAL_BYTES, MAX_SEGMENT_BYTES)?;
    let (mut journal, _) = Journal::open(
        store,
        node,
        &boot,
        limits,
        SystemClock.now(),
        Salts::from_seed([1; 32]),
    )?;
    append_to(&mut journal, what, node, kind, count)?;
    Ok(journal)
}

fn append_to<S: SegmentStore>(
    journal: &mut Journal<S>,
    what: &str,
    node: &SpiffeId,
    kind: EventKind,
    count: u32,
) -> Result<(), Box<dyn Error>> {
    let time = SystemClock.now();
    let start = Instant::now();
    for n in 0..count {
        let event = Event::new(time, node.clone(), kind)
            .subject("press-4/modbus")
            .rule("plant/press:read")
            .denied("no_rule")
            .detail("count", n);
        let now = BootTime::from_duration(start.elapsed());
        journal.append(event, now)?;
        if journal.is_turn_due() {
            // As the agent does it, a new key each time; whether the chain holds is for tests.
            let (old, next) = (SoftwareKey::generate()?, SoftwareKey::generate()?);
            journal.turn(&old, (0, next.public_key()), time, now)?;
        }
    }
    journal.flush()?;
    println!(
        "append, {what}: {} ns",
        start.elapsed().as_nanos() / u128::from(count)
    );
    Ok(())
}

fn verify<S: SegmentStore>(
    journal: &mut Journal<S>,
    node: &SpiffeId,
) -> Result<(), Box<dyn Error>> {
    let (svid, key) = (SoftwareKey::generate()?, SoftwareKey::generate()?);
    let time = SystemClock.now();
    let statement =
        JournalKeyStatement::sign(&svid, node, journal.chain().boot(), key.public_key(), time)?;
    let verified = statement.verify(node, svid.public_key(), time)?;
    let mut batches = Vec::new();
    let start = Instant::now();
    let mut from = None;
    while let Some(pending) = journal.pending(from)? {
        from = Some(pending.next());
        let Pending { records, .. } = pending;
        batches.push(Batch::sign(&statement, &key, records)?.to_bytes());
    }
    let count: u128 = u128::from(EVENTS + FLUSHED_EVENTS);
    println!(
        "read back, sign and encode in batches: {} ns an event",
        start.elapsed().as_nanos() / count
    );
    let mut frontier = Frontier::new();
    let start = Instant::now();
    let mut leaves = Vec::new();
    for bytes in &batches {
        let batch = Batch::parse(bytes)?.verify(&verified)?;
        leaves.extend(batch.records().iter().map(|record| record.hash()));
    }
    println!(
        "parse and verify in batches: {} ns an event",
        start.elapsed().as_nanos() / count
    );
    let start = Instant::now();
    for leaf in &leaves {
        frontier.append(leaf_hash(leaf.as_bytes()))?;
    }
    println!(
        "merkle append: {} ns an event",
        start.elapsed().as_nanos() / count
    );
    println!("{} batches, root {}", batches.len(), frontier.root());
    Ok(())
}
