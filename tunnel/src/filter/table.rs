//! The flows, their verdicts and their ages.

mod moved;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::HashMap;

use super::packet::{ACK, FIN, Icmp, IpPacket, RST, SYN};
use super::{
    Decide, Direction, DropReason, FlowKey, FlowVerdict, MAX_DENIED_PER_PEER, MAX_FLOWS,
    MAX_FLOWS_PER_PEER, MAX_RULES, Party,
};
use crate::node::PeerId;

/// Idle time of an established TCP flow (RFC 5382: at least 2 h 4 min).
const TCP_IDLE: Duration = Duration::from_secs(7440);
/// Idle time of a TCP flow that is being opened or closed (RFC 5382: 4 min is the most that is asked for).
const TCP_TRANSIENT: Duration = Duration::from_secs(60);
/// Idle time of an answered UDP flow (RFC 4787: at least 2 min).
const UDP_IDLE: Duration = Duration::from_secs(180);
/// Idle time of anything not answered yet, and of ICMP.
const SHORT_IDLE: Duration = Duration::from_secs(30);
/// How long a denial is remembered.
const DENIAL_LIFETIME: Duration = Duration::from_secs(2);

/// Shortest time between two searches of a full table for expired flows.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

const TCP: u8 = 6;

/// What passed by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    pub rule: Arc<str>,
    pub flows: u64,
    pub packets: u64,
    /// Inner bytes.
    pub bytes: u64,
    /// Packets denied.
    pub denied: u64,
}

/// A flow, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStatus {
    pub flow: FlowKey,
    pub peer: PeerId,
    pub direction: Direction,
    pub rule: Arc<str>,
    pub valid_until: BootTime,
    /// Packets both ways.
    pub packets: u64,
    /// Inner bytes both ways.
    pub bytes: u64,
}

pub(super) enum Outcome {
    Pass,
    Drop(DropReason),
    Denied {
        flow: FlowKey,
        opened: Direction,
        rule: Arc<str>,
    },
}

pub(super) struct Ask<'a> {
    pub(super) decide: &'a dyn Decide,
    pub(super) epoch: u64,
    pub(super) now: BootTime,
}

#[derive(Default)]
pub(super) struct Flows {
    flows: HashMap<Key, Flow>,
    shares: HashMap<PeerId, Share>,
    rules: Vec<RuleCount>,
    rule_numbers: HashMap<Arc<str>, usize>,
    /// When a full table was last looked through.
    swept: Option<BootTime>,
}

/// The same for both directions of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    peer: PeerId,
    ours: u128,
    theirs: u128,
    our_port: u16,
    their_port: u16,
    protocol: u8,
    ipv4: bool,
}

struct Flow {
    key: FlowKey,
    opened: Direction,
    generation: u64,
    epoch: u64,
    allow: bool,
    rule: usize,
    valid_until: BootTime,
    idle_until: BootTime,
    answered: bool,
    /// Who has sent FIN: bit 0 the opener, bit 1 the answerer; both bits after a RST.
    closed: u8,
    packets: u64,
    bytes: u64,
}

#[derive(Default)]
struct Share {
    allowed: u32,
    denied: u32,
}

impl Flows {
    pub(super) fn check(
        &mut self,
        packet: &IpPacket,
        length: usize,
        party: Party,
        direction: Direction,
        ask: &Ask<'_>,
    ) -> Outcome {
        let key = Key::new(&packet.key, party.peer, direction);
        let known = self.flows.get_mut(&key).filter(|flow| {
            let live = flow.allow && ask.now < flow.idle_until && !flow.reopens(packet, direction);
            let remembered = !flow.allow && ask.now < flow.idle_until;
            live || remembered
        });
        let Some(flow) = known else {
            return self.open(key, packet, length, party, direction, ask);
        };
        let fresh = flow.epoch == ask.epoch
            && flow.generation == party.generation
            && ask.now < flow.valid_until;
        if !flow.allow && fresh {
            return self.denied(key);
        }
        if !flow.allow {
            return self.open(key, packet, length, party, direction, ask);
        }
        if !flow.fits(packet, direction) {
            return Outcome::Drop(DropReason::NoFlow);
        }
        if !fresh {
            let verdict = ask
                .decide
                .decide(&flow.key, party.peer, flow.opened, ask.now);
            if !(verdict.allow && ask.now < verdict.valid_until) {
                return self.end(key, &verdict);
            }
            flow.epoch = ask.epoch;
            flow.generation = party.generation;
            flow.valid_until = verdict.valid_until;
            let rule = number_of(&mut self.rules, &mut self.rule_numbers, &verdict.rule);
            flow.rule = rule;
        }
        flow.pass(packet, length, direction, ask.now);
        if let Some(rule) = self.rules.get_mut(flow.rule) {
            rule.packets += 1;
            rule.bytes += length as u64;
        }
        Outcome::Pass
    }

