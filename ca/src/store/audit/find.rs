//! Finding events so that a page costs no more than its limits say, whichever filters are asked for together.
//!
//! Every filter but the times has an index in the log's order. A round takes from each index its next few places,
//! goes on with the one that reaches furthest (it matches least), and reads only what stands there. A page ends at its
//! limits, or when it has looked at [`MAX_EXAMINED`] places: then it may be short, even empty, and says how far it
//! came. Left to themselves, databases choose by guesses that one busy node turns wrong.

use std::collections::BTreeSet;

use edgeward_audit::event::EventKind;
use edgeward_audit::query::{Filter, MAX_LIMIT};
use sqlx::Row;

use super::conditions::{Conditions, Value, bound};
use super::leads::Lead;
use super::query::{COLUMNS, StoredEvent, stored_event};
use crate::store::{Store, StoreError, number_to_column};

/// A page ends before the event that takes its records over this many bytes.
pub const MAX_PAGE_BYTES: usize = edgeward_audit::query::MAX_PAGE_BYTES as usize;
/// Places that one page looks at before it ends short.
pub const MAX_EXAMINED: usize = 20_000;

/// Most places taken from one index in one round.
const ROUND: usize = 4096;
/// By how much a round is larger than the one before: what matches often costs little, what matches seldom few rounds.
const GROWTH: usize = 4;
/// Rows read by one statement.
const READ_ROWS: usize = 128;

/// Some events of the log, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// Everything up to here was looked at; none if nothing was, ever.
    pub reached: Option<u64>,
    /// Whether there is more behind it, or may be.
    pub more: bool,
}

/// How much one page may hold and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    pub events: usize,
    /// Of the records. The first event comes whatever its length.
    pub bytes: usize,
    /// Places that are looked at.
    pub examined: usize,
}

impl Store {
    /// Matching events after leaf `after`. Agrees with [`Filter::matches`].
    pub async fn find(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limits: PageLimits,
    ) -> Result<Page, StoreError> {
        let mut page = Page {
            events: Vec::new(),
            reached: after,
            more: false,
        };
        let Some(last) = self.last_leaf().await? else {
            return Ok(page);
        };
        let end = self.end_by_time(filter, last).await?;
        let leads = Lead::all_of(filter);
        let (mut examined, mut bytes) = (0, 0);
        // The first round alone fills most pages.
        let mut round = limits.events.saturating_add(1).clamp(1, ROUND);
        loop {
            let next = page.reached.map_or(0, |reached| reached.saturating_add(1));
            let first = match end {
                Some(end) if next <= end => self.start_by_time(filter, next).await?,
                Some(_) | None => None,
            };
            let (Some(first), Some(end)) = (first, end) else {
                // Nothing up to the log's end is left to look at.
                page.reached = page.reached.max(Some(last));
                return Ok(page);
            };
            if examined >= limits.examined {
                page.more = true;
                return Ok(page);
            }
            let found = self.candidates(&leads, first, end, round).await?;
            examined += found.leaves.len();
            for places in found.leaves.chunks(READ_ROWS) {
                for event in self.read_places(filter, places).await? {
                    bytes += event.record.len();
                    let is_full = page.events.len() >= limits.events;
                    if is_full || (bytes > limits.bytes && !page.events.is_empty()) {
                        page.more = true;
                        page.reached = page.events.last().map_or(after, |event| Some(event.index));
                        return Ok(page);
                    }
                    page.events.push(event);
                }
            }
            page.reached = Some(found.horizon);
            round = (round * GROWTH).min(ROUND);
        }
    }

    /// Matching events after leaf `after`, oldest first, at most `limit` of them and [`MAX_PAGE_BYTES`], and whether there
    /// are more. Looks as far as it must.
    pub async fn events(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        let limits = PageLimits {
            events: usize::try_from(limit.clamp(1, MAX_LIMIT)).unwrap_or(1),
            bytes: MAX_PAGE_BYTES,
            examined: usize::MAX,
        };
        let page = self.find(filter, after, limits).await?;
        Ok((page.events, page.more))
    }

    /// Up to `limit` events of these kinds after leaf `after` and before leaf `before`, oldest first, and whether there are
    /// more.
    pub async fn events_of(
        &self,
        kinds: &BTreeSet<EventKind>,
        after: Option<u64>,
        before: u64,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        if kinds.is_empty() {
            return Ok((Vec::new(), false));
        }
        let limit = usize::try_from(limit.clamp(1, MAX_LIMIT)).unwrap_or(1);
        let places: Vec<String> = (3..kinds.len() + 3).map(|n| format!("${n}")).collect();
        let text = format!(
            "SELECT {COLUMNS} FROM events WHERE leaf > $1 AND leaf < $2 AND type IN ({}) ORDER BY leaf LIMIT {}",
            places.join(", "),
            limit + 1,
        );
        let mut values = vec![
            Value::Number(after.map_or(-1, number_to_column)),
            Value::Number(number_to_column(before)),
        ];
        values.extend(kinds.iter().map(|kind| Value::Text(kind.name().to_owned())));
        let rows = bound(text, values)
            .fetch_all(&mut *self.read().await?)
            .await?;
        let more = rows.len() > limit;
        let events = rows.iter().take(limit).map(stored_event);
        Ok((events.collect::<Result<_, _>>()?, more))
    }

    /// The event at a place in the log.
    pub async fn event_at(&self, index: u64) -> Result<Option<StoredEvent>, StoreError> {
        let found = self.read_places(&Filter::default(), &[index]).await?;
        Ok(found.into_iter().next())
    }

    /// The last leaf of the log; none if it is empty.
    pub async fn last_leaf(&self) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(leaf), -1) AS leaf FROM events")
            .fetch_one(&mut *self.read().await?)
            .await?;
        let leaf: i64 = row.try_get("leaf")?;
        Ok(u64::try_from(leaf).ok())
    }

    /// Which of these places match, at most [`READ_ROWS`] of them.
    async fn read_places(
        &self,
        filter: &Filter,
        places: &[u64],
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let Some(last) = places.last() else {
            return Ok(Vec::new());
        };
        // Always as many values, so that there is one statement to prepare.
        let padded = places
            .iter()
            .chain(std::iter::repeat(last))
            .take(if places.len() == 1 { 1 } else { READ_ROWS })
            .map(|leaf| Value::Number(number_to_column(*leaf)));
        let padded: Vec<Value> = padded.collect();
        let list = vec!["?"; padded.len()].join(", ");
        let mut conditions = Conditions::of(filter);
        conditions.add(&format!("leaf IN ({list})"), padded);
        let text = format!(
            "SELECT {COLUMNS} FROM events {} ORDER BY leaf",
            conditions.text
        );
        let rows = bound(text, conditions.values)
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter().map(stored_event).collect()
    }
}
