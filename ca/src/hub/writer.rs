//! Passes are written in groups: one transaction for all nodes that passed within a moment. What takes away is written
//! by itself, at once, and never overtaken by an older pass.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_evidence::Digest;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, RecordFault};
use crate::store::evidence::{EvidenceRow, ImaTail, Which};
use crate::store::results::AttestationRow;
use crate::store::{Store, StoreError};

/// How long passes are gathered.
const GATHER: Duration = Duration::from_millis(250);
/// Most pieces of evidence in one transaction: whoever must write a cut waits for it.
const MAX_TOGETHER: usize = 32;

/// Standings that wait to be written.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    waiting: Mutex<BTreeMap<String, AttestationRow>>,
    /// Evidence that waits, in the order in which it came.
    evidence: Mutex<Vec<Kept>>,
    /// Held while writing: an older row must not come after a newer one.
    writing: tokio::sync::Mutex<()>,
}

/// Evidence to be written.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Of [`Which::Latest`]; written as [`Which::Passed`], too, where it has no code.
    pub(crate) row: EvidenceRow,
    pub(crate) boot_log: Option<Digest>,
    /// How much of the node's IMA list belongs to it, in bytes.
    pub(crate) ima: Option<usize>,
    pub(crate) tail: Option<ImaTail>,
    /// Logs that wait to be written count as being sent: a slow disk slows their coming.
    #[expect(dead_code, reason = "held, and given back when this is dropped")]
    pub(crate) admitted: Option<OwnedSemaphorePermit>,
}

impl Writer {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Mutex::default(),
            evidence: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// To be written within [`GATHER`]; a newer standing of the same node replaces it.
    pub(super) fn soon(&self, row: AttestationRow) {
        self.waiting.lock().insert(row.node.clone(), row);
    }

    /// As [`Writer::soon`]. What cannot be written is let go: evidence comes again, standings must not wait for it.
    pub(super) fn evidence_soon(&self, kept: Kept) {
        self.evidence.lock().push(kept);
    }

    /// Written with its event before this returns.
    pub(super) async fn now(
        &self,
        row: &AttestationRow,
        audit: &AuditLog,
        event: Event,
    ) -> Result<(), RecordFault> {
        let _writing = self.writing.lock().await;
        self.waiting.lock().remove(&row.node);
        let mut tx = self.store.begin("attestation.put").await?;
        tx.put_attestation(row).await?;
        audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Writes until `stop`, then what is still waiting.
    pub(super) async fn run(&self, stop: CancellationToken) {
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(GATHER) => false,
                () = stop.cancelled() => true,
            };
            if let Err(error) = self.flush().await {
                tracing::error!(%error, "attestations cannot be written");
            }
            if last {
                return;
            }
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let kept = std::mem::take(&mut *self.evidence.lock());
        for batch in kept.chunks(MAX_TOGETHER) {
            if let Err(error) = self.write_evidence(batch).await {
                tracing::error!(%error, "evidence cannot be kept");
            }
        }
        drop(kept);
        let _writing = self.writing.lock().await;
        let rows = std::mem::take(&mut *self.waiting.lock());
        if rows.is_empty() {
            return Ok(());
        }
        let result = self.write(rows.values()).await;
        if result.is_err() {
            // Kept for the next turn, unless something newer came.
            let mut waiting = self.waiting.lock();
            for (node, row) in rows {
                waiting.entry(node).or_insert(row);
            }
        }
        result
    }

    async fn write_evidence(&self, batch: &[Kept]) -> Result<(), StoreError> {
        let mut tx = self.store.begin("evidence.put").await?;
        for kept in batch {
            if let Some(tail) = &kept.tail {
                tx.extend_ima(&kept.row.node, tail).await?;
            }
            tx.put_evidence(&kept.row, kept.boot_log, kept.ima).await?;
            if kept.row.code.is_none() {
                let passed = EvidenceRow {
                    which: Which::Passed,
                    // Brought by the row before.
                    boot_log: None,
                    ..kept.row.clone()
                };
                tx.put_evidence(&passed, kept.boot_log, kept.ima).await?;
            }
        }
        tx.commit().await
    }

    async fn write(
        &self,
        rows: impl Iterator<Item = &AttestationRow> + Send,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin("attestation.put").await?;
        for row in rows {
            tx.put_attestation(row).await?;
        }
        tx.commit().await
    }
}
