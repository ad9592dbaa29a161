//! One path to a peer: what was asked, what was answered, and what that says of it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edgeward_identity::BootTime;

use super::interface::Kind;
use super::message::{
    HEADER_BYTES, MAX_BODY_BYTES, MIN_PING_BYTES, RELAYED_HEADER_BYTES, SEAL_BYTES,
};
use crate::node::Endpoint;

/// Shortest time to wait for an answer.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes without an answer in a row after which a path counts as dead.
pub const DEAD_AFTER: u32 = 3;
/// Probes that say first how good a path is.
const TRIAL: u32 = 4;
/// Sizes of packets tried on the way to a peer, in bytes with all headers: Ethernet, WireGuard's own inside another
/// tunnel, and what IPv6 guarantees.
pub const PACKET_SIZES: [u16; 4] = [1500, 1420, 1360, 1280];
/// How often each size is tried.
const SIZE_ROUNDS: u8 = 3;
/// How long a found size holds.
pub const SIZE_LASTS: Duration = Duration::from_secs(600);
/// Most probes without an answer yet.
const MAX_PROBES: usize = 16;
/// How many probes loss is measured over.
const FATES: u32 = 32;
/// A lost probe in a hundred costs as much as this much latency.
const LOSS_COST: Duration = Duration::from_millis(4);
/// What a relay costs beside its latency: it is somebody else's line.
const RELAY_COST: Duration = Duration::from_millis(30);
/// What the cloud costs: everybody's line, and TCP under everything.
const CLOUD_COST: Duration = Duration::from_millis(300);

/// One way to one peer.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) at: Endpoint,
    pub(super) kind: Kind,
    /// Told by somebody; others were found by what came from there, and may make room.
    pub(super) told: bool,
    pub(super) next_probe: BootTime,
    /// How we look from the other end.
    pub(super) observed: Option<SocketAddr>,
    pub(super) last_sent: Option<BootTime>,
    last_answer: Option<BootTime>,
    rtt: Option<Duration>,
    /// Newest probe in the lowest bit; 1 is lost.
    fates: u32,
    judged: u32,
    /// Probes lost since the last answer.
    silent: u32,
    died: bool,
    pub(super) tries: u32,
    probes: VecDeque<Probe>,
    size: Size,
}

#[derive(Debug)]
struct Probe {
    id: u64,
    sent: BootTime,
    /// Size of the packet, if it was made to find that out.
    size: Option<u16>,
}

/// The search for the largest packet that gets through.
#[derive(Debug, Default)]
struct Size {
    found: Option<u16>,
    best: Option<u16>,
    rounds: u8,
    searched: Option<BootTime>,
}

/// What an answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// How long the path had been silent before this probe.
    pub(super) gap: Duration,
    pub(super) observed_before: Option<SocketAddr>,
}

impl Path {
    pub(super) fn new(at: Endpoint, kind: Kind, told: bool, now: BootTime) -> Self {
        Self {
            at,
            kind,
            told,
            next_probe: now,
            observed: None,
            last_sent: None,
            last_answer: None,
            rtt: None,
            fates: 0,
            judged: 0,
            silent: 0,
            died: false,
            tries: 0,
            probes: VecDeque::new(),
            size: Size::default(),
        }
    }

    pub(super) fn is_direct(&self) -> bool {
        self.kind == Kind::Direct
    }

    /// Notes a probe; the caller sends it.
    pub(super) fn asked(&mut self, id: u64, size: Option<u16>, now: BootTime) {
        if self.probes.len() >= MAX_PROBES {
            self.probes.pop_front();
        }
        self.probes.push_back(Probe {
            id,
            sent: now,
            size,
        });
        self.last_sent = Some(now);
        self.tries = self.tries.saturating_add(1);
    }

    /// Takes an answer; `None` if nothing was asked under this number, or the answer came too late.
    pub(super) fn answered(
        &mut self,
        id: u64,
        observed: SocketAddr,
        now: BootTime,
    ) -> Option<Answered> {
        let place = self.probes.iter().position(|probe| probe.id == id)?;
        let probe = self.probes.remove(place)?;
        let took = now.since(probe.sent);
        if self.is_silent() {
            // What was lost while it led nowhere says nothing of how good it is now.
            self.fates = 0;
            self.judged = 0;
            self.rtt = None;
        }
        if let Some(size) = probe.size {
            self.size.best = self.size.best.max(Some(size));
        } else {
            // A probe of some size says nothing of loss or latency of small packets.
            self.judge(false);
            self.rtt = Some(
                self.rtt
                    .map_or(took, |rtt| (rtt.saturating_mul(7) + took) / 8),
            );
        }
        let gap = self
            .last_answer
            .map_or(Duration::ZERO, |last| probe.sent.since(last));
        self.last_answer = Some(now);
        self.silent = 0;
        self.tries = 0;
        let observed_before = self.observed.replace(observed);
        Some(Answered {
            gap,
            observed_before,
        })
    }

