//! The WireGuard node as the bind uses it: arms, opens, extends and cuts, and keeps picture and kernel in step.
//!
//! A grant goes record -> kernel lease -> picture, and forwarding opens with the last. A cut goes the other way: the
//! picture and the data path refuse first, then flows, then the kernel's elements; the record comes after.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use edgeward_audit::Event;
use edgeward_identity::{BootTime, Clock, Secret, SpiffeId};
use edgeward_tunnel::bind::Role;
use edgeward_tunnel::bind::driver::{ControlFailed, Remote, WireGuardControl};
use edgeward_tunnel::bind::ending::Ending;
use edgeward_tunnel::bind::machine::{Arm, Opened};
use edgeward_tunnel::node::{self, PeerConfig, PeerId};
use edgeward_tunnel::shell::Tunnel;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Recorder;
use super::decide::BoundPeer;
use super::lan;
use super::leases::{Change, LeaseQueue};
use super::posture::Posture;
use super::records::Records;
use super::scene::{Kept, Scene};

/// Longest wait for the record and the kernel before a bind is given up.
const GRANT_DEADLINE: Duration = Duration::from_secs(8);

/// Most peers that were cut and are still known by number.
const MAX_FORMER: usize = 1024;

/// Arms and cuts peers.
pub(super) struct Control {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) scene: Arc<Scene>,
    pub(super) kernel: Kernel,
    pub(super) recorder: Arc<dyn Recorder>,
    pub(super) records: Records,
    pub(super) posture: Arc<Posture>,
    /// What the kernel guards on LAN interfaces.
    pub(super) lan: Arc<lan::Shared>,
    pub(super) clock: Arc<dyn Clock>,
    /// Where records and kernel changes are awaited: the bind's own threads must not run them.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) books: Mutex<Books>,
    /// Something was armed: WireGuard will soon complete a handshake.
    pub(super) armed_some: Notify,
}

/// Whether the kernel repeats the leases.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    Leases(LeaseQueue),
    /// The operator's choice.
    Off,
}

/// Who is armed.
#[derive(Debug)]
pub(super) struct Books {
    armed: HashMap<SpiffeId, Armed>,
    /// Numbers of peers that were cut lately: reports of their last flows still name them.
    former: VecDeque<(PeerId, SpiffeId)>,
    next: u64,
}

/// A peer that WireGuard holds keys of.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) number: PeerId,
    pub(super) role: Role,
    keys: [[u8; 32]; 2],
    pub(super) until: BootTime,
    pub(super) allowed_ips: Vec<IpNet>,
    /// Since when forwarding is open.
    pub(super) open_since: Option<BootTime>,
}

/// What a cut took away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) was_open: bool,
    pub(super) sessions: usize,
    pub(super) flows: usize,
    /// From the call to the data path's refusal.
    pub(super) took: Duration,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            armed: HashMap::new(),
            former: VecDeque::new(),
            next: 1,
        }
    }
}

impl Books {
    /// The peer behind a number.
    pub(super) fn peer(&self, number: PeerId) -> Option<&SpiffeId> {
        self.armed
            .iter()
            .find(|(_, armed)| armed.number == number)
            .map(|(id, _)| id)
    }

    /// The peer behind a number, even if it was cut lately.
    pub(super) fn former_or_present(&self, number: PeerId) -> Option<SpiffeId> {
        let former = || {
            let mut former = self.former.iter().rev();
            former.find(|(cut, _)| *cut == number).map(|(_, id)| id)
        };
        self.peer(number).or_else(former).cloned()
    }

    fn remove(&mut self, peer: &SpiffeId) -> Option<Armed> {
        let armed = self.armed.remove(peer)?;
        if self.former.len() >= MAX_FORMER {
            self.former.pop_front();
        }
        self.former.push_back((armed.number, peer.clone()));
        Some(armed)
    }

    pub(super) fn open_count(&self) -> usize {
        self.armed
            .values()
            .filter(|armed| armed.open_since.is_some())
            .count()
    }
}

impl Control {
    /// Takes a peer away at once. `None` if it was not armed.
    pub(super) fn cut_now(&self, peer: &SpiffeId) -> Option<Cut> {
        let begun = Instant::now();
        let armed = self.books.lock().remove(peer)?;
        Some(self.take_away(&armed, begun))
    }

