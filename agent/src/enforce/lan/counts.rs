//! What the kernel counted on guarded ports: read from `nft`'s JSON, and told apart by what is new since the last time.
//!
//! The kernel counts every packet that it drops by port, and by source as long as there is room. What it dropped but did
//! not count by source is counted all the same, as from somebody: no drop is lost.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use edgeward_policy::{Mac, Proto};
use serde::Deserialize;
use serde_json::Value;

use super::plan::Spot;

/// Somebody at a guarded port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    pub at: Spot,
    pub mac: Mac,
    pub ip: IpAddr,
}

/// Packets, and the bytes of their IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// One reading of the table's counters. `dropped` must have been read before `refused`.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub dropped: Vec<(Spot, Count)>,
    pub refused: Vec<(Seen, Count)>,
    pub passed: Vec<(Seen, Count)>,
}

/// What is new since the last reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub refused: Vec<(Seen, Count)>,
    pub passed: Vec<(Seen, Count)>,
    /// Dropped, and not counted by source.
    pub others: Vec<(Spot, u64)>,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct Ledger {
    refused: HashMap<Seen, Count>,
    passed: HashMap<Seen, Count>,
    /// Drops by port that were told already, by source or not.
    told: HashMap<Spot, u64>,
}

/// `nft` said something else than this version of it does. Ours to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nft listed a set in another form than expected")]
pub struct BadListing;

impl Ledger {
    /// The kernel's counters begin anew.
    pub fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// The kernel's counters of refused sources begin anew.
    pub fn forget_refused(&mut self) {
        self.refused.clear();
    }

    /// The kernel's counters of sources that were let in begin anew.
    pub fn forget_passed(&mut self) {
        self.passed.clear();
    }

    pub fn read(&mut self, reading: Reading) -> News {
        let refused = news(&mut self.refused, reading.refused);
        for (seen, count) in &refused {
            let told = self.told.entry(seen.at.clone()).or_default();
            *told = told.saturating_add(count.packets);
        }
        let mut others = Vec::new();
        for (spot, count) in reading.dropped {
            let told = self.told.entry(spot.clone()).or_default();
            let more = count.packets.saturating_sub(*told);
            if more > 0 {
                *told = count.packets;
                others.push((spot, more));
            }
        }
        News {
            refused,
            passed: news(&mut self.passed, reading.passed),
            others,
        }
    }

    /// A port is guarded no longer: its counters are gone.
    pub fn unguard(&mut self, gone: impl Fn(&Spot) -> bool) {
        self.told.retain(|spot, _| !gone(spot));
    }
}

fn news<K: Clone + Eq + Hash>(
    known: &mut HashMap<K, Count>,
    reading: Vec<(K, Count)>,
) -> Vec<(K, Count)> {
    let mut news = Vec::new();
    for (key, count) in reading {
        let before = known.insert(key.clone(), count).unwrap_or_default();
        let more = Count {
            packets: count.packets.saturating_sub(before.packets),
            bytes: count.bytes.saturating_sub(before.bytes),
        };
        if more.packets > 0 {
            news.push((key, more));
        }
    }
    news
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    #[serde(default)]
    elem: Vec<Wrapped>,
}

#[derive(Deserialize)]
struct Wrapped {
    elem: Element,
}

#[derive(Deserialize)]
struct Element {
    val: Concatenation,
    counter: Counter,
}

#[derive(Deserialize)]
struct Concatenation {
    concat: Vec<Value>,
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
    bytes: u64,
}

/// Counters by port: the set `dropped`.
pub fn by_spot(json: &[u8]) -> Result<Vec<(Spot, Count)>, BadListing> {
    elements(json, |fields| match fields {
        [device, proto, port] => spot(device, proto, port),
        _ => None,
    })
}

/// Counters by source: the sets `passed…` and `refused…`.
pub fn by_source(json: &[u8]) -> Result<Vec<(Seen, Count)>, BadListing> {
    elements(json, |fields| match fields {
        [device, proto, port, mac, ip] => Some(Seen {
            at: spot(device, proto, port)?,
            mac: station(mac.as_str()?)?,
            ip: ip.as_str()?.parse().ok()?,
        }),
        _ => None,
    })
}

fn elements<K>(
    json: &[u8],
    key: impl Fn(&[Value]) -> Option<K>,
) -> Result<Vec<(K, Count)>, BadListing> {
    let listing: Listing = serde_json::from_slice(json).map_err(|_| BadListing)?;
    let sets = listing.nftables.into_iter().filter_map(|object| object.set);
    sets.flat_map(|set| set.elem)
        .map(|wrapped| {
            let Element { val, counter } = wrapped.elem;
            let count = Count {
                packets: counter.packets,
                bytes: counter.bytes,
            };
            Ok((key(&val.concat).ok_or(BadListing)?, count))
        })
        .collect()
}

fn spot(device: &Value, proto: &Value, port: &Value) -> Option<Spot> {
    Some(Spot {
        device: device.as_str()?.parse().ok()?,
        proto: match proto.as_str()? {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            _ => return None,
        },
        port: u16::try_from(port.as_u64()?).ok()?,
    })
}

/// Any six bytes: whoever was refused may have sent what is no address of one station.
fn station(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

#[cfg(test)]
mod tests;
