//! What the desk has others do, done: the guard, the runs and the measurements of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_apps::{AppName, Digest, Manifest, Mode};
use edgeward_evidence::app_log;
use tokio::sync::Mutex;
use tokio::sync::watch;

use super::desk::{Happened, Operations, ToRun};
use super::enforcing::Enforcing;
use super::guard::GuardState;
use super::launch::{Wanted, book_of};
use super::level;
use super::measure::Measure;
use super::report::State;
use super::runs::Stage;

/// See the module.
pub struct Machinery {
    enforcing: Enforcing,
    measure: Measure,
    /// For whoever waits for news: apart from those that only look.
    news: Mutex<News>,
}

type News = (
    watch::Receiver<GuardState>,
    watch::Receiver<BTreeMap<AppName, Stage>>,
    watch::Receiver<bool>,
);

impl Machinery {
    pub fn new(enforcing: Enforcing, measure: Measure) -> Self {
        let runs = &enforcing.runs;
        let news = Mutex::new((enforcing.guard.state(), runs.stages(), runs.knows()));
        Self {
            enforcing,
            measure,
            news,
        }
    }
}

#[async_trait]
impl Operations for Machinery {
    async fn book(&self, mode: Mode, releases: &[Arc<Manifest>]) -> Result<(), String> {
        let files = book_of(releases.iter().map(Arc::as_ref));
        let mode = match mode {
            Mode::Enforce => edgeward_guard::book::Mode::Enforce,
            Mode::Observe => edgeward_guard::book::Mode::Observe,
        };
        let held = self.enforcing.guard.book(mode, files).await;
        held.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn want(&self, wanted: BTreeMap<AppName, ToRun>) {
        let wanted = wanted.into_iter().map(|(app, to_run)| {
            let wanted = Wanted {
                manifest: to_run.manifest,
                digest: to_run.digest,
                tree: to_run.tree,
                until: to_run.until,
                uid: to_run.uid,
            };
            (app, wanted)
        });
        self.enforcing.runs.want(wanted.collect()).await;
    }

    async fn end(&self, app: &AppName, why: &'static str) -> Result<(), String> {
        let ended = self.enforcing.runs.end(app, why).await;
        ended.map_err(|error| error.to_string())
    }

    async fn measure(&self, happened: Happened, manifest: &Manifest, digest: Digest) {
        let app = app_log::App {
            publisher: manifest.app.publisher().to_string(),
            name: manifest.app.name().to_owned(),
            version: manifest.version.to_string(),
            digest: digest.to_string(),
        };
        let happened = match happened {
            Happened::Installed => app_log::Happened::Installed(app),
            Happened::Revoked => app_log::Happened::Revoked(app),
        };
        if let Err(error) = self.measure.record(happened).await {
            tracing::error!(%error, "what became of an application is not measured");
        }
    }

    fn stages(&self) -> BTreeMap<AppName, State> {
        let stages = self.enforcing.runs.stages();
        let stages = stages.borrow();
        let stage = |stage: &Stage| match stage {
            Stage::Starting => State::Starting,
            Stage::Running => State::Running,
            Stage::Stopping => State::Stopped,
            Stage::Failed => State::Failed,
        };
        stages
            .iter()
            .map(|(app, at)| (app.clone(), stage(at)))
            .collect()
    }

    fn ending(&self) -> Option<BTreeSet<AppName>> {
        let runs = &self.enforcing.runs;
        let knows = || *runs.knows().borrow();
        if !knows() {
            return None;
        }
        let stages = runs.stages().borrow().clone();
        let ending = stages.into_iter().filter_map(|(app, stage)| {
            let ends = stage == Stage::Stopping;
            ends.then_some(app)
        });
        let ending = ending.collect();
        // The guard may have gone meanwhile, and with it what was said of what runs.
        knows().then_some(ending)
    }

    fn control(&self) -> String {
        level::word(&self.enforcing.guard.state().borrow()).to_owned()
    }

    async fn changed(&self) {
        let mut news = self.news.lock().await;
        let (guard, stages, knows) = &mut *news;
        let over = tokio::select! {
            changed = guard.changed() => changed.is_err(),
            changed = stages.changed() => changed.is_err(),
            changed = knows.changed() => changed.is_err(),
        };
        if over {
            std::future::pending::<()>().await;
        }
    }
}
