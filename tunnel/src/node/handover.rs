//! Peers on their way to another process of this machine: with their keys, counters and dates, so that the data goes on
//! as if nothing had happened.
//!
//! A peer is taken out before anything is written down: it is sealed and opened in one process only, and no message
//! counter is used twice. Times are those of this boot, and good in both processes. What is not taken along: cookies,
//! a handshake under way (the next one comes at once), and what the bind knows.

mod codec;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::{BootTime, Secret};
use ipnet::IpNet;

pub use codec::{MAX_MOVED_BYTES, NotAPeer};

use super::link::{Keyed, Link};
use super::peer::{Peer, PeerState};
use super::{ArmRefused, Endpoint, Node, PeerConfig, PeerId, Role};
use crate::wireguard::{Psk, ReplayGate, Session, SessionState, Stamp, StampClock, StaticKeys};

/// One peer, taken out of a node. Secret: keys are wiped when it is dropped.
pub struct MovedPeer {
    id: PeerId,
    name: String,
    role: Role,
    public_key: [u8; 32],
    /// Our static key for this peer.
    private: Secret<[u8; 32]>,
    psk: Psk,
    epoch: u64,
    opened: Option<u64>,
    allowed_ips: Vec<IpNet>,
    candidates: Vec<SocketAddr>,
    endpoint: Option<Endpoint>,
    proven_until: BootTime,
    valid_until: BootTime,
    persistent_keepalive: Option<Duration>,
    /// Newest timestamp taken from the peer, and given to it.
    stamps: [Option<Stamp>; 2],
    dates: Dates,
    sessions: Vec<MovedSession>,
    queue: Vec<Vec<u8>>,
}

/// When what happened last, or is to happen.
#[derive(Clone, Copy, Default)]
struct Dates {
    last_handshake: Option<BootTime>,
    rekey_at: Option<BootTime>,
    last_sent: Option<BootTime>,
    last_data: Option<BootTime>,
    dead_at: Option<BootTime>,
    keepalive_at: Option<BootTime>,
    rekey_on_use: bool,
}

struct MovedSession {
    slot: Slot,
    epoch: u64,
    expires: BootTime,
    ours: bool,
    state: SessionState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Current,
    Older,
    Next,
}

impl MovedPeer {
    pub fn id(&self) -> PeerId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Number of the pre-shared key.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn valid_until(&self) -> BootTime {
        self.valid_until
    }
}

impl Node {
    /// Takes every peer out, in order of their numbers. From here on this node seals and opens nothing of theirs;
    /// [`Self::import`] brings them back, here or in another process.
    pub fn export(&self) -> Vec<MovedPeer> {
        let mut peers: Vec<Arc<Peer>> = self.table.read().peers.values().cloned().collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
            .iter()
            .filter_map(|peer| {
                // Nothing is sealed or opened from here on: what is read below stays so.
                peer.refuse();
                let moved = taken(peer);
                self.cut_peer(peer).map(|_| moved)
            })
            .collect()
    }

    /// Arms a peer as it was when it was taken out. Nothing is sent: what is due is done by the timer.
    pub fn import(&self, moved: MovedPeer, now: BootTime) -> Result<(), ArmRefused> {
        let config = PeerConfig {
            id: moved.id,
            name: moved.name,
            role: moved.role,
            public_key: moved.public_key,
            keys: Arc::new(StaticKeys::new(moved.private)),
            psk: moved.psk,
            epoch: moved.epoch,
            allowed_ips: moved.allowed_ips,
            endpoints: moved.candidates,
            valid_until: moved.valid_until,
            persistent_keepalive: moved.persistent_keepalive,
        };
        self.check_config(&config, now)?;
        let peer = self.insert(config, now)?;
        let mut state = peer.state.lock();
        let [newest, given] = moved.stamps;
        state.opened = moved.opened;
        state.gate = ReplayGate::after(newest);
        state.stamps = StampClock::after(given);
        for packet in &moved.queue {
            state.enqueue(packet);
        }
        {
            let mut link = peer.link.write();
            link.endpoint = moved.endpoint;
            link.proven_until = moved.proven_until;
            for session in moved.sessions {
                self.adopt(&peer, &mut link, session);
            }
        }
        moved.dates.put(&peer, &mut state, now);
        self.reschedule(&peer, &state);
        Ok(())
    }

