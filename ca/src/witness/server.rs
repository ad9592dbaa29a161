//! The witness: what others submit of their logs is held to what was cosigned before, and cosigned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::cosignature::{Cosigner, WitnessKey};
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::note::{Note, NoteUnverified};
use edgeward_audit::witness::{Known, NotCosigned, Opened, Submission, SubmissionMalformed};
use edgeward_identity::{Clock, Timestamp};
use parking_lot::Mutex;

use super::budget::Budget;
use super::remembered::{Remembered, is_held};
use super::{Parts, WitnessFault, is_due};
use crate::audit::{AuditLog, RecordFault};
use crate::config::witness::WitnessedLog;
use crate::crowd::source_of;
use crate::keys::KeysFault;
use crate::keys::files::FileFault;
use crate::store::witness::Witnessed;
use crate::store::{Store, StoreError, Tx};

/// A cosignature of the same tree is given again for so long before a new one is made: whoever repeats what is public
/// costs a look and no write.
const FRESH: Duration = Duration::from_secs(60);

/// Cosigns the logs of others.
pub struct Server {
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    cosigner: Cosigner,
    /// The database remembers what the key cosigned.
    remembers: bool,
    remembered: Remembered,
    logs: BTreeMap<String, WitnessedLog>,
    budget: Mutex<Budget>,
    /// When a refusal of a log was written down last, by log and code.
    noted: Mutex<BTreeMap<(String, &'static str), Timestamp>>,
}

/// Why a submission gets no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum NotAdded {
    /// The caller's.
    #[error("too many submissions: try again shortly")]
    TooOften,
    #[error(transparent)]
    Malformed(#[from] SubmissionMalformed),
    #[error("this witness does not know the log")]
    UnknownLog,
    #[error("the checkpoint is not signed by a key of the log: {0}")]
    NotSigned(#[from] NoteUnverified),
    /// The caller's or the log's.
    #[error(transparent)]
    NotCosigned(#[from] NotCosigned),
    /// Ours.
    #[error(transparent)]
    Forgetful(#[from] Forgetful),
    #[error(transparent)]
    File(#[from] FileFault),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
}

/// Why nothing is cosigned: what was cosigned before may be forgotten, and then so would be the promise that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgetful {
    /// For a moment, after a start.
    #[error("this witness has not looked yet whether its own database continues")]
    NotYet,
    #[error("this witness's own log is halted")]
    Halted,
    /// In this moment: the log's own task has not looked at it yet.
    #[error("this witness's database does not continue its own log")]
    WentBack,
    #[error("this witness's database does not hold what was cosigned of the log")]
    Behind,
    /// Until the operator makes another key (docs/audit-log.md).
    #[error("this witness's database does not know the key that has cosigned")]
    Key,
}

impl Server {
    /// With the key in the file. Where there is none, with a new one, which the database knows before it is used.
    pub(super) async fn open(parts: &Parts) -> Result<Self, WitnessFault> {
        let mut tx = parts.store.begin("witness.key").await?;
        if let Some(cosigner) = parts.keys.cosigner()? {
            let remembers = tx.knows_witness_key(cosigner.key()).await?;
            if !remembers {
                tracing::error!(key = %cosigner.key(),
                    "CRITICAL: this database does not know what the witness's key has cosigned: nothing is cosigned (docs/audit-log.md)");
            }
            return Self::new(parts, cosigner, remembers);
        }
        let (cosigner, pkcs8) = parts.keys.draw_cosigner()?;
        tx.put_witness_key(cosigner.key(), parts.clock.now())
            .await?;
        tx.commit().await?;
        parts.keys.keep_cosigner(&pkcs8)?;
        Self::new(parts, cosigner, true)
    }

    fn new(parts: &Parts, cosigner: Cosigner, remembers: bool) -> Result<Self, WitnessFault> {
        let remembered = Remembered::open(parts.keys.witnessed_file(cosigner.key()));
        let logs = parts.config.logs.clone();
        let limits = logs
            .iter()
            .map(|(name, log)| (name.clone(), log.per_minute));
        Ok(Self {
            remembered: remembered.map_err(KeysFault::from)?,
            budget: Mutex::new(Budget::new(limits)),
            store: parts.store.clone(),
            audit: parts.audit.clone(),
            clock: parts.clock.clone(),
            noted: Mutex::default(),
            cosigner,
            remembers,
            logs,
        })
    }

    pub fn key(&self) -> &WitnessKey {
        self.cosigner.key()
    }

    /// Names of the logs that are witnessed.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// Why nothing is cosigned now, as far as this process knows. What a witness remembers is in the same database as the
    /// own log: where that went back, so did this.
    pub fn forgetful(&self) -> Option<Forgetful> {
        let head = self.audit.log_head();
        if !self.remembers {
            Some(Forgetful::Key)
        } else if head.halted().is_some() {
            Some(Forgetful::Halted)
        } else if head.newest().is_none() {
            Some(Forgetful::NotYet)
        } else {
            None
        }
    }

    /// The same, of the database that is in front of us: another one may have taken its place since the own log was read.
    async fn may_cosign(&self, tx: &mut Tx) -> Result<(), NotAdded> {
        let published = self.audit.log_head().newest();
        let stored = tx.newest_checkpoint().await?;
        if let Some(forgetful) = self.forgetful() {
            return Err(forgetful.into());
        }
        let continues = published.zip(stored).is_some_and(|(published, stored)| {
            stored.size > published.size
                || (stored.size == published.size && stored.root == published.root)
        });
        match continues {
            true => Ok(()),
            false => Err(Forgetful::WentBack.into()),
        }
    }

    /// Answers a submission with the cosignature's line. What it vouches for is on disk before this returns.
    pub async fn add(&self, from: IpAddr, body: &[u8]) -> Result<String, NotAdded> {
        let added = self.try_add(from, body).await;
        let code = added.as_ref().map_or_else(NotAdded::code, |_| "ok");
        metrics::counter!("edgeward_witness_submissions_total", "code" => code).increment(1);
        added
    }

    async fn try_add(&self, from: IpAddr, body: &[u8]) -> Result<String, NotAdded> {
        let source = source_of(from);
        if !self
            .budget
            .lock()
            .take_source(source, self.clock.boottime())
        {
            return Err(NotAdded::TooOften);
        }
        if let Some(forgetful) = self.forgetful() {
            return Err(forgetful.into());
        }
        let submission = Submission::parse(body)?;
        let stated = submission.stated()?;
        let log = self.logs.get(&stated.origin).ok_or(NotAdded::UnknownLog)?;
        let opened = submission.open(stated, &log.keys)?;
        let origin = opened.checkpoint().origin.clone();
        // Looked at first without the turn of a writer, which is not for whoever repeats what is public.
        let cosigned = self.remembered.of(&origin).await;
        let before = self.store.witnessed(&origin).await?;
        let known = before.as_ref().map(Witnessed::known);
        if !is_held(cosigned, known) {
            return Err(Forgetful::Behind.into());
        }
        if let Err(refused) = opened.clone().judge(known) {
            self.note_refused(&opened, before.as_ref(), &refused)
                .await?;
            return Err(refused.into());
        }
        if let Some(line) = before.and_then(|before| self.given(&opened, &before)) {
            return Ok(line);
        }
        if !self.budget.lock().take_log(&origin, self.clock.boottime()) {
            return Err(NotAdded::TooOften);
        }
        self.cosign(opened, log).await
    }

    async fn cosign(&self, opened: Opened, log: &WitnessedLog) -> Result<String, NotAdded> {
        let origin = opened.checkpoint().origin.clone();
        let mut tx = self.store.begin("witness.cosign").await?;
        self.may_cosign(&mut tx).await?;
        // Again, now that nobody else can change it.
        let cosigned = self.remembered.of(&origin).await;
        let before = tx.witnessed(&origin).await?;
        let known = before.as_ref().map(Witnessed::known);
        if !is_held(cosigned, known) {
            return Err(Forgetful::Behind.into());
        }
        let continued = match opened.clone().judge(known) {
            Ok(continued) => continued,
            Err(refused) => {
                // Of two that come at once only here one is seen to contradict the other.
                drop(tx);
                self.note_refused(&opened, before.as_ref(), &refused)
                    .await?;
                return Err(refused.into());
            }
        };
        let now = self.clock.now();
        let line = continued.cosign(&self.cosigner, now);
        let note = continued.noted(&log.keys, line.clone());
        let note = note.map_err(SubmissionMalformed::from)?;
        let checkpoint = continued.checkpoint();
        let known = Known {
            size: checkpoint.size,
            root: checkpoint.root,
        };
        tx.put_witnessed(&origin, known, &note, now).await?;
        tx.commit().await?;
        self.remembered.put(&origin, known).await?;
        Ok(format!("{line}\n"))
    }

    /// The newest note of a log with this witness's cosignature.
    pub async fn newest(&self, origin: &str) -> Result<Option<String>, StoreError> {
        if !self.logs.contains_key(origin) {
            return Ok(None);
        }
        let row = self.store.witnessed(origin).await?;
        Ok(row.map(|row| row.note))
    }

    /// What was answered to the same checkpoint a moment ago.
    fn given(&self, opened: &Opened, before: &Witnessed) -> Option<String> {
        let checkpoint = opened.checkpoint();
        let is_same = checkpoint.size == before.size && checkpoint.root == before.root;
        let now = self.clock.now();
        // One of the future, by a clock that was set back, is none of this moment either.
        let is_fresh = before.cosigned <= now && now < before.cosigned.plus(FRESH);
        if !is_same || !is_fresh {
            return None;
        }
        let note = Note::parse(before.note.as_bytes()).ok()?;
        // Extension lines are signed, too: another text needs another signature.
        if note.unverified_text() != opened.note().unverified_text() {
            return None;
        }
        let cosignature = self.cosigner.key().verify(&note).ok()?;
        Some(format!("{}\n", cosignature.line()))
    }

    /// Two signed trees of one size are kept as evidence; a proof that leads nowhere may be anybody's mistake.
    async fn note_refused(
        &self,
        opened: &Opened,
        before: Option<&Witnessed>,
        refused: &NotCosigned,
    ) -> Result<(), NotAdded> {
        let (checkpoint, now) = (opened.checkpoint(), self.clock.now());
        let is_fork = before.is_some_and(|before| opened.forks(&before.known()));
        // Proven also where the answer is that the old size is another one.
        let forked = NotCosigned::Forked(checkpoint.size);
        let refused = if is_fork { &forked } else { refused };
        match refused {
            NotCosigned::Forked(_) | NotCosigned::Inconsistent(_) | NotCosigned::NotEmpty => {}
            NotCosigned::OldAbove { .. } | NotCosigned::OtherSize(_) => return Ok(()),
        }
        let about = (checkpoint.origin.clone(), refused.code());
        if !is_due(self.noted.lock().get(&about).copied(), now) {
            return Ok(());
        }
        tracing::warn!(log = checkpoint.origin, size = checkpoint.size, reason = %refused,
            "a log that is witnessed here is not shown to continue what was cosigned");
        let mut event = Event::new(now, Actor::Cloud, EventKind::WitnessRefused)
            .subject(format!("log/{}", checkpoint.origin).as_str())
            .denied(refused.code())
            .detail("reason", refused.to_string())
            .detail("size", checkpoint.size)
            .detail("root", checkpoint.root);
        if let Some(before) = before {
            event = event
                .detail("known_size", before.size)
                .detail("known_root", before.root);
        }
        if is_fork {
            let mut tx = self.store.begin("witness.fork").await?;
            tx.put_fork(&checkpoint.origin, opened.note(), now).await?;
            self.audit.record_in(&mut tx, event).await?;
            tx.commit().await?;
        } else {
            self.audit.later(event);
        }
        self.noted.lock().insert(about, now);
        Ok(())
    }
}

impl NotAdded {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooOften => "too_often",
            Self::Malformed(_) => "witness_malformed",
            Self::UnknownLog => "witness_unknown_log",
            Self::NotSigned(_) => "witness_not_signed",
            Self::NotCosigned(refused) => refused.code(),
            Self::Forgetful(forgetful) => forgetful.code(),
            Self::File(_) | Self::Store(_) | Self::Record(_) => "unavailable",
        }
    }
}

impl Forgetful {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotYet => "witness_not_ready",
            Self::Halted | Self::WentBack => "witness_own_log",
            Self::Behind => "witness_went_back",
            Self::Key => "witness_key_unknown",
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("key", self.cosigner.key())
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
