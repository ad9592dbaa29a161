//! Routes through relays: asked for and offered, on the side of the ends; granted, on the side of the relay.

use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, Kind as IdentityKind, SpiffeId};

use super::interface::{Kind, NotRelayed, Output};
use super::message::{Message, Refusal, RouteId};
use super::peer::Peer;
use super::{MAX_DETOURS, Reach};
use crate::node::{Endpoint, PeerId};

/// How long an answer to an ask is waited for, the first time; each further time twice as long.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an ask is made.
const ASK_TRIES: u32 = 4;
/// Most asks without an answer yet.
const MAX_ASKS: usize = 256;
/// How long relays are not asked again for a peer that nothing reaches.
const RELAYS_AGAIN: Duration = Duration::from_secs(20);
/// Relays asked at once for such a peer.
const RELAYS_AT_ONCE: usize = 2;

/// A route through a relay, seen from one of its ends.
#[derive(Clone, Debug)]
pub(super) struct Detour {
    pub(super) relay: PeerId,
    pub(super) relay_name: SpiffeId,
    pub(super) route: RouteId,
    pub(super) peer: SpiffeId,
}

/// A question to a relay without an answer yet.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    relay: PeerId,
    to: SpiffeId,
    tries: u32,
    pub(super) again: BootTime,
}

impl Reach {
    /// Asks a relay for a route.
    pub(super) fn want_relay(
        &mut self,
        relay: &SpiffeId,
        to: SpiffeId,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let id = self.names.get(relay).copied();
        let reachable = id
            .and_then(|id| self.peers.get(&id))
            .and_then(Peer::direct_endpoint);
        let code = if !self.may.may_use(relay, &to) {
            NotRelayed::NotPermitted
        } else if let Some(id) = id
            && reachable.is_some()
        {
            let known = self
                .asks
                .values()
                .any(|ask| ask.relay == id && ask.to == to);
            if known {
                return;
            }
            if self.asks.len() < MAX_ASKS && self.detours.len() < MAX_DETOURS {
                return self.ask(id, to, now, out);
            }
            NotRelayed::Busy
        } else {
            NotRelayed::NoPath
        };
        out.push(Output::NotGranted {
            relay: relay.clone(),
            to,
            code,
        });
    }

    fn ask(&mut self, relay: PeerId, to: SpiffeId, now: BootTime, out: &mut Vec<Output>) {
        let number = self.next_ask;
        self.next_ask = number.wrapping_add(1);
        let ask = Message::Ask {
            ask: number,
            to: to.name().to_owned(),
        };
        self.tell(relay, &ask, out);
        let ask = Ask {
            relay,
            to,
            tries: 1,
            again: now.plus(ASK_TIMEOUT),
        };
        self.asks.insert(number, ask);
    }

