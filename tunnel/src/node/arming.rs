//! Arming: which peers there are, under which keys, with which prefixes, and until when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::BootTime;
use ipnet::IpNet;

use super::peer::Peer;
use super::{MAX_CANDIDATES, MAX_PREFIXES_PER_PEER, NoRandomness, Node, Outgoing, PeerId};
use crate::routes::RouteRefused;
use crate::wireguard::{Psk, StaticKeys};

/// Who starts handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We start the handshake that opens an epoch, and any after it.
    Initiator,
    /// We answer the handshake that opens an epoch: only that shows that the other side has its key. Then we may start.
    Responder,
    /// Plain WireGuard: whoever has something to send.
    Either,
}

/// What the node needs to know of a peer to talk to it.
pub struct PeerConfig {
    pub id: PeerId,
    /// For status output: the SPIFFE ID.
    pub name: String,
    pub role: Role,
    /// The peer's static key. One key belongs to one peer.
    pub public_key: [u8; 32],
    /// Our static key for this peer.
    pub keys: Arc<StaticKeys>,
    pub psk: Psk,
    /// Number of the pre-shared key; grows with every turn.
    pub epoch: u64,
    /// From policy, never from the peer. At most [`MAX_PREFIXES_PER_PEER`].
    pub allowed_ips: Vec<IpNet>,
    /// Where to look for the peer, best first. At most [`MAX_CANDIDATES`].
    pub endpoints: Vec<SocketAddr>,
    /// No packet passes at or after this time.
    pub valid_until: BootTime,
    pub persistent_keepalive: Option<Duration>,
}

/// Why a peer was not armed. The caller's fault, or its peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmRefused {
    #[error("peer is armed already: cut it first")]
    Armed,
    #[error("peer is not armed")]
    NotArmed,
    #[error("static key belongs to another peer")]
    KeyTaken,
    #[error("static key is our own, or agrees on nothing")]
    BadKey,
    #[error("no pre-shared key")]
    NoPsk,
    #[error("lease has ended")]
    LeaseEnded,
    #[error("too many peers, prefixes, candidates or static keys")]
    Limit,
    #[error(transparent)]
    Route(#[from] RouteRefused),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Why an epoch was not turned. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnRefused {
    #[error("peer is not armed")]
    Unknown,
    #[error("epoch is not later than the present one: {0}")]
    NotLater(u64),
    #[error("no pre-shared key")]
    NoPsk,
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// The peer is not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peer is not armed")]
pub struct NotArmed;

impl Node {
    /// Adds a peer. An initiator's first handshake message goes to `out`.
    pub fn arm(
        &self,
        config: PeerConfig,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), ArmRefused> {
        self.check_config(&config, now)?;
        let peer = self.insert(config, now)?;
        let mut state = peer.state.lock();
        if state.role == Role::Initiator {
            self.start_handshake(&peer, &mut state, now, out);
        }
        self.reschedule(&peer, &state);
        Ok(())
    }

    /// Puts a checked peer into the table.
    pub(super) fn insert(
        &self,
        config: PeerConfig,
        now: BootTime,
    ) -> Result<Arc<Peer>, ArmRefused> {
        let id = config.id;
        let (key, prefixes) = (config.public_key, config.allowed_ips.clone());
        let mut table = self.table.write();
        table.check_free(id, &key, &prefixes)?;
        let door = table.door(&config.keys)?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer::new(config, door, generation, now));
        for prefix in prefixes {
            // Cannot fail: the table was checked under the same lock. Refusing half-way would leave routes.
            if let Err(refused) = table.routes.insert(prefix, Arc::clone(&peer)) {
                table.routes.retain(|owner| owner.id != id);
                return Err(refused.into());
            }
        }
        table.peers.insert(id, Arc::clone(&peer));
        table.by_key.insert(key, Arc::clone(&peer));
        Ok(peer)
    }

    /// Arms the next pre-shared key beside the present session. An initiator starts the handshake under it at
    /// once; a responder answers under it only from now on. The old session carries data until the new one does.
    pub fn turn_epoch(
        &self,
        id: PeerId,
        psk: Psk,
        epoch: u64,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), TurnRefused> {
        if !self.config.allow_zero_psk && psk.matches(&[0; 32]) {
            return Err(TurnRefused::NoPsk);
        }
        let peer = self.peer(id).ok_or(TurnRefused::Unknown)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(TurnRefused::Unknown);
        }
        if epoch <= state.epoch {
            return Err(TurnRefused::NotLater(state.epoch));
        }
        state.psk = psk;
        state.epoch = epoch;
        // A handshake under way would complete under the old key. An answer to the peer's stays: the peer may have
        // it by now and send under it, and until the next one completes it has nothing newer.
        self.drop_attempt(&mut state);
        if state.role == Role::Initiator {
            self.start_handshake(&peer, &mut state, now, out);
        }
        self.reschedule(&peer, &state);
        Ok(())
    }

    /// Whoever dialled anew opens the next epoch: call before [`Self::turn_epoch`]. What is open stays so.
    pub fn set_role(&self, id: PeerId, role: Role) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        state.role = role;
        Ok(())
    }

    /// Sets the end of the lease, later or earlier.
    pub fn extend_lease(&self, id: PeerId, valid_until: BootTime) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let state = peer.state.lock();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        peer.valid_until.set(Some(valid_until));
        self.reschedule(&peer, &state);
        Ok(())
    }

    /// Replaces the prefixes of a peer, all or none.
    pub fn set_allowed_ips(&self, id: PeerId, prefixes: &[IpNet]) -> Result<(), ArmRefused> {
        if prefixes.len() > MAX_PREFIXES_PER_PEER {
            return Err(ArmRefused::Limit);
        }
        let mut table = self.table.write();
        let Some(peer) = table.peers.get(&id).cloned() else {
            return Err(ArmRefused::NotArmed);
        };
        table.check_prefixes(id, prefixes)?;
        table.routes.retain(|owner| owner.id != id);
        for prefix in prefixes {
            table.routes.insert(*prefix, Arc::clone(&peer))?;
        }
        *peer.allowed_ips.lock() = prefixes.to_vec();
        Ok(())
    }

    /// Replaces the places to look for a peer. A handshake that waits for an answer is repeated at the next
    /// [`Self::handle_timeout`], and an initiator without session starts one then.
    pub fn set_endpoints(&self, id: PeerId, endpoints: &[SocketAddr]) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        peer.set_candidates(&mut state, endpoints);
        self.reschedule(&peer, &state);
        Ok(())
    }

    pub(super) fn check_config(
        &self,
        config: &PeerConfig,
        now: BootTime,
    ) -> Result<(), ArmRefused> {
        if config.allowed_ips.len() > MAX_PREFIXES_PER_PEER
            || config.endpoints.len() > MAX_CANDIDATES
        {
            return Err(ArmRefused::Limit);
        }
        if config.public_key == config.keys.public()
            || config.keys.agree(&config.public_key).is_none()
        {
            return Err(ArmRefused::BadKey);
        }
        if !self.config.allow_zero_psk && config.psk.matches(&[0; 32]) {
            return Err(ArmRefused::NoPsk);
        }
        if config.valid_until <= now {
            return Err(ArmRefused::LeaseEnded);
        }
        Ok(())
    }
}
