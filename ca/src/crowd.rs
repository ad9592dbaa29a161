//! A bounded crowd of those whom nobody vouches for yet: connections in their handshake, machines that enrol. When it
//! is full the one that has been in it longest leaves, so that whoever finishes quickly gets through however many
//! linger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Shared by whoever lets in. `S` is what one member is limited by: an address, a token and a key.
#[derive(Clone, Debug)]
pub(crate) struct Crowd<S> {
    limit: usize,
    per_source: usize,
    members: Arc<Mutex<Members<S>>>,
}

/// A place in the crowd; left when dropped.
#[derive(Debug)]
pub(crate) struct Place<S: Ord + Clone> {
    number: u64,
    source: S,
    members: Arc<Mutex<Members<S>>>,
    evicted: CancellationToken,
}

#[derive(Debug)]
struct Members<S> {
    next: u64,
    by_age: BTreeMap<u64, (S, CancellationToken)>,
    by_source: BTreeMap<S, BTreeSet<u64>>,
}

impl<S: Ord + Clone> Crowd<S> {
    /// At most `limit` in all, `per_source` of one source.
    pub(crate) fn new(limit: usize, per_source: usize) -> Self {
        Self {
            limit,
            per_source,
            members: Arc::new(Mutex::new(Members {
                next: 0,
                by_age: BTreeMap::new(),
                by_source: BTreeMap::new(),
            })),
        }
    }

    /// Enters; whoever must leave for it is told so.
    pub(crate) fn enter(&self, source: S) -> Place<S> {
        let evicted = CancellationToken::new();
        let mut members = self.members.lock();
        let of_source = members.by_source.get(&source);
        if of_source.is_some_and(|numbers| numbers.len() >= self.per_source)
            && let Some(oldest) = of_source.and_then(|numbers| numbers.first().copied())
        {
            members.evict(oldest);
        }
        if members.by_age.len() >= self.limit
            && let Some(oldest) = members.by_age.keys().next().copied()
        {
            members.evict(oldest);
        }
        let number = members.next;
        members.next = members.next.wrapping_add(1);
        members
            .by_age
            .insert(number, (source.clone(), evicted.clone()));
        members
            .by_source
            .entry(source.clone())
            .or_default()
            .insert(number);
        Place {
            number,
            source,
            members: self.members.clone(),
            evicted,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.lock().by_age.len()
    }
}

impl<S: Ord + Clone> Place<S> {
    /// Ends when this place was given to somebody else.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl<S: Ord + Clone> Drop for Place<S> {
    fn drop(&mut self) {
        self.members.lock().remove(self.number, &self.source);
    }
}

impl<S: Ord + Clone> Members<S> {
    fn evict(&mut self, number: u64) {
        if let Some((source, evicted)) = self.by_age.get(&number).cloned() {
            evicted.cancel();
            self.remove(number, &source);
        }
    }

    fn remove(&mut self, number: u64, source: &S) {
        self.by_age.remove(&number);
        if let Some(numbers) = self.by_source.get_mut(source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(source);
            }
        }
    }
}

/// What addresses are limited by. One customer of IPv6 holds a /64: its addresses are one source.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_a_full_crowd() {
        let crowd = Crowd::new(2, 2);
        let first = crowd.enter(1);
        let second = crowd.enter(2);
        let third = crowd.enter(3);
        assert!(first.evicted.is_cancelled());
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert_eq!(crowd.len(), 2);
    }

    #[test]
    fn a_source_pushes_out_only_its_own() {
        let crowd = Crowd::new(10, 2);
        let other = crowd.enter("192.0.2.1".parse().unwrap());
        let places = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
            .map(|text| crowd.enter(source_of(text.parse().unwrap())));
        assert!(!other.evicted.is_cancelled());
        let evicted = places.each_ref().map(|place| place.evicted.is_cancelled());
        assert_eq!(evicted, [true, false, false]);
    }

    #[test]
    fn leaving_makes_room() {
        let crowd = Crowd::new(1, 1);
        drop(crowd.enter(1));
        assert_eq!(crowd.len(), 0);
        assert!(crowd.members.lock().by_source.is_empty());
        let evicted = crowd.enter(1);
        let place = crowd.enter(1);
        drop(evicted);
        assert_eq!(crowd.len(), 1);
        assert!(!place.evicted.is_cancelled());
    }
}
