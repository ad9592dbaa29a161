//! `[alerts]`: rules over the audit log, and who is told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use edgeward_runtime::config::BadConfig;
use serde::Deserialize;

use crate::alerts::Severity;
use crate::dial::{Endpoint, Roots, Trust};

/// Most sinks.
const MAX_SINKS: usize = 16;
/// Longest name of a sink, in bytes.
const MAX_NAME_BYTES: usize = 32;
/// Longest address or path, in bytes.
const MAX_URL_BYTES: usize = 1024;
/// The most that an hour's automatic quarantines can be set to.
const MAX_PER_HOUR: u32 = 1000;
/// Highest facility of RFC 5424, and "log alert" in it.
const MAX_FACILITY: u8 = 23;
const LOG_ALERT: u8 = 14;

/// Alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// A folder of rules: `*.toml`, read in the order of their names.
    pub rules: Option<PathBuf>,
    /// Whether the rules that come with the program are in force, too.
    pub defaults: bool,
    /// Whether rules may quarantine. False: they say whom they would have.
    pub quarantine: bool,
    /// How many nodes within an hour; absent: 2 % of the active ones, 1 to 10.
    pub quarantine_per_hour: Option<u32>,
    pub sinks: Vec<Sink>,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    pub name: String,
    /// From this severity on.
    pub least: Severity,
    pub to: Target,
}

/// How.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A signed `POST` of JSON.
    Webhook {
        server: Endpoint,
        path: String,
        /// Holds the secret that signs.
        secret: PathBuf,
    },
    /// RFC 5424 over TCP, octets counted.
    Syslog { server: Endpoint, facility: u8 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    rules: Option<PathBuf>,
    defaults: bool,
    quarantine: bool,
    quarantine_per_hour: Option<u32>,
    sinks: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    to: String,
    least: Option<Severity>,
    ca: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    facility: Option<u8>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            rules: None,
            defaults: true,
            quarantine: true,
            quarantine_per_hour: None,
            sinks: Vec::new(),
        }
    }
}

impl Table {
    pub(super) fn check(self) -> Result<Alerts, BadConfig> {
        if self
            .quarantine_per_hour
            .is_some_and(|most| most > MAX_PER_HOUR)
        {
            return Err(BadConfig::value(
                "alerts.quarantine_per_hour",
                "more than 1000",
            ));
        }
        if self.sinks.len() > MAX_SINKS {
            return Err(BadConfig::value("alerts.sinks", "more than 16 sinks"));
        }
        let mut names = BTreeSet::new();
        let mut sinks = Vec::new();
        for entry in self.sinks {
            let sink = entry.check()?;
            if !names.insert(sink.name.clone()) {
                let message = format!("given twice: {}", sink.name);
                return Err(BadConfig::value("alerts.sinks.name", message));
            }
            sinks.push(sink);
        }
        Ok(Alerts {
            rules: self.rules,
            defaults: self.defaults,
            quarantine: self.quarantine,
            quarantine_per_hour: self.quarantine_per_hour,
            sinks,
        })
    }
}

impl Entry {
    fn check(self) -> Result<Sink, BadConfig> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !(1..=MAX_NAME_BYTES).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(BadConfig::value(
                "alerts.sinks.name",
                "not 1 to 32 of a-z, 0-9 and -",
            ));
        }
        let to = self.target()?;
        Ok(Sink {
            name: self.name,
            least: self.least.unwrap_or(Severity::Notice),
            to,
        })
    }

    fn target(&self) -> Result<Target, BadConfig> {
        let refuse = |why: &str| self.refuse(&why);
        let fits = self.to.len() <= MAX_URL_BYTES && self.to.bytes().all(|b| b.is_ascii_graphic());
        let (scheme, rest) = self
            .to
            .split_once("://")
            .filter(|_| fits)
            .ok_or_else(|| refuse("not https, http, tls or tcp followed by ://"))?;
        let (is_http, is_tls, port) = match scheme {
            "https" => (true, true, Some(443)),
            "http" => (true, false, Some(80)),
            "tls" => (false, true, Some(6514)),
            "tcp" => (false, false, None),
            _ => return Err(refuse("not https, http, tls or tcp")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) if is_http => rest.split_at(at),
            Some(_) => return Err(refuse("a path makes no sense here")),
            None => (rest, "/"),
        };
        let server = self.server(authority, is_tls, port)?;
        if !is_http {
            if self.secret_file.is_some() {
                return Err(BadConfig::value(
                    "alerts.sinks.secret_file",
                    "only for https and http",
                ));
            }
            let facility = self.facility.unwrap_or(LOG_ALERT);
            if facility > MAX_FACILITY {
                return Err(BadConfig::value("alerts.sinks.facility", "more than 23"));
            }
            return Ok(Target::Syslog { server, facility });
        }
        if self.facility.is_some() {
            return Err(BadConfig::value(
                "alerts.sinks.facility",
                "only for tls and tcp",
            ));
        }
        let secret = self.secret_file.clone().ok_or_else(|| {
            BadConfig::value(
                "alerts.sinks.secret_file",
                "needed for https and http: the receiver must know who speaks",
            )
        })?;
        Ok(Target::Webhook {
            server,
            path: path.to_owned(),
            secret,
        })
    }

    /// Repeats neither the path, which is the secret of many receivers, nor a password.
    fn refuse(&self, why: &dyn std::fmt::Display) -> BadConfig {
        let authority = match self.to.split_once("://") {
            Some((_, rest)) => rest.split('/').next().unwrap_or(rest),
            None => &self.to,
        };
        let host = authority.rsplit('@').next().unwrap_or(authority);
        BadConfig::value("alerts.sinks.to", format!("{why}: {host}"))
    }

    fn server(&self, authority: &str, tls: bool, port: Option<u16>) -> Result<Endpoint, BadConfig> {
        if !tls && self.ca.is_some() {
            return Err(BadConfig::value(
                "alerts.sinks.ca",
                "only for https and tls",
            ));
        }
        let roots = self.ca.clone().map_or(Roots::System, Roots::File);
        let trust = tls.then_some(Trust {
            roots,
            client: None,
        });
        let server = Endpoint::read(authority, port, trust).map_err(|error| self.refuse(&error))?;
        match !tls && !server.is_here() {
            true => Err(self.refuse(&"without tls only on this machine")),
            false => Ok(server),
        }
    }
}

