//! The log against itself: records against leaves, leaves against tiles, tiles against each other and against every
//! checkpoint that is kept. What signs and what checks share no state and as little code as can be.
//!
//! At every start the newest part is checked, once a day and when an operator asks the whole. What it finds is an event and
//! stays on show; the log goes on, since the tree that was signed is not changed by what was done to the database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::merkle::{Frontier, leaf_hash, root};
use edgeward_audit::record::SealedRecord;
use edgeward_audit::tiles::{TILE_HEIGHT, TILE_WIDTH, TileNodes, subtree_root, tiles_of_root};
use edgeward_audit::{Digest, note::NoteVerifier};
use edgeward_identity::{Clock, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditLog;
use crate::keys::CloudKeys;
use crate::keys::notes::log_origin;
use crate::store::audit::Body;
use crate::store::log::StoredCheckpoint;
use crate::store::{Store, StoreError};

/// Leaves that are checked at a start: the newest.
const AT_START: u64 = 65_536;
/// How often the whole is checked.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Tiles that are read at once.
const TILES_AT_ONCE: u64 = 16;
/// Kept checkpoints that are read at once.
const CHECKPOINTS_AT_ONCE: u32 = 256;
const WIDTH: u64 = TILE_WIDTH as u64;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which request of an operator it answers: the highest before it began; 0 at a start.
    pub request: u64,
    pub begun: Timestamp,
    pub took: Duration,
    /// First leaf that was looked at.
    pub from: u64,
    /// Size of the tree.
    pub size: u64,
    /// Checkpoints whose root was derived anew.
    pub checkpoints: u64,
    /// What is wrong.
    pub fault: Option<String>,
}

/// A check did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckFault {
    /// Tried again at the next turn.
    #[error(transparent)]
    Store(StoreError),
    #[error("{0}")]
    Damaged(String),
}

/// The task.
pub struct SelfCheck {
    audit: Arc<AuditLog>,
    store: Store,
    keys: Arc<CloudKeys>,
    clock: Arc<dyn Clock>,
}

impl SelfCheck {
    pub fn new(
        audit: Arc<AuditLog>,
        store: Store,
        keys: Arc<CloudKeys>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            audit,
            store,
            keys,
            clock,
        }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut requests = self.audit.log_head().requests();
        let mut newest_only = true;
        loop {
            let request = *requests.borrow_and_update();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.turn(request, newest_only) => {}
            }
            newest_only = false;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = requests.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn turn(&self, request: u64, newest_only: bool) {
        let (begun, timer) = (self.clock.now(), Instant::now());
        let result = self.check(newest_only).await;
        let took = timer.elapsed();
        let (from, size, checkpoints, fault) = match result {
            Ok((from, size, checkpoints)) => (from, size, checkpoints, None),
            Err(fault) => (0, 0, 0, Some(fault)),
        };
        match &fault {
            Some(CheckFault::Damaged(what)) => self.alarm(what).await,
            Some(CheckFault::Store(error)) => tracing::warn!(%error, "self-check of the audit log"),
            None => tracing::info!(from, size, ?took, "self-check of the audit log passed"),
        }
        let damaged = matches!(fault, Some(CheckFault::Damaged(_)));
        metrics::gauge!("edgeward_audit_log_damaged").set(f64::from(u8::from(damaged)));
        metrics::gauge!("edgeward_audit_log_self_check_seconds").set(took.as_secs_f64());
        self.audit.log_head().checked(Checked {
            request,
            begun,
            took,
            from,
            size,
            checkpoints,
            fault: fault.map(|fault| fault.to_string()),
        });
    }

