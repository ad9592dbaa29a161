//! `[[audit.exports]]`: who else gets the audit log, in which form.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use edgeward_audit::event::EventKind;
use edgeward_audit::export::syslog::{DEFAULT_FACILITY, MAX_FACILITY};
use edgeward_runtime::config::BadConfig;
use serde::Deserialize;

use crate::dial::{BadAddress, Endpoint, Roots, Trust};

/// Most exports of one cloud.
const MAX_EXPORTS: usize = 16;
/// Longest name of an export, in bytes.
const MAX_NAME_BYTES: usize = 32;
/// Most events that a receiver is given at once.
const MAX_BATCH: u32 = 1000;
/// Shortest and longest time that a receiver may take.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Least and most bytes of a file before the next is begun.
const MIN_ROTATE: u64 = 10_000;
const MAX_ROTATE: u64 = 100_000_000_000;
/// Most files that are kept beside the one that is written.
const MAX_KEPT: u32 = 1000;
/// Where a collector of OTLP takes logs unless the address says otherwise.
const OTLP_PATH: &str = "/v1/logs";

/// A receiver of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Under which its place in the log is kept: an export with another name begins anew.
    pub name: String,
    pub format: Format,
    pub to: Target,
    /// Only these kinds; none named: all.
    pub kinds: Option<BTreeSet<EventKind>>,
    /// Where a new one begins.
    pub from: Begin,
    /// Of syslog's messages.
    pub facility: u8,
    /// Most events at once.
    pub batch: u32,
    /// How long the receiver may take.
    pub timeout: Duration,
}

/// The form of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    Ocsf,
    Cef,
    Rfc5424,
    Otlp,
}

/// Where a new export begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// With what comes.
    #[default]
    Now,
    /// With the first event of the log.
    Start,
}

/// Who receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    File {
        path: PathBuf,
        /// The next file is begun at so many bytes.
        rotate_bytes: u64,
        /// So many are kept beside it.
        keep: u32,
    },
    /// Syslog messages in counted octets (RFC 5425, RFC 6587).
    Stream(Endpoint),
    Http {
        endpoint: Endpoint,
        path: String,
        /// Holds a bearer token.
        token_file: Option<PathBuf>,
    },
}

/// `[audit]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    exports: Vec<Entry>,
    pub(super) retention: super::retention::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    format: Format,
    to: String,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    from: Begin,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    #[serde(default)]
    plaintext: bool,
    #[serde(default = "default_facility")]
    facility: u8,
    #[serde(default = "default_batch")]
    batch: u32,
    #[serde(
        default = "default_timeout",
        with = "edgeward_runtime::config::duration"
    )]
    timeout: Duration,
    rotate_bytes: Option<u64>,
    keep: Option<u32>,
}

impl Table {
    pub(super) fn check(self) -> Result<Vec<Export>, BadConfig> {
        if self.exports.len() > MAX_EXPORTS {
            return Err(BadConfig::value("audit.exports", "more than 16 exports"));
        }
        let mut names = BTreeSet::new();
        let mut files = BTreeSet::new();
        let mut exports = Vec::new();
        for entry in self.exports {
            let export = entry.check()?;
            if !names.insert(export.name.clone()) {
                return Err(BadConfig::value(
                    "audit.exports.name",
                    format!("given twice: {}", export.name),
                ));
            }
            if let Target::File { path, .. } = &export.to
                && !files.insert(path.clone())
            {
                return Err(BadConfig::value(
                    "audit.exports.to",
                    format!("two exports write {}", path.display()),
                ));
            }
            exports.push(export);
        }
        Ok(exports)
    }
}

