//! Dialling a peer, and when to.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::Endpoint;

use super::connection::{FromConnection, Tasks};
use super::own::random;
use super::{
    DIAL_PATIENCE, HANDSHAKE_TIMEOUT, MAX_BACKOFF, MAX_ENDPOINTS, MIN_BACKOFF, PeerTarget,
};
use crate::bind::Role;
use crate::bind::endpoint::Identity;
use crate::bind::gate::PassKey;
use edgeward_identity::{BootTime, Clock, SpkiHash, TrustView};

/// A peer that the agent wants to be bound with.
pub(super) struct Wanted {
    pub(super) target: PeerTarget,
    /// When to dial next, if nothing is bound by then.
    pub(super) next: BootTime,
    backoff: Duration,
    pub(super) dialling: bool,
}

/// What a dial needs.
pub(super) struct Dial {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Arc<Identity>,
    pub(super) target: PeerTarget,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
}

impl Wanted {
    /// The side with the smaller key dials at once; the other gives it a moment.
    pub(super) fn new(target: PeerTarget, own: &SpkiHash, now: BootTime) -> Self {
        let patience = if *own < target.spki {
            Duration::ZERO
        } else {
            DIAL_PATIENCE
        };
        Self {
            target,
            next: now.plus(patience),
            backoff: MIN_BACKOFF,
            dialling: false,
        }
    }

    /// After a failure: later, and twice as late the next time. The jitter keeps a fleet from dialling in step.
    pub(super) fn put_off(&mut self, now: BootTime) {
        self.next = now.plus(jittered(self.backoff));
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }

    pub(super) fn succeeded(&mut self) {
        self.backoff = MIN_BACKOFF;
    }

    /// Bind anew soon, but not with all peers at once.
    pub(super) fn renew_within(&mut self, spread: Duration, now: BootTime) {
        self.next = now.plus(somewhere_in(spread));
    }
}

impl Dial {
    /// Tries the peer's addresses one after the other.
    pub(super) async fn run(self) {
        let peer = self.target.id.clone();
        let mut reason = "no endpoint is known".to_owned();
        for address in self.target.endpoints.iter().take(MAX_ENDPOINTS) {
            match self.handshake(*address).await {
                Ok(connection) => {
                    let channel = self.identity.channel(
                        &connection,
                        Role::Initiator,
                        &self.target.spki,
                        &self.trust.load(),
                        self.clock.now(),
                    );
                    match channel {
                        Ok(channel) if *channel.peer.id() == peer => {
                            return self.tasks.carry(connection, channel, self.identity).await;
                        }
                        Ok(channel) => reason = format!("peer is another: {}", channel.peer.id()),
                        Err(error) => reason = error.to_string(),
                    }
                    connection.close(0_u32.into(), b"");
                }
                Err(error) => reason = format!("{address}: {error}"),
            }
        }
        self.tasks
            .tell(FromConnection::DialFailed { peer, reason })
            .await;
    }

    async fn handshake(&self, address: std::net::SocketAddr) -> Result<quinn::Connection, String> {
        let trust = self.trust.load();
        let key = PassKey::new(trust.bundle.trust_domain(), &self.target.spki);
        drop(trust);
        let nonce = random().map_err(|error| error.to_string())?;
        let pass = key.issue(&self.identity.party().spki, nonce);
        let connecting = self
            .identity
            .connect(&self.endpoint, address, pass)
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// Between half of `duration` and all of it.
fn jittered(duration: Duration) -> Duration {
    duration / 2 + somewhere_in(duration / 2)
}

/// Between nothing and `duration`; all of it without randomness.
fn somewhere_in(duration: Duration) -> Duration {
    let fraction = random::<2>().map_or(u16::MAX, u16::from_ne_bytes);
    duration.mul_f64(f64::from(fraction) / f64::from(u16::MAX))
}
