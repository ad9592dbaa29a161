//! The shell of the bind: a QUIC endpoint on threads of its own, and one loop that feeds the machines.
//!
//! # Threads
//!
//! rustls signs synchronously, and a TPM takes from tens of milliseconds to a second. So the endpoint runs on a
//! runtime of its own ([`WORKERS`] threads), apart from the packet threads and from the agent's runtime: no
//! signature ever delays a packet, a cut or a session. While a key signs, its thread is replaced, so that the
//! other connections go on. One thing is left: a responder's signature is made inside the QUIC library while its
//! endpoint is locked, so for that long no datagram reaches the other binds, and a turn or a new result is late
//! by one signature. Only one such signature is made at a time, and the gate's budgets bound how many there can
//! be. WireGuard, leases and cuts do not depend on any of it.
//!
//! # Who dials
//!
//! Both ends may. The one with the smaller SPKI hash dials at once, the other after [`DIAL_PATIENCE`], so that
//! usually one handshake is enough and glare is rare. Lost connections are dialled again with jittered backoff
//! ([`MIN_BACKOFF`] to [`MAX_BACKOFF`]); the tunnel lives on meanwhile, watched until its lease ends.

mod connection;
mod dial;
mod door;
mod hub;
mod own;
mod wanted;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{
    BootTime, Clock, KeySet, Secret, Signer, SpiffeId, SpkiHash, Svid, TrustView,
};
use ipnet::IpNet;
use quinn::AsyncUdpSocket;
use tokio::sync::mpsc;

use super::code::Code;
use super::ending::Ending;
use super::endpoint::NoIdentity;
use super::lease::CloudLink;
use super::machine::{Arm, Opened};
use super::policy::MayBind;
use super::table::BindId;
use crate::wireguard::StaticKeys;

/// Threads of the endpoint's runtime, beside one that waits for the TPM: one may wait for the endpoint's lock.
pub const WORKERS: usize = 3;
/// Most commands waiting.
pub const MAX_COMMANDS: usize = 1024;
/// Most events waiting for the agent; further ones are dropped and counted.
pub const MAX_EVENTS: usize = 4096;
/// How long the side with the greater SPKI hash waits before it dials, too.
pub const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// Shortest time between two dials of one peer.
pub const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Longest time between two dials of one peer.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest time for one address to answer and finish the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most dials under way: the last of them still finds the TPM within [`HANDSHAKE_TIMEOUT`].
pub const MAX_DIALS: usize = 32;
/// Most endpoints tried for one peer.
pub const MAX_ENDPOINTS: usize = 8;
/// Most peers wanted at once.
pub const MAX_WANTED: usize = 16_384;
/// Longest time for farewells at the end.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// Epochs of one bind that fit below the number of the bind ([`node_epoch`]).
pub const EPOCHS_PER_BIND: u64 = 1 << 24;

/// What the driver starts from.
pub struct Setup {
    pub socket: Arc<dyn AsyncUdpSocket>,
    pub clock: Arc<dyn Clock>,
    pub policy: Arc<dyn MayBind>,
    pub control: Arc<dyn WireGuardControl>,
    /// Roots and deny-list; say [`BindHandle::recheck`] after a change.
    pub trust: Arc<ArcSwap<TrustView>>,
    /// The cloud's keys; say [`BindHandle::recheck`] after a change.
    pub keys: Arc<ArcSwap<KeySet>>,
    pub svid: Svid,
    pub evidence: OwnEvidence,
    pub wireguard: Arc<StaticKeys>,
    /// Number of the policy slice held now.
    pub slice_number: u64,
    pub link: CloudLink,
    /// Tunnels that stand already. Their lease is watched by whoever brought them, until a bind arms their peers anew.
    pub standing: Vec<StandingTunnel>,
}

/// A tunnel that another process of this machine has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingTunnel {
    pub peer: SpiffeId,
    pub wireguard_key: [u8; 32],
    /// As WireGuard knows it ([`node_epoch`]): binds of this process have later ones.
    pub epoch: u64,
}

/// What this node shows of itself.
#[derive(Clone)]
pub struct OwnEvidence {
    /// The software key of this boot.
    pub boot_key: Arc<dyn Signer>,
    /// Random, made at each start of this boot.
    pub boot_id: [u8; 16],
    /// Signed attestation result. While it is empty this node neither dials nor answers.
    pub result: Vec<u8>,
    /// After a boot that the cloud has not seen.
    pub boot_statement: Option<Vec<u8>>,
}

