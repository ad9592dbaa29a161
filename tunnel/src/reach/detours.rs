//! The addresses that stand for routes and channels, and the paths over them.

use std::net::SocketAddr;

use edgeward_identity::{BootTime, SpiffeId};

use super::Reach;
use super::interface::{Kind, Output};
use super::message::RouteId;
use crate::node::{Endpoint, PeerId};

/// A route through a relay, seen from one of its ends.
#[derive(Clone, Debug)]
pub(super) struct Detour {
    pub(super) relay: PeerId,
    pub(super) relay_name: SpiffeId,
    pub(super) route: RouteId,
    pub(super) peer: SpiffeId,
}

impl Reach {
    /// The address of this relay's route to a peer: the present one, moved to the new route, or another one.
    pub(super) fn add_detour(
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

    pub(super) fn drop_detour(
        &mut self,
        address: SocketAddr,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
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
}
