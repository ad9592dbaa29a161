//! The indices that hold every event a filter asks for, in the log's order.

use edgeward_audit::query::{ActorFilter, Filter};
use sqlx::Row;

use super::conditions::{ANONYMOUS, Value, bound};
use crate::store::{Store, StoreError, number_from_column, number_to_column};

/// Up to so many places are taken from each way, however many ways there are.
const WHOLE: usize = 128;

/// One filter, as the places of several indices: an event that it asks for stands in at least one of them.
pub(super) struct Lead(Vec<Way>);

/// One place to look: a table, and what must hold there.
struct Way {
    table: &'static str,
    /// With `?` where the value goes.
    condition: &'static str,
    value: Option<String>,
}

/// Leaves that may match, ascending: all there are from where one looked up to the horizon.
pub(super) struct Candidates {
    pub(super) leaves: Vec<u64>,
    pub(super) horizon: u64,
}

impl Lead {
    /// One for each filter that has an index. The times have none in this order.
    pub(super) fn all_of(filter: &Filter) -> Vec<Self> {
        let mut leads = Vec::new();
        if let Some(serial) = &filter.serial {
            leads.push(Self::one("event_serials", "serial = ?", serial.clone()));
        }
        if let Some(rule) = &filter.rule {
            leads.push(Self::one("events", "rule = ?", rule.to_string()));
        }
        match &filter.actor {
            Some(ActorFilter::Exactly(actor)) => {
                leads.push(Self::one("events", "actor = ?", actor.to_string()));
            }
            Some(ActorFilter::AnyAnonymous) => leads.push(Self(vec![Way {
                table: "events",
                condition: ANONYMOUS,
                value: None,
            }])),
            None => {}
        }
        if let Some(node) = &filter.node {
            let ways = ["node = ?", "subject = ?"].map(|condition| Way {
                table: "events",
                condition,
                value: Some(node.to_string()),
            });
            leads.push(Self(ways.into()));
        }
        if let Some(kind) = filter.kind {
            let ways = kind.kinds().map(|kind| Way {
                table: "events",
                condition: "type = ?",
                value: Some(kind.name().to_owned()),
            });
            leads.push(Self(ways.collect()));
        }
        if let Some(verdict) = filter.verdict {
            leads.push(Self::one(
                "events",
                "verdict = ?",
                verdict.as_str().to_owned(),
            ));
        }
        leads
    }

    fn one(table: &'static str, condition: &'static str, value: String) -> Self {
        Self(vec![Way {
            table,
            condition,
            value: Some(value),
        }])
    }

    /// One statement that gives the first `limit` places of each way, with the way's number.
    fn statement(&self, first: u64, end: u64, limit: usize) -> (String, Vec<Value>) {
        let mut values = vec![
            Value::Number(number_to_column(first)),
            Value::Number(number_to_column(end)),
        ];
        let mut parts = Vec::with_capacity(self.0.len());
        for (number, way) in self.0.iter().enumerate() {
            if let Some(value) = &way.value {
                values.push(Value::Text(value.clone()));
            }
            let condition = way.condition.replace('?', &format!("${}", values.len()));
            parts.push(format!(
                "SELECT CAST({number} AS BIGINT) AS way, leaf FROM (SELECT leaf FROM {} WHERE {condition} \
                 AND leaf >= $1 AND leaf <= $2 ORDER BY leaf LIMIT {limit}) AS way_{number}",
                way.table
            ));
        }
        (parts.join(" UNION ALL "), values)
    }
}

impl Store {
    /// The leaves from `first` to `end` that may match, by the index that matches least of those at hand: at least
    /// about `limit` of them, or all.
    pub(super) async fn candidates(
        &self,
        leads: &[Lead],
        first: u64,
        end: u64,
        limit: usize,
    ) -> Result<Candidates, StoreError> {
        let mut best: Option<Candidates> = None;
        for lead in leads {
            let found = self.places(lead, first, end, limit).await?;
            let better = best.as_ref().is_none_or(|best| {
                (found.horizon, best.leaves.len()) > (best.horizon, found.leaves.len())
            });
            if better {
                best = Some(found);
            }
            // Nothing reaches further, and nothing is less.
            if best
                .as_ref()
                .is_some_and(|best| best.horizon == end && best.leaves.is_empty())
            {
                break;
            }
        }
        Ok(best.unwrap_or_else(|| {
            let step = u64::try_from(limit.max(1)).unwrap_or(1) - 1;
            let horizon = end.min(first.saturating_add(step));
            Candidates {
                leaves: (first..=horizon).collect(),
                horizon,
            }
        }))
    }

    async fn places(
        &self,
        lead: &Lead,
        first: u64,
        end: u64,
        limit: usize,
    ) -> Result<Candidates, StoreError> {
        let ways = lead.0.len().max(1);
        // Few are taken from each way whole, so that the first round of a page finds enough in one of them.
        let limit = (limit / ways).max(limit.min(WHOLE));
        let (text, values) = lead.statement(first, end, limit);
        let rows = bound(text, values)
            .fetch_all(&mut *self.read().await?)
            .await?;
        let mut leaves = Vec::with_capacity(rows.len());
        let mut ends = vec![(0_usize, 0_u64); ways];
        for row in &rows {
            let way = usize::try_from(row.try_get::<i64, _>("way")?).unwrap_or(0);
            let leaf = number_from_column(row.try_get("leaf")?);
            if let Some((count, last)) = ends.get_mut(way) {
                *count += 1;
                *last = leaf.max(*last);
            }
            leaves.push(leaf);
        }
        // Where a way was cut short, nothing is known behind its last place.
        let horizon = ends
            .iter()
            .filter(|(count, _)| *count >= limit)
            .map(|(_, last)| *last)
            .min()
            .unwrap_or(end);
        leaves.retain(|leaf| *leaf <= horizon);
        leaves.sort_unstable();
        leaves.dedup();
        Ok(Candidates { leaves, horizon })
    }
}
