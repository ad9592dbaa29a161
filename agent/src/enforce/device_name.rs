//! Names of network devices, checked once: they end up in nftables text and in file names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes (`IFNAMSIZ` less the closing zero).
pub const MAX_DEVICE_NAME_BYTES: usize = 15;

/// A name of 1 to 15 letters, digits, `-` and `_` that starts with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// The operator's text is no device name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a device name (1 to 15 of a-z, A-Z, 0-9, - and _, first a letter)")]
pub struct BadDeviceName;

impl DeviceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = BadDeviceName;

    fn from_str(text: &str) -> Result<Self, BadDeviceName> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let sound = text.len() <= MAX_DEVICE_NAME_BYTES
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(letters);
        if sound {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadDeviceName)
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = BadDeviceName;

    fn try_from(text: String) -> Result<Self, BadDeviceName> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_quotes_or_folder_is_refused() {
        for bad in [
            "",
            "0edge",
            "edge ward",
            "edge\"",
            "../x",
            "edge;x",
            "edge.0",
            "sixteen-letters-x",
            "édge",
        ] {
            assert_eq!(bad.parse::<DeviceName>(), Err(BadDeviceName), "{bad}");
        }
    }

    #[test]
    fn a_plain_name_is_kept() {
        for good in ["edgeward0", "ew-a_1", "fifteen-letters"] {
            assert_eq!(good.parse::<DeviceName>().unwrap().as_str(), good);
        }
    }
}
