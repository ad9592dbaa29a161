//! Taking in what nodes send: batches, and their word that records are lost.
//!
//! A batch is at least once on its way and exactly once in the log. What it does not continue is a gap: a row, an event,
//! and a question to the node, which answers with the records or with its signed word that it has them no more. What
//! follows waits for that answer and for nothing else.

use std::slice;
use std::sync::Arc;

use edgeward_audit::batch::{Accepted, DedupError, VerifiedBatch};
use edgeward_audit::digest::Digest;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::{BootId, Head, SealedRecord};
use edgeward_audit::statement::LossStated;
use edgeward_identity::{SpiffeId, Timestamp};

use super::gaps::{admit, filling, lose, unknown, without};
use super::intake::{Answer, FOLLOWS_WITHIN, Waiting};
use super::{AuditLog, RecordFault, Signed, glass};
use crate::store::audit::{FaultKind, Gap, JournalFault, MAX_FAULTS, Reach};
use crate::store::{StoreError, Tx};

/// What became of a batch that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub boot: BootId,
    /// Everything below is stored, or known to be missing.
    pub next_seq: u64,
    /// The last record that is stored.
    pub head: Option<Head>,
    /// What the node may delete once so much of the log is covered.
    pub reach: Option<Reach>,
    /// What the node is to be asked for.
    pub wanted: Option<Wanted>,
}

/// Records that the cloud misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub boot: BootId,
    pub first_seq: u64,
    pub last_seq: u64,
}

/// What one batch of a transaction did; told once that is committed.
struct Taken {
    answer: Answer,
    loud: Vec<String>,
    stored: usize,
    duplicates: usize,
    refused: usize,
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The node's. A gap is repaired by sending from `next_seq`.
    #[error("batch is refused: {refused}")]
    Refused {
        #[source]
        refused: DedupError,
        acknowledged: Box<Acknowledged>,
    },
    /// Ours: the node keeps its records and tries again.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
}

impl IngestError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { refused, .. } => refused.code(),
            Self::Store(_) | Self::Record(_) => "audit_unavailable",
        }
    }
}

impl Taken {
    fn told(self) -> Answer {
        glass::shout(&self.loud);
        for (outcome, records) in [
            ("stored", self.stored),
            ("duplicate", self.duplicates),
            ("refused", self.refused),
        ] {
            count(outcome, records);
        }
        self.answer
    }
}

impl AuditLog {
    /// Takes in a batch whose signature was checked: stores what is new of it, and acknowledges after the commit, which
    /// it shares with others that wait. Given up half way, nothing or all of it is stored.
    pub async fn ingest(
        &self,
        batch: impl Into<Arc<VerifiedBatch>>,
        now: Timestamp,
    ) -> Result<Acknowledged, IngestError> {
        self.wait_for_checkpoints().await?;
        let mut place = self.intake.enter(batch.into(), now).await;
        let _turn = match place.answer_or_turn().await {
            Ok(answer) => return answer,
            Err(turn) => turn,
        };
        loop {
            // It may have come with the turn.
            if let Some(answer) = place.answered() {
                return answer;
            }
            self.take_group(&self.intake.group()).await;
        }
    }

    /// Waits while checkpoints are behind. A halted log covers nothing until somebody repairs it: it goes on recording.
    async fn wait_for_checkpoints(&self) -> Result<(), StoreError> {
        let mut covered = self.covered();
        let follows = covered.wait_for(|covered| {
            let behind = self.store.stored().saturating_sub(*covered);
            behind <= self.intake.most_uncovered || self.head.halted().is_some()
        });
        match tokio::time::timeout(FOLLOWS_WITHIN, follows).await {
            Ok(_) => Ok(()),
            Err(_) if self.head.halted().is_some() => Ok(()),
            Err(_) => {
                let why = "checkpoints of the log do not follow";
                Err(StoreError::Unavailable(why.to_owned()))
            }
        }
    }

