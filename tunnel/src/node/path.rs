//! Which way to a peer is used, when somebody who probes knows better than the last datagram.

use edgeward_identity::BootTime;

use super::{Endpoint, Node, NotArmed, PeerId};

impl Node {
    /// Sends to `endpoint` from now on. Until `proven_until` no other address takes its place by itself, whatever
    /// arrives from there; after that the peer may be followed as always.
    pub fn use_path(
        &self,
        id: PeerId,
        endpoint: Endpoint,
        proven_until: BootTime,
    ) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let mut link = peer.link.write();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        let known = link.endpoint.map(|endpoint| endpoint.remote);
        if known != Some(endpoint.remote) {
            peer.path_mtu.forget();
        }
        link.endpoint = Some(endpoint);
        link.proven_until = proven_until;
        Ok(())
    }
}
