//! Finding events so that a page costs no more than its limits say, whichever filters are asked for together.
//!
//! First block by block, where the index of terms says that something may match ([`super::postings`]): the columns
//! decide, and records are opened only for what is returned. Then the tail, row by row. A page ends at its limits, or
//! when it has looked at [`MAX_EXAMINED`] places: then it may be short, even empty, and says how far it came.

use std::collections::BTreeSet;

use edgeward_audit::block::{BLOCK_LEAVES, Places, Term};
use edgeward_audit::event::EventKind;
use edgeward_audit::query::{Filter, MAX_LIMIT};
use edgeward_audit::record::SealedRecord;
use edgeward_identity::Timestamp;

use super::asked::Asked;
use super::blocks::{BLOCKS_AT_ONCE, Part};
use super::postings::Edge;
use super::sealing::Sealed;
use super::stored::StoredEvent;
use super::tail::missing_before;
use crate::store::{Store, StoreError};

/// A page ends before the event that takes its records over this many bytes.
pub const MAX_PAGE_BYTES: usize = edgeward_audit::query::MAX_PAGE_BYTES as usize;
/// Places that one page looks at before it ends short.
pub const MAX_EXAMINED: usize = 20_000;

/// What a row of an index costs, in places.
const COST_OF_LOOK: usize = 8;
/// What a block costs whose columns are opened, in places.
const COST_OF_BLOCK: usize = 64;
/// Blocks that are looked for in the first round, and most of a later one.
const ROUND: (usize, usize) = (8, 512);
/// By how much a round is larger than the one before: what matches often costs little, what matches seldom few rounds.
const GROWTH: usize = 4;
/// Rows of the tail that are read by one statement.
const TAIL_ROWS: u64 = 128;

/// Some events of the log, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// Everything up to here was looked at; none if nothing was, ever.
    pub reached: Option<u64>,
    /// Whether there is more behind it, or may be.
    pub more: bool,
}

/// How much one page may hold and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    pub events: usize,
    /// Of the records. The first event comes whatever its length.
    pub bytes: usize,
    /// Places that are looked at.
    pub examined: usize,
}

/// A page that is being filled.
struct Filling<'a> {
    asked: &'a Asked<'a>,
    limits: PageLimits,
    page: Page,
    bytes: usize,
    examined: usize,
}

/// Whether a page is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Full,
    /// Nothing is left to look at here.
    Through,
    /// A block took what was to be read.
    Moved,
}

/// A row that matches: its number in its part.
struct Match {
    place: u8,
    part: usize,
    number: usize,
    received: Timestamp,
}

impl Store {
    /// Matching events after leaf `after`. Agrees with [`Filter::matches`].
    pub async fn find(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limits: PageLimits,
    ) -> Result<Page, StoreError> {
        self.find_asked(&Asked::by(filter), after, limits).await
    }

    /// Matching events after leaf `after`, oldest first, at most `limit` of them and [`MAX_PAGE_BYTES`], and whether there
    /// are more. Looks as far as it must.
    pub async fn events(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        let page = self
            .find_asked(&Asked::by(filter), after, whole(limit, MAX_PAGE_BYTES))
            .await?;
        Ok((page.events, page.more))
    }

    /// Up to `limit` events of these kinds after leaf `after` and before leaf `before`, oldest first, and whether there are
    /// more.
    pub async fn events_of(
        &self,
        kinds: &BTreeSet<EventKind>,
        after: Option<u64>,
        before: u64,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        if kinds.is_empty() {
            return Ok((Vec::new(), false));
        }
        let asked = Asked {
            filter: &Filter::default(),
            kinds: Some(kinds),
            before,
        };
        let page = self
            .find_asked(&asked, after, whole(limit, usize::MAX))
            .await?;
        Ok((page.events, page.more))
    }

    /// The event at a place in the log. One that was erased is [`StoreError::Erased`].
    pub async fn event_at(&self, index: u64) -> Result<Option<StoredEvent>, StoreError> {
        let minimum = self.minimum_index().await?;
        if index < minimum {
            return Err(StoreError::Pruned { index, minimum });
        }
        let (block, place) = (index / BLOCK_LEAVES, index % BLOCK_LEAVES);
        if block >= self.block_count().await? {
            let rows = self.tail_from(index, 1).await?;
            if let Some(row) = rows.first().filter(|row| row.leaf == index) {
                let record = row.open(self.site_keys())?;
                let record = record.ok_or(StoreError::Erased(index))?;
                return StoredEvent::of(index, row.received, record).map(Some);
            }
            if block >= self.block_count().await? {
                return Ok(None);
            }
        }
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        let places = Places::from_iter([place]);
        let parts = self.columns_of(&[block]).await?.remove(&block);
        let parts = parts.unwrap_or_default();
        let filter = Filter::default();
        let matches = self.matches(&Asked::by(&filter), block, &parts, places)?;
        let found = self.open_matches(block, &parts, &matches).await?;
        let unopened = |part: &Part| part.is_unopened() && !part.places.and(places).is_empty();
        if parts.iter().any(unopened) {
            let why = "it could not be opened when its block was made";
            return Err(Sealed::Body(index).damaged(why));
        }
        match (found.into_iter().next(), is_covered(&parts, places)) {
            (Some(event), _) => Ok(Some(event)),
            (None, true) => Err(StoreError::Erased(index)),
            (None, false) => Err(missing_before(index + 1)),
        }
    }

