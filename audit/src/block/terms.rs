//! Terms: the values that filters ask for, as keyed hashes.
//!
//! An index of terms says which blocks may hold what is asked for, and to whoever lacks the key nothing else. A term is
//! 8 bytes, so two values may share one: what a term finds is a candidate, and [`super::Columns`] decides.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Secret;
use ring::hmac;

use super::Places;
use crate::event::{Actor, EventKind};
use crate::query::{ActorFilter, Filter, ISSUING_KINDS, SERIAL};
use crate::record::Record;

/// Sets terms apart from every other use of the key.
const LABEL: &[u8] = b"edgeward audit term v1\n";

/// The secret behind the terms. Whoever has it can ask an index whether a value that he guesses is in it.
#[derive(Clone, Debug)]
pub struct TermKey(Secret<[u8; 32]>);

/// One value of one field, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(i64);

/// The terms of a block: each value is hashed once, however many events have it.
#[derive(Debug, Default)]
pub struct BlockTerms(BTreeMap<(Field, String), Places>);

/// A field that a filter finds by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Type,
    Verdict,
    Rule,
    Actor,
    /// All who proved nothing.
    Anonymous,
    /// Who recorded the event, or whom it concerns.
    Party,
    Serial,
}

impl TermKey {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    fn ready(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose())
    }
}

impl Term {
    /// As a number of a database.
    pub const fn to_column(self) -> i64 {
        self.0
    }

    pub const fn from_column(column: i64) -> Self {
        Self(column)
    }

    fn of(key: &hmac::Key, field: Field, value: &str) -> Self {
        let mut context = hmac::Context::with_key(key);
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        context.update(LABEL);
        context.update(field.label());
        context.update(&length.to_be_bytes());
        context.update(value.as_bytes());
        let tag = context.sign();
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        Self(i64::from_be_bytes(first))
    }
}

impl BlockTerms {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&mut self, place: u8, record: &Record) {
        for (field, value) in values_of(record) {
            self.0.entry((field, value)).or_default().insert(place);
        }
    }

    /// Where each term stands.
    pub fn finish(&self, key: &TermKey) -> BTreeMap<Term, Places> {
        let key = key.ready();
        let mut terms: BTreeMap<Term, Places> = BTreeMap::new();
        for ((field, value), places) in &self.0 {
            let term = terms.entry(Term::of(&key, *field, value)).or_default();
            *term = term.or(*places);
        }
        terms
    }
}

/// The terms of one record.
pub fn terms_of(key: &TermKey, record: &Record) -> BTreeSet<Term> {
    let key = key.ready();
    values_of(record)
        .into_iter()
        .map(|(field, value)| Term::of(&key, field, &value))
        .collect()
}

/// What a record that the filter asks for has: of each of these, at least one. Times have no terms.
pub fn terms_wanted(key: &TermKey, filter: &Filter) -> Vec<Vec<Term>> {
    let key = key.ready();
    let one = |field, value: &str| vec![Term::of(&key, field, value)];
    let mut wanted = Vec::new();
    if let Some(serial) = &filter.serial {
        wanted.push(one(Field::Serial, serial));
    }
    if let Some(rule) = &filter.rule {
        wanted.push(one(Field::Rule, rule.as_str()));
    }
    match &filter.actor {
        Some(ActorFilter::Exactly(actor)) => wanted.push(one(Field::Actor, &actor.to_string())),
        Some(ActorFilter::AnyAnonymous) => wanted.push(one(Field::Anonymous, "")),
        None => {}
    }
    if let Some(node) = &filter.node {
        wanted.push(one(Field::Party, &node.to_string()));
    }
    if let Some(kind) = filter.kind {
        let kinds = kind.kinds().map(EventKind::name);
        wanted.push(
            kinds
                .map(|name| Term::of(&key, Field::Type, name))
                .collect(),
        );
    }
    if let Some(verdict) = filter.verdict {
        wanted.push(one(Field::Verdict, verdict.as_str()));
    }
    wanted
}

fn values_of(record: &Record) -> Vec<(Field, String)> {
    let event = &record.event;
    let mut values = vec![
        (Field::Type, event.kind.name().to_owned()),
        (Field::Verdict, event.verdict.as_str().to_owned()),
        (Field::Actor, event.actor.to_string()),
        (Field::Party, record.node.to_string()),
    ];
    if let Some(rule) = &event.rule {
        values.push((Field::Rule, rule.to_string()));
    }
    if matches!(event.actor, Actor::Anonymous(_)) {
        values.push((Field::Anonymous, String::new()));
    }
    if let Some(id) = event
        .subject
        .as_ref()
        .and_then(|subject| subject.identity())
    {
        values.push((Field::Party, id.to_string()));
    }
    if ISSUING_KINDS.contains(&event.kind)
        && let Some(serial) = event.detail.get(SERIAL)
    {
        values.push((Field::Serial, serial.to_owned()));
    }
    values
}

impl Field {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Type => b"type\n",
            Self::Verdict => b"verdict\n",
            Self::Rule => b"rule\n",
            Self::Actor => b"actor\n",
            Self::Anonymous => b"anonymous\n",
            Self::Party => b"party\n",
            Self::Serial => b"serial\n",
        }
    }
}
