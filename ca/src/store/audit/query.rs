//! Finding events by filters, in the log's order.

use std::collections::BTreeSet;

use edgeward_audit::digest::Digest;
use edgeward_audit::event::{Event, EventKind};
use edgeward_audit::query::{ActorFilter, Filter, ISSUING_KINDS, MAX_LIMIT, SERIAL};
use edgeward_audit::record::BootId;
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::event_of;
use crate::store::{
    Store, StoreError, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// A page ends with the event that takes its records over this many bytes.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// An event in its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its index in the log: the global order.
    pub index: u64,
    pub node: SpiffeId,
    pub boot: BootId,
    pub seq: u64,
    /// Of the whole record.
    pub hash: Digest,
    pub received: Timestamp,
    pub event: Event,
    /// The record as its keeper wrote it: what is hashed.
    pub record: String,
    /// Its keeper says so, and it is not its keeper's to say: nothing may act on it.
    pub claimed: bool,
}

impl Store {
    /// Up to `limit` matching events after leaf `after`, oldest first, and whether there are more. Agrees with
    /// [`Filter::matches`].
    pub async fn events(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        let limit = usize::try_from(limit.clamp(1, MAX_LIMIT)).unwrap_or(1);
        let mut conditions = Conditions::of(filter);
        if let Some(after) = after {
            conditions.add("leaf > ?", [Value::Number(number_to_column(after))]);
        }
        let text = format!(
            "SELECT leaf, node, boot, seq, hash, received, record FROM events {} ORDER BY leaf LIMIT {}",
            conditions.text,
            limit + 1,
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in conditions.values {
            query = match value {
                Value::Number(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            };
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let mut bytes = 0;
        let mut events = Vec::with_capacity(rows.len().min(limit));
        for row in rows.iter().take(limit) {
            events.push(stored_event(row)?);
            bytes += row.try_get::<&str, _>("record")?.len();
            if bytes > MAX_PAGE_BYTES {
                break;
            }
        }
        let more = rows.len() > events.len();
        Ok((events, more))
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
            "SELECT leaf, node, boot, seq, hash, received, record FROM events \
             WHERE leaf > $1 AND leaf < $2 AND type IN ({}) ORDER BY leaf LIMIT {}",
            places.join(", "),
            limit + 1,
        );
        let mut query = sqlx::query(AssertSqlSafe(text))
            .bind(after.map_or(-1, number_to_column))
            .bind(number_to_column(before));
        for kind in kinds {
            query = query.bind(kind.name());
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let mut events = Vec::with_capacity(rows.len().min(limit));
        for row in rows.iter().take(limit) {
            events.push(stored_event(row)?);
        }
        let more = rows.len() > limit;
        Ok((events, more))
    }

    /// The last leaf of the log; none if it is empty.
    pub async fn last_leaf(&self) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(leaf), -1) AS leaf FROM events")
            .fetch_one(&mut *self.read().await?)
            .await?;
        let leaf: i64 = row.try_get("leaf")?;
        Ok(u64::try_from(leaf).ok())
    }
}

enum Value {
    Number(i64),
    Text(String),
}

/// A `WHERE` made of fixed texts; whatever came from outside is bound.
struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(filter: &Filter) -> Self {
        let mut all = Self {
            text: String::new(),
            values: Vec::new(),
        };
        if let Some(from) = filter.from {
            all.add("time >= ?", [Value::Number(to_column(from))]);
        }
        if let Some(to) = filter.to {
            all.add("time < ?", [Value::Number(to_column(to))]);
        }
        if let Some(node) = &filter.node {
            let node = || Value::Text(node.to_string());
            all.add("(node = ? OR subject = ?)", [node(), node()]);
        }
        match &filter.actor {
            Some(ActorFilter::Exactly(actor)) => {
                all.add("actor = ?", [Value::Text(actor.to_string())]);
            }
            Some(ActorFilter::AnyAnonymous) => {
                all.add("actor LIKE 'anonymous%'", []);
            }
            None => {}
        }
        if let Some(kind) = filter.kind {
            let kinds: Vec<Value> = kind
                .kinds()
                .map(|kind| Value::Text(kind.name().to_owned()))
                .collect();
            let list = vec!["?"; kinds.len()].join(", ");
            all.add(&format!("type IN ({list})"), kinds);
        }
        if let Some(verdict) = filter.verdict {
            all.add("verdict = ?", [Value::Text(verdict.as_str().to_owned())]);
        }
        if let Some(rule) = &filter.rule {
            all.add("rule = ?", [Value::Text(rule.to_string())]);
        }
        if let Some(serial) = &filter.serial {
            // The events that issue are few beside all others, and found by their type. Quotes inside a detail are
            // escaped, so the text stands for nothing but this field.
            let mut values: Vec<Value> = ISSUING_KINDS
                .iter()
                .map(|kind| Value::Text(kind.name().to_owned()))
                .collect();
            let list = vec!["?"; values.len()].join(", ");
            values.push(Value::Text(format!("%\"{SERIAL}\":\"{serial}\"%")));
            all.add(&format!("type IN ({list}) AND record LIKE ?"), values);
        }
        all
    }

    /// Adds a condition; each `?` in it becomes the next `$N`.
    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push_str(if self.text.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
        let mut number = self.values.len();
        for character in condition.chars() {
            match character {
                '?' => {
                    number += 1;
                    self.text.push_str(&format!("${number}"));
                }
                other => self.text.push(other),
            }
        }
        self.values.extend(values);
    }
}

fn stored_event(row: &AnyRow) -> Result<StoredEvent, StoreError> {
    let (event, claimed) = event_of(row.try_get("record")?)?;
    Ok(StoredEvent {
        index: number_from_column(row.try_get("leaf")?),
        node: parse_column("spiffe id", row.try_get("node")?)?,
        boot: parse_column("boot id", row.try_get("boot")?)?,
        seq: number_from_column(row.try_get("seq")?),
        hash: parse_column("hash", row.try_get("hash")?)?,
        received: time_from_column(row.try_get("received")?),
        event,
        claimed,
        record: row.try_get("record")?,
    })
}
