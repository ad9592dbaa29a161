//! Telling a node what a checkpoint of the log covers, and showing it: that its record is in the log, and that the log
//! continues what this node saw of it before. A node deletes nothing for less.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_audit::log_proof::LogProof;
use edgeward_identity::SignError;
use edgeward_wire::v1::{self, cloud_message::Body};
use tokio::sync::watch;
use tokio::time::Instant;

use super::SessionEnded;
use super::live::Live;
use crate::audit::Published;
use crate::store::StoreError;
use crate::store::audit::Reach;
use crate::store::log::TreeError;

/// Most boots whose coverage waits for a checkpoint; of one boot only the newest does.
pub(super) const MAX_WAITING: usize = 64;
/// Least time from one word to the next: a proof costs some reads of the database, and deleting is not urgent.
const PACE: Duration = Duration::from_secs(2);
/// Wait after a word that the node did not accept.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// A log that is behind what a node has seen may be that of a cloud which has not read another's checkpoint yet.
const BEHIND_FOR: Duration = Duration::from_secs(30);

/// What a session has to tell its node.
pub(super) struct Coverage {
    covered: watch::Receiver<u64>,
    /// What the node may delete once a checkpoint covers it.
    waiting: VecDeque<Reach>,
    /// What was told last of each boot, which the node may not have accepted; of as many boots as may wait.
    told: VecDeque<Reach>,
    metered: bool,
    /// Of a metered node: a heartbeat went out, and this may go along.
    along: bool,
    next: Instant,
    /// Size of the newest checkpoint that the node knows, unless it says otherwise; none: an agent that asks for no proofs.
    known: Option<u64>,
    key_told: bool,
    behind: Behind,
}

/// Whether the log is behind what the node has seen.
#[derive(Clone, Copy)]
enum Behind {
    No,
    Since(Instant),
    Said,
}

/// Why nothing can be shown now. It is tried again.
#[derive(Debug, thiserror::Error)]
enum NotShown {
    #[error("the record is not found")]
    NoRecord,
    #[error("the statement of the log's key cannot be signed: {0}")]
    Key(#[from] SignError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coverage {
    pub(super) fn new(covered: watch::Receiver<u64>, metered: bool, known: Option<u64>) -> Self {
        Self {
            covered,
            waiting: VecDeque::new(),
            told: VecDeque::new(),
            metered,
            along: false,
            next: Instant::now(),
            known,
            key_told: false,
            behind: Behind::No,
        }
    }

    /// Returns when the node is to be told of what a checkpoint covers now. A metered node is told with its heartbeats.
    pub(super) async fn advanced(&mut self) {
        if self.waiting.is_empty() || (self.metered && !self.along) {
            return pending().await;
        }
        tokio::time::sleep_until(self.next).await;
        while !self.has_due() {
            if self.covered.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    pub(super) fn is_metered(&self) -> bool {
        self.metered
    }

    /// A heartbeat goes out.
    pub(super) fn goes_along(&mut self) {
        self.along = true;
    }

    pub(super) fn wait_for(&mut self, reach: Reach) {
        // A boot's newest takes the older ones along, unless they may be told already.
        let covered = *self.covered.borrow();
        self.waiting
            .retain(|known| known.boot != reach.boot || known.leaves <= covered);
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(reach);
        }
    }

    fn has_due(&self) -> bool {
        let covered = *self.covered.borrow();
        self.waiting.iter().any(|reach| reach.leaves <= covered)
    }

    /// Of each boot what is covered now, in their order.
    fn take_due(&mut self) -> Vec<Reach> {
        let covered = *self.covered.borrow();
        let (due, waiting): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..)
            .partition(|reach| reach.leaves <= covered);
        self.waiting = waiting.into();
        (self.next, self.along) = (Instant::now() + PACE, false);
        due
    }

    /// What could not be told waits on, before what came since: that may be covered later.
    fn put_back(&mut self, due: impl DoubleEndedIterator<Item = Reach>) {
        for reach in due.rev() {
            let is_newer =
                |known: &Reach| known.boot == reach.boot && known.next_seq >= reach.next_seq;
            let covered = *self.covered.borrow();
            let mut due = self.waiting.iter().filter(|known| known.leaves <= covered);
            if self.waiting.len() < MAX_WAITING && !due.any(is_newer) {
                self.waiting.push_front(reach);
            }
        }
    }

    /// The node was told this, and believes it as far as anybody here knows.
    fn told(&mut self, due: Vec<Reach>, size: u64) {
        (self.known, self.key_told) = (Some(size), true);
        for reach in due {
            self.told.retain(|told| told.boot != reach.boot);
            self.told.push_back(reach);
        }
        let too_many = self.told.len().saturating_sub(MAX_WAITING);
        self.told.drain(..too_many);
    }

    /// The node did not accept a word, and knows a checkpoint of this size: it is told again what it was told, from there.
    pub(super) fn refused(&mut self, log_size: u64) {
        metrics::counter!("edgeward_audit_coverage_refused_total").increment(1);
        if self.known.is_none() {
            return;
        }
        (self.known, self.key_told) = (Some(log_size), false);
        let told = std::mem::take(&mut self.told);
        self.put_back(told.into_iter());
        self.next = Instant::now() + REFUSED_PAUSE;
    }
}

impl Live {
    /// Tells what a checkpoint covers by now.
    pub(super) async fn tell_covered(&mut self) -> Result<(), SessionEnded> {
        let due = self.journal.coverage.take_due();
        let Some(known) = self.journal.coverage.known else {
            return due
                .iter()
                .try_for_each(|reach| self.send_covered(word(reach)));
        };
        let newest = self.hub.audit.log_head().newest();
        let Some(newest) = newest.filter(|newest| newest.size >= known) else {
            self.journal.coverage.put_back(due.into_iter());
            self.log_is_behind(known);
            return Ok(());
        };
        self.journal.coverage.behind = Behind::No;
        match self.shown(&due, known, &newest).await {
            Ok(words) => {
                for word in words {
                    self.send_covered(word)?;
                }
                self.journal.coverage.told(due, newest.size);
            }
            Err(error) => {
                tracing::warn!(node = %self.id(), %error, "what a checkpoint covers is not told yet");
                self.journal.coverage.put_back(due.into_iter());
            }
        }
        Ok(())
    }

