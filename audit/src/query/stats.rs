//! The question of `GET /api/v1/audit/stats`: how many events, by time and by one of their fields.

use std::time::Duration;

use edgeward_identity::TrustDomain;

use super::values::{STATS, Values};
use super::{Filter, QueryError};

/// Values of the field that are counted by themselves, unless asked otherwise: those with most events.
pub const DEFAULT_TOP: u32 = 10;
/// Most values of the field that are counted by themselves; all others are counted together.
pub const MAX_TOP: u32 = 50;
/// Most pieces of time in one answer.
pub const MAX_BUCKETS: u64 = 1000;
/// Shortest piece of time.
pub const MIN_BUCKET: Duration = Duration::from_secs(1);

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsQuery {
    pub filter: Filter,
    /// By whose values; none: only all together.
    pub by: Option<Field>,
    /// 1 to [`MAX_TOP`].
    pub top: u32,
    /// Length of the pieces of time; they begin at multiples of it since 1970. None: all time together.
    pub bucket: Option<Duration>,
}

/// A field by whose values events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Type,
    /// What precedes the dot in the type.
    Family,
    Verdict,
    /// Who recorded it.
    Node,
    Actor,
    Subject,
    Rule,
}

impl Field {
    pub const ALL: [Self; 7] = [
        Self::Type,
        Self::Family,
        Self::Verdict,
        Self::Node,
        Self::Actor,
        Self::Subject,
        Self::Rule,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Family => "family",
            Self::Verdict => "verdict",
            Self::Node => "node",
            Self::Actor => "actor",
            Self::Subject => "subject",
            Self::Rule => "rule",
        }
    }
}

impl StatsQuery {
    /// Reads the question from decoded key/value pairs.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, QueryError> {
        let values = Values::collect(pairs, STATS)?;
        let filter = values.filter(trust_domain)?;
        let by = values.get("by").map(parse_field).transpose()?;
        let bucket = values.get("bucket").map(parse_bucket).transpose()?;
        if let Some(bucket) = bucket {
            let (Some(from), Some(to)) = (filter.from, filter.to) else {
                return Err(QueryError::Buckets);
            };
            let step = u64::try_from(bucket.as_millis()).unwrap_or(u64::MAX);
            // The first and the last may be cut by `from` and `to`.
            let last = to.millis().saturating_sub(1) / step;
            if last - from.millis() / step >= MAX_BUCKETS {
                return Err(QueryError::Buckets);
            }
        }
        Ok(Self {
            filter,
            by,
            top: values.number("top", DEFAULT_TOP, 1..=MAX_TOP, QueryError::Top)?,
            bucket,
        })
    }
}

fn parse_field(text: &str) -> Result<Field, QueryError> {
    Field::ALL
        .into_iter()
        .find(|field| field.as_str() == text)
        .ok_or(QueryError::Field)
}

/// A whole number and a unit: s, m, h or d.
fn parse_bucket(text: &str) -> Result<Duration, QueryError> {
    UNITS
        .into_iter()
        .find_map(|(unit, seconds)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(seconds).map(Duration::from_secs)
        })
        .filter(|bucket| *bucket >= MIN_BUCKET && bucket.as_secs() <= u64::from(u32::MAX))
        .ok_or(QueryError::Bucket)
}
