//! What is kept beside the events so that questions find them: times by runs of leaves, serial numbers.

use std::collections::BTreeMap;

use edgeward_audit::event::Event;
use edgeward_audit::query::{Filter, ISSUING_KINDS, SERIAL};
use edgeward_audit::record::SealedRecord;
use sqlx::{AssertSqlSafe, Row};

use super::conditions::{Value, bound};
use super::event_of;
use crate::store::{Store, StoreError, Tx, number_from_column, number_to_column, to_column};

/// Leaves in one run.
pub(super) const SPAN_LEAVES: u64 = 1024;
/// Rows read at a time when serial numbers are indexed for the first time.
const BACKFILL_ROWS: u64 = 500;

impl Tx {
    /// Indexes records that are stored from `first_leaf` on.
    pub(super) async fn index_records(
        &mut self,
        records: &[SealedRecord],
        first_leaf: u64,
    ) -> Result<(), StoreError> {
        let mut spans: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
        for (leaf, sealed) in (first_leaf..).zip(records) {
            let time = to_column(sealed.event().time);
            spans
                .entry(leaf / SPAN_LEAVES)
                .and_modify(|(earliest, latest)| {
                    *earliest = time.min(*earliest);
                    *latest = time.max(*latest);
                })
                .or_insert((time, time));
            self.index_serial(sealed.event(), leaf).await?;
        }
        for (span, (earliest, latest)) in spans {
            sqlx::query(
                "INSERT INTO event_spans (span, earliest, latest) VALUES ($1, $2, $3) ON CONFLICT (span) DO UPDATE SET \
                 earliest = CASE WHEN excluded.earliest < event_spans.earliest THEN excluded.earliest \
                 ELSE event_spans.earliest END, \
                 latest = CASE WHEN excluded.latest > event_spans.latest THEN excluded.latest ELSE event_spans.latest END",
            )
            .bind(number_to_column(span))
            .bind(earliest)
            .bind(latest)
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    async fn index_serial(&mut self, event: &Event, leaf: u64) -> Result<(), StoreError> {
        let Some(serial) = serial_of(event) else {
            return Ok(());
        };
        sqlx::query(
            "INSERT INTO event_serials (serial, leaf) VALUES ($1, $2) ON CONFLICT (serial, leaf) DO NOTHING",
        )
        .bind(serial)
        .bind(number_to_column(leaf))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// Indexes the serial numbers of events that were stored before there was such an index; once.
    pub(in crate::store) async fn index_old_serials(&self) -> Result<(), StoreError> {
        let wanted = "SELECT value FROM facts WHERE name = 'audit_serials'";
        let known = sqlx::query(wanted)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        if known.is_none() {
            return Ok(());
        }
        let mut tx = self.begin("audit.index_serials").await?;
        let kinds: Vec<String> = ISSUING_KINDS
            .iter()
            .map(|kind| format!("'{}'", kind.name()))
            .collect();
        let text = format!(
            "SELECT leaf, record FROM events WHERE type IN ({}) AND leaf > $1 ORDER BY leaf LIMIT {BACKFILL_ROWS}",
            kinds.join(", ")
        );
        let mut after = -1;
        loop {
            let rows = sqlx::query(AssertSqlSafe(text.clone()))
                .bind(after)
                .fetch_all(tx.connection())
                .await?;
            let Some(last) = rows.last() else {
                break;
            };
            after = last.try_get("leaf")?;
            for row in &rows {
                let (event, _) = event_of(row.try_get("record")?)?;
                let leaf = number_from_column(row.try_get("leaf")?);
                tx.index_serial(&event, leaf).await?;
            }
        }
        sqlx::query("DELETE FROM facts WHERE name = 'audit_serials'")
            .execute(tx.connection())
            .await?;
        tx.commit().await
    }

    /// The last leaf up to `last` that may match by its time; none if none may.
    pub(super) async fn end_by_time(
        &self,
        filter: &Filter,
        last: u64,
    ) -> Result<Option<u64>, StoreError> {
        if filter.from.is_none() && filter.to.is_none() {
            return Ok(Some(last));
        }
        let span = self.span_by_time(filter, "MAX", 0).await?;
        Ok(span.map(|span| last.min((span + 1) * SPAN_LEAVES - 1)))
    }

    /// The first leaf from `next` on that may match by its time; none if none may.
    pub(super) async fn start_by_time(
        &self,
        filter: &Filter,
        next: u64,
    ) -> Result<Option<u64>, StoreError> {
        if filter.from.is_none() && filter.to.is_none() {
            return Ok(Some(next));
        }
        let span = self.span_by_time(filter, "MIN", next / SPAN_LEAVES).await?;
        Ok(span.map(|span| next.max(span * SPAN_LEAVES)))
    }

    /// The first (`MIN`) or last (`MAX`) run of leaves, from run `from` on, with times that are asked for.
    async fn span_by_time(
        &self,
        filter: &Filter,
        which: &'static str,
        from: u64,
    ) -> Result<Option<u64>, StoreError> {
        let mut text = format!("SELECT {which}(span) AS span FROM event_spans WHERE span >= $1");
        let mut values = vec![Value::Number(number_to_column(from))];
        if let Some(from) = filter.from {
            values.push(Value::Number(to_column(from)));
            text.push_str(&format!(" AND latest >= ${}", values.len()));
        }
        if let Some(to) = filter.to {
            values.push(Value::Number(to_column(to)));
            text.push_str(&format!(" AND earliest < ${}", values.len()));
        }
        let row = bound(text, values)
            .fetch_one(&mut *self.read().await?)
            .await?;
        let span: Option<i64> = row.try_get("span")?;
        Ok(span.map(number_from_column))
    }
}

/// The serial number of the certificate whose issue an event tells.
fn serial_of(event: &Event) -> Option<&str> {
    ISSUING_KINDS
        .contains(&event.kind)
        .then(|| event.detail.get(SERIAL))
        .flatten()
}