    fn send_covered(&self, word: v1::AuditCovered) -> Result<(), SessionEnded> {
        self.send(Body::AuditCovered(word))
    }

    /// Each with its proof. The first leads the node from what it knows to the newest checkpoint; the others stand on it.
    async fn shown(
        &self,
        due: &[Reach],
        known: u64,
        newest: &Arc<Published>,
    ) -> Result<Vec<v1::AuditCovered>, NotShown> {
        let store = &self.hub.store;
        let mut consistency = match known {
            0 => Vec::new(),
            known => store.consistency(known, newest.size).await?,
        };
        let mut key = match self.journal.coverage.key_told {
            true => Vec::new(),
            false => self.hub.keys.log_key_statement(self.hub.clock.now())?,
        };
        let mut from = known;
        let mut words = Vec::with_capacity(due.len());
        for reach in due {
            let last = reach.next_seq.saturating_sub(1);
            let leaf = store.leaf_of(&self.id(), reach.boot, last).await?;
            let index = leaf.ok_or(NotShown::NoRecord)?;
            let proof = LogProof {
                index,
                hashes: store.inclusion(index, newest.size).await?,
                checkpoint: newest.note.clone(),
                extra: None,
            };
            let hashes = std::mem::take(&mut consistency);
            words.push(v1::AuditCovered {
                proof: proof.to_string().into_bytes(),
                from,
                consistency: hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
                log_key: std::mem::take(&mut key),
                ..word(reach)
            });
            from = newest.size;
        }
        Ok(words)
    }

    /// Another cloud of the same database may be ahead for a moment; longer than that, this log went back.
    fn log_is_behind(&mut self, known: u64) {
        let now = Instant::now();
        match self.journal.coverage.behind {
            Behind::No => self.journal.coverage.behind = Behind::Since(now),
            Behind::Since(since) if now.duration_since(since) >= BEHIND_FOR => {
                self.journal.coverage.behind = Behind::Said;
                let size = *self.hub.audit.covered().borrow();
                tracing::error!(node = %self.id(), known, size, "CRITICAL: a node has seen more of the audit log than is here");
                let event = Event::new(self.hub.clock.now(), Actor::Cloud, EventKind::AuditBehind)
                    .subject(self.id())
                    .detail("seen", known)
                    .detail("size", size);
                self.hub.audit.later(event);
            }
            Behind::Since(_) | Behind::Said => {}
        }
    }
}

fn word(reach: &Reach) -> v1::AuditCovered {
    v1::AuditCovered {
        boot_id: reach.boot.as_bytes().to_vec(),
        next_seq: reach.next_seq,
        hash: reach.hash.as_bytes().to_vec(),
        ..v1::AuditCovered::default()
    }
}
