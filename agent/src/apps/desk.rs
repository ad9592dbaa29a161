//! The one owner of applications on this node: it hears what should be here, and makes it so.
//!
//! What takes away comes first and waits for nothing: fetching and unpacking run beside this task (`job`), and what
//! they bring comes into use here, after everything that was said meanwhile. `plan` decides; `install` is the one way
//! into use. Files on the volume are never opened from this task's own thread: the guard answers for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::{AppName, AppRules, Digest, Director, Manifest, Mode};
use edgeward_audit::{Event, EventKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{FolderSource, Source};
use super::floors::Floors;
use super::installer::{Installed, Installer};
use super::report::{AppReport, AppsReport, State};
use crate::enforce::Recorder;
use crate::view::{NodeView, Standing};
use crate::wear::Wear;

mod install;
mod job;
mod operations;
mod orders;
mod plan;
mod turn;

pub use operations::{Happened, Operations, ToRun};
pub use orders::{Checked, DeskOrder, Imported, Orders, orders};
pub use plan::{Facts, Here, Lost, Plan, Told};

use job::{Job, Prepared};

/// How long after a failure the same is tried again: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Installs that may write the TPM's counter right after each other: an operator who tries something out does not wait.
const INSTALLS_AT_ONCE: u32 = 8;
/// Over time there is one in so long.
const INSTALL_EVERY: Duration = Duration::from_secs(60);
/// How often the desk looks again while nothing happens: words end by themselves.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Most refusals that are remembered as recorded.
const MAX_TOLD: usize = 1_024;
/// Most folders that are looked into by order, the newest kept.
const MAX_IMPORTS: usize = 4;

/// What a desk works with.
pub struct Setup {
    pub view: NodeView,
    pub recorder: Arc<dyn Recorder>,
    pub floors: Arc<Floors>,
    pub installer: Arc<Installer>,
    pub operations: Arc<dyn Operations>,
    /// In the order in which they are asked.
    pub sources: Vec<Arc<dyn Source>>,
    /// The root that the configuration names.
    pub first_root: Option<Vec<u8>>,
    pub uids: RangeInclusive<u32>,
    pub orders: mpsc::Receiver<DeskOrder>,
}

/// See the module.
pub struct Desk {
    setup: Setup,
    /// What was admitted and is on the volume.
    here: Vec<Here>,
    /// On the volume, and never admitted by the state that is held.
    strays: Vec<Installed>,
    /// What the guard holds.
    book: Option<(Mode, BTreeSet<Digest>)>,
    /// When the guard that did not hold it is asked again.
    book_again: Option<Instant>,
    job: Option<JoinHandle<Prepared>>,
    /// Numbers of the director's word and of the policy that the job was begun under.
    job_for: (u64, u64),
    progress: watch::Receiver<BTreeMap<AppName, (u64, u64)>>,
    progress_to: Arc<watch::Sender<BTreeMap<AppName, (u64, u64)>>>,
    retry: Option<Instant>,
    wait: Duration,
    /// How often what was accepted may still raise the TPM's epoch.
    wear: Wear,
    /// Why the wanted release of an app is not here.
    notes: BTreeMap<AppName, Note>,
    /// Refusals that are in the journal.
    told: VecDeque<(AppName, String, String)>,
    imports: VecDeque<PathBuf>,
    waiting: Vec<oneshot::Sender<Imported>>,
    held: BTreeMap<AppName, &'static str>,
    /// Number of the newest word of the director of which nothing runs any more that it does not let run.
    acted_on: u64,
    /// Apps that were to end and had not when that was looked at last.
    unended: BTreeSet<AppName>,
    /// Whether anybody could say what runs, whenever that was looked at since.
    sure: bool,
}

/// Why something is not as the director wants it.
#[derive(Clone, Debug)]
struct Note {
    state: State,
    code: String,
    reason: String,
}

impl Desk {
    pub fn new(setup: Setup) -> Self {
        let progress_to = Arc::new(watch::Sender::default());
        let wear = Wear::new(INSTALLS_AT_ONCE, INSTALL_EVERY, setup.view.clock.boottime());
        Self {
            wear,
            setup,
            here: Vec::new(),
            strays: Vec::new(),
            book: None,
            book_again: None,
            job: None,
            job_for: (0, 0),
            progress: progress_to.subscribe(),
            progress_to,
            retry: None,
            wait: FIRST_RETRY,
            notes: BTreeMap::new(),
            told: VecDeque::new(),
            imports: VecDeque::new(),
            waiting: Vec::new(),
            held: BTreeMap::new(),
            acted_on: 0,
            unended: BTreeSet::new(),
            sure: false,
        }
    }

    /// Until the token is cancelled. Applications run on then.
    pub async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        self.reload().await;
        let mut view = self.setup.view.clone();
        loop {
            self.turn().await;
            self.report();
            let wake = self.wake();
            tokio::select! {
                () = token.cancelled() => break,
                Ok(()) = view.director.changed() => self.anew(),
                Ok(()) = view.slice.changed() => self.anew(),
                Ok(()) = view.standing.changed() => self.anew(),
                Ok(()) = view.cloud.changed() => self.anew(),
                prepared = finished(&mut self.job) => {
                    self.job = None;
                    if let Some(prepared) = prepared {
                        self.take(prepared).await;
                    }
                }
                Some(order) = self.setup.orders.recv() => self.obey(order).await,
                // A guard that came may hold what none held before.
                () = self.setup.operations.changed() => {
                    if self.book.is_none() {
                        self.anew();
                    }
                }
                Ok(()) = self.progress.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        if let Some(job) = self.job.take() {
            job.abort();
        }
        Ok(())
    }

    /// Something new was said: whatever failed may work now.
    fn anew(&mut self) {
        self.retry = None;
        self.wait = FIRST_RETRY;
    }

    fn later(&mut self) {
        self.retry = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }

    fn wake(&self) -> Instant {
        let look = Instant::now() + LOOK_EVERY;
        let now = self.setup.view.clock.now();
        let ends = self.director().map(|director| {
            let left = director.expires().since(now);
            Instant::now() + left.max(Duration::from_millis(100))
        });
        let retry = self.retry.filter(|retry| *retry > Instant::now());
        let book = self.book_again.filter(|again| *again > Instant::now());
        [Some(look), ends, retry, book]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(look)
    }

    fn director(&self) -> Option<Arc<Director>> {
        self.setup.view.director.borrow().clone()
    }

    fn rules(&self) -> Option<(u64, Arc<AppRules>)> {
        let slice = self.setup.view.slice.borrow();
        let held = slice.as_ref()?;
        Some((held.number, Arc::new(held.slice.apps.clone())))
    }

    fn granting(&self) -> bool {
        matches!(*self.setup.view.standing.borrow(), Standing::Granting)
    }

    fn event(&self, kind: EventKind, app: &AppName) -> Event {
        let view = &self.setup.view;
        let event = Event::new(view.clock.now(), view.node.clone(), kind);
        event.subject(app.to_string().as_str())
    }

    /// What is on the volume, as far as the state knows it.
    async fn reload(&mut self) {
        let installer = self.setup.installer.clone();
        let taken = self.setup.floors.now().await;
        let read = tokio::task::spawn_blocking(move || {
            let (mut here, mut strays) = (Vec::new(), Vec::new());
            for installed in installer.installed() {
                let known = taken.admitted.get(&installed.app);
                match installer.manifest(&installed.digest) {
                    Ok(manifest)
                        if known.is_some_and(|known| known.contains(&installed.digest)) =>
                    {
                        here.push(Here {
                            manifest: Arc::new(manifest),
                            digest: installed.digest,
                            tree: installed.tree,
                            current: installed.current,
                        });
                    }
                    Ok(_) => strays.push(installed),
                    Err(error) => {
                        tracing::error!(app = %installed.app, %error, "an installed release has no record");
                        strays.push(installed);
                    }
                }
            }
            (here, strays)
        });
        if let Ok((here, strays)) = read.await {
            (self.here, self.strays) = (here, strays);
        }
    }

    async fn obey(&mut self, order: DeskOrder) {
        match order {
            DeskOrder::Import { folder, done } => {
                let source = FolderSource::new(folder.clone());
                let word = source.word(self.setup.view.node.name()).await;
                if let Ok(Some(bytes)) = word
                    && !self.setup.view.ledger.word(bytes).await
                {
                    tracing::warn!(folder = %folder.display(), "the director's word in the folder is not in force");
                }
                self.imports.retain(|known| *known != folder);
                self.imports.push_front(folder);
                self.imports.truncate(MAX_IMPORTS);
                self.waiting.push(done);
                self.anew();
            }
            DeskOrder::Verify { done } => {
                let installer = self.setup.installer.clone();
                // Reads whole trees: beside the desk.
                tokio::task::spawn_blocking(move || {
                    let _ = done.send(orders::check_all(&installer));
                });
            }
        }
    }

    /// Most of it is told when it changes; whoever ordered an import waits for the end.
    fn report(&mut self) {
        let report = self.show();
        if self.job.is_none() {
            for done in self.waiting.drain(..) {
                let _ = done.send(Imported {
                    report: (*report).clone(),
                });
            }
        }
    }

    fn show(&self) -> Arc<AppsReport> {
        let report = Arc::new(self.shown());
        self.setup.view.apps.send_if_modified(|held| {
            let changed = *held != report;
            held.clone_from(&report);
            changed
        });
        report
    }

    fn shown(&self) -> AppsReport {
        let director = self.director();
        let mut report = AppsReport {
            control: self.setup.operations.control(),
            director: director.as_ref().map_or(0, |director| director.number()),
            acted_on: self.acted_on,
            standing: self.setup.view.standing.borrow().to_string(),
            apps: BTreeMap::new(),
        };
        let stages = self.setup.operations.stages();
        for here in self.here.iter().filter(|here| here.current) {
            let app = here.manifest.app.clone();
            let unguarded = self.book.is_none().then_some("guard-away");
            let state = stages.get(&app).copied().unwrap_or(State::Installed);
            let ended = (state == State::Failed).then_some("app-not-running");
            let held = self.held.get(&app).copied();
            let code = held.or(unguarded).or(ended).unwrap_or_default();
            let said = AppReport {
                version: Some(here.manifest.version.clone()),
                digest: Some(here.digest),
                state,
                code: code.to_owned(),
                ..AppReport::default()
            };
            report.apps.insert(app, said);
        }
        let orders = director.as_ref().map(|director| director.orders());
        for (app, assigned) in orders.into_iter().flat_map(|orders| &orders.apps) {
            let said = report.apps.entry(app.clone()).or_default();
            if said.digest != Some(assigned.digest) {
                said.wanted = Some(assigned.version.clone());
            }
        }
        for (app, note) in &self.notes {
            let said = report.apps.entry(app.clone()).or_default();
            if said.version.is_none() {
                said.state = note.state;
            }
            said.code.clone_from(&note.code);
            said.reason.clone_from(&note.reason);
        }
        if self.job.is_some() {
            for (app, (fetched, wanted)) in self.progress.borrow().iter() {
                let said = report.apps.entry(app.clone()).or_default();
                if said.version.is_none() {
                    said.state = State::Fetching;
                }
                (said.fetched, said.to_fetch) = (*fetched, *wanted);
            }
        }
        report
    }

    fn sources(&self) -> Vec<Arc<dyn Source>> {
        let imports = self.imports.iter().map(|folder| {
            let source: Arc<dyn Source> = Arc::new(FolderSource::new(folder.clone()));
            source
        });
        imports.chain(self.setup.sources.iter().cloned()).collect()
    }

    fn job(
        &self,
        director: Arc<Director>,
        policy: u64,
        rules: Arc<AppRules>,
        wants: BTreeSet<AppName>,
    ) -> Job {
        Job {
            director,
            policy,
            rules,
            wants,
            sources: self.sources(),
            floors: self.setup.floors.clone(),
            installer: self.setup.installer.clone(),
            clock: self.setup.view.clock.clone(),
            first_root: self.setup.first_root.clone(),
            progress: self.progress_to.clone(),
        }
    }

    fn manifests(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.here.iter().map(|here| &here.manifest)
    }
}

/// The end of the job; waits for ever while there is none. A job that panicked brought nothing.
async fn finished(job: &mut Option<JoinHandle<Prepared>>) -> Option<Prepared> {
    match job {
        Some(job) => job.await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
