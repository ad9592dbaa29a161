//! Which binds there are: glare, takeover, who holds which WireGuard key, and what no peer may fall behind.
//!
//! Two rules decide between two binds with one peer, the same on both ends because both know the same facts:
//! - If the credentials differ (a WireGuard key, boot or leaf of either side is another), somebody started
//!   anew: the newer bind takes over. So it does if the same side dialled twice.
//! - Otherwise both dialled at once (glare): the bind whose initiator has the smaller SPKI hash survives.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use edgeward_identity::{SpiffeId, SpkiHash};

use super::Role;
use super::claims::Floor;
use super::code::Code;
use super::machine::{Machine, Memory};

/// Most identities whose keys and numbers are remembered.
pub const MAX_REMEMBERED: usize = 16_384;
/// Most binds at once, unfinished ones included.
pub const MAX_BINDS: usize = 16_384;

/// Number of a bind in this process: later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BindId(pub u64);

/// What two binds of one pair have in common, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub own_leaf: [u8; 32],
    pub own_wireguard: [u8; 32],
    pub peer_leaf: [u8; 32],
    pub peer_wireguard: [u8; 32],
    pub peer_boot: [u8; 16],
}

/// Whether a bind whose peer has made its offer may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may; these must leave, with this code and without cutting the tunnel.
    Proceed(Vec<(BindId, Code)>),
    /// It may not: leave with this code.
    Yield(Code),
}

/// All binds of this node, and its memory of peers.
#[derive(Default)]
pub struct Table {
    binds: BTreeMap<BindId, Entry>,
    by_peer: HashMap<SpiffeId, BTreeSet<BindId>>,
    holders: HashMap<[u8; 32], SpiffeId>,
    held: HashMap<SpiffeId, [u8; 32]>,
    floors: HashMap<SpkiHash, Floor>,
}

struct Entry {
    peer: SpiffeId,
    initiator: SpkiHash,
    role: Role,
    credentials: Credentials,
}

/// More identities than [`MAX_REMEMBERED`], or more binds than [`MAX_BINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many peers")]
pub struct Full;

impl Table {
    /// Decides about a bind whose peer has made its offer. Called once for each bind.
    pub fn admit(&mut self, id: BindId, machine: &Machine) -> Admission {
        let Some(presented) = machine.presented() else {
            return Admission::Yield(Code::Internal);
        };
        let local = machine.local();
        let entry = Entry {
            peer: machine.peer().id().clone(),
            initiator: match machine.role() {
                Role::Initiator => local.spki,
                Role::Responder => machine.peer().spki_hash(),
            },
            role: machine.role(),
            credentials: Credentials {
                own_leaf: local.leaf_hash,
                own_wireguard: local.wireguard.public(),
                peer_leaf: *machine.peer().leaf_hash(),
                peer_wireguard: presented.wireguard_key,
                peer_boot: presented.boot_id,
            },
        };
        self.admit_entry(id, entry)
    }

    fn admit_entry(&mut self, id: BindId, entry: Entry) -> Admission {
        if self.binds.len() >= MAX_BINDS {
            return Admission::Yield(Code::Busy);
        }
        let mut leaving = Vec::new();
        let of_peer = self.by_peer.get(&entry.peer).into_iter().flatten();
        for (other_id, other) in of_peer.filter_map(|id| self.binds.get_key_value(id)) {
            let glare = other.role != entry.role && other.credentials == entry.credentials;
            if glare && other.initiator < entry.initiator {
                return Admission::Yield(Code::Glare);
            }
            let code = if glare { Code::Glare } else { Code::Superseded };
            leaving.push((*other_id, code));
        }
        self.by_peer
            .entry(entry.peer.clone())
            .or_default()
            .insert(id);
        self.binds.insert(id, entry);
        Admission::Proceed(leaving)
    }

    /// The bind has ended.
    pub fn remove(&mut self, id: BindId) {
        let Some(entry) = self.binds.remove(&id) else {
            return;
        };
        if let Some(of_peer) = self.by_peer.get_mut(&entry.peer) {
            of_peer.remove(&id);
            if of_peer.is_empty() {
                self.by_peer.remove(&entry.peer);
            }
        }
    }

    /// The bind of this peer that was admitted last.
    pub fn current(&self, peer: &SpiffeId) -> Option<BindId> {
        self.by_peer.get(peer)?.last().copied()
    }

    /// WireGuard is to be armed with this key: from now on it is the identity's, and its former one is free.
    pub fn hold(&mut self, peer: &SpiffeId, wireguard_key: [u8; 32]) -> Result<(), Full> {
        if let Some(former) = self.held.get(peer) {
            if *former == wireguard_key {
                return Ok(());
            }
            self.holders.remove(former);
        } else if self.held.len() >= MAX_REMEMBERED {
            return Err(Full);
        }
        self.held.insert(peer.clone(), wireguard_key);
        self.holders.insert(wireguard_key, peer.clone());
        Ok(())
    }

    /// The peer's tunnel is gone: its key is free.
    pub fn release(&mut self, peer: &SpiffeId) {
        if let Some(key) = self.held.remove(peer) {
            self.holders.remove(&key);
        }
    }

