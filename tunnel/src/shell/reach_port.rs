//! The shell's side of reach: what the packet threads know of it, and what whoever drives the core tells them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::{HashSet, HashSetExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::Shared;
use super::demux::{DatagramSink, DatagramSource, Transmit, inbox};
use crate::node::Endpoint;
use crate::reach::relay::{Limits, Relays};
use crate::reach::seal::{Tag, tag_of};
use crate::reach::{MAX_CANDIDATES, Output};

/// Most reach messages and STUN answers that wait for their reader.
pub const REACH_INBOX_DATAGRAMS: usize = 512;
/// Most tags let in: one for every peer, and a former one of some.
pub const MAX_TAGS: usize = 2 * crate::node::MAX_PEERS;

/// Longest datagram that every path takes whole, in bytes (IPv6's least MTU, less the headers).
const SURELY_WHOLE_BYTES: usize = 1280 - 48;

/// Shared by the packet threads.
pub(super) struct ReachDoor {
    tags: RwLock<HashSet<Tag>>,
    stun: RwLock<Vec<SocketAddr>>,
    sink: DatagramSink,
    source: Mutex<Option<DatagramSource>>,
    relays: Arc<Mutex<Relays>>,
    unknown: AtomicU64,
    spoofed: AtomicU64,
    misrouted: AtomicU64,
    not_carried: AtomicU64,
    full: AtomicU64,
}

/// What the door kept out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Reach messages of no bind, and STUN that nobody asked for.
    pub unknown: u64,
    /// Datagrams that said to come from a detour.
    pub spoofed: u64,
    /// Relayed datagrams within relayed ones, or without a route.
    pub misrouted: u64,
    /// Datagrams of others that the port did not take.
    pub not_carried: u64,
    /// Messages that found their reader's queue full.
    pub full: u64,
    /// Datagrams that no channel took.
    pub channel_full: u64,
}

/// A way to tell the shell what reach wants. Cheap to clone.
#[derive(Clone)]
pub struct ReachPort {
    shared: Arc<Shared>,
}