    /// Stores batches together and answers each.
    async fn take_group(&self, group: &[Arc<Waiting>]) {
        match self.store_group(group).await {
            Ok(answers) => {
                for (waiting, answer) in group.iter().zip(answers) {
                    self.intake.answer(waiting, answer);
                }
            }
            Err(IngestError::Store(StoreError::Unavailable(why))) => {
                for waiting in group {
                    let fault = StoreError::Unavailable(why.clone());
                    self.intake.answer(waiting, Err(fault.into()));
                }
            }
            // One of them is what the database does not take. The others are not to suffer for it.
            Err(_) if group.len() > 1 => {
                for waiting in group {
                    Box::pin(self.take_group(slice::from_ref(waiting))).await;
                }
            }
            Err(fault) => {
                if let Some(waiting) = group.first() {
                    self.intake.answer(waiting, Err(fault));
                }
            }
        }
    }

    /// One transaction; as many answers as batches.
    async fn store_group(&self, group: &[Arc<Waiting>]) -> Result<Vec<Answer>, IngestError> {
        let mut tx = self.store.begin("audit.ingest").await?;
        let mut all = Vec::with_capacity(group.len());
        for waiting in group {
            all.push(self.take(&mut tx, &waiting.batch, waiting.now).await?);
        }
        tx.commit().await?;
        let batches = u32::try_from(group.len()).unwrap_or(u32::MAX);
        metrics::histogram!("edgeward_audit_ingest_batches").record(f64::from(batches));
        Ok(all.into_iter().map(Taken::told).collect())
    }

    async fn take(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        now: Timestamp,
    ) -> Result<Taken, IngestError> {
        let (node, boot) = (batch.node(), batch.boot());
        let gaps = tx.gaps(node, boot).await?;
        let head = tx.journal_head(node, boot).await?;
        let filled = match self.fill(tx, batch, &gaps, head, now).await? {
            Ok(filled) => filled,
            Err(refused) => return self.refuse(tx, batch, head, refused, now).await,
        };
        let last = batch.head().seq;
        let known = match head {
            Some(head) if last < head.seq => tx.record_hash(node, boot, last).await?,
            Some(_) | None => None,
        };
        match admit(batch, head, &gaps, known) {
            Ok(accepted) => {
                let mut acknowledged = self.append(tx, batch, &accepted, &gaps, now).await?;
                let mut loud = filled.loud;
                loud.extend(glass::note(tx, accepted.new).await?);
                acknowledged.reach = tx.reach(node, boot, acknowledged.next_seq).await?;
                Ok(Taken {
                    answer: Ok(acknowledged),
                    loud,
                    stored: accepted.new.len() + filled.records,
                    duplicates: accepted.duplicates.saturating_sub(filled.records),
                    refused: 0,
                })
            }
            Err(refused) => self.refuse(tx, batch, head, refused, now).await,
        }
    }

