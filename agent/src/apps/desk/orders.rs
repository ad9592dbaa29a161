//! What people on the machine may ask of the desk.

use std::path::PathBuf;

use edgeward_apps::{AppName, Digest, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::super::installer::Installer;
use super::super::report::AppsReport;

/// Most orders that wait.
const MAX_WAITING: usize = 4;

#[derive(Debug)]
pub enum DeskOrder {
    /// Look into a folder for what is assigned, and for a newer word of the director.
    Import {
        folder: PathBuf,
        done: oneshot::Sender<Imported>,
    },
    /// Read every file that is installed, against its manifest.
    Verify { done: oneshot::Sender<Vec<Checked>> },
}

/// How things stand after an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub report: AppsReport,
}

/// One installed release, as its files are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub app: AppName,
    pub version: Version,
    pub digest: Digest,
    pub current: bool,
    /// What is not as the publisher signed it; none: everything is.
    pub wrong: Option<String>,
}

/// Gives orders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<DeskOrder>);

pub fn orders() -> (Orders, mpsc::Receiver<DeskOrder>) {
    let (orders, arriving) = mpsc::channel(MAX_WAITING);
    (Orders(orders), arriving)
}

impl Orders {
    /// None: nobody takes orders now.
    pub async fn import(&self, folder: PathBuf) -> Option<Imported> {
        let (done, answer) = oneshot::channel();
        let order = DeskOrder::Import { folder, done };
        self.0.try_send(order).ok()?;
        answer.await.ok()
    }

    pub async fn verify(&self) -> Option<Vec<Checked>> {
        let (done, answer) = oneshot::channel();
        self.0.try_send(DeskOrder::Verify { done }).ok()?;
        answer.await.ok()
    }
}

pub(super) fn check_all(installer: &Installer) -> Vec<Checked> {
    let check = |installed: super::Installed| Checked {
        wrong: installer
            .check(&installed)
            .err()
            .map(|error| error.to_string()),
        app: installed.app,
        version: installed.version,
        digest: installed.digest,
        current: installed.current,
    };
    installer.installed().into_iter().map(check).collect()
}
