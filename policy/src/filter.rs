//! The L3/L4 rows of a slice, resolved for the peers at hand: what a node's filter lets in without asking again.
//!
//! A pure function of the snapshot, the peers' standing and the time. It reads rows straight, without casbin; that
//! both say the same is proved by test.

use std::sync::Arc;

use edgeward_identity::Timestamp;

use crate::decision::{Link, Standing};
use crate::engine::Engine;
use crate::slice::{ActionId, InterfaceIndex, PeerIndex, Proto};

/// Whom one interface lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterInterface {
    pub interface: InterfaceIndex,
    pub net: String,
    pub proto: Proto,
    pub port: u16,
    /// Ordered by peer.
    pub allowed: Vec<FilterEntry>,
}

/// One peer that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    pub peer: PeerIndex,
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

/// The rows for the peers whose standing is known; a peer that is not listed is let in nowhere.
pub fn rows(
    engine: &Engine,
    peers: &[(PeerIndex, Standing)],
    link: Link,
    now: Timestamp,
) -> FilterRows {
    let slice = engine.slice();
    let mut valid_until = slice.expires;
    let mut interfaces = Vec::with_capacity(slice.interfaces.len());
    for (index, interface) in (0_u32..).map(InterfaceIndex).zip(&slice.interfaces) {
        let mut allowed = Vec::new();
        for (peer, standing) in peers {
            let explained = engine
                .facts(peer.0 as usize, *standing, link, now)
                .filter(|_| now < slice.expires && (peer.0 as usize) < slice.peers.len())
                .and_then(|facts| {
                    engine.by_rows(peer.0 as usize, index, ActionId::CONNECT, &facts)
                });
            let Some(explained) = explained else { continue };
            let decision = explained.decision;
            valid_until = valid_until.min(decision.valid_until);
            if let (true, Some(rule)) = (decision.is_allow(), decision.rule) {
                allowed.push(FilterEntry {
                    peer: *peer,
                    rule,
                    valid_until: decision.valid_until,
                });
            }
        }
        allowed.sort_by_key(|entry| entry.peer);
        allowed.dedup_by_key(|entry| entry.peer);
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

#[cfg(test)]
mod tests;