    async fn alarm(&self, what: &str) {
        let known = self.audit.log_head().last_check();
        if known.is_some_and(|known| known.fault.as_deref() == Some(what)) {
            return;
        }
        tracing::error!(
            what,
            "CRITICAL: the stored audit log is not what was signed"
        );
        let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::AuditDamaged)
            .code("log_damaged")
            .detail("reason", what);
        if let Err(error) = self.audit.record(event).await {
            tracing::error!(%error, "event could not be recorded");
        }
    }

    async fn check(&self, newest_only: bool) -> Result<(u64, u64, u64), CheckFault> {
        let Some(newest) = self.store.newest_checkpoint().await? else {
            return Ok((0, 0, 0));
        };
        let from = match newest_only {
            true => newest.size.saturating_sub(AT_START) / WIDTH * WIDTH,
            false => 0,
        };
        loop {
            let minimum = self.store.minimum_index().await?;
            match check(&self.store, &self.keys, &newest, from, !newest_only).await {
                // What was pruned while it was looked at is not missing.
                Err(CheckFault::Damaged(what)) if self.store.minimum_index().await? != minimum => {
                    tracing::info!(what, "self-check begins anew: the log was pruned meanwhile");
                }
                done => return Ok((from, newest.size, done?)),
            }
        }
    }
}

/// Checks the tree of `newest` from leaf `from` on, a multiple of a tile's width. Returns how many checkpoints were
/// derived anew.
pub(super) async fn check(
    store: &Store,
    keys: &CloudKeys,
    newest: &StoredCheckpoint,
    from: u64,
    gently: bool,
) -> Result<u64, CheckFault> {
    let size = newest.size;
    let mut kept = Kept::new(store, keys);
    kept.check_note(newest)?;
    let mut whole = (from == 0).then(Frontier::new);
    let mut tile = from / WIDTH;
    while tile * WIDTH < size {
        let begun = Instant::now();
        let end = size.div_ceil(WIDTH).min(tile + TILES_AT_ONCE);
        let leaves = check_leaves(store, tile, end, size).await?;
        if let Some(frontier) = &mut whole {
            for leaf in leaves {
                frontier
                    .append(leaf)
                    .map_err(|error| CheckFault::Damaged(error.to_string()))?;
                kept.reached(frontier).await?;
            }
        }
        tile = end;
        tokio::task::yield_now().await;
        if gently {
            // Half of a processor at most.
            tokio::time::sleep(begun.elapsed()).await;
        }
    }
    check_levels(store, from, size).await?;
    let tiles = store.log_tiles(&tiles_of_root(size)).await?;
    match root(&tiles, size) {
        Ok(found) if found == newest.root => Ok(kept.derived.max(1)),
        Ok(_) => damaged(format!(
            "the tiles lead to another root than that of {size} events"
        )),
        Err(error) => damaged(format!("the root of {size} events: {error}")),
    }
}

/// Records against hashes against the tiles of level 0. Returns the leaves.
async fn check_leaves(
    store: &Store,
    first: u64,
    end: u64,
    size: u64,
) -> Result<Vec<Digest>, CheckFault> {
    let tiles = store
        .log_tiles(&(first..end).map(|tile| (0, tile)).collect())
        .await?;
    let minimum = store.minimum_index().await?;
    let mut leaves = Vec::new();
    for tile in first..end {
        let start = tile * WIDTH;
        if start < minimum {
            // Pruned: what is left are the leaves themselves, from which every checkpoint's root is derived.
            let stored = tiles.get((0, tile)).unwrap_or_default();
            if stored.len() as u64 != WIDTH {
                return damaged(format!("the tile of the leaves from {start} on is missing"));
            }
            leaves.extend_from_slice(stored);
            continue;
        }
        let width = u32::try_from((size - start).min(WIDTH)).unwrap_or(0);
        let records = store.leaf_records(start, width).await?;
        if records.len() != width as usize {
            return damaged(format!("events are missing from index {start} on"));
        }
        store.check_block(start).await?;
        let stored = tiles.get((0, tile)).unwrap_or_default();
        for (index, found) in (start..).zip(&records) {
            match &found.body {
                Body::Kept(record) => {
                    let sealed = SealedRecord::parse(record);
                    if !sealed.is_ok_and(|sealed| sealed.hash() == found.hash) {
                        return damaged(format!("the record of event {index} was changed"));
                    }
                }
                // What is left of it is the hash, which is checked like every other.
                Body::Erased => {}
                Body::LetGo => {
                    return damaged(format!("the record of event {index} was taken out"));
                }
            }
            let leaf = leaf_hash(found.hash.as_bytes());
            let place = usize::try_from(index - start).unwrap_or(usize::MAX);
            if stored.get(place) != Some(&leaf) {
                return damaged(format!("event {index} is not the leaf that was signed"));
            }
            leaves.push(leaf);
        }
    }
    Ok(leaves)
}

