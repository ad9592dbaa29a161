//! Denied flows, aggregated for the audit log: no packet waits for a record, and a scan cannot fill the log.

use std::net::IpAddr;
use std::sync::Arc;

use edgeward_identity::BootTime;
use foldhash::HashMap;

use super::{Direction, FlowKey};
use crate::node::PeerId;

/// Most different denials between two calls of [`super::Filter::take_denials`].
pub const MAX_DENIALS: usize = 1024;

/// Packets of one kind that were denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub peer: PeerId,
    /// Which way the flow was to be opened.
    pub direction: Direction,
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub destination_port: u16,
    pub rule: Arc<str>,
    /// How many packets.
    pub count: u64,
    pub first: BootTime,
    pub last: BootTime,
}

#[derive(Default)]
pub(super) struct Denials {
    seen: HashMap<Kind, Denial>,
    lost: u64,
}

/// What makes two denials the same: everything but the source port.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    peer: PeerId,
    direction: Direction,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    destination_port: u16,
}

impl Denials {
    pub(super) fn add(
        &mut self,
        flow: &FlowKey,
        peer: PeerId,
        direction: Direction,
        rule: &Arc<str>,
        now: BootTime,
    ) {
        let kind = Kind {
            peer,
            direction,
            protocol: flow.protocol,
            source: flow.source,
            destination: flow.destination,
            destination_port: flow.destination_port,
        };
        if let Some(denial) = self.seen.get_mut(&kind) {
            denial.count = denial.count.saturating_add(1);
            denial.last = now;
            denial.rule = Arc::clone(rule);
        } else if self.seen.len() < MAX_DENIALS {
            let denial = Denial {
                peer,
                direction,
                protocol: flow.protocol,
                source: flow.source,
                destination: flow.destination,
                destination_port: flow.destination_port,
                rule: Arc::clone(rule),
                count: 1,
                first: now,
                last: now,
            };
            self.seen.insert(kind, denial);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(super) fn take(&mut self) -> (Vec<Denial>, u64) {
        let mut all: Vec<Denial> = self.seen.drain().map(|(_, denial)| denial).collect();
        all.sort_by_key(|denial| denial.first);
        (all, std::mem::take(&mut self.lost))
    }
}