    async fn find_asked(
        &self,
        asked: &Asked<'_>,
        after: Option<u64>,
        limits: PageLimits,
    ) -> Result<Page, StoreError> {
        let wanted = asked.terms(self.site_keys().term_key());
        // What is below was pruned, or is being pruned just now.
        let after = after.max(self.minimum_index().await?.checked_sub(1));
        let mut filling = Filling {
            asked,
            limits,
            page: Page {
                events: Vec::new(),
                reached: after,
                more: false,
            },
            bytes: 0,
            examined: 0,
        };
        loop {
            let blocks = self.block_count().await?;
            if filling.next() / BLOCK_LEAVES < blocks
                && self.walk_blocks(&mut filling, &wanted, blocks).await? == Turn::Full
            {
                return Ok(filling.page);
            }
            match self.walk_tail(&mut filling).await? {
                Turn::Full | Turn::Through => return Ok(filling.page),
                Turn::Moved => {}
            }
        }
    }

    /// Looks through the first `blocks` blocks.
    async fn walk_blocks(
        &self,
        filling: &mut Filling<'_>,
        wanted: &[Vec<Term>],
        blocks: u64,
    ) -> Result<Turn, StoreError> {
        let asked = filling.asked;
        let last = (blocks - 1).min(asked.before.saturating_sub(1) / BLOCK_LEAVES);
        let start = filling.next() / BLOCK_LEAVES;
        let end = self.edge_by_time(asked, (start, last), Edge::Last).await?;
        let mut round = ROUND.0;
        loop {
            let next = filling.next() / BLOCK_LEAVES;
            let first = match end {
                Some(end) => self.edge_by_time(asked, (next, end), Edge::First).await?,
                None => None,
            };
            let (Some(first), Some(end)) = (first, end) else {
                filling.reached(blocks * BLOCK_LEAVES - 1);
                return Ok(Turn::Through);
            };
            if filling.examined >= filling.limits.examined {
                filling.page.more = true;
                return Ok(Turn::Full);
            }
            let found = self.candidates(asked, wanted, (first, end), round).await?;
            filling.examined += found.looked.saturating_mul(COST_OF_LOOK);
            for some in found.blocks.chunks(BLOCKS_AT_ONCE) {
                let numbers: Vec<u64> = some.iter().map(|(block, _)| *block).collect();
                let mut columns = self.columns_of(&numbers).await?;
                for (block, places) in some {
                    let parts = columns.remove(block).unwrap_or_default();
                    if self.walk_block(filling, (*block, *places), &parts).await? == Turn::Full {
                        return Ok(Turn::Full);
                    }
                }
            }
            filling.reached((found.horizon + 1) * BLOCK_LEAVES - 1);
            round = (round * GROWTH).min(ROUND.1);
        }
    }

    async fn walk_block(
        &self,
        filling: &mut Filling<'_>,
        (block, places): (u64, Places),
        parts: &[Part],
    ) -> Result<Turn, StoreError> {
        let start = block * BLOCK_LEAVES;
        let places = places.and(within(
            filling.next().saturating_sub(start),
            filling.asked.before.saturating_sub(start),
        ));
        filling.examined += COST_OF_BLOCK + places.count();
        if !is_covered(parts, places) {
            return match start < self.minimum_index().await? {
                // Pruned since this page was begun.
                true => {
                    filling.reached(start + BLOCK_LEAVES - 1);
                    Ok(Turn::Through)
                }
                false => Err(missing_before(start + BLOCK_LEAVES)),
            };
        }
        if self.take_of_block(filling, (block, places), parts).await? == Turn::Full {
            return Ok(Turn::Full);
        }
        filling.reached(start + BLOCK_LEAVES - 1);
        if filling.examined >= filling.limits.examined {
            filling.page.more = true;
            return Ok(Turn::Full);
        }
        // A block is work for a moment; others wait.
        tokio::task::yield_now().await;
        Ok(Turn::Through)
    }

    /// Takes what matches at these places, until the page is full.
    async fn take_of_block(
        &self,
        filling: &mut Filling<'_>,
        (block, places): (u64, Places),
        parts: &[Part],
    ) -> Result<Turn, StoreError> {
        let start = block * BLOCK_LEAVES;
        let mut matches = self.matches(filling.asked, block, parts, places)?;
        while !matches.is_empty() {
            // One more than fits says that there is more.
            let left = filling
                .limits
                .events
                .saturating_sub(filling.page.events.len());
            let behind = matches.split_off(matches.len().min(left.saturating_add(1)));
            for event in self.open_matches(block, parts, &matches).await? {
                if filling.take(event) == Turn::Full {
                    return Ok(Turn::Full);
                }
            }
            // Fewer came than were given where records went meanwhile, as their site was erased: those behind follow.
            if let Some(last) = matches.last() {
                filling.reached(start + u64::from(last.place));
            }
            matches = behind;
        }
        Ok(Turn::Through)
    }

