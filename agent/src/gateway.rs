//! The gateway: this agent answers for every interface that it has to read (`l7`) or that lies elsewhere (`to`), knows
//! who calls, asks policy, and forwards what is allowed. Plain legacy protocols become authenticated ones this way,
//! without a change to what serves them.
//!
//! - `listen`: one listener for each address and port; who cannot be listened for is let in by nobody.
//! - `identity`, `tls`: who calls. The owner of the tunnel that a source address belongs to, the device that shows
//!   itself so on a network of this node, or the holder of an SVID who proves its key in a TLS 1.3 handshake.
//! - [`caller`]: what a protocol asks about its caller: may it, shall it go on, is its protocol broken.
//! - `live`: every connection is decided anew when anything changes, and ends at once when its right is lost.
//! - One module for each protocol, of one shape: `async fn carry(stream, caller) -> Result<(), Broken>`.
//!
//! A protocol module reads its client's bytes by bounded parsers, asks [`Caller::decide`] before a request goes on,
//! and opens its way to the service with [`Caller::connect`]. It need not watch for a lost right: `live` drops
//! it. What one request opened for long (a subscription, a stream) it decides again whenever [`Caller::changes`] says.

mod budget;
pub mod caller;
pub mod http;
mod identity;
mod listen;
mod live;
pub mod modbus;
pub mod mqtt;
pub mod neighbours;
mod nets;
pub mod party;
mod raw;
mod records;
pub mod relay;
mod rooms;
mod serve;
mod status;
mod tls;
mod udp;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::svid::SvidError;
use edgeward_identity::{Clock, SpiffeId, Svid, TrustView};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::enforce::decide::{Decider, Spot};
use crate::enforce::posture::{Guard, Posture};
use crate::enforce::{DeviceName, Nets, Recorder};
use listen::{Listeners, Stand};
use nets::Kernel;
use party::Counter;
use records::Records;
use rooms::Rooms;
use serve::Core;
use tls::Tls;

pub use caller::{Broken, Caller};
pub use status::{GatewayStatus, Shown};

/// How often the machine's addresses are looked at, and a listener is tried again that could not be had.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Takes the spots at which the gateway listens, at every address that it shall.
pub type SetListening = Box<dyn Fn(HashSet<Spot>) + Send + Sync>;

/// What the gateway is made of.
pub struct Parts {
    pub node: SpiffeId,
    pub clock: Arc<dyn Clock>,
    /// What handshakes present; its key is served after the session's.
    pub svid: watch::Receiver<Arc<Svid>>,
    pub trust: Arc<ArcSwap<TrustView>>,
    pub trust_changed: watch::Receiver<u64>,
    pub decider: Arc<Decider>,
    pub recorder: Arc<dyn Recorder>,
    /// Where decisions are summed up for the records.
    pub posture: Arc<Posture>,
    /// The TUN device.
    pub mesh: DeviceName,
    /// Devices of other networks.
    pub nets: Nets,
    pub report_every: Duration,
    /// Tells the filter and the kernel's guard where the gateway listens: they let nobody in at other spots that are to
    /// be forwarded.
    pub set_listening: SetListening,
}

/// The loop that keeps listeners as policy wants them.
pub struct Gateway {
    core: Arc<Core>,
    recorder: Arc<dyn Recorder>,
    records: Records,
    listeners: Listeners,
    stands: BTreeMap<Spot, Stand>,
    listening: HashSet<Spot>,
    set_listening: SetListening,
    report_every: Duration,
    shown: Arc<Shown>,
}

impl Gateway {
    /// Opens nothing yet. `token` ends it with all its connections.
    pub fn new(parts: Parts, token: CancellationToken) -> Result<Self, SvidError> {
        let tls = Tls::new(
            parts.svid,
            Arc::clone(&parts.trust),
            Arc::clone(&parts.clock),
            Arc::clone(&parts.decider),
        )?;
        let rooms = Rooms::default();
        let counter = Counter {
            posture: parts.posture,
            clock: Arc::clone(&parts.clock),
            guard: Guard::Gateway,
        };
        let core = Core {
            decider: parts.decider,
            clock: parts.clock,
            trust: parts.trust,
            trust_changed: parts.trust_changed,
            tls,
            counter,
            rooms: rooms.clone(),
            kernel: Kernel {
                mesh: parts.mesh.to_string(),
                others: parts.nets,
            },
            token,
        };
        Ok(Self {
            core: Arc::new(core),
            recorder: parts.recorder,
            records: Records { node: parts.node },
            listeners: Listeners::default(),
            stands: BTreeMap::new(),
            listening: HashSet::new(),
            set_listening: parts.set_listening,
            report_every: parts.report_every,
            shown: Arc::new(Shown::new(rooms)),
        })
    }

    /// For the local socket.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Runs until the token is cancelled.
    pub async fn run(mut self) {
        let token = self.core.token.clone();
        let mut changes = self.core.decider.changes();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = tokio::time::interval(self.report_every);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                _ = look.tick() => {}
                _ = report.tick() => status::count(&self.stands, &self.core.rooms),
            }
            self.settle();
        }
    }

    /// Puts listeners in step with policy and addresses.
    fn settle(&mut self) {
        let picture = self.core.decider.picture();
        if self.listeners.close_unwanted(&self.core, &picture) {
            let gone = &self.stands;
            tracing::debug!(before = gone.len(), "gateway closed listeners");
        }
        let stands = self.listeners.open_missing(&self.core, &picture);
        let listening = listen::served(&stands);
        if listening != self.listening {
            (self.set_listening)(listening.clone());
            self.listening = listening;
        }
        self.tell(&stands);
        self.stands = stands;
        self.shown.set(&self.stands);
    }

    /// Records what stands otherwise than before.
    fn tell(&self, stands: &BTreeMap<Spot, Stand>) {
        let now = self.core.clock.now();
        for (spot, stand) in stands {
            let before = self.stands.get(spot);
            if before.map(|before| &before.failed) == Some(&stand.failed) {
                continue;
            }
            let interface = stand.interface.to_string();
            let up = f64::from(u8::from(stand.failed.is_none()));
            metrics::gauge!("edgeward_gateway_listening", "interface" => interface).set(up);
            match &stand.failed {
                Some(reason) => {
                    tracing::error!(
                        interface = &*stand.interface,
                        reason,
                        "gateway cannot listen: nobody is let in"
                    );
                    let event = self.records.down(now, spot, stand, reason);
                    self.recorder.record_after(event);
                }
                None => {
                    tracing::info!(interface = &*stand.interface, addresses = ?stand.addresses, "gateway serves");
                    let event = self.records.up(now, spot, stand);
                    self.recorder.record_after(event);
                }
            }
        }
        for (spot, stand) in &self.stands {
            if !stands.contains_key(spot) {
                let interface = stand.interface.to_string();
                metrics::gauge!("edgeward_gateway_listening", "interface" => interface).set(0.0);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
