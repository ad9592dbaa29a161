//! The cloud's one configuration file, `edgeward.toml`.
//!
//! Every key has an environment twin: `listen` is `EDGEWARD_LISTEN`, `interval` in `[attest]` is
//! `EDGEWARD_ATTEST__INTERVAL`. Durations carry their unit (`"60s"`). Unknown keys are refused with file and line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_identity::{Kind, SpiffeId, TrustDomain};
use edgeward_runtime::config::{self, BadConfig, Twins};
use edgeward_wire::limits::ENROL_DEADLINE;
use serde::Deserialize;

use crate::keys::notes::log_origin;
use crate::keys::stores::KeyStores;
use crate::store::Database;

pub mod alerts;
mod apps;
pub mod exports;
pub mod retention;
pub mod witness;

pub use alerts::Alerts;
pub use apps::Apps;
pub use witness::Witness;

/// Environment variables that belong to other programs of ours, not to this file.
const TWINS: Twins = Twins {
    prefix: "EDGEWARD_",
    except: &[
        "EDGEWARD_CONFIG",
        "EDGEWARD_LOG",
        "EDGEWARD_AGENT_",
        "EDGEWARD_VECTORS",
        "EDGEWARD_CONTEXT",
        "EDGEWARD_CLOUD",
        "EDGEWARD_OUTPUT",
        "EDGEWARD_COLOR",
        "EDGEWARD_API_KEY",
        "EDGEWARD_TEST",
    ],
};
/// Shortest attestation interval: a TPM needs its time, and so does the verifier.
const MIN_ATTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Longest attestation interval.
const MAX_ATTEST_INTERVAL: Duration = Duration::from_secs(3600);
/// Longest life of a bootstrap token.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Most automatic recoveries of one node within their window.
const MAX_AUTOMATIC: u32 = 1000;
/// Shortest and longest window in which recoveries are counted.
const MIN_RECOVER_WINDOW: Duration = Duration::from_secs(3600);
const MAX_RECOVER_WINDOW: Duration = Duration::from_secs(366 * 86_400);
/// Least and most that one node may send through the relay, in bytes a second.
const MIN_RELAYED: u64 = 10_000;
const MAX_RELAYED: u64 = 1_000_000_000;
/// The value of `stun_listen` that means: no server.
const NO_STUN: &str = "off";
/// Most addresses that a bootstrap token names.
const MAX_ADVERTISED: usize = 8;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub trust_domain: TrustDomain,
    /// `spiffe://<trust domain>/cloud/<name>`.
    pub id: SpiffeId,
    pub listen: SocketAddr,
    /// UDP address of the STUN server; `None`: there is none, and no agent learns its address from here.
    pub stun: Option<SocketAddr>,
    /// `host:port` at which nodes and operators reach this cloud; what tokens name. Never empty.
    pub advertise: Vec<String>,
    pub data: PathBuf,
    pub database: Database,
    /// Loopback only.
    pub metrics: SocketAddr,
    /// A folder of vendor roots: `<tier>/*.pem`.
    pub ek_roots: PathBuf,
    pub attest: Attest,
    /// Where keys are kept.
    pub keys: KeyStores,
    pub svid_max_lifetime: Duration,
    pub token: TokenDefaults,
    pub recover: Recover,
    pub relay: Relay,
    pub apps: Apps,
    pub alerts: Alerts,
    /// Who else gets the audit log.
    pub exports: Vec<exports::Export>,
    /// Whose logs this cloud cosigns, and who cosigns its own.
    pub witness: Witness,
    /// For how long events are kept, and where they are archived.
    pub retention: retention::Retention,
    /// Whether every new node waits for an operator's approval.
    pub approval: bool,
    /// How long one attempt to enrol may take: a token's reservation lasts as long.
    pub enrol_deadline: Duration,
}

/// When evidence is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attest {
    /// Mean time between challenges.
    #[serde(with = "edgeward_runtime::config::duration")]
    pub interval: Duration,
    /// A challenge comes at a random moment within this before or after the interval.
    #[serde(with = "edgeward_runtime::config::duration")]
    pub jitter: Duration,
    /// How long an answer may take, twice; then the node is stale.
    #[serde(with = "edgeward_runtime::config::duration")]
    pub deadline: Duration,
}

/// Carrying datagrams of nodes that have no other way to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    pub enabled: bool,
    /// What one node may send through it, in bytes a second; ten seconds' worth at once.
    pub bytes_per_second: u64,
}

/// How often a node may come back by its EK alone, without a token or an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recover {
    /// At most so many recoveries of one node within `per`; 0: each waits for an operator's approval.
    pub automatic: u32,
    #[serde(with = "edgeward_runtime::config::duration")]
    pub per: Duration,
}

