//! Counting events by time and by one of their fields.

use std::collections::{BTreeMap, HashMap};

use edgeward_audit::block::{BLOCK_LEAVES, Places, Row};
use edgeward_audit::event::EventKind;
use edgeward_audit::query::{Field, Filter, KindFilter, StatsQuery};
use edgeward_audit::record::Record;
use edgeward_identity::{SpiffeId, Timestamp};

use super::asked::Asked;
use super::blocks::BLOCKS_AT_ONCE;
use super::postings::Edge;
use super::tail::missing_before;
use crate::store::{Store, StoreError, parse_column};

/// Most events in the time that is asked for: what bounds the work of one answer.
pub const MAX_COUNTED: u64 = 5_000_000;

/// Most pairs of a value and a piece of time in one answer: what bounds its memory.
const MAX_PAIRS: usize = 500_000;
/// Most events of the tail: each is opened. There are more only while the log is halted.
const MAX_TAIL: u64 = 262_144;
/// Rows of the tail that are read by one statement.
const TAIL_ROWS: u64 = 512;
/// Blocks that are looked for at once.
const ROUND: usize = 512;

/// How many events there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub total: u64,
    /// Those values of the field that have most events, most first. Empty text: the event has no such field.
    pub values: Vec<(String, u64)>,
    /// Pieces of time with events in them, oldest first.
    pub buckets: Vec<Bucket>,
}

/// A piece of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub start: Timestamp,
    pub total: u64,
    /// Of the values that are counted by themselves.
    pub values: BTreeMap<String, u64>,
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum StatsFault {
    #[error("the time asked for may hold more events than the limit: {MAX_COUNTED}")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a question counts by.
#[derive(Clone, Copy, Debug)]
struct Measure {
    by: Option<Field>,
    /// Length of a piece of time, in milliseconds.
    step: Option<u64>,
}

/// Counts by value and by piece of time.
#[derive(Debug, Default)]
struct Counts {
    /// Each value once.
    numbers: HashMap<String, usize>,
    pairs: HashMap<(usize, u64), u64>,
}

/// What counting asks of an event.
struct Counted<'a> {
    time: Timestamp,
    value: Option<&'a str>,
}

impl Store {
    /// Counts what is asked for.
    pub async fn stats(&self, asked: &StatsQuery) -> Result<Stats, StatsFault> {
        let measure = Measure {
            by: asked.by,
            step: asked
                .bucket
                .map(|bucket| u64::try_from(bucket.as_millis()).unwrap_or(u64::MAX).max(1)),
        };
        let by = Asked::by(&asked.filter);
        if self.span_of_work(&by).await? > MAX_COUNTED {
            return Err(StatsFault::TooMany);
        }
        let mut counts = Counts::default();
        self.each(&by, None, &mut |event| match event {
            Seen::Row(_, row) => counts.add(measure, &of_row(measure, row)),
            Seen::Record(_, record) => {
                let value = value_of(measure, record);
                counts.add(
                    measure,
                    &Counted {
                        time: record.event.time,
                        value: value.as_deref(),
                    },
                )
            }
        })
        .await?;
        let top = usize::try_from(asked.top).unwrap_or(usize::MAX);
        Ok(counts.sum(measure, top))
    }

