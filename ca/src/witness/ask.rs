//! Asking witnesses: each newest checkpoint goes to all of them in the background. The log waits for none; one that is
//! away gets what is newest when it is back.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::cosignature::{Cosignature, WitnessKey};
use edgeward_audit::event::{Actor, Event, EventKind, Text};
use edgeward_audit::note::{Note, NoteMalformed, NoteUnverified};
use edgeward_audit::witness::{Submission, parse_size_answer};
use edgeward_identity::{Clock, Timestamp};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::post::Post;
use super::{Parts, is_due};
use crate::api::views::ProblemView;
use crate::audit::{AuditLog, Published};
use crate::config::witness::Asked;
use crate::store::log::{StoredCheckpoint, TreeError};
use crate::store::{Store, StoreError};

/// A witness of which nothing came for so long is an event.
const SILENT_AFTER: Duration = Duration::from_secs(3600);
/// A checkpoint that stays the newest is submitted again after so long: the witness says that it still is.
const REFRESH: Duration = Duration::from_secs(600);
/// Pause after a failure, doubled to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Submissions of one checkpoint: the second begins from the size that the first was answered with.
const ATTEMPTS: u32 = 3;
/// How far a witness's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(300);

/// All witnesses that are asked, and what came of it.
#[derive(Default)]
pub struct Asking {
    parts: Option<Parts>,
    states: Vec<Arc<Mutex<AskState>>>,
}

/// What came of asking one witness. Of this process: what was cosigned is in the store.
#[derive(Clone, Debug)]
pub struct AskState {
    pub key: WitnessKey,
    /// Where it is asked.
    pub url: String,
    /// Size of the tree that it cosigned last, and when that came.
    pub cosigned: Option<(u64, Timestamp)>,
    /// Why nothing comes, and since when.
    pub failing: Option<(String, Timestamp)>,
    /// It says that the log does not continue what it cosigned.
    pub disputed: bool,
}

