//! `[witness]`: whose logs this cloud cosigns, and who cosigns its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use edgeward_audit::checkpoint::MAX_ORIGIN_BYTES;
use edgeward_audit::cosignature::WitnessKey;
use edgeward_audit::note::NoteVerifier;
use edgeward_identity::TrustDomain;
use edgeward_runtime::config::BadConfig;
use serde::Deserialize;

use crate::dial::{Endpoint, Roots, Trust};

/// Most logs of others that one cloud witnesses.
const MAX_LOGS: usize = 256;
/// Most keys of one log.
const MAX_KEYS: usize = 4;
/// Most witnesses that are asked: their lines must fit under one note.
const MAX_ASKED: usize = 16;
/// Most checkpoints of one log that are cosigned in a minute.
const MAX_PER_MINUTE: u32 = 6000;
/// Shortest and longest time from one checkpoint that is submitted to the next.
const MIN_EVERY: Duration = Duration::from_millis(100);
const MAX_EVERY: Duration = Duration::from_secs(3600);

/// A checked table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Logs of others, by name.
    pub logs: BTreeMap<String, WitnessedLog>,
    pub ask: Vec<Asked>,
    /// Least time from one submission to the next.
    pub every: Duration,
}

/// A log of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedLog {
    /// Any of them may sign.
    pub keys: Vec<NoteVerifier>,
    /// So many of its checkpoints are cosigned in a minute.
    pub per_minute: u32,
}

/// A witness of the own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub key: WitnessKey,
    pub endpoint: Endpoint,
    /// Of the submission, on the server.
    pub path: String,
    /// Another Edgeward cloud: known by its SPIFFE ID under the roots of this bundle, not by the web's.
    pub cloud: Option<(TrustDomain, PathBuf)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    log: Vec<LogEntry>,
    ask: Vec<AskEntry>,
    #[serde(with = "edgeward_runtime::config::duration")]
    every: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogEntry {
    key: String,
    origin: Option<String>,
    #[serde(default = "default_per_minute")]
    per_minute: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskEntry {
    url: String,
    key: String,
    bundle: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    plaintext: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            ask: Vec::new(),
            every: Duration::from_secs(1),
        }
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            ask: Vec::new(),
            every: Duration::from_secs(1),
        }
    }
}

impl Table {
    /// `own` is the name of the own log: nobody is a witness to themselves.
    pub(super) fn check(self, own: &str) -> Result<Witness, BadConfig> {
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            return Err(BadConfig::value(
                "witness.every",
                "not between 100ms and 1h",
            ));
        }
        if self.ask.len() > MAX_ASKED {
            return Err(BadConfig::value("witness.ask", "more than 16 witnesses"));
        }
        let mut ask: Vec<Asked> = Vec::new();
        for entry in self.ask {
            let asked = entry.check()?;
            if ask.iter().any(|other| other.key.key() == asked.key.key()) {
                let twice = format!("given twice: {}", asked.key.name());
                return Err(BadConfig::value("witness.ask.key", twice));
            }
            ask.push(asked);
        }
        Ok(Witness {
            logs: logs(self.log, own)?,
            ask,
            every: self.every,
        })
    }
}

