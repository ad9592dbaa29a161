//! Identities for processes on this node: the SPIFFE Workload API on a local socket.
//!
//! Any process may ask ([`socket`]); who asks is what the kernel says of it ([`caller`]); what it may have is what the
//! policy's slice registers for such a process ([`selectors`], `desk`); the SVIDs come from the cloud, which gives them
//! only while this node is trusted ([`authority`]), and are held in memory ([`svids`]).
//!
//! Pure: [`cgroup`], [`selectors`]. The rest is the shell around them.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::enforce::Recorder;
use crate::view::NodeView;

mod api;
pub mod authority;
pub mod authority_field;
pub mod caller;
pub mod cgroup;
mod claims;
mod desk;
pub mod digest;
pub mod pods;
pub mod selectors;
pub mod socket;
mod stream;
pub mod svids;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

use api::Api;
use authority::Cloud;
use desk::Desk;
use pods::Pods;
use selectors::Launched;
use socket::Socket;
use stream::Places;
use svids::Svids;

/// How the Workload API runs on this machine.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    pub socket: PathBuf,
    pub pods: Pods,
}

/// The socket is open; nothing is answered before [`Serving::run`].
pub struct Serving {
    socket: Socket,
    api: Api,
}

/// The Workload API cannot be served. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("workload socket {}: {source}", path.display())]
pub struct NotServed {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Opens the socket.
pub fn begin(
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    config: WorkloadConfig,
    launched: watch::Receiver<Arc<Vec<Launched>>>,
) -> Result<Serving, NotServed> {
    let socket = Socket::bind(&config.socket).map_err(|source| NotServed {
        path: config.socket,
        source,
    })?;
    let authority = Arc::new(Cloud(view.cloud.clone()));
    let make = || Arc::new(Svids::new(authority, view.clock.clone()));
    let svids = view.workloads.get_or_init(make);
    let desk = Arc::new(Desk::new(
        view.clone(),
        svids.clone(),
        config.pods,
        launched,
        recorder,
    ));
    Ok(Serving {
        socket,
        api: Api::new(desk, Places::default()),
    })
}

impl Serving {
    /// Answers until the token is cancelled.
    pub async fn run(self, token: CancellationToken) -> anyhow::Result<()> {
        self.socket.serve(self.api, token).await;
        Ok(())
    }
}
