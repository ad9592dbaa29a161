//! The newest checkpoint of the log that this node accepted: what the next one must continue.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::note::MAX_NOTE_BYTES;
use edgeward_audit::watch::{LogWatch, NotShown, Shown};
use edgeward_audit::{BootId, Digest};
use edgeward_identity::BootTime;

use super::proven::Proven;
use crate::state::file::replace;

/// The file beside the journal that holds its signed note.
const FILE: &str = "log-checkpoint";
/// Where the first note is kept that does not continue it: the two together are the proof.
const CONTRADICTION: &str = "log-contradicted";
/// Code of that contradiction.
const FORKED: &str = "log_forked";
/// Code of the other one: the log asks for what it proved to have.
pub(super) const LOST_COVERED: &str = "log_lost_covered";
/// Flash wears: what is seen in between is remembered in memory. After a restart the log leads on from an older one.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What the cloud says that a checkpoint covers, and what it shows for it.
#[derive(Clone, Debug)]
pub struct Covered {
    pub boot: BootId,
    /// Everything of the boot below is in the log.
    pub next: u64,
    /// The log, by the key that the key set leads to.
    pub log: LogWatch,
    /// Of the record before `next`.
    pub proof: LogProof,
    /// See [`Shown::from`].
    pub from: u64,
    pub consistency: Vec<Digest>,
}

impl Covered {
    fn shown(&self) -> Shown<'_> {
        Shown {
            proof: &self.proof,
            from: self.from,
            consistency: &self.consistency,
        }
    }
}

/// What this node remembers of the log.
#[derive(Debug)]
pub(super) struct LogSeen {
    folder: PathBuf,
    seen: Option<Checkpoint>,
    /// Its note, while the file has an older one.
    unsaved: Option<String>,
    saved: Option<BootTime>,
    size: Arc<AtomicU64>,
    contradicted: bool,
    proven: Proven,
}

impl LogSeen {
    /// Reads what was remembered in `folder`. A file that cannot be read is none: the next checkpoint is believed as the
    /// first one was.
    pub(super) fn open(folder: &Path) -> Self {
        let seen = match read(&folder.join(FILE)) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "the newest checkpoint of the log that was seen is not known any more");
                None
            }
        };
        let size = seen.as_ref().map_or(0, |seen| seen.size);
        let contradicted = folder.join(CONTRADICTION).exists();
        let mut proven = Proven::open(folder);
        if !contradicted {
            proven.forget_told(FORKED);
        }
        Self {
            folder: folder.to_owned(),
            seen,
            unsaved: None,
            saved: None,
            size: Arc::new(AtomicU64::new(size)),
            contradicted,
            proven,
        }
    }

    /// Size of the log, as far as it was accepted; 0: nothing was.
    pub(super) fn size(&self) -> Arc<AtomicU64> {
        self.size.clone()
    }

    /// Accepts what the log shows, or says why not. `own`: the hash of this node's record, unless it is gone already.
    pub(super) fn accept(
        &mut self,
        covered: &Covered,
        own: Option<&Digest>,
        now: BootTime,
    ) -> Result<(), NotShown> {
        let next = covered
            .log
            .check(self.seen.as_ref(), covered.shown(), own)?;
        if self.seen.as_ref() != Some(&next) {
            self.size.store(next.size, Ordering::Relaxed);
            self.seen = Some(next);
            self.unsaved = Some(covered.proof.checkpoint.clone());
        }
        if self
            .saved
            .is_none_or(|saved| now.since(saved) >= SAVE_EVERY)
        {
            self.save();
            self.saved = Some(now);
        }
        Ok(())
    }

    /// Before what `covered` covers is deleted: the checkpoint that it was accepted for, and that it was, are on disk when
    /// this returns true. A power cut must not leave a node without its records that believes any other tree.
    pub(super) fn keep_before_deleting(&mut self, covered: &Covered) -> bool {
        if !self.save() {
            return false;
        }
        let kept = self.proven.put(covered.boot, covered.next);
        if let Err(error) = &kept {
            tracing::warn!(%error, "what the log proved to have cannot be kept");
        }
        kept.is_ok()
    }

    /// Everything of the boot below this was proven to be in the log, and then deleted here.
    pub(super) fn proven_below(&self, boot: BootId) -> u64 {
        self.proven.below(boot)
    }

    /// Keeps the first note that contradicts what was seen.
    pub(super) fn keep_contradiction(&mut self, covered: &Covered) {
        self.save();
        if self.contradicted {
            return;
        }
        self.contradicted = true;
        let path = self.folder.join(CONTRADICTION);
        if let Err(error) = replace(&path, covered.proof.checkpoint.as_bytes()) {
            tracing::error!(%error, path = %path.display(), "the log's contradiction cannot be kept");
        }
    }

    /// Whether a record says that the log contradicts itself in this way.
    pub(super) fn has_told(&self, code: &str) -> bool {
        self.proven.has_told(code)
    }

    /// A record says it, and is on disk.
    pub(super) fn told(&mut self, code: &str) {
        if let Err(error) = self.proven.put_told(code) {
            tracing::warn!(%error, "the log's contradiction may be told of again");
        }
    }

    /// Brings what is only in memory to the disk. Whether nothing is left.
    pub(super) fn save(&mut self) -> bool {
        let Some(note) = self.unsaved.take() else {
            return true;
        };
        let path = self.folder.join(FILE);
        if let Err(error) = replace(&path, note.as_bytes()) {
            tracing::warn!(%error, path = %path.display(), "the newest checkpoint of the log is only in memory");
            self.unsaved = Some(note);
            return false;
        }
        true
    }
}

fn read(path: &Path) -> io::Result<Option<Checkpoint>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut note = Vec::new();
    let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut note)?;
    // This node has checked its signature before it wrote it.
    let text = str::from_utf8(&note)
        .ok()
        .and_then(|note| note.split_once("\n\n"));
    let checkpoint = text.and_then(|(text, _)| Checkpoint::parse_text(&format!("{text}\n")).ok());
    checkpoint.map(Some).ok_or_else(|| {
        let why = format!("{}: not a checkpoint", path.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}
