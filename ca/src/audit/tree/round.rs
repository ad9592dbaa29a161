//! One round: what was appended becomes tiles, a signed checkpoint, and as soon as there are enough of it blocks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use edgeward_audit::Digest;
use edgeward_audit::checkpoint::{Checkpoint, CheckpointError};
use edgeward_audit::merkle::{
    EMPTY_ROOT, ProofError, consistency_proof, leaf_hash, verify_consistency,
};
use edgeward_audit::tiles::{
    Growth, GrowthError, Row, TileAt, TileNodes, edge_of, tiles_of_consistency,
};
use edgeward_identity::Timestamp;

use super::anchor::Anchor;
use super::head::{Halt, Published};
use crate::keys::CloudKeys;
use crate::keys::files::FileFault;
use crate::keys::notes::log_origin;
use crate::store::audit::{Leaves, SealedBlock};
use crate::store::log::StoredCheckpoint;
use crate::store::{Store, StoreError};

/// Most leaves of one round; what is left comes with the next, at once.
pub(super) const MAX_LEAVES: u32 = 16_384;

/// The log as this process knows it.
pub(super) struct Rounds {
    store: Store,
    keys: Arc<CloudKeys>,
    data: PathBuf,
    origin: String,
    anchor: Option<Anchor>,
    /// The stored checkpoint that was looked at last, and found to continue the anchor.
    known: Option<StoredCheckpoint>,
    /// The edge of its tree.
    growth: Option<Growth>,
}

/// What a round did.
#[derive(Debug)]
pub(super) struct Done {
    /// What may be shown from now on, if it changed.
    pub(super) published: Option<Published>,
    /// Leaves that a new checkpoint covers.
    pub(super) leaves: usize,
    /// When the oldest of them was received.
    pub(super) oldest: Option<Timestamp>,
    /// Whether more wait.
    pub(super) more: bool,
    /// By block, the events that went into it without their records, and why.
    pub(super) damaged: Vec<(Vec<u64>, String)>,
}

/// Why a round did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundFault {
    /// Nothing is signed until somebody has looked.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// Tried again.
    #[error(transparent)]
    Store(StoreError),
    /// Tried again.
    #[error(transparent)]
    File(#[from] FileFault),
}

impl Done {
    /// Another cloud was quicker. Its checkpoint is taken up by the next round.
    fn overtaken(published: Option<Published>) -> Self {
        Self {
            published,
            leaves: 0,
            oldest: None,
            more: true,
            damaged: Vec::new(),
        }
    }
}

impl Rounds {
    pub(super) fn new(store: Store, keys: Arc<CloudKeys>, data: PathBuf) -> Self {
        Self {
            origin: log_origin(keys.trust_domain()),
            store,
            keys,
            data,
            anchor: None,
            known: None,
            growth: None,
        }
    }

    /// Runs one round.
    pub(super) async fn round(&mut self, now: Timestamp) -> Result<Done, RoundFault> {
        let stored = self.store.newest_checkpoint().await?;
        self.round_on(stored.as_ref(), now).await
    }

    /// A round that takes `stored` for the newest checkpoint.
    pub(super) async fn round_on(
        &mut self,
        stored: Option<&StoredCheckpoint>,
        now: Timestamp,
    ) -> Result<Done, RoundFault> {
        let done = self.try_round(stored, now).await;
        if done.is_err() {
            // What is remembered may be ahead of what is stored.
            (self.known, self.growth) = (None, None);
        }
        // What another cloud did between two reads looks like damage: its events went into blocks, its tiles grew. Only
        // what is wrong under a checkpoint that stood still is damage. Where the other one goes on over true damage, it
        // stops at it as well, and then the checkpoint stands still.
        if let Err(RoundFault::Halt(Halt::Damaged(why))) = &done
            && self.store.newest_checkpoint().await?.as_ref() != stored
        {
            tracing::debug!(why, "another cloud was quicker");
            return Ok(Done::overtaken(None));
        }
        done
    }

