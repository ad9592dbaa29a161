//! The filter of `GET /api/v1/audit/events` and of `edgeward audit query|tail`.
//!
//! Parameters: `from`, `to` (RFC 3339), `node`, `actor`, `type`, `verdict`, `rule`, `serial`, `limit`, `max_bytes`, `records`,
//! `cursor`, `follow`; each at most once, none empty. All given ones must hold.

use edgeward_identity::{SpiffeId, Timestamp, TrustDomain};

use crate::digest::Digest;
use crate::event::{Actor, EventKind, PartyError, RuleId, Verdict};
use crate::record::Record;

mod coverage;
mod cursor;
mod stats;
mod values;

#[cfg(test)]
mod tests;

pub use coverage::{CoverageCursor, MAX_COVERAGE_CURSOR_BYTES};
pub use cursor::{Cursor, CursorError, CursorKey, MAX_CURSOR_BYTES};
pub use stats::{DEFAULT_TOP, Field, MAX_BUCKETS, MAX_TOP, MIN_BUCKET, StatsQuery};
use values::Values;

/// Events of one answer unless asked otherwise.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most events of one answer.
pub const MAX_LIMIT: u32 = 1000;
/// Fewest bytes that an answer may be limited to.
pub const MIN_PAGE_BYTES: u32 = 1024;
/// Most bytes of the records in one answer, unless a limit below it is asked for.
pub const MAX_PAGE_BYTES: u32 = 1024 * 1024;
/// Longest value of a parameter, in bytes.
pub const MAX_VALUE_BYTES: usize = 2048;

/// Most digits of a serial number: 20 octets (RFC 5280 4.1.2.2).
const MAX_SERIAL_DIGITS: usize = 40;
/// Where an event that issued a certificate keeps its serial number.
pub const SERIAL: &str = "serial";
/// The events that issue certificates.
pub const ISSUING_KINDS: &[EventKind] = &[
    EventKind::EnrolmentIssued,
    EventKind::NodeRecovered,
    EventKind::SvidIssued,
    EventKind::SvidRenewed,
    EventKind::OperatorAdded,
    EventKind::WorkloadIssued,
];

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub filter: Filter,
    /// 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// [`MIN_PAGE_BYTES`] to [`MAX_PAGE_BYTES`]: of the records in one answer.
    pub max_bytes: u32,
    /// Give each record's own bytes, too.
    pub records: bool,
    /// Go on after this leaf index.
    pub after: Option<u64>,
    /// Keep the answer open for what comes.
    pub follow: bool,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before this time (the recorder's clock).
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Recorded by this node, or about it.
    pub node: Option<SpiffeId>,
    pub actor: Option<ActorFilter>,
    pub kind: Option<KindFilter>,
    pub verdict: Option<Verdict>,
    pub rule: Option<RuleId>,
    /// Serial number of a certificate, lower-case hex: how it was issued.
    pub serial: Option<String>,
}

/// `anonymous` asks for all who proved nothing, anything else for one actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorFilter {
    Exactly(Actor),
    AnyAnonymous,
}

