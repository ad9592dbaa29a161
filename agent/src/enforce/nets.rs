//! Which device of the kernel carries a network that policy names.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use edgeward_policy::slice::MESH;
use serde::Deserialize;

use super::device_name::{DeviceName, MAX_DEVICE_NAME_BYTES};

/// Most networks that a configuration may name.
pub const MAX_NETS: usize = 256;

/// The kernel's name of a network device that others made: of 1 to 15 letters, digits, `-`, `_`, `.` and `@`. It stands
/// in nftables text between quotes; what nft takes for a pattern (`*`) is none of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NetDevice(String);

/// The operator's text names no network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a network device (1 to 15 of a-z, A-Z, 0-9, -, _, . and @)")]
pub struct BadNetDevice;

impl NetDevice {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetDevice {
    type Err = BadNetDevice;

    fn from_str(text: &str) -> Result<Self, BadNetDevice> {
        let sound = (1..=MAX_DEVICE_NAME_BYTES).contains(&text.len())
            && !matches!(text, "." | "..")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
        if sound {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadNetDevice)
        }
    }
}

impl TryFrom<String> for NetDevice {
    type Error = BadNetDevice;

    fn try_from(text: String) -> Result<Self, BadNetDevice> {
        text.parse()
    }
}

impl fmt::Display for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The networks whose device has another name than policy gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nets(BTreeMap<String, NetDevice>);

/// The operator's table makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNets {
    #[error("more than {MAX_NETS} networks")]
    TooMany,
    #[error("{MESH} is the tunnel, whose device is `interface`")]
    Mesh,
    #[error("the device of two networks: {0}")]
    Twice(NetDevice),
    #[error("the tunnel's own device: {0}")]
    Tunnel(NetDevice),
}

impl Nets {
    pub fn new(table: BTreeMap<String, NetDevice>, tunnel: &DeviceName) -> Result<Self, BadNets> {
        if table.len() > MAX_NETS {
            return Err(BadNets::TooMany);
        }
        if table.contains_key(MESH) {
            return Err(BadNets::Mesh);
        }
        let mut seen = HashSet::new();
        for device in table.values() {
            if device.as_str() == tunnel.as_str() {
                return Err(BadNets::Tunnel(device.clone()));
            }
            if !seen.insert(device) {
                return Err(BadNets::Twice(device.clone()));
            }
        }
        Ok(Self(table))
    }

    /// The device of a network: the one that the operator named, else the one of the same name. `None` for the tunnel,
    /// and for a name that is neither in the table nor that of a device.
    pub fn device(&self, net: &str) -> Option<NetDevice> {
        if net == MESH {
            return None;
        }
        match self.0.get(net) {
            Some(device) => Some(device.clone()),
            // Its name is taken by another network: nobody can have meant that.
            None => net
                .parse()
                .ok()
                .filter(|device| !self.0.values().any(|taken| taken == device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(table: &[(&str, &str)]) -> Result<Nets, BadNets> {
        let table = table
            .iter()
            .map(|(net, device)| ((*net).to_owned(), device.parse().unwrap()))
            .collect();
        Nets::new(table, &"edgeward0".parse().unwrap())
    }

    fn device(nets: &Nets, net: &str) -> Option<String> {
        nets.device(net).map(|device| device.to_string())
    }

    #[test]
    fn a_network_is_on_the_device_that_is_named_for_it_or_has_its_name() {
        let nets = nets(&[("lan0", "eth1"), ("office", "br-lan.100")]).unwrap();
        assert_eq!(device(&nets, "lan0").as_deref(), Some("eth1"));
        assert_eq!(device(&nets, "office").as_deref(), Some("br-lan.100"));
        assert_eq!(device(&nets, "eth0").as_deref(), Some("eth0"));
        assert_eq!(device(&nets, "eth1"), None, "taken by lan0");
        assert_eq!(device(&nets, MESH), None);
        assert_eq!(device(&nets, "a-name-that-is-too-long"), None);
    }

    #[test]
    fn what_nft_could_read_otherwise_is_no_name_of_a_device() {
        for text in [
            "",
            ".",
            "..",
            "eth*",
            "eth 0",
            "a\"b",
            "a\\b",
            "a/b",
            "eth0\n",
            "a;b",
            "0123456789abcdef",
        ] {
            assert_eq!(text.parse::<NetDevice>(), Err(BadNetDevice), "{text:?}");
        }
    }

    #[test]
    fn the_tunnel_and_one_device_for_two_networks_are_refused() {
        assert_eq!(nets(&[("mesh", "eth1")]), Err(BadNets::Mesh));
        assert!(matches!(
            nets(&[("a", "edgeward0")]),
            Err(BadNets::Tunnel(_))
        ));
        assert!(matches!(
            nets(&[("a", "eth1"), ("b", "eth1")]),
            Err(BadNets::Twice(_))
        ));
    }
}
