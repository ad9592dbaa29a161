//! How many connections may be at once: in all, at one interface, from one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::enforce::decide::Spot;

/// Most connections at once, UDP flows included.
pub(super) const MAX_CONNECTIONS: usize = 4096;
/// Most of them at one interface: no interface can starve all others.
pub(super) const MAX_PER_INTERFACE: usize = 2048;
/// Most of them at one interface from one source (IPv6: one /64 off the tunnel).
pub(super) const MAX_PER_SOURCE: usize = 256;

/// Who is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Rooms(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    spots: HashMap<Spot, usize>,
    sources: HashMap<(Spot, IpAddr), usize>,
}

/// A place; left when dropped.
#[derive(Debug)]
pub(super) struct Place {
    rooms: Rooms,
    spot: Spot,
    source: IpAddr,
}

impl Rooms {
    /// `None` where there is no room.
    pub(super) fn enter(&self, spot: &Spot, source: IpAddr) -> Option<Place> {
        let source = network(spot, source);
        let mut counts = self.0.lock();
        let at_spot = counts.spots.get(spot).copied().unwrap_or(0);
        let key = (spot.clone(), source);
        let from_source = counts.sources.get(&key).copied().unwrap_or(0);
        if counts.all >= MAX_CONNECTIONS
            || at_spot >= MAX_PER_INTERFACE
            || from_source >= MAX_PER_SOURCE
        {
            return None;
        }
        counts.all += 1;
        counts.spots.insert(spot.clone(), at_spot + 1);
        counts.sources.insert(key, from_source + 1);
        Some(Place {
            rooms: self.clone(),
            spot: spot.clone(),
            source,
        })
    }

    /// How many are in at one interface.
    pub(super) fn at(&self, spot: &Spot) -> usize {
        self.0.lock().spots.get(spot).copied().unwrap_or(0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.rooms.0.lock();
        counts.all = counts.all.saturating_sub(1);
        leave(&mut counts.spots, &self.spot);
        leave(&mut counts.sources, &(self.spot.clone(), self.source));
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// On the tunnel every address is a peer's own; elsewhere one host may have all of an IPv6 /64.
fn network(spot: &Spot, source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(v6) if *spot.net != *edgeward_policy::slice::MESH => {
            IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeward_policy::Proto;

    fn spot(port: u16) -> Spot {
        Spot {
            net: "lan0".into(),
            proto: Proto::Tcp,
            port,
        }
    }

    #[test]
    fn one_source_fills_neither_the_interface_nor_the_house_and_leaves_when_it_goes() {
        let rooms = Rooms::default();
        let source = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        let mut places: Vec<Place> = (0..MAX_PER_SOURCE)
            .map(|host| {
                let host = u16::try_from(host).unwrap();
                rooms.enter(&spot(1), source(host)).unwrap()
            })
            .collect();
        assert!(rooms.enter(&spot(1), source(9999)).is_none());
        let other = rooms.enter(&spot(1), "192.0.2.1".parse().unwrap());
        assert!(other.is_some());
        places.pop();
        assert!(rooms.enter(&spot(1), source(9999)).is_some());
        drop((places, other));
        assert_eq!(rooms.at(&spot(1)), 0);
        assert!(rooms.0.lock().sources.is_empty());
    }

    #[test]
    fn one_interface_cannot_take_all_room() {
        let rooms = Rooms::default();
        let fill = |port: u16, count: usize| -> Vec<Place> {
            (0..count)
                .map_while(|host| {
                    let host = u32::try_from(host).unwrap();
                    rooms.enter(&spot(port), IpAddr::from(host.to_be_bytes()))
                })
                .collect()
        };
        let first = fill(1, MAX_CONNECTIONS);
        assert_eq!(first.len(), MAX_PER_INTERFACE);
        let others: Vec<Vec<Place>> = (2..5).map(|port| fill(port, MAX_PER_INTERFACE)).collect();
        let all: usize = others.iter().map(Vec::len).sum();
        assert_eq!(first.len() + all, MAX_CONNECTIONS);
    }
}
