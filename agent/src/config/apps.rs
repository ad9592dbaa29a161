//! `[apps]`: signed applications on this node. Without the table there are none.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use edgeward_runtime::config::BadConfig;
use edgeward_wire::token::check_address;
use serde::Deserialize;

use crate::enforce::DeviceName;

/// What applications need of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppsConfig {
    /// A file system of its own, for installed releases and nothing else.
    pub volume: PathBuf,
    /// The first root of the image repository. None: the one that the policy pins.
    pub root: Option<PathBuf>,
    /// A folder that is looked into for releases before the cloud is asked.
    pub import: Option<PathBuf>,
    /// Most bytes of content that waits to be installed.
    pub store_bytes: u64,
    /// Where nodes nearby serve what they have (`host:port` in the mesh): asked before the cloud is.
    pub neighbours: Vec<String>,
    /// Port at which this node serves others what it has. None: it serves nobody.
    pub mirror: Option<u16>,
    /// The only device on which others are served.
    pub mirror_device: DeviceName,
    pub guard_socket: PathBuf,
    /// Group of all applications, of cgroup 2.
    pub cgroup: PathBuf,
    /// Where applications write, a folder each. Not on the volume.
    pub state: PathBuf,
    /// Users that applications run as, one each.
    pub uids: RangeInclusive<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AppsTable {
    volume: PathBuf,
    root: Option<PathBuf>,
    import: Option<PathBuf>,
    store_bytes: u64,
    neighbours: Vec<String>,
    mirror: Option<u16>,
    guard_socket: PathBuf,
    cgroup: PathBuf,
    state: PathBuf,
    uids: String,
}

/// Least and most of `store_bytes`: one app of the largest size, and a small disk.
const STORE_BYTES: RangeInclusive<u64> = 16 * 1024 * 1024..=64 * 1024 * 1024 * 1024;
/// Most nodes that are asked.
const MAX_NEIGHBOURS: usize = 8;
/// Users that people and services of the machine have.
const LEAST_UID: u32 = 1_000;
/// Most users: a few for each app that a node may be assigned.
const MAX_UIDS: u32 = 65_536;

impl AppsTable {
    pub(super) fn check(self, tunnel: &DeviceName) -> Result<AppsConfig, BadConfig> {
        let paths = [
            ("apps.volume", Some(&self.volume)),
            ("apps.root", self.root.as_ref()),
            ("apps.import", self.import.as_ref()),
            ("apps.guard_socket", Some(&self.guard_socket)),
            ("apps.cgroup", Some(&self.cgroup)),
            ("apps.state", Some(&self.state)),
        ];
        for (key, path) in paths {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(BadConfig::value(key, "not an absolute path"));
            }
        }
        if self.state.starts_with(&self.volume) {
            let why = "on the volume: what applications write must not lie there";
            return Err(BadConfig::value("apps.state", why));
        }
        if self.neighbours.len() > MAX_NEIGHBOURS {
            let why = format!("more than {MAX_NEIGHBOURS}");
            return Err(BadConfig::value("apps.neighbours", why));
        }
        for address in &self.neighbours {
            let bad = |_| BadConfig::value("apps.neighbours", format!("not host:port: {address}"));
            check_address(address).map_err(bad)?;
        }
        if self.mirror == Some(0) {
            return Err(BadConfig::value("apps.mirror", "no port"));
        }
        if !STORE_BYTES.contains(&self.store_bytes) {
            let why = "not from 16 MiB to 64 GiB, in bytes";
            return Err(BadConfig::value("apps.store_bytes", why));
        }
        let uids = uids(&self.uids).ok_or_else(|| {
            let why = format!("not FIRST-LAST, from {LEAST_UID} on and at most {MAX_UIDS} of them");
            BadConfig::value("apps.uids", why)
        })?;
        Ok(AppsConfig {
            volume: self.volume,
            root: self.root,
            import: self.import,
            store_bytes: self.store_bytes,
            neighbours: self.neighbours,
            mirror: self.mirror,
            mirror_device: tunnel.clone(),
            guard_socket: self.guard_socket,
            cgroup: self.cgroup,
            state: self.state,
            uids,
        })
    }
}

fn uids(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let fits = first >= LEAST_UID && first <= last && last - first < MAX_UIDS && last < u32::MAX;
    fits.then_some(first..=last)
}

impl Default for AppsTable {
    fn default() -> Self {
        Self {
            volume: PathBuf::from("/var/lib/edgeward-apps"),
            root: None,
            import: None,
            store_bytes: 4 * 1024 * 1024 * 1024,
            neighbours: Vec::new(),
            mirror: None,
            guard_socket: PathBuf::from("/run/edgeward-guard/guard.sock"),
            cgroup: PathBuf::from("/sys/fs/cgroup/system.slice/edgeward-guard.service/apps"),
            state: PathBuf::from("/var/lib/edgeward-apps-state"),
            uids: "61184-65519".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<AppsConfig, BadConfig> {
        let table: AppsTable = serde_json::from_str(text).unwrap();
        table.check(&"edgeward0".parse().unwrap())
    }

    #[test]
    fn what_would_put_applications_where_they_must_not_be_is_refused() {
        for wrong in [
            r#"{"volume":"apps"}"#,
            r#"{"root":"root.json"}"#,
            r#"{"import":"../usb"}"#,
            r#"{"guard_socket":"guard.sock"}"#,
            r#"{"cgroup":"apps"}"#,
            r#"{"volume":"/v","state":"/v/state"}"#,
            r#"{"store_bytes":1}"#,
            r#"{"store_bytes":1099511627776}"#,
            r#"{"neighbours":["gw-2"]}"#,
            r#"{"neighbours":["a:1","a:1","a:1","a:1","a:1","a:1","a:1","a:1","a:1"]}"#,
            r#"{"mirror":0}"#,
            r#"{"uids":"61184"}"#,
            r#"{"uids":"0-100"}"#,
            r#"{"uids":"61190-61184"}"#,
            r#"{"uids":"1000-4294967295"}"#,
        ] {
            assert!(table(wrong).is_err(), "{wrong}");
        }
        let config = table("{}").unwrap();
        assert_eq!(config.uids, 61_184..=65_519);
        assert_eq!(table(r#"{"uids":"70000-70000"}"#).unwrap().uids.count(), 1);
    }
}
