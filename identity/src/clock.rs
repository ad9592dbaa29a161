//! Time is told, not taken: cores receive a [`Timestamp`] or [`BootTime`]; only shells hold a [`Clock`].

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z. Certificate and record time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// Time since boot, suspend included (`CLOCK_BOOTTIME`): what leases run on, since nobody can set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootTime(Duration);

/// Where a shell gets its time from.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    fn boottime(&self) -> BootTime;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Later by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(by)))
    }

    /// Earlier by `by`, saturating at the epoch.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_millis(by)))
    }

    /// How long since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<Timestamp> for rustls_pki_types::UnixTime {
    fn from(time: Timestamp) -> Self {
        Self::since_unix_epoch(Duration::from_millis(time.0))
    }
}

impl BootTime {
    pub const fn from_duration(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    pub const fn as_duration(self) -> Duration {
        self.0
    }

    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(saturating_millis(since))
    }

    fn boottime(&self) -> BootTime {
        // The call can only fail for an unknown clock id. The far future then ends every lease: fail closed.
        let spec = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .unwrap_or_else(|_| nix::sys::time::TimeSpec::new(i64::MAX, 0));
        BootTime(Duration::from(spec))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