    /// Gives up what was not answered in time; `true` if a plain probe was lost.
    pub(super) fn expire(&mut self, now: BootTime) -> bool {
        let patience = self.patience();
        let mut lost = 0;
        while let Some(probe) = self.probes.front()
            && now.since(probe.sent) >= patience
        {
            let sized = probe.size.is_some();
            self.probes.pop_front();
            if !sized {
                lost += 1;
                self.judge(true);
            }
        }
        self.silent = self.silent.saturating_add(lost);
        self.died |= self.last_answer.is_some() && self.is_silent();
        lost > 0
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn expires(&self) -> Option<BootTime> {
        self.probes
            .front()
            .map(|probe| probe.sent.plus(self.patience()))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.last_answer.is_some() && self.silent < DEAD_AFTER
    }

    /// Whether all probes since some time were lost, not only one.
    pub(super) fn is_silent(&self) -> bool {
        self.silent >= DEAD_AFTER
    }

    pub(super) fn is_failing(&self) -> bool {
        self.silent > 0
    }

    /// Whether it answers, and was asked too rarely yet to be trusted like one that was in use.
    pub(super) fn is_on_trial(&self) -> bool {
        self.is_alive() && self.judged < TRIAL
    }

    /// Whether it stopped answering before, at any time since the network under it is this one.
    pub(super) fn has_died(&self) -> bool {
        self.died
    }

    pub(super) fn last_answer(&self) -> Option<BootTime> {
        self.last_answer
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(super) fn loss_percent(&self) -> u8 {
        let lost = self.fates.count_ones().saturating_mul(100);
        u8::try_from(lost.checked_div(self.judged).unwrap_or(0)).unwrap_or(100)
    }

    /// What using it costs: less is better. `None` while it does not answer.
    pub(super) fn cost(&self) -> Option<Duration> {
        if !self.is_alive() {
            return None;
        }
        let kind = match self.kind {
            Kind::Direct => Duration::ZERO,
            Kind::Relay(_) => RELAY_COST,
            Kind::Cloud => CLOUD_COST,
        };
        Some(self.rtt? + kind + LOSS_COST * u32::from(self.loss_percent()))
    }

    /// Everything measured is void: the network under it is another one.
    pub(super) fn forget(&mut self, now: BootTime) {
        self.probes.clear();
        self.fates = 0;
        self.judged = 0;
        self.silent = 0;
        self.died = false;
        self.tries = 0;
        self.last_answer = None;
        self.rtt = None;
        self.size = Size::default();
        self.next_probe = now;
    }

    /// Sizes to try now: `(size of the packet, length of the ping's body)`.
    pub(super) fn sizes_to_try(&mut self, now: BootTime) -> Vec<(u16, usize)> {
        let due = self
            .size
            .searched
            .is_none_or(|at| now.since(at) >= SIZE_LASTS);
        let waits = self.probes.iter().any(|probe| probe.size.is_some());
        if !due || waits || !self.is_alive() || self.is_failing() {
            return Vec::new();
        }
        let [largest, ..] = PACKET_SIZES;
        if self.size.best == Some(largest) || self.size.rounds >= SIZE_ROUNDS {
            let [.., smallest] = PACKET_SIZES;
            self.size.found = Some(self.size.best.unwrap_or(smallest));
            self.size.searched = Some(now);
            self.size.best = None;
            self.size.rounds = 0;
            return Vec::new();
        }
        self.size.rounds += 1;
        PACKET_SIZES
            .into_iter()
            .filter(|size| Some(*size) > self.size.best)
            .map(|size| (size, self.body_of(size)))
            .collect()
    }

    /// Longest UDP payload that gets through, once that is known.
    pub(super) fn largest_datagram_found(&self) -> Option<u16> {
        self.size.found.map(|size| self.payload_of(size))
    }

    pub(super) fn size_searched(&self) -> Option<BootTime> {
        self.size.searched
    }

    /// Bytes of a datagram that makes a packet of this size, headers of a relay included.
    fn payload_of(&self, size: u16) -> u16 {
        let ip = match self.at.remote.ip() {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        };
        let relayed = if self.is_direct() {
            0
        } else {
            u16::try_from(RELAYED_HEADER_BYTES).unwrap_or(u16::MAX)
        };
        size.saturating_sub(ip + 8 + relayed)
    }

    fn body_of(&self, size: u16) -> usize {
        usize::from(self.payload_of(size))
            .saturating_sub(HEADER_BYTES + SEAL_BYTES)
            .clamp(MIN_PING_BYTES, MAX_BODY_BYTES)
    }

    fn patience(&self) -> Duration {
        self.rtt
            .map_or(PROBE_TIMEOUT, |rtt| PROBE_TIMEOUT.max(rtt * 3))
    }

    fn judge(&mut self, lost: bool) {
        self.fates = (self.fates << 1) | u32::from(lost);
        self.judged = (self.judged + 1).min(FATES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(millis: u64) -> BootTime {
        BootTime::from_duration(Duration::from_millis(millis))
    }

    fn path(at: &str) -> Path {
        let at = Endpoint {
            remote: at.parse().unwrap(),
            local_ip: None,
        };
        Path::new(at, Kind::Direct, true, time(0))
    }

    fn us() -> SocketAddr {
        "198.51.100.1:51820".parse().unwrap()
    }

    #[test]
    fn an_answer_to_no_question_proves_nothing() {
        let mut path = path("192.0.2.1:1");
        assert_eq!(path.answered(1, us(), time(5)), None);
        assert!(!path.is_alive());
        assert_eq!(path.cost(), None);
        path.asked(2, None, time(10));
        assert_eq!(path.answered(3, us(), time(15)), None);
        assert!(path.answered(2, us(), time(15)).is_some());
        assert_eq!(path.answered(2, us(), time(16)), None, "twice");
        assert_eq!(path.rtt(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn a_late_answer_is_a_lost_one() {
        let mut path = path("192.0.2.1:1");
        path.asked(1, None, time(0));
        assert!(!path.expire(time(999)));
        assert!(path.expire(time(1000)));
        assert_eq!(path.answered(1, us(), time(1001)), None);
        assert_eq!(path.loss_percent(), 100);
    }

    #[test]
    fn three_lost_in_a_row_are_a_dead_path_and_one_answer_a_live_one() {
        let mut path = path("192.0.2.1:1");
        path.asked(1, None, time(0));
        path.answered(1, us(), time(5)).unwrap();
        for id in 2..=4 {
            assert!(path.is_alive());
            path.asked(id, None, time(id * 2000));
            path.expire(time(id * 2000 + 1000));
        }
        assert!(!path.is_alive());
        assert!(path.has_died());
        path.asked(9, None, time(20_000));
        path.answered(9, us(), time(20_005)).unwrap();
        assert!(path.is_alive() && path.is_on_trial());
        assert_eq!(path.loss_percent(), 0, "it is measured anew");
        for id in 10..13 {
            path.asked(id, None, time(id * 2000));
            path.answered(id, us(), time(id * 2000 + 5)).unwrap();
        }
        assert!(!path.is_on_trial() && path.has_died());
    }

    #[test]
    fn the_largest_packet_that_gets_through_is_found() {
        for (passes, wanted) in [(1500, 1472), (1430, 1392), (1300, 1252), (1279, 1252)] {
            let mut path = path("192.0.2.1:1");
            let (mut id, mut now) = (1, 0);
            path.asked(id, None, time(now));
            path.answered(id, us(), time(now)).unwrap();
            for _ in 0..SIZE_ROUNDS + 1 {
                for (size, body) in path.sizes_to_try(time(now)) {
                    assert_eq!(body + HEADER_BYTES + SEAL_BYTES + 28, usize::from(size));
                    id += 1;
                    path.asked(id, Some(size), time(now));
                    if size <= passes {
                        path.answered(id, us(), time(now)).unwrap();
                    }
                }
                now += 1000;
                path.expire(time(now));
            }
            assert_eq!(path.largest_datagram_found(), Some(wanted), "{passes}");
            assert_eq!(path.loss_percent(), 0, "sizes are no loss");
            assert!(path.sizes_to_try(time(now)).is_empty());
            assert!(!path.sizes_to_try(time(now).plus(SIZE_LASTS)).is_empty());
        }
    }

    #[test]
    fn nothing_is_concluded_from_sizes_while_small_probes_are_lost() {
        let mut path = path("192.0.2.1:1");
        assert!(path.sizes_to_try(time(0)).is_empty());
        path.asked(1, None, time(0));
        path.answered(1, us(), time(1)).unwrap();
        path.asked(2, None, time(10));
        path.expire(time(1010));
        assert!(path.sizes_to_try(time(1010)).is_empty());
        assert_eq!(path.largest_datagram_found(), None);
    }

    #[test]
    fn probes_without_answer_are_bounded() {
        let mut path = path("192.0.2.1:1");
        for id in 0..1000 {
            path.asked(id, None, time(0));
        }
        assert_eq!(path.probes.len(), MAX_PROBES);
    }
}
