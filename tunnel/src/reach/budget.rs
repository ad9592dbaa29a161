//! Token buckets: what may pass now, in datagrams and bytes.

use edgeward_identity::BootTime;

use super::relay::Rate;

/// Holds at most one second's worth.
#[derive(Debug)]
pub(super) struct Budget {
    rate: Rate,
    /// Thousandths of a datagram, and of a byte.
    datagrams: u64,
    bytes: u64,
    filled: Option<BootTime>,
}

impl Budget {
    pub(super) fn full(rate: Rate) -> Self {
        Self {
            rate,
            datagrams: rate.datagrams.saturating_mul(1000),
            bytes: rate.bytes.saturating_mul(1000),
            filled: None,
        }
    }

    /// How many of `count` datagrams of `each` bytes may pass.
    pub(super) fn would_pass(&mut self, count: u64, each: u64, now: BootTime) -> u64 {
        self.fill(now);
        let by_bytes = (self.bytes / 1000).checked_div(each).unwrap_or(u64::MAX);
        count.min(self.datagrams / 1000).min(by_bytes)
    }

    pub(super) fn spend(&mut self, count: u64, each: u64) {
        self.datagrams = self.datagrams.saturating_sub(count.saturating_mul(1000));
        self.bytes = self
            .bytes
            .saturating_sub(count.saturating_mul(each).saturating_mul(1000));
    }

    fn fill(&mut self, now: BootTime) {
        let Some(filled) = self.filled else {
            self.filled = Some(now);
            return;
        };
        let millis = u64::try_from(now.since(filled).as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return;
        }
        self.filled = Some(now);
        let gain = |rate: u64, held: u64| {
            held.saturating_add(rate.saturating_mul(millis))
                .min(rate.saturating_mul(1000))
        };
        self.datagrams = gain(self.rate.datagrams, self.datagrams);
        self.bytes = gain(self.rate.bytes, self.bytes);
    }
}
