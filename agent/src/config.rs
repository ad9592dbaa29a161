//! The agent's one configuration file, `agent.toml`.
//!
//! Every key has an environment twin: `mtu` is `EDGEWARD_AGENT_MTU`, `tcti` in `[tpm]` is `EDGEWARD_AGENT_TPM__TCTI`.
//! Durations carry their unit (`"10s"`). Unknown keys are refused with file and line. An empty file is a good one: a
//! node learns everything else from its token and from the cloud.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_runtime::config::{self, BadConfig, Twins};
use edgeward_tunnel::shell::udp::UdpOffload;
use edgeward_wire::limits::MAX_ENDPOINTS;
use edgeward_wire::token::{MAX_ADDRESSES, check_address};
use serde::Deserialize;

use crate::enforce::data_path::{DataPath, ProfileName, ThreadCount};
use crate::enforce::demand::{Binds, DEFAULT_IDLE_AFTER, DemandConfig};
use crate::enforce::steer::ExitUse;
use crate::enforce::{
    DEFAULT_MTU, DEFAULT_PORT, DEFAULT_REPORT_EVERY, DeviceName, EnforceConfig, NetDevice, Nets,
    NodeName,
};
use crate::ext_authz::ExtAuthzConfig;
use crate::logs::{LogPaths, MAX_PATH_BYTES};
use crate::names::{DEFAULT_LISTEN, Mode, NamesConfig, PORT};
use crate::reach::allowance::RelayConfig;
use crate::session::Endpoints;
use crate::tpm::device::BadPlace;
use crate::tpm::{EkChoice, Place};
use crate::view::Endpoint;
use crate::workload::WorkloadConfig;
use crate::workload::pods::Pods;

mod apps;

pub use apps::AppsConfig;
use apps::AppsTable;

/// Where the file is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/edgeward/agent.toml";
/// Environment variables with our prefix that belong to the command line, not to this file.
const TWINS: Twins = Twins {
    prefix: "EDGEWARD_AGENT_",
    except: &[
        "EDGEWARD_AGENT_CONFIG",
        "EDGEWARD_AGENT_LOG",
        "EDGEWARD_AGENT_COLOR",
        "EDGEWARD_AGENT_OUTPUT",
    ],
};
/// The value of `tpm.tcti` that stands for tier `software`.
const NO_TPM: &str = "none";
const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";
/// In the range that the TCG leaves to owners (Registry of Reserved TPM 2.0 Handles and Localities, 2.3).
const DEFAULT_FIRST_HANDLE: u32 = 0x8101_0200;
const DEFAULT_EPOCH_INDEX: u32 = 0x0180_0e01;
/// Least MTU of a device that carries IPv6 (RFC 8200 5), in bytes.
const MIN_MTU: u16 = 1280;
/// Greatest MTU that leaves room for WireGuard in a UDP datagram, in bytes.
const MAX_MTU: u16 = 65_000;
/// Bounds of `report_every`.
const REPORT_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
/// Bounds of `idle_after`.
const IDLE_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(86_400)];

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What survives a restart. Belongs to the agent alone.
    pub state_dir: PathBuf,
    /// Sockets, and the boot key: should be in RAM.
    pub run_dir: PathBuf,
    /// None: tier `software`.
    pub tpm: Option<TpmConfig>,
    /// Addresses of the cloud instead of those in the token; usually empty.
    pub cloud: Vec<String>,
    /// `host:port` at which peers reach this node; if empty, the address that reaches the cloud.
    pub advertise: Vec<String>,
    /// Loopback only.
    pub metrics: SocketAddr,
    pub enforce: EnforceConfig,
    pub workload: WorkloadConfig,
    pub names: NamesConfig,
    /// Where the machine's measurement logs are read.
    pub logs: LogPaths,
    /// The link is paid by the byte.
    pub metered: bool,
    /// None: no applications on this node.
    pub apps: Option<AppsConfig>,
}

/// Which TPM, and what in it is ours.
#[derive(Clone, Debug)]
pub struct TpmConfig {
    pub place: Place,
    pub ek: EkChoice,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state_dir: PathBuf,
    run_dir: PathBuf,
    wireguard_dir: PathBuf,
    cloud: Vec<String>,
    interface: DeviceName,
    interfaces: BTreeMap<String, NetDevice>,
    mtu: u16,
    tunnel_profile: ProfileName,
    tunnel_threads: ThreadCount,
    tunnel_linger: bool,
    tun_offload: bool,
    udp_gso: bool,
    udp_gro: bool,
    listen: SocketAddr,
    advertise: Vec<String>,
    metrics_listen: SocketAddr,
    exit: Option<NodeName>,
    exit_use: ExitUse,
    kernel_leases: bool,
    #[serde(with = "edgeward_runtime::config::duration")]
    report_every: Duration,
    binds: Binds,
    metered: bool,
    #[serde(with = "edgeward_runtime::config::duration")]
    idle_after: Duration,
    names: Mode,
    names_listen: SocketAddr,
    workload_socket: Option<PathBuf>,
    kubernetes: KubernetesTable,
    ext_authz: ExtAuthzTable,
    relay: RelayConfig,
    tpm: TpmTable,
    logs: LogPaths,
    apps: Option<AppsTable>,
}

