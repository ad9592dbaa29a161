//! What a node with the relay role carries for others: routes between two bound peers each, with budgets and accounts.
//!
//! A relay sees ciphertext only: it sends a datagram on unchanged, from the address of one end to the other's, and
//! never anywhere else. Whoever sends must come from an address at which that end proved itself lately. What an end
//! sends is charged to its route, to itself, and to the relay as a whole.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use foldhash::HashMap;

use super::budget::Budget;
use super::message::{Refusal, RouteId};
use crate::node::{Endpoint, PeerId};

/// Addresses at which an end counts as itself: the ones where it proved itself last.
pub const SOURCES_PER_PEER: usize = 4;

/// Most accounts of ended routes kept until somebody reads them.
pub const MAX_ENDED: usize = 1024;

/// What a relay spends at most. Budgets hold one second's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub routes: usize,
    pub routes_per_peer: usize,
    /// Of one route, both directions together.
    pub route: Rate,
    /// Of what one peer sends over all its routes.
    pub peer: Rate,
    /// Of the relay.
    pub all: Rate,
    /// A route that carried nothing for this long ends.
    pub idle: Duration,
}

/// What may pass in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub bytes: u64,
    pub datagrams: u64,
}

/// The routes of one relay.
#[derive(Debug)]
pub struct Relays {
    limits: Limits,
    routes: HashMap<RouteId, Route>,
    peers: HashMap<PeerId, Share>,
    all: Budget,
    refused: Refused,
    carried: Carried,
    ended: VecDeque<Account>,
}

/// What was carried since start, over all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub bytes: u64,
    pub datagrams: u64,
}

/// What was not carried, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub unknown_route: u64,
    pub wrong_source: u64,
    pub over_budget: u64,
}

/// What to send on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    pub to: Endpoint,
    /// How many of the datagrams, from the first on.
    pub datagrams: usize,
}

/// A route, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub route: RouteId,
    pub ends: [SpiffeId; 2],
    pub opened: BootTime,
    pub bytes: u64,
    pub datagrams: u64,
    pub over_budget: u64,
}

#[derive(Debug)]
struct Route {
    ends: [PeerId; 2],
    budget: Budget,
    opened: BootTime,
    last: BootTime,
    bytes: u64,
    datagrams: u64,
    over_budget: u64,
}

#[derive(Debug)]
struct Share {
    name: SpiffeId,
    to: Endpoint,
    /// Newest first.
    sources: Vec<SocketAddr>,
    budget: Budget,
    routes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: 4096,
            routes_per_peer: 256,
            route: Rate {
                bytes: 25 << 20,
                datagrams: 25_000,
            },
            peer: Rate {
                bytes: 50 << 20,
                datagrams: 50_000,
            },
            all: Rate {
                bytes: 200 << 20,
                datagrams: 200_000,
            },
            idle: Duration::from_secs(180),
        }
    }
}

impl Relays {
    pub fn new(limits: Limits) -> Self {
        Self {
            all: Budget::full(limits.all),
            limits,
            routes: HashMap::default(),
            peers: HashMap::default(),
            refused: Refused::default(),
            carried: Carried::default(),
            ended: VecDeque::new(),
        }
    }

