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
fn where_the_key_set_cannot_be_written_the_directors_key_before_speaks_on() {
    let (folder, keys) = made();
    let before = director_of(&keys);
    let new = keys.new_director().unwrap();
    // What would be written lies in the way.
    let beside = path(&folder, "keyset.new");
    fs::create_dir(&beside).unwrap();
    assert!(keys.turn_director(&new, NOW).is_err());
    fs::remove_dir(&beside).unwrap();
    assert_eq!(director_of(&keys), before);
    assert!(director_speaks(&keys));
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(director_of(&again), before);
    assert!(director_speaks(&again));
    // The one that nobody was told of is gone, so it cannot be turned to either.
    assert_eq!(named(&folder, "director"), ["director.key"]);
    assert!(again.turn_director(&new, NOW).is_err());
    assert_eq!(director_of(&again), before);
    assert!(director_speaks(&again));
}

fn named(folder: &tempfile::TempDir, owner: &str) -> Vec<String> {
    let files = files::names(&folder.path().join("keys")).unwrap();
    files
        .into_iter()
        .filter(|name| name.starts_with(owner))
        .collect()
}

#[test]
fn a_start_removes_keys_that_nothing_names_and_nothing_else() {
    let (folder, keys) = made();
    // No name was ever written: what lies there may be anything.
    let left = path(&folder, "director-00ff.key");
    fs::copy(path(&folder, "director.key"), &left).unwrap();
    CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert!(left.exists());
    let before = fs::read(path(&folder, "director.key")).unwrap();
    let new = keys.new_director().unwrap();
    keys.turn_director(&new, NOW).unwrap();
    // A stop before the removal of the one before.
    fs::write(path(&folder, "director.key"), before).unwrap();
    fs::copy(&left, path(&folder, "apps-online-0a.key")).unwrap();
    for other in [
        "director-of-photography.key",
        "director-0g.key",
        "directory.key",
    ] {
        fs::write(path(&folder, other), "").unwrap();
    }
    keys.prepare_apps_online().unwrap();
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert!(director_speaks(&again) && again.next_apps_signer().is_some());
    let director = format!("{}.key", new.name);
    let mut kept = vec![
        director.as_str(),
        "director-0g.key",
        "director-of-photography.key",
        "directory.key",
    ];
    kept.sort_unstable();
    let mut found = named(&folder, "director");
    found.sort_unstable();
    assert_eq!(found, kept);
    assert_eq!(named(&folder, "apps-online").len(), 2, "in use, and next");
}

#[test]
fn what_another_cloud_of_the_same_folder_turned_over_stays() {
    let (folder, keys) = made();
    let other = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    let next = *keys.prepare_apps_online().unwrap().0.public_key();
    // The other one knows nothing of the next key.
    let new = other.new_director().unwrap();
    other.turn_director(&new, NOW).unwrap();
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(*again.next_apps_signer().unwrap().public_key(), next);
    // And the first one nothing of the director's.
    assert!(keys.settle_apps_online(|key| *key == next).unwrap());
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(director_of(&again).spki_hash(), new.key);
    assert_eq!(*again.apps_signer().public_key(), next);
    let set = again.key_set_number();
    let new = keys.new_director().unwrap();
    keys.turn_director(&new, NOW).unwrap();
    assert_eq!(keys.key_set_number(), set + 1, "two sets of one number");
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