    /// Everybody who is armed.
    pub(super) fn armed(&self) -> Vec<SpiffeId> {
        self.books.lock().armed.keys().cloned().collect()
    }

    fn take_away(&self, armed: &Armed, begun: Instant) -> Cut {
        let number = armed.number;
        // The node's own flag is what each batch compares; the picture keeps new flows out whatever comes.
        let report = self.tunnel.cut(number);
        self.scene.change(Kept::Hold, |parts| {
            parts.bound.remove(&number);
        });
        let took = begun.elapsed();
        self.kernel
            .leave(hosts(&armed.allowed_ips).map(|address| Change::Cut { address }));
        metrics::histogram!("edgeward_cut_seconds").record(took.as_secs_f64());
        let (report, flows) = report.unwrap_or_default();
        Cut {
            was_open: armed.open_since.is_some(),
            sessions: report.sessions,
            flows,
            took,
        }
    }

    fn arm_node(&self, arm: Arm, at: Remote, number: PeerId) -> Result<(), ControlFailed> {
        let role = match arm.role {
            Role::Initiator => node::Role::Initiator,
            Role::Responder => node::Role::Responder,
        };
        let config = PeerConfig {
            id: number,
            name: arm.peer.to_string(),
            role,
            public_key: arm.wireguard_key,
            keys: arm.own_keys,
            psk: arm.psk,
            epoch: arm.epoch,
            allowed_ips: arm.allowed_ips,
            endpoints: vec![at.address],
            valid_until: arm.until,
            persistent_keepalive: None,
        };
        self.tunnel.arm(config).map_err(failed)
    }

    /// Waits for the record, then for the kernel. Called on the bind's own thread.
    fn grant(&self, event: Event, changes: Vec<Change>) -> Result<(), ControlFailed> {
        let (done, result) = mpsc::sync_channel(1);
        let (recorder, kernel) = (Arc::clone(&self.recorder), self.kernel.clone());
        self.runtime.spawn(async move {
            let granted = match recorder.record(event).await {
                Ok(()) => kernel.apply(changes).await,
                Err(refused) => Err(refused.to_string()),
            };
            // Whoever asked may have given up.
            let _gone = done.send(granted);
        });
        match result.recv_timeout(GRANT_DEADLINE) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(ControlFailed(reason)),
            Err(_) => Err(ControlFailed(
                "record or lease sets took too long".to_owned(),
            )),
        }
    }

    fn changes(&self, allowed_ips: &[IpNet], until: BootTime) -> Vec<Change> {
        let left = until.since(self.clock.boottime());
        hosts(allowed_ips)
            .map(|address| Change::Lease { address, left })
            .collect()
    }
}

impl WireGuardControl for Control {
    fn arm(&self, arm: Arm, at: Remote) -> Result<(), ControlFailed> {
        let mut books = self.books.lock();
        let keys = [arm.own_keys.public(), arm.wireguard_key];
        let peer = arm.peer.clone();
        let (role, until) = (arm.role, arm.until);
        let allowed_ips = arm.allowed_ips.clone();
        let known = books.armed.get(&peer).cloned();
        tracing::debug!(%peer, ?role, epoch = arm.epoch, known = known.is_some(), "arming");
        let (number, open_since) = match known {
            Some(known) if known.keys == keys && known.role == role => {
                let node = self.tunnel.node();
                node.set_endpoints(known.number, &[at.address])
                    .map_err(failed)?;
                node.set_allowed_ips(known.number, &allowed_ips)
                    .map_err(failed)?;
                node.extend_lease(known.number, until).map_err(failed)?;
                self.tunnel
                    .turn_epoch(known.number, arm.psk, arm.epoch)
                    .map_err(failed)?;
                (known.number, known.open_since)
            }
            Some(known) if known.keys == keys => {
                // The same machines in other roles: flows stay known, and ask again under the new arming.
                self.tunnel.node().cut(known.number);
                self.arm_node(arm, at, known.number)?;
                (known.number, known.open_since)
            }
            Some(known) => {
                books.remove(&peer);
                self.take_away(&known, Instant::now());
                self.arm_node(arm, at, known.number)?;
                (known.number, None)
            }
            None => {
                let number = PeerId(books.next);
                books.next += 1;
                self.arm_node(arm, at, number)?;
                (number, None)
            }
        };
        books.armed.insert(
            peer,
            Armed {
                number,
                role,
                keys,
                until,
                allowed_ips,
                open_since,
            },
        );
        self.armed_some.notify_one();
        Ok(())
    }

