//! The stateful filter of the tunnel: default deny, both ways. No I/O, told the time.
//!
//! The first packet of a flow asks [`Decide`]; its verdict is kept with the flow, and later packets cost one hash
//! lookup. A kept verdict ends when the policy epoch changed ([`Filter::set_policy_epoch`], one atomic store), when
//! the peer was armed anew, or at the verdict's own end of validity: the next packet asks again, established or not.
//! Answers pass because their flow does. Only a SYN opens a TCP flow, only an echo request an ICMP flow; an ICMP
//! error passes if it quotes a packet of a known flow.
//!
//! Later fragments pass only after their first one did. Everything an outsider can grow has a limit here.

mod denials;
mod fragments;
mod handover;
pub mod packet;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edgeward_identity::BootTime;
use parking_lot::{Mutex, MutexGuard};

pub use denials::{Denial, MAX_DENIALS};
pub use handover::{MAX_MOVED_FLOWS_BYTES, MovedFlows, NotFlows};
pub use table::{FlowStatus, RuleCount};

use crate::node::PeerId;
use denials::Denials;
use fragments::Fragments;
use packet::{Icmp, IpPacket, Position};
use table::{Flows, Outcome};

/// Most flows at once.
pub const MAX_FLOWS: usize = 131_072;
/// Most flows of one peer at once.
pub const MAX_FLOWS_PER_PEER: u32 = 8192;
/// Most denied flows of one peer remembered at once; beyond it, each packet is decided anew.
pub const MAX_DENIED_PER_PEER: u32 = 1024;
/// Most rule names counted; further ones share a counter.
pub const MAX_RULES: usize = 16_384;

/// A flow, as its first packet showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The echo identifier for ICMP; 0 for protocols without ports.
    pub source_port: u16,
    /// 0 for ICMP and protocols without ports.
    pub destination_port: u16,
}

/// Which way a packet goes, or the first packet of a flow went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Out of the tunnel, from the peer.
    In,
    /// Into the tunnel, to the peer.
    Out,
}

/// The answer to "may this flow be".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowVerdict {
    pub allow: bool,
    /// The rule that decided, for records and counters.
    pub rule: Arc<str>,
    /// The verdict is void at and after this time.
    pub valid_until: BootTime,
}

/// Who decides about flows. Called with the filter's lock held: it must be quick and not call the filter.
pub trait Decide: Send + Sync {
    fn decide(
        &self,
        flow: &FlowKey,
        peer: PeerId,
        direction: Direction,
        now: BootTime,
    ) -> FlowVerdict;
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// Not a packet this filter understands ([`packet::Malformed`] says what is wrong).
    Malformed,
    /// Policy denies the flow.
    Denied,
    /// TCP without SYN, or an ICMP message that opens nothing, and no flow known.
    NoFlow,
    /// A later fragment whose first one did not pass.
    Fragment,
    /// An ICMP error that quotes no known flow, or an ICMP type that is never passed.
    Icmp,
    /// The table, or the peer's share of it, is full.
    Full,
}

/// The filter of one tunnel device.
pub struct Filter {
    decide: Arc<dyn Decide>,
    policy_epoch: AtomicU64,
    state: Mutex<State>,
}

/// The filter, locked for one batch of packets.
pub struct Checker<'a> {
    decide: &'a dyn Decide,
    epoch: u64,
    now: BootTime,
    state: MutexGuard<'a, State>,
}

/// Who sent a packet or is to receive it: the peer and its arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    pub peer: PeerId,
    /// [`crate::node::PeerHandle::generation`].
    pub generation: u64,
}

struct State {
    flows: Flows,
    fragments: Fragments,
    denials: Denials,
    drops: [u64; DropReason::ALL.len()],
}