    /// A node's word that it does not have records any more, which the caller has verified. Says whether it was asked.
    pub async fn lost(
        &self,
        node: &SpiffeId,
        loss: &LossStated,
        now: Timestamp,
    ) -> Result<bool, RecordFault> {
        let mut tx = self.store.begin("audit.lost").await?;
        let gaps = tx.gaps(node, loss.boot).await?;
        let split = |gap: &Gap| {
            let left = lose(*gap, loss.first_seq, loss.last_seq)?;
            Some((*gap, left))
        };
        let widened = || {
            // Beyond the bound one row stands for several ranges.
            let newest = gaps.last().filter(|_| gaps.len() >= MAX_FAULTS)?;
            let whole = Gap {
                last_seq: newest.last_seq.max(loss.last_seq),
                lost: true,
                ..*newest
            };
            (newest.first_seq <= loss.first_seq && !newest.lost).then(|| (*newest, vec![whole]))
        };
        let Some((before, after)) = gaps.iter().find_map(split).or_else(widened) else {
            return Ok(false);
        };
        tx.replace_gap(node, loss.boot, before, &after, now).await?;
        tracing::warn!(%node, boot = %loss.boot, first_seq = loss.first_seq, last_seq = loss.last_seq,
            "a node lost records of its journal");
        metrics::counter!("edgeward_audit_lost_ranges_total").increment(1);
        let event = Event::new(now, Actor::Cloud, EventKind::JournalGap)
            .subject(node.clone())
            .code("audit_gap_lost")
            .detail("boot", loss.boot)
            .detail("first_seq", loss.first_seq)
            .detail("last_seq", loss.last_seq)
            .detail("fault", FaultKind::Missing.as_str());
        self.record_in(&mut tx, event).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Stores what of a batch belongs into gaps below the head, and checks it as what comes in order is. Says how many
    /// records, or what speaks against them.
    async fn fill(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        gaps: &[Gap],
        head: Option<Head>,
        now: Timestamp,
    ) -> Result<Result<Filled, DedupError>, RecordFault> {
        let mut filled = Filled::default();
        let Some(head) = head else {
            return Ok(Ok(filled));
        };
        for gap in gaps.iter().filter(|gap| gap.last_seq < head.seq) {
            let Some(part) = filling(batch.records(), gap) else {
                continue;
            };
            let Some(last) = part.last().map(|record| record.record().seq) else {
                continue;
            };
            let missing = match missing_of(tx, batch, part).await? {
                Ok(missing) => missing,
                Err(refused) => return Ok(Err(refused)),
            };
            for piece in &missing {
                if let Err(refused) = fits(tx, batch, piece).await? {
                    return Ok(Err(refused));
                }
                tx.append_missing(piece, head, now).await?;
            }
            let left = without(*gap, gap.first_seq, last);
            tx.replace_gap(batch.node(), batch.boot(), *gap, &left, now)
                .await?;
            let open = tx.gaps(batch.node(), batch.boot()).await?;
            for piece in missing {
                self.check_late_turns(tx, batch, piece, &open, now).await?;
                self.check_stated(tx, batch.node(), piece, now).await?;
                filled.loud.extend(glass::note(tx, piece).await?);
                filled.records += piece.len();
            }
        }
        Ok(Ok(filled))
    }

    async fn append(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        accepted: &Accepted<'_>,
        gaps: &[Gap],
        now: Timestamp,
    ) -> Result<Acknowledged, IngestError> {
        let (node, boot) = (batch.node(), batch.boot());
        tx.append_records(accepted.new, now).await?;
        let mut wanted = None;
        if let (Some(first), Some(last)) = (accepted.new.first(), accepted.new.last()) {
            let (from, to) = (first.record().seq, last.record().seq);
            arrived(tx, batch, gaps, (from, to), now).await?;
            self.check_turns(tx, batch, accepted.new, now).await?;
            wanted = self.check_continuity(tx, first, now).await?;
            self.check_stated(tx, node, accepted.new, now).await?;
        }
        Ok(Acknowledged {
            boot,
            next_seq: accepted.head.seq.saturating_add(1),
            head: Some(accepted.head),
            reach: None,
            wanted,
        })
    }

    async fn refuse(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        head: Option<Head>,
        refused: DedupError,
        now: Timestamp,
    ) -> Result<Taken, IngestError> {
        let acknowledged = Acknowledged {
            boot: batch.boot(),
            next_seq: head.map_or(0, |head| head.seq.saturating_add(1)),
            head,
            reach: None,
            wanted: None,
        };
        self.note_refusal(tx, batch, &refused, now).await?;
        Ok(Taken {
            answer: Err(IngestError::Refused {
                refused,
                acknowledged: Box::new(acknowledged),
            }),
            loud: Vec::new(),
            stored: 0,
            duplicates: 0,
            refused: batch.records().len(),
        })
    }

    async fn note_refusal(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        refused: &DedupError,
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let (kind, signed) = match refused {
            DedupError::Gap { .. } => (FaultKind::Missing, Signed::Less),
            DedupError::Equivocation { .. } => (FaultKind::Forked, Signed::Both),
            DedupError::Chain(_) => (FaultKind::Forked, Signed::Less),
        };
        let ranges = match refused {
            // What is known of it already, lost or not, stays as it is.
            DedupError::Gap { expected, first } => {
                let gaps = tx.gaps(batch.node(), batch.boot()).await?;
                let last = first.saturating_sub(1);
                let parts = unknown(gaps.iter(), *expected, last);
                parts
                    .iter()
                    .map(|part| (part.first_seq, part.last_seq))
                    .collect()
            }
            DedupError::Equivocation { seq, .. } => vec![(*seq, *seq)],
            DedupError::Chain(_) => vec![(batch.first_seq(), batch.head().seq)],
        };
        for (first_seq, last_seq) in ranges {
            let fault = JournalFault {
                node: batch.node().clone(),
                boot: batch.boot(),
                first_seq,
                last_seq,
                kind,
                noticed: now,
                lost: None,
                resolved: None,
            };
            self.note_fault(tx, &fault, refused.code(), signed).await?;
        }
        Ok(())
    }
}

/// What of a batch filled gaps.
#[derive(Default)]
struct Filled {
    records: usize,
    /// What is to be shouted once it is durable.
    loud: Vec<String>,
}

/// What of these records is not stored, in pieces that follow each other: a gap that stands for several ranges holds stored
/// records, too. One that is stored otherwise speaks against all of them.
async fn missing_of<'a>(
    tx: &mut Tx,
    batch: &VerifiedBatch,
    part: &'a [SealedRecord],
) -> Result<Result<Vec<&'a [SealedRecord]>, DedupError>, StoreError> {
    let (node, boot) = (batch.node(), batch.boot());
    let ends = part.first().zip(part.last());
    let Some((first, last)) = ends.map(|(first, last)| (first.record().seq, last.record().seq))
    else {
        return Ok(Ok(Vec::new()));
    };
    if !tx.is_any_stored(node, boot, first, last).await? {
        return Ok(Ok(vec![part]));
    }
    let mut known = Vec::with_capacity(part.len());
    for record in part {
        let seq = record.record().seq;
        let stored = tx.record_hash(node, boot, seq).await?;
        if let Some(stored) = stored.filter(|stored| *stored != record.hash()) {
            let given = record.hash();
            return Ok(Err(DedupError::Equivocation { seq, stored, given }));
        }
        known.push(stored.is_some());
    }
    let mut pieces = Vec::new();
    let mut rest = part;
    for same in known.chunk_by(|one, next| one == next) {
        let (piece, behind) = rest.split_at(same.len());
        rest = behind;
        if same.first() == Some(&false) {
            pieces.push(piece);
        }
    }
    Ok(Ok(pieces))
}