/// A peer to be bound, from the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTarget {
    pub id: SpiffeId,
    pub spki: SpkiHash,
    /// Where to dial, best first; at most [`MAX_ENDPOINTS`] are used. May be empty: then only the peer can dial.
    pub endpoints: Vec<SocketAddr>,
}

/// Where a peer was when it bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    pub address: SocketAddr,
    /// The address of ours that it knows.
    pub local_ip: Option<IpAddr>,
}

/// The WireGuard node, as the bind uses it. Calls come from the driver's loop and must not block for long.
///
/// Epochs given here are those of [`node_epoch`]: for one peer they only ever grow, across binds, too.
pub trait WireGuardControl: Send + Sync {
    /// Arms a peer, closed for forwarding. If it is armed already (an older bind whose connection was lost),
    /// the key is turned without loss, in whichever role, where the WireGuard keys are the same; where they are not
    /// the peer is armed anew, and loses its forwarding state.
    fn arm(&self, arm: Arm, at: Remote) -> Result<(), ControlFailed>;
    /// Arms the key of a later epoch.
    fn turn(&self, peer: &SpiffeId, epoch: u64, psk: Secret<[u8; 32]>)
    -> Result<(), ControlFailed>;
    /// Writes the record of the open bind, then opens forwarding. If the record cannot be written, nothing opens.
    fn open(&self, opened: &Opened) -> Result<(), ControlFailed>;
    /// Sets end of lease and prefixes.
    fn set_lease(
        &self,
        peer: &SpiffeId,
        until: BootTime,
        allowed_ips: &[IpNet],
    ) -> Result<(), ControlFailed>;
    /// Takes the peer away at once. Nothing happens if it is not armed.
    fn cut(&self, peer: &SpiffeId, ending: &Ending);
}

/// WireGuard could not do it: the reason, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wireguard: {0}")]
pub struct ControlFailed(pub String);

/// What the agent should know, and record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Forwarding is open; the record was written in [`WireGuardControl::open`].
    Opened(Box<Opened>),
    /// A connection is gone; the tunnel lives on until its lease ends.
    Adrift { peer: SpiffeId, ending: Ending },
    /// A bind has ended, or never came about. If the ending cuts, the tunnel is gone.
    Ended {
        peer: SpiffeId,
        ending: Ending,
        was_open: bool,
    },
    /// A peer could not be reached, or was not who it should be.
    DialFailed { peer: SpiffeId, reason: String },
    /// Somebody passed the gate and failed the handshake.
    Stranger {
        from: SocketAddr,
        /// The key that the pass claimed.
        claimed: SpkiHash,
        reason: String,
    },
}

/// The driver could not start. Our fault.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    #[error(transparent)]
    Identity(#[from] NoIdentity),
    #[error("threads or endpoint: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Full(#[from] super::table::Full),
}

/// The driver has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bind driver has stopped")]
pub struct Stopped;

/// A running driver. Dropping it stops the driver as [`BindDriver::shutdown`] does, without waiting.
pub struct BindDriver {
    handle: BindHandle,
    finished: tokio::sync::oneshot::Receiver<()>,
}

/// Tells the driver what to do. Commands are performed in their order.
#[derive(Clone)]
pub struct BindHandle {
    commands: mpsc::Sender<Command>,
}

pub(super) enum Command {
    Want(PeerTarget),
    Wake(PeerTarget),
    Forget(SpiffeId),
    Rest(SpiffeId),
    Directory(Vec<SpkiHash>),
    Cut(SpiffeId, Code),
    Turn(SpiffeId),
    Confirmed(SpiffeId, u64),
    OwnResult(Vec<u8>),
    OwnEvidence(OwnEvidence),
    Svid(Svid),
    WireGuard(Arc<StaticKeys>),
    Slice(u64),
    Link(CloudLink),
    Recheck,
    Shutdown,
}

/// The number of an epoch as WireGuard knows it: greater for every later epoch, and for every later bind.
pub const fn node_epoch(bind: BindId, epoch: u64) -> u64 {
    bind.0.saturating_mul(EPOCHS_PER_BIND).saturating_add(epoch)
}

/// The bind and epoch that [`node_epoch`] was made from.
pub const fn bind_epoch(node_epoch: u64) -> (BindId, u64) {
    (
        BindId(node_epoch / EPOCHS_PER_BIND),
        node_epoch % EPOCHS_PER_BIND,
    )
}