/// What a bootstrap token gets where its maker says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenDefaults {
    #[serde(with = "edgeward_runtime::config::duration")]
    pub ttl: Duration,
    pub uses: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    trust_domain: TrustDomain,
    #[serde(default = "default_name")]
    name: String,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    stun_listen: Option<String>,
    #[serde(default)]
    advertise: Vec<String>,
    #[serde(default = "default_data")]
    data_dir: PathBuf,
    database: Option<String>,
    #[serde(default = "default_metrics")]
    metrics_listen: SocketAddr,
    ek_roots: Option<PathBuf>,
    #[serde(default)]
    attest: Attest,
    #[serde(default)]
    keys: KeyStores,
    #[serde(default)]
    svid: SvidBounds,
    #[serde(default)]
    token: TokenDefaults,
    #[serde(default)]
    recover: Recover,
    #[serde(default)]
    relay: Relay,
    #[serde(default)]
    apps: apps::Table,
    #[serde(default)]
    alerts: alerts::Table,
    #[serde(default)]
    audit: exports::Table,
    #[serde(default)]
    witness: witness::Table,
    #[serde(default)]
    enrol: Enrol,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SvidBounds {
    #[serde(with = "edgeward_runtime::config::duration")]
    max_lifetime: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Enrol {
    approval: bool,
    #[serde(with = "edgeward_runtime::config::duration")]
    deadline: Duration,
}

impl Config {
    /// Reads and checks `path` with the process's environment. Opens nothing.
    pub fn load(path: &Path) -> Result<Self, BadConfig> {
        Self::check(config::load(path, TWINS)?)
    }

    /// As [`Config::load`], with the environment handed in.
    pub fn load_with(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, BadConfig> {
        Self::check(config::load_with(path, TWINS, environment)?)
    }

    fn check(mut file: File) -> Result<Self, BadConfig> {
        let id = SpiffeId::new(&file.trust_domain, Kind::Cloud, &file.name)
            .map_err(|error| BadConfig::value("name", error.to_string()))?;
        let database = match &file.database {
            None => Database::file(file.data_dir.join("edgeward.db")),
            Some(text) => text.parse().map_err(|error: crate::store::StoreError| {
                BadConfig::value("database", error.to_string())
            })?,
        };
        if !file.metrics_listen.ip().is_loopback() {
            return Err(BadConfig::value("metrics_listen", "not a loopback address"));
        }
        check_attest(&file.attest)?;
        if file.svid.max_lifetime < edgeward_policy::slice::MIN_SVID_LIFETIME.as_duration() {
            return Err(BadConfig::value("svid.max_lifetime", "less than 24h"));
        }
        if file.token.ttl.is_zero() || file.token.ttl > MAX_TOKEN_TTL {
            return Err(BadConfig::value("token.ttl", "zero or more than 30 days"));
        }
        if file.token.uses == 0 {
            return Err(BadConfig::value("token.uses", "zero"));
        }
        if file.enrol.deadline.is_zero() || file.enrol.deadline > ENROL_DEADLINE {
            return Err(BadConfig::value("enrol.deadline", "zero or more than 2m"));
        }
        if file.recover.automatic > MAX_AUTOMATIC {
            return Err(BadConfig::value("recover.automatic", "more than 1000"));
        }
        if file.recover.per < MIN_RECOVER_WINDOW || file.recover.per > MAX_RECOVER_WINDOW {
            return Err(BadConfig::value(
                "recover.per",
                "not between 1h and 366 days",
            ));
        }
        if !(MIN_RELAYED..=MAX_RELAYED).contains(&file.relay.bytes_per_second) {
            return Err(BadConfig::value(
                "relay.bytes_per_second",
                "not between 10 kB and 1 GB",
            ));
        }
        Ok(Self {
            apps: file.apps.check(&file.data_dir)?,
            alerts: file.alerts.check()?,
            retention: std::mem::take(&mut file.audit.retention).check()?,
            exports: file.audit.check()?,
            witness: file.witness.check(&log_origin(&file.trust_domain))?,
            stun: stun(file.stun_listen.as_deref(), file.listen)?,
            advertise: advertised(file.advertise, file.listen)?,
            ek_roots: file
                .ek_roots
                .unwrap_or_else(|| file.data_dir.join("ek-roots")),
            trust_domain: file.trust_domain,
            id,
            listen: file.listen,
            data: file.data_dir,
            database,
            metrics: file.metrics_listen,
            attest: file.attest,
            keys: file.keys,
            svid_max_lifetime: file.svid.max_lifetime,
            token: file.token,
            recover: file.recover,
            relay: file.relay,
            approval: file.enrol.approval,
            enrol_deadline: file.enrol.deadline,
        })
    }
}

impl Default for Attest {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            jitter: Duration::from_secs(10),
            deadline: edgeward_wire::limits::CHALLENGE_DEADLINE,
        }
    }
}

impl Default for Enrol {
    fn default() -> Self {
        Self {
            approval: false,
            deadline: ENROL_DEADLINE,
        }
    }
}

impl Default for TokenDefaults {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            uses: 1,
        }
    }
}

impl Default for Recover {
    fn default() -> Self {
        Self {
            automatic: 3,
            per: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_per_second: 1_000_000,
        }
    }
}

impl Default for SvidBounds {
    fn default() -> Self {
        Self {
            max_lifetime: Duration::from_secs(30 * 86_400),
        }
    }
}

