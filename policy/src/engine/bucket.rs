//! Rows as casbin decides them. The only file that names casbin.
//!
//! What it must never do, and why, by casbin 2.20.0's own source: `CachedEnforcer` answers by a 64-bit hash without
//! an equality check; `load_policy` clears rows before reading new ones; an empty policy runs the matcher against
//! empty strings; pattern functions compile and unwrap on every call; an unknown effect panics; the script engine
//! knows 32-bit integers only; a second policy section (`p2`) loses its effect column, so that its denies allow. So:
//! rows are added once to a fresh enforcer, there is always one row that never matches, the model is fixed here, the
//! one function compares interned sets, and no time enters it.
//!
//! For every row casbin clones each column into two allocations and calls the matcher through its interpreter. So a
//! row has two columns only, and what is compared lies at fixed places in one of them.

use casbin::rhai::{Dynamic, ImmutableString};
use casbin::{CoreApi, DefaultModel, Enforcer, Model};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::bits::{self, Digits};
use crate::l7::ActionSet;
use crate::slice::{ActionId, Effect, Row, Sources};

/// Most allow rows that one enforcer walks: about 0.5 us each.
pub(crate) const MAX_CHUNK_ROWS: usize = 100;

const REQUEST: &str = "ask";
const POLICY: &str = "row, eft";
const EFFECT: &str = "some(where (p.eft == allow)) && !some(where (p.eft == deny))";
const MATCHER: &str = "edgeward_row(r.ask, p.row)";
const MATCHER_FUNCTION: &str = "edgeward_row";
/// The number of the row that never matches. It has no action and no source either.
const NEVER: usize = (1 << (bits::DIGIT * NUMBER_DIGITS)) - 1;

// A row: its number, its actions, then who it is about. A question: the action, then the groups of who asks in as many
// digits as the row's, then the rows in force.
const NUMBER_DIGITS: usize = 3;
const ACTION_DIGITS: usize = 6;

/// Our fault: casbin could not be built or asked. The decision is a denial.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BucketError {
    #[error("casbin refused the fixed model")]
    Model,
    #[error("casbin did not take a row: {0}")]
    Row(usize),
    #[error("casbin failed")]
    Casbin(#[source] Box<casbin::Error>),
    #[error("casbin waited for something where nothing is to wait for")]
    Waited,
    #[error("casbin is switched off")]
    Disabled,
}

/// The enforcers of some rows of one interface. Every one holds all the denies, so that an allow in one cannot outrun
/// a deny in another.
pub(crate) struct Bucket {
    chunks: Vec<Enforcer>,
    /// Groups that its rows name, sorted: bit 0 is everybody, then one for each of these.
    groups: Vec<u32>,
    bytes: usize,
}

impl Bucket {
    /// `chosen` are rows by their index in the interface.
    pub(crate) fn new<'r>(
        chosen: impl Iterator<Item = (usize, &'r Row)>,
    ) -> Result<Self, BucketError> {
        let rows: Vec<(usize, &Row)> = chosen.collect();
        let mut groups: Vec<u32> = rows
            .iter()
            .filter_map(|(_, row)| match &row.from {
                Sources::Any => None,
                Sources::Groups(groups) => Some(groups),
            })
            .flatten()
            .map(|group| group.0)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let (denies, allows): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .partition(|(_, row)| row.effect == Effect::Deny);
        let mut bucket = Self {
            chunks: Vec::new(),
            groups,
            bytes: 0,
        };
        for chunk in allows.chunks(MAX_CHUNK_ROWS) {
            bucket.add_chunk(denies.iter().chain(chunk))?;
        }
        Ok(bucket)
    }

