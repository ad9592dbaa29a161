//! What is shown of LAN interfaces and devices: written by the keeper, read by status and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_identity::{BootTime, SpiffeId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Most rules whose packets are counted apart.
const MAX_RULES: usize = 16_384;

/// One guarded port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardReport {
    /// `service/interface`.
    pub interface: String,
    pub net: String,
    /// The kernel's name.
    pub device: String,
    pub protocol: String,
    pub port: u16,
    /// Devices that may come in now.
    pub allowed: usize,
    /// Packets dropped since this agent started.
    pub dropped: u64,
}

/// One device of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    pub id: SpiffeId,
    pub net: String,
    /// How it is recognised.
    pub known_by: String,
    /// Interfaces that the kernel lets it into now: `service/interface`.
    pub allowed: Vec<String>,
    /// Seconds since the kernel last counted a packet of it at a guarded port, let in or not; to within a report.
    pub seen_secs: Option<u64>,
    /// Seconds left of its shortest lease.
    pub lease_left_secs: Option<u64>,
}

/// Packets that came in by one rule, or were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    pub packets: u64,
    pub bytes: u64,
    pub denied: u64,
}

/// Everything about LAN interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanReport {
    pub guards: Vec<GuardReport>,
    pub devices: Vec<DeviceReport>,
    /// Interfaces whose network this machine does not have: nobody is kept out there.
    pub unserved: Vec<String>,
    /// Why the kernel's table is not as policy says, if so.
    pub failed: Option<String>,
    pub rules: BTreeMap<String, RuleReport>,
}

/// The newest report.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    report: LanReport,
    seen: BTreeMap<SpiffeId, BootTime>,
    dropped: BTreeMap<String, u64>,
}

impl Shared {
    /// The report, with times as of `now`.
    pub fn get(&self, now: BootTime) -> LanReport {
        let known = self.0.lock();
        let mut report = known.report.clone();
        for device in &mut report.devices {
            let seen = known.seen.get(&device.id);
            device.seen_secs = seen.map(|at| now.since(*at).as_secs());
        }
        for guard in &mut report.guards {
            guard.dropped = known.dropped.get(&guard.interface).copied().unwrap_or(0);
        }
        report
    }

    pub(super) fn set(
        &self,
        guards: Vec<GuardReport>,
        devices: Vec<DeviceReport>,
        unserved: Vec<String>,
    ) {
        let mut known = self.0.lock();
        let here = |id: &SpiffeId| devices.iter().any(|device| device.id == *id);
        known.seen.retain(|id, _| here(id));
        let report = &mut known.report;
        (report.guards, report.devices, report.unserved) = (guards, devices, unserved);
    }

    pub(super) fn fail(&self, failed: Option<String>) {
        self.0.lock().report.failed = failed;
    }

    pub(super) fn saw(&self, device: &SpiffeId, at: BootTime) {
        self.0.lock().seen.insert(device.clone(), at);
    }

    pub(super) fn dropped(&self, interface: &Arc<str>, packets: u64) {
        let mut known = self.0.lock();
        let sum = known.dropped.entry(interface.to_string()).or_default();
        *sum = sum.saturating_add(packets);
    }

    pub(super) fn count(&self, rule: &str, more: RuleReport) {
        let mut known = self.0.lock();
        let rules = &mut known.report.rules;
        if rules.len() >= MAX_RULES && !rules.contains_key(rule) {
            return;
        }
        let sum = rules.entry(rule.to_owned()).or_default();
        sum.packets = sum.packets.saturating_add(more.packets);
        sum.bytes = sum.bytes.saturating_add(more.bytes);
        sum.denied = sum.denied.saturating_add(more.denied);
    }
}
