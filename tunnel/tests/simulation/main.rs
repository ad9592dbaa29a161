//! Several nodes on a simulated network with a turned clock: what the tunnel promises, under everything that a
//! network and a stranger can do. Only the public face of the node is used.

#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: what is not there fails it"
)]

mod cut;
mod hostile;
mod ledger;
mod partition;
mod random;
mod rotation;
mod wire;
mod world;
