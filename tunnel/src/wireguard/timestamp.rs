//! TAI64N timestamps of initiations: newer than the last, or refused.

use std::time::Duration;

use super::Refused;

/// Length of a timestamp, in bytes.
pub const STAMP_BYTES: usize = 12;
/// 1970-01-01 in TAI64, with the ten leap seconds of that day.
const EPOCH: u64 = (1 << 62) + 10;
/// Nanoseconds are cut to multiples of this, about 17 ms: a timestamp shall not tell how busy we are.
const GRAIN_NANOS: u32 = 1 << 24;

/// When an initiation was made, as its sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp([u8; STAMP_BYTES]);

/// Makes timestamps that only grow, also when two are made in one instant.
#[derive(Default)]
pub struct StampClock {
    last: Option<Stamp>,
}

/// Remembers the newest timestamp of a peer's initiations: a replay is refused (section 5.1 of the paper).
#[derive(Default)]
pub struct ReplayGate {
    newest: Option<Stamp>,
}

impl Stamp {
    /// `since_1970` need not be right; it has to grow for as long as a static key is used.
    pub fn new(since_1970: Duration) -> Self {
        let nanos = since_1970.subsec_nanos();
        Self::from_parts(
            EPOCH.saturating_add(since_1970.as_secs()),
            nanos - nanos % GRAIN_NANOS,
        )
    }

    pub fn from_bytes(bytes: [u8; STAMP_BYTES]) -> Self {
        Self(bytes)
    }

    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        self.0
    }

    fn from_parts(secs: u64, nanos: u32) -> Self {
        let mut bytes = [0; STAMP_BYTES];
        let (front, back) = bytes.split_at_mut(8);
        front.copy_from_slice(&secs.to_be_bytes());
        back.copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    /// The least one that is later.
    fn successor(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (sum, carried) = byte.overflowing_add(1);
            *byte = sum;
            if !carried {
                break;
            }
        }
        Self(bytes)
    }
}

impl StampClock {
    /// Goes on after what another process gave last.
    pub fn after(last: Option<Stamp>) -> Self {
        Self { last }
    }

    pub fn last(&self) -> Option<Stamp> {
        self.last
    }

    pub fn next(&mut self, since_1970: Duration) -> Stamp {
        let now = Stamp::new(since_1970);
        let stamp = match self.last {
            Some(last) if now <= last => last.successor(),
            _ => now,
        };
        self.last = Some(stamp);
        stamp
    }
}

impl ReplayGate {
    /// Goes on after what another process took last.
    pub fn after(newest: Option<Stamp>) -> Self {
        Self { newest }
    }

    pub fn newest(&self) -> Option<Stamp> {
        self.newest
    }

    /// Passes a timestamp that is newer than all before it. Only authentic ones may be shown to it.
    pub fn pass(&mut self, stamp: Stamp) -> Result<(), Refused> {
        if self.newest.is_some_and(|newest| stamp <= newest) {
            return Err(Refused::OldTimestamp);
        }
        self.newest = Some(stamp);
        Ok(())
    }
}
