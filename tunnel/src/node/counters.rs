//! How often each thing was refused.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wireguard::Refused;

/// Why the node refused a datagram or packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Refusal {
    /// Not WireGuard, or of a wrong length.
    Malformed,
    /// Made for a key that is not ours.
    WrongMac,
    /// Does not authenticate: a wrong static or pre-shared key, or forged.
    NotAuthentic,
    /// A message counter or handshake timestamp that was used before.
    Replayed,
    /// Belongs to no session or handshake of ours.
    NoSession,
    /// A static key that no armed peer has.
    UnknownPeer,
    /// Busy: a cookie was asked for, or the source has spent its budget.
    Busy,
    /// The peer was cut.
    Cut,
    /// The lease has ended.
    LeaseEnded,
    /// Decrypted, but not a whole IP packet.
    NotIp,
    /// The inner source belongs to another peer or to nobody.
    WrongSource,
    /// No peer owns the destination.
    NoRoute,
    /// No endpoint of the peer is known.
    NoEndpoint,
    /// No session yet and the waiting queue is full.
    QueueFull,
    /// A buffer of ours was too small.
    Buffer,
    /// No randomness for a handshake.
    NoRandomness,
    /// An event was dropped because nobody fetches them.
    EventQueueFull,
}

/// A reading of all counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

#[derive(Default)]
pub(super) struct Counters([AtomicU64; Refusal::ALL.len()]);

impl Refusal {
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::WrongMac,
        Self::NotAuthentic,
        Self::Replayed,
        Self::NoSession,
        Self::UnknownPeer,
        Self::Busy,
        Self::Cut,
        Self::LeaseEnded,
        Self::NotIp,
        Self::WrongSource,
        Self::NoRoute,
        Self::NoEndpoint,
        Self::QueueFull,
        Self::Buffer,
        Self::NoRandomness,
        Self::EventQueueFull,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongMac => "wrong-mac",
            Self::NotAuthentic => "not-authentic",
            Self::Replayed => "replayed",
            Self::NoSession => "no-session",
            Self::UnknownPeer => "unknown-peer",
            Self::Busy => "busy",
            Self::Cut => "cut",
            Self::LeaseEnded => "lease-ended",
            Self::NotIp => "not-ip",
            Self::WrongSource => "wrong-source",
            Self::NoRoute => "no-route",
            Self::NoEndpoint => "no-endpoint",
            Self::QueueFull => "queue-full",
            Self::Buffer => "buffer",
            Self::NoRandomness => "no-randomness",
            Self::EventQueueFull => "event-queue-full",
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed => Self::Malformed,
            Refused::WrongMac => Self::WrongMac,
            Refused::NotAuthentic | Refused::WeakKey => Self::NotAuthentic,
            Refused::Random(_) => Self::NoRandomness,
            Refused::Replayed | Refused::OldTimestamp => Self::Replayed,
            Refused::Unexpected | Refused::Exhausted => Self::NoSession,
            Refused::NotIp => Self::NotIp,
            Refused::Buffer(_) => Self::Buffer,
        }
    }
}

impl Refusals {
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0.get(refusal as usize).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Counters {
    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(counter) = self.0.get(refusal as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Refusals {
        let mut all = [0; Refusal::ALL.len()];
        for (value, counter) in all.iter_mut().zip(&self.0) {
            *value = counter.load(Ordering::Relaxed);
        }
        Refusals(all)
    }
}
