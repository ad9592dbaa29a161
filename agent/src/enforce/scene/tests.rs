use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::testing::{TEST_NOW, TurnedClock};
use edgeward_tunnel::filter::Direction;

use super::*;
use crate::enforce::testing::{PEER, boot, evidence, id, inward, parts, rules, slice, spki};

/// Where only who runs a good collector may in.
fn scene() -> Scene {
    let mut slice = slice();
    for row in slice.interfaces.iter_mut().flat_map(|i| &mut i.rows) {
        row.runs = vec!["acme/collector>=1.1".to_owned()];
    }
    let parts = PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    };
    let decider = Arc::new(Decider::new(Picture::new(parts.clone())));
    let filter = Arc::new(Filter::new(Arc::clone(&decider) as _));
    let clock = TurnedClock::at(TEST_NOW);
    clock.turn(boot(5000).since(clock.boottime()));
    clock.set_now(TEST_NOW);
    Scene::new(parts, decider, filter, clock)
}

fn is_let_in(scene: &Scene) -> bool {
    let now = scene.clock.boottime();
    scene
        .picture()
        .flow(&inward(), PEER, Direction::In, now)
        .allow
}

/// The peer's evidence, so many seconds before now.
fn seen(ago: u64, runs: Option<&str>) -> HashMap<SpiffeId, BoundPeer> {
    let runs = runs.map(|version| {
        let runs = BTreeMap::from([("acme/collector".to_owned(), version.to_owned())]);
        Arc::new(runs)
    });
    let peer = BoundPeer {
        id: id("b"),
        spki: spki(2),
        evidence: evidence(TEST_NOW.minus(Duration::from_secs(ago))),
        runs,
        by_boot_statement: false,
    };
    HashMap::from([(id("b"), peer)])
}

#[test]
fn what_newer_evidence_says_of_what_runs_opens_and_closes() {
    let scene = scene();
    assert!(!is_let_in(&scene), "nothing proves what runs");
    scene.renew(seen(90, Some("1.1")));
    assert!(!is_let_in(&scene), "older than what is known");
    scene.renew(seen(40, Some("1.0")));
    assert!(!is_let_in(&scene), "too low");
    scene.renew(seen(30, Some("1.1")));
    assert!(is_let_in(&scene));
    let before = scene.epoch.load(Ordering::Relaxed);
    scene.renew(seen(20, Some("1.1")));
    assert!(is_let_in(&scene));
    assert_eq!(
        scene.epoch.load(Ordering::Relaxed),
        before,
        "verdicts hold where evidence says the same"
    );
    scene.renew(seen(10, None));
    assert!(!is_let_in(&scene), "nothing proves it any more");
    assert!(
        scene.epoch.load(Ordering::Relaxed) > before,
        "flows that are open are asked about again"
    );
}

/// A node that launches something while its bind opens has newer evidence than it offered.
#[test]
fn what_a_peer_said_while_its_bind_opened_counts_once_it_is_open() {
    let scene = scene();
    let bound = std::mem::take(&mut scene.parts.lock().bound);
    let again = || scene.renew(scene.decider().take_seen());
    scene.renew(seen(90, Some("1.1")));
    assert!(
        scene.decider().take_seen().is_empty(),
        "nobody opens that long"
    );
    scene.renew(seen(3, Some("1.1")));
    again();
    assert!(!is_let_in(&scene), "it is not bound");
    scene.change(Kept::Hold, |parts| parts.bound = bound);
    assert!(!is_let_in(&scene), "what it offered proves nothing");
    again();
    assert!(is_let_in(&scene));
    assert!(scene.decider().take_seen().is_empty());
}

/// The bind that is open is by the key before; what is said belongs to the one that opens.
#[test]
fn what_a_peer_said_with_its_next_key_counts_once_the_bind_by_that_is_open() {
    let scene = scene();
    let again = || scene.renew(scene.decider().take_seen());
    let mut next = seen(3, Some("1.1"));
    for peer in next.values_mut() {
        peer.spki = spki(3);
    }
    scene.renew(next);
    again();
    assert!(!is_let_in(&scene), "it is not bound");
    scene.change(Kept::Hold, |parts| {
        for peer in parts.bound.values_mut() {
            peer.spki = spki(3);
        }
    });
    again();
    assert!(is_let_in(&scene));
    again();
    assert!(scene.decider().take_seen().is_empty());
}

#[tokio::test]
async fn whoever_waits_hears_at_once_of_evidence_that_says_something_else() {
    let scene = scene();
    let decider = scene.decider().clone();
    let soon = std::time::Duration::from_secs(20);
    let see = |ago, runs| {
        let mut peers = seen(ago, runs).into_values();
        decider.see(peers.next().unwrap());
    };
    see(30, None);
    let quiet = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        decider.saw_otherwise(),
    );
    assert!(quiet.await.is_err(), "it says the same");
    see(20, Some("1.1"));
    tokio::time::timeout(soon, decider.saw_otherwise())
        .await
        .unwrap();
    scene.renew(decider.take_seen());
    assert!(is_let_in(&scene));
    see(10, None);
    tokio::time::timeout(soon, decider.saw_otherwise())
        .await
        .unwrap();
    scene.renew(decider.take_seen());
    assert!(!is_let_in(&scene));
}
