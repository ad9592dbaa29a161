//! Which blocks may hold what is asked for, by the index of terms and the times of blocks.
//!
//! A round takes the next few blocks of each wanted term, goes on with the terms that reach furthest (they match
//! least), and looks the others up only there. Left to themselves, databases choose by guesses that one busy node turns
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_audit::block::{Places, Term};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row};

use super::asked::Asked;
use super::rows::places;
use crate::store::{Store, StoreError, number_from_column, number_to_column, to_column};

/// Blocks that are looked up by one statement.
const LOOKED_UP: usize = 32;
/// Up to so many blocks are taken from each term, however many terms there are.
const WHOLE: usize = 8;

/// Blocks that may hold what is asked for, with the places in them: all there are from where one looked up to the
/// horizon.
pub(super) struct Candidates {
    pub(super) blocks: Vec<(u64, Places)>,
    /// The last block that was considered.
    pub(super) horizon: u64,
    /// Rows of indices that were looked at.
    pub(super) looked: usize,
}

/// The blocks of one group of terms, of which one must hold.
struct Group<'a> {
    terms: &'a [Term],
    blocks: BTreeMap<u64, Places>,
    /// Up to here they are all there are.
    horizon: u64,
}

impl Store {
    /// The blocks from `first` to `end` that may match: about `limit` of them at least, or all.
    pub(super) async fn candidates(
        &self,
        asked: &Asked<'_>,
        wanted: &[Vec<Term>],
        (first, end): (u64, u64),
        limit: usize,
    ) -> Result<Candidates, StoreError> {
        let limit = limit.max(1);
        if wanted.is_empty() {
            return self.by_time(asked, (first, end), limit).await;
        }
        let mut groups = Vec::with_capacity(wanted.len());
        let mut looked = 0;
        for terms in wanted {
            let group = self.first_blocks(terms, (first, end), limit).await?;
            looked += group.blocks.len().max(1);
            let is_empty = group.blocks.is_empty() && group.horizon == end;
            groups.push(group);
            if is_empty {
                // Nothing reaches further, and nothing is less.
                break;
            }
        }
        groups.sort_by_key(|group| (std::cmp::Reverse(group.horizon), group.blocks.len()));
        let mut groups = groups.into_iter();
        let Some(lead) = groups.next() else {
            return Ok(Candidates {
                blocks: Vec::new(),
                horizon: end,
                looked,
            });
        };
        let (mut found, horizon) = (lead.blocks, lead.horizon);
        for group in groups {
            let beyond: Vec<u64> = found
                .range(group.horizon + 1..)
                .map(|(block, _)| *block)
                .collect();
            looked += beyond.len();
            let mut there = group.blocks;
            for blocks in beyond.chunks(LOOKED_UP) {
                self.look_up(group.terms, blocks, &mut there).await?;
            }
            found.retain(|block, places| {
                let here = there.get(block).copied().unwrap_or(Places::NONE);
                *places = places.and(here);
                !places.is_empty()
            });
        }
        if asked.has_times() {
            let blocks: Vec<u64> = found.keys().copied().collect();
            looked += blocks.len();
            let mut timely = BTreeSet::new();
            for blocks in blocks.chunks(LOOKED_UP) {
                timely.extend(self.timely(asked, blocks).await?);
            }
            found.retain(|block, _| timely.contains(block));
        }
        Ok(Candidates {
            blocks: found.into_iter().collect(),
            horizon,
            looked,
        })
    }

    /// The first block from `first` on with times that are asked for, or with [`Edge::Last`] the last one.
    pub(super) async fn edge_by_time(
        &self,
        asked: &Asked<'_>,
        (first, end): (u64, u64),
        edge: Edge,
    ) -> Result<Option<u64>, StoreError> {
        if first > end {
            return Ok(None);
        }
        if !asked.has_times() {
            return Ok(Some(match edge {
                Edge::First => first,
                Edge::Last => end,
            }));
        }
        let order = match edge {
            Edge::First => "ASC",
            Edge::Last => "DESC",
        };
        let text = format!(
            "SELECT block FROM event_blocks WHERE block >= $1 AND block <= $2 AND latest >= $3 AND earliest < $4 \
             ORDER BY block {order} LIMIT 1"
        );
        let row = with_times(asked, sqlx::query(AssertSqlSafe(text)), (first, end))
            .fetch_optional(&mut *self.read().await?)
            .await?;
        row.map(|row| block_of(&row)).transpose()
    }

    /// Where nothing but a time is asked for.
    async fn by_time(
        &self,
        asked: &Asked<'_>,
        (first, end): (u64, u64),
        limit: usize,
    ) -> Result<Candidates, StoreError> {
        let found: Vec<u64> = if asked.has_times() {
            let text = format!(
                "SELECT block FROM event_blocks WHERE block >= $1 AND block <= $2 AND latest >= $3 \
                 AND earliest < $4 ORDER BY block LIMIT {limit}"
            );
            let rows = with_times(asked, sqlx::query(AssertSqlSafe(text)), (first, end))
                .fetch_all(&mut *self.read().await?)
                .await?;
            rows.iter().map(block_of).collect::<Result<_, _>>()?
        } else {
            (first..=end).take(limit).collect()
        };
        let horizon = match found.last() {
            Some(last) if found.len() >= limit => *last,
            Some(_) | None => end,
        };
        Ok(Candidates {
            looked: found.len(),
            blocks: found
                .into_iter()
                .map(|block| (block, Places::ALL))
                .collect(),
            horizon,
        })
    }

