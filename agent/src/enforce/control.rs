//! The WireGuard node as the bind uses it: arms, opens, extends and cuts, and keeps picture and kernel in step.
//!
//! A grant goes record -> kernel lease -> picture, and forwarding opens with the last. A cut goes the other way: the
//! picture and the data path refuse first, then flows, then the kernel's elements; the record comes after.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use edgeward_audit::Event;
use edgeward_identity::{BootTime, Clock, Secret, SpiffeId};
use edgeward_tunnel::bind::Role;
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::driver::{ControlFailed, Remote, WireGuardControl};
use edgeward_tunnel::bind::ending::Ending;
use edgeward_tunnel::bind::machine::{Arm, Opened};
use edgeward_tunnel::node::{self, Endpoint, PeerConfig, PeerId};
use edgeward_tunnel::shell::Tunnel;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Recorder;
use super::books::{Armed, Books};
use super::decide::BoundPeer;
use super::lan;
use super::leases::{Change, LeaseQueue};
use super::posture::Posture;
use super::records::Records;
use super::scene::{Kept, Scene};
use crate::reach::desk::Desk;
use crate::reach::seeker::NewlyBound;

/// Longest wait for the record and the kernel before a bind is given up.
const GRANT_DEADLINE: Duration = Duration::from_secs(8);

/// Longest wait for the kernel's leases of networks behind a peer that is open; without them it is open all the same.
const NETWORKS_DEADLINE: Duration = Duration::from_secs(1);

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
    /// The node has something to tell.
    pub(super) node_spoke: Arc<Notify>,
    /// Whoever seeks ways to peers hears of them here.
    pub(super) desk: Arc<Desk>,
    /// What was taken over from the program before this one.
    pub(super) taken_over: Option<TakenOver>,
}

/// Tunnels of the program before this one.
#[derive(Clone, Debug)]
pub(super) struct TakenOver {
    pub(super) version: String,
    pub(super) at: BootTime,
    pub(super) tunnels: usize,
}

/// Whether the kernel repeats the leases.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    Leases(LeaseQueue),
    /// The operator's choice.
    Off,
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

