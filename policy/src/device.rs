//! Devices: things without an agent, vouched for by the node that they hang on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use edgeward_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::slice::GroupId;

/// A device of one node. Its state is `vouched` while the node itself is trusted, and as old as the node's own pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceDevice {
    /// An ID of kind `device`.
    pub id: SpiffeId,
    pub groups: Vec<GroupId>,
    /// The network interface on which it hangs; never the tunnel.
    pub net: String,
    pub recognised: Recognition,
    /// How the overlay knows it, where it has an address inside a route of its node.
    pub seen_as: Option<IpAddr>,
}

/// How a device is recognised: everything named must fit, and something is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recognition {
    pub mac: Option<Mac>,
    pub ip: Option<IpAddr>,
    /// SHA-256 of the DER of its certificate, lower-case hex: a device with a key of its own.
    pub certificate: Option<String>,
}

/// An IEEE 802 MAC address, written `02:00:00:00:00:11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// Not a MAC address of one station.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address of one station: {0:?}")]
pub struct BadMac(String);

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.chars().take(32).collect());
        if text.len() != 17 {
            return Err(bad());
        }
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(bad)?;
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| digits)
                .ok_or_else(bad)?;
        }
        // The lowest bit of the first byte marks a group of stations.
        let one_station = bytes != [0; 6] && bytes.first().is_some_and(|first| first & 1 == 0);
        match parts.next() {
            None if one_station => Ok(Self(bytes)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

crate::l7::as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_reads_as_it_was_written_and_names_one_station() {
        let mac: Mac = "02:00:00:00:00:1f".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:00:1f");
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:1f:00",
            "02-00-00-00-00-1f",
            "+2:00:00:00:00:11",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
