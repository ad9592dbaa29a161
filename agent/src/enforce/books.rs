//! Who is armed, and by which number each peer goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::node::PeerId;
use edgeward_tunnel::wireguard::StaticKeys;
use ipnet::IpNet;
use tokio::sync::watch;

/// Most peers that are neither armed nor permitted and still known by number: reports of their last flows name them.
pub(super) const MAX_FORMER: usize = 1024;

/// Who is armed. A peer keeps its number for as long as it is permitted: its flows go on when it is bound anew.
pub(super) struct Books {
    pub(super) armed: HashMap<SpiffeId, Armed>,
    /// Our WireGuard key for binds to come, and since when.
    pub(super) own_keys: Option<(Arc<StaticKeys>, BootTime)>,
    numbers: HashMap<SpiffeId, PeerId>,
    names: HashMap<PeerId, SpiffeId>,
    next: u64,
    /// Networks of peers that a packet may wake, and whose they are; who of them is awake is not looked at.
    pub(super) wakeful: watch::Sender<BTreeMap<IpNet, PeerId>>,
    /// Networks that have a lease in the kernel.
    pub(super) leased: watch::Sender<BTreeSet<IpNet>>,
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
    /// Armed by the program before this one: no bind of this one knows of it.
    pub(super) handed: bool,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            armed: HashMap::new(),
            own_keys: None,
            numbers: HashMap::new(),
            names: HashMap::new(),
            next: 1,
            wakeful: watch::Sender::default(),
            leased: watch::Sender::default(),
        }
    }
}

impl Books {
    /// As they were in the program before this one.
    pub(super) fn of(
        next: u64,
        numbers: &BTreeMap<u64, SpiffeId>,
        armed: Vec<(SpiffeId, Armed)>,
    ) -> Self {
        let names = numbers
            .iter()
            .map(|(number, name)| (PeerId(*number), name.clone()));
        Self {
            armed: armed.into_iter().collect(),
            own_keys: None,
            numbers: names.clone().map(|(number, name)| (name, number)).collect(),
            names: names.collect(),
            next,
            wakeful: watch::Sender::default(),
            leased: watch::Sender::default(),
        }
    }

    /// The number of whoever gets one next.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    pub(super) fn all_numbers(&self) -> BTreeMap<u64, SpiffeId> {
        let all = self.names.iter();
        all.map(|(number, name)| (number.0, name.clone())).collect()
    }

    /// Who was armed by the program before this one, and by no bind since.
    pub(super) fn handed(&self) -> Vec<(SpiffeId, Armed)> {
        let handed = self.armed.iter().filter(|(_, armed)| armed.handed);
        handed
            .map(|(peer, armed)| (peer.clone(), armed.clone()))
            .collect()
    }

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

    /// Networks whose peers are to be woken by a packet: whoever is open has a lease instead.
    pub(super) fn asleep(&self) -> BTreeSet<IpNet> {
        let open = self
            .armed
            .values()
            .filter(|armed| armed.open_since.is_some());
        let open: HashSet<PeerId> = open.map(|armed| armed.number).collect();
        let wakeful = self.wakeful.borrow();
        let asleep = wakeful.iter().filter(|(_, peer)| !open.contains(peer));
        asleep.map(|(net, _)| *net).collect()
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
    fn a_network_sleeps_until_its_peer_is_open() {
        let mut books = Books::default();
        let (b, c) = (books.number(&id("b")), books.number(&id("c")));
        let (of_b, of_c): (IpNet, IpNet) = (
            "10.7.0.0/16".parse().unwrap(),
            "10.7.3.0/24".parse().unwrap(),
        );
        assert_eq!(books.asleep(), BTreeSet::new());
        books
            .wakeful
            .send_replace(BTreeMap::from([(of_b, b), (of_c, c)]));
        let mut armed = Armed {
            number: c,
            keys: [[1; 32], [2; 32]],
            until: BootTime::default(),
            allowed_ips: vec![of_c],
            open_since: None,
            handed: false,
        };
        books.armed.insert(id("c"), armed.clone());
        assert_eq!(books.asleep(), BTreeSet::from([of_b, of_c]));
        armed.open_since = Some(BootTime::default());
        books.armed.insert(id("c"), armed);
        assert_eq!(books.asleep(), BTreeSet::from([of_b]));
        books.armed.clear();
        assert_eq!(books.asleep(), BTreeSet::from([of_b, of_c]));
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
