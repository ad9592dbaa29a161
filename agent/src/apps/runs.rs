//! The applications that run on this node: started, watched, ended. Nobody else gives the guard such orders.
//!
//! The order holds on the way up (group, record, rights, program) and on the way down (rights, processes, record).
//! What forbids a release is heard here at once, and nothing is waited for in the loop itself: whatever takes its time
//! (the network's table, a TPM, the journal) is done beside it, in order for each application.

mod after;
mod machine;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_apps::name::AppName;
use edgeward_audit::{Event, EventKind};
use edgeward_guard::cgroup::Cgroup;
use edgeward_guard::control::Order;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::guard::{Guard, GuardState, Heard};
use super::launch::{Places, Running, Wanted, group_name};
use super::level;
use super::records::Teller;
use after::After;
pub use machine::Stage;
use machine::{Input, Machine, Note, Output};
pub use words::Said;

/// Most wishes that wait.
const MAX_WAITING: usize = 64;
/// How often leases and waits are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long withdrawing may hold up the end of a process: it goes on beside it then.
const WITHDRAW_LIMIT: Duration = Duration::from_millis(400);
/// How long the word that ends it may take to lie on disk, meanwhile: a power cut must not bring back what was ended.
const KEEP_LIMIT: Duration = Duration::from_millis(250);
/// How long granting may take, and clearing away what was granted: slow TPMs measure, too.
const GRANT_LIMIT: Duration = Duration::from_secs(60);
/// How long ending an application may take until it is said that it has not ended.
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// What an application may on this node: its identity, its ways out, its measurement.
#[async_trait]
pub trait Rights: Send + Sync {
    /// Before it runs. On an error it does not run, and is tried again later.
    async fn grant(&self, running: &Running) -> Result<(), NotGranted>;
    /// Before it is stopped. Called again for what holds nothing is fine.
    async fn withdraw(&self, app: &AppName);
    /// Nothing of it runs any more. If it lasts, its group is gone, too.
    async fn ended(&self, app: &AppName, lasting: bool);
}

/// Why an application is not given what it needs to run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotGranted(pub String);

/// Processes of an application are still there, or nobody can say.
#[derive(Debug, thiserror::Error)]
#[error("{0} has not ended in time")]
pub struct NotEnded(AppName);

/// What runs, and whoever may say what should. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runs {
    asks: mpsc::Sender<Ask>,
    running: watch::Receiver<Arc<BTreeMap<AppName, Running>>>,
    stages: watch::Receiver<BTreeMap<AppName, Stage>>,
    knows: watch::Receiver<bool>,
}

/// A wish, and who waits until it has been taken.
#[derive(Debug)]
struct Ask {
    input: Input,
    taken: oneshot::Sender<()>,
}

/// The task that does it.
pub struct Runner {
    machine: Machine,
    guard: Guard,
    rights: Arc<dyn Rights>,
    teller: Arc<Teller>,
    places: Places,
    said: Said,
    asks: mpsc::Receiver<Ask>,
    heard: mpsc::Receiver<Heard>,
    running: watch::Sender<Arc<BTreeMap<AppName, Running>>>,
    stages: watch::Sender<BTreeMap<AppName, Stage>>,
    knows: watch::Sender<bool>,
    grants: JoinSet<(AppName, Result<(), String>)>,
    after: After,
}

/// Applications under `guard`, in `places`, as far as what is `said` does not forbid them.
pub fn runs(
    guard: Guard,
    heard: mpsc::Receiver<Heard>,
    rights: Arc<dyn Rights>,
    teller: Arc<Teller>,
    (places, said): (Places, Said),
) -> (Runs, Runner) {
    let (asks_to, asks) = mpsc::channel(MAX_WAITING);
    let (running_to, running) = watch::channel(Arc::default());
    let (stages_to, stages) = watch::channel(BTreeMap::new());
    let (knows_to, knows) = watch::channel(false);
    let runner = Runner {
        machine: Machine::new(places.clone()),
        guard,
        rights,
        teller,
        places,
        said,
        asks,
        heard,
        running: running_to,
        stages: stages_to,
        knows: knows_to,
        grants: JoinSet::new(),
        after: After::default(),
    };
    let runs = Runs {
        asks: asks_to,
        running,
        stages,
        knows,
    };
    (runs, runner)
}

