//! One bound peer: its keys, its paths, and which of them is in use.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};

use super::budget::Budget;
use super::interface::Kind;
use super::keepalive::{self, Keepalive};
use super::path::Path;
use super::relay::{Rate, SOURCES_PER_PEER};
use super::seal::Channel;
use crate::node::{Endpoint, PeerId};

/// Most paths to one peer.
pub const MAX_PATHS: usize = 12;
/// How long a peer counts as in use after its last packet.
pub const ACTIVE_FOR: Duration = Duration::from_secs(30);
/// How often the path in use is probed while it is in use.
pub const PROBE_CHOSEN: Duration = Duration::from_secs(2);
/// How often others that answer are.
pub(super) const PROBE_OTHERS: Duration = Duration::from_secs(10);
/// How soon a lost probe is repeated.
pub(super) const PROBE_AGAIN: Duration = Duration::from_millis(500);
/// The first of the growing pauses between probes of a path that never answered.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of them, in use and not.
const LONGEST_PAUSE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(300)];
/// How often another path must be found better before it is taken.
const WINS: u8 = 3;
/// By how much it must be better: a fifth, and this much.
const BETTER_BY: Duration = Duration::from_millis(5);
/// How often an address is probed that only a datagram's source named.
const STRAY_TRIES: u32 = 5;
/// Pings answered: two for each of its paths in a second.
const PONGS: Rate = Rate {
    datagrams: 2 * MAX_PATHS as u64,
    bytes: 64 * 1024,
};
/// Asks and offers heard in one second.
const ASKS: Rate = Rate {
    datagrams: 10,
    bytes: 4096,
};

pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) name: SpiffeId,
    pub(super) channel: Channel,
    pub(super) key: edgeward_identity::Secret<[u8; 32]>,
    pub(super) paths: Vec<Path>,
    pub(super) chosen: Option<SocketAddr>,
    pub(super) since: BootTime,
    /// No path answers, and somebody was told.
    pub(super) lost: bool,
    pub(super) keepalive: Keepalive,
    pub(super) pongs: Budget,
    pub(super) asks: Budget,
    /// Addresses at which it proved itself, newest first.
    pub(super) heard: Vec<SocketAddr>,
    /// When relays may be asked for it again.
    pub(super) relays_at: BootTime,
    pub(super) scheduled: Option<BootTime>,
    pub(super) next_probe_id: u64,
    /// Until then the peer is told that this node is elsewhere now.
    pub(super) moved_until: BootTime,
    /// Of which search of which path the data path was told.
    pub(super) told_size: Option<(SocketAddr, Option<BootTime>)>,
    challenger: Option<(SocketAddr, u8)>,
    active_until: BootTime,
    traffic: (u64, u64),
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        name: SpiffeId,
        channel: Channel,
        key: edgeward_identity::Secret<[u8; 32]>,
        now: BootTime,
    ) -> Self {
        Self {
            id,
            name,
            channel,
            key,
            paths: Vec::new(),
            chosen: None,
            since: now,
            lost: false,
            keepalive: Keepalive::default(),
            pongs: Budget::full(PONGS),
            asks: Budget::full(ASKS),
            heard: Vec::new(),
            relays_at: now,
            scheduled: None,
            next_probe_id: 1,
            moved_until: BootTime::default(),
            told_size: None,
            challenger: None,
            active_until: now.plus(ACTIVE_FOR),
            traffic: (0, 0),
        }
    }

    pub(super) fn path(&self, remote: SocketAddr) -> Option<&Path> {
        self.paths.iter().find(|path| path.at.remote == remote)
    }

    pub(super) fn path_mut(&mut self, remote: SocketAddr) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.at.remote == remote)
    }

    pub(super) fn chosen_path(&self) -> Option<&Path> {
        self.path(self.chosen?)
    }

    /// Where the peer is reached without help.
    pub(super) fn direct_endpoint(&self) -> Option<Endpoint> {
        let chosen = self.chosen_path().filter(|path| path.is_direct());
        let alive = || {
            let mut direct = self.paths.iter().filter(|path| path.is_direct());
            direct.find(|path| path.is_alive())
        };
        chosen.or_else(alive).map(|path| path.at)
    }

    pub(super) fn has_live(&self, matches: impl Fn(&Path) -> bool) -> bool {
        self.paths
            .iter()
            .any(|path| path.is_alive() && matches(path))
    }

    /// A way to the peer; known already: the address of ours it takes may be new. `false` if there is no room.
    pub(super) fn learn(&mut self, at: Endpoint, kind: Kind, told: bool, now: BootTime) -> bool {
        if let Some(path) = self.path_mut(at.remote) {
            if at.local_ip.is_some() {
                path.at.local_ip = at.local_ip;
            }
            path.told |= told;
            return true;
        }
        if self.paths.len() >= MAX_PATHS {
            let chosen = self.chosen;
            let leaves = self.paths.iter().position(|path| {
                Some(path.at.remote) != chosen && !path.told && (told || !path.is_alive())
            });
            match leaves {
                Some(place) => drop(self.paths.remove(place)),
                None => return false,
            }
        }
        self.paths.push(Path::new(at, kind, told, now));
        true
    }

    /// What the peer says of itself now. Paths that work stay, told or not.
    pub(super) fn set_candidates(&mut self, addresses: &[SocketAddr], now: BootTime) {
        let chosen = self.chosen;
        for path in self.paths.iter_mut().filter(|path| path.is_direct()) {
            path.told = addresses.contains(&path.at.remote);
        }
        self.paths.retain(|path| {
            !path.is_direct()
                || path.told
                || path.is_alive()
                || Some(path.at.remote) == chosen
                || path.tries < super::path::DEAD_AFTER
        });
        for address in addresses {
            let at = Endpoint {
                remote: *address,
                local_ip: None,
            };
            self.learn(at, Kind::Direct, true, now);
        }
    }

    pub(super) fn heard_at(&mut self, at: SocketAddr) -> bool {
        if self.heard.first() == Some(&at) {
            return false;
        }
        let known = self.heard.contains(&at);
        self.heard.retain(|heard| *heard != at);
        self.heard.insert(0, at);
        self.heard.truncate(SOURCES_PER_PEER);
        !known
    }

    pub(super) fn is_active(&self, now: BootTime) -> bool {
        now < self.active_until
    }

    /// In use from now on; `true` if it was not.
    pub(super) fn wake(&mut self, now: BootTime) -> bool {
        let woke = !self.is_active(now);
        self.active_until = now.plus(ACTIVE_FOR);
        woke
    }

    /// What WireGuard counted; `true` if something passed since.
    pub(super) fn count(&mut self, sent: u64, received: u64) -> bool {
        let passed = self.traffic != (sent, received);
        self.traffic = (sent, received);
        passed
    }

    /// Every path is to be probed at `at`, unless it was a moment ago.
    pub(super) fn probe_all(&mut self, at: BootTime) {
        for path in &mut self.paths {
            let just = path
                .last_sent
                .is_some_and(|sent| at.since(sent) < FIRST_PAUSE);
            if !just {
                path.next_probe = path.next_probe.min(at);
                path.tries = 0;
            }
        }
    }

    /// When a path that was just probed, or lost a probe, is to be probed next; `None`: not before something happens.
    pub(super) fn pause(
        &self,
        path: &Path,
        local: &[IpAddr],
        metered: bool,
        now: BootTime,
    ) -> Option<Duration> {
        let chosen = Some(path.at.remote) == self.chosen;
        let active = self.is_active(now);
        if path.is_alive() && path.is_failing() {
            return Some(PROBE_AGAIN);
        }
        if !path.is_alive() {
            if !active && metered {
                return None;
            }
            let [in_use, idle] = LONGEST_PAUSE;
            let longest = if active { in_use } else { idle };
            let doublings = path.tries.saturating_sub(1).min(12);
            return Some(FIRST_PAUSE.saturating_mul(1 << doublings).min(longest));
        }
        if active {
            let often = chosen || path.is_on_trial();
            return Some(if often { PROBE_CHOSEN } else { PROBE_OTHERS });
        }
        let keep =
            chosen && path.is_direct() && !metered && keepalive::is_needed(path.observed, local);
        keep.then(|| self.keepalive.interval())
    }

    /// The path to use: the present one unless it is dead, or another was found better again and again.
    pub(super) fn choose(&mut self, answered: Option<SocketAddr>) -> Option<SocketAddr> {
        let best = self
            .paths
            .iter()
            .filter_map(|path| Some((path.cost()?, path.at.remote, path.is_direct())))
            .min()?;
        let (cost, best, direct) = best;
        let Some(present) = self.chosen_path() else {
            return Some(best);
        };
        if present.at.remote == best {
            self.challenger = None;
            return None;
        }
        if present.is_silent() {
            return Some(best);
        }
        let present_direct = present.is_direct();
        // One that came and went may go again: it must win like any other.
        let steady = self.path(best).is_some_and(|path| !path.has_died());
        // Not judged yet: it was good enough for the bind.
        let present_cost = present.cost()?;
        if cost + cost / 4 + BETTER_BY >= present_cost {
            self.challenger = None;
            return None;
        }
        let wins = match self.challenger {
            Some((challenger, wins)) if challenger == best => {
                wins.saturating_add(u8::from(answered == Some(best)))
            }
            Some(_) | None => 1,
        };
        self.challenger = Some((best, wins));
        (wins >= WINS || (direct && steady && !present_direct)).then_some(best)
    }

    pub(super) fn take(&mut self, remote: SocketAddr, now: BootTime) {
        self.chosen = Some(remote);
        self.challenger = None;
        self.since = now;
        self.keepalive = Keepalive::default();
    }

    /// Forgets addresses that nobody told and where nobody answers: a spoofed source is probed a few times, not for ever.
    pub(super) fn forget_strays(&mut self) {
        let chosen = self.chosen;
        self.paths.retain(|path| {
            path.told
                || Some(path.at.remote) == chosen
                || path.last_answer().is_some()
                || path.tries < STRAY_TRIES
        });
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Option<BootTime> {
        let probes = self.paths.iter().map(|path| path.next_probe);
        let expiries = self.paths.iter().filter_map(Path::expires);
        probes.chain(expiries).filter(|due| *due < NEVER).min()
    }
}

/// No time at all.
pub(super) const NEVER: BootTime = BootTime::from_duration(Duration::MAX);
