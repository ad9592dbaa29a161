//! The peers, by number, key and prefix, and our static keys in use.

use std::sync::Arc;

use foldhash::HashMap;
use ipnet::IpNet;

use super::peer::Peer;
use super::{ArmRefused, MAX_PEERS, MAX_STATIC_KEYS, PeerId};
use crate::routes::{RouteRefused, Routes};
use crate::wireguard::{Door, StaticKeys};

#[derive(Default)]
pub(super) struct Table {
    pub(super) peers: HashMap<PeerId, Arc<Peer>>,
    pub(super) by_key: HashMap<[u8; 32], Arc<Peer>>,
    pub(super) routes: Routes<Arc<Peer>>,
    /// One per static key of ours in use; the newest last.
    pub(super) doors: Vec<Arc<Door>>,
}

impl Table {
    pub(super) fn check_free(
        &self,
        id: PeerId,
        key: &[u8; 32],
        prefixes: &[IpNet],
    ) -> Result<(), ArmRefused> {
        if self.peers.len() >= MAX_PEERS {
            return Err(ArmRefused::Limit);
        }
        if self.peers.contains_key(&id) {
            return Err(ArmRefused::Armed);
        }
        if self.by_key.contains_key(key) {
            return Err(ArmRefused::KeyTaken);
        }
        self.check_prefixes(id, prefixes)
    }

    pub(super) fn check_prefixes(&self, id: PeerId, prefixes: &[IpNet]) -> Result<(), ArmRefused> {
        let mut seen = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            if self.routes.get(*prefix).is_some_and(|owner| owner.id != id) {
                return Err(RouteRefused::Taken(prefix.trunc()).into());
            }
            seen.push(prefix.trunc());
        }
        seen.sort_unstable();
        let twice = seen.iter().zip(seen.iter().skip(1)).find(|(a, b)| a == b);
        match twice {
            Some((twice, _)) => Err(RouteRefused::Taken(*twice).into()),
            None => Ok(()),
        }
    }

    pub(super) fn door(&mut self, keys: &Arc<StaticKeys>) -> Result<Arc<Door>, ArmRefused> {
        let public = keys.public();
        if let Some(door) = self
            .doors
            .iter()
            .find(|door| door.keys().public() == public)
        {
            return Ok(Arc::clone(door));
        }
        self.drop_unused_doors();
        if self.doors.len() >= MAX_STATIC_KEYS {
            return Err(ArmRefused::Limit);
        }
        let door = Arc::new(Door::new(Arc::clone(keys)));
        self.doors.push(Arc::clone(&door));
        Ok(door)
    }

    /// Forgets static keys that no peer uses, except the newest.
    pub(super) fn drop_unused_doors(&mut self) {
        let Some(newest) = self.doors.last().cloned() else {
            return;
        };
        let peers = &self.peers;
        self.doors.retain(|door| {
            Arc::ptr_eq(door, &newest) || peers.values().any(|peer| Arc::ptr_eq(&peer.door, door))
        });
    }
}