impl Runs {
    /// All that should run from now on. What runs and is not among them is ended.
    pub async fn want(&self, wanted: BTreeMap<AppName, Wanted>) {
        self.ask(Input::Want(wanted)).await;
    }

    /// Ends this one at once, whatever was wanted; returns when nothing of it runs any more. `why` is a stable code.
    pub async fn end(&self, app: &AppName, why: &'static str) -> Result<(), NotEnded> {
        self.ask(Input::End(app.clone(), why)).await;
        let mut stages = self.stages.clone();
        let gone = stages.wait_for(|stages| !stages.contains_key(app));
        match tokio::time::timeout(END_LIMIT, gone).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotEnded(app.clone())),
        }
    }

    /// Returns when it has been taken; that nobody takes it any more shows in what the caller looks at next.
    async fn ask(&self, input: Input) {
        let (taken, wait) = oneshot::channel();
        if self.asks.send(Ask { input, taken }).await.is_ok() {
            let _taken_or_over = wait.await;
        }
    }

    /// What has been granted what it needs, from just before it runs until just before it is stopped.
    pub fn running(&self) -> watch::Receiver<Arc<BTreeMap<AppName, Running>>> {
        self.running.clone()
    }

    pub fn stages(&self) -> watch::Receiver<BTreeMap<AppName, Stage>> {
        self.stages.clone()
    }

    /// Whether what runs is known: a guard is there and has said it. What it found that nobody wants is `Stopping` then.
    pub fn knows(&self) -> watch::Receiver<bool> {
        self.knows.clone()
    }
}

