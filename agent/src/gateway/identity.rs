//! Who calls, by what was proven. Pure: asked again whenever the picture changes, the same proof may mean somebody else.

use std::net::IpAddr;
use std::sync::Arc;

use edgeward_identity::{Kind, Timestamp, TrustView, VerifiedPeer};
use edgeward_policy::Mac;
use edgeward_policy::slice::MESH;

use crate::enforce::decide::{Picture, Sighting, Who};

/// What a caller showed.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// It spoke through the tunnel from this address, and the tunnel lets nobody use another's.
    Tunnel(IpAddr),
    /// Its key signed the TLS handshake, and its certificate is an SVID.
    Svid { peer: Box<VerifiedPeer>, seen: Seen },
    /// It was seen on a network of this node, perhaps with a certificate that is no SVID.
    Sighting(Seen),
}

/// Where a caller was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The network as policy names it.
    pub(super) net: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) mac: Option<Mac>,
    /// SHA-256 of the DER of the certificate whose key signed the handshake, if one did.
    pub(super) certificate: Option<[u8; 32]>,
}

impl Proof {
    /// Who that is, by what is known now. `None`: a stranger.
    pub(super) fn who(&self, picture: &Picture) -> Option<Who> {
        match self {
            Self::Tunnel(address) => Some(match picture.peer_at(*address) {
                Some(id) => Who::Node {
                    id: id.clone(),
                    spki: None,
                },
                None => Who::Device(picture.guest_at(*address)?.clone()),
            }),
            Self::Svid { peer, seen } => holder(peer, seen, picture),
            Self::Sighting(seen) => {
                let device = picture.device(&seen.sighting())?;
                Some(Who::Device(device.id.clone()))
            }
        }
    }

    /// Whether the certificate that was shown still counts.
    pub(super) fn still_accepted(&self, trust: &TrustView, now: Timestamp) -> bool {
        match self {
            Self::Svid { peer, .. } => peer.still_accepted(trust, now).is_ok(),
            Self::Tunnel(_) | Self::Sighting(_) => true,
        }
    }
}

/// The holder of an SVID.
fn holder(peer: &VerifiedPeer, seen: &Seen, picture: &Picture) -> Option<Who> {
    let through = match &*seen.net == MESH {
        // Whoever comes through a tunnel comes from a node that is bound.
        true => Some(picture.peer_at(seen.ip)?.clone()),
        false => None,
    };
    match peer.id().kind() {
        // A node speaks for itself only through its own tunnel.
        Kind::Node if through.as_ref().is_none_or(|node| node == peer.id()) => Some(Who::Node {
            id: peer.id().clone(),
            spki: Some(peer.spki_hash()),
        }),
        Kind::Operator => Some(Who::Operator {
            id: peer.id().clone(),
            through,
        }),
        Kind::Device => {
            // A device belongs to one network of one node.
            let rules = picture.may_grant().ok()?;
            let devices = &rules.engine().slice().devices;
            let known = devices.iter().find(|device| device.id == *peer.id())?;
            (known.net == *seen.net).then(|| Who::Device(known.id.clone()))
        }
        Kind::Node | Kind::Workload | Kind::Cloud => None,
    }
}

impl Seen {
    fn sighting(&self) -> Sighting<'_> {
        Sighting {
            net: &self.net,
            ip: self.ip,
            mac: self.mac,
            certificate: self.certificate.as_ref(),
        }
    }
}
