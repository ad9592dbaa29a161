//! Passes are written in groups: one transaction for all nodes that passed within a moment. What takes away is written
//! by itself, at once, and never overtaken by an older pass.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_audit::Event;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, RecordFault};
use crate::store::results::AttestationRow;
use crate::store::{Store, StoreError};

/// How long passes are gathered.
const GATHER: Duration = Duration::from_millis(250);

/// Standings that wait to be written.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    waiting: Mutex<BTreeMap<String, AttestationRow>>,
    /// Held while writing: an older row must not come after a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Writer {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// To be written within [`GATHER`]; a newer standing of the same node replaces it.
    pub(super) fn soon(&self, row: AttestationRow) {
        self.waiting.lock().insert(row.node.clone(), row);
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
