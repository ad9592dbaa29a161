//! Questions to an audit log of many events: each filter, pairs of them, counts, proofs' input.
//!
//! `cargo run --release -p edgeward-tests --example audit-queries [EVENTS] [sqlite|postgresql]`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench takes the time and prints it"
)]

use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_audit::event::{Actor, Event, EventKind, Subject, Verdict};
use edgeward_audit::query::{ActorFilter, Field, Filter, KindFilter, StatsQuery};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salt, Salts, SealedRecord};
use edgeward_ca::keys::sites::SiteKeys;
use edgeward_ca::store::audit::{MAX_EXAMINED, MAX_PAGE_BYTES, PageLimits};
use edgeward_ca::store::{Database, Store};
use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};
use edgeward_tests::postgres::Postgres;

/// Nodes that keep a journal; the first records a fifth of everything.
const NODES: u64 = 1000;
/// Records of one node that are stored at once.
const BATCH: usize = 200;
/// Between two events, in milliseconds.
const STEP: u64 = 100;
const T0: u64 = 1_800_000_000_000;
/// Questions of each sort, from places all over the log.
const ROUNDS: u64 = 200;
const COUNT_ROUNDS: u64 = 5;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let which = arguments.next();
    println!(
        "events {events}, load {}",
        std::fs::read_to_string("/proc/loadavg")?.trim()
    );
    let folder = tempfile::Builder::new()
        .prefix("edgeward-audit-")
        .tempdir_in("/var/tmp")?;
    if which.as_deref() != Some("postgresql") {
        let path = folder.path().join("store.db");
        let store = Store::open(&Database::file(&path), SiteKeys::temporary()).await?;
        measure("sqlite", &store, events).await?;
        let bytes: u64 = ["store.db", "store.db-wal"]
            .iter()
            .filter_map(|name| std::fs::metadata(folder.path().join(name)).ok())
            .map(|meta| meta.len())
            .sum();
        println!("sqlite: bytes per event on disk {}", bytes / events);
        store.close().await;
    }
    if which.as_deref() != Some("sqlite") {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let server = Postgres::start(&folder.path().join("pg"))?;
        let store = Store::open(&server.url().parse()?, SiteKeys::temporary()).await?;
        measure("postgresql", &store, events).await?;
        store.close().await;
    }
    println!("load {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    Ok(())
}

async fn measure(name: &str, store: &Store, events: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    fill(store, events).await?;
    let took = begun.elapsed();
    println!(
        "{name}: filled in {:.1} s, {:.0} events/s (batches of {BATCH})",
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64()
    );
    println!("| {name}: a page of 100 | p50 ms | p99 ms | most ms | found |");
    println!("|---|---:|---:|---:|---:|");
    for (what, filter) in filters(events) {
        pages(store, what, &filter, events).await?;
    }
    println!("| {name}: counts | p50 ms | most ms |");
    println!("|---|---:|---:|");
    for (what, asked) in counts(events) {
        let mut took = Vec::new();
        for _ in 0..COUNT_ROUNDS {
            let begun = Instant::now();
            store.stats(&asked).await?;
            took.push(begun.elapsed());
        }
        took.sort();
        println!("| {what} | {:.1} | {:.1} |", at(&took, 50), at(&took, 100));
    }
    Ok(())
}

/// From a place anywhere: the first page of what follows.
async fn pages(store: &Store, what: &str, filter: &Filter, events: u64) -> anyhow::Result<()> {
    let limits = PageLimits {
        events: 100,
        bytes: MAX_PAGE_BYTES,
        examined: MAX_EXAMINED,
    };
    let mut numbers = Numbers(3);
    let (mut took, mut found) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let after = (round > 0).then(|| numbers.below(events));
        let begun = Instant::now();
        let page = store.find(filter, after, limits).await?;
        took.push(begun.elapsed());
        found += page.events.len();
    }
    took.sort();
    println!(
        "| {what} | {:.2} | {:.2} | {:.2} | {} |",
        at(&took, 50),
        at(&took, 99),
        at(&took, 100),
        found / usize::try_from(ROUNDS)?
    );
    Ok(())
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted
        .get(index)
        .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
}

fn time(events: u64, part: u64, of: u64) -> Timestamp {
    Timestamp::from_millis(T0 + events * STEP / of * part)
}

fn filters(events: u64) -> Vec<(&'static str, Filter)> {
    let all = Filter::default;
    let kind = |kind| Some(KindFilter::Exactly(kind));
    let rule = |text: &str| Some(edgeward_audit::event::Text::lossy(text));
    vec![
        ("nothing", all()),
        (
            "from (the last tenth)",
            Filter {
                from: Some(time(events, 9, 10)),
                ..all()
            },
        ),
        (
            "from, to (a hundredth)",
            Filter {
                from: Some(time(events, 50, 100)),
                to: Some(time(events, 51, 100)),
                ..all()
            },
        ),
        (
            "node (a fifth of all)",
            Filter {
                node: Some(node(0)),
                ..all()
            },
        ),
        (
            "node (one of many)",
            Filter {
                node: Some(node(77)),
                ..all()
            },
        ),
        (
            "actor",
            Filter {
                actor: Some(ActorFilter::Exactly(Actor::Identity(node(78)))),
                ..all()
            },
        ),
        (
            "anonymous",
            Filter {
                actor: Some(ActorFilter::AnyAnonymous),
                ..all()
            },
        ),
        (
            "type (frequent)",
            Filter {
                kind: kind(EventKind::FlowAllowed),
                ..all()
            },
        ),
        (
            "type (seldom)",
            Filter {
                kind: kind(EventKind::NodeQuarantined),
                ..all()
            },
        ),
        (
            "type (never)",
            Filter {
                kind: kind(EventKind::GlassOpened),
                ..all()
            },
        ),
        (
            "family",
            Filter {
                kind: Some(KindFilter::Family("flow")),
                ..all()
            },
        ),
        (
            "verdict",
            Filter {
                verdict: Some(Verdict::Deny),
                ..all()
            },
        ),
        (
            "rule",
            Filter {
                rule: rule("rule-7"),
                ..all()
            },
        ),
        (
            "serial",
            Filter {
                serial: Some(format!("{:016x}", 4711)),
                ..all()
            },
        ),
        (
            "node and type",
            Filter {
                node: Some(node(0)),
                kind: kind(EventKind::FlowDenied),
                ..all()
            },
        ),
        (
            "node, verdict, a tenth of the time",
            Filter {
                node: Some(node(77)),
                verdict: Some(Verdict::Deny),
                from: Some(time(events, 4, 10)),
                to: Some(time(events, 5, 10)),
                ..all()
            },
        ),
        // Each matches much, both together nothing.
        (
            "type and verdict that never meet",
            Filter {
                kind: kind(EventKind::FlowAllowed),
                verdict: Some(Verdict::Deny),
                ..all()
            },
        ),
    ]
}

