//! What goes into reach and what comes out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edgeward_identity::{BootTime, Secret, SpiffeId, TrustDomain};

use super::message::{Refusal, RouteId};
use super::seal::Tag;
use crate::bind::Role;
use crate::node::{Endpoint, PeerId};

/// How reach behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of this node and all its peers: messages name nodes only.
    pub trust_domain: TrustDomain,
    /// Nothing is sent to an idle peer, whatever that costs when it wakes.
    pub metered: bool,
}

/// Who may be carried, and by whom. Asked at every ask and offer, and again at [`Input::Recheck`].
pub trait MayRelay: Send + Sync {
    /// Is this node a relay, and may it carry what `from` and `to` send each other?
    fn may_carry(&self, from: &SpiffeId, to: &SpiffeId) -> bool;
    /// Is `relay` one, and may what this node and `peer` send each other run through it?
    fn may_use(&self, relay: &SpiffeId, peer: &SpiffeId) -> bool;
}

/// By what a path leads to its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Direct,
    /// Through this node.
    Relay(SpiffeId),
    /// Through the cloud, over TLS.
    Cloud,
}

/// What happens.
#[derive(Debug)]
pub enum Input<'a> {
    /// WireGuard was armed with this peer (again, maybe): it was found at `at`.
    Bound {
        peer: SpiffeId,
        id: PeerId,
        /// [`Arm::reach_key`](crate::bind::machine::Arm::reach_key).
        key: Secret<[u8; 32]>,
        role: Role,
        at: Endpoint,
    },
    /// The peer was cut.
    Unbound(PeerId),
    /// Where a bound peer says it is: replaces what it said before.
    Candidates {
        peer: PeerId,
        addresses: Vec<SocketAddr>,
    },
    /// A channel to this peer, at an address of [`Reach::channel_address`](super::Reach::channel_address).
    Channel { peer: SpiffeId, address: SocketAddr },
    /// That channel is gone.
    ChannelGone { address: SocketAddr },
    /// The addresses of this node changed, or its routes: every path is tried again.
    Local(Vec<IpAddr>),
    /// Policy's relays for this node, best first: asked for by themselves where nothing else answers.
    Relays(Vec<SpiffeId>),
    /// WireGuard found the peer at another address ([`node::Event::Roamed`](crate::node::Event::Roamed)).
    Roamed { peer: PeerId, to: SocketAddr },
    /// What WireGuard counted for the peer since it was armed: says whether it is in use.
    Traffic {
        peer: PeerId,
        sent: u64,
        received: u64,
    },
    /// A reach message.
    Datagram { from: Endpoint, bytes: &'a [u8] },
    /// A route to `to` is wanted through `relay`, which is bound.
    WantRelay { relay: SpiffeId, to: SpiffeId },
    /// Policy changed.
    Recheck,
    /// Time passed: [`Reach::deadline`](super::Reach::deadline) was reached.
    Tick,
}

/// What to do, in this order. [`ReachPort::perform`](crate::shell::reach_port::ReachPort::perform) does what the
/// shell can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this on the port.
    Send { to: Endpoint, bytes: Vec<u8> },
    /// Let datagrams with this tag in.
    Listen(Tag),
    /// Let them in no more.
    Deafen(Tag),
    /// Tell WireGuard where to send to this peer ([`Node::use_path`](crate::node::Node::use_path)).
    UsePath {
        peer: PeerId,
        endpoint: Endpoint,
        /// Until then another address may not take its place by itself.
        proven_until: BootTime,
        /// Longest UDP payload that gets through, in bytes, once that is known.
        largest_datagram: Option<u16>,
    },
    /// Datagrams to `address` go through a relay from now on, and those of the route come from it.
    Detour {
        address: SocketAddr,
        relay: Endpoint,
        /// Where the relay proved itself lately: only from there its datagrams are taken.
        sources: Vec<SocketAddr>,
        route: RouteId,
    },
    /// That is over.
    DetourGone { address: SocketAddr },
    /// The relay carries for us: the peer can be dialled at `address`.
    Granted {
        relay: SpiffeId,
        to: SpiffeId,
        address: SocketAddr,
    },
    /// It does not.
    NotGranted {
        relay: SpiffeId,
        to: SpiffeId,
        code: NotRelayed,
    },
    /// The relay carries for a peer that wants to reach us: it will be heard from `address`.
    Offered {
        relay: SpiffeId,
        from: SpiffeId,
        address: SocketAddr,
    },
    /// How a bound peer sees us.
    Observed {
        address: SocketAddr,
        by: SpiffeId,
        local_ip: Option<IpAddr>,
    },
    /// Another path is in use; `None` if none answers.
    Switched {
        peer: SpiffeId,
        from: Option<Kind>,
        to: Option<Kind>,
    },
}

/// Why there is no route through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRelayed {
    /// The relay said so.
    Refused(Refusal),
    /// It did not answer.
    Silent,
    /// It is not bound, or there is no direct path to it.
    NoPath,
    /// Policy lets nobody use it for this.
    NotPermitted,
    /// Too many routes or asks.
    Busy,
}

/// A path to a peer, as shown to people.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    pub peer: SpiffeId,
    pub kind: Kind,
    pub address: SocketAddr,
    /// In use now.
    pub chosen: bool,
    /// Answers now.
    pub alive: bool,
    pub rtt: Option<Duration>,
    /// Of the last probes, in percent.
    pub loss_percent: u8,
    /// Longest UDP payload that gets through, in bytes, if known.
    pub largest_datagram: Option<u16>,
    /// How often something is sent so that a mapping lives, if one has to.
    pub keepalive: Option<Duration>,
    /// Since when it is in use.
    pub since: Option<BootTime>,
}
