//! What people may see of the resolver.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Mode;

/// As `status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesReport {
    pub mode: Mode,
    pub zone: String,
    /// Names with an address that this node may know.
    pub known: usize,
    /// Names that two have who differ in case only: neither is found.
    pub ambiguous: usize,
    /// Where questions are taken; with the reason where they are not.
    pub listening: BTreeMap<SocketAddr, Option<String>>,
    /// Whether the machine's programs ask here; with the reason where they should and do not.
    pub asked: Option<Result<(), String>>,
}

/// The report, as it is written.
#[derive(Debug, Default)]
pub struct Shown(Mutex<NamesReport>);

impl Shown {
    pub fn report(&self) -> NamesReport {
        self.0.lock().clone()
    }

    pub(super) fn begin(&self, mode: Mode, zone: String) {
        let mut report = self.0.lock();
        (report.mode, report.zone) = (mode, zone);
    }

    pub(super) fn book(&self, known: usize, ambiguous: usize) {
        let mut report = self.0.lock();
        (report.known, report.ambiguous) = (known, ambiguous);
        metrics::gauge!("edgeward_names_known").set(u32::try_from(known).unwrap_or(u32::MAX));
    }

    pub(super) fn open(&self, address: SocketAddr) {
        self.0.lock().listening.insert(address, None);
    }

    pub(super) fn closed(&self, address: SocketAddr, reason: String) {
        self.0.lock().listening.insert(address, Some(reason));
    }

    pub(super) fn asked(&self, asked: Result<(), String>) {
        self.0.lock().asked = Some(asked);
    }
}