    /// Spends at most this from now on. Routes that are there stay.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.all = Budget::full(limits.all);
        for share in self.peers.values_mut() {
            share.budget = Budget::full(limits.peer);
        }
        for route in self.routes.values_mut() {
            route.budget = Budget::full(limits.route);
        }
    }

    /// A peer whose routes may run through here, and where it is. Known already: it moved.
    pub fn place(&mut self, peer: PeerId, name: &SpiffeId, to: Endpoint) {
        let limit = self.limits.peer;
        let share = self.peers.entry(peer).or_insert_with(|| Share {
            name: name.clone(),
            to,
            sources: Vec::with_capacity(SOURCES_PER_PEER),
            budget: Budget::full(limit),
            routes: 0,
        });
        share.to = to;
        share.hear(to.remote);
    }

    /// A peer is reached elsewhere from now on. Nothing happens if nothing is carried to it.
    pub fn moved(&mut self, peer: PeerId, to: Endpoint) {
        if let Some(share) = self.peers.get_mut(&peer) {
            share.to = to;
        }
    }

    /// A peer proved itself at this address.
    pub fn heard(&mut self, peer: PeerId, at: SocketAddr) {
        if let Some(share) = self.peers.get_mut(&peer) {
            share.hear(at);
        }
    }

    /// Takes a peer and its routes away; the other ends are told.
    pub fn remove(&mut self, peer: PeerId) -> Vec<(RouteId, PeerId)> {
        let mut others = Vec::new();
        for (id, route) in &self.routes {
            if let Some(other) = route.other(peer) {
                others.push((*id, other));
            }
        }
        for (id, _) in &others {
            self.drop_route(*id);
        }
        self.peers.remove(&peer);
        others
    }

    /// A route between the two: the present one, or a new one with this number.
    pub fn open(
        &mut self,
        asks: PeerId,
        to: PeerId,
        fresh: RouteId,
        now: BootTime,
    ) -> Result<RouteId, Refusal> {
        if asks == to || !self.peers.contains_key(&asks) || !self.peers.contains_key(&to) {
            return Err(Refusal::NotBound);
        }
        let present = self
            .routes
            .iter_mut()
            .find(|(_, route)| route.other(asks) == Some(to));
        if let Some((id, route)) = present {
            route.last = now;
            return Ok(*id);
        }
        let crowded = |peer| {
            self.peers
                .get(peer)
                .is_none_or(|share| share.routes >= self.limits.routes_per_peer)
        };
        if self.routes.len() >= self.limits.routes
            || self.routes.contains_key(&fresh)
            || crowded(&asks)
            || crowded(&to)
        {
            return Err(Refusal::Busy);
        }
        let route = Route {
            ends: [asks, to],
            budget: Budget::full(self.limits.route),
            opened: now,
            last: now,
            bytes: 0,
            datagrams: 0,
            over_budget: 0,
        };
        self.routes.insert(fresh, route);
        for end in [asks, to] {
            if let Some(share) = self.peers.get_mut(&end) {
                share.routes += 1;
            }
        }
        Ok(fresh)
    }

    /// Ends a route at the wish of one of its ends; the other one is told. Nobody else can.
    pub fn close(&mut self, id: RouteId, by: PeerId) -> Option<PeerId> {
        let other = self.routes.get(&id)?.other(by)?;
        self.drop_route(id);
        Some(other)
    }

    /// May these datagrams of one route go on, and where to? `datagrams` of `stride` bytes, the last may be shorter.
    pub fn carry(
        &mut self,
        id: RouteId,
        from: SocketAddr,
        datagrams: usize,
        bytes: usize,
        now: BootTime,
    ) -> Option<Carry> {
        let count = datagrams as u64;
        let Some(route) = self.routes.get_mut(&id) else {
            self.refused.unknown_route = self.refused.unknown_route.saturating_add(count);
            return None;
        };
        let [one, two] = route.ends;
        let is_at = |peer: &PeerId| {
            self.peers
                .get(peer)
                .is_some_and(|share| share.sources.contains(&from))
        };
        let (sender, receiver) = match (is_at(&one), is_at(&two)) {
            (true, _) => (one, two),
            (false, true) => (two, one),
            (false, false) => {
                self.refused.wrong_source = self.refused.wrong_source.saturating_add(count);
                return None;
            }
        };
        let to = self.peers.get(&receiver)?.to;
        let share = self.peers.get_mut(&sender)?;
        let each = bytes.div_ceil(datagrams.max(1)) as u64;
        let may = [&mut self.all, &mut share.budget, &mut route.budget]
            .into_iter()
            .map(|budget| budget.would_pass(count, each, now))
            .min()
            .unwrap_or(0);
        for budget in [&mut self.all, &mut share.budget, &mut route.budget] {
            budget.spend(may, each);
        }
        let over = count.saturating_sub(may);
        route.over_budget = route.over_budget.saturating_add(over);
        self.refused.over_budget = self.refused.over_budget.saturating_add(over);
        if may == 0 {
            return None;
        }
        let carried = (bytes as u64).min(may.saturating_mul(each));
        route.last = now;
        route.datagrams = route.datagrams.saturating_add(may);
        route.bytes = route.bytes.saturating_add(carried);
        self.carried.datagrams = self.carried.datagrams.saturating_add(may);
        self.carried.bytes = self.carried.bytes.saturating_add(carried);
        Some(Carry {
            to,
            datagrams: usize::try_from(may).unwrap_or(datagrams),
        })
    }

    /// Ends routes that carried nothing for long; both ends are told.
    pub fn expire(&mut self, now: BootTime) -> Vec<(RouteId, [PeerId; 2])> {
        let idle = self.limits.idle;
        let gone: Vec<(RouteId, [PeerId; 2])> = self
            .routes
            .iter()
            .filter(|(_, route)| now.since(route.last) >= idle)
            .map(|(id, route)| (*id, route.ends))
            .collect();
        for (id, _) in &gone {
            self.drop_route(*id);
        }
        gone
    }

    /// Whether policy still lets every route be: takes away those for which `may` says no; both ends are told.
    pub fn recheck(
        &mut self,
        may: impl Fn(&SpiffeId, &SpiffeId) -> bool,
    ) -> Vec<(RouteId, [PeerId; 2])> {
        let mut gone = Vec::new();
        for (id, route) in &self.routes {
            let [one, two] = route.ends;
            let permitted = match (self.peers.get(&one), self.peers.get(&two)) {
                (Some(one), Some(two)) => may(&one.name, &two.name),
                _ => false,
            };
            if !permitted {
                gone.push((*id, route.ends));
            }
        }
        for (id, _) in &gone {
            self.drop_route(*id);
        }
        gone
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub fn refused(&self) -> Refused {
        self.refused
    }

    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// The last accounts of routes that ended, each once; the oldest of more than [`MAX_ENDED`] are gone.
    pub fn take_ended(&mut self) -> Vec<Account> {
        self.ended.drain(..).collect()
    }

    /// All routes with what they carried.
    pub fn accounts(&self) -> Vec<Account> {
        let mut accounts: Vec<Account> = self
            .routes
            .iter()
            .filter_map(|(id, route)| self.account(*id, route))
            .collect();
        accounts.sort_by(|a, b| a.ends.cmp(&b.ends));
        accounts
    }

    fn account(&self, id: RouteId, route: &Route) -> Option<Account> {
        let [one, two] = route.ends;
        let name = |peer| self.peers.get(&peer).map(|share| share.name.clone());
        Some(Account {
            route: id,
            ends: [name(one)?, name(two)?],
            opened: route.opened,
            bytes: route.bytes,
            datagrams: route.datagrams,
            over_budget: route.over_budget,
        })
    }

    fn drop_route(&mut self, id: RouteId) {
        if let Some(route) = self.routes.remove(&id) {
            if let Some(account) = self.account(id, &route) {
                if self.ended.len() >= MAX_ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back(account);
            }
            for end in route.ends {
                if let Some(share) = self.peers.get_mut(&end) {
                    share.routes = share.routes.saturating_sub(1);
                }
            }
        }
    }
}

impl Route {
    fn other(&self, end: PeerId) -> Option<PeerId> {
        let [one, two] = self.ends;
        if end == one {
            Some(two)
        } else if end == two {
            Some(one)
        } else {
            None
        }
    }
}

impl Share {
    fn hear(&mut self, at: SocketAddr) {
        if self.sources.first() == Some(&at) {
            return;
        }
        self.sources.retain(|source| *source != at);
        self.sources.insert(0, at);
        self.sources.truncate(SOURCES_PER_PEER);
    }
}

#[cfg(test)]
mod tests;
