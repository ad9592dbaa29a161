//! Times as people write and read them: RFC 3339 in UTC, or relative to now (`-1h`, `+30d`).

use std::time::Duration;

use edgeward_identity::Timestamp;
use serde::{Deserialize, Serialize};

/// A time in answers and requests: RFC 3339 text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct When(pub Timestamp);

/// The text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time (2026-01-31T12:00:00Z, or relative: -1h, +30d): {0}")]
pub struct NotATime(pub String);

/// Reads RFC 3339, or a duration before (`-`) or after (`+`) `now`.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, NotATime> {
    let not_a_time = || NotATime(text.chars().take(64).collect());
    let duration = |rest: &str| -> Result<Duration, NotATime> {
        humantime::parse_duration(rest).map_err(|_| not_a_time())
    };
    if let Some(rest) = text.strip_prefix('-') {
        return Ok(now.minus(duration(rest)?));
    }
    if let Some(rest) = text.strip_prefix('+') {
        return Ok(now.plus(duration(rest)?));
    }
    if text == "now" {
        return Ok(now);
    }
    let parsed: jiff::Timestamp = text.parse().map_err(|_| not_a_time())?;
    u64::try_from(parsed.as_millisecond())
        .map(Timestamp::from_millis)
        .map_err(|_| not_a_time())
}

/// RFC 3339 in UTC; times beyond the calendar of the format are shown as its end.
pub fn format(time: Timestamp) -> String {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

impl From<Timestamp> for When {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format(self.0))
    }
}

impl Serialize for When {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Documents hold absolute times: relative ones would mean something else whenever they are read.
        if text.starts_with(['+', '-']) || text == "now" {
            return Err(serde::de::Error::custom(NotATime(text)));
        }
        parse(&text, Timestamp::default())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for When {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::DateTime,
            )))
            .into()
    }
}

impl utoipa::ToSchema for When {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-01-31",
            "-",
            "-1",
            "- 1h x",
            "1h",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<When>("\"-1h\"").is_err());
    }

    #[test]
    fn absolute_and_relative_times_are_read() {
        assert_eq!(parse("2027-01-15T08:00:00Z", NOW), Ok(NOW));
        assert_eq!(parse("2027-01-15T16:00:00+08:00", NOW), Ok(NOW));
        assert_eq!(parse("-1h", NOW), Ok(NOW.minus(Duration::from_secs(3600))));
        assert_eq!(parse("+1d", NOW), Ok(NOW.plus(Duration::from_secs(86_400))));
        assert_eq!(format(NOW), "2027-01-15T08:00:00Z");
        assert_eq!(
            format(Timestamp::from_millis(u64::MAX)),
            "9999-12-30T22:00:00.999999999Z"
        );
    }
}
