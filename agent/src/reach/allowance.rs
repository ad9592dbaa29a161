//! What a relay carries at most, as the operator says it.

use edgeward_tunnel::reach::relay::{Limits, Rate};
use serde::Deserialize;

/// Least and most of each, in bytes a second.
const BOUNDS: [u64; 2] = [64 << 10, 10 << 30];
/// Datagrams that go with a MiB: most are as long as a tunnel's MTU.
const DATAGRAMS_PER_MIB: u64 = 1000;

/// In bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// Between two nodes, both directions together.
    bytes_per_second_pair: u64,
    /// Of what one node sends.
    bytes_per_second_node: u64,
    /// In all.
    bytes_per_second: u64,
}

/// The operator's number makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAllowance {
    #[error("not from {} to {} bytes a second", BOUNDS[0], BOUNDS[1])]
    Bounds,
    #[error("more than is carried in all: {0}")]
    MoreThanAll(u64),
}

impl RelayConfig {
    /// The key that is wrong, and why.
    pub fn check(&self) -> Result<(), (&'static str, BadAllowance)> {
        let all = self.bytes_per_second;
        for (key, rate) in [
            ("relay.bytes_per_second", all),
            ("relay.bytes_per_second_node", self.bytes_per_second_node),
            ("relay.bytes_per_second_pair", self.bytes_per_second_pair),
        ] {
            let [least, most] = BOUNDS;
            if !(least..=most).contains(&rate) {
                return Err((key, BadAllowance::Bounds));
            }
            if rate > all {
                return Err((key, BadAllowance::MoreThanAll(all)));
            }
        }
        Ok(())
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        let Limits {
            route, peer, all, ..
        } = Limits::default();
        Self {
            bytes_per_second_pair: route.bytes,
            bytes_per_second_node: peer.bytes,
            bytes_per_second: all.bytes,
        }
    }
}

impl From<RelayConfig> for Limits {
    fn from(config: RelayConfig) -> Self {
        Self {
            route: rate(config.bytes_per_second_pair),
            peer: rate(config.bytes_per_second_node),
            all: rate(config.bytes_per_second),
            ..Self::default()
        }
    }
}

fn rate(bytes: u64) -> Rate {
    Rate {
        bytes,
        datagrams: bytes.saturating_mul(DATAGRAMS_PER_MIB) >> 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_mean_is_refused_under_its_key() {
        let sound = RelayConfig::default();
        assert_eq!(sound.check(), Ok(()));
        let [least, most] = BOUNDS;
        for (config, key, bad) in [
            (
                RelayConfig {
                    bytes_per_second_pair: least - 1,
                    ..sound
                },
                "relay.bytes_per_second_pair",
                BadAllowance::Bounds,
            ),
            (
                RelayConfig {
                    bytes_per_second: most + 1,
                    ..sound
                },
                "relay.bytes_per_second",
                BadAllowance::Bounds,
            ),
            (
                RelayConfig {
                    bytes_per_second_node: sound.bytes_per_second + 1,
                    ..sound
                },
                "relay.bytes_per_second_node",
                BadAllowance::MoreThanAll(sound.bytes_per_second),
            ),
        ] {
            assert_eq!(config.check(), Err((key, bad)));
        }
    }

    #[test]
    fn without_a_word_of_the_operator_the_limits_are_the_tunnels_own() {
        assert_eq!(Limits::from(RelayConfig::default()), Limits::default());
    }
}
