//! The tunnel: WireGuard sessions that exist only between two bound identities.
//!
//! Cores, without I/O and told the time:
//! - [`bind`]: who may be a peer: the exchange from which a tunnel's keys come (its driver does I/O).
//! - [`wireguard`]: the WireGuard protocol: messages, handshakes, sessions; one file in it names snow.
//! - [`node`]: peers, PSK epochs, leases, timers, cuts.
//! - [`reach`]: the ways between two bound nodes: probed, ranked, changed, and relayed for others.
//! - [`routes`]: longest-prefix tables for both directions.
//! - [`translate`]: networks behind this node under other addresses, one to one.
//! - [`filter`]: the stateful per-interface filter, default deny both ways.
//!
//! The shell, which does the I/O: [`shell`] (TUN device, one UDP port shared with QUIC) and [`uapi`]
//! (the socket that `wg show` speaks to).

pub mod bind;
pub mod filter;
pub mod node;
pub mod reach;
pub mod routes;
pub mod shell;
pub mod translate;
pub mod uapi;
pub mod wireguard;