    async fn try_round(
        &mut self,
        stored: Option<&StoredCheckpoint>,
        now: Timestamp,
    ) -> Result<Done, RoundFault> {
        let mut published = self.take_up(stored).await?;
        let size = stored.map_or(0, |stored| stored.size);
        let Leaves { entries, oldest } = self.store.leaf_entries(size, MAX_LEAVES).await?;
        if entries.is_empty() {
            return Ok(Done {
                published,
                leaves: 0,
                oldest: None,
                more: false,
                damaged: Vec::new(),
            });
        }
        let (next, mut growth) = self.grown(stored, &entries, now).await?;
        // Other writers do not wait for what takes long.
        let blocks = self.store.blocks_up_to(next.size).await?;
        let mut tx = self.store.begin("audit.integrate").await?;
        if tx.newest_checkpoint().await?.as_ref() != stored {
            return Ok(Done::overtaken(published));
        }
        for (at, hashes) in growth.changed() {
            tx.put_tile(at, hashes).await?;
        }
        tx.put_checkpoint(&next).await?;
        // What is in a block is covered; what was covered and is in none are less than a block.
        tx.put_blocks(&blocks).await?;
        tx.commit().await?;
        growth.settle();
        self.growth = Some(growth);
        published = self.anchored(&next).await?.or(published);
        Ok(Done {
            published,
            leaves: entries.len(),
            oldest,
            more: u32::try_from(entries.len()).is_ok_and(|count| count >= MAX_LEAVES),
            damaged: blocks
                .iter()
                .filter_map(SealedBlock::damaged)
                .map(|(events, reason)| (events.to_vec(), reason.to_owned()))
                .collect(),
        })
    }

    /// Holds a stored checkpoint that this process has not seen yet to what was signed before.
    async fn take_up(
        &mut self,
        stored: Option<&StoredCheckpoint>,
    ) -> Result<Option<Published>, RoundFault> {
        if self.anchor.is_none() {
            let verifier = self.keys.checkpoint_verifier();
            self.anchor = Some(Anchor::open(&self.data, &self.origin, verifier)?);
        } else if stored.is_some() && self.known.as_ref() == stored {
            return Ok(None);
        }
        self.growth = None;
        let signed = self.anchor.as_ref().and_then(Anchor::checkpoint).cloned();
        let Some(stored) = stored else {
            return match signed {
                Some(signed) => Err(RoundFault::Halt(Halt::WentBack {
                    signed: signed.size,
                    found: 0,
                })),
                None => Ok(None),
            };
        };
        self.check_note(stored)?;
        if let Some(signed) = signed {
            self.check_continues(&signed, stored).await?;
        }
        let leaves = self.store.last_leaf().await?.map_or(0, |leaf| leaf + 1);
        if leaves < stored.size {
            let why = format!("{leaves} events are left of {}", stored.size);
            return Err(RoundFault::Halt(Halt::Damaged(why)));
        }
        self.anchored(stored).await
    }

