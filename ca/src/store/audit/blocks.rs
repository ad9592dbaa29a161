//! Blocks: 256 leaves that a checkpoint covers, compressed and sealed, each site's apart.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

use edgeward_audit::block::{BLOCK_LEAVES, BlockTerms, Bodies, Columns, PartWriter, Places, Term};
use edgeward_audit::digest::Digest;
use edgeward_audit::record::SealedRecord;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use tokio::task::{JoinHandle, spawn_blocking};

use super::leaves::{Body, Leaf, entries_of, to_bytes};
use super::rows::{insert_all, places};
use super::sealing::{Sealed, is_erased};
use super::tail::{TailRow, missing_before};
use crate::keys::sites::{SiteKeyFault, SiteKeyId, SiteKeys};
use crate::store::{Store, StoreError, Tx, number_from_column, number_to_column, to_column};

const PARTS: (&str, usize) = (
    "INSERT INTO event_parts (block, site_key, places, columns, bodies)",
    5,
);
const TERMS: (&str, usize) = ("INSERT INTO event_terms (term, block, places)", 3);
/// In the place of a key, of what could not be opened when its block was made: no key has this id.
const UNOPENED: i64 = i64::MAX;
/// Blocks whose parts are read by one statement.
pub(super) const BLOCKS_AT_ONCE: usize = 8;

/// A block that is ready to be stored.
#[derive(Clone, Debug)]
pub struct SealedBlock {
    block: u64,
    entries: Vec<Digest>,
    earliest: i64,
    latest: i64,
    parts: Vec<Part>,
    terms: BTreeMap<Term, Places>,
    damaged: Damaged,
}

/// Leaves whose records could not be opened, and why the first of them could not.
#[derive(Clone, Debug, Default)]
struct Damaged {
    leaves: Vec<u64>,
    reason: String,
}

/// The events of a block that one key sealed.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) key: SiteKeyId,
    pub(super) places: Places,
    /// Sealed; empty if gone.
    columns: Vec<u8>,
    /// Sealed; empty if gone, or not read.
    bodies: Vec<u8>,
}