    /// Whether this packet belongs to a flow that may be, without asking again or keeping it alive.
    pub(super) fn is_live(
        &self,
        packet: &IpPacket,
        party: Party,
        direction: Direction,
        epoch: u64,
        now: BootTime,
    ) -> bool {
        self.flows
            .get(&Key::new(&packet.key, party.peer, direction))
            .is_some_and(|flow| {
                flow.allow
                    && flow.generation == party.generation
                    && flow.epoch == epoch
                    && now < flow.valid_until
                    && now < flow.idle_until
            })
    }

    pub(super) fn forget(&mut self, peer: PeerId) -> usize {
        let before = self.allowed();
        self.flows.retain(|key, _| key.peer != peer);
        self.shares.remove(&peer);
        before.saturating_sub(self.allowed())
    }

    pub(super) fn forget_inward(&mut self, protocol: u8, port: u16) -> usize {
        let before = self.allowed();
        let shares = &mut self.shares;
        self.flows.retain(|key, flow| {
            let meant = flow.opened == Direction::In
                && flow.key.protocol == protocol
                && flow.key.destination_port == port;
            if meant {
                give_back(shares, key.peer, flow.allow);
            }
            !meant
        });
        before.saturating_sub(self.allowed())
    }

    pub(super) fn expire(&mut self, now: BootTime) {
        let shares = &mut self.shares;
        self.flows.retain(|key, flow| {
            let keep = now < flow.idle_until;
            if !keep {
                give_back(shares, key.peer, flow.allow);
            }
            keep
        });
        self.shares
            .retain(|_, share| share.allowed > 0 || share.denied > 0);
    }

    pub(super) fn allowed(&self) -> usize {
        self.flows.values().filter(|flow| flow.allow).count()
    }

    pub(super) fn rule_counts(&self) -> Vec<RuleCount> {
        self.rules.clone()
    }

