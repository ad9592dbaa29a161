//! What enforcement tells whoever seeks ways, and what it is told. Waits for nothing; what is newer takes the place of
//! what was not read yet, so the peers are its bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use arc_swap::ArcSwap;
use edgeward_identity::SpiffeId;
use edgeward_tunnel::node::PeerId;
use edgeward_tunnel::reach::Quality;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::seeker::NewlyBound;
use super::switches::Switched;

/// Both sides hold it.
#[derive(Default)]
pub struct Desk {
    told: Mutex<Told>,
    /// Enforcement told something.
    news: Notify,
    wishes: Mutex<Wishes>,
    /// Ways were found.
    found: Notify,
    shown: ArcSwap<Shown>,
}

/// What enforcement told since it was read last.
#[derive(Default)]
pub struct Told {
    /// Armed; `None`: cut, or at rest.
    pub peers: HashMap<PeerId, Option<NewlyBound>>,
    pub roamed: HashMap<PeerId, SocketAddr>,
    /// Who is wanted now, where the directory says they are; `None`: nothing changed.
    pub wanted: Option<BTreeMap<SpiffeId, Vec<SocketAddr>>>,
}

#[derive(Default)]
struct Wishes {
    wanted: BTreeMap<SpiffeId, Vec<SocketAddr>>,
    /// Where else a peer may be found.
    beside: BTreeMap<SpiffeId, Vec<SocketAddr>>,
    dial: BTreeSet<SpiffeId>,
    wake: BTreeSet<SpiffeId>,
}

/// What enforcement is asked to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// New addresses are known of them.
    pub dial: BTreeSet<SpiffeId>,
    /// They are needed, whoever talks to them.
    pub wake: BTreeSet<SpiffeId>,
}

/// For status and metrics.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// All paths of all bound peers.
    pub paths: Vec<Quality>,
    /// What this node tells of its addresses.
    pub endpoints: Vec<String>,
    /// Whether something translates addresses between here and the cloud.
    pub translated: Option<bool>,
    /// Peers that were reached another way before, newest first.
    pub switched: Vec<Switched>,
}

impl Desk {
    pub fn bound(&self, number: PeerId, peer: NewlyBound) {
        self.told.lock().peers.insert(number, Some(peer));
        self.news.notify_one();
    }

    pub fn unbound(&self, number: PeerId) {
        let mut told = self.told.lock();
        told.peers.insert(number, None);
        told.roamed.remove(&number);
        drop(told);
        self.news.notify_one();
    }

    pub fn roamed(&self, number: PeerId, to: SocketAddr) {
        self.told.lock().roamed.insert(number, to);
        self.news.notify_one();
    }

    /// A peer is to be dialled at these addresses: they come back with what else is known, that first.
    pub fn want(&self, peer: &SpiffeId, directory: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut wishes = self.wishes.lock();
        let mut all = wishes.beside.get(peer).cloned().unwrap_or_default();
        for address in &directory {
            if !all.contains(address) {
                all.push(*address);
            }
        }
        let before = wishes.wanted.insert(peer.clone(), directory.clone());
        if before.as_ref() != Some(&directory) {
            self.tell_wanted(&wishes);
        }
        all
    }

    /// Its names were looked up since: as [`Self::want`], if it still is wanted.
    pub fn also_at(&self, peer: &SpiffeId, directory: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let wanted = self.wishes.lock().wanted.contains_key(peer);
        match wanted {
            true => self.want(peer, directory),
            false => directory,
        }
    }

    /// A peer is not wanted any more.
    pub fn forget(&self, peer: &SpiffeId) {
        let mut wishes = self.wishes.lock();
        wishes.beside.remove(peer);
        wishes.dial.remove(peer);
        if wishes.wanted.remove(peer).is_some() {
            self.tell_wanted(&wishes);
        }
    }

    /// Returns once there is something in [`Self::take_asked`].
    pub async fn asked(&self) {
        self.found.notified().await;
    }

    pub fn take_asked(&self) -> Asked {
        let mut wishes = self.wishes.lock();
        Asked {
            dial: std::mem::take(&mut wishes.dial),
            wake: std::mem::take(&mut wishes.wake),
        }
    }

    /// As of a moment ago.
    pub fn shown(&self) -> std::sync::Arc<Shown> {
        self.shown.load_full()
    }

    pub(super) fn show(&self, shown: Shown) {
        self.shown.store(std::sync::Arc::new(shown));
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn take_told(&self) -> Told {
        std::mem::take(&mut *self.told.lock())
    }

    /// Only who is wanted is dialled.
    pub(super) fn dial(&self, peer: SpiffeId, addresses: Vec<SocketAddr>) {
        let mut wishes = self.wishes.lock();
        if !wishes.wanted.contains_key(&peer) {
            return;
        }
        wishes.beside.insert(peer.clone(), addresses);
        wishes.dial.insert(peer);
        drop(wishes);
        self.found.notify_one();
    }

    pub fn wake(&self, peer: SpiffeId) {
        self.wishes.lock().wake.insert(peer);
        self.found.notify_one();
    }

    fn tell_wanted(&self, wishes: &Wishes) {
        self.told.lock().wanted = Some(wishes.wanted.clone());
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> SpiffeId {
        format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap()
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 51820))
    }

    #[test]
    fn nobody_is_dialled_who_is_not_wanted() {
        let desk = Desk::default();
        desk.dial(node("a"), vec![at(1)]);
        assert_eq!(desk.take_asked(), Asked::default());
        desk.want(&node("a"), vec![at(9)]);
        desk.dial(node("a"), vec![at(1)]);
        desk.forget(&node("a"));
        assert_eq!(desk.take_asked(), Asked::default());
        assert_eq!(desk.want(&node("a"), vec![at(9)]), [at(9)]);
    }

    #[test]
    fn what_was_found_is_dialled_before_what_the_directory_says() {
        let desk = Desk::default();
        desk.want(&node("a"), vec![at(9), at(1)]);
        desk.dial(node("a"), vec![at(1), at(2)]);
        assert!(desk.take_asked().dial.contains(&node("a")));
        assert_eq!(
            desk.want(&node("a"), vec![at(9), at(1)]),
            [at(1), at(2), at(9)]
        );
    }

    #[test]
    fn the_newest_word_of_a_peer_counts() {
        let desk = Desk::default();
        desk.roamed(PeerId(7), at(1));
        desk.unbound(PeerId(7));
        let told = desk.take_told();
        assert!(told.roamed.is_empty());
        assert!(told.peers.get(&PeerId(7)).unwrap().is_none());
        assert!(told.wanted.is_none());
        desk.want(&node("a"), vec![at(9)]);
        assert_eq!(desk.take_told().wanted.unwrap().len(), 1);
        // The same again is no news.
        desk.want(&node("a"), vec![at(9)]);
        assert!(desk.take_told().wanted.is_none());
    }
}
