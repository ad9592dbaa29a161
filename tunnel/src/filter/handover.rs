//! Flows on their way to another process of this machine, as bytes: one version, every length bounded, nothing left
//! over. Only what is allowed is moved; a denial is asked for again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::BootTime;

use super::{Direction, FlowKey, MAX_FLOWS, MAX_RULES};
use crate::node::PeerId;

/// Longest encoded table, in bytes: every flow, and every rule by its longest name.
pub const MAX_MOVED_FLOWS_BYTES: usize =
    HEAD_BYTES + MAX_RULES * (2 + MAX_RULE_BYTES) + MAX_FLOWS * FLOW_BYTES;
const VERSION: u8 = 1;
/// Version, number of rules, number of flows.
const HEAD_BYTES: usize = 1 + 4 + 4;
/// Longest name of a rule, in bytes.
const MAX_RULE_BYTES: usize = 1024;
const FLOW_BYTES: usize = 8 + 4 + 1 + 1 + 16 + 16 + 2 + 2 + 1 + 8 + 8 + 8 + 8;
const OUT: u8 = 1;
const ANSWERED: u8 = 2;
const OPENER_CLOSED: u8 = 4;
const ANSWERER_CLOSED: u8 = 8;
const FRESH: u8 = 16;
const MARKS: u8 = OUT | ANSWERED | OPENER_CLOSED | ANSWERER_CLOSED | FRESH;

/// The allowed flows of a filter, taken out of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MovedFlows {
    pub(super) rules: Vec<Arc<str>>,
    pub(super) flows: Vec<MovedFlow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MovedFlow {
    pub(super) peer: PeerId,
    /// Place among the rules.
    pub(super) rule: u32,
    pub(super) key: FlowKey,
    pub(super) opened: Direction,
    /// The verdict held when the flow was taken out.
    pub(super) fresh: bool,
    pub(super) answered: bool,
    pub(super) closed: u8,
    pub(super) valid_until: BootTime,
    pub(super) idle_until: BootTime,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Bytes that are no flows of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not flows of this version: {0}")]
pub struct NotFlows(&'static str);

impl MovedFlows {
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.flows.len() * FLOW_BYTES);
        out.push(VERSION);
        put_length(&mut out, self.rules.len());
        for rule in &self.rules {
            // A longer one is refused when read.
            let length = u16::try_from(rule.len()).unwrap_or(u16::MAX);
            out.extend(length.to_le_bytes());
            out.extend(rule.as_bytes());
        }
        put_length(&mut out, self.flows.len());
        for flow in &self.flows {
            flow.put(&mut out);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotFlows> {
        if bytes.len() > MAX_MOVED_FLOWS_BYTES {
            return Err(NotFlows("too long"));
        }
        let mut input = Input(bytes);
        let [version] = input.array()?;
        if version != VERSION {
            return Err(NotFlows("version"));
        }
        let count = input.length(MAX_RULES)?;
        let rules = (0..count)
            .map(|_| input.rule())
            .collect::<Result<Vec<_>, _>>()?;
        let count = input.length(MAX_FLOWS)?;
        let flows = (0..count)
            .map(|_| input.flow(rules.len()))
            .collect::<Result<Vec<_>, _>>()?;
        match input.0 {
            [] => Ok(Self { rules, flows }),
            _ => Err(NotFlows("more than flows")),
        }
    }
}

impl MovedFlow {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.peer.0.to_le_bytes());
        out.extend(self.rule.to_le_bytes());
        out.push(self.key.protocol);
        out.push(match self.key.source {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        });
        out.extend(sixteen(self.key.source));
        out.extend(sixteen(self.key.destination));
        out.extend(self.key.source_port.to_le_bytes());
        out.extend(self.key.destination_port.to_le_bytes());
        let marks = [
            (OUT, self.opened == Direction::Out),
            (ANSWERED, self.answered),
            (OPENER_CLOSED, self.closed & 1 != 0),
            (ANSWERER_CLOSED, self.closed & 2 != 0),
            (FRESH, self.fresh),
        ];
        out.push(
            marks
                .iter()
                .filter(|(_, set)| *set)
                .map(|(bit, _)| bit)
                .sum(),
        );
        out.extend(nanos(self.valid_until).to_le_bytes());
        out.extend(nanos(self.idle_until).to_le_bytes());
        out.extend(self.packets.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // What is counted here has a limit below; one that does not fit is refused when read.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// Cut off, where it does not fit: a verdict may end early, never late.
fn nanos(time: BootTime) -> u64 {
    u64::try_from(time.as_duration().as_nanos()).unwrap_or(u64::MAX)
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()).to_be_bytes(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotFlows> {
        let (front, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(NotFlows("cut short"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn length(&mut self, most: usize) -> Result<usize, NotFlows> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?));
        length
            .ok()
            .filter(|length| *length <= most)
            .ok_or(NotFlows("length"))
    }

    fn rule(&mut self) -> Result<Arc<str>, NotFlows> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > MAX_RULE_BYTES {
            return Err(NotFlows("length"));
        }
        let (name, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(NotFlows("cut short"))?;
        self.0 = rest;
        std::str::from_utf8(name)
            .map(Arc::from)
            .map_err(|_| NotFlows("rule"))
    }

    fn number(&mut self) -> Result<u64, NotFlows> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<BootTime, NotFlows> {
        let nanos = self.number()?;
        Ok(BootTime::from_duration(Duration::from_nanos(nanos)))
    }

    fn address(&mut self, family: u8) -> Result<IpAddr, NotFlows> {
        let bytes: [u8; 16] = self.array()?;
        match family {
            4 => u32::try_from(u128::from_be_bytes(bytes))
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .map_err(|_| NotFlows("address")),
            6 => Ok(Ipv6Addr::from(bytes).into()),
            _ => Err(NotFlows("address family")),
        }
    }

    fn flow(&mut self, rules: usize) -> Result<MovedFlow, NotFlows> {
        let peer = PeerId(self.number()?);
        let rule = u32::from_le_bytes(self.array()?);
        if usize::try_from(rule).map_or(true, |rule| rule >= rules) {
            return Err(NotFlows("rule"));
        }
        let [protocol, family] = self.array()?;
        let key = FlowKey {
            protocol,
            source: self.address(family)?,
            destination: self.address(family)?,
            source_port: u16::from_le_bytes(self.array()?),
            destination_port: u16::from_le_bytes(self.array()?),
        };
        let [marks] = self.array()?;
        if marks & !MARKS != 0 {
            return Err(NotFlows("marks"));
        }
        let set = |bit: u8| marks & bit != 0;
        Ok(MovedFlow {
            peer,
            rule,
            key,
            opened: match set(OUT) {
                true => Direction::Out,
                false => Direction::In,
            },
            fresh: set(FRESH),
            answered: set(ANSWERED),
            closed: u8::from(set(OPENER_CLOSED)) | (u8::from(set(ANSWERER_CLOSED)) << 1),
            valid_until: self.time()?,
            idle_until: self.time()?,
            packets: self.number()?,
            bytes: self.number()?,
        })
    }
}
