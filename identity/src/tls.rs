//! TLS 1.3 configurations from an SVID and a trust view; the one maker of [`VerifiedPeer`](peer::VerifiedPeer).
//!
//! One provider (ring), passed explicitly. TLS 1.3 only; no tickets, no resumption, no early data: a resumed
//! session would skip the client's certificate, and with it the deny-list.

pub mod config;
pub mod credentials;
pub mod peer;
pub mod verifier;

pub use config::{
    EVIDENCE_EXPORTER_LABEL, EXPORTER_BYTES, anonymous_client, client, keyless_client,
    outside_client, server,
};
pub use credentials::Credentials;
pub use verifier::{PeerVerifier, PinnedVerifier};

#[cfg(test)]
mod tests;
