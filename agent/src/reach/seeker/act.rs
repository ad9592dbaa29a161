//! What comes out of the seeker, and what it is told of a new peer.

use std::net::SocketAddr;

use edgeward_identity::{Secret, SpiffeId};
use edgeward_tunnel::bind::Role;
use edgeward_tunnel::node::Endpoint;
use edgeward_tunnel::reach::Output;
use edgeward_wire::v1;

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Act {
    /// The shell of the tunnel can do it.
    Perform(Output),
    /// Send this on the UDP port.
    Send {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Answers of STUN may come from these.
    ExpectStun(Vec<SocketAddr>),
    /// Through the session, to a peer.
    Call(v1::Call),
    /// These are this node's addresses.
    Advertise(Vec<String>),
    /// The peer may be found at these addresses too: dial it again, if it is wanted.
    Dial {
        peer: SpiffeId,
        addresses: Vec<SocketAddr>,
    },
    /// A permitted peer is needed, whoever talks to it: a relay.
    Wake(SpiffeId),
    /// From now on datagrams to `address` go to the peer through the cloud.
    OpenChannel {
        peer: SpiffeId,
        address: SocketAddr,
    },
    CloseChannel {
        address: SocketAddr,
    },
    /// A bound peer is reached another way: `direct`, `relay`, `cloud` or `none`.
    Switched {
        peer: SpiffeId,
        from: &'static str,
        to: &'static str,
    },
    /// Whether the stream to the cloud's relay is needed.
    Carry(bool),
}

/// A peer that was armed.
pub struct NewlyBound {
    pub peer: SpiffeId,
    pub key: Secret<[u8; 32]>,
    pub role: Role,
    pub at: Endpoint,
}
