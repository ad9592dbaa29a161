use super::*;

const OWN: SpkiHash = SpkiHash::from_bytes([5; 32]);

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(1000 + seconds))
}

fn target(name: &str, key: u8) -> PeerTarget {
    PeerTarget {
        id: id(name),
        spki: SpkiHash::from_bytes([key; 32]),
        endpoints: vec!["192.0.2.1:51820".parse().unwrap()],
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

fn want(wanted: &mut WantedPeers, target: PeerTarget, seconds: u64) -> Result<(), TooMany> {
    let patience = patience(&OWN, &target.spki);
    wanted.want(target, patience, at(seconds))
}

fn nobody(_: &SpiffeId) -> bool {
    false
}

fn due(wanted: &mut WantedPeers, seconds: u64) -> Vec<String> {
    let due = wanted.take_due(at(seconds), 100, nobody);
    due.into_iter()
        .map(|due| due.target.id.name().to_owned())
        .collect()
}

#[test]
fn the_greater_key_waits_before_it_dials() {
    let mut wanted = WantedPeers::default();
    want(&mut wanted, target("b", 9), 0).unwrap();
    want(&mut wanted, target("c", 1), 0).unwrap();
    assert_eq!(due(&mut wanted, 0), ["b"]);
    assert_eq!(wanted.next_after(at(0)), Some(at(3)));
    assert_eq!(due(&mut wanted, 3), ["c"]);
    assert_eq!(wanted.next_after(at(3)), None);
}

#[test]
fn nobody_is_dialled_twice_at_once_and_no_more_than_there_are_places() {
    let mut wanted = WantedPeers::default();
    for name in ["b", "c", "d"] {
        want(&mut wanted, target(name, 9), 0).unwrap();
    }
    assert_eq!(wanted.take_due(at(0), 2, nobody).len(), 2);
    assert!(wanted.take_due(at(0), 2, nobody).is_empty());
    wanted.dialled(&id("b"));
    assert_eq!(due(&mut wanted, 0).len(), 1);
    wanted.forget(&id("c"));
    wanted.dialled(&id("c"));
    wanted.dialled(&id("d"));
    assert_eq!(wanted.dialling, 0);
}

#[test]
fn failures_put_off_further_and_further_up_to_a_bound() {
    let mut wanted = WantedPeers::default();
    want(&mut wanted, target("b", 9), 0).unwrap();
    let mut now = at(0);
    let mut last = Duration::ZERO;
    for _ in 0..10 {
        wanted.take_due(now, 1, nobody);
        wanted.dialled(&id("b"));
        wanted.put_off(&id("b"), now, 1.0);
        let next = wanted.next_after(now).unwrap();
        assert!(next.since(now) >= last);
        last = next.since(now);
        now = next;
    }
    assert_eq!(last, MAX_BACKOFF);
    wanted.put_off(&id("b"), now, 0.0);
    assert_eq!(wanted.next_after(now).unwrap().since(now), MAX_BACKOFF / 2);
    wanted.succeeded(&id("b"));
    wanted.put_off(&id("b"), now, 1.0);
    assert_eq!(wanted.next_after(now).unwrap().since(now), MIN_BACKOFF);
}

#[test]
fn who_is_bound_leaves_the_queue_until_the_bind_ends() {
    let mut wanted = WantedPeers::default();
    want(&mut wanted, target("b", 9), 0).unwrap();
    assert!(wanted.take_due(at(0), 1, |_| true).is_empty());
    assert_eq!(wanted.next_after(BootTime::default()), None);
    wanted.put_off(&id("b"), at(50), 1.0);
    assert_eq!(due(&mut wanted, 51), ["b"]);
}

#[test]
fn a_peer_without_an_address_is_dialled_once_it_has_one() {
    let mut wanted = WantedPeers::default();
    let mut lost = target("b", 9);
    lost.endpoints.clear();
    want(&mut wanted, lost, 0).unwrap();
    assert!(due(&mut wanted, 10).is_empty());
    want(&mut wanted, target("b", 9), 20).unwrap();
    assert_eq!(due(&mut wanted, 20), ["b"]);
}

#[test]
fn new_keys_are_shown_to_all_within_a_span_that_grows_with_their_number() {
    let mut wanted = WantedPeers::default();
    for number in 0..100 {
        let peer = target(&format!("n{number}"), 9);
        want(&mut wanted, peer, 0).unwrap();
    }
    wanted.take_due(at(0), 200, |_| true);
    let mut steps = (0..100_u32).map(|step| f64::from(step) / 100.0);
    wanted.renew_all(Duration::from_millis(500), at(0), || steps.next().unwrap());
    let within = |seconds: u64| wanted.queue.range(..=(at(seconds), u64::MAX)).count();
    assert_eq!((within(0), within(25), within(50)), (1, 51, 100));
}

#[test]
fn no_more_are_wanted_than_the_limit() {
    let mut wanted = WantedPeers::default();
    for number in 0..MAX_WANTED {
        let peer = target(&format!("n{number}"), 9);
        want(&mut wanted, peer, 0).unwrap();
    }
    assert_eq!(want(&mut wanted, target("b", 9), 0), Err(TooMany));
    wanted.forget(&id("n0"));
    assert_eq!(want(&mut wanted, target("b", 9), 0), Ok(()));
}

#[test]
fn a_dial_under_way_hears_of_addresses_that_are_found_meanwhile_and_of_none_after_it() {
    let mut wanted = WantedPeers::default();
    want(&mut wanted, target("b", 9), 0).unwrap();
    let mut due = wanted.take_due(at(0), 100, nobody);
    let Due {
        target: first,
        found,
    } = due.remove(0);
    assert!(!found.has_changed().unwrap());
    let mut more = first.clone();
    more.endpoints.insert(0, "192.0.2.9:51820".parse().unwrap());
    want(&mut wanted, more.clone(), 1).unwrap();
    assert_eq!(*found.borrow(), more.endpoints);
    assert_eq!(wanted.next_after(at(0)), None, "dialled twice");
    wanted.dialled(&id("b"));
    assert!(found.has_changed().is_err(), "nobody tells it any more");
    want(&mut wanted, first, 2).unwrap();
    assert_eq!(wanted.take_due(at(2), 100, nobody).len(), 1);
}