fn logs(entries: Vec<LogEntry>, own: &str) -> Result<BTreeMap<String, WitnessedLog>, BadConfig> {
    let mut logs: BTreeMap<String, WitnessedLog> = BTreeMap::new();
    for entry in entries {
        let refuse =
            |why: &str| BadConfig::value("witness.log.key", format!("{why}: {}", entry.key));
        let key = NoteVerifier::parse(&entry.key)
            .map_err(|_| refuse("not a log's ed25519 key (<name>+<id>+<key>)"))?;
        let origin = entry.origin.clone().unwrap_or(key.name().to_owned());
        if origin.is_empty() || origin.len() > MAX_ORIGIN_BYTES || origin.contains(char::is_control)
        {
            return Err(BadConfig::value("witness.log.origin", "not a log's name"));
        }
        if origin == own {
            return Err(refuse("nobody is a witness to their own log"));
        }
        if !(1..=MAX_PER_MINUTE).contains(&entry.per_minute) {
            return Err(BadConfig::value(
                "witness.log.per_minute",
                "not between 1 and 6000",
            ));
        }
        let log = logs.entry(origin).or_insert_with(|| WitnessedLog {
            keys: Vec::new(),
            per_minute: entry.per_minute,
        });
        if log.keys.contains(&key) {
            return Err(refuse("given twice"));
        }
        if log.keys.len() >= MAX_KEYS {
            return Err(refuse("more than 4 keys of one log"));
        }
        log.keys.push(key);
    }
    match logs.len() > MAX_LOGS {
        true => Err(BadConfig::value("witness.log", "more than 256 logs")),
        false => Ok(logs),
    }
}

impl AskEntry {
    fn check(self) -> Result<Asked, BadConfig> {
        let refuse =
            |why: &str| BadConfig::value("witness.ask.url", format!("{why}: {}", self.url));
        let key = WitnessKey::parse(&self.key).map_err(|_| {
            let why = "not a witness's ed25519 key, type 4 (<name>+<id>+<key>)";
            BadConfig::value("witness.ask.key", format!("{why}: {}", self.key))
        })?;
        let (scheme, rest) = self
            .url
            .split_once("://")
            .ok_or_else(|| refuse("not https or http followed by ://"))?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(refuse("not https or http")),
        };
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if prefix
            .bytes()
            .any(|b| !b.is_ascii_graphic() || matches!(b, b'#' | b'?'))
        {
            return Err(refuse("not a path"));
        }
        if !is_tls && (self.ca.is_some() || self.bundle.is_some()) {
            return Err(BadConfig::value("witness.ask.ca", "only for https"));
        }
        if self.ca.is_some() && self.bundle.is_some() {
            let why = "a server is known by ca or by bundle, not by both";
            return Err(BadConfig::value("witness.ask.bundle", why));
        }
        let roots = self.ca.clone().map_or(Roots::System, Roots::File);
        let trust = is_tls.then_some(Trust {
            roots,
            client: None,
        });
        let port = if is_tls { 443 } else { 80 };
        // Whose error says what is wrong repeats nothing of it.
        let endpoint = Endpoint::read(authority, Some(port), trust)
            .map_err(|error| BadConfig::value("witness.ask.url", error.to_string()))?;
        if !is_tls && !endpoint.is_here() && !self.plaintext {
            return Err(refuse(
                "without tls whoever is between learns and delays what goes on (say plaintext = true if they may)",
            ));
        }
        let cloud = match &self.bundle {
            Some(bundle) => Some((domain_of(&key)?, bundle.clone())),
            None => None,
        };
        Ok(Asked {
            path: format!("{}/add-checkpoint", prefix.trim_end_matches('/')),
            endpoint,
            key,
            cloud,
        })
    }
}

/// A cloud's name as a witness begins with its trust domain.
fn domain_of(key: &WitnessKey) -> Result<TrustDomain, BadConfig> {
    let domain = key.name().split('/').next().unwrap_or_default();
    TrustDomain::new(domain).map_err(|error| {
        let why = format!("the key's name begins with no trust domain: {error}");
        BadConfig::value("witness.ask.bundle", why)
    })
}

fn default_per_minute() -> u32 {
    120
}

#[cfg(test)]
mod tests {
    use edgeward_audit::cosignature::Cosigner;
    use edgeward_audit::note::NoteSigner;

    use super::*;

    const OWN: &str = "plant.example/audit";

    fn check(text: &str) -> Result<Witness, String> {
        toml::from_str::<Table>(text)
            .map_err(|error| error.to_string())?
            .check(OWN)
            .map_err(|error| error.to_string())
    }

    fn log_key(name: &str) -> String {
        let signer = NoteSigner::new(name, &NoteSigner::generate().unwrap()).unwrap();
        signer.verifier().to_string()
    }

