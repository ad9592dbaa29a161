//! The keys that sign for applications, turned over; with stops in between.

use super::super::ledger::Role;
use super::*;

fn path(folder: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    folder.path().join("keys").join(name)
}

/// Whether members take a word of the director that was signed now.
fn director_speaks(keys: &CloudKeys) -> bool {
    let Ok(bytes) = keys.sign(label(Purpose::Director), &1) else {
        return false;
    };
    let expect = Expect {
        purpose: Purpose::Director,
        trust_domain: &domain(),
        audience: EVERYBODY,
        least_number: 1,
        now: NOW,
    };
    let object = SignedObject::parse(&bytes).unwrap();
    object.open_json::<u8>(&keys.key_set(NOW).unwrap(), &expect) == Ok(1)
}

fn director_of(keys: &CloudKeys) -> PublicKey {
    *keys.director_signer(NOW).unwrap().public_key()
}

#[test]
fn the_directors_key_needs_the_root_and_does_not_turn_while_a_root_does() {
    let (folder, keys) = made();
    let (root, away) = (path(&folder, "root.key"), path(&folder, "away"));
    fs::rename(&root, &away).unwrap();
    let refused = keys.new_director();
    assert!(matches!(refused, Err(KeysFault::RootNeeded { .. })));
    fs::rename(&away, &root).unwrap();
    let new = keys.new_director().unwrap();
    // Taken away between the two: nothing has changed.
    fs::rename(&root, &away).unwrap();
    let before = director_of(&keys);
    assert!(keys.turn_director(&new, NOW).is_err());
    assert_eq!(director_of(&keys), before);
    fs::rename(&away, &root).unwrap();
    keys.prepare(Role::Root, NOW).unwrap();
    let refused = keys.new_director();
    assert!(matches!(
        refused,
        Err(KeysFault::NotNow(NotNow::UnderWay(_)))
    ));
    assert!(director_speaks(&keys));
}

#[test]
fn the_key_set_that_follows_names_the_directors_new_key_and_the_old_one_is_gone() {
    let (folder, keys) = made();
    let (before, number) = (director_of(&keys), keys.key_set_number());
    let old_word = keys.sign(label(Purpose::Director), &1).unwrap();
    for round in 1..=2 {
        let new = keys.new_director().unwrap();
        keys.turn_director(&new, NOW).unwrap();
        assert_eq!(keys.key_set_number(), number + round);
        assert_eq!(director_of(&keys).spki_hash(), new.key);
        let set = keys.key_set(NOW).unwrap();
        let named = set.keys_for(Purpose::Director, NOW);
        assert_eq!(named, [director_of(&keys)], "the old one says nothing more");
        assert!(director_speaks(&keys));
    }
    let set = keys.key_set(NOW).unwrap();
    let object = SignedObject::parse(&old_word).unwrap();
    let expect = Expect {
        purpose: Purpose::Director,
        trust_domain: &domain(),
        audience: EVERYBODY,
        least_number: 1,
        now: NOW,
    };
    assert!(object.open(&set, &expect).is_err());
    assert!(!path(&folder, "director.key").exists());
    let files = files::names(&folder.path().join("keys")).unwrap();
    let left = files.iter().filter(|name| name.starts_with("director"));
    assert_eq!(left.count(), 1, "{files:?}");
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_ne!(director_of(&again), before);
    assert_eq!(director_of(&again), director_of(&keys));
    // The other purposes have the keys that they had.
    for purpose in [
        Purpose::Results,
        Purpose::Control,
        Purpose::Log,
        Purpose::Jwt,
    ] {
        assert_eq!(again.key_set(NOW).unwrap().keys_for(purpose, NOW).len(), 1);
    }
}

#[test]
fn a_turn_of_the_director_that_was_stopped_halfway_is_ended_by_a_start_with_the_root_key() {
    let (folder, keys) = made();
    let set = fs::read(path(&folder, "keyset")).unwrap();
    let new = keys.new_director().unwrap();
    keys.turn_director(&new, NOW).unwrap();
    // The name was written, and the key set was not.
    fs::write(path(&folder, "keyset"), set).unwrap();
    let (root, away) = (path(&folder, "root.key"), path(&folder, "away"));
    fs::rename(&root, &away).unwrap();
    let offline = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert!(!director_speaks(&offline), "nobody was told of that key");
    fs::rename(&away, &root).unwrap();
    let whole = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(director_of(&whole).spki_hash(), new.key);
    assert!(director_speaks(&whole));
}

#[test]
fn the_next_key_of_the_image_repository_waits_until_a_root_names_it_alone() {
    let (folder, keys) = made();
    let before = *keys.apps_signer().public_key();
    let (next, is_new) = keys.prepare_apps_online().unwrap();
    let next = *next.public_key();
    assert!(is_new && next != before);
    let (same, is_new) = keys.prepare_apps_online().unwrap();
    assert!(!is_new && *same.public_key() == next);
    let of = |keys: &CloudKeys, named: &[PublicKey]| {
        let signer = keys.apps_signer_of(|key| named.contains(key)).unwrap();
        signer.map(|signer| *signer.public_key())
    };
    let foreign = *SoftwareKey::generate().unwrap().public_key();
    assert_eq!(of(&keys, &[before]), Some(before));
    assert_eq!(of(&keys, &[next]), Some(next));
    assert_eq!(of(&keys, &[foreign]), None);
    for named in [vec![before], vec![before, next], vec![foreign]] {
        assert!(!keys.settle_apps_online(|key| named.contains(key)).unwrap());
    }
    // A start in between keeps both.
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(of(&again, &[next]), Some(next));
    assert!(again.settle_apps_online(|key| *key == next).unwrap());
    assert!(!path(&folder, "apps-online.key").exists());
    assert_eq!(*again.apps_signer().public_key(), next);
    assert_eq!(of(&again, &[before]), None);
    // Another cloud of the same folder finds out when a root names what it does not know.
    let after = again.prepare_apps_online().unwrap().0;
    let after = *after.public_key();
    assert_eq!(of(&keys, &[after]), Some(after));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (folder, _) = made();
    for text in [
        "{\"director\":\"../root\"}",
        "{\"director\":\"director-../../x\"}",
        "{\"director\":\"root\"}",
        "{\"apps_online\":\"director-00\"}",
        "{\"apps_online_next\":\"apps-online-zz\"}",
        "{\"else\":\"x\"}",
        "",
    ] {
        fs::write(path(&folder, "online.json"), text).unwrap();
        let refused = CloudKeys::open(folder.path(), &domain(), NOW);
        assert!(matches!(refused, Err(KeysFault::Names)), "{text}");
    }
}