    /// Reports of denied flows by node, recorded from `from` until before `until`; up to the last of them after `after`.
    pub async fn denials(
        &self,
        after: Option<u64>,
        from: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<(BTreeMap<String, u64>, Option<u64>), StoreError> {
        let filter = Filter {
            from: Some(from),
            to: until,
            kind: Some(KindFilter::Exactly(EventKind::FlowDenied)),
            ..Filter::default()
        };
        let mut reports: BTreeMap<String, u64> = BTreeMap::new();
        let mut last = after;
        let counted = self
            .each(&Asked::by(&filter), after, &mut |event| {
                let (leaf, node) = match event {
                    Seen::Row(leaf, row) => (leaf, row.node.to_owned()),
                    Seen::Record(leaf, record) => (leaf, record.node.to_string()),
                };
                *reports.entry(node).or_default() += 1;
                last = last.max(Some(leaf));
                Ok(())
            })
            .await;
        match counted {
            Ok(()) => {}
            Err(StatsFault::Store(fault)) => return Err(fault),
            Err(StatsFault::TooMany) => {
                return Err(StoreError::Unavailable("the tail is too long".to_owned()));
            }
        }
        let named = reports.into_iter().map(|(node, count)| {
            let node: SpiffeId = parse_column("spiffe id", &node)?;
            Ok((node.name().to_owned(), count))
        });
        Ok((named.collect::<Result<_, StoreError>>()?, last))
    }

    /// How many leaves lie where events of the time asked for may be.
    async fn span_of_work(&self, asked: &Asked<'_>) -> Result<u64, StoreError> {
        let blocks = self.block_count().await?;
        let Some(last) = blocks.checked_sub(1) else {
            return Ok(0);
        };
        let range = (self.minimum_index().await? / BLOCK_LEAVES, last);
        if range.0 > last {
            // All that were made are pruned.
            return Ok(0);
        }
        let first = self.edge_by_time(asked, range, Edge::First).await?;
        let end = self.edge_by_time(asked, range, Edge::Last).await?;
        Ok(match (first, end) {
            (Some(first), Some(end)) => (end + 1).saturating_sub(first) * BLOCK_LEAVES,
            _ => 0,
        })
    }

    /// Shows every event that matches after leaf `after`. What was erased is not there to be seen.
    async fn each(
        &self,
        asked: &Asked<'_>,
        after: Option<u64>,
        see: &mut (dyn for<'s> FnMut(Seen<'s>) -> Result<(), StatsFault> + Send),
    ) -> Result<(), StatsFault> {
        let wanted = asked.terms(self.site_keys().term_key());
        let minimum = self.minimum_index().await?;
        let mut next = after
            .map_or(0, |after| after.saturating_add(1))
            .max(minimum);
        let mut opened = 0;
        loop {
            let blocks = self.block_count().await?;
            while next / BLOCK_LEAVES < blocks {
                let range = (next / BLOCK_LEAVES, blocks - 1);
                let first = self.edge_by_time(asked, range, Edge::First).await?;
                let end = self.edge_by_time(asked, range, Edge::Last).await?;
                let (Some(first), Some(end)) = (first, end) else {
                    next = blocks * BLOCK_LEAVES;
                    break;
                };
                let found = self.candidates(asked, &wanted, (first, end), ROUND).await?;
                for some in found.blocks.chunks(BLOCKS_AT_ONCE) {
                    self.each_row(asked, next, some, see).await?;
                }
                next = (found.horizon + 1) * BLOCK_LEAVES;
            }
            let rows = self.tail_from(next, TAIL_ROWS).await?;
            if rows.first().is_none_or(|row| row.leaf != next) {
                if next / BLOCK_LEAVES < self.block_count().await? {
                    continue;
                }
                return match rows.first() {
                    Some(row) => Err(missing_before(row.leaf).into()),
                    None => Ok(()),
                };
            }
            opened += rows.len() as u64;
            if opened > MAX_TAIL {
                return Err(StatsFault::TooMany);
            }
            for row in &rows {
                let record = row.open(self.site_keys())?;
                if let Some(record) = record.filter(|one| asked.matches(one.record())) {
                    see(Seen::Record(row.leaf, record.record()))?;
                }
                next = row.leaf + 1;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn each_row(
        &self,
        asked: &Asked<'_>,
        next: u64,
        blocks: &[(u64, Places)],
        see: &mut (dyn for<'s> FnMut(Seen<'s>) -> Result<(), StatsFault> + Send),
    ) -> Result<(), StatsFault> {
        let numbers: Vec<u64> = blocks.iter().map(|(block, _)| *block).collect();
        let columns = self.columns_of(&numbers).await?;
        for (block, places) in blocks {
            let start = block * BLOCK_LEAVES;
            for part in columns.get(block).into_iter().flatten() {
                if part.places.and(*places).is_empty() {
                    continue;
                }
                let Some(columns) = part.columns(*block, self.site_keys())? else {
                    continue;
                };
                for (_, row) in asked.rows(&columns, *places) {
                    let leaf = start + u64::from(row.place);
                    if leaf >= next {
                        see(Seen::Row(leaf, &row))?;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// An event that matches, with its leaf.
enum Seen<'a> {
    Row(u64, &'a Row<'a>),
    Record(u64, &'a Record),
}

impl Counts {
    fn add(&mut self, measure: Measure, event: &Counted<'_>) -> Result<(), StatsFault> {
        let value = event.value.unwrap_or_default();
        let number = match self.numbers.get(value) {
            Some(number) => *number,
            None => {
                let number = self.numbers.len();
                self.numbers.insert(value.to_owned(), number);
                number
            }
        };
        let piece = measure.step.map_or(0, |step| event.time.millis() / step);
        *self.pairs.entry((number, piece)).or_default() += 1;
        match self.pairs.len() > MAX_PAIRS {
            true => Err(StatsFault::TooMany),
            false => Ok(()),
        }
    }

    fn sum(self, measure: Measure, top: usize) -> Stats {
        let mut totals = vec![0_u64; self.numbers.len()];
        for ((number, _), count) in &self.pairs {
            if let Some(total) = totals.get_mut(*number) {
                *total += count;
            }
        }
        let mut values: Vec<(String, usize, u64)> = self
            .numbers
            .into_iter()
            .map(|(value, number)| {
                let total = totals.get(number).copied().unwrap_or(0);
                (value, number, total)
            })
            .collect();
        values.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        values.truncate(if measure.by.is_some() { top } else { 0 });
        let kept: HashMap<usize, &str> = values
            .iter()
            .map(|(value, number, _)| (*number, value.as_str()))
            .collect();
        let mut buckets: BTreeMap<u64, Bucket> = BTreeMap::new();
        if let Some(step) = measure.step {
            for ((number, piece), count) in &self.pairs {
                let bucket = buckets.entry(*piece).or_insert_with(|| Bucket {
                    start: Timestamp::from_millis(piece.saturating_mul(step)),
                    total: 0,
                    values: BTreeMap::new(),
                });
                bucket.total += count;
                if let Some(value) = kept.get(number) {
                    *bucket.values.entry((*value).to_owned()).or_default() += count;
                }
            }
        }
        Stats {
            total: totals.iter().sum(),
            buckets: buckets.into_values().collect(),
            values: values
                .into_iter()
                .map(|(value, _, total)| (value, total))
                .collect(),
        }
    }
}

fn of_row<'a>(measure: Measure, row: &Row<'a>) -> Counted<'a> {
    let value = measure.by.and_then(|by| match by {
        Field::Type => Some(row.kind.name()),
        Field::Family => Some(row.kind.family()),
        Field::Verdict => Some(row.verdict.as_str()),
        Field::Node => Some(row.node),
        Field::Actor => Some(row.actor),
        Field::Subject => row.subject,
        Field::Rule => row.rule,
    });
    Counted {
        time: row.time,
        value,
    }
}

fn value_of(measure: Measure, record: &Record) -> Option<String> {
    let event = &record.event;
    measure.by.and_then(|by| match by {
        Field::Type => Some(event.kind.name().to_owned()),
        Field::Family => Some(event.kind.family().to_owned()),
        Field::Verdict => Some(event.verdict.as_str().to_owned()),
        Field::Node => Some(record.node.to_string()),
        Field::Actor => Some(event.actor.to_string()),
        Field::Subject => event.subject.as_ref().map(ToString::to_string),
        Field::Rule => event.rule.as_ref().map(ToString::to_string),
    })
}
