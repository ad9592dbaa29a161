//! Whether the process can do its work: named gates, all of which must be open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The gates of one process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

/// One gate; closed when made and when dropped.
#[derive(Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.set(name, false);
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    /// The gates that are closed; ready means none. A process without gates is not ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.is_empty() {
            return vec!["start"];
        }
        gates
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| *name)
            .collect()
    }

    fn set(&self, name: &'static str, open: bool) {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.insert(name, open);
    }
}

impl Gate {
    pub fn open(&self) {
        self.readiness.set(self.name, true);
    }

    pub fn close(&self) {
        self.readiness.set(self.name, false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_gate_is_open() {
        let readiness = Readiness::new();
        assert_eq!(readiness.waiting_for(), ["start"]);
        let store = readiness.gate("store");
        let listener = readiness.gate("listener");
        store.open();
        assert_eq!(readiness.waiting_for(), ["listener"]);
        listener.open();
        assert!(readiness.waiting_for().is_empty());
        drop(store);
        assert_eq!(readiness.waiting_for(), ["store"]);
    }
}
