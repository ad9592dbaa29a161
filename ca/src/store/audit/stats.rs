//! Counting events by time and by one of their fields.

use std::collections::BTreeMap;

use edgeward_audit::query::{Field, StatsQuery};
use edgeward_identity::Timestamp;
use sqlx::Row;

use super::conditions::{Conditions, Value, bound};
use crate::store::{Store, StoreError, number_from_column};

/// Most events in the time that is asked for: what bounds the work of one answer.
pub const MAX_COUNTED: u64 = 5_000_000;

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

/// One group of the database's answer.
struct Group {
    bucket: u64,
    value: String,
    count: u64,
}

impl Store {
    /// Counts what is asked for.
    pub async fn stats(&self, asked: &StatsQuery) -> Result<Stats, StatsFault> {
        if self.span_of_work(asked).await? > MAX_COUNTED {
            return Err(StatsFault::TooMany);
        }
        let top = usize::try_from(asked.top).unwrap_or(usize::MAX);
        let step = asked
            .bucket
            .map(|bucket| u64::try_from(bucket.as_millis()).unwrap_or(u64::MAX).max(1));
        let column = asked.by.and_then(column_of);
        // Of these there are many: the database keeps only the most frequent apart.
        let chosen = match (asked.by.filter(|field| has_many_values(*field)), column) {
            (Some(_), Some(column)) => Some(self.most_frequent(asked, column, top).await?),
            _ => None,
        };
        let groups = self.groups(asked, step, column, chosen.as_deref()).await?;
        Ok(sum(groups, asked, step, top, chosen.as_deref()))
    }

    /// How many leaves lie where events of the time asked for may be.
    async fn span_of_work(&self, asked: &StatsQuery) -> Result<u64, StoreError> {
        let Some(last) = self.last_leaf().await? else {
            return Ok(0);
        };
        let first = self.start_by_time(&asked.filter, 0).await?;
        let end = self.end_by_time(&asked.filter, last).await?;
        Ok(match (first, end) {
            (Some(first), Some(end)) => (end + 1).saturating_sub(first),
            _ => 0,
        })
    }

    async fn most_frequent(
        &self,
        asked: &StatsQuery,
        column: &'static str,
        top: usize,
    ) -> Result<Vec<String>, StoreError> {
        let conditions = Conditions::of(&asked.filter);
        let text = format!(
            "SELECT COALESCE({column}, '') AS value, COUNT(*) AS number FROM events {} \
             GROUP BY COALESCE({column}, '') ORDER BY number DESC, value LIMIT {top}",
            conditions.text
        );
        let rows = bound(text, conditions.values)
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("value")?)).collect()
    }

    async fn groups(
        &self,
        asked: &StatsQuery,
        step: Option<u64>,
        column: Option<&'static str>,
        chosen: Option<&[String]>,
    ) -> Result<Vec<Group>, StoreError> {
        let mut conditions = Conditions::of(&asked.filter);
        let bucket = step.map_or_else(|| "0".to_owned(), |step| format!("time / {step}"));
        let value = match (column, chosen) {
            (None, _) => "''".to_owned(),
            (Some(column), None) => format!("COALESCE({column}, '')"),
            (Some(column), Some(chosen)) => {
                let list: Vec<String> = chosen
                    .iter()
                    .map(|value| {
                        conditions.values.push(Value::Text(value.clone()));
                        format!("${}", conditions.values.len())
                    })
                    .collect();
                match list.is_empty() {
                    true => "''".to_owned(),
                    false => format!(
                        "CASE WHEN COALESCE({column}, '') IN ({}) THEN COALESCE({column}, '') ELSE NULL END",
                        list.join(", ")
                    ),
                }
            }
        };
        let text = format!(
            "SELECT bucket, value, COUNT(*) AS number FROM (SELECT CAST({bucket} AS BIGINT) AS bucket, {value} AS value \
             FROM events {}) AS counted GROUP BY bucket, value ORDER BY bucket",
            conditions.text
        );
        let rows = bound(text, conditions.values)
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Group {
                    bucket: number_from_column(row.try_get("bucket")?),
                    value: row
                        .try_get::<Option<String>, _>("value")?
                        // No value that is kept holds a control character.
                        .unwrap_or_else(|| OTHERS.to_owned()),
                    count: number_from_column(row.try_get("number")?),
                })
            })
            .collect()
    }
}

/// Stands for all values that are not counted by themselves.
const OTHERS: &str = "\u{0}";

fn column_of(field: Field) -> Option<&'static str> {
    Some(match field {
        Field::Type | Field::Family => "type",
        Field::Verdict => "verdict",
        Field::Node => "node",
        Field::Actor => "actor",
        Field::Subject => "subject",
        Field::Rule => "rule",
    })
}

fn has_many_values(field: Field) -> bool {
    match field {
        Field::Type | Field::Family | Field::Verdict => false,
        Field::Node | Field::Actor | Field::Subject | Field::Rule => true,
    }
}

fn sum(
    groups: Vec<Group>,
    asked: &StatsQuery,
    step: Option<u64>,
    top: usize,
    chosen: Option<&[String]>,
) -> Stats {
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut buckets: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
    let mut total = 0;
    for mut group in groups {
        if asked.by == Some(Field::Family)
            && let Some((family, _)) = group.value.split_once('.')
        {
            group.value = family.to_owned();
        }
        total += group.count;
        *totals.entry(group.value.clone()).or_default() += group.count;
        *buckets
            .entry(group.bucket)
            .or_default()
            .entry(group.value)
            .or_default() += group.count;
    }
    let mut values: Vec<(String, u64)> = totals
        .into_iter()
        .filter(|(value, _)| asked.by.is_some() && value != OTHERS)
        .filter(|(value, _)| chosen.is_none_or(|chosen| chosen.contains(value)))
        .collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    values.truncate(top);
    let buckets = match step {
        None => Vec::new(),
        Some(step) => buckets
            .into_iter()
            .map(|(number, mut counts)| {
                let total = counts.values().sum();
                counts.retain(|value, _| values.iter().any(|(kept, _)| kept == value));
                Bucket {
                    start: Timestamp::from_millis(number.saturating_mul(step)),
                    total,
                    values: counts,
                }
            })
            .collect(),
    };
    Stats {
        total,
        values,
        buckets,
    }
}
