//! A slice made ready: the engine, and hash lookups beside it.

use std::collections::HashMap;
use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_policy::slice::MESH;
use edgeward_policy::{Engine, EngineError, InterfaceIndex, PeerIndex, Proto};
use ipnet::IpNet;

use crate::view::HeldSlice;

/// One policy slice in force.
pub struct Rules {
    number: u64,
    digest: [u8; 32],
    engine: Engine,
    /// Interfaces of this node on the tunnel.
    mesh: HashMap<(Proto, u16), InterfaceIndex>,
    /// Interfaces that this version lets nobody reach: `service/interface`.
    unserved: Vec<String>,
}

impl Rules {
    pub fn new(held: &HeldSlice) -> Result<Self, EngineError> {
        let engine = Engine::new(Arc::new(held.slice.clone()))?;
        let mut mesh = HashMap::new();
        let mut unserved = Vec::new();
        for (index, interface) in (0..).map(InterfaceIndex).zip(&engine.slice().interfaces) {
            // Forwarding and LAN interfaces are denied, never half-served.
            if interface.net == MESH && interface.to.is_none() {
                mesh.insert((interface.proto, interface.port), index);
            } else {
                unserved.push(format!("{}/{}", interface.service, interface.name));
            }
        }
        Ok(Self {
            number: held.number,
            digest: held.digest,
            engine,
            mesh,
            unserved,
        })
    }

    /// Number of the signed slice.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// SHA-256 of the signed slice.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn unserved(&self) -> &[String] {
        &self.unserved
    }

    pub(super) fn mesh_interface(&self, proto: Proto, port: u16) -> Option<InterfaceIndex> {
        self.mesh.get(&(proto, port)).copied()
    }

    pub fn peer(&self, id: &SpiffeId) -> Option<PeerIndex> {
        self.engine.peer(id)
    }

    /// The peer's overlay addresses, each as a prefix of its own: its AllowedIPs.
    pub fn prefixes(&self, peer: PeerIndex) -> Vec<IpNet> {
        let Some(peer) = self.engine.slice().peers.get(peer.0 as usize) else {
            return Vec::new();
        };
        let v6 = IpNet::from(std::net::IpAddr::from(peer.v6));
        let v4 = peer.v4.map(|v4| IpNet::from(std::net::IpAddr::from(v4)));
        std::iter::once(v6).chain(v4).collect()
    }

    /// `service/interface` behind a port of this node, or of a peer.
    pub fn name_of(&self, peer: Option<PeerIndex>, proto: Proto, port: u16) -> Option<String> {
        let slice = self.engine.slice();
        match peer {
            None => {
                let index = self.mesh_interface(proto, port)?;
                let interface = slice.interfaces.get(index.0 as usize)?;
                Some(format!("{}/{}", interface.service, interface.name))
            }
            Some(peer) => slice
                .egress
                .iter()
                .find(|egress| egress.peer == peer && egress.proto == proto && egress.port == port)
                .map(|egress| format!("{}/{}", egress.service, egress.interface)),
        }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