    /// The rows of a block that match, in order.
    fn matches(
        &self,
        asked: &Asked<'_>,
        block: u64,
        parts: &[Part],
        places: Places,
    ) -> Result<Vec<Match>, StoreError> {
        let mut matches = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            if part.places.and(places).is_empty() {
                continue;
            }
            let Some(columns) = part.columns(block, self.site_keys())? else {
                continue;
            };
            matches.extend(asked.rows(&columns, places).map(|(row, cells)| Match {
                place: cells.place,
                part: number,
                number: row,
                received: cells.received,
            }));
        }
        if parts.len() > 1 {
            matches.sort_unstable_by_key(|found| found.place);
        }
        Ok(matches)
    }

    /// The events of these rows. Those whose records are gone are left out.
    async fn open_matches(
        &self,
        block: u64,
        parts: &[Part],
        matches: &[Match],
    ) -> Result<Vec<StoredEvent>, StoreError> {
        if matches.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.bodies_of(block).await?;
        let mut bodies = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            let same = stored.iter().find(|stored| stored.key == part.key);
            bodies.push(match same {
                Some(stored) if matches.iter().any(|found| found.part == number) => {
                    stored.bodies(block, self.site_keys())?
                }
                Some(_) | None => None,
            });
        }
        let mut events = Vec::with_capacity(matches.len());
        for found in matches {
            let Some(bodies) = bodies.get(found.part).and_then(Option::as_ref) else {
                continue;
            };
            let sealed = Sealed::Bodies(block);
            let index = block * BLOCK_LEAVES + u64::from(found.place);
            let record = bodies
                .record(found.number)
                .ok_or_else(|| sealed.damaged("a record is missing"))?;
            let record = SealedRecord::parse(record).map_err(|error| sealed.damaged(error))?;
            events.push(StoredEvent::of(index, found.received, record)?);
        }
        Ok(events)
    }

    /// Looks through what is in no block.
    async fn walk_tail(&self, filling: &mut Filling<'_>) -> Result<Turn, StoreError> {
        loop {
            let next = filling.next();
            let rows = self.tail_from(next, TAIL_ROWS).await?;
            let is_short = (rows.len() as u64) < TAIL_ROWS;
            let follows = rows.first().is_some_and(|row| row.leaf == next);
            if !follows {
                return match (
                    next / BLOCK_LEAVES < self.block_count().await?,
                    rows.first(),
                ) {
                    (true, _) => Ok(Turn::Moved),
                    (false, None) => Ok(Turn::Through),
                    (false, Some(row)) => Err(missing_before(row.leaf)),
                };
            }
            for row in rows {
                if row.leaf >= filling.asked.before {
                    return Ok(Turn::Through);
                }
                if filling.examined >= filling.limits.examined {
                    filling.page.more = true;
                    return Ok(Turn::Full);
                }
                filling.examined += 1;
                let record = row.open(self.site_keys())?;
                if let Some(record) = record.filter(|one| filling.asked.matches(one.record())) {
                    let event = StoredEvent::of(row.leaf, row.received, record)?;
                    if filling.take(event) == Turn::Full {
                        return Ok(Turn::Full);
                    }
                }
                filling.reached(row.leaf);
            }
            if is_short {
                return Ok(Turn::Through);
            }
        }
    }
}

impl Filling<'_> {
    /// The first leaf that was not looked at.
    fn next(&self) -> u64 {
        self.page
            .reached
            .map_or(0, |reached| reached.saturating_add(1))
    }

    fn reached(&mut self, leaf: u64) {
        self.page.reached = self.page.reached.max(Some(leaf));
    }

    /// Adds an event, unless it is one too many.
    fn take(&mut self, event: StoredEvent) -> Turn {
        self.bytes = self.bytes.saturating_add(event.record.len());
        let is_full = self.page.events.len() >= self.limits.events;
        if is_full || (self.bytes > self.limits.bytes && !self.page.events.is_empty()) {
            self.page.more = true;
            let last = self.page.events.last().map(|event| event.index);
            self.page.reached = self.page.reached.max(last);
            return Turn::Full;
        }
        self.page.events.push(event);
        Turn::Through
    }
}

/// As far as it must, for one answer.
fn whole(limit: u32, bytes: usize) -> PageLimits {
    PageLimits {
        events: usize::try_from(limit.clamp(1, MAX_LIMIT)).unwrap_or(1),
        bytes,
        examined: usize::MAX,
    }
}

/// The places from `first` until before `end`.
fn within(first: u64, end: u64) -> Places {
    match first == 0 && end >= BLOCK_LEAVES {
        true => Places::ALL,
        false => (0..=u8::MAX)
            .filter(|place| (first..end).contains(&u64::from(*place)))
            .collect(),
    }
}

/// Whether each place is in a part, though it may be one that was erased.
fn is_covered(parts: &[Part], places: Places) -> bool {
    let all = parts
        .iter()
        .fold(Places::NONE, |all, part| all.or(part.places));
    places.without(all).is_empty()
}