    pub(super) fn repeat_asks(&mut self, now: BootTime, out: &mut Vec<Output>) {
        let due: Vec<u32> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.again <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(ask) = self.asks.get_mut(&number) else {
                continue;
            };
            if ask.tries >= ASK_TRIES {
                self.not_granted(number, NotRelayed::Silent, out);
                continue;
            }
            ask.again = now.plus(ASK_TIMEOUT * (1 << ask.tries));
            ask.tries += 1;
            let (relay, to) = (ask.relay, ask.to.name().to_owned());
            self.tell(relay, &Message::Ask { ask: number, to }, out);
        }
    }

    /// On a relay: may the two be joined?
    pub(super) fn asked(
        &mut self,
        id: PeerId,
        from: Endpoint,
        ask: u32,
        to: &str,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(asker) = self.peers.get_mut(&id) else {
            return;
        };
        if asker.asks.would_pass(1, 1, now) == 0 {
            self.refused.over_budget = self.refused.over_budget.saturating_add(1);
            return;
        }
        asker.asks.spend(1, 1);
        let name = asker.name.clone();
        let route = self.join(id, &name, to, now);
        let answer = match &route {
            Ok((route, _)) => Message::Granted { ask, route: *route },
            Err(code) => Message::Refused { ask, code: *code },
        };
        if let Some(asker) = self.peers.get_mut(&id)
            && let Ok(bytes) = asker.channel.seal(&answer.body())
        {
            out.push(Output::Send { to: from, bytes });
        }
        if let Ok((route, other)) = route {
            let from = name.name().to_owned();
            self.tell(other, &Message::Offer { route, from }, out);
        }
    }

    fn join(
        &mut self,
        id: PeerId,
        name: &SpiffeId,
        to: &str,
        now: BootTime,
    ) -> Result<(RouteId, PeerId), Refusal> {
        let to = self.named(to).ok_or(Refusal::NotPermitted)?;
        if !self.may.may_carry(name, &to) {
            return Err(Refusal::NotPermitted);
        }
        let other = self.names.get(&to).copied().ok_or(Refusal::NotBound)?;
        // An end behind another relay would be a relay behind a relay.
        for end in [id, other] {
            let reached = self.peers.get(&end).and_then(Peer::direct_endpoint);
            let (Some(at), Some(peer)) = (reached, self.peers.get(&end)) else {
                return Err(Refusal::NotBound);
            };
            self.relays.lock().place(end, &peer.name, at);
        }
        let mut fresh = [0; 8];
        self.random.fill(&mut fresh).map_err(|_| Refusal::Busy)?;
        let fresh = RouteId(u64::from_be_bytes(fresh));
        let route = self.relays.lock().open(id, other, fresh, now)?;
        Ok((route, other))
    }

    pub(super) fn granted(
        &mut self,
        id: PeerId,
        number: u32,
        route: RouteId,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(ask) = self
            .asks
            .get(&number)
            .filter(|ask| ask.relay == id)
            .cloned()
        else {
            self.refused.out_of_turn = self.refused.out_of_turn.saturating_add(1);
            return;
        };
        let Some(relay) = self.peers.get(&id).map(|peer| peer.name.clone()) else {
            return;
        };
        if !self.may.may_use(&relay, &ask.to) {
            return self.not_granted(number, NotRelayed::NotPermitted, out);
        }
        match self.add_detour(id, &relay, route, &ask.to, now, out) {
            Some(address) => {
                self.asks.remove(&number);
                let to = ask.to;
                out.push(Output::Granted { relay, to, address });
            }
            None => self.not_granted(number, NotRelayed::Busy, out),
        }
    }

    pub(super) fn refused_by(
        &mut self,
        id: PeerId,
        number: u32,
        code: Refusal,
        out: &mut Vec<Output>,
    ) {
        if self.asks.get(&number).is_some_and(|ask| ask.relay == id) {
            self.not_granted(number, NotRelayed::Refused(code), out);
        } else {
            self.refused.out_of_turn = self.refused.out_of_turn.saturating_add(1);
        }
    }

    /// A relay says that a peer wants to reach us through it.
    pub(super) fn offered(
        &mut self,
        id: PeerId,
        route: RouteId,
        from: &str,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(from) = self.named(from) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let relay = peer.name.clone();
        let over = peer.asks.would_pass(1, 1, now) == 0;
        peer.asks.spend(1, 1);
        if over || !self.may.may_use(&relay, &from) {
            let counter = match over {
                true => &mut self.refused.over_budget,
                false => &mut self.refused.out_of_turn,
            };
            *counter = counter.saturating_add(1);
            return;
        }
        if let Some(address) = self.add_detour(id, &relay, route, &from, now, out) {
            out.push(Output::Offered {
                relay,
                from,
                address,
            });
        }
    }

    /// A route was ended: by its relay, or, on a relay, by one of its ends.
    pub(super) fn ended(
        &mut self,
        id: PeerId,
        route: RouteId,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        if let Some(other) = {
            let mut relays = self.relays.lock();
            relays.close(route, id)
        } {
            self.tell(other, &Message::End { route }, out);
            return;
        }
        let address = self
            .detours
            .iter()
            .find(|(_, detour)| detour.relay == id && detour.route == route)
            .map(|(address, _)| *address);
        match address {
            Some(address) => self.drop_detour(address, now, out),
            None => self.refused.out_of_turn = self.refused.out_of_turn.saturating_add(1),
        }
    }

    /// The address of this relay's route to a peer: the present one, moved to the new route, or another one.
    fn add_detour(
        &mut self,
        relay: PeerId,
        relay_name: &SpiffeId,
        route: RouteId,
        peer: &SpiffeId,
        now: BootTime,
        out: &mut Vec<Output>,
    ) -> Option<SocketAddr> {
        let taken = |detour: &Detour| detour.relay == relay && detour.route == route;
        if self
            .detours
            .values()
            .any(|detour| taken(detour) && detour.peer != *peer)
        {
            return None;
        }
        let present = self
            .detours
            .iter_mut()
            .find(|(_, detour)| detour.relay == relay && detour.peer == *peer);
        let address = match present {
            Some((address, detour)) => {
                detour.route = route;
                *address
            }
            None => {
                let address = self.channel_address()?;
                let detour = Detour {
                    relay,
                    relay_name: relay_name.clone(),
                    route,
                    peer: peer.clone(),
                };
                self.detours.insert(address, detour);
                address
            }
        };
        self.emit_detour(address, out);
        let kind = Kind::Relay(relay_name.clone());
        self.add_path(peer, address, kind, now, out);
        Some(address)
    }

    pub(super) fn channel(
        &mut self,
        peer: SpiffeId,
        address: SocketAddr,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        if !super::is_detour(&address) || self.detours.contains_key(&address) {
            return;
        }
        self.add_path(&peer, address, Kind::Cloud, now, out);
        self.channels.insert(address, peer);
    }

    fn add_path(
        &mut self,
        peer: &SpiffeId,
        address: SocketAddr,
        kind: Kind,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(id) = self.names.get(peer).copied() else {
            return;
        };
        if let Some(known) = self.peers.get_mut(&id) {
            let at = Endpoint {
                remote: address,
                local_ip: None,
            };
            known.learn(at, kind, true, now);
            if let Some(path) = known.path_mut(address) {
                path.next_probe = now;
            }
            self.step(id, now, out);
        }
    }

    fn emit_detour(&self, address: SocketAddr, out: &mut Vec<Output>) {
        let Some(detour) = self.detours.get(&address) else {
            return;
        };
        let Some(relay) = self.peers.get(&detour.relay) else {
            return;
        };
        let Some(at) = relay.direct_endpoint() else {
            return;
        };
        let mut sources = relay.heard.clone();
        if !sources.contains(&at.remote) {
            sources.push(at.remote);
        }
        out.push(Output::Detour {
            address,
            relay: at,
            sources,
            route: detour.route,
        });
    }

    /// A relay was heard from, or is reached at, another address.
    pub(super) fn relay_moved(&mut self, id: PeerId, out: &mut Vec<Output>) {
        let addresses: Vec<SocketAddr> = self
            .detours
            .iter()
            .filter(|(_, detour)| detour.relay == id)
            .map(|(address, _)| *address)
            .collect();
        for address in addresses {
            self.emit_detour(address, out);
        }
    }

    /// A peer is reached at another address: what runs through it, and what is carried to it, follows.
    pub(super) fn placed(&mut self, id: PeerId, _now: BootTime, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get(&id)
            && let Some(at) = peer.direct_endpoint()
        {
            self.relays.lock().moved(id, at);
        }
        self.relay_moved(id, out);
    }

    /// A peer is gone: nothing runs through it, and nothing is carried to it.
    pub(super) fn forget_relay(&mut self, id: PeerId, now: BootTime, out: &mut Vec<Output>) {
        let others = self.relays.lock().remove(id);
        for (route, other) in others {
            self.tell(other, &Message::End { route }, out);
        }
        let through: Vec<SocketAddr> = self
            .detours
            .iter()
            .filter(|(_, detour)| detour.relay == id)
            .map(|(address, _)| *address)
            .collect();
        for address in through {
            self.drop_detour(address, now, out);
        }
        let asks: Vec<u32> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.relay == id)
            .map(|(number, _)| *number)
            .collect();
        for number in asks {
            self.asks.remove(&number);
        }
    }

    /// Policy changed: routes that it does not permit any more end, on both sides of it.
    pub(super) fn recheck(&mut self, now: BootTime, out: &mut Vec<Output>) {
        let may = std::sync::Arc::clone(&self.may);
        let gone = self
            .relays
            .lock()
            .recheck(|one, two| may.may_carry(one, two) && may.may_carry(two, one));
        self.tell_ends(gone, out);
        let forbidden: Vec<(SocketAddr, PeerId, RouteId)> = self
            .detours
            .iter()
            .filter(|(_, detour)| !may.may_use(&detour.relay_name, &detour.peer))
            .map(|(address, detour)| (*address, detour.relay, detour.route))
            .collect();
        for (address, relay, route) in forbidden {
            self.tell(relay, &Message::End { route }, out);
            self.drop_detour(address, now, out);
        }
    }

    pub(super) fn sweep_routes(&mut self, now: BootTime, out: &mut Vec<Output>) {
        let gone = self.relays.lock().expire(now);
        self.tell_ends(gone, out);
    }

    fn tell_ends(&mut self, gone: Vec<(RouteId, [PeerId; 2])>, out: &mut Vec<Output>) {
        for (route, ends) in gone {
            for end in ends {
                self.tell(end, &Message::End { route }, out);
            }
        }
    }

    fn drop_detour(&mut self, address: SocketAddr, now: BootTime, out: &mut Vec<Output>) {
        self.detours.remove(&address);
        out.push(Output::DetourGone { address });
        self.drop_path(address, now, out);
    }

    /// A path that cannot work any more; another one takes its place if it was in use.
    pub(super) fn drop_path(&mut self, address: SocketAddr, now: BootTime, out: &mut Vec<Output>) {
        let holders: Vec<PeerId> = self
            .peers
            .values()
            .filter(|peer| peer.path(address).is_some())
            .map(|peer| peer.id)
            .collect();
        for id in holders {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.paths.retain(|path| path.at.remote != address);
                if peer.chosen == Some(address) {
                    peer.chosen = None;
                    peer.probe_all(now);
                }
            }
            self.step(id, now, out);
        }
    }

    /// A peer in use that nothing but relays can reach: asks those that policy names.
    pub(super) fn look_for_relays(&mut self, id: PeerId, now: BootTime, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let tried = peer
            .chosen_path()
            .is_none_or(|path| path.is_silent() || !path.is_direct());
        if !tried
            || !peer.is_active(now)
            || now < peer.relays_at
            || peer.has_live(|path| path.kind != Kind::Cloud)
        {
            return;
        }
        peer.relays_at = now.plus(RELAYS_AGAIN);
        let name = peer.name.clone();
        let relays: Vec<SpiffeId> = self
            .known_relays
            .iter()
            .filter(|relay| **relay != name && self.may.may_use(relay, &name))
            .filter(|relay| {
                let id = self.names.get(relay);
                id.and_then(|id| self.peers.get(id))
                    .is_some_and(|relay| relay.has_live(super::path::Path::is_direct))
            })
            .take(RELAYS_AT_ONCE)
            .cloned()
            .collect();
        for relay in relays {
            self.want_relay(&relay, name.clone(), now, out);
        }
    }

    /// Detours that lead to this peer.
    pub(super) fn detours_of(&self, peer: &SpiffeId) -> Vec<(SocketAddr, Kind)> {
        let relayed = self
            .detours
            .iter()
            .filter(|(_, detour)| detour.peer == *peer)
            .map(|(address, detour)| (*address, Kind::Relay(detour.relay_name.clone())));
        let channels = self
            .channels
            .iter()
            .filter(|(_, to)| *to == peer)
            .map(|(address, _)| (*address, Kind::Cloud));
        relayed.chain(channels).collect()
    }

    fn not_granted(&mut self, number: u32, code: NotRelayed, out: &mut Vec<Output>) {
        if let Some(ask) = self.asks.remove(&number)
            && let Some(relay) = self.peers.get(&ask.relay)
        {
            out.push(Output::NotGranted {
                relay: relay.name.clone(),
                to: ask.to,
                code,
            });
        }
    }

    /// Sends a message to a peer on its direct path: what concerns relays never runs through one.
    fn tell(&mut self, id: PeerId, message: &Message, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(to) = peer.direct_endpoint()
            && let Ok(bytes) = peer.channel.seal(&message.body())
        {
            out.push(Output::Send { to, bytes });
        }
    }

    fn named(&self, name: &str) -> Option<SpiffeId> {
        SpiffeId::new(&self.config.trust_domain, IdentityKind::Node, name).ok()
    }
}