impl BindDriver {
    /// Starts threads and endpoint. Events are to be read all the time.
    pub fn start(setup: Setup) -> Result<(Self, mpsc::Receiver<Event>), StartFailed> {
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let (events, outbox) = mpsc::channel(MAX_EVENTS);
        let (done, finished) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("edgeward-bind")
            .enable_time()
            .build()?;
        let hub = {
            let _on_the_runtime = runtime.enter();
            hub::Hub::new(setup, inbox, events)?
        };
        std::thread::Builder::new()
            .name("edgeward-bind-hub".to_owned())
            .spawn(move || {
                runtime.block_on(hub.run());
                runtime.shutdown_background();
                // Nobody waits if the agent has gone.
                let _nobody_waits = done.send(());
            })?;
        let driver = Self {
            handle: BindHandle { commands },
            finished,
        };
        Ok((driver, outbox))
    }

    pub fn handle(&self) -> BindHandle {
        self.handle.clone()
    }

    /// Says goodbye to all peers, cuts all tunnels, and stops.
    pub async fn shutdown(self) {
        // An error means that it has stopped already.
        let _stopped = self.handle.send(Command::Shutdown).await;
        let _stopped = self.finished.await;
    }
}

impl BindHandle {
    /// Binds with this peer and stays bound, or replaces its endpoints and key.
    pub async fn want(&self, peer: PeerTarget) -> Result<(), Stopped> {
        self.send(Command::Want(peer)).await
    }

    /// As [`BindHandle::want`], for a peer that does not know that it is wanted: it is dialled at once.
    pub async fn wake(&self, peer: PeerTarget) -> Result<(), Stopped> {
        self.send(Command::Wake(peer)).await
    }

    /// Dials this peer no more. Open binds stay.
    pub async fn forget(&self, peer: SpiffeId) -> Result<(), Stopped> {
        self.send(Command::Forget(peer)).await
    }

    /// Nothing was sent for a while: this peer is dialled no more and its bind ends, on both sides, until one of them
    /// wants it again.
    pub async fn rest(&self, peer: SpiffeId) -> Result<(), Stopped> {
        self.send(Command::Rest(peer)).await
    }

    /// Who may dial this node: the keys of all peers that policy lets it meet.
    pub async fn set_directory(&self, peers: Vec<SpkiHash>) -> Result<(), Stopped> {
        self.send(Command::Directory(peers)).await
    }

    /// Ends every bind with this peer. For speed cut the WireGuard node first: this waits in a queue.
    pub async fn cut(&self, peer: SpiffeId, code: Code) -> Result<(), Stopped> {
        self.send(Command::Cut(peer, code)).await
    }

    /// Turns the epoch now, if this node is the initiator.
    pub async fn turn(&self, peer: SpiffeId) -> Result<(), Stopped> {
        self.send(Command::Turn(peer)).await
    }

    /// WireGuard completed a handshake under this epoch (of [`node_epoch`]).
    pub async fn wireguard_confirmed(&self, peer: SpiffeId, epoch: u64) -> Result<(), Stopped> {
        self.send(Command::Confirmed(peer, epoch)).await
    }

    /// This node passed again: every peer is told.
    pub async fn set_result(&self, result: Vec<u8>) -> Result<(), Stopped> {
        self.send(Command::OwnResult(result)).await
    }

    /// Another boot key, result and statement for binds from now on.
    pub async fn set_evidence(&self, evidence: OwnEvidence) -> Result<(), Stopped> {
        self.send(Command::OwnEvidence(evidence)).await
    }

    /// A renewed SVID: every peer is bound anew, one after the other.
    pub async fn set_svid(&self, svid: Svid) -> Result<(), Stopped> {
        self.send(Command::Svid(svid)).await
    }

    /// A new WireGuard key (at most every 24 hours, at least at each boot): every peer is bound anew.
    pub async fn set_wireguard(&self, keys: Arc<StaticKeys>) -> Result<(), Stopped> {
        self.send(Command::WireGuard(keys)).await
    }

    /// A new policy slice; all binds are checked again.
    pub async fn set_slice(&self, number: u64) -> Result<(), Stopped> {
        self.send(Command::Slice(number)).await
    }

    /// The link to the cloud changed; all leases are computed again.
    pub async fn set_link(&self, link: CloudLink) -> Result<(), Stopped> {
        self.send(Command::Link(link)).await
    }

    /// Trust view, keys or policy changed: all binds are checked again, and cut where they no longer hold.
    pub async fn recheck(&self) -> Result<(), Stopped> {
        self.send(Command::Recheck).await
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