    fn witness_key(name: &str) -> String {
        let signer = Cosigner::new(name, &NoteSigner::generate().unwrap()).unwrap();
        signer.key().to_string()
    }

    #[test]
    fn what_would_vouch_for_nothing_is_refused() {
        let (log, own, witness) = (log_key("o.example/audit"), log_key(OWN), witness_key("w/1"));
        for (text, why) in [
            ("every = '1ms'".to_owned(), "every"),
            (format!("[[log]]\nkey = '{witness}'"), "not a log's"),
            (format!("[[log]]\nkey = '{own}'"), "their own log"),
            (
                format!("[[log]]\nkey = '{log}'\norigin = '{OWN}'"),
                "their own log",
            ),
            (format!("[[log]]\nkey = '{log}'\norigin = ''"), "origin"),
            (
                format!("[[log]]\nkey = '{log}'\nper_minute = 0"),
                "per_minute",
            ),
            (format!("[[log]]\nkey = '{log}'\n").repeat(2), "given twice"),
            (
                format!("[[ask]]\nurl = 'https://w'\nkey = '{log}'"),
                "not a witness's",
            ),
            (
                format!("[[ask]]\nurl = 'w'\nkey = '{witness}'"),
                "not https",
            ),
            (
                format!("[[ask]]\nurl = 'ftp://w'\nkey = '{witness}'"),
                "not https",
            ),
            (
                format!("[[ask]]\nurl = 'https://w/a?b'\nkey = '{witness}'"),
                "not a path",
            ),
            (
                format!("[[ask]]\nurl = 'https://u:p@w'\nkey = '{witness}'"),
                "no user",
            ),
            (
                format!("[[ask]]\nurl = 'http://w'\nkey = '{witness}'"),
                "plaintext",
            ),
            (
                format!("[[ask]]\nurl = 'http://localhost'\nca = 'c'\nkey = '{witness}'"),
                "only for https",
            ),
            (
                format!("[[ask]]\nurl = 'https://w'\nca = 'c'\nbundle = 'b'\nkey = '{witness}'"),
                "not by both",
            ),
            (
                format!(
                    "[[ask]]\nurl = 'https://w'\nbundle = 'b'\nkey = '{}'",
                    witness_key("A b".replace(' ', "_").as_str())
                ),
                "no trust domain",
            ),
            (
                format!("[[ask]]\nurl = 'https://w'\nkey = '{witness}'\n").repeat(2),
                "given twice",
            ),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn logs_and_witnesses_are_read_with_their_defaults() {
        let (a, b) = (log_key("o.example/audit"), log_key("o.example/audit"));
        let witness = check(&format!(
            "[[log]]\nkey = '{a}'\n[[log]]\nkey = '{b}'\n[[log]]\nkey = '{a}'\norigin = 'other'\nper_minute = 6\n\
             [[ask]]\nurl = 'https://w.example:7443/witness/v0/'\nbundle = '/b.json'\nkey = '{}'\n\
             [[ask]]\nurl = 'http://[::1]:8080'\nkey = '{}'\n",
            witness_key("w.example/witness"),
            witness_key("x.example/1")
        ))
        .unwrap();
        assert_eq!(witness.every, Duration::from_secs(1));
        assert_eq!(witness.logs["o.example/audit"].keys.len(), 2);
        assert_eq!(witness.logs["o.example/audit"].per_minute, 120);
        assert_eq!(witness.logs["other"].per_minute, 6);
        let [first, second] = witness.ask.as_slice() else {
            panic!("two are asked");
        };
        assert_eq!(first.path, "/witness/v0/add-checkpoint");
        assert_eq!(first.cloud.as_ref().unwrap().0.as_str(), "w.example");
        assert_eq!(second.path, "/add-checkpoint");
        assert_eq!((second.endpoint.port, &second.endpoint.tls), (8080, &None));
        assert_eq!(check(""), Ok(Witness::default()));
    }
}
