//! The parameters of a question, as types.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};

use super::{ActorFilter, Filter, KindFilter, MAX_SERIAL_DIGITS, MAX_VALUE_BYTES, QueryError};
use crate::event::{Actor, EventKind, MAX_RULE_BYTES, RuleId, Text};

/// What a page of events takes beside the filter.
pub(super) const PAGE: &[&str] = &["limit", "max_bytes", "records", "cursor", "follow"];
/// What counting takes beside the filter.
pub(super) const STATS: &[&str] = &["by", "top", "bucket"];

const FILTER: &[&str] = &[
    "from", "to", "node", "actor", "type", "verdict", "rule", "serial",
];

/// Known parameters, each once, none empty or too long.
pub(super) struct Values<'a>(BTreeMap<&'static str, &'a str>);

impl<'a> Values<'a> {
    pub(super) fn collect(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        beside: &[&'static str],
    ) -> Result<Self, QueryError> {
        let mut values = BTreeMap::new();
        for (key, value) in pairs {
            let name = FILTER
                .iter()
                .chain(beside)
                .find(|name| **name == key)
                .copied()
                .ok_or_else(|| QueryError::UnknownParameter(Text::<64>::lossy(key).to_string()))?;
            if value.is_empty() {
                return Err(QueryError::Empty(name));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(QueryError::TooLong(name));
            }
            if values.insert(name, value).is_some() {
                return Err(QueryError::Repeated(name));
            }
        }
        Ok(Self(values))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, QueryError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(QueryError::Flag(name)),
        }
    }

    pub(super) fn number(
        &self,
        name: &str,
        default: u32,
        within: RangeInclusive<u32>,
        error: QueryError,
    ) -> Result<u32, QueryError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if within.contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// A bare node name is one of `trust_domain`.
    pub(super) fn filter(&self, trust_domain: &TrustDomain) -> Result<Filter, QueryError> {
        let time = |name| {
            self.get(name)
                .map(|text| parse_time(text, name))
                .transpose()
        };
        let filter = Filter {
            from: time("from")?,
            to: time("to")?,
            node: self
                .get("node")
                .map(|value| parse_node(value, trust_domain))
                .transpose()?,
            actor: self.get("actor").map(parse_actor).transpose()?,
            kind: self.get("type").map(parse_kind).transpose()?,
            verdict: self
                .get("verdict")
                .map(|value| value.parse().map_err(|_| QueryError::Verdict))
                .transpose()?,
            rule: self.get("rule").map(parse_rule).transpose()?,
            serial: self.get("serial").map(parse_serial).transpose()?,
        };
        match (filter.from, filter.to) {
            (Some(from), Some(to)) if from >= to => Err(QueryError::TimeOrder),
            _ => Ok(filter),
        }
    }
}

fn parse_time(value: &str, name: &'static str) -> Result<Timestamp, QueryError> {
    let time: jiff::Timestamp = value.parse().map_err(|_| QueryError::Time(name))?;
    u64::try_from(time.as_millisecond())
        .map(Timestamp::from_millis)
        .map_err(|_| QueryError::Time(name))
}

fn parse_node(value: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, QueryError> {
    let id = if value.starts_with("spiffe:") {
        value.parse()
    } else {
        SpiffeId::new(trust_domain, Kind::Node, value)
    };
    match id {
        // A cloud keeps a journal too, and may be asked for by its full id.
        Ok(id) if matches!(id.kind(), Kind::Node | Kind::Cloud) => Ok(id),
        Ok(_) | Err(_) => Err(QueryError::Node),
    }
}

fn parse_serial(value: &str) -> Result<String, QueryError> {
    let good = value.len() <= MAX_SERIAL_DIGITS
        && value
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match good {
        true => Ok(value.to_owned()),
        false => Err(QueryError::Serial),
    }
}

fn parse_actor(value: &str) -> Result<ActorFilter, QueryError> {
    match value.parse().map_err(QueryError::Actor)? {
        Actor::Anonymous(None) => Ok(ActorFilter::AnyAnonymous),
        actor => Ok(ActorFilter::Exactly(actor)),
    }
}

fn parse_kind(value: &str) -> Result<KindFilter, QueryError> {
    let Some(family) = value.strip_suffix(".*") else {
        return value
            .parse()
            .map(KindFilter::Exactly)
            .map_err(|_| QueryError::Type);
    };
    EventKind::ALL
        .iter()
        .map(|kind| kind.family())
        .find(|known| *known == family)
        .map(KindFilter::Family)
        .ok_or(QueryError::Type)
}

fn parse_rule(value: &str) -> Result<RuleId, QueryError> {
    Text::<MAX_RULE_BYTES>::new(value).map_err(|_| QueryError::Rule)
}
