//! What the desk has others do: the guard's book, what runs, what is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_apps::{AppName, Digest, Manifest, Mode};
use edgeward_identity::Timestamp;

use super::super::report::State;

/// An app that is to run.
#[derive(Clone, Debug)]
pub struct ToRun {
    pub manifest: Arc<Manifest>,
    /// Of the manifest.
    pub digest: Digest,
    pub tree: PathBuf,
    /// Its lease.
    pub until: Timestamp,
    pub uid: u32,
}

/// What the machine's measurements are to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Installed,
    Revoked,
}

/// Whoever can do it on this machine.
#[async_trait]
pub trait Operations: Send + Sync {
    /// From the return on files of these releases may be used on the volume, and no others.
    async fn book(&self, mode: Mode, releases: &[Arc<Manifest>]) -> Result<(), String>;

    /// All that should run. What runs and is not among them is ended.
    async fn want(&self, wanted: BTreeMap<AppName, ToRun>);

    /// Ends one: its network identity first. Returns when nothing of it runs any more.
    async fn end(&self, app: &AppName, why: &'static str) -> Result<(), String>;

    async fn measure(&self, happened: Happened, manifest: &Manifest, digest: Digest);

    fn stages(&self) -> BTreeMap<AppName, State>;

    /// What was to end and has not yet. None: nobody can say what runs.
    fn ending(&self) -> Option<BTreeSet<AppName>>;

    /// How applications are controlled at this moment.
    fn control(&self) -> String;

    /// Stages, control or whether anybody can say what runs are others than when this was asked last.
    async fn changed(&self);
}