impl Part {
    /// Of records that are not there any more.
    fn gone((key, places): (SiteKeyId, Places)) -> Self {
        Self {
            key,
            places,
            columns: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// The columns; none if they are gone, or their key was erased.
    pub(super) fn columns(
        &self,
        block: u64,
        keys: &SiteKeys,
    ) -> Result<Option<Columns>, StoreError> {
        let sealed = Sealed::Columns(block);
        if self.columns.is_empty() {
            return Ok(None);
        }
        let Some(plain) = sealed.open(keys, self.key, &self.columns)? else {
            return Ok(None);
        };
        let columns = Columns::parse(&plain).map_err(|error| sealed.damaged(error))?;
        // The rows are found by their numbers: which must be those of the bodies.
        match columns.rows().map(|row| row.place).eq(self.places.iter()) {
            true => Ok(Some(columns)),
            false => Err(sealed.damaged("places are not those of the part")),
        }
    }

    /// Whether it holds the places of what could not be opened when the block was made.
    pub(super) fn is_unopened(&self) -> bool {
        self.key.to_column() == UNOPENED
    }

    /// The records; none if they are gone, or their key was erased.
    pub(super) fn bodies(&self, block: u64, keys: &SiteKeys) -> Result<Option<Bodies>, StoreError> {
        let sealed = Sealed::Bodies(block);
        if self.bodies.is_empty() {
            return Ok(None);
        }
        let Some(plain) = sealed.open(keys, self.key, &self.bodies)? else {
            return Ok(None);
        };
        let bodies = Bodies::parse(&plain).map_err(|error| sealed.damaged(error))?;
        match bodies.len() == self.places.count() {
            true => Ok(Some(bodies)),
            false => Err(sealed.damaged("not as many as the part has places")),
        }
    }
}

impl SealedBlock {
    /// Makes block `block` of these rows of the tail: all of it, in order.
    pub(super) fn of(block: u64, rows: &[TailRow], keys: &SiteKeys) -> Result<Self, StoreError> {
        let whole =
            (block * BLOCK_LEAVES..(block + 1) * BLOCK_LEAVES).eq(rows.iter().map(|row| row.leaf));
        if !whole {
            return Err(missing_before((block + 1) * BLOCK_LEAVES));
        }
        let mut terms = BlockTerms::new();
        let (mut earliest, mut latest) = (i64::MAX, -1);
        let mut writers: BTreeMap<SiteKeyId, (Places, PartWriter)> = BTreeMap::new();
        let mut gone: BTreeMap<SiteKeyId, Places> = BTreeMap::new();
        let mut damaged = Damaged::default();
        for (place, row) in (0..=u8::MAX).zip(rows) {
            let (record, key) = damaged.or_opened(row, keys)?;
            let Some(record) = record else {
                gone.entry(key).or_default().insert(place);
                continue;
            };
            let time = to_column(record.event().time);
            (earliest, latest) = (earliest.min(time), latest.max(time));
            terms.add(place, record.record());
            let (places, writer) = writers.entry(row.key).or_default();
            places.insert(place);
            writer
                .push(place, row.received, &record)
                .map_err(|error| Sealed::Bodies(block).damaged(error))?;
        }
        let mut parts = Vec::with_capacity(writers.len() + gone.len());
        for (key, (places, writer)) in writers {
            let encoded = writer
                .finish()
                .map_err(|error| Sealed::Bodies(block).damaged(error))?;
            let seal = |sealed: Sealed, plain| keys.seal(key, &sealed.context(), plain);
            let columns = seal(Sealed::Columns(block), &encoded.columns);
            let bodies = seal(Sealed::Bodies(block), &encoded.bodies);
            match (columns, bodies) {
                (Ok(columns), Ok(bodies)) => parts.push(Part {
                    key,
                    places,
                    columns,
                    bodies,
                }),
                // Erased since its rows were opened.
                (Err(SiteKeyFault::Erased), _) | (_, Err(SiteKeyFault::Erased)) => {
                    let all = gone.entry(key).or_default();
                    *all = all.or(places);
                }
                (Err(fault), _) | (_, Err(fault)) => return Err(fault.into()),
            }
        }
        parts.extend(gone.into_iter().map(Part::gone));
        Ok(Self {
            block,
            entries: rows.iter().map(|row| row.hash).collect(),
            // Whoever asks without an end asks for what is before the last moment there is.
            earliest: earliest.min(i64::MAX - 1),
            latest,
            parts,
            terms: terms.finish(keys.term_key()),
            damaged,
        })
    }

    /// Leaves whose records could not be opened, and why; none of most blocks.
    pub fn damaged(&self) -> Option<(&[u64], &str)> {
        let Damaged { leaves, reason } = &self.damaged;
        (!leaves.is_empty()).then_some((leaves, reason))
    }
}

impl Damaged {
    /// The record of a row and what sealed it. The leaf of one that cannot be opened is signed: nobody is helped by a log
    /// that stops at it. Its hash stays, and it is told of.
    fn or_opened(
        &mut self,
        row: &TailRow,
        keys: &SiteKeys,
    ) -> Result<(Option<SealedRecord>, SiteKeyId), StoreError> {
        match row.open(keys) {
            Err(fault @ StoreError::Unreadable { .. }) => {
                if self.leaves.is_empty() {
                    self.reason = fault.to_string();
                }
                self.leaves.push(row.leaf);
                Ok((None, SiteKeyId::from_column(UNOPENED)))
            }
            opened => Ok((opened?, row.key)),
        }
    }
}

impl Store {
    /// Makes the blocks that a tree of `size` leaves completes, and that are not stored yet: as many at once as there are
    /// processors, since opening, reading and compressing 256 records is work for more than a moment. Nothing is written.
    pub async fn blocks_up_to(&self, size: u64) -> Result<Vec<SealedBlock>, StoreError> {
        let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (mut making, mut blocks) = (VecDeque::with_capacity(at_once), Vec::new());
        for block in self.block_count().await?..size / BLOCK_LEAVES {
            let rows = self.tail_from(block * BLOCK_LEAVES, BLOCK_LEAVES).await?;
            let keys = self.site_keys().clone();
            making.push_back(spawn_blocking(move || SealedBlock::of(block, &rows, &keys)));
            if making.len() >= at_once
                && let Some(first) = making.pop_front()
            {
                blocks.push(made(first).await?);
            }
        }
        for last in making {
            blocks.push(made(last).await?);
        }
        Ok(blocks)
    }

    /// Number of blocks that were made so far, the pruned ones among them: they may be all there are.
    pub async fn block_count(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COALESCE((SELECT MAX(block) FROM event_blocks), -1) AS block, \
             COALESCE((SELECT minimum FROM log_pruned WHERE one = 1), 0) AS minimum",
        )
        .fetch_one(&mut *self.read().await?)
        .await?;
        let (last, minimum): (i64, i64) = (row.try_get("block")?, row.try_get("minimum")?);
        let stored = u64::try_from(last.saturating_add(1)).unwrap_or(0);
        Ok(stored.max(number_from_column(minimum) / BLOCK_LEAVES))
    }

    /// The parts of these blocks, at most [`BLOCKS_AT_ONCE`], with what filters ask but without their records.
    pub(super) async fn columns_of(
        &self,
        blocks: &[u64],
    ) -> Result<BTreeMap<u64, Vec<Part>>, StoreError> {
        let Some(last) = blocks.last() else {
            return Ok(BTreeMap::new());
        };
        // Always as many values, so that there are two statements to prepare.
        let width = if blocks.len() == 1 { 1 } else { BLOCKS_AT_ONCE };
        let text = format!(
            "SELECT block, site_key, places, columns FROM event_parts WHERE block IN ({}) ORDER BY block, site_key",
            places(1, width)
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for block in blocks.iter().chain(std::iter::repeat(last)).take(width) {
            query = query.bind(number_to_column(*block));
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let mut parts: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
        for row in &rows {
            let block = number_from_column(row.try_get("block")?);
            let columns = row.try_get("columns")?;
            let part = part_of(row, block, columns, Vec::new())?;
            parts.entry(block).or_default().push(part);
        }
        Ok(parts)
    }

    /// The parts of a block with their records, without what filters ask.
    pub(super) async fn bodies_of(&self, block: u64) -> Result<Vec<Part>, StoreError> {
        bodies_of(&mut *self.read().await?, block).await
    }

    /// Every leaf of a block with what is left of its record; none if there is no such block.
    pub(super) async fn block_leaves(&self, block: u64) -> Result<Option<Vec<Leaf>>, StoreError> {
        let entries = entries_of(&mut *self.read().await?, block).await?;
        let Some(entries) = entries else {
            return Ok(None);
        };
        let mut bodies: BTreeMap<u8, Body> = BTreeMap::new();
        for part in self.bodies_of(block).await? {
            let kept = part.bodies(block, self.site_keys())?;
            let without = match part.bodies.is_empty() && !is_erased(self.site_keys(), part.key) {
                true => Body::LetGo,
                false => Body::Erased,
            };
            for (number, place) in part.places.iter().enumerate() {
                let record = kept.as_ref().and_then(|kept| kept.record(number));
                let body = record.map_or(without.clone(), |record| Body::Kept(record.to_vec()));
                if bodies.insert(place, body).is_some() {
                    return Err(Sealed::Bodies(block).damaged("two parts hold one event"));
                }
            }
        }
        let leaves = (0..=u8::MAX).zip(entries).map(|(place, hash)| {
            let body = bodies
                .remove(&place)
                .ok_or_else(|| missing_before(block * BLOCK_LEAVES + u64::from(place) + 1))?;
            Ok(Leaf { hash, body })
        });
        leaves.collect::<Result<_, StoreError>>().map(Some)
    }
}

impl Tx {
    /// Stores blocks, the next ones, and takes their leaves out of the tail.
    pub async fn put_blocks(&mut self, blocks: &[SealedBlock]) -> Result<(), StoreError> {
        for sealed in blocks {
            sqlx::query(
                "INSERT INTO event_blocks (block, earliest, latest, entries) VALUES ($1, $2, $3, $4)",
            )
            .bind(number_to_column(sealed.block))
            .bind(sealed.earliest)
            .bind(sealed.latest)
            .bind(to_bytes(&sealed.entries))
            .execute(self.connection())
            .await?;
            let block = number_to_column(sealed.block);
            insert_all(self.connection(), PARTS, &sealed.parts, &|query, part| {
                query
                    .bind(block)
                    .bind(part.key.to_column())
                    .bind(part.places.to_bytes())
                    .bind(part.columns.clone())
                    .bind(part.bodies.clone())
            })
            .await?;
        }
        // In the order of the index, so that each of its pages is touched once.
        let mut terms: Vec<(Term, u64, Places)> = blocks
            .iter()
            .flat_map(|sealed| {
                let all = sealed.terms.iter();
                all.map(|(term, places)| (*term, sealed.block, *places))
            })
            .collect();
        terms.sort_unstable_by_key(|(term, block, _)| (*term, *block));
        insert_all(self.connection(), TERMS, &terms, &|query,
                                                       (
            term,
            block,
            places,
        )| {
            query
                .bind(term.to_column())
                .bind(number_to_column(*block))
                .bind(places.to_bytes())
        })
        .await?;
        if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
            // Without its beginning PostgreSQL would walk over all that was deleted since the last vacuum.
            sqlx::query(
                "DELETE FROM event_tail \
                 WHERE leaf >= (SELECT CAST($1 AS BIGINT)) AND leaf < (SELECT CAST($2 AS BIGINT))",
            )
            .bind(number_to_column(first.block * BLOCK_LEAVES))
            .bind(number_to_column((last.block + 1) * BLOCK_LEAVES))
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }
}

async fn made(
    making: JoinHandle<Result<SealedBlock, StoreError>>,
) -> Result<SealedBlock, StoreError> {
    making.await.map_err(|error| {
        StoreError::Unavailable(format!("the making of a block was ended: {error}"))
    })?
}

/// The parts of a block with their records, without what filters ask.
pub(super) async fn bodies_of(
    connection: &mut AnyConnection,
    block: u64,
) -> Result<Vec<Part>, StoreError> {
    let rows = sqlx::query(
        "SELECT site_key, places, bodies FROM event_parts WHERE block = $1 ORDER BY site_key",
    )
    .bind(number_to_column(block))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| part_of(row, block, Vec::new(), row.try_get("bodies")?))
        .collect()
}

fn part_of(
    row: &AnyRow,
    block: u64,
    columns: Vec<u8>,
    bodies: Vec<u8>,
) -> Result<Part, StoreError> {
    let places = Places::parse(row.try_get("places")?);
    Ok(Part {
        key: SiteKeyId::from_column(row.try_get("site_key")?),
        places: places.map_err(|error| Sealed::Columns(block).damaged(error))?,
        columns,
        bodies,
    })
}