/// Whether records join what is stored before and behind them, as far as it is.
async fn fits(
    tx: &mut Tx,
    batch: &VerifiedBatch,
    part: &[SealedRecord],
) -> Result<Result<(), DedupError>, StoreError> {
    let (Some(first), Some(last)) = (part.first(), part.last()) else {
        return Ok(Ok(()));
    };
    let (node, boot) = (batch.node(), batch.boot());
    let before = match first.record().seq.checked_sub(1) {
        Some(seq) => tx.record_hash(node, boot, seq).await?,
        None => Some(Digest::ZERO),
    };
    if before.is_some_and(|before| before != first.record().prev) {
        let (stored, given) = (before.unwrap_or_default(), first.record().prev);
        let seq = first.record().seq.saturating_sub(1);
        return Ok(Err(DedupError::Equivocation { seq, stored, given }));
    }
    let seq = last.record().seq;
    let behind = tx.record_prev(node, boot, seq.saturating_add(1)).await?;
    Ok(match behind {
        Some(stored) if stored != last.hash() => Err(DedupError::Equivocation {
            seq,
            stored,
            given: last.hash(),
        }),
        Some(_) | None => Ok(()),
    })
}

/// Takes `from..=to` out of what is missing.
async fn arrived(
    tx: &mut Tx,
    batch: &VerifiedBatch,
    gaps: &[Gap],
    (from, to): (u64, u64),
    now: Timestamp,
) -> Result<(), StoreError> {
    for gap in gaps.iter().filter(|gap| gap.overlaps(from, to)) {
        let left = without(*gap, from, to);
        tx.replace_gap(batch.node(), batch.boot(), *gap, &left, now)
            .await?;
    }
    Ok(())
}

fn count(outcome: &'static str, records: usize) {
    metrics::counter!("edgeward_audit_records_total", "outcome" => outcome)
        .increment(u64::try_from(records).unwrap_or(u64::MAX));
}
