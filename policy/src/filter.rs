//! The L3/L4 rows of a slice, resolved for the subjects at hand: what a node's filter lets in without asking again.
//!
//! A pure function of the snapshot, the subjects' standing and the time. It reads rows straight, without casbin; that
//! both say the same is proved by test.

use std::sync::Arc;

use edgeward_identity::Timestamp;

use crate::decision::{Link, Standing};
use crate::engine::Engine;
use crate::slice::{ActionId, DeviceIndex, InterfaceIndex, MESH, PeerIndex, Proto, SliceInterface};

/// Whom one interface lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterInterface {
    pub interface: InterfaceIndex,
    pub net: String,
    pub proto: Proto,
    pub port: u16,
    /// Ordered by subject.
    pub allowed: Vec<FilterEntry>,
}

/// Whom a filter can tell apart by packets alone: peers, who come through the tunnel, and devices, who come from the
/// network that they hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FilterSubject {
    Peer(PeerIndex),
    Device(DeviceIndex),
}

/// One subject that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    pub subject: FilterSubject,
    pub rule: Arc<str>,
    /// The element's timeout.
    pub valid_until: Timestamp,
}

/// What a filter is to let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRows {
    pub interfaces: Vec<FilterInterface>,
    /// When to ask again, though no standing changed: something may open or close then.
    pub valid_until: Timestamp,
}

/// The rows for the subjects whose standing is known; one that is not listed is let in nowhere, and nobody where he
/// cannot come from.
pub fn rows(
    engine: &Engine,
    subjects: &[(FilterSubject, Standing)],
    link: Link,
    now: Timestamp,
) -> FilterRows {
    let slice = engine.slice();
    let mut valid_until = slice.expires;
    let mut interfaces = Vec::with_capacity(slice.interfaces.len());
    for (index, interface) in (0_u32..).map(InterfaceIndex).zip(&slice.interfaces) {
        let mut allowed = Vec::new();
        for (subject, standing) in subjects {
            let explained = subject
                .number(engine, interface)
                .filter(|_| now < slice.expires)
                .and_then(|number| {
                    let facts = engine.facts(number, *standing, link, now)?;
                    engine.by_rows(number, index, ActionId::CONNECT, &facts)
                });
            let Some(explained) = explained else { continue };
            let decision = explained.decision;
            valid_until = valid_until.min(decision.valid_until);
            if let (true, Some(rule)) = (decision.is_allow(), decision.rule) {
                allowed.push(FilterEntry {
                    subject: *subject,
                    rule,
                    valid_until: decision.valid_until,
                });
            }
        }
        allowed.sort_by_key(|entry| entry.subject);
        allowed.dedup_by_key(|entry| entry.subject);
        interfaces.push(FilterInterface {
            interface: index,
            net: interface.net.clone(),
            proto: interface.proto,
            port: interface.port,
            allowed,
        });
    }
    FilterRows {
        interfaces,
        valid_until,
    }
}

impl FilterSubject {
    /// The engine's number of the subject, if it can come from the interface's network at all.
    fn number(self, engine: &Engine, interface: &SliceInterface) -> Option<usize> {
        let slice = engine.slice();
        match self {
            Self::Peer(PeerIndex(index)) => {
                let index = index as usize;
                let here = interface.net == MESH && interface.beyond.is_none();
                (index < slice.peers.len() && here).then_some(index)
            }
            Self::Device(DeviceIndex(index)) => {
                let device = slice.devices.get(index as usize)?;
                let before = slice.peers.len() + slice.operators.len();
                (device.net == interface.net).then_some(before + index as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests;
