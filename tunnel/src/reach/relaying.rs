//! Routes through relays, on the side of their ends: asked for, granted, offered, ended.

use std::time::Duration;

use edgeward_identity::{BootTime, Kind as IdentityKind, SpiffeId};

use super::interface::{Kind, NotRelayed, Output};
use super::message::{Message, Refusal, RouteId};
use super::peer::Peer;
use super::{MAX_DETOURS, Reach};
use crate::node::PeerId;

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

/// A question to a relay without an answer yet.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) relay: PeerId,
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
    pub(super) fn tell(&mut self, id: PeerId, message: &Message, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(to) = peer.direct_endpoint()
            && let Ok(bytes) = peer.channel.seal(&message.body())
        {
            out.push(Output::Send { to, bytes });
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<SpiffeId> {
        SpiffeId::new(&self.config.trust_domain, IdentityKind::Node, name).ok()
    }
}
