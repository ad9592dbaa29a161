//! Devices that open flows through a tunnel: those of peers, which come here, and those of this node, which go to peers.
//!
//! The node that a device hangs on vouches for it and sees to it that nobody else on its network has the device's
//! address; the other node takes its word, and judges by the evidence of that node.

use std::net::IpAddr;

use edgeward_identity::{SpiffeId, Timestamp};
use edgeward_policy::{Decision, Link, PeerIndex, Proto, Reason, Standing as Evidence, Subject};
use edgeward_tunnel::filter::Direction;

use super::picture::{Picture, refusal};
use super::reason::Nothing;
use super::rules::Rules;

/// What a flow is about, and what its peer's evidence says.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) rules: &'a Rules,
    pub(super) peer: PeerIndex,
    pub(super) service: (Proto, u16),
    pub(super) evidence: Evidence,
    pub(super) link: Link,
    pub(super) now: Timestamp,
}

impl Picture {
    /// Whether a device behind a peer may open a flow to this node.
    pub(super) fn guest_comes(
        &self,
        asked: &Asked<'_>,
        source: IpAddr,
    ) -> Result<Decision, Nothing> {
        let found = asked.rules.guest_at(source);
        let (_, device) = found
            .filter(|(node, _)| *node == asked.peer)
            .ok_or(Nothing::NotTheirs)?;
        self.admits_guest(&device.id, asked.evidence)?;
        let asked = Asked {
            evidence: asked.evidence.vouched_for(),
            ..*asked
        };
        self.admit_here(&asked, Subject::Id(&device.id))
    }

    /// Whether a device of this node may open a flow to a peer itself.
    pub(super) fn traveller_goes(
        &self,
        asked: &Asked<'_>,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Decision, Nothing> {
        let found = asked.rules.traveller_at(source);
        let (number, device) = found.ok_or(Nothing::NotOurs)?;
        if asked.rules.peer_at(destination) != Some(asked.peer) {
            return Err(Nothing::NotOurs);
        }
        // The peer says what the device counts for; here it only must not have been cut.
        self.device_standing(&device.id)?;
        Ok(asked.rules.engine().decide_egress_of(
            number,
            asked.peer,
            asked.service,
            asked.evidence,
            asked.link,
            asked.now,
        ))
    }

    /// Somebody before an interface of this node in the tunnel.
    pub(super) fn admit_here(
        &self,
        asked: &Asked<'_>,
        subject: Subject<'_>,
    ) -> Result<Decision, Nothing> {
        let Some(interface) = asked.rules.mesh_interface(asked.service.0, asked.service.1) else {
            return Ok(refusal(asked.rules, Reason::UnknownInterface));
        };
        let forwarded = asked.rules.is_forwarded(interface);
        if forwarded && !self.parts.listening.contains(&asked.service) {
            return Err(Nothing::NoGateway);
        }
        let engine = asked.rules.engine();
        Ok(engine.admit(subject, asked.evidence, interface, asked.link, asked.now))
    }

    /// Who opened a flow, where that is neither this node nor the peer but a device.
    pub fn device_of_flow(&self, source: IpAddr, direction: Direction) -> Option<&SpiffeId> {
        let rules = self.parts.rules.as_deref()?;
        match direction {
            Direction::In => Some(&rules.guest_at(source)?.1.id),
            Direction::Out => Some(&rules.traveller_at(source)?.1.id),
        }
    }

    /// The device behind a bound peer that comes from an overlay address.
    pub fn guest_at(&self, address: IpAddr) -> Option<&SpiffeId> {
        let rules = self.may_grant().ok()?;
        let (_, device) = rules.guest_at(address)?;
        self.guest_standing(rules, &device.id).ok()?;
        Some(&device.id)
    }

    /// What is known of the evidence of a device behind a peer.
    pub(super) fn guest_standing(
        &self,
        rules: &Rules,
        device: &SpiffeId,
    ) -> Result<(Evidence, Link), Nothing> {
        let node = rules.node_of_guest(device).ok_or(Nothing::NotBound)?;
        let (evidence, link) = self.evidence_of_bound(node, None)?;
        self.admits_guest(device, evidence)?;
        Ok((evidence.vouched_for(), link))
    }

    fn admits_guest(&self, device: &SpiffeId, of_node: Evidence) -> Result<(), Nothing> {
        let passed = of_node.last_pass.unwrap_or_default();
        match self.parts.floors.admits(device, passed) {
            true => Ok(()),
            false => Err(Nothing::Cut),
        }
    }
}
