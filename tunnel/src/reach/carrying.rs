//! On a relay: who may be joined to whom, and what ends that.

use std::net::SocketAddr;

use edgeward_identity::{BootTime, SpiffeId};

use super::Reach;
use super::interface::Output;
use super::message::{Message, Refusal, RouteId};
use super::peer::Peer;
use crate::node::{Endpoint, PeerId};

impl Reach {
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

    /// A peer is reached at another address: what runs through it, and what is carried to it, follows.
    pub(super) fn placed(&mut self, id: PeerId, out: &mut Vec<Output>) {
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
}
