//! Dialling a peer, and when to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::Endpoint;

use super::connection::{FromConnection, Tasks};
use super::own::random;
use super::{HANDSHAKE_TIMEOUT, MAX_ENDPOINTS, PeerTarget};
use crate::bind::Role;
use crate::bind::endpoint::Identity;
use crate::bind::gate::PassKey;
use edgeward_identity::{Clock, TrustView};

/// What a dial needs.
pub(super) struct Dial {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Arc<Identity>,
    pub(super) target: PeerTarget,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
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