impl Entry {
    fn check(self) -> Result<Export, BadConfig> {
        let name_is_good = (1..=MAX_NAME_BYTES).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !name_is_good {
            return Err(BadConfig::value(
                "audit.exports.name",
                "not 1 to 32 of a-z, 0-9 and -",
            ));
        }
        if self.facility > MAX_FACILITY {
            return Err(BadConfig::value("audit.exports.facility", "more than 23"));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(BadConfig::value(
                "audit.exports.batch",
                "not between 1 and 1000",
            ));
        }
        if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&self.timeout) {
            return Err(BadConfig::value(
                "audit.exports.timeout",
                "not between 100ms and 60s",
            ));
        }
        Ok(Export {
            to: self.target()?,
            kinds: kinds(&self.types)?,
            name: self.name,
            format: self.format,
            from: self.from,
            facility: self.facility,
            batch: self.batch,
            timeout: self.timeout,
        })
    }

    fn target(&self) -> Result<Target, BadConfig> {
        let refuse =
            |why: &str| BadConfig::value("audit.exports.to", format!("{why}: {}", self.to));
        let (scheme, rest) = self
            .to
            .split_once("://")
            .ok_or_else(|| refuse("not file, tls, tcp, https or http followed by ://"))?;
        let is_http = matches!(scheme, "https" | "http");
        if self.token_file.is_some() && scheme != "https" {
            return Err(BadConfig::value(
                "audit.exports.token_file",
                "only for https",
            ));
        }
        if (self.format == Format::Otlp) && !is_http {
            return Err(refuse("otlp goes over https or http only"));
        }
        if scheme != "file" && (self.rotate_bytes.is_some() || self.keep.is_some()) {
            return Err(BadConfig::value(
                "audit.exports.rotate_bytes",
                "only for files",
            ));
        }
        match scheme {
            "file" => self.file(rest),
            "tls" | "tcp" => Ok(Target::Stream(self.endpoint(
                rest,
                scheme == "tls",
                None,
            )?)),
            "https" | "http" => {
                let (authority, path) = match rest.find('/') {
                    Some(at) => rest.split_at(at),
                    None => (rest, ""),
                };
                let port = if scheme == "https" { 443 } else { 80 };
                let path = match (path, self.format) {
                    ("" | "/", Format::Otlp) => OTLP_PATH,
                    ("", _) => "/",
                    (path, _) => path,
                };
                if path.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
                    return Err(refuse("not a path"));
                }
                Ok(Target::Http {
                    endpoint: self.endpoint(authority, scheme == "https", Some(port))?,
                    path: path.to_owned(),
                    token_file: self.token_file.clone(),
                })
            }
            _ => Err(refuse("not file, tls, tcp, https or http")),
        }
    }

    fn file(&self, path: &str) -> Result<Target, BadConfig> {
        let rotate_bytes = self.rotate_bytes.unwrap_or(100_000_000);
        let keep = self.keep.unwrap_or(10);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(BadConfig::value(
                "audit.exports.to",
                "file:// needs the whole path of a file",
            ));
        }
        if !(MIN_ROTATE..=MAX_ROTATE).contains(&rotate_bytes) {
            return Err(BadConfig::value(
                "audit.exports.rotate_bytes",
                "not between 10 kB and 100 GB",
            ));
        }
        if !(1..=MAX_KEPT).contains(&keep) {
            return Err(BadConfig::value(
                "audit.exports.keep",
                "not between 1 and 1000",
            ));
        }
        if self.ca.is_some() || self.certificate.is_some() || self.key.is_some() {
            return Err(BadConfig::value("audit.exports.ca", "not for files"));
        }
        Ok(Target::File {
            path: path.into(),
            rotate_bytes,
            keep,
        })
    }

    fn endpoint(
        &self,
        authority: &str,
        tls: bool,
        port: Option<u16>,
    ) -> Result<Endpoint, BadConfig> {
        let refuse =
            |why: String| BadConfig::value("audit.exports.to", format!("{why}: {}", self.to));
        if !tls && (self.ca.is_some() || self.certificate.is_some() || self.key.is_some()) {
            return Err(BadConfig::value(
                "audit.exports.ca",
                "only for tls and https",
            ));
        }
        let trust = if tls { Some(self.trust()?) } else { None };
        let endpoint = Endpoint::read(authority, port, trust).map_err(|error| match error {
            // It would be repeated with the address.
            BadAddress::Secret => BadConfig::value(
                "audit.exports.to",
                format!("{error} (token_file, certificate)"),
            ),
            BadAddress::Port | BadAddress::Host => refuse(error.to_string()),
        })?;
        if !tls && !endpoint.is_here() && !self.plaintext {
            return Err(refuse(
                "events would travel in the clear (say plaintext = true if they may)".to_owned(),
            ));
        }
        Ok(endpoint)
    }

    fn trust(&self) -> Result<Trust, BadConfig> {
        let ca = self.ca.clone().ok_or_else(|| {
            BadConfig::value(
                "audit.exports.ca",
                "needed for tls and https: who may have signed the server's certificate",
            )
        })?;
        let client = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(BadConfig::value(
                    "audit.exports.key",
                    "certificate and key belong together",
                ));
            }
        };
        Ok(Trust {
            roots: Roots::File(ca),
            client,
        })
    }
}

/// Kinds named one by one or by family (`node.*`).
fn kinds(named: &[String]) -> Result<Option<BTreeSet<EventKind>>, BadConfig> {
    if named.is_empty() {
        return Ok(None);
    }
    let mut kinds = BTreeSet::new();
    for name in named {
        let before = kinds.len();
        match name.strip_suffix(".*") {
            Some(family) => {
                kinds.extend(EventKind::ALL.iter().filter(|kind| kind.family() == family))
            }
            None => kinds.extend(name.parse::<EventKind>().ok()),
        }
        if kinds.len() == before {
            return Err(BadConfig::value(
                "audit.exports.types",
                format!("no such type, or named twice: {name}"),
            ));
        }
    }
    Ok(Some(kinds))
}

fn default_facility() -> u8 {
    DEFAULT_FACILITY
}

