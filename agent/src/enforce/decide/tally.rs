//! Allowed flows, aggregated for the audit log: no packet waits for a record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use edgeward_tunnel::filter::{Direction, FlowKey};
use edgeward_tunnel::node::PeerId;
use parking_lot::Mutex;

/// Most different sums between two readings.
pub const MAX_ALLOWED: usize = 1024;

/// Verdicts of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub peer: PeerId,
    pub direction: Direction,
    pub protocol: u8,
    pub port: u16,
    /// The address that asked, where it is a device's.
    pub device: Option<IpAddr>,
    /// The address, where it is neither this node's own nor the peer's.
    pub beyond: Option<IpAddr>,
    pub rule: Arc<str>,
    /// How often: once for each flow, and again when a flow's verdict was renewed.
    pub count: u64,
}

/// A bounded sum of verdicts.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    seen: HashMap<Kind, (Arc<str>, u64)>,
    lost: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    peer: PeerId,
    direction: Direction,
    protocol: u8,
    port: u16,
    device: Option<IpAddr>,
    beyond: Option<IpAddr>,
}

impl Tally {
    pub fn count(
        &self,
        peer: PeerId,
        direction: Direction,
        flow: &FlowKey,
        (device, beyond): (Option<IpAddr>, Option<IpAddr>),
        rule: &Arc<str>,
    ) {
        let kind = Kind {
            peer,
            direction,
            protocol: flow.protocol,
            port: flow.destination_port,
            device,
            beyond,
        };
        let mut sums = self.0.lock();
        if let Some((last, count)) = sums.seen.get_mut(&kind) {
            *count = count.saturating_add(1);
            if !Arc::ptr_eq(last, rule) {
                *last = Arc::clone(rule);
            }
        } else if sums.seen.len() < MAX_ALLOWED {
            sums.seen.insert(kind, (Arc::clone(rule), 1));
        } else {
            sums.lost = sums.lost.saturating_add(1);
        }
    }

    /// Everything since the last call, and how many did not fit.
    pub fn take(&self) -> (Vec<Allowed>, u64) {
        let sums = std::mem::take(&mut *self.0.lock());
        let mut all: Vec<Allowed> = sums
            .seen
            .into_iter()
            .map(|(kind, (rule, count))| Allowed {
                peer: kind.peer,
                direction: kind.direction,
                protocol: kind.protocol,
                port: kind.port,
                device: kind.device,
                beyond: kind.beyond,
                rule,
                count,
            })
            .collect();
        all.sort_by_key(|allowed| {
            (
                allowed.peer,
                allowed.direction,
                allowed.port,
                allowed.device,
                allowed.beyond,
            )
        });
        (all, sums.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            protocol: 6,
            source: "fd00::1".parse().unwrap(),
            destination: "fd00::2".parse().unwrap(),
            source_port: 1,
            destination_port: port,
        }
    }

    #[test]
    fn sums_are_bounded_and_what_did_not_fit_is_counted() {
        let tally = Tally::default();
        let rule: Arc<str> = "r".into();
        for port in 0..=u16::try_from(MAX_ALLOWED).unwrap() {
            tally.count(PeerId(1), Direction::In, &flow(port), (None, None), &rule);
            tally.count(PeerId(1), Direction::In, &flow(0), (None, None), &rule);
        }
        let (all, lost) = tally.take();
        assert_eq!((all.len(), lost), (MAX_ALLOWED, 1));
        assert_eq!(all[0].count, u64::try_from(MAX_ALLOWED).unwrap() + 2);
        assert_eq!(tally.take(), (Vec::new(), 0));
    }
}
