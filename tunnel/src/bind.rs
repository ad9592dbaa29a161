//! The bind: the mutual-TLS exchange between two agents from which a tunnel's keys come.
//!
//! Two agents meet over QUIC on the UDP port of WireGuard, prove who they are (SVIDs in TLS 1.3), what they booted
//! (attestation results), that it is still that boot (a signature by the boot key) and that they hold the WireGuard
//! keys they offer (a MAC under X25519), and derive pre-shared keys from the TLS exporter and ML-KEM-768. Only then
//! does WireGuard learn of the peer, and only for as long as the lease says.
//!
//! Cores, without I/O and told the time:
//! - [`codec`]: frames and messages; [`code`]: why a bind ended, as a peer learns it.
//! - [`schedule`], [`kem`], [`proof`]: the keys, and the proofs that both ends have the same.
//! - [`claims`]: what a peer's evidence says; [`lease`]: for how long; [`policy`]: the question to the agent.
//! - [`machine`]: one bind from handshake to end; [`ending`]: how it ended; [`table`]: glare and takeover.
//! - [`gate`]: what a stranger must pass before this node signs anything.
//!
//! The shell: [`endpoint`] (QUIC and TLS configurations) and [`driver`] (threads, connections, the loop).
//!
//! # How an agent uses it
//!
//! 1. Make the port: `shell::demux::quic_inbox()`, a [`QuicSocket`](crate::shell::quic_socket::QuicSocket) on its
//!    source and the tunnel's `udp_sender()`; give the sink to the tunnel.
//! 2. Implement [`policy::MayBind`]: is there any rule in either direction between this node and the peer? Return
//!    the peer's overlay prefixes (from policy) and the limits: the longest `fresh` and `offline` of those rules.
//!    It is asked again at every [`BindHandle::recheck`](driver::BindHandle::recheck).
//! 3. Implement [`driver::WireGuardControl`] on the tunnel. `arm`: not armed: `Node::arm`. Armed with the same two
//!    WireGuard keys and role: `Node::turn_epoch` with the epoch given, then lease and prefixes. Else cut, then
//!    arm. `open`: append the bind-open record to the journal, and only if that worked let the filter forward.
//!    `cut`: `Tunnel::cut`, then routes, filter elements and flows. Prefixes are the arm's, never more.
//! 4. [`driver::BindDriver::start`] with the node's SVID, evidence and WireGuard key. Without an attestation
//!    result (empty) it neither dials nor answers until `set_result`.
//! 5. Tell it the directory (`set_directory`: keys of all peers that policy lets this node meet; nobody else gets
//!    an answer) and `want` every one of them; both ends may, and the one with the smaller key dials first.
//! 6. Pass on what happens: `node::Event::Opened {epoch}` as `wireguard_confirmed` (nothing opens without it); a
//!    pass of this node as `set_result`; a renewed SVID as `set_svid`; heartbeats found or lost as `set_link`; a new
//!    slice as `set_slice`; a new trust view, key set or policy as `recheck`.
//! 7. To cut a peer, cut the tunnel first, then tell the driver ([`driver::BindHandle::cut`]): it says goodbye to
//!    the peer, which cuts as well. A peer on the deny-list or without a rule is cut by `recheck` alone.
//! 8. Record the [`driver::Event`]s: each [`ending::Ending`] has a stable code for the peer, and the reason.
//!
//! # What ends a tunnel
//!
//! Its lease, a cut, a refused result, a peer that says it cuts or stops. Not the loss of the QUIC connection: the
//! machine then watches the tunnel without one ([`machine::Output::Adrift`]) and the driver dials again.

pub mod blocking;
pub mod claims;
pub mod code;
pub mod codec;
pub mod driver;
pub mod ending;
pub mod endpoint;
pub mod gate;
pub mod kem;
pub mod lease;
pub mod machine;
pub mod policy;
pub mod proof;
pub mod schedule;
pub mod table;

#[cfg(test)]
pub(crate) mod testing;

/// Which side of the bind a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Dialled; triggers WireGuard handshakes and turns epochs.
    Initiator,
    /// Was dialled; arms first, and opens no epoch.
    Responder,
}

impl Role {
    /// The other side's role.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    const fn label(self) -> u8 {
        match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        }
    }
}
