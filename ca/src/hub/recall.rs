//! What is remembered of each node's evidence between its answers and its sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_evidence::Digest;
use edgeward_policy::Labels;

use super::Hub;
use crate::attest::{Known, Measured, Unmeasurable};
use crate::store::{Store, StoreError};

/// One node's.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    known: Option<Arc<Known>>,
    /// The TPM's firmware version in the evidence that passed last.
    firmware: Option<u64>,
    /// What was written of its evidence last: the same is not written again.
    written: Option<Digest>,
}

/// From the store: what must outlive a restart.
pub(super) async fn load(store: &Store) -> Result<BTreeMap<String, Recalled>, StoreError> {
    let firmwares = store.passed_firmwares().await?;
    Ok(firmwares
        .into_iter()
        .map(|(node, firmware)| {
            let recalled = Recalled {
                firmware: Some(firmware),
                ..Recalled::default()
            };
            (node, recalled)
        })
        .collect())
}

impl Hub {
    /// What a node with these labels must measure now, where no policy is tried.
    pub(crate) fn measured(&self, labels: &Labels) -> Result<Arc<Measured>, Unmeasurable> {
        self.measures.of(self.policy().as_ref(), labels)
    }

    /// What a node must measure now.
    pub(crate) fn measured_by(
        &self,
        name: &str,
        labels: &Labels,
    ) -> Result<Arc<Measured>, Unmeasurable> {
        match &self.policies.load().staged {
            Some(staged) if staged.part.holds(name) => {
                self.staged_measures.of(Some(&staged.policy), labels)
            }
            _ => self.measured(labels),
        }
    }

    pub(crate) fn known(&self, name: &str) -> Option<Arc<Known>> {
        self.recalled.lock().get(name)?.known.clone()
    }

    pub(crate) fn firmware_before(&self, name: &str) -> Option<u64> {
        self.recalled.lock().get(name)?.firmware
    }

    /// After authentic evidence. `passed`: the TPM's firmware version, where it passed.
    pub(crate) fn remember(&self, name: &str, known: Option<Arc<Known>>, passed: Option<u64>) {
        let mut recalled = self.recalled.lock();
        let entry = recalled.entry(name.to_owned()).or_default();
        entry.known = known;
        entry.firmware = passed.or(entry.firmware);
    }

    /// Whether evidence says something else than what was written last; from now on it counts as written.
    pub(crate) fn is_news(&self, name: &str, content: Digest) -> bool {
        let mut recalled = self.recalled.lock();
        let entry = recalled.entry(name.to_owned()).or_default();
        entry.written.replace(content) != Some(content)
    }

    /// The node is another one from now on, or none.
    pub(crate) fn forget(&self, name: &str) {
        self.recalled.lock().remove(name);
    }
}
