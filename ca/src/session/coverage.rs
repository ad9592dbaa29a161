//! Telling a node what a checkpoint of the log covers, and showing it: that its record is in the log, and that the log
//! continues what this node saw of it before. A node deletes nothing for less.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_audit::log_proof::LogProof;
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
/// A log that is behind what a node has seen may be that of a cloud which has not read another's checkpoint yet.
const BEHIND_FOR: Duration = Duration::from_secs(30);

/// What a session has to tell its node.
pub(super) struct Coverage {
    covered: watch::Receiver<u64>,
    /// What the node may delete once a checkpoint covers it.
    waiting: VecDeque<Reach>,
    metered: bool,
    /// Of a metered node: a heartbeat went out, and this may go along.
    along: bool,
    next: Instant,
    /// Size of the newest checkpoint that the node knows; none: an agent that asks for no proofs.
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

    fn put_back(&mut self, due: Vec<Reach>) {
        for reach in due {
            self.wait_for(reach);
        }
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
            self.journal.coverage.put_back(due);
            self.log_is_behind(known);
            return Ok(());
        };
        self.journal.coverage.behind = Behind::No;
        match self.shown(&due, known, &newest).await {
            Ok(words) => {
                for word in words {
                    self.send_covered(word)?;
                }
                let coverage = &mut self.journal.coverage;
                (coverage.known, coverage.key_told) = (Some(newest.size), true);
            }
            Err(error) => {
                tracing::warn!(node = %self.id(), %error, "what a checkpoint covers is not told yet");
                self.journal.coverage.put_back(due);
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
            false => self.log_key(),
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

    fn log_key(&self) -> Vec<u8> {
        let now = self.hub.clock.now();
        self.hub
            .keys
            .log_key_statement(now)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the statement of the log's key cannot be signed");
                Vec::new()
            })
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