impl DropReason {
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Denied,
        Self::NoFlow,
        Self::Fragment,
        Self::Icmp,
        Self::Full,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Denied => "denied",
            Self::NoFlow => "no-flow",
            Self::Fragment => "fragment",
            Self::Icmp => "icmp",
            Self::Full => "full",
        }
    }
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl Filter {
    pub fn new(decide: Arc<dyn Decide>) -> Self {
        Self {
            decide,
            policy_epoch: AtomicU64::new(0),
            state: Mutex::new(State {
                flows: Flows::default(),
                fragments: Fragments::default(),
                denials: Denials::default(),
                drops: [0; DropReason::ALL.len()],
            }),
        }
    }

    /// Voids every kept verdict, if `epoch` is another one than before. Cheap; takes effect with the next batch.
    pub fn set_policy_epoch(&self, epoch: u64) {
        self.policy_epoch.store(epoch, Ordering::Release);
    }

    /// Locks the filter for one batch.
    pub fn checker(&self, now: BootTime) -> Checker<'_> {
        Checker {
            decide: &*self.decide,
            epoch: self.policy_epoch.load(Ordering::Acquire),
            now,
            state: self.state.lock(),
        }
    }

    /// Forgets every flow of a peer; how many there were. Call after [`crate::node::Node::cut`].
    pub fn cut(&self, peer: PeerId) -> usize {
        let mut state = self.state.lock();
        state.fragments.forget(peer);
        state.flows.forget(peer)
    }

    /// Forgets every flow that peers opened to a port here; how many there were. Established ones do not go on: only a
    /// first packet opens a flow.
    pub fn forget_inward(&self, protocol: u8, port: u16) -> usize {
        self.state.lock().flows.forget_inward(protocol, port)
    }

    /// Every flow that may be now, for another process. What is not sure of its right is asked about once more:
    /// `generation_of` says who is armed, and how. Whoever is not armed keeps flows that are asked about later.
    pub fn export(
        &self,
        now: BootTime,
        generation_of: impl Fn(PeerId) -> Option<u64>,
    ) -> MovedFlows {
        let ask = table::Ask {
            decide: &*self.decide,
            epoch: self.policy_epoch.load(Ordering::Acquire),
            now,
        };
        self.state.lock().flows.export(&ask, generation_of)
    }

    /// Takes in what another process had, beside what is known here. Verdicts hold until they would have ended there;
    /// how many flows there was no room for.
    pub fn import(
        &self,
        moved: MovedFlows,
        now: BootTime,
        generation_of: impl Fn(PeerId) -> Option<u64>,
    ) -> usize {
        let epoch = self.policy_epoch.load(Ordering::Acquire);
        let mut state = self.state.lock();
        state.flows.import(moved, epoch, now, generation_of)
    }

    /// Forgets what has expired. Call every few seconds.
    pub fn expire(&self, now: BootTime) {
        let mut state = self.state.lock();
        state.flows.expire(now);
        state.fragments.expire(now);
    }

    /// Denied flows since the last call, aggregated, and how many did not fit.
    pub fn take_denials(&self) -> (Vec<Denial>, u64) {
        self.state.lock().denials.take()
    }

    /// Flows, packets and bytes by rule.
    pub fn rule_counts(&self) -> Vec<RuleCount> {
        self.state.lock().flows.rule_counts()
    }

    /// All flows known, for status output.
    pub fn flows(&self) -> Vec<FlowStatus> {
        self.state.lock().flows.status()
    }

    /// How many flows are known, allowed ones only.
    pub fn flow_count(&self) -> usize {
        self.state.lock().flows.allowed()
    }

    /// Packets dropped since start.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.state
            .lock()
            .drops
            .get(reason as usize)
            .copied()
            .unwrap_or(0)
    }
}

impl Checker<'_> {
    /// Whether one packet (or one segmented super-packet) may pass.
    pub fn check(
        &mut self,
        packet: &[u8],
        party: Party,
        direction: Direction,
    ) -> Result<(), DropReason> {
        let result = match packet::parse(packet) {
            Ok(parsed) => self.judge(&parsed, packet, party, direction),
            Err(_) => Err(DropReason::Malformed),
        };
        if let Err(drop) = result
            && let Some(count) = self.state.drops.get_mut(drop as usize)
        {
            *count += 1;
        }
        result
    }

    fn judge(
        &mut self,
        parsed: &IpPacket,
        packet: &[u8],
        party: Party,
        direction: Direction,
    ) -> Result<(), DropReason> {
        let state = &mut *self.state;
        match parsed.position {
            Position::Whole => {}
            Position::First(id) => {
                let key = fragments::Key::new(parsed, id, party, direction);
                self.judge_flow(parsed, packet, party, direction)?;
                self.state.fragments.admit(key, self.now);
                return Ok(());
            }
            Position::Later(id) => {
                let key = fragments::Key::new(parsed, id, party, direction);
                return if state.fragments.continues(&key, self.now) {
                    Ok(())
                } else {
                    Err(DropReason::Fragment)
                };
            }
        }
        self.judge_flow(parsed, packet, party, direction)
    }

    fn judge_flow(
        &mut self,
        parsed: &IpPacket,
        packet: &[u8],
        party: Party,
        direction: Direction,
    ) -> Result<(), DropReason> {
        if parsed.icmp == Some(Icmp::Error) {
            return self.judge_error(parsed, packet, party, direction);
        }
        if parsed.icmp == Some(Icmp::Other) {
            return Err(DropReason::Icmp);
        }
        let state = &mut *self.state;
        let ask = table::Ask {
            decide: self.decide,
            epoch: self.epoch,
            now: self.now,
        };
        match state
            .flows
            .check(parsed, packet.len(), party, direction, &ask)
        {
            Outcome::Pass => Ok(()),
            Outcome::Drop(drop) => Err(drop),
            Outcome::Denied { flow, opened, rule } => {
                state
                    .denials
                    .add(&flow, party.peer, opened, &rule, self.now);
                Err(DropReason::Denied)
            }
        }
    }

    /// An ICMP error passes if it quotes a packet of a live flow of this peer that went the other way, and is
    /// sent to that packet's source.
    fn judge_error(
        &mut self,
        parsed: &IpPacket,
        packet: &[u8],
        party: Party,
        direction: Direction,
    ) -> Result<(), DropReason> {
        let quoted = packet
            .get(parsed.quoted..)
            .and_then(|quoted| packet::parse_quoted(quoted).ok())
            .filter(|quoted| quoted.key.source == parsed.key.destination)
            .ok_or(DropReason::Icmp)?;
        if self
            .state
            .flows
            .is_live(&quoted, party, direction.opposite(), self.epoch, self.now)
        {
            Ok(())
        } else {
            Err(DropReason::Icmp)
        }
    }
}

impl Direction {
    fn opposite(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

#[cfg(test)]
mod tests;
