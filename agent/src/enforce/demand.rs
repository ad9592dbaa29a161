//! Who of the permitted peers is to be bound at this moment. Pure, told the time.
//!
//! A node that may meet few peers keeps them all bound; one that may meet many keeps only those that it talks to
//! ([`Binds`]). A packet to a sleeping peer wakes it ([`Demand::knock`]); a peer without a packet for
//! [`DemandConfig::idle_after`] is put to sleep again, on both sides: neither has lost anything by it. What is kept
//! here grows with the peers that are awake, and never with those that are permitted.

use std::collections::HashMap;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use serde::Deserialize;

/// Most permitted peers that [`Binds::Auto`] keeps bound all the time.
pub const MAX_ALWAYS: usize = 64;
/// How long a peer that was woken may take to be bound; after that only another packet wakes it.
pub const WAKE_TIME: Duration = Duration::from_secs(30);
/// Default of [`DemandConfig::idle_after`].
pub const DEFAULT_IDLE_AFTER: Duration = Duration::from_secs(300);

/// When peers are bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binds {
    /// All of them while there are at most [`MAX_ALWAYS`], else on demand.
    #[default]
    Auto,
    /// All of them, always.
    Always,
    /// From the first packet until none came for a while.
    OnDemand,
}

/// What the operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemandConfig {
    pub binds: Binds,
    /// How long without a packet before a bind is closed.
    pub idle_after: Duration,
}

/// The peers that are awake, or in a node that keeps all bound, those that sleep.
#[derive(Debug)]
pub struct Demand {
    config: DemandConfig,
    on_demand: bool,
    /// On demand: who is awake.
    awake: HashMap<SpiffeId, Awake>,
    /// Always: who was put to sleep by its own word.
    asleep: HashMap<SpiffeId, ()>,
}

#[derive(Clone, Copy, Debug)]
struct Awake {
    /// When it was woken, or last found to have been used.
    used: BootTime,
    /// Since when its bind is open.
    open: bool,
    /// What it had carried when it was last looked at.
    bytes: u64,
}

impl Default for DemandConfig {
    fn default() -> Self {
        Self {
            binds: Binds::default(),
            idle_after: DEFAULT_IDLE_AFTER,
        }
    }
}

impl Demand {
    pub fn new(config: DemandConfig) -> Self {
        Self {
            config,
            on_demand: config.binds == Binds::OnDemand,
            awake: HashMap::new(),
            asleep: HashMap::new(),
        }
    }

    /// How many peers policy permits now. Whether that changes how they are kept; if so, ask anew about all of them.
    pub fn permitted(&mut self, count: usize) -> bool {
        let on_demand = match self.config.binds {
            Binds::Auto => count > MAX_ALWAYS,
            Binds::Always => false,
            Binds::OnDemand => true,
        };
        std::mem::replace(&mut self.on_demand, on_demand) != on_demand
    }

    pub fn is_on_demand(&self) -> bool {
        self.on_demand
    }

    /// Whether a permitted peer is to be bound now.
    pub fn wants(&self, peer: &SpiffeId) -> bool {
        match self.on_demand {
            true => self.awake.contains_key(peer),
            false => !self.asleep.contains_key(peer),
        }
    }

    /// Whether a packet to this peer is to wake it while it is not bound. A node that keeps all bound does so without
    /// being asked, except for those that went to sleep.
    pub fn may_sleep(&self, peer: &SpiffeId) -> bool {
        self.on_demand || self.asleep.contains_key(peer)
    }

    /// Whether anybody may be woken by a packet at all.
    pub fn has_sleepers(&self) -> bool {
        self.on_demand || !self.asleep.is_empty()
    }

    /// A packet for it waits. Whether it was not wanted before.
    pub fn knock(&mut self, peer: &SpiffeId, now: BootTime) -> bool {
        let slept = !self.wants(peer);
        self.asleep.remove(peer);
        if self.on_demand {
            self.awake
                .entry(peer.clone())
                .and_modify(|awake| awake.used = now)
                .or_insert(Awake {
                    used: now,
                    open: false,
                    bytes: 0,
                });
        }
        slept
    }

    /// Its bind is open, whoever began it. Whether it was not wanted before.
    pub fn opened(&mut self, peer: &SpiffeId, now: BootTime) -> bool {
        let slept = !self.wants(peer);
        self.asleep.remove(peer);
        // In a node that keeps all bound too: what policy permits may grow.
        self.awake.insert(
            peer.clone(),
            Awake {
                used: now,
                open: true,
                bytes: 0,
            },
        );
        slept
    }

    /// Its tunnel is gone. Where the peer found it idle it sleeps now; else it is wanted as it was.
    pub fn ended(&mut self, peer: &SpiffeId, idle: bool) {
        if idle {
            self.awake.remove(peer);
            if !self.on_demand {
                self.asleep.insert(peer.clone(), ());
            }
        } else if let Some(awake) = self.awake.get_mut(peer) {
            awake.open = false;
        }
    }

    /// Forgets who is not permitted any more.
    pub fn keep_only(&mut self, permitted: impl Fn(&SpiffeId) -> bool) {
        self.awake.retain(|peer, _| permitted(peer));
        self.asleep.retain(|peer, ()| permitted(peer));
    }

    /// Looks at what each open bind has carried, in bytes, and puts to sleep who was idle. Also who was woken and was
    /// not bound in time.
    pub fn look(
        &mut self,
        carried: impl Fn(&SpiffeId) -> Option<u64>,
        now: BootTime,
    ) -> Vec<SpiffeId> {
        let mut sleepy = Vec::new();
        let (on_demand, idle_after) = (self.on_demand, self.config.idle_after);
        self.awake.retain(|peer, awake| {
            let bytes = carried(peer).unwrap_or(awake.bytes);
            if bytes != awake.bytes {
                awake.bytes = bytes;
                awake.used = now;
            }
            let patience = if awake.open { idle_after } else { WAKE_TIME };
            let stays = !on_demand || now.since(awake.used) < patience;
            if !stays {
                sleepy.push(peer.clone());
            }
            stays
        });
        sleepy.sort_unstable();
        sleepy
    }

    /// How often to look.
    pub fn look_every(&self) -> Duration {
        (self.config.idle_after / 4).clamp(Duration::from_secs(1), Duration::from_secs(15))
    }

    /// Peers that are kept count of.
    pub fn remembered(&self) -> usize {
        self.awake.len() + self.asleep.len()
    }
}

#[cfg(test)]
mod tests;