/// Each hash of a tile above level 0 against the full tile below it.
async fn check_levels(store: &Store, from: u64, size: u64) -> Result<(), CheckFault> {
    for level in 1..=u8::MAX {
        let shift = u32::from(level) * u32::from(TILE_HEIGHT);
        let nodes = size.checked_shr(shift).unwrap_or(0);
        if nodes == 0 {
            break;
        }
        let mut node = from.checked_shr(shift).unwrap_or(0);
        while node < nodes {
            let end = nodes.min(node + TILES_AT_ONCE);
            let mut wanted: BTreeSet<_> = (node..end).map(|below| (level - 1, below)).collect();
            wanted.extend((node..end).map(|node| (level, node / WIDTH)));
            let tiles: TileNodes = store.log_tiles(&wanted).await?;
            for node in node..end {
                let below = tiles
                    .get((level - 1, node))
                    .filter(|hashes| hashes.len() == usize::from(TILE_WIDTH))
                    .and_then(subtree_root);
                let place = usize::try_from(node % WIDTH).unwrap_or(usize::MAX);
                let above = tiles
                    .get((level, node / WIDTH))
                    .and_then(|hashes| hashes.get(place));
                if below.is_none() || below.as_ref() != above {
                    return damaged(format!(
                        "tile {node} of level {} does not lead upwards",
                        level - 1
                    ));
                }
            }
            node = end;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The kept checkpoints, in their order.
struct Kept<'a> {
    store: &'a Store,
    verifier: &'a NoteVerifier,
    origin: String,
    ahead: std::collections::VecDeque<StoredCheckpoint>,
    read_to: Option<u64>,
    derived: u64,
}

impl<'a> Kept<'a> {
    fn new(store: &'a Store, keys: &'a CloudKeys) -> Self {
        Self {
            store,
            verifier: keys.checkpoint_verifier(),
            origin: log_origin(keys.trust_domain()),
            ahead: std::collections::VecDeque::new(),
            read_to: Some(0),
            derived: 0,
        }
    }

    /// The tree has grown by one leaf.
    async fn reached(&mut self, frontier: &Frontier) -> Result<(), CheckFault> {
        if self.ahead.is_empty()
            && let Some(after) = self.read_to
        {
            let more = self.store.checkpoints(after, CHECKPOINTS_AT_ONCE).await?;
            self.read_to = more.last().map(|last| last.size);
            self.ahead = more.into();
        }
        match self.ahead.front() {
            Some(next) if next.size == frontier.size() => {}
            Some(_) | None => return Ok(()),
        }
        if let Some(next) = self.ahead.pop_front() {
            self.check_note(&next)?;
            if next.root != frontier.root() {
                return damaged(format!(
                    "the checkpoint of {} events is of another tree",
                    next.size
                ));
            }
            self.derived += 1;
        }
        Ok(())
    }

    fn check_note(&self, stored: &StoredCheckpoint) -> Result<(), CheckFault> {
        match Checkpoint::open(stored.note.as_bytes(), &self.origin, self.verifier) {
            Ok(opened) if opened.size == stored.size && opened.root == stored.root => Ok(()),
            Ok(_) => damaged(format!(
                "the note of the checkpoint of {} events is another's",
                stored.size
            )),
            Err(error) => damaged(format!("the checkpoint of {} events: {error}", stored.size)),
        }
    }
}

fn damaged<T>(what: String) -> Result<T, CheckFault> {
    Err(CheckFault::Damaged(what))
}

impl From<StoreError> for CheckFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreadable { .. } | StoreError::NoSiteKey { .. } => {
                Self::Damaged(error.to_string())
            }
            other => Self::Store(other),
        }
    }
}