    async fn first_blocks<'a>(
        &self,
        terms: &'a [Term],
        (first, end): (u64, u64),
        limit: usize,
    ) -> Result<Group<'a>, StoreError> {
        let ways = terms.len().max(1);
        // Few are taken from each way whole, so that the first round of a page finds enough in one of them.
        let limit = (limit / ways).max(limit.min(WHOLE));
        let parts: Vec<String> = (0..terms.len())
            .map(|way| {
                format!(
                    "SELECT CAST({way} AS BIGINT) AS way, block, places FROM (SELECT block, places FROM event_terms \
                     WHERE term = ${} AND block >= $1 AND block <= $2 ORDER BY block LIMIT {limit}) AS way_{way}",
                    way + 3
                )
            })
            .collect();
        let mut group = Group {
            terms,
            blocks: BTreeMap::new(),
            horizon: end,
        };
        if parts.is_empty() {
            return Ok(group);
        }
        let mut query = sqlx::query(AssertSqlSafe(parts.join(" UNION ALL ")))
            .bind(number_to_column(first))
            .bind(number_to_column(end));
        for term in terms {
            query = query.bind(term.to_column());
        }
        let mut ends = vec![(0_usize, 0_u64); ways];
        for row in query.fetch_all(&mut *self.read().await?).await? {
            let way = usize::try_from(row.try_get::<i64, _>("way")?).unwrap_or(0);
            let block = add(&row, &mut group.blocks)?;
            if let Some((count, last)) = ends.get_mut(way) {
                *count += 1;
                *last = block.max(*last);
            }
        }
        // Where a way was cut short, nothing is known behind its last block.
        group.horizon = ends
            .iter()
            .filter(|(count, _)| *count >= limit)
            .map(|(_, last)| *last)
            .min()
            .unwrap_or(end);
        let horizon = group.horizon;
        group.blocks.retain(|block, _| *block <= horizon);
        Ok(group)
    }

    /// Adds where any of the terms stands in these blocks, at most [`LOOKED_UP`].
    async fn look_up(
        &self,
        terms: &[Term],
        blocks: &[u64],
        found: &mut BTreeMap<u64, Places>,
    ) -> Result<(), StoreError> {
        let Some(last) = blocks.last() else {
            return Ok(());
        };
        let text = format!(
            "SELECT block, places FROM event_terms WHERE term IN ({}) AND block IN ({})",
            places(1, terms.len()),
            places(1 + terms.len(), LOOKED_UP)
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for term in terms {
            query = query.bind(term.to_column());
        }
        for block in blocks.iter().chain(std::iter::repeat(last)).take(LOOKED_UP) {
            query = query.bind(number_to_column(*block));
        }
        for row in query.fetch_all(&mut *self.read().await?).await? {
            add(&row, found)?;
        }
        Ok(())
    }

    /// Those of these blocks, at most [`LOOKED_UP`], that may match by their times.
    async fn timely(&self, asked: &Asked<'_>, blocks: &[u64]) -> Result<Vec<u64>, StoreError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Ok(Vec::new());
        };
        let text = format!(
            "SELECT block FROM event_blocks WHERE block >= $1 AND block <= $2 AND latest >= $3 AND earliest < $4 \
             AND block IN ({})",
            places(5, LOOKED_UP)
        );
        let mut query = with_times(asked, sqlx::query(AssertSqlSafe(text)), (*first, *last));
        for block in blocks.iter().chain(std::iter::repeat(last)).take(LOOKED_UP) {
            query = query.bind(number_to_column(*block));
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(block_of).collect()
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    First,
    Last,
}

fn with_times(
    asked: &Asked<'_>,
    query: Query<'static, Any, AnyArguments>,
    (first, end): (u64, u64),
) -> Query<'static, Any, AnyArguments> {
    query
        .bind(number_to_column(first))
        .bind(number_to_column(end))
        .bind(asked.filter.from.map_or(i64::MIN, to_column))
        .bind(asked.filter.to.map_or(i64::MAX, to_column))
}

fn block_of(row: &AnyRow) -> Result<u64, StoreError> {
    Ok(number_from_column(row.try_get("block")?))
}

fn add(row: &AnyRow, found: &mut BTreeMap<u64, Places>) -> Result<u64, StoreError> {
    let block = block_of(row)?;
    let places = Places::parse(row.try_get("places")?).map_err(|error| StoreError::Unreadable {
        what: "places of a term",
        value: format!("block {block}: {error}"),
    })?;
    let all = found.entry(block).or_default();
    *all = all.or(places);
    Ok(block)
}
