//! The small file: clock floor, last heartbeat, newest result.

use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};
use serde::{Deserialize, Serialize};

use super::base64_bytes;

/// What changes all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recent {
    /// The node's time when this was written: later of the cloud's signed time and the clock.
    pub floor: Timestamp,
    /// The kernel's boot id at that moment, and milliseconds of its `CLOCK_BOOTTIME`.
    pub kernel_boot: String,
    pub boot_millis: u64,
    /// Cloud time of the last heartbeat; the epoch if there was none.
    pub last_heartbeat: Timestamp,
    /// Number of the newest result; the next must not have a lower one.
    pub result_number: u64,
    /// This node's newest result, a signed object; empty if it has none.
    #[serde(with = "base64_bytes")]
    pub result: Vec<u8>,
}

impl Recent {
    /// Nothing but the time.
    pub fn at(now: Timestamp, kernel_boot: &str, boottime: BootTime) -> Self {
        let mut recent = Self::default();
        recent.stamp(now, kernel_boot, boottime);
        recent
    }

    /// Sets the floor to the node's time of now.
    pub fn stamp(&mut self, now: Timestamp, kernel_boot: &str, boottime: BootTime) {
        self.floor = now;
        kernel_boot.clone_into(&mut self.kernel_boot);
        self.boot_millis = u64::try_from(boottime.as_duration().as_millis()).unwrap_or(u64::MAX);
    }

    pub fn boottime(&self) -> BootTime {
        BootTime::from_duration(Duration::from_millis(self.boot_millis))
    }
}