fn counts(events: u64) -> Vec<(&'static str, StatsQuery)> {
    let asked = |by, parts: u64, bucket| StatsQuery {
        filter: Filter {
            from: Some(time(events, 0, 10)),
            to: Some(time(events, parts, 10)),
            ..Filter::default()
        },
        by,
        top: 10,
        bucket,
    };
    let hour = Some(Duration::from_secs(3600));
    vec![
        ("all of them", asked(None, 10, None)),
        ("by type", asked(Some(Field::Type), 10, None)),
        ("by type and hour", asked(Some(Field::Type), 10, hour)),
        ("by node and hour", asked(Some(Field::Node), 10, hour)),
        ("by rule", asked(Some(Field::Rule), 10, None)),
        (
            "by actor, a tenth of the time",
            asked(Some(Field::Actor), 1, hour),
        ),
    ]
}

fn node(number: u64) -> SpiffeId {
    let domain = TrustDomain::new("plant.example").expect("a trust domain");
    SpiffeId::new(&domain, Kind::Node, &format!("gw-{number}")).expect("a node")
}

async fn fill(store: &Store, events: u64) -> anyhow::Result<()> {
    let mut numbers = Numbers(1);
    let mut salts = Salts::from_seed([1; 32]);
    let mut chains: Vec<Chain> = (0..NODES)
        .map(|number| Chain::new(node(number), BootId::from_bytes([1; 16])))
        .collect();
    let mut opened = vec![false; chains.len()];
    let mut stored = 0;
    while stored < events {
        let number = match numbers.below(5) {
            0 => 0,
            _ => usize::try_from(numbers.below(NODES))?,
        };
        let (chain, opened) = chains
            .get_mut(number)
            .zip(opened.get_mut(number))
            .context("a journal")?;
        let mut records = Vec::with_capacity(BATCH);
        let wanted = BATCH.min(usize::try_from(events - stored)?);
        while records.len() < wanted {
            let at = stored + records.len() as u64;
            let record = match *opened {
                true => chain.seal(event(&mut numbers, chain.node(), at), salts.draw())?,
                false => opening(chain, at, salts.draw())?,
            };
            *opened = true;
            chain.advance(&record)?;
            records.push(record);
        }
        let mut tx = store.begin("bench").await?;
        tx.append_records(&records, Timestamp::from_millis(T0 + stored * STEP))
            .await?;
        tx.commit().await?;
        stored += records.len() as u64;
    }
    Ok(())
}

fn opening(chain: &Chain, at: u64, salt: Salt) -> anyhow::Result<SealedRecord> {
    let opened = BootOpened {
        previous: None,
        reset_count: Some(1),
        restart_count: Some(0),
    };
    let time = Timestamp::from_millis(T0 + at * STEP);
    let event = Event::new(time, Actor::Cloud, EventKind::JournalOpened);
    Ok(chain.seal_opening(opened, event, salt)?)
}

/// Six of ten are allowed flows, two denied ones; the rest is what a fleet does.
fn event(numbers: &mut Numbers, node: &SpiffeId, at: u64) -> Event {
    let time = Timestamp::from_millis(T0 + at * STEP + numbers.below(30_000));
    let peer = self::node(numbers.below(NODES));
    let sort = numbers.below(100);
    let flow = |kind| {
        Event::new(time, peer.clone(), kind)
            .subject(node.clone())
            .rule(&format!("rule-{}", at % 50))
            .detail("interface", "plant/scada")
            .detail("count", 17)
            .detail("bytes", 123_456)
    };
    match sort {
        0..60 => flow(EventKind::FlowAllowed).allowed(),
        60..80 => flow(EventKind::FlowDenied).denied("no-rule"),
        80..90 => Event::new(time, Actor::Cloud, EventKind::AttestationPassed).subject(peer),
        90..95 => Event::new(time, peer.clone(), EventKind::BindOpened)
            .subject(peer)
            .allowed(),
        95..98 => Event::new(time, Actor::Cloud, EventKind::SvidRenewed)
            .subject(peer)
            .allowed()
            .detail("serial", format!("{at:016x}")),
        98 if numbers.below(100) == 0 => {
            Event::new(time, Actor::Cloud, EventKind::NodeQuarantined).subject(peer)
        }
        98 => {
            let stranger = Actor::Anonymous(Some([10, 0, 0, 7].into()));
            Event::new(time, stranger, EventKind::SessionRefused).denied("svid_missing")
        }
        _ => Event::new(time, Actor::api_key("nightly"), EventKind::AuditRead)
            .subject(Subject::name("audit"))
            .allowed(),
    }
}