    /// About how much memory it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the active rows allow; without an allow among the rows nothing is to be asked. `groups` are those of who asks, sorted; `active` has the index of each row that
    /// is in force.
    pub(crate) fn allows(
        &self,
        groups: &[u32],
        action: ActionId,
        active: &[usize],
    ) -> Result<bool, BucketError> {
        if self.chunks.is_empty() {
            return Ok(false);
        }
        let question = self.question(groups, action, active);
        for chunk in &self.chunks {
            if !chunk.is_enabled() {
                return Err(BucketError::Disabled);
            }
            // All denies are in this chunk too: what it allows is allowed.
            if chunk
                .enforce(vec![Dynamic::from(question.clone())])
                .map_err(boxed)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn question(&self, groups: &[u32], action: ActionId, active: &[usize]) -> ImmutableString {
        let members = groups
            .iter()
            .filter_map(|group| self.groups.binary_search(group).ok())
            .map(|bit| bit + 1);
        let limit = active.iter().max().map_or(0, |last| last + 1);
        let mut text = Digits::default();
        text.push_set(actions([action]), ACTION_DIGITS);
        text.push_set(
            std::iter::once(EVERYBODY_BIT).chain(members),
            self.group_digits(),
        );
        text.push_set(active.iter().copied(), limit.div_ceil(bits::DIGIT));
        text.into_text().into()
    }

    fn group_digits(&self) -> usize {
        (self.groups.len() + 1).div_ceil(bits::DIGIT)
    }

    fn row_text(&self, index: usize, row: &Row) -> String {
        let sources: Vec<usize> = match &row.from {
            Sources::Any => vec![EVERYBODY_BIT],
            Sources::Groups(groups) => groups
                .iter()
                .filter_map(|group| self.groups.binary_search(&group.0).ok())
                .map(|bit| bit + 1)
                .collect(),
        };
        let mut text = Digits::default();
        text.push_number(index, NUMBER_DIGITS);
        text.push_set(actions(row.actions.iter().copied()), ACTION_DIGITS);
        text.push_set(sources, self.group_digits());
        text.into_text()
    }

    fn add_chunk<'r>(
        &mut self,
        chosen: impl Iterator<Item = &'r (usize, &'r Row)>,
    ) -> Result<(), BucketError> {
        let mut model = DefaultModel::default();
        let sound = model.add_def("r", "r", REQUEST)
            && model.add_def("p", "p", POLICY)
            && model.add_def("e", "e", EFFECT)
            && model.add_def("m", "m", MATCHER);
        if !sound {
            return Err(BucketError::Model);
        }
        // Never empty: an empty policy lets the matcher run against empty strings.
        let mut never = Digits::default();
        never.push_number(NEVER, NUMBER_DIGITS);
        never.push_set([], ACTION_DIGITS + self.group_digits());
        add_row(&mut model, NEVER, never.into_text(), Effect::Allow)?;
        self.bytes += ENFORCER_BYTES;
        for (index, row) in chosen {
            if *index >= NEVER {
                return Err(BucketError::Row(*index));
            }
            let text = self.row_text(*index, row);
            self.bytes += ROW_BYTES + text.len();
            add_row(&mut model, *index, text, row.effect)?;
        }
        let mut enforcer = ready(Enforcer::new_raw(model, ()))?.map_err(boxed)?;
        enforcer.add_function(
            MATCHER_FUNCTION,
            casbin::function_map::OperatorFunction::Arg2(row_matches),
        );
        self.chunks.push(enforcer);
        Ok(())
    }
}

/// What an enforcer without rows, and a row beside its text, take of memory: measured with `tests/bench/policy`.
const ENFORCER_BYTES: usize = 32 * 1024;
const ROW_BYTES: usize = 256;

fn actions(actions: impl IntoIterator<Item = ActionId>) -> impl Iterator<Item = usize> {
    let set: ActionSet = actions.into_iter().collect();
    set.iter().map(|action| usize::from(action.0))
}

fn add_row(
    model: &mut DefaultModel,
    index: usize,
    text: String,
    effect: Effect,
) -> Result<(), BucketError> {
    let effect = match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    match model.add_policy("p", "p", vec![text, effect.to_owned()]) {
        true => Ok(()),
        false => Err(BucketError::Row(index)),
    }
}

/// The one function of the matcher. Whatever is not as expected does not match.
fn row_matches(question: Dynamic, row: Dynamic) -> Dynamic {
    let matches = || -> Option<bool> {
        let question = question.as_immutable_string_ref().ok()?;
        let row = row.as_immutable_string_ref().ok()?;
        let (number, row) = row.as_bytes().split_at_checked(NUMBER_DIGITS)?;
        let (row_actions, sources) = row.split_at_checked(ACTION_DIGITS)?;
        let (actions, rest) = question.as_bytes().split_at_checked(ACTION_DIGITS)?;
        let (groups, active) = rest.split_at_checked(sources.len())?;
        let number = bits::number(number)?;
        Some(
            bits::meet(groups, sources)
                && bits::contains(active, number)
                && bits::meet(actions, row_actions),
        )
    };
    matches().unwrap_or(false).into()
}

/// casbin's constructors are asynchronous for adapters that read files. Ours reads none, so one poll must do.
fn ready<T>(future: impl Future<Output = T>) -> Result<T, BucketError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(BucketError::Waited),
    }
}

fn boxed(error: casbin::Error) -> BucketError {
    BucketError::Casbin(Box::new(error))
}

/// The bit that every known subject has, beside one for each of its groups.
const EVERYBODY_BIT: usize = 0;

#[cfg(test)]
mod tests;
