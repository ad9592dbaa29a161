//! What to try for a peer that does not answer, and when: call it, ask relays, and at last the cloud. Pure, told the
//! time and handed its randomness.
//!
//! A peer that answers directly costs nothing here. One that is reached by a detour is called again now and then, later
//! each time: a direct way may have become possible.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};

/// When a peer that does not answer is called, after it was wanted; then every [`CALL_EVERY`].
const CALL_AFTER: [Duration; 4] = [
    Duration::from_millis(700),
    Duration::from_secs(4),
    Duration::from_secs(12),
    Duration::from_secs(30),
];
/// How often after that.
const CALL_EVERY: Duration = Duration::from_secs(60);
/// When relays are asked, after it was wanted, and how often again.
const RELAYS_AFTER: Duration = Duration::from_secs(4);
const RELAYS_EVERY: Duration = Duration::from_secs(20);
/// When the cloud is asked, after it was wanted.
const CLOUD_AFTER: Duration = Duration::from_secs(7);
/// When a peer at the end of a detour is called, and the longest time between two such calls.
const IMPROVE_AFTER: Duration = Duration::from_secs(15);
const IMPROVE_AT_MOST: Duration = Duration::from_secs(1800);
/// Most peers that are watched.
pub const MAX_PEERS: usize = 16_384;

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Not at all.
    Nothing,
    Direct,
    /// Through a node or the cloud.
    Detour,
}

/// What to do for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask it, through the cloud, to open its NAT.
    Call(SpiffeId),
    /// Ask relays for routes to it.
    AskRelays(SpiffeId),
    /// Have the cloud carry datagrams to it.
    AskCloud(SpiffeId),
}

/// All peers that are wanted or bound.
#[derive(Debug)]
pub struct Ways {
    peers: BTreeMap<SpiffeId, Way>,
    /// A line that costs by the byte: no calls for better ways.
    metered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    by: By,
    since: BootTime,
    /// Times it was called since.
    calls: u32,
    call: Option<BootTime>,
    relays: Option<BootTime>,
    cloud: Option<BootTime>,
}

impl Ways {
    pub fn new(metered: bool) -> Self {
        Self {
            peers: BTreeMap::new(),
            metered,
        }
    }

    /// Who is wanted now, bound or not. Others are forgotten.
    pub fn wanted(
        &mut self,
        wanted: impl IntoIterator<Item = SpiffeId>,
        now: BootTime,
        mut jitter: impl FnMut() -> u16,
    ) {
        let mut before = std::mem::take(&mut self.peers);
        for peer in wanted.into_iter().take(MAX_PEERS) {
            let way = before
                .remove(&peer)
                .unwrap_or_else(|| Way::new(now, jitter()));
            self.peers.insert(peer, way);
        }
    }

    /// How a peer is reached from now on.
    pub fn reached(&mut self, peer: &SpiffeId, by: By, now: BootTime, jitter: u16) {
        let metered = self.metered;
        let Some(way) = self.peers.get_mut(peer).filter(|way| way.by != by) else {
            return;
        };
        *way = match by {
            By::Nothing => Way::new(now, jitter),
            By::Direct => Way {
                by,
                call: None,
                relays: None,
                cloud: None,
                ..Way::new(now, jitter)
            },
            By::Detour => Way {
                by,
                call: (!metered).then(|| now.plus(spread(IMPROVE_AFTER, jitter))),
                relays: None,
                cloud: None,
                ..Way::new(now, jitter)
            },
        };
    }

    /// The network changed, or the session is back: whoever is not reached is tried anew at once.
    pub fn again(&mut self, now: BootTime, mut jitter: impl FnMut() -> u16) {
        for way in self.peers.values_mut() {
            match way.by {
                By::Nothing => *way = Way::new(now, jitter()),
                By::Detour if !self.metered => {
                    way.calls = 0;
                    way.call = Some(now.plus(spread(CALL_AFTER[0], jitter())));
                }
                By::Detour | By::Direct => {}
            }
        }
    }

    /// What is to be done now.
    pub fn due(&mut self, now: BootTime, mut jitter: impl FnMut() -> u16) -> Vec<Step> {
        let mut steps = Vec::new();
        for (peer, way) in &mut self.peers {
            if way.call.is_some_and(|at| at <= now) {
                way.calls = way.calls.saturating_add(1);
                way.call = Some(way.next_call(now, jitter()));
                steps.push(Step::Call(peer.clone()));
            }
            if way.relays.is_some_and(|at| at <= now) {
                way.relays = Some(now.plus(spread(RELAYS_EVERY, jitter())));
                steps.push(Step::AskRelays(peer.clone()));
            }
            if way.cloud.is_some_and(|at| at <= now) {
                way.cloud = Some(now.plus(spread(CALL_EVERY, jitter())));
                steps.push(Step::AskCloud(peer.clone()));
            }
        }
        steps
    }

    /// When something is due next.
    pub fn deadline(&self) -> Option<BootTime> {
        self.peers
            .values()
            .flat_map(|way| [way.call, way.relays, way.cloud])
            .flatten()
            .min()
    }

    /// How a peer is reached; `None`: it is not wanted.
    pub fn by(&self, peer: &SpiffeId) -> Option<By> {
        self.peers.get(peer).map(|way| way.by)
    }

    /// Those who are not reached.
    pub fn missing(&self) -> impl Iterator<Item = &SpiffeId> {
        self.peers
            .iter()
            .filter(|(_, way)| way.by == By::Nothing)
            .map(|(peer, _)| peer)
    }
}

impl Way {
    fn new(now: BootTime, jitter: u16) -> Self {
        Self {
            by: By::Nothing,
            since: now,
            calls: 0,
            call: Some(now.plus(spread(CALL_AFTER[0], jitter))),
            relays: Some(now.plus(spread(RELAYS_AFTER, jitter))),
            cloud: Some(now.plus(spread(CLOUD_AFTER, jitter))),
        }
    }

    fn next_call(&self, now: BootTime, jitter: u16) -> BootTime {
        match self.by {
            By::Detour => {
                let grown = IMPROVE_AFTER.saturating_mul(1 << self.calls.min(16));
                now.plus(spread(grown.min(IMPROVE_AT_MOST), jitter))
            }
            By::Nothing | By::Direct => {
                let index = usize::try_from(self.calls).unwrap_or(usize::MAX);
                let next = CALL_AFTER.get(index).map(|after| self.since.plus(*after));
                next.filter(|next| *next > now)
                    .unwrap_or_else(|| now.plus(spread(CALL_EVERY, jitter)))
            }
        }
    }
}

/// Between `least` and a quarter more: nodes that lost the same line do not come back in step.
fn spread(least: Duration, jitter: u16) -> Duration {
    least + (least / 4).mul_f64(f64::from(jitter) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests;
