//! The door: first flights are judged here, and only those that pass the gate cost a signature.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quinn::{Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::HANDSHAKE_TIMEOUT;
use super::connection::{FromConnection, Tasks, canonical};
use crate::bind::Role;
use crate::bind::endpoint::Identity;
use crate::bind::gate::{Gate, Verdict};
use edgeward_identity::{Clock, SpkiHash, TrustView};

/// Most inbound handshakes under way.
pub(super) const MAX_HANDSHAKES: usize = 64;

/// What the door needs.
pub(super) struct Door {
    pub(super) endpoint: Endpoint,
    pub(super) gate: Arc<Mutex<Gate>>,
    pub(super) identity: Arc<ArcSwap<Identity>>,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether this node has a result to show: without one it answers nobody.
    pub(super) ready: Arc<AtomicBool>,
    pub(super) tasks: Tasks,
    /// One signature at a time: the endpoint is locked meanwhile.
    pub(super) pen: Semaphore,
}

impl Door {
    /// Judges first flights until the endpoint closes.
    pub(super) async fn run(self) {
        let door = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        while let Some(incoming) = door.endpoint.accept().await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count("gate_handshakes");
                incoming.ignore();
                continue;
            };
            if !door.ready.load(Ordering::Relaxed) {
                count("gate_not_ready");
                incoming.ignore();
                continue;
            }
            let verdict = door.gate.lock().judge(
                &incoming.orig_dst_cid(),
                incoming.remote_address_validated(),
                door.clock.boottime(),
            );
            match verdict {
                Verdict::Ignore(turned) => {
                    count(turned.as_str());
                    incoming.ignore();
                }
                Verdict::Retry => {
                    // Refused only for an address that is validated already, which is not retried.
                    if let Err(refused) = incoming.retry() {
                        refused.into_incoming().ignore();
                    }
                }
                Verdict::Later => {
                    count("gate_later");
                    // Costs no signature, and saves the peer a wait for an answer.
                    incoming.refuse();
                }
                Verdict::Accept(claimed) => {
                    count("gate_accepted");
                    let door = Arc::clone(&door);
                    tokio::spawn(async move { door.admit(incoming, claimed, place).await });
                }
            }
        }
    }

    /// From here on a signature is spent.
    async fn admit(&self, incoming: Incoming, claimed: SpkiHash, place: OwnedSemaphorePermit) {
        let from = canonical(incoming.remote_address());
        let identity = self.identity.load_full();
        let result = self.handshake(incoming, &identity, &claimed).await;
        drop(place);
        match result {
            Ok((connection, channel)) => {
                self.tasks
                    .clone()
                    .carry(connection, channel, identity)
                    .await;
            }
            Err(reason) => {
                let stranger = FromConnection::Stranger {
                    from,
                    claimed,
                    reason,
                };
                self.tasks.tell(stranger).await;
            }
        }
    }

    async fn handshake(
        &self,
        incoming: Incoming,
        identity: &Identity,
        claimed: &SpkiHash,
    ) -> Result<(quinn::Connection, crate::bind::machine::Channel), String> {
        let pen = self
            .pen
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let begun = self.clock.boottime();
        let connecting = incoming
            .accept_with(Arc::clone(identity.server_config()))
            .map_err(|error| error.to_string())?;
        let now = self.clock.boottime();
        {
            let mut gate = self.gate.lock();
            gate.signed(now.since(begun), now);
            metrics::gauge!("edgeward_bind_gate_per_minute").set(gate.per_minute());
        }
        drop(pen);
        let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err("handshake took too long".to_owned()),
        };
        let channel = identity.channel(
            &connection,
            Role::Responder,
            claimed,
            &self.trust.load(),
            self.clock.now(),
        );
        match channel {
            Ok(channel) => Ok((connection, channel)),
            Err(error) => {
                connection.close(0_u32.into(), b"");
                Err(error.to_string())
            }
        }
    }
}

fn count(verdict: &'static str) {
    metrics::counter!("edgeward_bind_gate_total", "verdict" => verdict).increment(1);
}
