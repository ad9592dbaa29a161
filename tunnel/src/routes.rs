//! Longest-prefix tables: which peer an address belongs to, for packets out and for the check of packets in.
//!
//! One hash table per prefix length in use, longest first: a lookup costs one probe per distinct length, and a
//! mesh uses few (host routes, and one or two lengths of sites).

use std::net::IpAddr;

use foldhash::HashMap;
use foldhash::HashMapExt;
use ipnet::IpNet;

/// Most prefixes in one table.
pub const MAX_ROUTES: usize = 65_536;

/// A longest-prefix table.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    ipv4: Family<T>,
    ipv6: Family<T>,
    count: usize,
}

/// Why a prefix was not added. The operator's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefused {
    #[error("prefix belongs to another peer already: {0}")]
    Taken(IpNet),
    #[error("table is full, prefixes: {MAX_ROUTES}")]
    Full,
}

#[derive(Clone, Debug)]
struct Family<T> {
    /// Address bits: 32 or 128.
    bits: u8,
    /// Longest first.
    lengths: Vec<Length<T>>,
}

#[derive(Clone, Debug)]
struct Length<T> {
    length: u8,
    prefixes: HashMap<u128, T>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self {
            ipv4: Family {
                bits: 32,
                lengths: Vec::new(),
            },
            ipv6: Family {
                bits: 128,
                lengths: Vec::new(),
            },
            count: 0,
        }
    }
}

impl<T> Routes<T> {
    /// Adds a prefix (its host bits are ignored) that nobody owns yet.
    pub fn insert(&mut self, prefix: IpNet, owner: T) -> Result<(), RouteRefused> {
        if self.count >= MAX_ROUTES {
            return Err(RouteRefused::Full);
        }
        let (family, key) = self.family(prefix.network());
        if family.insert(key, prefix.prefix_len(), owner) {
            self.count += 1;
            Ok(())
        } else {
            Err(RouteRefused::Taken(prefix.trunc()))
        }
    }

    /// The owner of exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<&T> {
        let (family, key) = self.family_ref(prefix.network());
        family
            .lengths
            .iter()
            .find(|length| length.length == prefix.prefix_len())
            .and_then(|length| length.prefixes.get(&key))
    }

    /// The owner of the longest prefix that holds `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        self.lookup_prefix(address).map(|(_, owner)| owner)
    }

    /// The same with the length of that prefix.
    pub fn lookup_prefix(&self, address: IpAddr) -> Option<(u8, &T)> {
        let (family, key) = self.family_ref(address);
        family.lengths.iter().find_map(|length| {
            let key = key & mask(length.length, family.bits);
            Some((length.length, length.prefixes.get(&key)?))
        })
    }

    /// Removes every prefix whose owner does not pass `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.count = 0;
        for family in [&mut self.ipv4, &mut self.ipv6] {
            for length in &mut family.lengths {
                length.prefixes.retain(|_, owner| keep(owner));
                self.count += length.prefixes.len();
            }
            family.lengths.retain(|length| !length.prefixes.is_empty());
        }
    }

    /// How many prefixes it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn family(&mut self, address: IpAddr) -> (&mut Family<T>, u128) {
        match address {
            IpAddr::V4(v4) => (&mut self.ipv4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (&mut self.ipv6, v6.to_bits()),
        }
    }

    fn family_ref(&self, address: IpAddr) -> (&Family<T>, u128) {
        match address {
            IpAddr::V4(v4) => (&self.ipv4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (&self.ipv6, v6.to_bits()),
        }
    }
}

impl<T> Family<T> {
    fn insert(&mut self, key: u128, length: u8, owner: T) -> bool {
        let at = self
            .lengths
            .partition_point(|present| present.length > length);
        if self
            .lengths
            .get(at)
            .is_none_or(|present| present.length != length)
        {
            let prefixes = HashMap::new();
            self.lengths.insert(at, Length { length, prefixes });
        }
        let Some(present) = self.lengths.get_mut(at) else {
            return false;
        };
        match present.prefixes.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(owner);
                true
            }
        }
    }
}

/// The network bits of a prefix of `length` bits in an address of `bits` bits.
fn mask(length: u8, bits: u8) -> u128 {
    let host = u32::from(bits.saturating_sub(length));
    u128::MAX.checked_shl(host).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_table_owns_nothing() {
        let routes = Routes::<u8>::default();
        assert_eq!(routes.lookup(ip("10.0.0.1")), None);
        assert_eq!(routes.lookup(ip("fd00::1")), None);
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let mut routes = Routes::default();
        routes.insert(net("10.0.0.0/8"), 1).unwrap();
        assert_eq!(
            routes.insert(net("10.9.9.9/8"), 2),
            Err(RouteRefused::Taken(net("10.0.0.0/8")))
        );
        assert_eq!(routes.lookup(ip("10.1.1.1")), Some(&1));
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let mut routes = Routes::default();
        routes.insert(net("0.0.0.0/0"), 0).unwrap();
        routes.insert(net("10.0.0.0/8"), 1).unwrap();
        routes.insert(net("10.0.0.7/32"), 2).unwrap();
        routes.insert(net("fd00::/8"), 3).unwrap();
        routes.insert(net("fd00::1/128"), 4).unwrap();
        for (address, owner) in [
            ("192.0.2.1", 0),
            ("10.0.0.6", 1),
            ("10.0.0.7", 2),
            ("fd00::2", 3),
            ("fd00::1", 4),
        ] {
            assert_eq!(routes.lookup(ip(address)), Some(&owner), "{address}");
        }
        assert_eq!(routes.lookup(ip("2001:db8::1")), None);
    }

    #[test]
    fn removing_an_owner_gives_its_addresses_back_to_the_shorter_prefix() {
        let mut routes = Routes::default();
        routes.insert(net("10.0.0.0/8"), 1).unwrap();
        routes.insert(net("10.0.0.7/32"), 2).unwrap();
        routes.retain(|owner| *owner != 2);
        assert_eq!(routes.lookup(ip("10.0.0.7")), Some(&1));
        assert_eq!(routes.len(), 1);
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_linear_search(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            address in any::<u32>(),
        ) {
            let mut routes = Routes::default();
            let mut all: Vec<(ipnet::Ipv4Net, usize)> = Vec::new();
            for (number, (bits, length)) in prefixes.into_iter().enumerate() {
                // Close prefixes, so that they nest.
                let prefix = ipnet::Ipv4Net::new((bits & 0x0f0f_000f).into(), length).unwrap().trunc();
                if routes.insert(prefix.into(), number).is_ok() {
                    all.push((prefix, number));
                }
            }
            let address = std::net::Ipv4Addr::from(address & 0x0f0f_000f);
            let expected = all.iter().filter(|(prefix, _)| prefix.contains(&address)).max_by_key(|(prefix, _)| prefix.prefix_len());
            prop_assert_eq!(routes.lookup(address.into()), expected.map(|(_, number)| number));
        }
    }
}
