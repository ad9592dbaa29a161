//! Batches on their way in: what is told to the node when they are stored, and when a checkpoint covers them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_audit::batch::{Batch, JournalKey};
use edgeward_audit::query::{Filter, KindFilter};
use edgeward_audit::{EventKind, Verdict};
use edgeward_ca::audit::AuditLog;
use edgeward_ca::store::audit::{MAX_EXAMINED, MAX_PAGE_BYTES, PageLimits};
use edgeward_identity::{Clock, SystemClock};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::fleet::{BATCH, Fleet, Journal, Numbers};
use super::{Cloud, at, per_second, processor, timed};

/// Nodes that send at the same time, each a batch after the other.
const SENDERS: u64 = 16;
/// Events that are made and signed before they are sent: making them is the nodes' work.
const MADE: u64 = 100_000;

static RUNS: AtomicU64 = AtomicU64::new(0);

/// What goes on beside.
#[derive(Clone, Copy)]
pub(super) enum With {
    Nothing,
    /// Two who ask for pages without a pause.
    Questions,
    /// No more than so many events a second.
    Pace(u64),
}

/// What one run gave.
#[derive(Default)]
struct Measured {
    stored: Vec<Duration>,
    covered: Vec<Duration>,
    asked: Vec<Duration>,
}

/// Batches of one node, in their order.
struct Sender {
    key: JournalKey,
    batches: Vec<Vec<u8>>,
}

/// A few nodes that send all the time.
pub(super) async fn few_nodes(
    cloud: &Cloud,
    what: &str,
    events: u64,
    with: With,
) -> anyhow::Result<()> {
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let mut numbers = Numbers(run + 9);
    let each = events / SENDERS / u64::try_from(BATCH)?;
    let mut senders = Vec::new();
    for number in 0..SENDERS {
        let mut journal =
            Journal::open(&format!("run-{run}-{number}"), 100_000 + run * 100 + number)?;
        let batches = (0..each)
            .map(|batch| journal.batch(&mut numbers, batch * u64::try_from(BATCH)?, BATCH));
        senders.push(Sender {
            batches: batches.collect::<Result<_, _>>()?,
            key: journal.verifier,
        });
    }
    let events = each * SENDERS * u64::try_from(BATCH)?;
    let (begun, used) = (Instant::now(), processor()?);
    let (measured, took) = send(cloud, senders, with).await?;
    report(
        what,
        events,
        (took, begun.elapsed()),
        processor()? - used,
        measured,
    );
    Ok(())
}

/// Journals of a thousand nodes, until there are so many events more.
pub(super) async fn whole_fleet(
    cloud: &Cloud,
    fleet: &mut Fleet,
    events: u64,
) -> anyhow::Result<()> {
    let (mut all, mut stored, mut covered) = (Measured::default(), Duration::ZERO, Duration::ZERO);
    let mut used = Duration::ZERO;
    let mut left = events;
    while left > 0 {
        let count = MADE.min(left);
        let mut by_node: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for (number, batch) in fleet.batches(count)? {
            by_node.entry(number).or_default().push(batch);
        }
        let sender = |(number, batches): (usize, _)| {
            let key = fleet.journals.get(number)?.verifier.clone();
            Some(Sender { key, batches })
        };
        let senders = by_node.into_iter().filter_map(sender).collect();
        let (begun, before) = (Instant::now(), processor()?);
        let (measured, took) = send(cloud, senders, With::Nothing).await?;
        stored += took;
        covered += begun.elapsed();
        used += processor()? - before;
        all.stored.extend(measured.stored);
        all.covered.extend(measured.covered);
        left -= count;
    }
    report("1,000 nodes", events, (stored, covered), used, all);
    Ok(())
}

