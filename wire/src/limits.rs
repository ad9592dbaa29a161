//! Bounds that both ends of the contract keep.

use std::time::Duration;

/// Largest gRPC message in either direction, in bytes (a full slice of a large site).
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Largest message before a caller is authenticated, in bytes (EK chains and TPM structures).
pub const MAX_ENROL_MESSAGE_BYTES: usize = 64 * 1024;
/// A whole enrolment must end within this time; the token's reservation lasts as long.
pub const ENROL_DEADLINE: Duration = Duration::from_secs(120);
/// How long an unanswered challenge is waited for, then once more; then the node is stale.
pub const CHALLENGE_DEADLINE: Duration = Duration::from_secs(10);
/// How often the cloud sends signed time and the deny-list's number.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// The least often that a metered node hears the cloud.
pub const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3600);
/// So many times the interval of heartbeats without one, and a node counts as cut off.
pub const HEARTBEATS_LOST: u32 = 3;
/// A verifier that heard no heartbeat for this long counts as cut off from the cloud.
pub const HEARTBEAT_LOST_AFTER: Duration = Duration::from_secs(30);
/// Most endpoint candidates of one node.
pub const MAX_ENDPOINTS: usize = 16;
/// Most relays that a call names.
pub const MAX_CALL_RELAYS: usize = 16;
/// Largest datagram that the cloud carries, in bytes.
pub const MAX_CARRIED_BYTES: usize = 2048;
/// Most datagrams in one frame to or from the cloud's relay.
pub const MAX_CARRIED_AT_ONCE: usize = 64;
/// Largest frame of the cloud's relay, in bytes.
pub const MAX_RELAY_FRAME_BYTES: usize = 256 * 1024;
/// Most bytes of metadata or of a manifest in one message.
pub const MAX_APPS_PIECE_BYTES: usize = 256 * 1024;
/// Most chunks that one request names.
pub const MAX_CHUNKS_AT_ONCE: usize = 256;
/// Largest message of the applications' service, in bytes: a chunk, and what names it.
pub const MAX_APPS_MESSAGE_BYTES: usize = 1024 * 1024 + 256;
/// Most applications that a node says something of.
pub const MAX_APPS_SAID: usize = 256;
/// Largest frame of the bind's stream, in bytes.
pub const MAX_BIND_FRAME_BYTES: usize = 64 * 1024;
/// Application protocol of cloud connections that speak HTTP/2 (gRPC, REST).
pub const ALPN_H2: &[u8] = b"h2";
/// As [`ALPN_H2`], for connections of metered nodes: nobody sends anything only to see whether the other is there.
pub const ALPN_H2_QUIET: &[u8] = b"edgeward-h2-quiet";
/// Application protocol of cloud connections that speak HTTP/1.1 (REST, browsers).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Application protocol of binds between agents.
pub const ALPN_BIND: &[u8] = b"edgeward-bind/1";
