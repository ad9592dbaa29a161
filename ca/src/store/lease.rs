//! Work that one cloud of several does: whoever holds the row's lease.

use edgeward_identity::Timestamp;
use sqlx::AssertSqlSafe;

use super::{StoreError, Tx, to_column};

impl Tx {
    /// Takes the lease of row `name` in `table` (with columns `name`, `holder`, `leased`) for `holder` until `until`. False:
    /// somebody else holds it.
    pub(super) async fn take_lease(
        &mut self,
        table: &'static str,
        name: &str,
        holder: &str,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<bool, StoreError> {
        let text = format!(
            "UPDATE {table} SET holder = $1, leased = $2 WHERE name = $3 AND (holder = $1 OR leased <= $4)"
        );
        let taken = sqlx::query(AssertSqlSafe(text))
            .bind(holder)
            .bind(to_column(until))
            .bind(name)
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        Ok(taken.rows_affected() == 1)
    }
}
