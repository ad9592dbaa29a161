//! What of the log may be shown at this moment.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use edgeward_audit::Digest;
use edgeward_identity::Timestamp;
use tokio::sync::watch;

use super::self_check::Checked;

/// A checkpoint that is stored here and in the file beside the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub size: u64,
    pub root: Digest,
    /// The signed note. Cosignatures that came since are in the store.
    pub note: String,
    pub signed: Timestamp,
}

/// Why no checkpoint is signed any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A backup was restored, or a replica that was behind took over.
    #[error(
        "the database went back: it holds a checkpoint of {found} events, and one of {signed} was signed"
    )]
    WentBack { signed: u64, found: u64 },
    #[error("the tree of {size} events does not continue the one of {signed} that was signed")]
    Forked { signed: u64, size: u64 },
    #[error("the checkpoint of {0} events is not signed by the key of this cloud")]
    Key(u64),
    #[error("the file that remembers the newest checkpoint is not readable: {0}")]
    Anchor(String),
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Events wait to be put into blocks that cannot be read.
    #[error("{0}")]
    SiteKey(String),
}

impl Halt {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WentBack { .. } => "log_went_back",
            Self::Forked { .. } => "log_forked",
            Self::Key(_) => "log_key_changed",
            Self::Anchor(_) => "log_anchor_unreadable",
            Self::Damaged(_) => "log_damaged",
            Self::SiteKey(_) => "log_site_key_missing",
        }
    }
}

/// Shared between the integrator, which writes it, and whoever answers questions.
#[derive(Debug, Default)]
pub struct LogHead {
    newest: ArcSwapOption<Published>,
    halted: ArcSwapOption<Halt>,
    checked: ArcSwapOption<Checked>,
    /// Self-checks that were asked for.
    requests: watch::Sender<u64>,
}

impl LogHead {
    /// The newest checkpoint; none before the first round.
    pub fn newest(&self) -> Option<Arc<Published>> {
        self.newest.load_full()
    }

    /// Why none is signed, where that is so.
    pub fn halted(&self) -> Option<Arc<Halt>> {
        self.halted.load_full()
    }

    /// What the last self-check came to.
    pub fn last_check(&self) -> Option<Arc<Checked>> {
        self.checked.load_full()
    }

    /// Asks for a check of the whole log. Returns the number of the request.
    pub fn request_check(&self) -> u64 {
        self.requests.send_modify(|count| *count += 1);
        *self.requests.borrow()
    }

    pub(super) fn requests(&self) -> watch::Receiver<u64> {
        self.requests.subscribe()
    }

    pub(super) fn checked(&self, checked: Checked) {
        self.checked.store(Some(Arc::new(checked)));
    }

    pub(super) fn publish(&self, published: Published) {
        self.newest.store(Some(Arc::new(published)));
    }

    /// Returns whether this is news.
    pub(super) fn halt(&self, halt: Option<Halt>) -> bool {
        let before = self.halted.swap(halt.clone().map(Arc::new));
        before.as_deref() != halt.as_ref()
    }
}
