//! Datagrams that open our NAT towards a peer that calls: they say nothing, and whoever gets one forgets it. Told the
//! time.
//!
//! Only peers that policy permits cause them, few and small: nobody can make this node flood somebody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};

/// When knocks go out, after the call.
const AFTER: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_millis(1400),
    Duration::from_secs(3),
    Duration::from_secs(6),
];
/// Most addresses of one peer that are knocked at.
pub const MAX_ADDRESSES: usize = 8;
/// Most peers at a time.
pub const MAX_PEERS: usize = 256;
/// Shortest time between two runs for one peer.
pub const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Everything that is still to be sent.
#[derive(Debug, Default)]
pub struct Knocks {
    runs: BTreeMap<SpiffeId, Run>,
}

#[derive(Debug)]
struct Run {
    addresses: Vec<SocketAddr>,
    began: BootTime,
    done: usize,
}

impl Knocks {
    /// A peer calls from these addresses. Whether anything is sent for it: not if it called a moment ago, or too many
    /// others do.
    pub fn begin(&mut self, peer: &SpiffeId, addresses: &[SocketAddr], now: BootTime) -> bool {
        self.runs.retain(|_, run| !run.is_over(now));
        let again = self
            .runs
            .get(peer)
            .is_none_or(|run| now.since(run.began) >= AGAIN_AFTER);
        let room = self.runs.len() < MAX_PEERS || self.runs.contains_key(peer);
        let addresses: Vec<SocketAddr> = addresses.iter().copied().take(MAX_ADDRESSES).collect();
        if !again || !room || addresses.is_empty() {
            return false;
        }
        let run = Run {
            addresses,
            began: now,
            done: 0,
        };
        self.runs.insert(peer.clone(), run);
        true
    }

    /// Where to knock now.
    pub fn due(&mut self, now: BootTime) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        for run in self.runs.values_mut() {
            while AFTER
                .get(run.done)
                .is_some_and(|after| now >= run.began.plus(*after))
            {
                run.done += 1;
                due.extend_from_slice(&run.addresses);
            }
        }
        due
    }

    /// When something is due next.
    pub fn deadline(&self) -> Option<BootTime> {
        self.runs
            .values()
            .filter_map(|run| Some(run.began.plus(*AFTER.get(run.done)?)))
            .min()
    }
}

impl Run {
    fn is_over(&self, now: BootTime) -> bool {
        self.done >= AFTER.len() && now.since(self.began) >= AGAIN_AFTER
    }
}

#[cfg(test)]
mod tests;