fn default_batch() -> u32 {
    500
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

impl Target {
    /// For people: where it goes.
    pub fn describe(&self) -> String {
        let scheme = |endpoint: &Endpoint, tls: &str, clear: &str| match endpoint.tls {
            Some(_) => tls.to_owned(),
            None => clear.to_owned(),
        };
        match self {
            Self::File { path, .. } => format!("file://{}", path.display()),
            Self::Stream(endpoint) => format!(
                "{}://{}",
                scheme(endpoint, "tls", "tcp"),
                endpoint.authority()
            ),
            Self::Http { endpoint, path, .. } => {
                // A query may hold what is nobody's business.
                let path = path.split('?').next().unwrap_or(path);
                format!(
                    "{}://{}{path}",
                    scheme(endpoint, "https", "http"),
                    endpoint.authority()
                )
            }
        }
    }
}

impl Format {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
            Self::Rfc5424 => "rfc5424",
            Self::Otlp => "otlp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<Export>, BadConfig> {
        toml::from_str::<Table>(text).unwrap().check()
    }

    fn one(more: &str) -> Result<Vec<Export>, BadConfig> {
        check(&format!("[[exports]]\nname = \"siem\"\n{more}\n"))
    }

    #[test]
    fn what_would_send_events_astray_is_refused_by_key() {
        let json = "format = \"json\"\n";
        for (more, key) in [
            ("to = \"/var/log/x\"", "audit.exports.to"),
            ("to = \"udp://h:1\"", "audit.exports.to"),
            ("to = \"file://x\"", "audit.exports.to"),
            ("to = \"file:///x/\"", "audit.exports.to"),
            ("to = \"file:///x\"\nkeep = 0", "audit.exports.keep"),
            (
                "to = \"file:///x\"\nrotate_bytes = 1",
                "audit.exports.rotate_bytes",
            ),
            ("to = \"file:///x\"\nca = \"/ca\"", "audit.exports.ca"),
            ("to = \"tcp://10.0.0.1:601\"", "audit.exports.to"),
            ("to = \"tcp://127.0.0.1\"", "audit.exports.to"),
            ("to = \"tcp://127.0.0.1:0\"", "audit.exports.to"),
            (
                "to = \"tcp://127.0.0.1:601\"\nca = \"/ca\"",
                "audit.exports.ca",
            ),
            ("to = \"tls://logs.example:6514\"", "audit.exports.ca"),
            (
                "to = \"tls://logs.example:6514\"\nca = \"/ca\"\nkey = \"/k\"",
                "audit.exports.key",
            ),
            (
                "to = \"tls://logs.example:6514\"\nca = \"/ca\"\nkeep = 2",
                "audit.exports.rotate_bytes",
            ),
            (
                "to = \"https://u:p@logs.example/\"\nca = \"/ca\"",
                "audit.exports.to",
            ),
            (
                "to = \"http://localhost/\"\ntoken_file = \"/t\"",
                "audit.exports.token_file",
            ),
            ("to = \"http://localhost/a b\"", "audit.exports.to"),
            (
                "to = \"file:///x\"\ntypes = [\"nothing.*\"]",
                "audit.exports.types",
            ),
            ("to = \"file:///x\"\nbatch = 0", "audit.exports.batch"),
            (
                "to = \"file:///x\"\ntimeout = \"1ms\"",
                "audit.exports.timeout",
            ),
            (
                "to = \"file:///x\"\nfacility = 24",
                "audit.exports.facility",
            ),
        ] {
            match one(&format!("{json}{more}")) {
                Err(BadConfig::Value { key: found, .. }) => assert_eq!(found, key, "{more}"),
                other => panic!("{more}: {other:?}"),
            }
        }
        assert!(one("format = \"otlp\"\nto = \"file:///x\"").is_err());
        assert!(check("[[exports]]\nname = \"A\"\nformat = \"json\"\nto = \"file:///x\"").is_err());
        let twice = "[[exports]]\nname = \"a\"\nformat = \"json\"\nto = \"file:///x\"\n";
        assert!(check(&format!("{twice}{twice}")).is_err());
        assert!(check(&format!("{twice}{}", twice.replace("\"a\"", "\"b\""))).is_err());
    }

    #[test]
    fn receivers_are_read_as_they_are_written() {
        let tls =
            one("format = \"rfc5424\"\nto = \"tls://logs.example:6514\"\nca = \"/ca\"").unwrap();
        assert_eq!(tls[0].to.describe(), "tls://logs.example:6514");
        assert_eq!(
            (tls[0].batch, tls[0].from, tls[0].facility),
            (500, Begin::Now, 13)
        );
        let v6 = one("format = \"otlp\"\nto = \"http://[::1]:4318\"").unwrap();
        assert_eq!(v6[0].to.describe(), "http://[::1]:4318/v1/logs");
        let https = one("format = \"ocsf\"\nto = \"https://siem.example/in?k=1\"\nca = \"/ca\"\ntypes = [\"node.*\"]").unwrap();
        assert_eq!(https[0].to.describe(), "https://siem.example:443/in");
        let kinds = https[0].kinds.as_ref().unwrap();
        assert!(kinds.contains(&EventKind::NodeCloned) && !kinds.contains(&EventKind::TokenUsed));
        assert!(check("").unwrap().is_empty());
    }
}