    /// Remembers a checkpoint outside of the database; then it may be shown.
    async fn anchored(
        &mut self,
        stored: &StoredCheckpoint,
    ) -> Result<Option<Published>, RoundFault> {
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: stored.size,
            root: stored.root,
        };
        if let Some(anchor) = &mut self.anchor
            && anchor.checkpoint() != Some(&checkpoint)
        {
            anchor.move_to(checkpoint, &stored.note).await?;
        }
        self.known = Some(stored.clone());
        Ok(Some(Published {
            size: stored.size,
            root: stored.root,
            note: stored.note.clone(),
            signed: stored.signed,
        }))
    }

    fn check_note(&self, stored: &StoredCheckpoint) -> Result<(), Halt> {
        let verifier = self.keys.checkpoint_verifier();
        match Checkpoint::open(stored.note.as_bytes(), &self.origin, verifier) {
            Ok(opened) if opened.size == stored.size && opened.root == stored.root => Ok(()),
            Ok(opened) => Err(Halt::Damaged(format!(
                "the note of the checkpoint of {} events is that of {}",
                stored.size, opened.size
            ))),
            Err(CheckpointError::Unverified(_)) => Err(Halt::Key(stored.size)),
            Err(error) => Err(Halt::Damaged(error.to_string())),
        }
    }

    async fn check_continues(
        &self,
        signed: &Checkpoint,
        stored: &StoredCheckpoint,
    ) -> Result<(), RoundFault> {
        if stored.size < signed.size {
            return Err(RoundFault::Halt(Halt::WentBack {
                signed: signed.size,
                found: stored.size,
            }));
        }
        let wanted = tiles_of_consistency(signed.size, stored.size).unwrap_or_default();
        let tiles = self.store.log_tiles(&wanted).await?;
        let proof = consistency_proof(&tiles, signed.size, stored.size).map_err(damaged)?;
        is_continued(
            (signed.size, &signed.root),
            (stored.size, &stored.root),
            &proof,
        )?;
        Ok(())
    }

    /// The tree with these entries after those of `stored`, and its signed checkpoint.
    async fn grown(
        &mut self,
        stored: Option<&StoredCheckpoint>,
        entries: &[Digest],
        now: Timestamp,
    ) -> Result<(StoredCheckpoint, Growth), RoundFault> {
        let (size, root) = stored.map_or((0, EMPTY_ROOT), |stored| (stored.size, stored.root));
        let mut growth = match self.growth.take() {
            Some(growth) => growth,
            None => self.edge(size).await?,
        };
        if growth.size() != size || growth.root().map_err(damaged)? != root {
            let why = format!("the tiles are not those of the checkpoint of {size} events");
            return Err(RoundFault::Halt(Halt::Damaged(why)));
        }
        for entry in entries {
            growth
                .append(leaf_hash(entry.as_bytes()))
                .map_err(damaged_tiles)?;
        }
        let next = Checkpoint {
            origin: self.origin.clone(),
            size: growth.size(),
            root: growth.root().map_err(damaged)?,
        };
        // The proof is made from the tiles as they will be stored, and checked by the code that everybody else uses.
        if size > 0 {
            let proof = growth.consistency(size).map_err(damaged)?;
            is_continued((size, &root), (next.size, &next.root), &proof)?;
        }
        let note = next
            .sign(self.keys.checkpoint_signer())
            .map_err(|error| Halt::Damaged(error.to_string()))?;
        let next = StoredCheckpoint {
            size: next.size,
            root: next.root,
            note: note.to_string(),
            signed: now,
        };
        Ok((next, growth))
    }

    async fn edge(&self, size: u64) -> Result<Growth, RoundFault> {
        let wanted: BTreeSet<TileAt> = edge_of(size)
            .iter()
            .filter_map(|tile| match tile.row() {
                Row::Level(level) => Some((level, tile.index())),
                Row::Entries => None,
            })
            .collect();
        let tiles: TileNodes = self.store.log_tiles(&wanted).await?;
        Ok(Growth::new(size, tiles).map_err(damaged_tiles)?)
    }
}

fn is_continued(
    (from, old): (u64, &Digest),
    (to, new): (u64, &Digest),
    proof: &[Digest],
) -> Result<(), Halt> {
    verify_consistency(from, to, proof, old, new).map_err(|_| Halt::Forked {
        signed: from,
        size: to,
    })
}

fn damaged(error: ProofError) -> Halt {
    Halt::Damaged(error.to_string())
}

fn damaged_tiles(error: GrowthError) -> Halt {
    Halt::Damaged(error.to_string())
}

impl From<StoreError> for RoundFault {
    fn from(error: StoreError) -> Self {
        match error {
            // Trying again does not make it readable.
            StoreError::Unreadable { .. } => Self::Halt(Halt::Damaged(error.to_string())),
            StoreError::NoSiteKey { .. } => Self::Halt(Halt::SiteKey(error.to_string())),
            other => Self::Store(other),
        }
    }
}