/// Where the kubelet of this machine has its files, if there is one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KubernetesTable {
    kubelet_dir: PathBuf,
    pod_logs_dir: PathBuf,
    service_account_keys: Option<PathBuf>,
}

/// Which proxies of this machine may ask; without users none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExtAuthzTable {
    users: Vec<u32>,
    socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TpmTable {
    tcti: String,
    first_handle: u32,
    epoch_index: u32,
    ek: EkChoice,
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

    /// What the session tells the cloud about how to reach this node.
    pub fn endpoints(&self, udp_port: u16) -> Endpoints {
        Endpoints {
            advertised: self.advertise.clone(),
            udp_port,
        }
    }

    fn check(file: File) -> Result<Self, BadConfig> {
        if !file.metrics_listen.ip().is_loopback() {
            return Err(BadConfig::value("metrics_listen", "not a loopback address"));
        }
        check_names(&file)?;
        check_numbers(&file)?;
        check_addresses(&file)?;
        check_logs(&file.logs)?;
        file.relay
            .check()
            .map_err(|(key, bad)| BadConfig::value(key, bad.to_string()))?;
        let data_path = file.data_path();
        let apps = file.apps.map(|table| table.check(&file.interface));
        let nets = Nets::new(file.interfaces, &file.interface)
            .map_err(|bad| BadConfig::value("interfaces", bad.to_string()))?;
        Ok(Self {
            enforce: EnforceConfig {
                metered: file.metered,
                relay: file.relay,
                nets,
                device: file.interface,
                listen: file.listen,
                mtu: file.mtu,
                data_path,
                status_socket: file.run_dir.join("agent.sock"),
                wireguard_folder: file.wireguard_dir,
                kernel_leases: file.kernel_leases,
                report_every: file.report_every,
                exit: file.exit,
                exit_use: file.exit_use,
                demand: DemandConfig {
                    binds: match (file.metered, file.binds) {
                        (true, Binds::Auto) => Binds::OnDemand,
                        (_, binds) => binds,
                    },
                    idle_after: file.idle_after,
                },
                ext_authz: file.ext_authz.check(&file.run_dir)?,
            },
            state_dir: file.state_dir,
            tpm: file.tpm.check()?,
            cloud: file.cloud,
            advertise: file.advertise,
            metrics: file.metrics_listen,
            logs: file.logs,
            metered: file.metered,
            apps: apps.transpose()?,
            names: NamesConfig {
                mode: file.names,
                listen: file.names_listen,
            },
            workload: WorkloadConfig {
                socket: match file.workload_socket {
                    Some(path) => path,
                    None => file.run_dir.join("workload.sock"),
                },
                pods: file.kubernetes.check()?,
            },
            run_dir: file.run_dir,
        })
    }
}

impl KubernetesTable {
    fn check(self) -> Result<Pods, BadConfig> {
        let paths = [
            ("kubernetes.kubelet_dir", Some(&self.kubelet_dir)),
            ("kubernetes.pod_logs_dir", Some(&self.pod_logs_dir)),
            (
                "kubernetes.service_account_keys",
                self.service_account_keys.as_ref(),
            ),
        ];
        for (key, path) in paths {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(BadConfig::value(key, "not an absolute path"));
            }
        }
        Ok(Pods::new(
            self.pod_logs_dir,
            self.kubelet_dir,
            self.service_account_keys,
        ))
    }
}

impl ExtAuthzTable {
    fn check(self, run_dir: &Path) -> Result<Option<ExtAuthzConfig>, BadConfig> {
        let socket = self
            .socket
            .unwrap_or_else(|| run_dir.join("ext_authz.sock"));
        if !socket.is_absolute() {
            return Err(BadConfig::value("ext_authz.socket", "not an absolute path"));
        }
        Ok((!self.users.is_empty()).then_some(ExtAuthzConfig {
            socket,
            users: self.users,
        }))
    }
}

