//! Names of the mesh, for programs of this machine: `<node>.<trust domain>` and `<device>.<node>.<trust domain>`.
//!
//! A small name server on a loopback address. It knows what the slice lets this node reach, and nothing else exists
//! ([`book`]). Programs come to it by way of systemd-resolved or of resolv.conf ([`NamesConfig`]).
//!
//! Pure: [`book`], [`answer`](mod@answer), [`resolv_conf`]. The rest is the shell around them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::Clock;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::enforce::DeviceName;
use crate::view::{HeldSlice, NodeView};

pub mod answer;
mod asked;
pub mod book;
pub mod conf_file;
mod pace;
mod report;
pub mod resolv_conf;
mod resolved;
mod serve;
pub mod upstream;

use book::{Book, NoZone};
use conf_file::ConfFile;
pub use report::{NamesReport, Shown};
use serve::Desk;

/// Where questions are taken unless said otherwise. 127.0.0.53 and .54 are systemd-resolved's.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 55)), PORT);
/// The port that programs ask at.
pub const PORT: u16 = upstream::PORT;
/// The file in which programs find their name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How often it is looked whether the policy has ended.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How programs of this machine come to ask this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// systemd-resolved is told which names to ask for here.
    #[serde(rename = "resolved")]
    Resolved,
    /// This agent stands first in resolv.conf.
    #[serde(rename = "resolv.conf")]
    ResolvConf,
    /// Whoever asks is answered; nobody is told to ask.
    #[default]
    #[serde(rename = "listen")]
    Listen,
    #[serde(rename = "off")]
    Off,
}

/// How names are served on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesConfig {
    pub mode: Mode,
    /// A loopback address.
    pub listen: SocketAddr,
}

/// What is served beside the configuration.
#[derive(Clone, Debug)]
pub struct NamesSetup {
    pub config: NamesConfig,
    /// The tunnel's device: what systemd-resolved is told goes with it.
    pub device: DeviceName,
    /// `host:port` where the cloud is found.
    pub cloud: Vec<String>,
}

/// Names are ready to be served; nothing is answered before [`Names::run`].
pub struct Names {
    view: NodeView,
    setup: NamesSetup,
    desk: Option<Arc<Desk>>,
}

/// Makes the first book. Nothing is opened: a machine without names still has its tunnels.
pub fn begin(view: NodeView, setup: NamesSetup) -> Names {
    let shown = Arc::clone(&view.names);
    let mode = setup.config.mode;
    shown.begin(mode, view.node.trust_domain().to_string());
    let desk = match (mode, book_of(&view, &setup.cloud)) {
        (Mode::Off, _) => None,
        (_, Ok(book)) => {
            shown.book(book.len(), book.ambiguous());
            let overlay = *view.overlay.borrow();
            let own = [Some(overlay.v6.into()), overlay.v4.map(IpAddr::V4)];
            Some(Arc::new(Desk::new(
                book,
                mode == Mode::ResolvConf,
                own.into_iter().flatten().collect(),
                Arc::clone(&view.clock),
                shown,
            )))
        }
        (_, Err(no_zone)) => {
            tracing::warn!(%no_zone, "no names are served");
            shown.asked(Err(no_zone.to_string()));
            None
        }
    };
    Names { view, setup, desk }
}

impl Names {
    /// Serves until the token is cancelled; then the machine asks as it did before.
    pub async fn run(self, token: CancellationToken) -> anyhow::Result<()> {
        let conf = ConfFile::new(PathBuf::from(RESOLV_CONF));
        if self.setup.config.mode != Mode::ResolvConf {
            put_back_of_a_dead_agent(&conf);
        }
        let Some(desk) = self.desk.clone() else {
            token.cancelled().await;
            return Ok(());
        };
        // Programs are sent elsewhere before nobody answers any more.
        let answering = CancellationToken::new();
        let listen = self.setup.config.listen;
        let mut listeners = vec![tokio::spawn(serve::serve(
            Arc::clone(&desk),
            listen,
            answering.clone(),
        ))];
        match self.setup.config.mode {
            Mode::Resolved => {
                // systemd-resolved asks by way of the device, so the address must be the device's.
                let own = SocketAddr::new(self.view.overlay.borrow().v6.into(), listen.port());
                let serving = serve::serve(Arc::clone(&desk), own, answering.clone());
                listeners.push(tokio::spawn(serving));
                let device = nix::net::if_::if_nametoindex(self.setup.device.as_str());
                match device {
                    Ok(device) => {
                        let zones = desk.book.load().zones();
                        let telling = asked::by_resolved(
                            Arc::clone(&desk),
                            device,
                            own,
                            zones,
                            token.clone(),
                        );
                        self.follow(&desk, telling, &token).await;
                    }
                    Err(error) => {
                        desk.shown.asked(Err(format!("no tunnel device: {error}")));
                        self.follow(&desk, token.cancelled(), &token).await;
                    }
                }
            }
            Mode::ResolvConf => {
                let keeping = asked::by_resolv_conf(Arc::clone(&desk), conf, listen, token.clone());
                self.follow(&desk, keeping, &token).await;
            }
            Mode::Listen | Mode::Off => self.follow(&desk, token.cancelled(), &token).await,
        }
        answering.cancel();
        for listener in listeners {
            listener.await?;
        }
        Ok(())
    }

    /// Keeps the book as the slice has it while `beside` runs to its end.
    async fn follow(
        &self,
        desk: &Desk,
        beside: impl Future<Output = ()>,
        token: &CancellationToken,
    ) {
        let mut view = self.view.clone();
        let following = async {
            loop {
                match book_of(&view, &self.setup.cloud) {
                    Ok(book) => {
                        desk.shown.book(book.len(), book.ambiguous());
                        desk.book.store(Arc::new(book));
                    }
                    Err(no_zone) => tracing::error!(%no_zone, "names stay as they were"),
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    changed = view.slice.changed() => if changed.is_err() { return },
                    changed = view.overlay.changed() => if changed.is_err() { return },
                    () = ended(&self.view) => {}
                }
            }
        };
        tokio::join!(following, beside);
    }
}

/// Until the policy that is held has ended.
async fn ended(view: &NodeView) {
    loop {
        let holds = holding(&view.slice.borrow(), &*view.clock).is_some();
        tokio::time::sleep(LOOK_EVERY).await;
        let still = holding(&view.slice.borrow(), &*view.clock).is_some();
        if holds && !still {
            return;
        }
    }
}

/// The slice, while it lets anything.
fn holding<'a>(slice: &'a Option<Arc<HeldSlice>>, clock: &dyn Clock) -> Option<&'a Arc<HeldSlice>> {
    slice
        .as_ref()
        .filter(|held| clock.now() < held.slice.expires)
}

fn book_of(view: &NodeView, cloud: &[String]) -> Result<Book, NoZone> {
    let slice = view.slice.borrow().clone();
    let held = holding(&slice, &*view.clock);
    let hosts: Vec<String> = cloud
        .iter()
        .filter_map(|address| address.rsplit_once(':'))
        .map(|(host, _)| host.to_owned())
        .collect();
    let overlay = *view.overlay.borrow();
    Book::new(&view.node, overlay, held.map(|held| &held.slice), &hosts)
}

fn put_back_of_a_dead_agent(conf: &ConfFile) {
    match conf.put_back() {
        Ok(true) => tracing::info!("resolv.conf put back as it was before an agent that died"),
        Ok(false) => {}
        // Never ours, then.
        Err(failed) => tracing::debug!(%failed, "resolv.conf left alone"),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
