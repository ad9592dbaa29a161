//! The newest evidence of each node, and the newest that passed: what people look at, compare and make profiles of. The
//! cloud itself never reads it back to judge anything.
//!
//! Bounded for each node: two rows, at most two boot logs, one IMA list of [`MAX_IMA_KEPT`].

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::Digest;
use edgeward_evidence::tpm::PcrBank;
use edgeward_identity::{Tier, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::nodes::{MAX_NODES, bytes_column};
use super::{
    Store, StoreError, Tx, json_column, number_to_column, parse_column, time_from_column,
    to_column, to_json_column,
};

/// Longest IMA list that is kept, in bytes of the kernel's binary form. A longer one is judged and not kept.
pub const MAX_IMA_KEPT: usize = 2 * 1024 * 1024;
/// Longest boot log that is kept, in bytes: as long as one may be.
pub const MAX_BOOT_LOG_KEPT: usize = 1024 * 1024;
/// Most findings that are kept of one piece of evidence.
pub const MAX_FINDINGS: usize = 32;

/// Which evidence of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest that was authentic, passed or not.
    Latest,
    /// The newest that passed.
    Passed,
}

/// Evidence of a node as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRow {
    pub node: String,
    pub which: Which,
    /// When it came. Evidence that says the same as the one before is not written again.
    pub taken: Timestamp,
    /// Reason code, where it did not pass.
    pub code: Option<String>,
    pub bank: PcrBank,
    /// Quoted PCRs: index to value in hex.
    pub pcrs: BTreeMap<u8, String>,
    pub firmware: u64,
    pub tier: Tier,
    /// What the boot log says; `None` without one.
    pub secure_boot: Option<bool>,
    /// The firmware's event log.
    pub boot_log: Option<Vec<u8>>,
    /// The IMA list in the kernel's binary form; `None` where none was asked for, or it is longer than [`MAX_IMA_KEPT`].
    pub ima: Option<Vec<u8>>,
    pub findings: Vec<KeptFinding>,
}

/// Entries of an IMA list that follow those known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaTail {
    /// Bytes of the list before these entries; 0 begins a new list.
    pub after: usize,
    pub entries: Vec<u8>,
}

/// One thing that is not as a profile says, with what the cloud knows about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptFinding {
    /// Stable reason code.
    pub code: String,
    pub pcr: Option<u8>,
    /// Which event of which log, as people name it; may be empty.
    pub event: String,
    pub found: String,
    pub expected: Vec<String>,
    /// What to do about it.
    pub advice: String,
    /// Since when this node has had it.
    pub since: Timestamp,
    /// True: recorded only, since its profile monitors.
    pub monitored: bool,
}

impl Store {
    /// The kept evidence of a node, with its logs.
    pub async fn evidence(
        &self,
        node: &str,
        which: Which,
    ) -> Result<Option<EvidenceRow>, StoreError> {
        let row = sqlx::query(
            "SELECT e.taken, e.code, e.bank, e.pcrs, e.firmware, e.tier, e.secure_boot, e.ima, e.findings, \
             l.log AS boot_log, i.list AS ima_list FROM evidence e \
             LEFT JOIN evidence_logs l ON l.node = e.node AND l.hash = e.boot_log \
             LEFT JOIN evidence_ima i ON i.node = e.node WHERE e.node = $1 AND e.which = $2",
        )
        .bind(node)
        .bind(which.as_str())
        .fetch_optional(&mut *self.read().await?)
        .await?;
        row.map(|row| evidence_of(node, which, &row)).transpose()
    }

    /// The TPM's firmware version in the newest evidence of every node that passed.
    pub async fn passed_firmwares(&self) -> Result<Vec<(String, u64)>, StoreError> {
        sqlx::query("SELECT node, firmware FROM evidence WHERE which = $1 LIMIT $2")
            .bind(Which::Passed.as_str())
            .bind(MAX_NODES)
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(|row| {
                let firmware: String = row.try_get("firmware")?;
                Ok((row.try_get("node")?, firmware_from_column(&firmware)?))
            })
            .collect()
    }
}

