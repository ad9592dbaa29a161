//! `[audit.retention]`: for how long events are kept, and where pieces of the log are archived.

use std::path::PathBuf;
use std::time::Duration;

use edgeward_runtime::config::BadConfig;
use serde::Deserialize;

use crate::dial::{BadAddress, Endpoint, Roots, Trust};

/// Shortest time that events are kept where they are not kept for ever.
const MIN_KEEP: Duration = Duration::from_secs(3600);
/// Longest; whoever wants more wants for ever.
const MAX_KEEP: Duration = Duration::from_secs(100 * 366 * 86_400);
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest name of a bucket, and of what stands before an object's name, in bytes.
const MAX_BUCKET_BYTES: usize = 63;
const MAX_PREFIX_BYTES: usize = 512;

/// What becomes of old events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// None: for ever.
    pub keep: Option<Duration>,
    /// None: nothing is archived, and what is pruned is gone.
    pub archive: Option<Archive>,
}

/// Where pieces of the log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    Folder(PathBuf),
    S3(Box<S3>),
}

/// S3-style storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    pub bucket: String,
    /// Before the name of each object; empty, or ends with a slash.
    pub prefix: String,
    pub endpoint: Endpoint,
    pub region: String,
    /// Files: the id of the access key, and the secret.
    pub key_file: PathBuf,
    pub secret_file: PathBuf,
    /// Of a session, where there is one.
    pub token_file: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// `[audit.retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    keep: Option<String>,
    archive: Option<String>,
    s3: Option<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    endpoint: String,
    region: String,
    key_file: PathBuf,
    secret_file: PathBuf,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    plaintext: bool,
    #[serde(
        default = "default_timeout",
        with = "edgeward_runtime::config::duration"
    )]
    timeout: Duration,
}

impl Table {
    pub(super) fn check(self) -> Result<Retention, BadConfig> {
        let keep = self.keep.as_deref().map(keep).transpose()?;
        let archive = match (self.archive.as_deref(), self.s3) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(BadConfig::value(
                    "audit.retention.archive",
                    "needed where audit.retention.s3 is given: s3://bucket/prefix",
                ));
            }
            (Some(to), s3) => Some(archive(to, s3)?),
        };
        Ok(Retention { keep, archive })
    }
}

fn keep(text: &str) -> Result<Duration, BadConfig> {
    let refuse = |why: &str| BadConfig::value("audit.retention.keep", why);
    let keep = humantime::parse_duration(text)
        .map_err(|_| refuse("not a duration with its unit, as in 400d (absent: for ever)"))?;
    match (MIN_KEEP..=MAX_KEEP).contains(&keep) {
        true => Ok(keep),
        false => Err(refuse("not between 1h and 100 years (absent: for ever)")),
    }
}

fn archive(to: &str, s3: Option<Entry>) -> Result<Archive, BadConfig> {
    let refuse = |why: &str| BadConfig::value("audit.retention.archive", format!("{why}: {to}"));
    match to.split_once("://") {
        Some(("file", path)) => {
            if s3.is_some() {
                return Err(BadConfig::value("audit.retention.s3", "not for file://"));
            }
            let is_whole = path.starts_with('/') && !path.split('/').any(|part| part == "..");
            match is_whole {
                true => Ok(Archive::Folder(path.into())),
                false => Err(refuse("file:// needs the whole path of a folder")),
            }
        }
        Some(("s3", rest)) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let good_bucket = (3..=MAX_BUCKET_BYTES).contains(&bucket.len())
                && bucket
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
                && !bucket.contains("..");
            if !good_bucket {
                return Err(refuse("not the name of a bucket"));
            }
            let entry = s3.ok_or_else(|| {
                BadConfig::value(
                    "audit.retention.s3",
                    "needed for s3://: endpoint, region, key_file, secret_file",
                )
            })?;
            let mut prefix = prefix.trim_end_matches('/').to_owned();
            // What a URL would read as a path of its own names another object than is meant.
            let good_prefix = prefix.len() <= MAX_PREFIX_BYTES
                && prefix.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'=')
                })
                && !prefix.split('/').any(|part| matches!(part, "." | ".."));
            if !good_prefix || prefix.contains("//") || prefix.starts_with('/') {
                return Err(refuse("not a prefix of objects"));
            }
            if !prefix.is_empty() {
                prefix.push('/');
            }
            Ok(Archive::S3(Box::new(entry.check(bucket, prefix)?)))
        }
        _ => Err(refuse("not file:///folder or s3://bucket/prefix")),
    }
}

