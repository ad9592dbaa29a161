//! Who is armed, and by which number each peer goes.

use std::collections::HashMap;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::node::PeerId;
use ipnet::IpNet;

/// Most peers that are neither armed nor permitted and still known by number: reports of their last flows name them.
const MAX_FORMER: usize = 1024;

/// Who is armed. A peer keeps its number for as long as it is permitted: its flows go on when it is bound anew.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) armed: HashMap<SpiffeId, Armed>,
    numbers: HashMap<SpiffeId, PeerId>,
    names: HashMap<PeerId, SpiffeId>,
    next: u64,
}

/// A peer that WireGuard holds keys of.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) number: PeerId,
    pub(super) keys: [[u8; 32]; 2],
    pub(super) until: BootTime,
    pub(super) allowed_ips: Vec<IpNet>,
    /// Since when forwarding is open.
    pub(super) open_since: Option<BootTime>,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            armed: HashMap::new(),
            numbers: HashMap::new(),
            names: HashMap::new(),
            next: 1,
        }
    }
}

impl Books {
    /// The number of a peer, given now if it has none.
    pub(super) fn number(&mut self, peer: &SpiffeId) -> PeerId {
        if let Some(number) = self.numbers.get(peer) {
            return *number;
        }
        let number = PeerId(self.next);
        self.next += 1;
        self.numbers.insert(peer.clone(), number);
        self.names.insert(number, peer.clone());
        number
    }

    /// The peer behind a number, even if it was cut lately.
    pub(super) fn name(&self, number: PeerId) -> Option<&SpiffeId> {
        self.names.get(&number)
    }

    /// The armed peer behind a number.
    pub(super) fn armed_by(&self, number: PeerId) -> Option<&SpiffeId> {
        let name = self.name(number)?;
        self.armed.contains_key(name).then_some(name)
    }

    /// Forgets the oldest numbers of peers that are neither permitted nor armed.
    pub(super) fn keep_only(&mut self, permitted: impl Fn(&SpiffeId) -> bool) {
        let mut former: Vec<PeerId> = self
            .names
            .iter()
            .filter(|(_, name)| !permitted(name) && !self.armed.contains_key(*name))
            .map(|(number, _)| *number)
            .collect();
        former.sort_unstable();
        let surplus = former.len().saturating_sub(MAX_FORMER);
        for number in former.into_iter().take(surplus) {
            if let Some(name) = self.names.remove(&number) {
                self.numbers.remove(&name);
            }
        }
    }

    pub(super) fn open_count(&self) -> usize {
        self.armed
            .values()
            .filter(|armed| armed.open_since.is_some())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::testing::id;

    #[test]
    fn a_peer_has_one_number_and_nobody_else_ever_has_it() {
        let mut books = Books::default();
        let b = books.number(&id("b"));
        assert_eq!(books.number(&id("b")), b);
        books.keep_only(|_| false);
        assert_eq!(books.name(b), Some(&id("b")), "cut lately");
        assert_eq!(books.armed_by(b), None);
        for number in 0..MAX_FORMER {
            books.number(&id(&format!("n{number}")));
        }
        books.keep_only(|_| false);
        assert_eq!(books.name(b), None);
        assert!(books.number(&id("b")) > b);
    }

    #[test]
    fn numbers_of_permitted_peers_are_kept_however_many_there_are() {
        let mut books = Books::default();
        let b = books.number(&id("b"));
        for number in 0..2 * MAX_FORMER {
            books.number(&id(&format!("n{number}")));
        }
        books.keep_only(|name| *name == id("b"));
        assert_eq!(books.number(&id("b")), b);
        assert_eq!(books.names.len(), 1 + MAX_FORMER);
        assert_eq!(books.numbers.len(), books.names.len());
    }
}
