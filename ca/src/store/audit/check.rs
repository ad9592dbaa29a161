//! A block against itself: what questions are answered from must be what the records say.

use edgeward_audit::block::{BLOCK_LEAVES, BlockTerms, Places, Row, Term};
use edgeward_audit::query::{ISSUING_KINDS, SERIAL};
use edgeward_audit::record::SealedRecord;
use sqlx::{AssertSqlSafe, Row as _};

use super::rows::places;
use super::sealing::Sealed;
use crate::store::{Store, StoreError, number_to_column};

/// Terms that are looked up by one statement.
const LOOKED_UP: usize = 64;

impl Store {
    /// Holds the columns of the block at leaf `first`, and the index of terms, to its records. Nothing to say of leaves
    /// that are in no block, and of records that are gone.
    pub async fn check_block(&self, first: u64) -> Result<(), StoreError> {
        let block = first / BLOCK_LEAVES;
        let sealed = Sealed::Columns(block);
        let mut terms = BlockTerms::new();
        let columns = self.columns_of(&[block]).await?.remove(&block);
        let bodies = self.bodies_of(block).await?;
        for part in columns.unwrap_or_default() {
            let stored = bodies.iter().find(|stored| stored.key == part.key);
            let stored = stored.ok_or_else(|| sealed.damaged("a part has no records"))?;
            let Some(records) = stored.bodies(block, self.site_keys())? else {
                continue;
            };
            let columns = part.columns(block, self.site_keys())?;
            let columns = columns.ok_or_else(|| sealed.damaged("records without columns"))?;
            for (number, row) in columns.rows().enumerate() {
                let record = records
                    .record(number)
                    .and_then(|bytes| SealedRecord::parse(bytes).ok());
                let record = record.ok_or_else(|| Sealed::Bodies(block).damaged("no record"))?;
                if !says_the_same(&row, &record) {
                    return Err(sealed.damaged(format!("row {} is not the record's", row.place)));
                }
                terms.add(row.place, record.record());
            }
        }
        let terms: Vec<(Term, Places)> = terms
            .finish(self.site_keys().term_key())
            .into_iter()
            .collect();
        for some in terms.chunks(LOOKED_UP) {
            self.check_terms(block, some).await?;
        }
        Ok(())
    }

    async fn check_terms(&self, block: u64, terms: &[(Term, Places)]) -> Result<(), StoreError> {
        let Some((last, _)) = terms.last() else {
            return Ok(());
        };
        let text = format!(
            "SELECT term, places FROM event_terms WHERE block = $1 AND term IN ({})",
            places(2, LOOKED_UP)
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(number_to_column(block));
        let all = terms.iter().map(|(term, _)| term);
        for term in all.chain(std::iter::repeat(last)).take(LOOKED_UP) {
            query = query.bind(term.to_column());
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        for (term, expected) in terms {
            let mut found = Places::NONE;
            for row in &rows {
                if row.try_get::<i64, _>("term")? == term.to_column() {
                    let places = Places::parse(row.try_get("places")?);
                    found = places.map_err(|error| Sealed::Columns(block).damaged(error))?;
                }
            }
            // What was erased is still in the index.
            if !expected.without(found).is_empty() {
                return Err(StoreError::Unreadable {
                    what: "index of terms: it leaves out events of block",
                    value: block.to_string(),
                });
            }
        }
        Ok(())
    }
}

fn says_the_same(row: &Row<'_>, sealed: &SealedRecord) -> bool {
    let (record, event) = (sealed.record(), sealed.event());
    let serial = ISSUING_KINDS
        .contains(&event.kind)
        .then(|| event.detail.get(SERIAL))
        .flatten();
    let subject = event.subject.as_ref().map(ToString::to_string);
    let rule = event.rule.as_ref().map(ToString::to_string);
    row.time == event.time
        && row.node == record.node.to_string()
        && row.boot == record.boot
        && row.seq == record.seq
        && row.kind == event.kind
        && row.actor == event.actor.to_string()
        && row.subject == subject.as_deref()
        && row.verdict == event.verdict
        && row.rule == rule.as_deref()
        && row.serial == serial
        && row.claimed == sealed.is_claimed()
}
