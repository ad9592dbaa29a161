//! How the tunnel moves packets on this machine: what the operator may choose.

use std::fmt;

use edgeward_tunnel::shell::udp::UdpOffload;
use edgeward_tunnel::shell::{Profile, Threads};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Buffers, threads, and which help of the kernel to use. Each help is probed, and done without where it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPath {
    pub profile: Profile,
    pub threads: Threads,
    /// Segmentation offload of the TUN device.
    pub tun_offload: bool,
    pub udp: UdpOffload,
    /// Whether a thread may wait awake, for a very short time, for what usually comes at once.
    pub linger: bool,
}

/// `tunnel_profile`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    Throughput,
    #[default]
    Balanced,
    Small,
}

/// `tunnel_threads`: `"auto"`, or how many for each direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadCount(pub Threads);

impl Default for DataPath {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            threads: Threads::default(),
            tun_offload: true,
            udp: UdpOffload::default(),
            linger: true,
        }
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Throughput => Self::Throughput,
            ProfileName::Balanced => Self::Balanced,
            ProfileName::Small => Self::Small,
        }
    }
}

impl<'de> Deserialize<'de> for ThreadCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = ThreadCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\", 0, 1 or 2")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ThreadCount, E> {
        match text {
            "auto" => Ok(ThreadCount(Threads::Auto)),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<ThreadCount, E> {
        match count {
            0 => Ok(ThreadCount(Threads::Shared)),
            1 => Ok(ThreadCount(Threads::One)),
            2 => Ok(ThreadCount(Threads::Two)),
            other => Err(E::invalid_value(
                serde::de::Unexpected::Signed(other),
                &self,
            )),
        }
    }
}