    fn turn(
        &self,
        peer: &SpiffeId,
        epoch: u64,
        psk: Secret<[u8; 32]>,
    ) -> Result<(), ControlFailed> {
        let number = self.number(peer)?;
        self.tunnel.turn_epoch(number, psk, epoch).map_err(failed)?;
        self.armed_some.notify_one();
        Ok(())
    }

    fn open(&self, opened: &Opened) -> Result<(), ControlFailed> {
        let number = self.number(&opened.peer)?;
        let event = self.records.bind_opened(self.clock.now(), opened);
        let changes = self.changes(&opened.allowed_ips, opened.until);
        self.grant(event, changes)?;
        let mut books = self.books.lock();
        // It may have been cut while the record was written: then its elements go again, and nothing opens.
        let Some(armed) = books
            .armed
            .get_mut(&opened.peer)
            .filter(|armed| armed.number == number)
        else {
            self.kernel
                .leave(hosts(&opened.allowed_ips).map(|address| Change::Cut { address }));
            return Err(ControlFailed("cut meanwhile".to_owned()));
        };
        armed.open_since.get_or_insert(self.clock.boottime());
        let bound = BoundPeer::new(opened.peer.clone(), opened.peer_spki, &opened.claims);
        let known = self
            .scene
            .change(Kept::Hold, |parts| parts.bound.insert(number, bound));
        if known.is_none() {
            // Denials from before the bind was open would be remembered for a while.
            self.tunnel.filter().cut(number);
        }
        Ok(())
    }

    fn set_lease(
        &self,
        peer: &SpiffeId,
        until: BootTime,
        allowed_ips: &[IpNet],
    ) -> Result<(), ControlFailed> {
        let mut books = self.books.lock();
        let armed = books
            .armed
            .get_mut(peer)
            .ok_or_else(|| ControlFailed("not armed".to_owned()))?;
        let node = self.tunnel.node();
        if armed.allowed_ips != allowed_ips {
            node.set_allowed_ips(armed.number, allowed_ips)
                .map_err(failed)?;
            self.kernel
                .leave(hosts(&armed.allowed_ips).map(|address| Change::Cut { address }));
            armed.allowed_ips = allowed_ips.to_vec();
        }
        node.extend_lease(armed.number, until).map_err(failed)?;
        armed.until = until;
        self.tunnel.wake_timer();
        if armed.open_since.is_some() {
            self.kernel.leave(self.changes(allowed_ips, until));
        }
        Ok(())
    }

    fn cut(&self, peer: &SpiffeId, ending: &Ending) {
        if let Some(cut) = self.cut_now(peer) {
            tracing::info!(%peer, code = %ending.code, sessions = cut.sessions, flows = cut.flows, "peer cut");
        }
    }
}

impl Control {
    fn number(&self, peer: &SpiffeId) -> Result<PeerId, ControlFailed> {
        self.books
            .lock()
            .armed
            .get(peer)
            .map(|armed| armed.number)
            .ok_or_else(|| ControlFailed("not armed".to_owned()))
    }
}

impl Kernel {
    fn leave(&self, changes: impl IntoIterator<Item = Change>) {
        match self {
            Self::Leases(queue) => queue.leave(changes),
            Self::Off => {}
        }
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), String> {
        match self {
            Self::Leases(queue) => queue.apply(changes).await,
            Self::Off => Ok(()),
        }
    }
}

/// The single addresses among prefixes: what the lease sets hold.
fn hosts(prefixes: &[IpNet]) -> impl Iterator<Item = IpAddr> + '_ {
    prefixes
        .iter()
        .filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len())
        .map(IpNet::addr)
}

fn failed(error: impl std::fmt::Display) -> ControlFailed {
    ControlFailed(error.to_string())
}
