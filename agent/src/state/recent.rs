//! The small file: clock floor, last heartbeat, newest result.

use std::time::Duration;

use edgeward_audit::journal::Mark;
use edgeward_evidence::tpm::ClockInfo;
use edgeward_identity::{BootTime, Timestamp};
use serde::{Deserialize, Serialize};

use super::base64_bytes;

/// How much faster than real time a TPM's clock may run (TPM 2.0 part 1, 36.3: within 15 percent), as a fraction.
const TPM_CLOCK_FAST: (u64, u64) = (115, 100);

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
    /// The cloud's time beside the TPM's clock, as of the last quote; none without a TPM.
    #[serde(default)]
    pub signed: Option<SignedTime>,
    /// A record that is in this node's journal; none before the first was written.
    #[serde(default)]
    pub journal: Option<Mark>,
}

/// A moment on the cloud's clock and on the TPM's, which goes on across reboots and has no setting back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTime {
    pub time: Timestamp,
    pub tpm: ClockInfo,
}

impl SignedTime {
    /// What time it is at least, by the TPM's clock of now. None where that clock says nothing: after a power cut, until
    /// it has passed all that it said before, and after the TPM was cleared.
    pub fn floor(&self, now: &ClockInfo) -> Option<Timestamp> {
        let (then, now) = (&self.tpm, now);
        if !now.safe || now.reset_count < then.reset_count {
            return None;
        }
        let passed = now.clock_ms.checked_sub(then.clock_ms)?;
        let (fast, real) = TPM_CLOCK_FAST;
        let least = passed / fast * real;
        Some(self.time.plus(Duration::from_millis(least)))
    }
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