impl Target {
    /// As it is shown to operators: without what is secret in a path.
    pub fn shown(&self) -> String {
        let scheme = |server: &Endpoint, tls: &'static str, clear: &'static str| match server.tls {
            Some(_) => tls,
            None => clear,
        };
        match self {
            Self::Webhook { server, .. } => {
                format!(
                    "{}://{}",
                    scheme(server, "https", "http"),
                    server.authority()
                )
            }
            Self::Syslog { server, .. } => {
                format!("{}://{}", scheme(server, "tls", "tcp"), server.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Alerts, String> {
        toml::from_str::<Table>(text)
            .map_err(|error| error.to_string())?
            .check()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_would_tell_nobody_or_everybody_is_refused() {
        for (entry, why) in [
            ("to = 'https://hooks.example/x'", "secret_file"),
            (
                "to = 'http://hooks.example/x'\nsecret_file = 's'",
                "without tls",
            ),
            ("to = 'tcp://siem.example:514'", "without tls"),
            ("to = 'tcp://127.0.0.1'", "no port"),
            ("to = 'tls://siem.example/x'", "path"),
            ("to = 'udp://siem.example:514'", "not https"),
            (
                "to = 'https://u:p@h/x'\nsecret_file = 's'",
                "no user and password belong here: h",
            ),
            ("to = 'siem.example'", "not https"),
            (
                "to = 'tls://siem.example'\nsecret_file = 's'",
                "secret_file",
            ),
            ("to = 'tls://siem.example'\nfacility = 24", "facility"),
            (
                "to = 'https://h'\nsecret_file = 's'\nfacility = 1",
                "facility",
            ),
            (
                "to = 'http://localhost/x'\nsecret_file = 's'\nca = 'c'",
                "ca",
            ),
            ("to = 'https://a b/x'\nsecret_file = 's'", "not https"),
            ("to = 'https://h:0/x'\nsecret_file = 's'", "no port"),
            (
                "to = 'tls://siem.example'\nleast = 'loud'",
                "unknown variant",
            ),
        ] {
            let error = check(&format!("[[sinks]]\nname = 'a'\n{entry}\n")).unwrap_err();
            assert!(error.contains(why), "{entry}: {error}");
        }
        let twice = "[[sinks]]\nname = 'a'\nto = 'tls://h'\n".repeat(2);
        assert!(check(&twice).unwrap_err().contains("twice"));
        assert!(check("[[sinks]]\nname = 'A'\nto = 'tls://h'\n").is_err());
        assert!(check("quarantine_per_hour = 1001").is_err());
    }

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let alerts = check(
            "[[sinks]]\nname = 'hook'\nto = 'https://hooks.example/T0/B1'\nsecret_file = '/s'\n\
             [[sinks]]\nname = 'siem'\nto = 'tls://[2001:db8::1]'\nca = '/ca.pem'\nleast = 'critical'\n\
             [[sinks]]\nname = 'here'\nto = 'tcp://[::1]:1514'\n",
        )
        .unwrap();
        assert!(alerts.defaults && alerts.quarantine);
        let shown: Vec<String> = alerts.sinks.iter().map(|sink| sink.to.shown()).collect();
        assert_eq!(
            shown,
            [
                "https://hooks.example:443",
                "tls://[2001:db8::1]:6514",
                "tcp://[::1]:1514"
            ]
        );
        assert_eq!(alerts.sinks[1].least, Severity::Critical);
    }
}
