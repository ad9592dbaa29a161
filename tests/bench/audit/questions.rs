//! Questions to a log of many events: each filter, pairs of them, counts.

use std::time::Duration;

use edgeward_audit::event::{Actor, EventKind, Verdict};
use edgeward_audit::query::{ActorFilter, Field, Filter, KindFilter, StatsQuery};
use edgeward_ca::store::Store;
use edgeward_ca::store::audit::{MAX_EXAMINED, MAX_PAGE_BYTES, PageLimits};
use edgeward_identity::Timestamp;

use super::fleet::{Numbers, node, time as time_of};
use super::{at, timed};

/// Questions of each sort, from places all over the log.
const ROUNDS: u64 = 200;
const COUNT_ROUNDS: u64 = 5;

/// `events` of a fleet, at the end of the log.
pub(super) async fn measure(store: &Store, events: u64) -> anyhow::Result<()> {
    let leaves = store.last_leaf().await?.unwrap_or(0) + 1;
    println!("| a page of 100 | p50 ms | p99 ms | most ms | found |");
    println!("|---|---:|---:|---:|---:|");
    for (what, filter) in filters(events) {
        pages(store, what, &filter, leaves).await?;
    }
    println!("| counts | p50 ms | most ms |");
    println!("|---|---:|---:|");
    for (what, asked) in counts(events) {
        let mut took = Vec::new();
        for _ in 0..COUNT_ROUNDS {
            timed(store.stats(&asked), &mut took).await?;
        }
        took.sort();
        println!("| {what} | {:.1} | {:.1} |", at(&took, 50), at(&took, 100));
    }
    Ok(())
}

/// From a place anywhere: the first page of what follows.
async fn pages(store: &Store, what: &str, filter: &Filter, leaves: u64) -> anyhow::Result<()> {
    let limits = PageLimits {
        events: 100,
        bytes: MAX_PAGE_BYTES,
        examined: MAX_EXAMINED,
    };
    let mut numbers = Numbers(3);
    let (mut took, mut found) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let after = (round > 0).then(|| numbers.below(leaves));
        let page = timed(store.find(filter, after, limits), &mut took).await?;
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

fn time(events: u64, part: u64, of: u64) -> Timestamp {
    time_of(events * part / of)
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