/// Why a checkpoint was not cosigned.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// Whoever put a database back, or signed twice: the log's operators must look.
    #[error("the witness does not find that the log continues what it cosigned: {0}")]
    Inconsistent(String),
    #[error("the witness has cosigned {theirs} events, and the log has {ours}")]
    Ahead { theirs: u64, ours: u64 },
    /// Theirs, or the way's.
    #[error("{0}")]
    Down(String),
    #[error("the witness answered {status}: {said}")]
    Status { status: StatusCode, said: String },
    #[error("answer is malformed: {0}")]
    Malformed(#[from] NoteMalformed),
    #[error("answer holds no cosignature of the witness's key: {0}")]
    Unverified(#[from] NoteUnverified),
    #[error("cosignature is of the future: {0}")]
    Future(u64),
    #[error("the witness answers with sizes that lead nowhere")]
    Sizes,
    /// Ours.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no proof can be made: {0}")]
    Tree(#[from] TreeError),
}

/// Asks one witness.
struct Asker {
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    post: Post,
    state: Arc<Mutex<AskState>>,
    /// What it has cosigned last, as far as is known here.
    old: u64,
    since: Timestamp,
    told_silent: bool,
    told_disputed: Option<Timestamp>,
}

impl Asking {
    pub(super) fn new(parts: &Parts) -> Self {
        let state = |asked: &Asked| {
            let scheme = if asked.endpoint.tls.is_some() {
                "https"
            } else {
                "http"
            };
            Arc::new(Mutex::new(AskState {
                key: asked.key.clone(),
                url: format!("{scheme}://{}{}", asked.endpoint.authority(), asked.path),
                cosigned: None,
                failing: None,
                disputed: false,
            }))
        };
        Self {
            states: parts.config.ask.iter().map(state).collect(),
            parts: Some(parts.clone()),
        }
    }

    /// What came of asking each.
    pub fn states(&self) -> Vec<AskState> {
        self.states
            .iter()
            .map(|state| state.lock().clone())
            .collect()
    }

    /// Runs until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let (picked, newest) = watch::channel(None);
        if let Some(parts) = &self.parts
            && !self.states.is_empty()
        {
            let (audit, every) = (parts.audit.clone(), parts.config.every);
            tasks.spawn(pick(audit, picked, every));
            for (asked, state) in parts.config.ask.iter().zip(&self.states) {
                let asker = Asker::new(parts, asked.clone(), state.clone());
                tasks.spawn(asker.run(newest.clone()));
            }
        }
        // What they had begun is begun again at the next start: nothing is lost by ending anywhere.
        stop.cancelled().await;
        tasks.shutdown().await;
    }
}

/// Names the checkpoint that all witnesses are asked for next: only of one and the same can a quorum come together.
async fn pick(
    audit: Arc<AuditLog>,
    picked: watch::Sender<Option<Arc<Published>>>,
    every: Duration,
) {
    let mut covered = audit.covered();
    loop {
        covered.mark_unchanged();
        if let Some(newest) = audit.log_head().newest() {
            picked.send_if_modified(|before| {
                let is_new = before
                    .as_ref()
                    .is_none_or(|before| before.size != newest.size);
                if is_new {
                    *before = Some(newest);
                }
                is_new
            });
        }
        tokio::time::sleep(every).await;
        // Without a checkpoint at the start there is nothing to wait for but the next look.
        if picked.borrow().is_some() && covered.changed().await.is_err() {
            return;
        }
    }
}

impl Asker {
    fn new(parts: &Parts, asked: Asked, state: Arc<Mutex<AskState>>) -> Self {
        Self {
            store: parts.store.clone(),
            audit: parts.audit.clone(),
            clock: parts.clock.clone(),
            since: parts.clock.now(),
            post: Post::new(asked),
            state,
            old: 0,
            told_silent: false,
            told_disputed: None,
        }
    }

    async fn run(mut self, mut newest: watch::Receiver<Option<Arc<Published>>>) {
        self.take_up().await;
        let mut pause = PAUSE;
        loop {
            let target = newest.borrow_and_update().clone();
            let wait = match target {
                None => REFRESH,
                Some(target) => match self.ask(&target).await {
                    Ok(()) => {
                        pause = PAUSE;
                        REFRESH
                    }
                    Err(fault) => {
                        self.failed(fault);
                        let rest = pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        // What is newest then is submitted, however often that changes meanwhile.
                        tokio::time::sleep(rest).await;
                        continue;
                    }
                },
            };
            if let Ok(Err(_)) = tokio::time::timeout(wait, newest.changed()).await {
                return;
            }
        }
    }

    /// Begins where the process before this one ended.
    async fn take_up(&mut self) {
        let key = self.post.asked().key.clone();
        match self.store.last_cosigned(&key).await {
            Ok(Some(last)) => {
                self.old = last.size;
                // By the witness's clock: no later than now.
                self.since = last.time.min(self.clock.now());
                self.state.lock().cosigned = Some((last.size, self.since));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cosignatures cannot be read"),
        }
    }

    async fn ask(&mut self, target: &Published) -> Result<(), Fault> {
        let begun = tokio::time::Instant::now();
        let note = Note::parse(target.note.as_bytes())?;
        if self.old > target.size {
            // The database is older than the cosignatures in it, or another cloud was quicker: the witness says.
            self.old = 0;
        }
        for _ in 0..ATTEMPTS {
            let body = self.submission(target.size, &note).await?;
            let (status, answer) = self.post.submit(body).await.map_err(Fault::Down)?;
            match status {
                StatusCode::OK => {
                    let cosignature = self.verified(&note, &answer)?;
                    self.keep(target, &cosignature).await?;
                    let name = self.post.asked().key.name().to_owned();
                    metrics::histogram!("edgeward_audit_witness_seconds", "witness" => name)
                        .record(begun.elapsed().as_secs_f64());
                    self.succeeded(target.size);
                    return Ok(());
                }
                StatusCode::CONFLICT => {
                    let size = parse_size_answer(&answer).map_err(|_| Fault::Sizes)?;
                    if size > target.size {
                        return Err(self.ahead(size, target.size).await?);
                    }
                    if size == self.old {
                        return Err(Fault::Sizes);
                    }
                    self.old = size;
                }
                StatusCode::UNPROCESSABLE_ENTITY => return Err(Fault::Inconsistent(said(&answer))),
                status => {
                    let said = said(&answer);
                    return Err(Fault::Status { status, said });
                }
            }
        }
        Err(Fault::Sizes)
    }

    async fn submission(&self, size: u64, note: &Note) -> Result<String, Fault> {
        let proof = match self.old {
            0 => Vec::new(),
            old => self.store.consistency(old, size).await?,
        };
        let submission = Submission {
            old: self.old,
            proof,
            note: note.clone(),
        };
        Ok(submission.to_string())
    }

    fn verified(&self, note: &Note, answer: &[u8]) -> Result<Cosignature, Fault> {
        let answered = note.with_lines(answer)?;
        let cosignature = self.post.asked().key.verify(&answered)?;
        match cosignature.time() > self.clock.now().plus(AHEAD) {
            true => Err(Fault::Future(cosignature.time().secs())),
            false => Ok(cosignature),
        }
    }

    async fn keep(&self, target: &Published, cosignature: &Cosignature) -> Result<(), Fault> {
        let checkpoint = StoredCheckpoint {
            size: target.size,
            root: target.root,
            note: target.note.clone(),
            signed: target.signed,
        };
        let mut tx = self.store.begin("witness.cosignature").await?;
        tx.put_cosignature(&checkpoint, &self.post.asked().key, cosignature)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Another cloud on the same database may have been quicker; one whose database went back has no larger tree.
    async fn ahead(&self, theirs: u64, ours: u64) -> Result<Fault, Fault> {
        let newest = self.store.newest_checkpoint().await?;
        let stored = newest.map_or(ours, |newest| newest.size);
        Ok(match theirs > stored {
            true => Fault::Ahead {
                theirs,
                ours: stored,
            },
            false => Fault::Down("another cloud submitted a newer checkpoint".to_owned()),
        })
    }

    fn succeeded(&mut self, size: u64) {
        let now = self.clock.now();
        (self.old, self.since) = (size, now);
        let was_failing = {
            let mut state = self.state.lock();
            state.cosigned = Some((size, now));
            state.disputed = false;
            state.failing.take().is_some()
        };
        self.gauge(1.0);
        let name = self.post.asked().key.name();
        if was_failing {
            tracing::info!(witness = name, "the witness cosigns the log again");
        }
        let told = std::mem::take(&mut self.told_silent) | self.told_disputed.take().is_some();
        if told {
            self.audit.later(self.event(EventKind::WitnessResumed));
        }
    }

    fn failed(&mut self, fault: Fault) {
        let now = self.clock.now();
        self.gauge(0.0);
        let why = fault.to_string();
        let name = self.post.asked().key.name().to_owned();
        let code = match &fault {
            Fault::Inconsistent(_) => Some("witness_inconsistent"),
            Fault::Ahead { .. } => Some("witness_ahead"),
            _ => None,
        };
        {
            let mut state = self.state.lock();
            state.disputed = code.is_some() || state.disputed;
            match &mut state.failing {
                Some((before, _)) => before.clone_from(&why),
                none => {
                    tracing::warn!(witness = name, why, "a witness does not cosign the log");
                    *none = Some((why.clone(), now));
                }
            }
        }
        if let Some(code) = code
            && is_due(self.told_disputed, now)
        {
            self.told_disputed = Some(now);
            tracing::error!(
                witness = name,
                why,
                code,
                "CRITICAL: a witness does not find that the audit log continues what it cosigned (docs/audit-log.md)"
            );
            let event = self.event(EventKind::WitnessDisputed).code(code);
            self.audit.later(event.detail("reason", why));
        } else if !self.told_silent && now >= self.since.plus(SILENT_AFTER) {
            self.told_silent = true;
            let event = self.event(EventKind::WitnessSilent);
            self.audit.later(event.detail("reason", why));
        }
    }

    fn gauge(&self, up: f64) {
        let name = self.post.asked().key.name().to_owned();
        metrics::gauge!("edgeward_audit_witness_up", "witness" => name.clone()).set(up);
        let behind = self.audit.covered().borrow().saturating_sub(self.old);
        #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics::gauge!("edgeward_audit_witness_behind", "witness" => name).set(behind as f64);
    }

    fn event(&self, kind: EventKind) -> Event {
        let name = self.post.asked().key.name();
        Event::new(self.clock.now(), Actor::Cloud, kind).subject(format!("witness/{name}").as_str())
    }
}

/// What a witness wrote, for people; of a cloud like this one, the sentence in its problem document.
fn said(answer: &[u8]) -> String {
    let text = match serde_json::from_slice::<ProblemView>(answer) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    };
    Text::<200>::lossy(&text).to_string()
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking")
            .field("witnesses", &self.states.len())
            .finish_non_exhaustive()
    }
}