    /// Remembers what was accepted from this key; never goes back.
    pub fn remember(&mut self, peer: SpkiHash, floor: Floor) {
        if self.floors.len() >= MAX_REMEMBERED && !self.floors.contains_key(&peer) {
            return;
        }
        let known = self.floors.entry(peer).or_default();
        known.result = known.result.max(floor.result);
        known.boot = known.boot.max(floor.boot);
    }

    /// Forgets the numbers of keys that are no longer in the directory.
    pub fn keep_only(&mut self, directory: &HashSet<SpkiHash>) {
        self.floors.retain(|spki, _| directory.contains(spki));
    }
}

impl Memory for Table {
    fn holder(&self, wireguard_key: &[u8; 32]) -> Option<&SpiffeId> {
        self.holders.get(wireguard_key)
    }

    fn floor(&self, peer: &SpkiHash) -> Floor {
        self.floors.get(peer).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [BindId; 3] = [BindId(1), BindId(2), BindId(3)];

    fn peer(name: &str) -> SpiffeId {
        format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap()
    }

    /// This node has SPKI hash 5...; the peer has `peer_spki`.
    fn entry(role: Role, peer_spki: u8, wireguard: u8) -> Entry {
        let byte = match role {
            Role::Initiator => 5,
            Role::Responder => peer_spki,
        };
        Entry {
            peer: peer("b"),
            initiator: SpkiHash::from_bytes([byte; 32]),
            role,
            credentials: Credentials {
                own_leaf: [1; 32],
                own_wireguard: [2; 32],
                peer_leaf: [3; 32],
                peer_wireguard: [wireguard; 32],
                peer_boot: [4; 16],
            },
        }
    }

    #[test]
    fn glare_is_decided_alike_in_either_order_on_either_end() {
        for (peer_spki, dialled_survives) in [(9, true), (1, false)] {
            let mut table = Table::default();
            table.admit_entry(ID[0], entry(Role::Initiator, peer_spki, 7));
            let second = table.admit_entry(ID[1], entry(Role::Responder, peer_spki, 7));
            let expected = if dialled_survives {
                Admission::Yield(Code::Glare)
            } else {
                Admission::Proceed(vec![(ID[0], Code::Glare)])
            };
            assert_eq!(second, expected);

            let mut table = Table::default();
            table.admit_entry(ID[0], entry(Role::Responder, peer_spki, 7));
            let second = table.admit_entry(ID[1], entry(Role::Initiator, peer_spki, 7));
            let expected = if dialled_survives {
                Admission::Proceed(vec![(ID[0], Code::Glare)])
            } else {
                Admission::Yield(Code::Glare)
            };
            assert_eq!(second, expected);
        }
    }

    #[test]
    fn a_peer_that_started_anew_takes_over_whoever_dialled() {
        for role in [Role::Initiator, Role::Responder] {
            for peer_spki in [1, 9] {
                let mut table = Table::default();
                table.admit_entry(ID[0], entry(Role::Responder, peer_spki, 7));
                assert_eq!(
                    table.admit_entry(ID[1], entry(role, peer_spki, 8)),
                    Admission::Proceed(vec![(ID[0], Code::Superseded)])
                );
            }
        }
    }

    #[test]
    fn the_same_side_dialling_twice_takes_over() {
        let mut table = Table::default();
        table.admit_entry(ID[0], entry(Role::Responder, 9, 7));
        assert_eq!(
            table.admit_entry(ID[1], entry(Role::Responder, 9, 7)),
            Admission::Proceed(vec![(ID[0], Code::Superseded)])
        );
        table.remove(ID[0]);
        assert_eq!(table.current(&peer("b")), Some(ID[1]));
        table.remove(ID[1]);
        assert_eq!(table.current(&peer("b")), None);
    }

    #[test]
    fn other_peers_are_left_alone() {
        let mut table = Table::default();
        table.admit_entry(ID[0], entry(Role::Responder, 9, 7));
        let mut other = entry(Role::Responder, 9, 7);
        other.peer = peer("c");
        assert_eq!(
            table.admit_entry(ID[1], other),
            Admission::Proceed(Vec::new())
        );
    }

    #[test]
    fn a_wireguard_key_belongs_to_one_identity_until_it_is_released() {
        let mut table = Table::default();
        table.hold(&peer("b"), [7; 32]).unwrap();
        assert_eq!(table.holder(&[7; 32]), Some(&peer("b")));
        table.hold(&peer("b"), [8; 32]).unwrap();
        assert_eq!(table.holder(&[7; 32]), None);
        assert_eq!(table.holder(&[8; 32]), Some(&peer("b")));
        table.release(&peer("b"));
        assert_eq!(table.holder(&[8; 32]), None);
    }

    #[test]
    fn numbers_never_go_back_and_are_forgotten_with_the_directory() {
        let mut table = Table::default();
        let spki = SpkiHash::from_bytes([1; 32]);
        table.remember(spki, Floor { result: 7, boot: 2 });
        table.remember(spki, Floor { result: 5, boot: 3 });
        assert_eq!(table.floor(&spki), Floor { result: 7, boot: 3 });
        table.keep_only(&HashSet::new());
        assert_eq!(table.floor(&spki), Floor::default());
    }
}