impl Tx {
    /// Replaces the evidence of a node. `row.ima` is not looked at: the list is added to by [`Tx::extend_ima`].
    ///
    /// `boot_log` is the SHA-256 of the log that belongs to it: `row.boot_log` brings it where it is new, and one that
    /// is kept already stays.
    pub async fn put_evidence(
        &mut self,
        row: &EvidenceRow,
        boot_log: Option<Digest>,
        ima: Option<usize>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO evidence (node, which, taken, code, bank, pcrs, firmware, tier, secure_boot, boot_log, ima, \
             findings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (node, which) DO UPDATE SET taken = excluded.taken, code = excluded.code, \
             bank = excluded.bank, pcrs = excluded.pcrs, firmware = excluded.firmware, tier = excluded.tier, \
             secure_boot = excluded.secure_boot, boot_log = excluded.boot_log, ima = excluded.ima, \
             findings = excluded.findings",
        )
        .bind(&row.node)
        .bind(row.which.as_str())
        .bind(to_column(row.taken))
        .bind(row.code.clone())
        .bind(bank_to_column(row.bank))
        .bind(to_json_column(&row.pcrs))
        .bind(format!("{:016x}", row.firmware))
        .bind(row.tier.as_str())
        .bind(row.secure_boot.map(i64::from))
        .bind(boot_log.map(|hash| hash.to_string()))
        .bind(ima.map(bytes_to_column))
        .bind(to_json_column(
            &row.findings.iter().take(MAX_FINDINGS).collect::<Vec<_>>(),
        ))
        .execute(self.connection())
        .await?;
        if let (Some(hash), Some(log)) = (boot_log, &row.boot_log)
            && log.len() <= MAX_BOOT_LOG_KEPT
        {
            sqlx::query(
                "INSERT INTO evidence_logs (node, hash, log) VALUES ($1, $2, $3) ON CONFLICT (node, hash) DO NOTHING",
            )
            .bind(&row.node)
            .bind(hash.to_string())
            .bind(STANDARD.encode(log))
            .execute(self.connection())
            .await?;
        }
        sqlx::query(
            "DELETE FROM evidence_logs WHERE node = $1 AND hash NOT IN \
             (SELECT boot_log FROM evidence WHERE node = $1 AND boot_log IS NOT NULL)",
        )
        .bind(&row.node)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Adds to the IMA list of a node. A tail that does not follow what is kept, or makes it too long, ends the keeping
    /// until the next list begins.
    pub async fn extend_ima(&mut self, node: &str, tail: &ImaTail) -> Result<(), StoreError> {
        let long = tail.after.saturating_add(tail.entries.len()) > MAX_IMA_KEPT;
        let kept = bytes_to_column(tail.after).saturating_mul(2);
        if tail.after == 0 || long {
            sqlx::query("DELETE FROM evidence_ima WHERE node = $1")
                .bind(node)
                .execute(self.connection())
                .await?;
        }
        if long {
            return Ok(());
        }
        if tail.after == 0 {
            // What earlier evidence had of a list went with that list.
            sqlx::query("UPDATE evidence SET ima = NULL WHERE node = $1")
                .bind(node)
                .execute(self.connection())
                .await?;
            sqlx::query("INSERT INTO evidence_ima (node, list) VALUES ($1, $2)")
                .bind(node)
                .bind(hex::encode(&tail.entries))
                .execute(self.connection())
                .await?;
            return Ok(());
        }
        sqlx::query(
            "UPDATE evidence_ima SET list = SUBSTR(list, 1, CAST($2 AS INTEGER)) || $3 \
             WHERE node = $1 AND LENGTH(list) >= $2",
        )
        .bind(node)
        .bind(kept)
        .bind(hex::encode(&tail.entries))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Deletes all evidence of a node: it is removed.
    pub async fn remove_evidence(&mut self, node: &str) -> Result<(), StoreError> {
        for table in [
            "DELETE FROM evidence WHERE node = $1",
            "DELETE FROM evidence_logs WHERE node = $1",
            "DELETE FROM evidence_ima WHERE node = $1",
        ] {
            sqlx::query(table)
                .bind(node)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}

impl Which {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Passed => "passed",
        }
    }
}

fn evidence_of(node: &str, which: Which, row: &AnyRow) -> Result<EvidenceRow, StoreError> {
    let firmware: String = row.try_get("firmware")?;
    let log: Option<String> = row.try_get("boot_log")?;
    let log = match log {
        None => None,
        Some(text) => Some(STANDARD.decode(&text).map_err(|_| unreadable("boot log"))?),
    };
    Ok(EvidenceRow {
        node: node.to_owned(),
        which,
        taken: time_from_column(row.try_get("taken")?),
        code: row.try_get("code")?,
        bank: bank_from_column(row.try_get("bank")?)?,
        pcrs: json_column("pcr values", row.try_get("pcrs")?)?,
        firmware: firmware_from_column(&firmware)?,
        tier: parse_column("tier", row.try_get("tier")?)?,
        secure_boot: row
            .try_get::<Option<i64>, _>("secure_boot")?
            .map(|value| value != 0),
        boot_log: log,
        ima: ima_of(row.try_get("ima")?, row.try_get("ima_list")?)?,
        findings: json_column("findings", row.try_get("findings")?)?,
    })
}

/// As much of the kept list as belongs to the evidence; `None` where not all of that is kept.
fn ima_of(bytes: Option<i64>, list: Option<String>) -> Result<Option<Vec<u8>>, StoreError> {
    let (Some(bytes), Some(list)) = (bytes, list) else {
        return Ok(None);
    };
    let digits = usize::try_from(bytes)
        .unwrap_or(usize::MAX)
        .saturating_mul(2);
    list.get(..digits)
        .map(|text| bytes_column("ima list", text))
        .transpose()
}

fn firmware_from_column(text: &str) -> Result<u64, StoreError> {
    u64::from_str_radix(text, 16).map_err(|_| unreadable("firmware"))
}

fn unreadable(what: &'static str) -> StoreError {
    StoreError::Unreadable {
        what,
        value: "not as it was written".to_owned(),
    }
}

fn bytes_to_column(bytes: usize) -> i64 {
    number_to_column(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn bank_to_column(bank: PcrBank) -> &'static str {
    match bank {
        PcrBank::Sha256 => "sha256",
        PcrBank::Sha384 => "sha384",
        PcrBank::Sha512 => "sha512",
    }
}

fn bank_from_column(text: &str) -> Result<PcrBank, StoreError> {
    [PcrBank::Sha256, PcrBank::Sha384, PcrBank::Sha512]
        .into_iter()
        .find(|bank| bank_to_column(*bank) == text)
        .ok_or_else(|| StoreError::Unreadable {
            what: "pcr bank",
            value: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn row(which: Which) -> EvidenceRow {
        EvidenceRow {
            node: "a".to_owned(),
            which,
            taken: NOW,
            code: None,
            bank: PcrBank::Sha384,
            pcrs: BTreeMap::from([(0, "aa".repeat(48)), (7, "bb".repeat(48))]),
            firmware: u64::MAX,
            tier: Tier::Listed,
            secure_boot: Some(true),
            boot_log: Some(vec![1, 2, 3]),
            ima: None,
            findings: Vec::new(),
        }
    }

    fn finding() -> KeptFinding {
        KeptFinding {
            code: "profile_pcr_value".to_owned(),
            pcr: Some(7),
            event: "EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot".to_owned(),
            found: "bb".to_owned(),
            expected: vec!["aa".to_owned()],
            advice: "turn secure boot on".to_owned(),
            since: NOW,
            monitored: true,
        }
    }

    async fn put(store: &Store, row: &EvidenceRow, log: Option<Digest>, ima: Option<usize>) {
        let mut tx = store.begin("test").await.unwrap();
        tx.put_evidence(row, log, ima).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn extend(store: &Store, after: usize, entries: &[u8]) {
        let tail = ImaTail {
            after,
            entries: entries.to_vec(),
        };
        let mut tx = store.begin("test").await.unwrap();
        tx.extend_ima("a", &tail).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn count(store: &Store, table: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) AS n FROM {table}"));
        sqlx::query(sql)
            .fetch_one(&mut *store.read().await.unwrap())
            .await
            .unwrap()
            .try_get("n")
            .unwrap()
    }

    store_tests! {
        async fn evidence_of_a_node_that_gave_none_is_none(store) {
            assert_eq!(store.evidence("a", Which::Latest).await.unwrap(), None);
            let row = row(Which::Passed);
            put(&store, &row, None, None).await;
            assert_eq!(store.evidence("a", Which::Latest).await.unwrap(), None);
            assert_eq!(store.evidence("b", Which::Passed).await.unwrap(), None);
        }

        async fn the_newest_and_the_passed_evidence_are_read_back_each_with_its_log(store) {
            let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
            let passed = row(Which::Passed);
            put(&store, &passed, Some(one), None).await;
            let mut latest = row(Which::Latest);
            latest.code = Some("profile_pcr_value".to_owned());
            latest.findings = vec![finding()];
            latest.boot_log = Some(vec![9; 100_000]);
            put(&store, &latest, Some(two), None).await;
            assert_eq!(store.evidence("a", Which::Passed).await.unwrap(), Some(passed));
            assert_eq!(store.evidence("a", Which::Latest).await.unwrap(), Some(latest));
            let firmwares = store.passed_firmwares().await.unwrap();
            assert_eq!(firmwares, [("a".to_owned(), u64::MAX)]);
        }

        async fn a_log_is_kept_as_long_as_evidence_names_it_and_not_twice(store) {
            let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
            put(&store, &row(Which::Passed), Some(one), None).await;
            let mut latest = row(Which::Latest);
            // Known already: not brought again.
            latest.boot_log = None;
            put(&store, &latest, Some(one), None).await;
            assert_eq!(count(&store, "evidence_logs").await, 1);
            let read = store.evidence("a", Which::Latest).await.unwrap().unwrap();
            assert_eq!(read.boot_log, Some(vec![1, 2, 3]));
            latest.boot_log = Some(vec![2]);
            put(&store, &latest, Some(two), None).await;
            let mut passed = row(Which::Passed);
            passed.boot_log = None;
            put(&store, &passed, Some(two), None).await;
            assert_eq!(count(&store, "evidence_logs").await, 1);
        }

        async fn an_ima_list_grows_at_its_end_and_begins_anew(store) {
            extend(&store, 0, &[1, 2, 3]).await;
            put(&store, &row(Which::Passed), None, Some(3)).await;
            extend(&store, 3, &[4, 5]).await;
            put(&store, &row(Which::Latest), None, Some(5)).await;
            let ima = async |which| store.evidence("a", which).await.unwrap().unwrap().ima;
            assert_eq!(ima(Which::Passed).await, Some(vec![1, 2, 3]));
            assert_eq!(ima(Which::Latest).await, Some(vec![1, 2, 3, 4, 5]));
            // What did not pass is sent again, and replaced.
            extend(&store, 3, &[6]).await;
            put(&store, &row(Which::Latest), None, Some(4)).await;
            assert_eq!(ima(Which::Latest).await, Some(vec![1, 2, 3, 6]));
            extend(&store, 0, &[7]).await;
            assert_eq!(ima(Which::Passed).await, None);
        }

        async fn an_ima_list_with_a_gap_or_above_the_limit_is_not_kept(store) {
            put(&store, &row(Which::Latest), None, Some(9)).await;
            extend(&store, 3, &[4, 5]).await;
            assert_eq!(store.evidence("a", Which::Latest).await.unwrap().unwrap().ima, None);
            extend(&store, 0, &[1, 2]).await;
            extend(&store, 5, &[1, 2]).await;
            put(&store, &row(Which::Latest), None, Some(7)).await;
            assert_eq!(store.evidence("a", Which::Latest).await.unwrap().unwrap().ima, None);
            extend(&store, 2, &vec![0; MAX_IMA_KEPT]).await;
            assert_eq!(count(&store, "evidence_ima").await, 0);
        }

        async fn a_removed_node_leaves_no_evidence(store) {
            put(&store, &row(Which::Passed), Some(Digest::of(b"one")), Some(1)).await;
            extend(&store, 0, &[1]).await;
            let mut tx = store.begin("test").await.unwrap();
            tx.remove_evidence("a").await.unwrap();
            tx.commit().await.unwrap();
            for table in ["evidence", "evidence_logs", "evidence_ima"] {
                assert_eq!(count(&store, table).await, 0, "{table}");
            }
        }
    }
}