    pub(super) fn status(&self) -> Vec<FlowStatus> {
        let mut all: Vec<FlowStatus> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.allow)
            .map(|(key, flow)| FlowStatus {
                flow: flow.key,
                peer: key.peer,
                direction: flow.opened,
                rule: self
                    .rules
                    .get(flow.rule)
                    .map_or_else(|| Arc::from(""), |rule| Arc::clone(&rule.rule)),
                valid_until: flow.valid_until,
                packets: flow.packets,
                bytes: flow.bytes,
            })
            .collect();
        all.sort_unstable_by_key(|status| (status.peer, status.flow));
        all
    }

    fn open(
        &mut self,
        key: Key,
        packet: &IpPacket,
        length: usize,
        party: Party,
        direction: Direction,
        ask: &Ask<'_>,
    ) -> Outcome {
        self.remove(&key);
        if !opens(packet) {
            return Outcome::Drop(DropReason::NoFlow);
        }
        if !self.has_room(party.peer, ask.now) {
            return Outcome::Drop(DropReason::Full);
        }
        let verdict = ask
            .decide
            .decide(&packet.key, party.peer, direction, ask.now);
        let allow = verdict.allow && ask.now < verdict.valid_until;
        let rule = number_of(&mut self.rules, &mut self.rule_numbers, &verdict.rule);
        let mut flow = Flow {
            key: packet.key,
            opened: direction,
            generation: party.generation,
            epoch: ask.epoch,
            allow,
            rule,
            valid_until: verdict.valid_until,
            idle_until: ask.now.plus(DENIAL_LIFETIME),
            answered: false,
            closed: 0,
            packets: 0,
            bytes: 0,
        };
        let share = self.shares.entry(party.peer).or_default();
        if !allow {
            if share.denied < MAX_DENIED_PER_PEER {
                share.denied += 1;
                self.flows.insert(key, flow);
            }
            if let Some(count) = self.rules.get_mut(rule) {
                count.denied += 1;
            }
            return Outcome::Denied {
                flow: packet.key,
                opened: direction,
                rule: verdict.rule,
            };
        }
        share.allowed += 1;
        flow.pass(packet, length, direction, ask.now);
        if let Some(count) = self.rules.get_mut(rule) {
            count.flows += 1;
            count.packets += 1;
            count.bytes += length as u64;
        }
        self.flows.insert(key, flow);
        Outcome::Pass
    }

    /// A packet of a flow whose denial is remembered.
    fn denied(&mut self, key: Key) -> Outcome {
        let Some(flow) = self.flows.get(&key) else {
            return Outcome::Drop(DropReason::NoFlow);
        };
        let rule = self.rules.get_mut(flow.rule).map(|count| {
            count.denied += 1;
            Arc::clone(&count.rule)
        });
        Outcome::Denied {
            flow: flow.key,
            opened: flow.opened,
            rule: rule.unwrap_or_else(|| Arc::from("")),
        }
    }

    /// A flow that was allowed is not any more.
    fn end(&mut self, key: Key, verdict: &FlowVerdict) -> Outcome {
        let Some(flow) = self.remove(&key) else {
            return Outcome::Drop(DropReason::NoFlow);
        };
        let rule = number_of(&mut self.rules, &mut self.rule_numbers, &verdict.rule);
        if let Some(count) = self.rules.get_mut(rule) {
            count.denied += 1;
        }
        Outcome::Denied {
            flow: flow.key,
            opened: flow.opened,
            rule: Arc::clone(&verdict.rule),
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Flow> {
        let flow = self.flows.remove(key)?;
        give_back(&mut self.shares, key.peer, flow.allow);
        Some(flow)
    }

    fn has_room(&mut self, peer: PeerId, now: BootTime) -> bool {
        if self.is_below_limits(peer) {
            return true;
        }
        // Looking through the whole table for every packet of a flood would be the flood's work.
        if self
            .swept
            .is_some_and(|swept| now.since(swept) < SWEEP_PAUSE)
        {
            return false;
        }
        self.swept = Some(now);
        self.expire(now);
        self.is_below_limits(peer)
    }

    fn is_below_limits(&self, peer: PeerId) -> bool {
        let allowed = self.shares.get(&peer).map_or(0, |share| share.allowed);
        self.flows.len() < MAX_FLOWS && allowed < MAX_FLOWS_PER_PEER
    }
}

impl Key {
    fn new(flow: &FlowKey, peer: PeerId, direction: Direction) -> Self {
        let (source, destination) = (
            (flow.source, flow.source_port),
            (flow.destination, flow.destination_port),
        );
        let (ours, theirs) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        // An echo's identifier belongs to both directions.
        let echo = matches!(flow.protocol, 1 | 58).then_some(flow.source_port);
        Self {
            peer,
            ours: bits(ours.0),
            theirs: bits(theirs.0),
            our_port: echo.unwrap_or(ours.1),
            their_port: echo.unwrap_or(theirs.1),
            protocol: flow.protocol,
            ipv4: flow.source.is_ipv4(),
        }
    }
}

impl Flow {
    /// Whether a packet of this kind may be part of the flow: echo requests come from the opener only.
    fn fits(&self, packet: &IpPacket, direction: Direction) -> bool {
        match packet.icmp {
            Some(Icmp::Request) => direction == self.opened,
            Some(Icmp::Reply) => direction != self.opened,
            Some(Icmp::Error | Icmp::Other) => false,
            None => true,
        }
    }

    /// A SYN on a closed flow, or from the other side of a UDP-like reuse, is a new flow with a new decision.
    fn reopens(&self, packet: &IpPacket, direction: Direction) -> bool {
        let syn = packet
            .tcp_flags
            .is_some_and(|flags| flags & (SYN | ACK) == SYN);
        syn && (self.closed == 3 || direction != self.opened)
    }

    fn pass(&mut self, packet: &IpPacket, length: usize, direction: Direction, now: BootTime) {
        self.packets += 1;
        self.bytes += length as u64;
        let opener = direction == self.opened;
        self.answered |= !opener;
        if let Some(flags) = packet.tcp_flags {
            if flags & RST != 0 {
                self.closed = 3;
            } else if flags & FIN != 0 {
                self.closed |= if opener { 1 } else { 2 };
            }
        }
        let idle = match (self.key.protocol, self.answered) {
            (TCP, _) if self.closed == 3 => SHORT_IDLE,
            (TCP, true) => TCP_IDLE,
            (TCP, false) => TCP_TRANSIENT,
            (1 | 58, _) | (_, false) => SHORT_IDLE,
            (_, true) => UDP_IDLE,
        };
        self.idle_until = now.plus(idle);
    }
}

/// Whether a packet may open a flow.
fn opens(packet: &IpPacket) -> bool {
    match (packet.tcp_flags, packet.icmp) {
        (Some(flags), _) => flags & (SYN | ACK | RST | FIN) == SYN,
        (None, Some(icmp)) => icmp == Icmp::Request,
        (None, None) => true,
    }
}

fn give_back(shares: &mut HashMap<PeerId, Share>, peer: PeerId, allowed: bool) {
    if let Some(share) = shares.get_mut(&peer) {
        let count = if allowed {
            &mut share.allowed
        } else {
            &mut share.denied
        };
        *count = count.saturating_sub(1);
    }
}

/// The rule's place among the counters; beyond [`MAX_RULES`] names the last one is shared.
fn number_of(
    rules: &mut Vec<RuleCount>,
    numbers: &mut HashMap<Arc<str>, usize>,
    rule: &Arc<str>,
) -> usize {
    if let Some(number) = numbers.get(rule) {
        return *number;
    }
    if rules.len() >= MAX_RULES {
        return MAX_RULES - 1;
    }
    let number = rules.len();
    rules.push(RuleCount {
        rule: Arc::clone(rule),
        flows: 0,
        packets: 0,
        bytes: 0,
        denied: 0,
    });
    numbers.insert(Arc::clone(rule), number);
    number
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