impl Control {
    /// Takes a peer away at once. `None` if it was not armed.
    pub(super) fn cut_now(&self, peer: &SpiffeId) -> Option<Cut> {
        let begun = Instant::now();
        let armed = self.books.lock().armed.remove(peer)?;
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
        self.desk.unbound(number);
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

    /// A bind that was idle is over: the tunnel goes, and nothing else. Flows wait for the next bind, which asks about
    /// each of them anew, and packets to the peer reach the agent, which wakes it.
    fn rest(&self, peer: &SpiffeId) -> bool {
        let Some(armed) = self.books.lock().armed.remove(peer) else {
            return false;
        };
        self.tunnel.node().cut(armed.number);
        self.desk.unbound(armed.number);
        self.scene.change(Kept::Hold, |parts| {
            parts.bound.remove(&armed.number);
        });
        self.kernel
            .leave(hosts(&armed.allowed_ips).map(|address| Change::Asleep { address }));
        true
    }

    /// Whom packets may wake, and by which prefixes. Whoever is armed is left as it is in the kernel.
    pub(super) fn let_sleep(
        &self,
        sleepers: &BTreeMap<SpiffeId, Vec<IpNet>>,
        is_new: impl Fn(&SpiffeId) -> bool,
        no_longer: &[IpNet],
    ) {
        let mut books = self.books.lock();
        let mut prefixes = Vec::with_capacity(sleepers.len() * 2);
        let mut changes: Vec<Change> = hosts(no_longer)
            .map(|address| Change::Cut { address })
            .collect();
        for (peer, owned) in sleepers {
            let number = books.number(peer);
            prefixes.extend(owned.iter().map(|prefix| (*prefix, number)));
            if is_new(peer) && !books.armed.contains_key(peer) {
                changes.extend(hosts(owned).map(|address| Change::Asleep { address }));
            }
        }
        let mut wakeful = BTreeMap::new();
        for (prefix, number) in &prefixes {
            if is_network(prefix) {
                // The first has it, as in the data path.
                wakeful.entry(prefix.trunc()).or_insert(*number);
            }
        }
        books.wakeful.send_replace(wakeful);
        let left_out = self.tunnel.node().set_sleepers(prefixes);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "too many prefixes, or doubled ones: no packet wakes their peers"
            );
        }
        self.kernel.leave(changes);
    }

    /// A tunnel is gone and its peer still permitted: packets to it may wake it.
    pub(super) fn asleep_in_kernel(&self, peer: &SpiffeId, prefixes: &[IpNet]) {
        let books = self.books.lock();
        if !books.armed.contains_key(peer) {
            self.kernel
                .leave(hosts(prefixes).map(|address| Change::Asleep { address }));
        }
    }

    /// The same for a peer that no bind of this program knows; whether it was one.
    pub(super) fn rest_if_handed(&self, peer: &SpiffeId) -> bool {
        let handed = self.books.lock().armed.get(peer).map(|armed| armed.handed);
        handed == Some(true) && self.rest(peer)
    }

    /// What each armed peer has carried so far, in bytes.
    pub(super) fn carried(&self) -> HashMap<SpiffeId, u64> {
        let carried = self.tunnel.node().inner_bytes();
        let books = self.books.lock();
        carried
            .into_iter()
            .filter_map(|(number, bytes)| Some((books.armed_by(number)?.clone(), bytes)))
            .collect()
    }

    /// Arms a peer; what it sends and what is for it waits until its bind is open.
    fn arm_closed(&self, arm: Arm, at: Remote, number: PeerId) -> Result<(), ControlFailed> {
        let node = self.tunnel.node();
        node.await_open(number);
        self.arm_node(arm, at, number)
            .inspect_err(|_| node.await_no_longer(number))
    }

    fn arm_node(&self, arm: Arm, at: Remote, number: PeerId) -> Result<(), ControlFailed> {
        let config = PeerConfig {
            id: number,
            name: arm.peer.to_string(),
            role: node_role(arm.role),
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

    /// What waited goes out when answers from networks behind the peer can come in: their leases are written by whoever
    /// keeps routes. Called on the bind's own thread.
    fn await_networks(&self, allowed_ips: &[IpNet]) {
        let networks: Vec<IpNet> = allowed_ips.iter().copied().filter(is_network).collect();
        if networks.is_empty() || matches!(self.kernel, Kernel::Off) {
            return;
        }
        let mut leased = self.books.lock().leased.subscribe();
        let (done, result) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let has = |leased: &BTreeSet<IpNet>| {
                let has = |net: &IpNet| leased.iter().any(|leased| leased.contains(net));
                networks.iter().all(has)
            };
            let written = leased.wait_for(has).await.is_ok();
            // Whoever asked may have given up.
            let _gone = done.send(written);
        });
        if !matches!(result.recv_timeout(NETWORKS_DEADLINE), Ok(true)) {
            tracing::debug!("networks of a peer have no lease yet: first answers may be lost");
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
        let found = NewlyBound {
            peer: peer.clone(),
            key: Secret::new(*arm.reach_key.expose()),
            role,
            at: Endpoint {
                remote: at.address,
                local_ip: at.local_ip,
            },
        };
        let known = books.armed.get(&peer).cloned();
        tracing::debug!(%peer, ?role, epoch = arm.epoch, known = known.is_some(), "arming");
        let (number, open_since) = match known {
            Some(known) if known.keys == keys => {
                let node = self.tunnel.node();
                node.set_role(known.number, node_role(role))
                    .map_err(failed)?;
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
            Some(known) => {
                books.armed.remove(&peer);
                self.take_away(&known, Instant::now());
                self.arm_closed(arm, at, known.number)?;
                (known.number, None)
            }
            None => {
                let number = books.number(&peer);
                self.arm_closed(arm, at, number)?;
                (number, None)
            }
        };
        books.armed.insert(
            peer,
            Armed {
                number,
                keys,
                until,
                allowed_ips,
                open_since,
                handed: false,
            },
        );
        self.desk.bound(number, found);
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
        self.scene
            .change(Kept::Hold, |parts| parts.bound.insert(number, bound));
        drop(books);
        self.await_networks(&opened.allowed_ips);
        self.tunnel.release(number);
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
        if ending.code == Code::Idle {
            if self.rest(peer) {
                tracing::debug!(%peer, "peer rests");
            }
        } else if let Some(cut) = self.cut_now(peer) {
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
pub(super) fn hosts(prefixes: &[IpNet]) -> impl Iterator<Item = IpAddr> + '_ {
    prefixes
        .iter()
        .filter(|prefix| !is_network(prefix))
        .map(IpNet::addr)
}

/// More than a single address.
fn is_network(prefix: &IpNet) -> bool {
    prefix.prefix_len() < prefix.max_prefix_len()
}

fn node_role(role: Role) -> node::Role {
    match role {
        Role::Initiator => node::Role::Initiator,
        Role::Responder => node::Role::Responder,
    }
}

fn failed(error: impl std::fmt::Display) -> ControlFailed {
    ControlFailed(error.to_string())
}
