//! Is there a NAT between this node and the others, and does it show all of them the same address?

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edgeward_identity::BootTime;

/// How long an observation counts.
pub const OBSERVATION_LASTS: Duration = Duration::from_secs(180);
/// Most observations kept; the oldest goes first.
pub const MAX_OBSERVATIONS: usize = 32;

/// What is known of the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// Too little was seen.
    #[default]
    Unknown,
    /// Others see one of our own addresses.
    None,
    /// Others see one address that is not ours: who knows it can be told to, and holes can be punched.
    EndpointIndependent,
    /// Everyone sees another: only peers that can be reached themselves will do, or a relay.
    EndpointDependent,
}

/// What others saw.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    local: Vec<IpAddr>,
    seen: VecDeque<Observation>,
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    /// Where the observer is.
    by: SocketAddr,
    address: SocketAddr,
    at: BootTime,
}

impl Nat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::EndpointDependent => "endpoint-dependent",
        }
    }
}

impl Mapping {
    /// The addresses of this node; `true` if they are others than before. What was seen before is then void.
    pub(super) fn set_local(&mut self, mut local: Vec<IpAddr>) -> bool {
        local.sort_unstable();
        local.dedup();
        if local == self.local {
            return false;
        }
        self.local = local;
        self.seen.clear();
        true
    }

    pub(super) fn local(&self) -> &[IpAddr] {
        &self.local
    }

    /// `by` saw us at `address`; `true` if that is news.
    pub(super) fn saw(&mut self, by: SocketAddr, address: SocketAddr, now: BootTime) -> bool {
        let known = self
            .seen
            .iter()
            .any(|seen| seen.address == address && now.since(seen.at) < OBSERVATION_LASTS);
        self.seen.retain(|seen| seen.by != by);
        if self.seen.len() >= MAX_OBSERVATIONS {
            self.seen.pop_front();
        }
        self.seen.push_back(Observation {
            by,
            address,
            at: now,
        });
        !known
    }

    /// How IPv4 peers see us: NATs are rare elsewhere, and one family must not speak for the other.
    pub(super) fn nat(&self, now: BootTime) -> Nat {
        let fresh: Vec<&Observation> = self
            .seen
            .iter()
            .filter(|seen| seen.address.is_ipv4() && now.since(seen.at) < OBSERVATION_LASTS)
            .collect();
        let mut foreign = fresh
            .iter()
            .filter(|seen| !self.local.contains(&seen.address.ip()));
        let Some(first) = foreign.next() else {
            return if fresh.is_empty() || self.local.is_empty() {
                Nat::Unknown
            } else {
                Nat::None
            };
        };
        let mut several = false;
        for other in foreign {
            several |= other.by.ip() != first.by.ip();
            if other.address != first.address {
                return Nat::EndpointDependent;
            }
        }
        if several {
            Nat::EndpointIndependent
        } else {
            Nat::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn time(secs: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(secs))
    }

    fn seen(pairs: &[(&str, &str)]) -> Mapping {
        let mut mapping = Mapping::default();
        mapping.set_local(vec!["10.0.0.2".parse().unwrap()]);
        for (by, at) in pairs {
            mapping.saw(address(by), address(at), time(1));
        }
        mapping
    }

    #[test]
    fn one_observer_is_not_enough_to_trust_a_mapping() {
        assert_eq!(seen(&[]).nat(time(1)), Nat::Unknown);
        let one = seen(&[("192.0.2.1:1", "198.51.100.1:7")]);
        assert_eq!(one.nat(time(1)), Nat::Unknown);
        // Two ports of one observer are one observer.
        let same = seen(&[
            ("192.0.2.1:1", "198.51.100.1:7"),
            ("192.0.2.1:2", "198.51.100.1:7"),
        ]);
        assert_eq!(same.nat(time(1)), Nat::Unknown);
    }

    #[test]
    fn nats_are_told_apart_by_what_two_observers_see() {
        let same = seen(&[
            ("192.0.2.1:1", "198.51.100.1:7"),
            ("192.0.2.2:1", "198.51.100.1:7"),
        ]);
        assert_eq!(same.nat(time(1)), Nat::EndpointIndependent);
        let other = seen(&[
            ("192.0.2.1:1", "198.51.100.1:7"),
            ("192.0.2.2:1", "198.51.100.1:8"),
        ]);
        assert_eq!(other.nat(time(1)), Nat::EndpointDependent);
        let own = seen(&[("10.0.0.3:1", "10.0.0.2:51820")]);
        assert_eq!(own.nat(time(1)), Nat::None);
        // A neighbour on the same LAN says nothing of the way out.
        let both = seen(&[
            ("10.0.0.3:1", "10.0.0.2:51820"),
            ("192.0.2.1:1", "198.51.100.1:7"),
            ("192.0.2.2:1", "198.51.100.1:7"),
        ]);
        assert_eq!(both.nat(time(1)), Nat::EndpointIndependent);
    }

    #[test]
    fn what_was_seen_ages_and_a_new_network_voids_it() {
        let mut mapping = seen(&[
            ("192.0.2.1:1", "198.51.100.1:7"),
            ("192.0.2.2:1", "198.51.100.1:7"),
        ]);
        let late = time(1).plus(OBSERVATION_LASTS);
        assert_eq!(mapping.nat(late), Nat::Unknown);
        assert!(!mapping.set_local(vec!["10.0.0.2".parse().unwrap()]));
        assert!(mapping.set_local(vec!["10.9.0.2".parse().unwrap()]));
        assert_eq!(mapping.nat(time(1)), Nat::Unknown);
    }

    #[test]
    fn observations_are_bounded() {
        let mut mapping = Mapping::default();
        for port in 1..=1000 {
            mapping.saw(
                SocketAddr::new([192, 0, 2, 1].into(), port),
                address("198.51.100.1:7"),
                time(1),
            );
        }
        assert_eq!(mapping.seen.len(), MAX_OBSERVATIONS);
    }
}
