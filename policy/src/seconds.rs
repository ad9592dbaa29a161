//! Lengths of time in policies: whole seconds, written `30s`, `10m`, `72h` or `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest length accepted, in seconds: ten years.
pub const MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// A length of time in whole seconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seconds(u64);

/// Why a text is not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecondsError {
    #[error("not a whole number and one unit of s, m, h or d")]
    Shape,
    #[error("longer than ten years")]
    TooLong,
}

impl Seconds {
    pub const fn new(seconds: u64) -> Self {
        Self(seconds)
    }

    pub const fn from_hours(hours: u64) -> Self {
        Self(hours.saturating_mul(3600))
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    #[must_use]
    pub const fn doubled(self) -> Self {
        Self(self.0.saturating_mul(2))
    }
}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, unit) = ["s", "m", "h", "d"]
            .into_iter()
            .zip([1_u64, 60, 3600, 86_400])
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
            .ok_or(SecondsError::Shape)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SecondsError::Shape);
        }
        let number: u64 = digits.parse().map_err(|_| SecondsError::TooLong)?;
        match number.checked_mul(unit) {
            Some(seconds) if seconds <= MAX_SECONDS => Ok(Self(seconds)),
            _ => Err(SecondsError::TooLong),
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            0 => (0, "s"),
            n if n % 3600 == 0 => (n / 3600, "h"),
            n if n % 60 == 0 => (n / 60, "m"),
            n => (n, "s"),
        };
        write!(f, "{number}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_lengths_are_refused() {
        for text in [
            "", "10", "m", "-1s", "+1s", "1.5h", "1h30m", "10 m", "10M", "1w",
        ] {
            assert_eq!(text.parse::<Seconds>(), Err(SecondsError::Shape), "{text}");
        }
        for text in ["3651d", "99999999999999999999s"] {
            assert_eq!(
                text.parse::<Seconds>(),
                Err(SecondsError::TooLong),
                "{text}"
            );
        }
    }

    #[test]
    fn each_unit_reads_and_prints() {
        for (text, seconds, shown) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("10m", 600, "10m"),
            ("72h", 259_200, "72h"),
            ("7d", 604_800, "168h"),
        ] {
            let length: Seconds = text.parse().unwrap();
            assert_eq!(length.get(), seconds);
            assert_eq!(length.to_string(), shown);
        }
    }
}