fn check_attest(attest: &Attest) -> Result<(), BadConfig> {
    if attest.interval < MIN_ATTEST_INTERVAL || attest.interval > MAX_ATTEST_INTERVAL {
        return Err(BadConfig::value("attest.interval", "not between 1s and 1h"));
    }
    if attest.jitter > attest.interval / 2 {
        return Err(BadConfig::value(
            "attest.jitter",
            "more than half of the interval",
        ));
    }
    if attest.deadline.is_zero() || attest.deadline > Duration::from_secs(60) {
        return Err(BadConfig::value("attest.deadline", "zero or more than 60s"));
    }
    Ok(())
}

fn stun(named: Option<&str>, listen: SocketAddr) -> Result<Option<SocketAddr>, BadConfig> {
    match named {
        None => Ok(Some(listen)),
        Some(NO_STUN) => Ok(None),
        Some(address) => address
            .parse()
            .map(Some)
            .map_err(|_| BadConfig::value("stun_listen", "neither an ip:port nor \"off\"")),
    }
}

fn advertised(mut named: Vec<String>, listen: SocketAddr) -> Result<Vec<String>, BadConfig> {
    if named.is_empty() {
        if listen.ip().is_unspecified() {
            return Err(BadConfig::value(
                "advertise",
                "needed where listen names no address: host:port at which nodes reach this cloud",
            ));
        }
        named.push(listen.to_string());
    }
    if named.len() > MAX_ADVERTISED {
        return Err(BadConfig::value("advertise", "more than 8 addresses"));
    }
    for address in &named {
        let good = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !good {
            return Err(BadConfig::value(
                "advertise",
                format!("not host:port: {address}"),
            ));
        }
    }
    Ok(named)
}

fn default_name() -> String {
    "edgeward".to_owned()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7443))
}

fn default_data() -> PathBuf {
    PathBuf::from("/var/lib/edgeward")
}

fn default_metrics() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9465))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "trust_domain = \"plant.example\"\nlisten = \"127.0.0.1:7443\"\n";

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, BadConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgeward.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load_with(&path, environment)
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (extra, key) in [
            ("name = \"a/b\"", "name"),
            ("metrics_listen = \"0.0.0.0:9465\"", "metrics_listen"),
            ("advertise = [\"nowhere\"]", "advertise"),
            ("database = \"mysql://x\"", "database"),
            ("database = \"postgres://u:p@h/d\"", "database"),
            ("[attest]\ninterval = \"10ms\"", "attest.interval"),
            ("[attest]\njitter = \"50s\"", "attest.jitter"),
            ("[attest]\ndeadline = \"0s\"", "attest.deadline"),
            ("[svid]\nmax_lifetime = \"1h\"", "svid.max_lifetime"),
            ("[token]\nttl = \"0s\"", "token.ttl"),
            ("[token]\nuses = 0", "token.uses"),
            ("[enrol]\ndeadline = \"3m\"", "enrol.deadline"),
            ("stun_listen = \"on\"", "stun_listen"),
            ("[relay]\nbytes_per_second = 9", "relay.bytes_per_second"),
            ("[apps]\nmax_bytes = 9", "apps.max_bytes"),
            ("[apps]\nmax_bytes = 2000000", "apps.publisher_bytes"),
            ("[apps]\ntimestamp_ttl = \"1m\"", "apps.timestamp_ttl"),
            ("[apps]\nbytes_per_second = 9", "apps.bytes_per_second"),
        ] {
            match load(&format!("{LEAST}{extra}\n"), &[]) {
                Err(BadConfig::Value { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{extra}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unspecified_address_needs_an_advertised_one() {
        let error = load("trust_domain = \"plant.example\"\n", &[]).unwrap_err();
        assert!(matches!(
            error,
            BadConfig::Value {
                key: "advertise",
                ..
            }
        ));
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_and_line() {
        let error = load(&format!("{LEAST}listne = 1\n"), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("edgeward.toml:3:1"), "{error}");
    }

    #[test]
    fn the_least_configuration_gets_the_documented_defaults() {
        let config = load(LEAST, &[]).unwrap();
        assert_eq!(
            config.id.to_string(),
            "spiffe://plant.example/cloud/edgeward"
        );
        assert_eq!(config.attest.interval, Duration::from_secs(60));
        assert_eq!(config.metrics, default_metrics());
        assert_eq!(config.advertise, ["127.0.0.1:7443"]);
        assert_eq!(config.stun, Some(config.listen));
        let config = load(&format!("{LEAST}stun_listen = \"off\"\n"), &[]).unwrap();
        assert_eq!(config.stun, None);
    }

    #[test]
    fn twins_win_over_the_file() {
        let config = load(
            LEAST,
            &[
                ("EDGEWARD_TOKEN__USES", "3"),
                ("EDGEWARD_ATTEST__INTERVAL", "5s"),
                ("EDGEWARD_ATTEST__JITTER", "1s"),
                ("EDGEWARD_APPS__FOLDER", "/srv/apps"),
            ],
        )
        .unwrap();
        assert_eq!(config.apps.folder, Path::new("/srv/apps"));
        assert_eq!(config.attest.interval, Duration::from_secs(5));
        assert_eq!(config.token.uses, 3);
    }
}
