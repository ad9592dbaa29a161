//! What the newest evidence of each node said.

use edgeward_identity::{AttestationState, PublicKey, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::evidence::{KeptFinding, MAX_FINDINGS};
use super::nodes::{MAX_NODES, bytes_column};
use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, parse_column,
    time_from_column, to_column, to_json_column,
};

/// The standing of a node as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationRow {
    pub node: String,
    pub state: AttestationState,
    /// Reason code of the last refusal, while it stands.
    pub code: Option<String>,
    /// When the state was written.
    pub changed: Timestamp,
    /// Time of the last pass.
    pub passed: Option<Timestamp>,
    /// The newest signed result.
    pub result: Option<Vec<u8>>,
    pub boot_key: Option<PublicKey>,
    pub counters: Counters,
    /// What did not match in the newest evidence, also where that has no consequences.
    pub findings: Vec<KeptFinding>,
}

/// The TPM's clock and counters in the last evidence that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub reset_count: u32,
    pub restart_count: u32,
    /// Milliseconds.
    pub clock: u64,
    pub safe: bool,
}

const COLUMNS: &str = "node, state, code, changed, passed, result, boot_key, reset_count, restart_count, clock, safe, findings";

impl Store {
    pub async fn attestation(&self, node: &str) -> Result<Option<AttestationRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM attestations WHERE node = $1"
        ));
        sqlx::query(sql)
            .bind(node)
            .fetch_optional(&mut *self.read().await?)
            .await?
            .map(|row| attestation_of(&row))
            .transpose()
    }

    pub async fn attestations(&self) -> Result<Vec<AttestationRow>, StoreError> {
        let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM attestations LIMIT $1"));
        sqlx::query(sql)
            .bind(MAX_NODES)
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(attestation_of)
            .collect()
    }
}

impl Tx {
    pub async fn put_attestation(&mut self, row: &AttestationRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO attestations (node, state, code, changed, passed, result, boot_key, reset_count, \
             restart_count, clock, safe, findings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (node) DO UPDATE SET state = excluded.state, code = excluded.code, \
             changed = excluded.changed, passed = excluded.passed, result = excluded.result, \
             boot_key = excluded.boot_key, reset_count = excluded.reset_count, \
             restart_count = excluded.restart_count, clock = excluded.clock, safe = excluded.safe, \
             findings = excluded.findings",
        )
        .bind(&row.node)
        .bind(row.state.as_str())
        .bind(row.code.clone())
        .bind(to_column(row.changed))
        .bind(row.passed.map(to_column))
        .bind(row.result.as_ref().map(hex::encode))
        .bind(row.boot_key.map(|key| hex::encode(key.point())))
        .bind(i64::from(row.counters.reset_count))
        .bind(i64::from(row.counters.restart_count))
        .bind(number_to_column(row.counters.clock))
        .bind(i64::from(row.counters.safe))
        .bind(findings_to_column(&row.findings))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn remove_attestation(&mut self, node: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM attestations WHERE node = $1")
            .bind(node)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn findings_to_column(findings: &[KeptFinding]) -> Option<String> {
    let kept: Vec<&KeptFinding> = findings.iter().take(MAX_FINDINGS).collect();
    (!kept.is_empty()).then(|| to_json_column(&kept))
}

fn attestation_of(row: &AnyRow) -> Result<AttestationRow, StoreError> {
    let count = |column: i64| u32::try_from(number_from_column(column)).unwrap_or(u32::MAX);
    let result: Option<String> = row.try_get("result")?;
    let boot_key: Option<String> = row.try_get("boot_key")?;
    let boot_key = match boot_key {
        None => None,
        Some(text) => {
            let point = bytes_column("boot key", &text)?;
            let key = PublicKey::from_point(&point).map_err(|_| StoreError::Unreadable {
                what: "boot key",
                value: text,
            })?;
            Some(key)
        }
    };
    Ok(AttestationRow {
        node: row.try_get("node")?,
        state: parse_column("attestation state", row.try_get("state")?)?,
        code: row.try_get("code")?,
        changed: time_from_column(row.try_get("changed")?),
        passed: row
            .try_get::<Option<i64>, _>("passed")?
            .map(time_from_column),
        result: result
            .map(|text| bytes_column("result", &text))
            .transpose()?,
        boot_key,
        counters: Counters {
            reset_count: count(row.try_get("reset_count")?),
            restart_count: count(row.try_get("restart_count")?),
            clock: number_from_column(row.try_get("clock")?),
            safe: row.try_get::<i64, _>("safe")? != 0,
        },
        findings: row
            .try_get::<Option<String>, _>("findings")?
            .map(|text| json_column("findings", &text))
            .transpose()?
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{Signer, SoftwareKey};

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    store_tests! {
        async fn a_standing_is_read_back_as_last_written(store) {
            let mut row = AttestationRow {
                node: "a".to_owned(),
                state: AttestationState::Trusted,
                code: None,
                changed: NOW,
                passed: Some(NOW),
                result: Some(vec![1, 2, 3]),
                boot_key: Some(*SoftwareKey::generate().unwrap().public_key()),
                counters: Counters { reset_count: u32::MAX, restart_count: 2, clock: 1 << 40, safe: true },
                findings: Vec::new(),
            };
            let mut tx = store.begin("test").await.unwrap();
            tx.put_attestation(&row).await.unwrap();
            row.state = AttestationState::Failed;
            row.code = Some("quote_nonce_mismatch".to_owned());
            row.findings = vec![KeptFinding {
                code: "profile_pcr_value".to_owned(),
                pcr: Some(7),
                event: String::new(),
                found: "bb".to_owned(),
                expected: vec!["aa".to_owned()],
                advice: "look".to_owned(),
                since: NOW,
                monitored: false,
            }];
            tx.put_attestation(&row).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.attestation("a").await.unwrap(), Some(row.clone()));
            assert_eq!(store.attestations().await.unwrap(), [row]);
            let mut tx = store.begin("test").await.unwrap();
            tx.remove_attestation("a").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.attestation("a").await.unwrap(), None);
        }
    }
}