impl Default for KubernetesTable {
    fn default() -> Self {
        Self {
            kubelet_dir: PathBuf::from("/var/lib/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            service_account_keys: None,
        }
    }
}

impl TpmTable {
    fn check(self) -> Result<Option<TpmConfig>, BadConfig> {
        if self.tcti == NO_TPM {
            return Ok(None);
        }
        let place =
            Place::parse(&self.tcti, self.first_handle, self.epoch_index).map_err(|bad| {
                let key = match bad {
                    BadPlace::Tcti(_) => "tpm.tcti",
                    BadPlace::Handle(_) => "tpm.first_handle",
                    BadPlace::NvIndex(_) => "tpm.epoch_index",
                };
                BadConfig::value(key, bad.to_string())
            })?;
        Ok(Some(TpmConfig { place, ek: self.ek }))
    }
}

impl File {
    fn data_path(&self) -> DataPath {
        DataPath {
            profile: self.tunnel_profile.into(),
            threads: self.tunnel_threads.0,
            linger: self.tunnel_linger && !self.metered,
            tun_offload: self.tun_offload,
            udp: UdpOffload {
                gso: self.udp_gso,
                gro: self.udp_gro,
            },
        }
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/edgeward-agent"),
            run_dir: PathBuf::from("/run/edgeward"),
            wireguard_dir: PathBuf::from("/run/wireguard"),
            cloud: Vec::new(),
            interface: "edgeward0".parse().expect("a device name"),
            interfaces: BTreeMap::new(),
            mtu: DEFAULT_MTU,
            tunnel_profile: ProfileName::default(),
            tunnel_threads: ThreadCount::default(),
            tunnel_linger: true,
            tun_offload: true,
            udp_gso: true,
            udp_gro: true,
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT),
            advertise: Vec::new(),
            metrics_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464),
            exit: None,
            exit_use: ExitUse::default(),
            kernel_leases: true,
            report_every: DEFAULT_REPORT_EVERY,
            binds: Binds::default(),
            metered: false,
            idle_after: DEFAULT_IDLE_AFTER,
            names: Mode::default(),
            names_listen: DEFAULT_LISTEN,
            workload_socket: None,
            kubernetes: KubernetesTable::default(),
            ext_authz: ExtAuthzTable::default(),
            relay: RelayConfig::default(),
            tpm: TpmTable::default(),
            logs: LogPaths::default(),
            apps: None,
        }
    }
}

impl Default for TpmTable {
    fn default() -> Self {
        Self {
            tcti: DEFAULT_TCTI.to_owned(),
            first_handle: DEFAULT_FIRST_HANDLE,
            epoch_index: DEFAULT_EPOCH_INDEX,
            ek: EkChoice::default(),
        }
    }
}

fn check_numbers(file: &File) -> Result<(), BadConfig> {
    if !(MIN_MTU..=MAX_MTU).contains(&file.mtu) {
        let bounds = format!("not from {MIN_MTU} to {MAX_MTU} bytes");
        return Err(BadConfig::value("mtu", bounds));
    }
    let [least, most] = REPORT_EVERY;
    if file.report_every < least || file.report_every > most {
        return Err(BadConfig::value("report_every", "not from 1s to 1h"));
    }
    if file.metered && file.binds == Binds::Always {
        let reason = "not with metered = true: every bind has a price by the minute";
        return Err(BadConfig::value("binds", reason));
    }
    let [least, most] = IDLE_AFTER;
    if file.idle_after < least || file.idle_after > most {
        return Err(BadConfig::value("idle_after", "not from 2s to 24h"));
    }
    Ok(())
}

fn check_names(file: &File) -> Result<(), BadConfig> {
    let key = "names_listen";
    if !file.names_listen.ip().is_loopback() {
        return Err(BadConfig::value(key, "not a loopback address"));
    }
    if file.names_listen.port() == 0 {
        return Err(BadConfig::value(key, "no port"));
    }
    if file.names == Mode::ResolvConf && file.names_listen.port() != PORT {
        let why = format!("resolv.conf cannot name another port than {PORT}");
        return Err(BadConfig::value(key, why));
    }
    Ok(())
}

/// The paths go into the evidence, for people to read.
fn check_logs(logs: &LogPaths) -> Result<(), BadConfig> {
    for (key, path) in [("logs.boot", &logs.boot), ("logs.ima", &logs.ima)] {
        if !path.is_absolute() {
            return Err(BadConfig::value(key, "not an absolute path"));
        }
        if path.as_os_str().len() > MAX_PATH_BYTES {
            let bound = format!("longer than {MAX_PATH_BYTES} bytes");
            return Err(BadConfig::value(key, bound));
        }
    }
    Ok(())
}

fn check_addresses(file: &File) -> Result<(), BadConfig> {
    if file.cloud.len() > MAX_ADDRESSES {
        return Err(BadConfig::value(
            "cloud",
            format!("more than {MAX_ADDRESSES} addresses"),
        ));
    }
    for address in &file.cloud {
        check_address(address)
            .map_err(|_| BadConfig::value("cloud", format!("not host:port: {address}")))?;
    }
    if file.advertise.len() > MAX_ENDPOINTS {
        return Err(BadConfig::value(
            "advertise",
            format!("more than {MAX_ENDPOINTS} endpoints"),
        ));
    }
    for endpoint in &file.advertise {
        endpoint
            .parse::<Endpoint>()
            .map_err(|error| BadConfig::value("advertise", error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