impl Entry {
    fn check(self, bucket: &str, prefix: String) -> Result<S3, BadConfig> {
        let refuse = |why: String| {
            BadConfig::value(
                "audit.retention.s3.endpoint",
                format!("{why}: {}", self.endpoint),
            )
        };
        let (tls, authority) = match self.endpoint.split_once("://") {
            Some(("https", authority)) => (true, authority),
            Some(("http", authority)) => (false, authority),
            _ => return Err(refuse("not https://host or http://host".to_owned())),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let trust = tls.then(|| Trust {
            roots: self.ca.clone().map_or(Roots::System, Roots::File),
            client: None,
        });
        let port = if tls { 443 } else { 80 };
        let endpoint = Endpoint::read(authority, Some(port), trust)
            .map_err(|error: BadAddress| refuse(error.to_string()))?;
        if !tls && !endpoint.is_here() && !self.plaintext {
            return Err(refuse(
                "segments would travel in the clear (say plaintext = true if they may)".to_owned(),
            ));
        }
        if !tls && self.ca.is_some() {
            return Err(BadConfig::value("audit.retention.s3.ca", "only for https"));
        }
        let good_region = (1..=64).contains(&self.region.len())
            && self
                .region
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good_region {
            return Err(BadConfig::value(
                "audit.retention.s3.region",
                "not a region",
            ));
        }
        if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&self.timeout) {
            return Err(BadConfig::value(
                "audit.retention.s3.timeout",
                "not between 1s and 10m",
            ));
        }
        Ok(S3 {
            bucket: bucket.to_owned(),
            prefix,
            endpoint,
            region: self.region,
            key_file: self.key_file,
            secret_file: self.secret_file,
            token_file: self.token_file,
            timeout: self.timeout,
        })
    }
}

impl Archive {
    /// For people, and as the name under which its place in the log is kept: another archive begins anew.
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(path) => format!("file://{}", path.display()),
            Self::S3(s3) => format!(
                "s3://{}/{} at {}",
                s3.bucket,
                s3.prefix,
                s3.endpoint.authority()
            ),
        }
    }
}

impl Retention {
    /// The policy in words, as it is published and recorded.
    pub fn describe(&self) -> String {
        let keep = match self.keep {
            None => "events are kept for ever".to_owned(),
            Some(keep) => format!("events are kept for {}", in_words(keep)),
        };
        match &self.archive {
            None => keep,
            Some(archive) => format!("{keep}, archived in {}", archive.describe()),
        }
    }
}

fn in_words(keep: Duration) -> String {
    let secs = keep.as_secs();
    match (secs % 86_400, secs % 3600) {
        (0, _) => format!("{} days", secs / 86_400),
        (_, 0) => format!("{} hours", secs / 3600),
        _ => format!("{secs} seconds"),
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Retention, BadConfig> {
        toml::from_str::<Table>(text).unwrap().check()
    }

    const S3: &str = "archive = \"s3://audit-log/plant\"\n[s3]\nregion = \"eu-central-1\"\nkey_file = \"/k\"\nsecret_file = \"/s\"\n";

    #[test]
    fn what_would_lose_events_or_send_them_astray_is_refused_by_key() {
        for (text, key) in [
            ("keep = \"0s\"", "audit.retention.keep"),
            ("keep = \"400\"", "audit.retention.keep"),
            ("keep = \"10m\"", "audit.retention.keep"),
            ("keep = \"1000y\"", "audit.retention.keep"),
            ("archive = \"/var/x\"", "audit.retention.archive"),
            ("archive = \"file://x\"", "audit.retention.archive"),
            ("archive = \"file:///x/../y\"", "audit.retention.archive"),
            ("archive = \"s3://a\"", "audit.retention.archive"),
            ("archive = \"s3://Bucket/x\"", "audit.retention.archive"),
            ("archive = \"s3://bucket/x\"", "audit.retention.s3"),
        ] {
            match check(text) {
                Err(BadConfig::Value { key: found, .. }) => assert_eq!(found, key, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for (more, key) in [
            ("endpoint = \"s3.example\"", "audit.retention.s3.endpoint"),
            (
                "endpoint = \"http://s3.example\"",
                "audit.retention.s3.endpoint",
            ),
            (
                "endpoint = \"https://u:p@s3.example\"",
                "audit.retention.s3.endpoint",
            ),
            (
                "endpoint = \"https://s3.example/path\"",
                "audit.retention.s3.endpoint",
            ),
            (
                "endpoint = \"http://127.0.0.1:9\"\nca = \"/ca\"",
                "audit.retention.s3.ca",
            ),
            (
                "endpoint = \"https://s3.example\"\ntimeout = \"1ms\"",
                "audit.retention.s3.timeout",
            ),
        ] {
            match check(&format!("{S3}{more}")) {
                Err(BadConfig::Value { key: found, .. }) => assert_eq!(found, key, "{more}"),
                other => panic!("{more}: {other:?}"),
            }
        }
        for prefix in ["../x", "x//y", "./x", "x y"] {
            let text = S3.replace("audit-log/plant", &format!("audit-log/{prefix}"));
            assert!(
                check(&format!("{text}endpoint = \"https://s3.example\"")).is_err(),
                "{prefix}"
            );
        }
        let folder = S3.replace("s3://audit-log/plant", "file:///x");
        assert!(check(&format!("{folder}endpoint = \"https://s3.example\"")).is_err());
    }

    #[test]
    fn without_a_word_everything_is_kept_for_ever() {
        let retention = check("").unwrap();
        assert_eq!(retention, Retention::default());
        assert_eq!(retention.describe(), "events are kept for ever");
    }

    #[test]
    fn the_policy_is_said_in_words() {
        let text = format!("keep = \"400days\"\n{S3}endpoint = \"https://s3.example/\"");
        assert_eq!(
            check(&text).unwrap().describe(),
            "events are kept for 400 days, archived in s3://audit-log/plant/ at s3.example:443"
        );
        let folder = check("keep = \"30d\"\narchive = \"file:///var/lib/archive\"").unwrap();
        assert_eq!(
            folder.describe(),
            "events are kept for 30 days, archived in file:///var/lib/archive"
        );
    }
}
