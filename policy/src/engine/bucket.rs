//! The rows of one interface as casbin decides them. The only file that names casbin.
//!
//! What it must never do, and why, by casbin 2.20.0's own source: `CachedEnforcer` answers by a 64-bit hash without
//! an equality check; `load_policy` clears rows before reading new ones; an empty policy runs the matcher against
//! empty strings; pattern functions compile and unwrap on every call; an unknown effect panics; the script engine
//! knows 32-bit integers only. So: rows are added once to a fresh enforcer, there is always one row that never
//! matches, the model is fixed here, the one function compares interned sets, and no time enters it.

use casbin::rhai::{Dynamic, ImmutableString};
use casbin::{CoreApi, DefaultModel, Enforcer, Model};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::slice::{ActionId, Effect, Row, Sources};

/// Most allow rows that one enforcer walks: about 0.6 us each.
pub(crate) const MAX_CHUNK_ROWS: usize = 100;

const REQUEST: &str = "sub, act, active";
const POLICY: &str = "row, sub, act, eft";
const EFFECT: &str = "some(where (p.eft == allow)) && !some(where (p.eft == deny))";
const MATCHER: &str = "edgeward_row(r.sub, r.act, r.active, p.sub, p.act, p.row)";
const MATCHER_FUNCTION: &str = "edgeward_row";

/// Our fault: the engine could not be built or asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
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

/// A set of small numbers as text: one character of `0`..`?` for four of them, so that a test is one comparison of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BitSet(ImmutableString);

/// The enforcers of one interface. Every one holds all its denies, so that an allow in one cannot outrun a deny
/// in another.
pub(crate) struct Bucket {
    chunks: Vec<Enforcer>,
}

impl BitSet {
    /// `members` above `limit` are left out.
    pub(crate) fn new(members: impl IntoIterator<Item = usize>, limit: usize) -> Self {
        let mut nibbles = vec![b'0'; limit.div_ceil(4)];
        for member in members {
            if let Some(nibble) = nibbles.get_mut(member / 4) {
                *nibble |= 1 << (member % 4);
            }
        }
        Self(
            nibbles
                .into_iter()
                .map(char::from)
                .collect::<String>()
                .into(),
        )
    }
}

impl Bucket {
    /// `sources` holds, row by row, the set of group bits that it is about.
    pub(crate) fn new(rows: &[Row], sources: &[BitSet]) -> Result<Self, BucketError> {
        let (denies, allows): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|index| effect_of(rows, *index) == Some(Effect::Deny));
        let mut chunks = Vec::new();
        for chunk in allows.chunks(MAX_CHUNK_ROWS) {
            let chosen = denies.iter().chain(chunk).copied();
            chunks.push(enforcer(chosen, rows, sources)?);
        }
        // Without an allow there is nothing to ask, and yet an answer has to come from an enforcer.
        if chunks.is_empty() {
            chunks.push(enforcer(denies.into_iter(), rows, sources)?);
        }
        Ok(Self { chunks })
    }

    /// Whether the active rows allow. `active` has the index of each row that is in force.
    pub(crate) fn allows(
        &self,
        subject: &BitSet,
        action: ActionId,
        active: &BitSet,
    ) -> Result<bool, BucketError> {
        let mut allowed = false;
        for chunk in &self.chunks {
            if !chunk.is_enabled() {
                return Err(BucketError::Disabled);
            }
            let request: Vec<Dynamic> = vec![
                subject.0.clone().into(),
                ImmutableString::from(action.0.to_string()).into(),
                active.0.clone().into(),
            ];
            allowed |= chunk.enforce(request).map_err(boxed)?;
        }
        Ok(allowed)
    }
}

fn effect_of(rows: &[Row], index: usize) -> Option<Effect> {
    rows.get(index).map(|row| row.effect)
}

fn enforcer(
    chosen: impl Iterator<Item = usize>,
    rows: &[Row],
    sources: &[BitSet],
) -> Result<Enforcer, BucketError> {
    let mut model = DefaultModel::default();
    let sound = model.add_def("r", "r", REQUEST)
        && model.add_def("p", "p", POLICY)
        && model.add_def("e", "e", EFFECT)
        && model.add_def("m", "m", MATCHER);
    if !sound {
        return Err(BucketError::Model);
    }
    // Never empty: an empty policy lets the matcher run against empty strings. This row's set has no member.
    add_row(
        &mut model,
        usize::MAX,
        ["never".into(), "0".into(), "never".into(), "allow".into()],
    )?;
    for index in chosen {
        let (Some(row), Some(source)) = (rows.get(index), sources.get(index)) else {
            return Err(BucketError::Row(index));
        };
        let effect = match row.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        let actions: Vec<String> = row
            .actions
            .iter()
            .map(|action| action.0.to_string())
            .collect();
        let values = [
            index.to_string(),
            source.0.to_string(),
            actions.join(" "),
            effect.to_owned(),
        ];
        add_row(&mut model, index, values)?;
    }
    let mut enforcer = ready(Enforcer::new_raw(model, ()))?.map_err(boxed)?;
    enforcer.add_function(
        MATCHER_FUNCTION,
        casbin::function_map::OperatorFunction::Arg6(row_matches),
    );
    Ok(enforcer)
}

fn add_row(model: &mut DefaultModel, index: usize, values: [String; 4]) -> Result<(), BucketError> {
    match model.add_policy("p", "p", values.to_vec()) {
        true => Ok(()),
        false => Err(BucketError::Row(index)),
    }
}

/// The one function of the matcher. Whatever is not as expected does not match.
fn row_matches(
    subject: Dynamic,
    action: Dynamic,
    active: Dynamic,
    sources: Dynamic,
    actions: Dynamic,
    row: Dynamic,
) -> Dynamic {
    let matches = || -> Option<bool> {
        let subject = subject.as_immutable_string_ref().ok()?;
        let sources = sources.as_immutable_string_ref().ok()?;
        let meet = subject
            .bytes()
            .zip(sources.bytes())
            .any(|(one, other)| one & other & 0x0f != 0);
        if !meet {
            return Some(false);
        }
        let row: usize = row.as_immutable_string_ref().ok()?.parse().ok()?;
        let active = active.as_immutable_string_ref().ok()?;
        let nibble = *active.as_bytes().get(row / 4)?;
        if nibble & (1 << (row % 4)) == 0 {
            return Some(false);
        }
        let action = action.as_immutable_string_ref().ok()?;
        let actions = actions.as_immutable_string_ref().ok()?;
        Some(!action.is_empty() && actions.split(' ').any(|one| one == action.as_str()))
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

/// The bit that every known subject has, beside one for each group.
pub(crate) const EVERYBODY_BIT: usize = 0;

/// The bits of a row's sources.
pub(crate) fn source_bits(from: &Sources, groups: usize) -> BitSet {
    match from {
        Sources::Any => BitSet::new([EVERYBODY_BIT], groups + 1),
        Sources::Groups(ids) => BitSet::new(ids.iter().map(|id| id.0 as usize + 1), groups + 1),
    }
}

#[cfg(test)]
mod tests;
