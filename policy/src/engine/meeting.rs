//! Between this node and a peer: ways out, what lies beyond either of the two, and whether a tunnel may be at all.

use std::net::IpAddr;
use std::sync::Arc;

use edgeward_identity::Timestamp;

use super::condition::judge_towards_peer;
use super::{Engine, explain};
use crate::check::{DEFAULT_FRESH, DEFAULT_OFFLINE};
use crate::decision::{Decision, Link, Reason, Standing, Subject};
use crate::slice::{
    Beyond, DeviceIndex, Egress, EgressRow, InterfaceIndex, PeerIndex, Proto, Term,
};

/// What stands in place of a rule where two nodes meet because one carries for the other. No rule has this name.
pub const CARRIES: &str = "role:relay";

/// What may be behind a node, or behind a peer.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub proto: Proto,
    /// As the overlay knows it.
    pub address: IpAddr,
    pub port: u16,
}

impl Engine {
    /// Whether this node may open a flow to an interface of a peer, by the peer's standing. The peer decides for itself.
    pub fn decide_egress(
        &self,
        peer: PeerIndex,
        (proto, port): (Proto, u16),
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        self.best_egress(None, peer, (proto, port), standing, link, now)
    }

    /// Whether a device of this node may open a flow to an interface of a peer, by the peer's standing. What the device
    /// itself counts for is asked elsewhere. The peer decides for itself.
    pub fn decide_egress_of(
        &self,
        device: DeviceIndex,
        peer: PeerIndex,
        (proto, port): (Proto, u16),
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        self.best_egress(Some(device), peer, (proto, port), standing, link, now)
    }

    /// The best of the ways to an interface of a peer that are for this node, or for a device of it.
    fn best_egress(
        &self,
        device: Option<DeviceIndex>,
        peer: PeerIndex,
        (proto, port): (Proto, u16),
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let best = self
            .places
            .egress(&self.slice, peer)
            .filter(|egress| match device {
                Some(device) => egress.devices.binary_search(&device).is_ok(),
                None => egress.beyond.is_none() && egress.devices.is_empty(),
            })
            .filter(|egress| egress.proto == proto && egress.port == port)
            .map(|egress| self.egress_decision(egress, device, standing, link, now))
            .reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    /// Whether a tunnel to a peer may exist at all: it may reach something here, or this node something there.
    /// The `valid_until`, `fresh` and `offline` of the answer bound the bind's lease.
    pub fn meet(
        &self,
        peer: PeerIndex,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let inward = (0..self.interfaces.len()).filter_map(|index| {
            let interface = InterfaceIndex(u32::try_from(index).ok()?);
            Some(self.admit(Subject::Peer(peer), standing, interface, link, now))
        });
        let guests = self.guests.examples(&self.slice, peer).flat_map(|device| {
            let interfaces = (0..).map(InterfaceIndex).zip(&self.slice.interfaces);
            let open = interfaces.filter(|(_, known)| known.is_open_to_guests());
            let vouched = standing.vouched_for();
            open.map(move |(index, _)| {
                self.admit(Subject::Id(&device.id), vouched, index, link, now)
            })
        });
        let outward = self.places.egress(&self.slice, peer).flat_map(|egress| {
            let each = egress.rows.iter().any(|row| row.approval);
            let devices = egress.devices.iter().copied().map(Some);
            let devices = devices.take(if each { usize::MAX } else { 1 });
            let itself = egress.devices.is_empty().then_some(None);
            let who = itself.into_iter().chain(devices);
            who.map(move |who| self.egress_decision(egress, who, standing, link, now))
        });
        let carried = self.carries(peer, standing, link, now);
        let best = inward
            .chain(guests)
            .chain(outward)
            .chain(carried)
            .reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    /// Whether this node, or a device of it, may go one of the ways out that its slice has. The peer decides for itself.
    pub fn decide_way(
        &self,
        way: &Egress,
        device: Option<DeviceIndex>,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        self.egress_decision(way, device, standing, link, now)
    }

    /// Whether this node may open a flow to something behind a peer. The peer decides for itself.
    pub fn decide_egress_beyond(
        &self,
        peer: PeerIndex,
        place: Place,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let best = self
            .places
            .egress(&self.slice, peer)
            .filter(|egress| place.is_in(egress.proto, egress.port, egress.beyond))
            .map(|egress| self.egress_decision(egress, None, standing, link, now))
            .reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    /// Whether a subject may reach something behind this node: denied where a rule denies it in any interface that the
    /// place lies in, else allowed where one allows it.
    pub fn admit_beyond(
        &self,
        subject: Subject<'_>,
        standing: Standing,
        place: Place,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let holding = (0..).map(InterfaceIndex).zip(&self.slice.interfaces);
        let holding = holding
            .filter(|(_, known)| place.is_in(known.proto, known.port, known.beyond))
            .map(|(index, _)| self.admit(subject, standing, index, link, now));
        let decisions: Vec<Decision> = holding.collect();
        match decisions.is_empty() {
            true => self.refusal(Reason::UnknownInterface),
            false => self.combine(decisions),
        }
    }

    /// The meeting of a node with one that carries for it, if one of the two has that role: the peer must be trusted, and
    /// the pass of its evidence no older than by default or by its profiles.
    fn carries(
        &self,
        peer: PeerIndex,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Option<Decision> {
        let index = peer.0 as usize;
        let known = self.slice.peers.get(index)?;
        if !(known.relay || self.slice.roles.relay) || now >= self.slice.expires {
            return None;
        }
        let term = |default| Term {
            own: None,
            default,
            most: Some(self.slice.lifetimes.max_offline),
        };
        let row = EgressRow {
            rule: Arc::from(CARRIES),
            window: None,
            until: None,
            approval: false,
            fresh: term(DEFAULT_FRESH),
            offline: term(DEFAULT_OFFLINE),
        };
        let facts = self.facts(index, standing, link, now)?;
        let judged = judge_towards_peer(&row, known.software, &facts, None, &self.schedules);
        Some(explain::of_one_allow(
            &row.rule,
            &judged,
            self.slice.expires,
        ))
    }

    fn egress_decision(
        &self,
        egress: &Egress,
        device: Option<DeviceIndex>,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        if now >= self.slice.expires {
            return self.refusal(Reason::PolicyExpired);
        }
        let index = egress.peer.0 as usize;
        let (Some(facts), Some(peer)) = (
            self.facts(index, standing, link, now),
            self.slice.peers.get(index),
        ) else {
            return self.refusal(Reason::Internal);
        };
        let before = self.slice.peers.len() + self.slice.operators.len();
        let device = device.map(|device| before + device.0 as usize);
        let judged = egress.rows.iter().map(|row| {
            let judged = judge_towards_peer(row, peer.software, &facts, device, &self.schedules);
            explain::of_one_allow(&row.rule, &judged, self.slice.expires)
        });
        judged
            .reduce(Decision::better)
            .unwrap_or_else(|| self.refusal(Reason::NoRule))
    }
}

impl Place {
    /// Whether it lies in what an interface leads to. An interface of the node itself holds nothing beyond it.
    pub fn is_in(self, proto: Proto, port: u16, beyond: Option<Beyond>) -> bool {
        let port_fits = match beyond {
            None => return false,
            Some(Beyond::Internet) => true,
            Some(Beyond::Net(_)) => port == self.port,
        };
        port_fits && proto == self.proto && beyond.is_some_and(|beyond| beyond.holds(self.address))
    }
}
