//! How the desk begins: the guard hears first what is installed, then the volume is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::image::MAX_ROOT_BYTES;
use edgeward_apps::{Manifest, Mode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, DeskOrder, Operations, Setup};
use super::fetch::{CloudSource, FolderSource, NeighbourSource, Source};
use super::floors::{Floors, Taken};
use super::installer::{Installer, InstallerError};
use super::mirror::{BOUNDS, Mirror, Remembered, Remembering};
use super::receipt::Records;
use super::report::{AppReport, AppsReport, State};
use super::store::Limits;
use super::volume::{Volume, VolumeError};
use crate::config::AppsConfig;
use crate::enforce::Recorder;
use crate::view::NodeView;

/// Folder of records and content, in the state folder.
pub const FOLDER: &str = "apps";
/// Folder of metadata for nodes nearby, in that.
const METADATA: &str = "metadata";
/// What content of applications leaves free on the disk, in bytes.
const KEEP_FREE: u64 = 256 * 1024 * 1024;
/// How long after a failure the volume is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Applications on this node, before they are looked at.
pub struct Applications {
    pub view: NodeView,
    pub recorder: Arc<dyn Recorder>,
    pub config: AppsConfig,
    pub state_dir: PathBuf,
    pub operations: Arc<dyn Operations>,
    pub orders: mpsc::Receiver<DeskOrder>,
    /// As stored.
    pub taken: Taken,
}

/// The machine is not ready for applications.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Installer(#[from] InstallerError),
    #[error("root of the image repository, {path}: {source}")]
    Root {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("opening the volume ended early")]
    Over,
}

impl NotReady {
    /// Stable.
    fn code(&self) -> &'static str {
        match self {
            Self::Volume(_) => "apps-volume",
            Self::Installer(_) | Self::Over => "apps-disk",
            Self::Root { .. } => "apps-no-root",
        }
    }
}

impl Applications {
    /// Until the token is cancelled. A machine that is not ready is tried again: nothing of it runs meanwhile.
    pub async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        self.introduce().await;
        let mut said = String::new();
        let (installer, first_root) = loop {
            match self.open().await {
                Ok(opened) => break opened,
                Err(error) => {
                    // It may last for days.
                    let why = error.to_string();
                    if said != why {
                        tracing::error!(%error, "applications cannot be managed: tried again until they can");
                        said = why;
                    }
                    self.view.apps.send_replace(Arc::new(self.shown(&error)));
                }
            }
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                // Whoever orders something hears that nobody is there.
                _ = self.orders.recv() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        };
        let sources = match self.config.mirror {
            None => self.sources(),
            Some(port) => self.mirrored(port, &installer, &token),
        };
        let desk = Desk::new(Setup {
            floors: Floors::new(self.view.ledger.clone(), self.taken),
            view: self.view,
            recorder: self.recorder,
            installer,
            operations: self.operations,
            sources,
            first_root,
            uids: self.config.uids,
            orders: self.orders,
        });
        desk.run(token).await
    }

    /// In the order in which they are asked: a folder, nodes nearby, the cloud.
    fn sources(&self) -> Vec<Arc<dyn Source>> {
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        if let Some(folder) = &self.config.import {
            sources.push(Arc::new(FolderSource::new(folder.clone())));
        }
        for address in &self.config.neighbours {
            match NeighbourSource::new(address) {
                Ok(neighbour) => sources.push(Arc::new(neighbour)),
                Err(error) => tracing::error!(%error, "neighbour is not asked for applications"),
            }
        }
        sources.push(Arc::new(CloudSource::new(self.view.cloud.clone())));
        sources
    }

    /// The same, and what they bring is served to nodes nearby from now on.
    fn mirrored(
        &self,
        port: u16,
        installer: &Arc<Installer>,
        token: &CancellationToken,
    ) -> Vec<Arc<dyn Source>> {
        let folder = self.state_dir.join(FOLDER).join(METADATA);
        let metadata = match Remembered::open(&folder) {
            Ok(metadata) => Arc::new(metadata),
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "no mirror of applications");
                return self.sources();
            }
        };
        let mirror = Mirror::new(
            installer.clone(),
            metadata.clone(),
            self.view.clock.clone(),
            BOUNDS,
        );
        let (device, ended) = (self.config.mirror_device.clone(), token.clone());
        tokio::spawn(async move { mirror.serve(device.as_str(), port, ended).await });
        let remembering =
            |source| -> Arc<dyn Source> { Arc::new(Remembering::new(source, metadata.clone())) };
        self.sources().into_iter().map(remembering).collect()
    }

    /// A guard that knows this agent and what is installed lets it open the volume, and lets run on what runs.
    async fn introduce(&self) {
        let folder = self.state_dir.join(FOLDER);
        let admitted: Vec<_> = self.taken.admitted.values().flatten().copied().collect();
        let read = tokio::task::spawn_blocking(move || {
            let records = Records::open(&folder.join(super::installer::RELEASES));
            let of = |records: Records| -> Vec<Arc<Manifest>> {
                let known = admitted.iter();
                known
                    .filter_map(|digest| records.manifest(digest).ok().map(Arc::new))
                    .collect()
            };
            records.map(of).unwrap_or_default()
        });
        let installed = read.await.unwrap_or_default();
        let mode = {
            let slice = self.view.slice.borrow();
            slice
                .as_ref()
                .map_or(Mode::Enforce, |held| held.slice.apps.mode)
        };
        if let Err(why) = self.operations.book(mode, &installed).await {
            tracing::warn!(%why, "the guard of applications did not answer");
        }
    }

    async fn open(&self) -> Result<(Arc<Installer>, Option<Vec<u8>>), NotReady> {
        let (config, folder) = (self.config.clone(), self.state_dir.join(FOLDER));
        let open = tokio::task::spawn_blocking(move || {
            let root = config.root.as_ref().map(read_root).transpose()?;
            let volume = Volume::open(&config.volume)?;
            let limits = Limits {
                bytes: config.store_bytes,
                keep_free: KEEP_FREE,
            };
            let (installer, swept) = Installer::open(volume, &folder, limits)?;
            for foreign in &swept.foreign {
                tracing::warn!(%foreign, "something on the volume of applications is not the agent's");
            }
            Ok((Arc::new(installer), root))
        });
        open.await.map_err(|_| NotReady::Over)?
    }

    fn shown(&self, error: &NotReady) -> AppsReport {
        let director = self.view.director.borrow().clone();
        let waits = |app: &edgeward_apps::AppName| {
            let said = AppReport {
                state: State::Failed,
                code: error.code().to_owned(),
                reason: error.to_string(),
                ..AppReport::default()
            };
            (app.clone(), said)
        };
        let apps = director
            .iter()
            .flat_map(|director| director.orders().apps.keys());
        AppsReport {
            control: self.operations.control(),
            director: director.as_ref().map_or(0, |director| director.number()),
            acted_on: 0,
            standing: error.to_string(),
            apps: apps.map(waits).collect::<BTreeMap<_, _>>(),
        }
    }
}

fn read_root(path: &PathBuf) -> Result<Vec<u8>, NotReady> {
    use std::io::Read;
    let failed = |source| NotReady::Root {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than a root may have is refused where it is read.
    let read = file.take(MAX_ROOT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    Ok(bytes)
}
