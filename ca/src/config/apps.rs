//! `[apps]`: the repository of signed applications.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_runtime::config::BadConfig;
use serde::Deserialize;

/// Least that the repository of applications may hold, in bytes: one application of a small kind.
const MIN_APPS_BYTES: u64 = 1_000_000;
/// Shortest and longest life of the repository's timestamp: nodes install nothing on an older one.
const MIN_TIMESTAMP_TTL: Duration = Duration::from_secs(600);
const MAX_TIMESTAMP_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Least and most that one node may fetch, in bytes a second: the longest chunk must fit into ten seconds' worth.
const MIN_RATE: u64 = 200_000;
const MAX_RATE: u64 = 1_000_000_000;

/// The repository of signed applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apps {
    /// What applications are made of. Clouds of one database share it.
    pub folder: PathBuf,
    /// Most that it holds, in bytes.
    pub max_bytes: u64,
    /// Most that one publisher's part of it holds, in bytes.
    pub publisher_bytes: u64,
    /// How long the repository's timestamp is good.
    pub timestamp_ttl: Duration,
    /// What one node may fetch, in bytes a second; ten seconds' worth at once.
    pub bytes_per_second: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    folder: Option<PathBuf>,
    max_bytes: u64,
    publisher_bytes: u64,
    #[serde(with = "edgeward_runtime::config::duration")]
    timestamp_ttl: Duration,
    bytes_per_second: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            folder: None,
            max_bytes: 20_000_000_000,
            publisher_bytes: 10_000_000_000,
            timestamp_ttl: Duration::from_secs(86_400),
            bytes_per_second: 10_000_000,
        }
    }
}

impl Table {
    pub(super) fn check(self, data: &Path) -> Result<Apps, BadConfig> {
        if self.max_bytes < MIN_APPS_BYTES {
            return Err(BadConfig::value("apps.max_bytes", "less than 1 MB"));
        }
        if !(MIN_APPS_BYTES..=self.max_bytes).contains(&self.publisher_bytes) {
            return Err(BadConfig::value(
                "apps.publisher_bytes",
                "not between 1 MB and apps.max_bytes",
            ));
        }
        if !(MIN_TIMESTAMP_TTL..=MAX_TIMESTAMP_TTL).contains(&self.timestamp_ttl) {
            return Err(BadConfig::value(
                "apps.timestamp_ttl",
                "not between 10m and 30 days",
            ));
        }
        if !(MIN_RATE..=MAX_RATE).contains(&self.bytes_per_second) {
            return Err(BadConfig::value(
                "apps.bytes_per_second",
                "not between 200 kB and 1 GB",
            ));
        }
        Ok(Apps {
            folder: self.folder.unwrap_or_else(|| data.join("apps")),
            max_bytes: self.max_bytes,
            publisher_bytes: self.publisher_bytes,
            timestamp_ttl: self.timestamp_ttl,
            bytes_per_second: self.bytes_per_second,
        })
    }
}