impl Runner {
    pub async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        let words = self.said.now();
        self.step(Input::Words(words));
        loop {
            let input = tokio::select! {
                biased;
                // Applications run on: the next agent finds them with the guard.
                () = token.cancelled() => return Ok(()),
                words = self.said.next() => Input::Words(words),
                Some(ask) = self.asks.recv() => {
                    self.step(ask.input);
                    let _nobody_waits = ask.taken.send(());
                    continue;
                }
                Some(heard) = self.heard.recv() => Input::Heard(heard),
                Some(done) = self.grants.join_next() => match done {
                    Ok((app, result)) => Input::Granted(app, result),
                    Err(error) => {
                        tracing::error!(%error, "granting an application ended early");
                        continue;
                    }
                },
                _ = tick.tick() => {
                    self.after.forget_what_is_done();
                    Input::Tick
                }
            };
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        let clock = &self.teller.clock;
        let outputs = self.machine.step(input, clock.now(), clock.boottime());
        // First of all: nobody is to take what is being ended for something that runs.
        let running = self.machine.running();
        self.running.send_if_modified(|before| {
            let changed = **before != running;
            if changed {
                *before = Arc::new(running);
            }
            changed
        });
        for output in outputs {
            self.perform(output);
        }
        let (stages, knows) = (self.machine.stages(), self.machine.knows());
        let tell_knows = || {
            self.knows
                .send_if_modified(|before| std::mem::replace(before, knows) != knows)
        };
        // Never is it known what runs while the stages are of before.
        if !knows {
            tell_knows();
        }
        self.stages.send_if_modified(|before| {
            let changed = *before != stages;
            *before = stages;
            changed
        });
        tell_knows();
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Order(order) => order_now(&self.guard, order),
            Output::Grant(running) => self.grant(running),
            Output::Withdraw(app) => self.withdraw(app),
            Output::End(app) => self.end(app),
            Output::Ended { app, lasting } => self.ended(app, lasting),
            Output::KillAll => self.kill_all(),
            Output::Note(note) => self.note(note),
        }
    }

    /// Begins at once, whatever else is still being done for it.
    fn withdraw(&mut self, app: AppName) {
        let rights = self.rights.clone();
        self.after
            .beside(app.clone(), async move { rights.withdraw(&app).await });
    }

    /// Ends its processes once its rights are gone and the word for it is on disk, and not much later if they are not.
    fn end(&mut self, app: AppName) {
        let (guard, ledger) = (self.guard.clone(), self.said.ledger.clone());
        let name = group_name(&app);
        self.after.then(app.clone(), |mut withdrawn| async move {
            let (in_time, kept) = tokio::join!(
                tokio::time::timeout(WITHDRAW_LIMIT, &mut withdrawn),
                tokio::time::timeout(KEEP_LIMIT, ledger.settle()),
            );
            // Said before it shows: from then on a power cut may bring back what was ended.
            if !matches!(kept, Ok(true)) {
                tracing::warn!(%app, "the word that ends it is not on disk yet");
            }
            order_now(&guard, Order::End { name });
            if in_time.is_err() {
                tracing::error!(%app, "what it may was not withdrawn in time: it is stopped all the same");
                withdrawn.await;
            }
        });
    }

    fn ended(&mut self, app: AppName, lasting: bool) {
        let rights = self.rights.clone();
        self.after.then(app.clone(), |before| async move {
            before.await;
            let told = rights.ended(&app, lasting);
            if tokio::time::timeout(GRANT_LIMIT, told).await.is_err() {
                tracing::error!(%app, "what it left could not be cleared away in time");
            }
        });
    }

    fn grant(&mut self, running: Running) {
        let Some(wanted) = self.machine.wanted(&running.app) else {
            return;
        };
        let (rights, teller) = (self.rights.clone(), self.teller.clone());
        let state = self.guard.state().borrow().clone();
        let before = self.after.take(&running.app);
        self.grants.spawn(async move {
            before.await;
            let granted = grant(&running, wanted, &state, rights.as_ref(), &teller).await;
            (running.app, granted)
        });
    }

    /// The guard is away: whoever has the right to write there does it himself, and where the agent has none the guard's
    /// unit does it when it stops.
    fn kill_all(&self) {
        let killed = Cgroup::open(&self.places.cgroup).and_then(|apps| apps.kill());
        if let Err(error) = killed {
            tracing::error!(%error, "applications cannot be ended from here");
        }
    }

    fn note(&self, note: Note) {
        match note {
            Note::Up(running, run) => {
                let lacks = run.lacks.join(", ");
                tracing::info!(app = %running.app, version = %running.version, pid = run.pid, lacks, "runs");
            }
            Note::Down {
                app,
                why,
                how,
                detail,
            } => {
                let detail = detail.unwrap_or_default();
                tracing::info!(%app, why, ?how, detail, "runs no longer");
                let mut event = self.teller.event(EventKind::AppEnded).code(why);
                event = event.detail("app", app);
                if let Some(code) = how.and_then(|how| how.code) {
                    event = event.detail("exit", code);
                }
                if let Some(signal) = how.and_then(|how| how.signal) {
                    event = event.detail("signal", signal);
                }
                if !detail.is_empty() {
                    event = event.detail("error", detail);
                }
                self.teller.tell(event);
            }
        }
    }
}

fn order_now(guard: &Guard, order: Order) {
    if let Err(error) = guard.order(order) {
        tracing::error!(%error, "the guard cannot be told");
    }
}

/// Record first: if it cannot be written, nothing is granted.
async fn grant(
    running: &Running,
    wanted: Wanted,
    state: &GuardState,
    rights: &dyn Rights,
    teller: &Teller,
) -> Result<(), String> {
    let event = started(teller, running, state);
    let refused = |error: &dyn std::fmt::Display| error.to_string();
    teller
        .recorder
        .record(event)
        .await
        .map_err(|error| refused(&error))?;
    // Where nobody keeps the rest of the tree from being opened, it is read before every start.
    if level::word(state) == "launcher" {
        let verified = tokio::task::spawn_blocking(move || wanted.verify_tree()).await;
        verified
            .map_err(|error| refused(&error))?
            .map_err(|error| refused(&error))?;
    }
    tokio::time::timeout(GRANT_LIMIT, rights.grant(running))
        .await
        .map_err(|_| "what it needs was not granted in time".to_owned())?
        .map_err(|error| refused(&error))
}

fn started(teller: &Teller, running: &Running, state: &GuardState) -> Event {
    teller
        .event(EventKind::AppStarted)
        .allowed()
        .detail("app", &running.app)
        .detail("version", &running.version)
        .detail("manifest", running.manifest)
        .detail("program", running.entry)
        .detail("uid", running.uid)
        .detail("level", level::word(state))
}

#[cfg(test)]
mod tests;