    /// A session whose number is taken by now is left out; the peer makes another.
    fn adopt(&self, peer: &Arc<Peer>, link: &mut Link, moved: MovedSession) {
        let index = moved.state.index();
        let mut sessions = self.sessions.write();
        let std::collections::hash_map::Entry::Vacant(free) = sessions.entry(index) else {
            return;
        };
        let slot = match moved.slot {
            Slot::Current => &mut link.current,
            Slot::Older => {
                let [newest, oldest] = &mut link.older;
                if newest.is_none() { newest } else { oldest }
            }
            Slot::Next => &mut link.next,
        };
        if slot.is_none() {
            free.insert(Arc::clone(peer));
            *slot = Some(Keyed {
                session: Arc::new(Session::import(moved.state)),
                epoch: moved.epoch,
                expires: moved.expires,
                ours: moved.ours,
            });
        }
    }
}

fn taken(peer: &Peer) -> MovedPeer {
    let state = peer.state.lock();
    // Waits for the batches under way, so that their counters are in what is written down.
    let link = peer.link.write();
    let [newest, oldest] = &link.older;
    let slots = [
        (Slot::Current, &link.current),
        (Slot::Older, newest),
        (Slot::Older, oldest),
        (Slot::Next, &link.next),
    ];
    let sessions = slots.into_iter().filter_map(|(slot, keyed)| {
        let keyed = keyed.as_ref()?;
        Some(MovedSession {
            slot,
            epoch: keyed.epoch,
            expires: keyed.expires,
            ours: keyed.ours,
            state: keyed.session.export(),
        })
    });
    MovedPeer {
        id: peer.id,
        name: peer.name.clone(),
        role: state.role,
        public_key: peer.public_key,
        private: peer.door.keys().private(),
        psk: state.psk.clone(),
        epoch: state.epoch,
        opened: state.opened,
        allowed_ips: peer.allowed_ips.lock().clone(),
        candidates: state.candidates.clone(),
        endpoint: link.endpoint,
        proven_until: link.proven_until,
        valid_until: peer.valid_until.get().unwrap_or_default(),
        persistent_keepalive: state.persistent_keepalive,
        stamps: [state.gate.newest(), state.stamps.last()],
        dates: Dates::of(peer, &state),
        sessions: sessions.collect(),
        queue: state.queue.iter().cloned().collect(),
    }
}

impl Dates {
    fn of(peer: &Peer, state: &PeerState) -> Self {
        let pulse = &peer.pulse;
        Self {
            last_handshake: state.last_handshake,
            rekey_at: state.rekey_at,
            last_sent: pulse.last_sent.get(),
            last_data: pulse.last_data.get(),
            dead_at: pulse.dead_at.get(),
            keepalive_at: pulse.keepalive_at.get(),
            rekey_on_use: pulse.rekey_on_use.load(Ordering::Acquire),
        }
    }

    fn put(self, peer: &Peer, state: &mut PeerState, now: BootTime) {
        let pulse = &peer.pulse;
        state.last_handshake = self.last_handshake;
        // A handshake that was under way, or is still to come, starts with the next look at the peer.
        let open = peer.link.read().current.is_some();
        let wanted = !state.queue.is_empty() || (!open && state.opened != Some(state.epoch));
        state.rekey_at = self.rekey_at.or(wanted.then_some(now));
        pulse.last_sent.set(self.last_sent);
        pulse.last_data.set(self.last_data);
        pulse.dead_at.set(self.dead_at);
        pulse.keepalive_at.set(self.keepalive_at);
        pulse
            .rekey_on_use
            .store(self.rekey_on_use, Ordering::Release);
    }
}