impl ReachDoor {
    pub(super) fn new() -> Self {
        let (sink, source) = inbox(REACH_INBOX_DATAGRAMS);
        Self {
            tags: RwLock::new(HashSet::new()),
            stun: RwLock::default(),
            sink,
            source: Mutex::new(Some(source)),
            relays: Arc::new(Mutex::new(Relays::new(Limits::default()))),
            unknown: AtomicU64::new(0),
            spoofed: AtomicU64::new(0),
            misrouted: AtomicU64::new(0),
            not_carried: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    pub(super) fn relays(&self) -> &Mutex<Relays> {
        &self.relays
    }

    /// A reach message: only what carries the tag of a bind costs more than a look.
    pub(super) fn offer(&self, from: Endpoint, bytes: &[u8]) {
        if !tag_of(bytes).is_some_and(|tag| self.tags.read().contains(&tag)) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue(from, bytes);
    }

    /// STUN: only from where an answer is expected.
    pub(super) fn offer_stun(&self, from: Endpoint, bytes: &[u8]) {
        if !self.stun.read().contains(&from.remote) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue(from, bytes);
    }

    pub(super) fn count_spoofed(&self, datagrams: u64) {
        self.spoofed.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn count_misrouted(&self, datagrams: u64) {
        self.misrouted.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn count_not_carried(&self, datagrams: u64) {
        self.not_carried.fetch_add(datagrams, Ordering::Relaxed);
    }

    fn queue(&self, from: Endpoint, bytes: &[u8]) {
        if !self.sink.offer(from.remote, from.local_ip, None, bytes) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ReachPort {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Reach messages and STUN answers ([`Class`](super::demux::Class) tells them apart). There is one reader: `None`
    /// the second time.
    pub fn source(&self) -> Option<DatagramSource> {
        self.shared.reach.source.lock().take()
    }

    /// The routes that this node carries for others: for [`Reach::new`](crate::reach::Reach::new), and to look at.
    pub fn relays(&self) -> Arc<Mutex<Relays>> {
        Arc::clone(&self.shared.reach.relays)
    }

    /// Does what the shell can do of it, and gives the rest back.
    pub fn perform(&self, output: Output) -> Option<Output> {
        match output {
            Output::Send { to, bytes } => self.send(to, &bytes),
            Output::Listen(tag) => {
                let mut tags = self.shared.reach.tags.write();
                if tags.len() < MAX_TAGS {
                    tags.insert(tag);
                }
            }
            Output::Deafen(tag) => {
                self.shared.reach.tags.write().remove(&tag);
            }
            Output::UsePath {
                peer,
                endpoint,
                proven_until,
                largest_datagram,
            } => {
                let node = &self.shared.node;
                // Cut meanwhile: then there is nobody to send to.
                let used = node.use_path(peer, endpoint, proven_until);
                if used.is_ok() && largest_datagram.is_some() {
                    node.set_largest_datagram(peer, largest_datagram, self.shared.clock.boottime());
                }
            }
            Output::Detour {
                address,
                relay,
                sources,
                route,
            } => {
                let detours = self.shared.port.detours();
                if !detours.through(address, relay, &sources, route) {
                    tracing::warn!(%address, "too many detours");
                }
            }
            Output::DetourGone { address } => self.shared.port.detours().remove(address),
            Output::Granted { .. }
            | Output::NotGranted { .. }
            | Output::Offered { .. }
            | Output::Observed { .. }
            | Output::Switched { .. } => return Some(output),
        }
        None
    }

    /// Sends one datagram of the caller's own (a knock, a STUN request) from the port.
    pub fn send(&self, to: Endpoint, bytes: &[u8]) {
        // The kernel would cut it into pieces, which says nothing of what the path takes whole.
        if bytes.len() > SURELY_WHOLE_BYTES && self.shared.port.is_too_long(to.remote, bytes.len())
        {
            return;
        }
        let sent = self.shared.port.try_send(&Transmit {
            to: to.remote,
            local_ip: to.local_ip,
            ecn: None,
            segment_size: None,
            bytes,
        });
        // Lost, as the network may lose it.
        if let Err(error) = sent {
            tracing::trace!(%error, to = %to.remote, "not sent");
        }
    }

    /// From where STUN answers are expected; nobody else's are looked at. At most [`MAX_CANDIDATES`].
    pub fn expect_stun(&self, servers: &[SocketAddr]) {
        let mut expected = servers.to_vec();
        expected.truncate(MAX_CANDIDATES);
        *self.shared.reach.stun.write() = expected;
    }

    /// What goes to this address ([`Reach::channel_address`](crate::reach::Reach::channel_address)) comes out of the
    /// receiver from now on; what comes back is [`Tunnel::inject`](super::Tunnel::inject)ed. `None` if there is no room.
    pub fn open_channel(&self, address: SocketAddr) -> Option<mpsc::Receiver<Vec<u8>>> {
        self.shared.port.detours().channel(address)
    }

    pub fn close_channel(&self, address: SocketAddr) {
        self.shared.port.detours().remove(address);
    }

    /// What this node carried for others, for metrics and the log: call it now and then.
    pub fn report(&self) {
        let (carried, refused, routes, ended) = {
            let mut relays = self.shared.reach.relays.lock();
            let ended = relays.take_ended();
            (relays.carried(), relays.refused(), relays.len(), ended)
        };
        let routes = u32::try_from(routes).unwrap_or(u32::MAX);
        metrics::gauge!("edgeward_relay_routes").set(routes);
        metrics::counter!("edgeward_relay_carried_bytes_total").absolute(carried.bytes);
        metrics::counter!("edgeward_relay_carried_datagrams_total").absolute(carried.datagrams);
        for (reason, datagrams) in [
            ("unknown-route", refused.unknown_route),
            ("wrong-source", refused.wrong_source),
            ("over-budget", refused.over_budget),
        ] {
            metrics::counter!("edgeward_relay_refused_datagrams_total", "reason" => reason)
                .absolute(datagrams);
        }
        for account in ended {
            let [one, other] = &account.ends;
            tracing::info!(%one, %other, bytes = account.bytes, datagrams = account.datagrams, over_budget = account.over_budget, "carried for others");
        }
    }

    pub fn counters(&self) -> DoorCounters {
        let door = &self.shared.reach;
        DoorCounters {
            unknown: door.unknown.load(Ordering::Relaxed),
            spoofed: door.spoofed.load(Ordering::Relaxed),
            misrouted: door.misrouted.load(Ordering::Relaxed),
            not_carried: door.not_carried.load(Ordering::Relaxed),
            full: door.full.load(Ordering::Relaxed),
            channel_full: self.shared.port.detours().dropped(),
        }
    }
}