/// Sends it all, and waits until it is covered. Says how long it took until all was stored.
async fn send(
    cloud: &Cloud,
    senders: Vec<Sender>,
    with: With,
) -> anyhow::Result<(Measured, Duration)> {
    let begun = Instant::now();
    let pause = match with {
        With::Pace(rate) => {
            let batches_a_second = rate / u64::try_from(BATCH)?;
            Some(
                Duration::from_secs(1) * u32::try_from(SENDERS)? / u32::try_from(batches_a_second)?,
            )
        }
        With::Nothing | With::Questions => None,
    };
    let askers = match with {
        With::Questions => 2,
        With::Nothing | With::Pace(_) => 0,
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let mut asking = JoinSet::new();
    for number in 0..askers {
        asking.spawn(ask(cloud.store.clone(), number, stop.clone()));
    }
    let queue = Arc::new(Mutex::new(senders.into_iter()));
    let mut sending = JoinSet::new();
    let (told, mut waits) = mpsc::unbounded_channel();
    for number in 0..SENDERS {
        let (log, queue, told) = (cloud.log.clone(), queue.clone(), told.clone());
        sending.spawn(async move {
            if let Some(pause) = pause {
                // Not all at one moment.
                tokio::time::sleep(pause * u32::try_from(number)? / u32::try_from(SENDERS)?).await;
            }
            let mut stored = Vec::new();
            loop {
                let Some(sender) = queue.lock().await.next() else {
                    return anyhow::Ok(stored);
                };
                stored.extend(send_all(&log, sender, pause, &told).await?);
            }
        });
    }
    drop(told);
    let mut measured = Measured::default();
    let mut size = cloud.log.covered();
    let covering = async {
        let mut covered = Vec::new();
        while let Some((begun, leaves)) = waits.recv().await {
            size.wait_for(|size| *size >= leaves).await?;
            covered.push(Instant::duration_since(&Instant::now(), begun));
        }
        anyhow::Ok(covered)
    };
    let storing = async {
        let mut stored = Vec::new();
        while let Some(ended) = sending.join_next().await {
            stored.extend(ended.context("a sender ended early")??);
        }
        anyhow::Ok((stored, begun.elapsed()))
    };
    let (covered, stored) = tokio::join!(covering, storing);
    stop.cancel();
    while let Some(asked) = asking.join_next().await {
        measured
            .asked
            .extend(asked.context("an asker ended early")??);
    }
    let (stored, took) = stored?;
    (measured.covered, measured.stored) = (covered?, stored);
    Ok((measured, took))
}

/// One node: a batch, and when it is acknowledged the next.
async fn send_all(
    log: &AuditLog,
    sender: Sender,
    pause: Option<Duration>,
    told: &mpsc::UnboundedSender<(Instant, u64)>,
) -> anyhow::Result<Vec<Duration>> {
    let mut stored = Vec::with_capacity(sender.batches.len());
    let mut next = tokio::time::Instant::now();
    for bytes in sender.batches {
        if let Some(pause) = pause {
            tokio::time::sleep_until(next).await;
            next += pause;
        }
        let begun = Instant::now();
        let batch = Batch::parse(&bytes)?.verify(&sender.key)?;
        let done = timed(log.ingest(batch, SystemClock.now()), &mut stored).await?;
        let reach = done.reach.context("a batch that joins the one before")?;
        let _ = told.send((begun, reach.leaves));
    }
    Ok(stored)
}

/// Pages from places all over what there is.
async fn ask(
    store: edgeward_ca::store::Store,
    number: u64,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<Vec<Duration>> {
    let limits = PageLimits {
        events: 100,
        bytes: MAX_PAGE_BYTES,
        examined: MAX_EXAMINED,
    };
    let filters = [
        Filter::default(),
        Filter {
            kind: Some(KindFilter::Exactly(EventKind::SvidRenewed)),
            ..Filter::default()
        },
        Filter {
            verdict: Some(Verdict::Deny),
            ..Filter::default()
        },
    ];
    let mut numbers = Numbers(number);
    let mut took = Vec::new();
    for filter in filters.iter().cycle() {
        if stop.is_cancelled() {
            break;
        }
        let end = store.last_leaf().await?.unwrap_or(0) + 1;
        timed(
            store.find(filter, Some(numbers.below(end)), limits),
            &mut took,
        )
        .await?;
    }
    Ok(took)
}

fn report(
    what: &str,
    events: u64,
    (stored, covered): (Duration, Duration),
    used: Duration,
    mut measured: Measured,
) {
    for times in [
        &mut measured.stored,
        &mut measured.covered,
        &mut measured.asked,
    ] {
        times.sort();
    }
    println!(
        "{what}: {events} events, {:.0}/s stored, {:.0}/s covered, cpu {:.1} us each",
        per_second(events, stored),
        per_second(events, covered),
        used.as_secs_f64() * 1e6 / per_second(events, Duration::from_secs(1)),
    );
    for (name, times) in [
        ("stored", &measured.stored),
        ("covered", &measured.covered),
        ("page of 100", &measured.asked),
    ] {
        if !times.is_empty() {
            println!(
                "  {name}: p50 {:.1} ms, p99 {:.1} ms, of {}",
                at(times, 50),
                at(times, 99),
                times.len()
            );
        }
    }
}
