use std::sync::Arc;

use edgeward_identity::TrustDomain;
use edgeward_identity::deny::Denied;
use edgeward_identity::testing::TEST_NOW;
use edgeward_wire::control::{Cut, CutReason};
use edgeward_wire::v1;

use super::*;
use crate::enforce::decide::Picture;
use crate::enforce::testing::*;
use crate::view::{CutFloors, Held, Standing};

fn directory(names: &[(&str, u8)]) -> Directory {
    directory_passed(names, Timestamp::default())
}

fn directory_passed(names: &[(&str, u8)], passed: Timestamp) -> Directory {
    let peers = names
        .iter()
        .map(|(name, key)| v1::Peer {
            spiffe_id: id(name).to_string(),
            endpoints: vec!["192.0.2.1:51820".to_owned()],
            spki_hash: vec![*key; 32],
            result: Vec::new(),
            passed: passed.millis(),
        })
        .collect();
    let update = v1::PeerUpdate {
        full: true,
        peers,
        gone: Vec::new(),
    };
    Directory::default()
        .updated(&TrustDomain::new("plant.example").unwrap(), &update)
        .unwrap()
}

fn wish(parts: PictureParts, deny: &DenyList) -> Vec<SpiffeId> {
    let directory = directory(&[("b", 2), ("c", 3)]);
    wanted(&Picture::new(parts), &directory, deny, &spki(1), TEST_NOW)
        .into_keys()
        .collect()
}

#[test]
fn a_held_node_wants_nobody() {
    let mut parts = parts();
    parts.standing = Standing::Held(Held::NoFloor);
    assert!(wish(parts, &DenyList::default()).is_empty());
}

#[test]
fn only_peers_of_the_policy_are_wanted() {
    assert_eq!(wish(parts(), &DenyList::default()), [id("b")]);
}

#[test]
fn a_peer_that_only_a_rule_for_one_profile_lets_in_is_wanted() {
    let mut slice = slice();
    slice.egress.clear();
    let profile = "gateway@0123456789abcdef".parse().unwrap();
    slice.interfaces[0].rows[0].profiles = edgeward_policy::slice::Profiles::These(vec![profile]);
    let mut parts = parts();
    parts.rules = Some(rules(slice));
    assert_eq!(wish(parts, &DenyList::default()), [id("b")]);
}

#[test]
fn denied_keys_are_not_dialled() {
    let denied = Denied {
        reason: "quarantined".to_owned(),
        until: TEST_NOW.plus(MINUTE),
    };
    let deny = DenyList::new(1, [(spki(2), denied)].into()).unwrap();
    assert!(wish(parts(), &deny).is_empty());
}

#[test]
fn a_peer_that_was_cut_is_not_dialled_before_it_seems_to_have_passed() {
    let mut parts = parts();
    let mut floors = CutFloors::default();
    floors.add(
        1,
        &Cut {
            node: id("b"),
            reason: CutReason::Stale,
            time: TEST_NOW,
        },
    );
    parts.floors = Arc::new(floors);
    let picture = Picture::new(parts);
    let passed = |passed| {
        let directory = directory_passed(&[("b", 2)], passed);
        wanted(
            &picture,
            &directory,
            &DenyList::default(),
            &spki(1),
            TEST_NOW,
        )
    };
    assert!(passed(Timestamp::default()).is_empty());
    assert!(passed(TEST_NOW).is_empty());
    assert_eq!(passed(TEST_NOW.plus(MINUTE)).len(), 1);
}

#[test]
fn a_peer_that_no_evidence_could_help_is_not_dialled() {
    let mut ended = slice();
    ended.interfaces[0].rows[0].until = Some(TEST_NOW);
    ended.egress[0].rows[0].until = Some(TEST_NOW);
    let mut parts = parts();
    parts.rules = Some(rules(ended));
    assert!(wish(parts, &DenyList::default()).is_empty());
}

#[test]
fn changes_name_what_is_new_moved_or_gone() {
    let wanted_at = |endpoint: &str, key| Wanted {
        spki: spki(key),
        endpoints: vec![endpoint.parse().unwrap()],
    };
    let old = BTreeMap::from([
        (id("b"), wanted_at("192.0.2.1:1", 2)),
        (id("c"), wanted_at("192.0.2.2:1", 3)),
        (id("d"), wanted_at("192.0.2.3:1", 4)),
    ]);
    let mut new = old.clone();
    assert_eq!(changes(&old, &new), Changes::default());
    new.insert(id("b"), wanted_at("192.0.2.9:1", 2));
    let moved = changes(&old, &new);
    assert_eq!(moved.want, [(id("b"), wanted_at("192.0.2.9:1", 2))]);
    assert!(!moved.keys_changed);
    new.remove(&id("c"));
    let gone = changes(&old, &new);
    assert_eq!(gone.forget, [id("c")]);
    assert!(gone.keys_changed);
}