/// `node.quarantined`, or `node.*` for the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindFilter {
    Exactly(EventKind),
    Family(&'static str),
}

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("unknown parameter: {0:?}")]
    UnknownParameter(String),
    #[error("parameter is given twice: {0}")]
    Repeated(&'static str),
    #[error("parameter is empty: {0}")]
    Empty(&'static str),
    #[error("parameter is longer than the limit in bytes: {0}: {MAX_VALUE_BYTES}")]
    TooLong(&'static str),
    #[error("not a time as in 2026-11-21T04:00:00Z: {0}")]
    Time(&'static str),
    #[error("from is not before to")]
    TimeOrder,
    #[error("not a node's name or spiffe id")]
    Node,
    #[error("not an actor")]
    Actor(#[source] PartyError),
    #[error("not a type of event or family as node.*")]
    Type,
    #[error("not a verdict (allow, deny, none)")]
    Verdict,
    #[error("not a rule id")]
    Rule,
    #[error("not a serial number in lower-case hex, at most {MAX_SERIAL_DIGITS} digits")]
    Serial,
    #[error("limit is not within 1 and {MAX_LIMIT}")]
    Limit,
    #[error("max_bytes is not within {MIN_PAGE_BYTES} and {MAX_PAGE_BYTES}")]
    MaxBytes,
    #[error("{0} is not true or false")]
    Flag(&'static str),
    #[error("not a field to count by (type, family, verdict, node, actor, subject, rule)")]
    Field,
    #[error("top is not within 1 and {MAX_TOP}")]
    Top,
    #[error("bucket is not a duration as in 5m, 1h, 1d, at least a second")]
    Bucket,
    #[error("buckets need from and to, and are at most so many: {MAX_BUCKETS}")]
    Buckets,
    #[error("cursor is refused")]
    Cursor(#[source] CursorError),
}

impl Query {
    /// Reads a query from decoded key/value pairs. A bare node name is one of `trust_domain`.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        trust_domain: &TrustDomain,
        key: &CursorKey,
    ) -> Result<Self, QueryError> {
        let values = Values::collect(pairs, values::PAGE)?;
        let filter = values.filter(trust_domain)?;
        let after = match values.get("cursor") {
            Some(cursor) => Some(
                Cursor::open(cursor, &filter, key)
                    .map_err(QueryError::Cursor)?
                    .after,
            ),
            None => None,
        };
        Ok(Self {
            filter,
            limit: values.number("limit", DEFAULT_LIMIT, 1..=MAX_LIMIT, QueryError::Limit)?,
            max_bytes: values.number(
                "max_bytes",
                MAX_PAGE_BYTES,
                MIN_PAGE_BYTES..=MAX_PAGE_BYTES,
                QueryError::MaxBytes,
            )?,
            records: values.flag("records")?,
            after,
            follow: values.flag("follow")?,
        })
    }

    /// The cursor that goes on after the leaf `index`.
    pub fn cursor_after(&self, index: u64, key: &CursorKey) -> String {
        Cursor { after: index }.seal(&self.filter, key)
    }
}

impl Filter {
    /// Whether a record is asked for. Stores answer by index; this is what they must agree with, and what `follow` uses.
    pub fn matches(&self, record: &Record) -> bool {
        let event = &record.event;
        let subject = event
            .subject
            .as_ref()
            .and_then(|subject| subject.identity());
        self.from.is_none_or(|from| event.time >= from)
            && self.to.is_none_or(|to| event.time < to)
            && self
                .node
                .as_ref()
                .is_none_or(|node| record.node == *node || subject == Some(node))
            && self
                .actor
                .as_ref()
                .is_none_or(|actor| actor.matches(&event.actor))
            && self.kind.is_none_or(|kind| kind.matches(event.kind))
            && self.verdict.is_none_or(|verdict| event.verdict == verdict)
            && self
                .rule
                .as_ref()
                .is_none_or(|rule| event.rule.as_ref() == Some(rule))
            && self.serial.as_deref().is_none_or(|serial| {
                ISSUING_KINDS.contains(&event.kind) && event.detail.get(SERIAL) == Some(serial)
            })
    }

    /// Names the filter in a cursor: SHA-256 over every field, absent ones included.
    fn hash(&self) -> Digest {
        let mut text = String::new();
        let mut field = |value: Option<String>| match value {
            // Length first, so that no two filters give one text.
            Some(value) => text.push_str(&format!("{}:{value};", value.len())),
            None => text.push_str("-;"),
        };
        field(self.from.map(|time| time.millis().to_string()));
        field(self.to.map(|time| time.millis().to_string()));
        field(self.node.as_ref().map(ToString::to_string));
        field(self.actor.as_ref().map(|actor| match actor {
            ActorFilter::Exactly(actor) => format!("={actor}"),
            ActorFilter::AnyAnonymous => "any".to_owned(),
        }));
        field(self.kind.map(|kind| match kind {
            KindFilter::Exactly(kind) => kind.name().to_owned(),
            KindFilter::Family(family) => format!("{family}.*"),
        }));
        field(self.verdict.map(|verdict| verdict.as_str().to_owned()));
        field(self.rule.as_ref().map(ToString::to_string));
        if let Some(serial) = &self.serial {
            // Only where it is asked for, so that older cursors stay good.
            field(Some(format!("serial={serial}")));
        }
        Digest::of(&[b"edgeward audit filter v1\n", text.as_bytes()])
    }
}

impl ActorFilter {
    pub fn matches(&self, actor: &Actor) -> bool {
        match self {
            Self::Exactly(wanted) => actor == wanted,
            Self::AnyAnonymous => matches!(actor, Actor::Anonymous(_)),
        }
    }
}

impl KindFilter {
    pub fn matches(self, kind: EventKind) -> bool {
        match self {
            Self::Exactly(wanted) => kind == wanted,
            Self::Family(family) => kind.family() == family,
        }
    }

    /// The kinds that match, for a store that asks `type IN (…)`.
    pub fn kinds(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL
            .iter()
            .copied()
            .filter(move |kind| self.matches(*kind))
    }
}

impl QueryError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownParameter(_) => "query_unknown_parameter",
            Self::Repeated(_) => "query_repeated_parameter",
            Self::Empty(_) => "query_empty_parameter",
            Self::TooLong(_) => "query_too_long",
            Self::Time(_) => "query_time",
            Self::TimeOrder => "query_time_order",
            Self::Node => "query_node",
            Self::Actor(_) => "query_actor",
            Self::Type => "query_type",
            Self::Verdict => "query_verdict",
            Self::Rule => "query_rule",
            Self::Serial => "query_serial",
            Self::Limit => "query_limit",
            Self::MaxBytes => "query_max_bytes",
            Self::Flag("follow") => "query_follow",
            Self::Flag(_) => "query_flag",
            Self::Field => "query_field",
            Self::Top => "query_top",
            Self::Bucket => "query_bucket",
            Self::Buckets => "query_buckets",
            Self::Cursor(_) => "query_cursor",
        }
    }
}
