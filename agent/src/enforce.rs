//! Enforcement: tunnels between this node and its peers, and what may pass through them.
//!
//! [`start`] joins the parts: the bind (who is a peer), the WireGuard node (whose packets are whose), the filter (what
//! may pass), the kernel (device, addresses, routes, lease sets) and the status socket. It reads a
//! [`NodeView`] and writes to a [`Recorder`]; the session and the state know nothing of it.
//!
//! Pure, told the time: [`decide`] (may this flow, may this bind), [`peers`] (whom to bind), [`hearing`] (do we hear
//! the cloud), [`leases`] (nftables as text). The rest is the shell around them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_audit::Event;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ext_authz::{self, ExtAuthzConfig};
use crate::reach::allowance::RelayConfig;
use crate::view::NodeView;

mod begin;
mod books;
mod control;
pub mod data_path;
pub mod decide;
pub mod demand;
mod device_name;
mod driver;
pub mod handover;
pub mod hearing;
mod inside;
pub mod lan;
pub mod leases;
mod nets;
mod node_name;
pub mod own;
pub mod peers;
pub mod posture;
mod records;
pub mod routes;
mod scene;
pub mod steer;
#[cfg(test)]
pub(crate) mod testing;

pub use device_name::{BadDeviceName, DeviceName, MAX_DEVICE_NAME_BYTES};
pub use driver::Broken;
use handover::{Adopted, Giver};
pub use inside::Inside;
pub use nets::{BadNetDevice, BadNets, MAX_NETS, NetDevice, Nets};
pub use node_name::{BadNodeName, NodeName};

/// Default UDP port, for WireGuard and QUIC alike.
pub const DEFAULT_PORT: u16 = 51820;
/// Default MTU of the tunnel device, in bytes: fits WireGuard over IPv6 over Ethernet.
pub const DEFAULT_MTU: u16 = 1420;
/// How often allowed and denied flows are written to the journal, aggregated.
pub const DEFAULT_REPORT_EVERY: Duration = Duration::from_secs(10);

/// Where events go: the journal.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Records something that grants. When this returns `Ok` the event is on disk; on an error nothing is granted.
    async fn record(&self, event: Event) -> Result<(), RecordRefused>;

    /// Records something that only happened, and says so if it did not get in, for want of room too: then the caller
    /// still has it to record.
    async fn record_kept(&self, event: Event) -> Result<(), RecordRefused> {
        self.record(event).await
    }

    /// Records something that was taken away, or only happened. Must not block; space for it is reserved.
    fn record_after(&self, event: Event);
}

/// The journal cannot be written. Our fault.
#[derive(Debug, thiserror::Error)]
#[error("journal cannot be written: {0}")]
pub struct RecordRefused(pub String);

/// How enforcement runs on this machine.
#[derive(Clone, Debug)]
pub struct EnforceConfig {
    /// Name of the TUN device.
    pub device: DeviceName,
    /// UDP address of WireGuard and QUIC. `[::]:51820` serves both address families.
    pub listen: SocketAddr,
    /// MTU of the TUN device, in bytes.
    pub mtu: u16,
    pub data_path: data_path::DataPath,
    /// Local socket that answers `status` and `check`.
    pub status_socket: PathBuf,
    /// Folder of the read-only WireGuard socket (`<folder>/<device>.sock`), so that `wg show` works.
    pub wireguard_folder: PathBuf,
    /// Repeats the leases in nftables sets, so that they hold in the kernel too.
    pub kernel_leases: bool,
    /// Devices of the networks that policy names.
    pub nets: Nets,
    /// How often flows are reported to the journal.
    pub report_every: Duration,
    /// The line costs by the byte: nothing is sent to peers that nobody talks to.
    pub metered: bool,
    /// The node that leads this machine to the internet, where policy lets it; none: no peer does.
    pub exit: Option<NodeName>,
    /// How it is used.
    pub exit_use: steer::ExitUse,
    /// What this node carries for others at most, where policy makes it a relay.
    pub relay: RelayConfig,
    /// When peers are bound.
    pub demand: demand::DemandConfig,
    /// Which proxies of this machine may ask what the gateway asks.
    pub ext_authz: Option<ExtAuthzConfig>,
}

/// What the session tells the cloud about enforcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub binds_open: u32,
    /// Number of the newest cut that has taken effect here.
    pub cut_number: u64,
}

/// Enforcement could not begin. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("tunnel: {0}")]
    Tunnel(#[from] edgeward_tunnel::shell::StartError),
    #[error("udp port: {0}")]
    Port(#[source] std::io::Error),
    #[error("socket {}: {source}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("own identity, for the gateway: {0}")]
    Svid(#[from] edgeward_identity::svid::SvidError),
    #[error(transparent)]
    ExtAuthz(#[from] ext_authz::NotServed),
    #[error("{0}; install nftables, or set kernel_leases = false")]
    Nftables(#[from] leases::NftFailed),
}

/// Enforcement that has begun.
pub struct Enforcement {
    progress: watch::Receiver<Progress>,
    listen: SocketAddr,
    giver: Giver,
    work: BoxFuture<'static, anyhow::Result<()>>,
}

impl Enforcement {
    /// Follows what the session reports as `NodeStatus`.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The UDP address that was bound.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Who hands everything to another program.
    pub fn giver(&self) -> Giver {
        self.giver.clone()
    }

    /// Runs until the token given to [`start`] is cancelled: says goodbye to peers and takes device, routes and
    /// tables away.
    pub async fn run(self) -> anyhow::Result<()> {
        self.work.await
    }
}

/// Opens device, port and sockets. Nothing is granted before [`Enforcement::run`] is polled.
pub async fn start(
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    config: EnforceConfig,
    token: CancellationToken,
) -> Result<Enforcement, StartError> {
    begin::begin(view, recorder, config, None, token).await
}

/// As [`start`], on the tunnels of the program before this one, where they are this node's.
pub async fn start_on(
    adopted: Option<Adopted>,
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    config: EnforceConfig,
    token: CancellationToken,
) -> Result<Enforcement, StartError> {
    begin::begin(view, recorder, config, adopted, token).await
}
