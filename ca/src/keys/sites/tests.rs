use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_800_000_100);
const CONTEXT: &[u8] = b"bodies of block 7";

fn site(name: &str) -> Site {
    Site::parse(name).unwrap()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("sites");
    (above, folder)
}

fn key_path(folder: &Path, id: SiteKeyId) -> PathBuf {
    folder.join(format!("{id}.key"))
}

fn content_fault(folder: &Path) -> bool {
    matches!(
        SiteKeys::open(folder),
        Err(SiteKeyFault::File(FileFault::Content { .. }))
    )
}

#[test]
fn what_cannot_be_a_label_is_no_site() {
    for bad in ["", "a b", "ä", "x".repeat(64).as_str(), "a\n", "a%2f"] {
        assert_eq!(Site::parse(bad), None, "{bad}");
        assert_eq!(Site::of_label(Some(bad)), Site::rest());
    }
    // What is the cloud's own no label can be.
    assert_eq!(Site::of_label(Some(Site::cloud().as_str())), Site::rest());
    assert_eq!(Site::of_label(None).as_str(), "default");
    assert_eq!(Site::of_label(Some("Berlin/2")).as_str(), "Berlin/2");
}

#[test]
fn a_key_file_that_is_torn_foreign_or_readable_by_others_stops_the_start() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&site("berlin")).unwrap();
    drop(keys);
    let path = key_path(&folder, id);
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(content_fault(&folder), "{end}");
    }
    let mut flipped = whole.clone();
    flipped[60] ^= 1;
    fs::write(&path, flipped).unwrap();
    assert!(content_fault(&folder));
    fs::write(&path, &whole).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        SiteKeys::open(&folder),
        Err(SiteKeyFault::File(FileFault::Exposed { mode: 0o640, .. }))
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["1.key", "000000000000000G.key", "0000000000000000.erased"] {
        fs::write(folder.join(name), &whole).unwrap();
        assert!(content_fault(&folder), "{name}");
        fs::remove_file(folder.join(name)).unwrap();
    }
    SiteKeys::open(&folder).unwrap();
}

#[test]
fn the_key_of_the_index_is_not_made_anew_where_other_keys_are() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    keys.current(&site("berlin")).unwrap();
    let path = folder.join(TERM_KEY);
    let terms = file::read_or_make_terms(&path, false).unwrap();
    SiteKeys::open(&folder).unwrap();
    let again = file::read_or_make_terms(&path, true).unwrap();
    assert!(again.matches(terms.expose()));
    fs::write(folder.join(TERM_KEY), "").unwrap();
    assert!(content_fault(&folder));
    fs::remove_file(folder.join(TERM_KEY)).unwrap();
    assert!(matches!(
        SiteKeys::open(&folder),
        Err(SiteKeyFault::File(FileFault::Io { .. }))
    ));
}

#[test]
fn what_was_sealed_opens_under_its_own_key_and_context_only() {
    let keys = SiteKeys::temporary();
    let (berlin, rest) = (
        keys.current(&site("berlin")).unwrap(),
        keys.current(&Site::rest()).unwrap(),
    );
    assert_ne!(berlin, rest);
    let sealed = keys.seal(berlin, CONTEXT, b"who was where").unwrap();
    assert_eq!(
        keys.open_sealed(berlin, b"bodies of block 8", &sealed),
        Err(Unopened::Damaged)
    );
    assert_eq!(
        keys.open_sealed(rest, CONTEXT, &sealed),
        Err(Unopened::Damaged)
    );
    let nobody = SiteKeyId::from_number(7).unwrap();
    assert_eq!(
        keys.open_sealed(nobody, CONTEXT, &sealed),
        Err(Unopened::NoKey)
    );
    for end in 0..sealed.len() {
        assert_eq!(
            keys.open_sealed(berlin, CONTEXT, &sealed[..end]),
            Err(Unopened::Damaged)
        );
        let mut flipped = sealed.clone();
        flipped[end] ^= 0x10;
        assert_eq!(
            keys.open_sealed(berlin, CONTEXT, &flipped),
            Err(Unopened::Damaged)
        );
    }
    assert_eq!(
        keys.open_sealed(berlin, CONTEXT, &sealed).unwrap(),
        b"who was where"
    );
}

#[test]
fn no_nonce_is_used_twice_under_a_derived_key() {
    let (_above, folder) = folder();
    let mut seen = BTreeSet::new();
    for _start in 0..3 {
        let keys = SiteKeys::open(&folder).unwrap();
        let id = keys.current(&site("berlin")).unwrap();
        std::thread::scope(|scope| {
            let seal = || {
                (0..200)
                    .map(|_| keys.seal(id, CONTEXT, b"").unwrap())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
            for thread in threads {
                for sealed in thread.join().unwrap() {
                    // Salt and counter.
                    assert!(seen.insert(sealed[..24].to_vec()));
                }
            }
        });
    }
    assert_eq!(seen.len(), 2400);
}

#[test]
fn a_lost_key_is_not_an_erased_one() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&site("berlin")).unwrap();
    let sealed = keys.seal(id, CONTEXT, b"body").unwrap();
    fs::remove_file(key_path(&folder, id)).unwrap();
    let keys = SiteKeys::open(&folder).unwrap();
    assert_eq!(keys.open_sealed(id, CONTEXT, &sealed), Err(Unopened::NoKey));
}

#[test]
fn keys_are_read_back_and_only_their_owner_may_read_them() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&site("berlin")).unwrap();
    let sealed = keys.seal(id, CONTEXT, b"body").unwrap();
    let again = SiteKeys::open(&folder).unwrap();
    assert_eq!(again.current(&site("berlin")).unwrap(), id);
    assert_eq!(again.open_sealed(id, CONTEXT, &sealed).unwrap(), b"body");
    assert_eq!(SiteKeyId::from_column(id.to_column()), id);
    for name in files::names(&folder).unwrap() {
        let mode = fs::metadata(folder.join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_clouds_own_events_are_not_erased() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&Site::cloud()).unwrap();
    assert!(matches!(
        keys.erase(&Site::cloud(), NOW),
        Err(SiteKeyFault::Reserved(_))
    ));
    let again = SiteKeys::open(&folder).unwrap();
    assert_eq!(again.current(&Site::cloud()).unwrap(), id);
}

#[test]
fn an_erased_key_stays_erased_over_restarts_and_the_site_gets_a_new_one() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    assert!(keys.erase(&site("berlin"), NOW).unwrap().is_empty());
    let id = keys.current(&site("berlin")).unwrap();
    let other = keys.current(&site("paris")).unwrap();
    let sealed = keys.seal(id, CONTEXT, b"body").unwrap();
    let kept = keys.seal(other, CONTEXT, b"body").unwrap();
    let bytes = fs::read(key_path(&folder, id)).unwrap();
    assert_eq!(keys.erase(&site("berlin"), LATER).unwrap(), [id]);
    assert!(matches!(
        keys.seal(id, CONTEXT, b"x"),
        Err(SiteKeyFault::Erased)
    ));
    let next = keys.current(&site("berlin")).unwrap();
    assert_ne!(next, id);
    // Repeated, it is the new key's turn.
    for keys in [keys, SiteKeys::open(&folder).unwrap()] {
        assert_eq!(
            keys.open_sealed(id, CONTEXT, &sealed),
            Err(Unopened::Erased)
        );
        assert_eq!(keys.open_sealed(other, CONTEXT, &kept).unwrap(), b"body");
        assert_eq!(keys.current(&site("berlin")).unwrap(), next);
        let list = keys.list();
        let erased: Vec<_> = list.iter().filter(|key| key.erased.is_some()).collect();
        assert_eq!((list.len(), erased.len()), (3, 1));
        assert_eq!((erased[0].id, erased[0].erased), (id, Some(LATER)));
    }
    // A key that comes back from a backup does not live again.
    fs::write(key_path(&folder, id), bytes).unwrap();
    fs::set_permissions(key_path(&folder, id), fs::Permissions::from_mode(0o600)).unwrap();
    let keys = SiteKeys::open(&folder).unwrap();
    assert_eq!(
        keys.open_sealed(id, CONTEXT, &sealed),
        Err(Unopened::Erased)
    );
    assert!(!key_path(&folder, id).exists());
}

#[test]
fn a_crash_at_any_step_leaves_the_key_or_its_tombstone() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&site("berlin")).unwrap();
    let sealed = keys.seal(id, CONTEXT, b"body").unwrap();
    let key = key_path(&folder, id);
    // Before the tombstone has its name: nothing happened.
    let beside = folder.join(format!("{id}.new"));
    fs::write(&beside, "edgeward erased site").unwrap();
    // Young, it may be another cloud's that is just being written.
    SiteKeys::open(&folder).unwrap();
    assert!(beside.exists());
    let old = std::time::SystemTime::now() - Duration::from_secs(61);
    let file = fs::File::options().write(true).open(&beside).unwrap();
    file.set_modified(old).unwrap();
    let keys = SiteKeys::open(&folder).unwrap();
    assert!(!beside.exists());
    assert_eq!(keys.open_sealed(id, CONTEXT, &sealed).unwrap(), b"body");
    // Behind it: the erasure is brought to its end, whatever the key's file looks like by then.
    let tombstone = Tombstone {
        site: site("berlin"),
        made: NOW,
        erased: LATER,
    };
    file::write_tombstone(&folder, id, &tombstone).unwrap();
    let length = fs::read(&key).unwrap().len();
    for torn in [vec![0; length], vec![0; length / 2], Vec::new()] {
        fs::write(&key, torn).unwrap();
        let keys = SiteKeys::open(&folder).unwrap();
        assert!(!key.exists());
        assert_eq!(
            keys.open_sealed(id, CONTEXT, &sealed),
            Err(Unopened::Erased)
        );
        assert_eq!(keys.list()[0].erased, Some(LATER));
    }
    fs::write(folder.join(format!("{id}.erased")), "torn").unwrap();
    assert!(content_fault(&folder));
}

#[test]
fn clouds_that_share_the_folder_learn_of_each_others_keys_and_erasures() {
    let (_above, folder) = folder();
    let (one, two) = (
        SiteKeys::open(&folder).unwrap(),
        SiteKeys::open(&folder).unwrap(),
    );
    let id = one.current(&site("berlin")).unwrap();
    let sealed = one.seal(id, CONTEXT, b"body").unwrap();
    assert_eq!(two.open_sealed(id, CONTEXT, &sealed).unwrap(), b"body");
    assert_eq!(two.current(&site("berlin")).unwrap(), id);
    let old = one.turn_over(&site("berlin"), LATER).unwrap();
    assert_eq!(one.open_sealed(id, CONTEXT, &sealed).unwrap(), b"body");
    one.destroy(&old, LATER).unwrap();
    two.look_again().unwrap();
    assert_eq!(two.open_sealed(id, CONTEXT, &sealed), Err(Unopened::Erased));
    assert_eq!(
        two.current(&site("berlin")).unwrap(),
        one.current(&site("berlin")).unwrap()
    );
}

#[test]
fn a_foreign_file_hides_nothing_of_what_is_new_and_a_damaged_key_is_said() {
    let (_above, folder) = folder();
    let (one, two) = (
        SiteKeys::open(&folder).unwrap(),
        SiteKeys::open(&folder).unwrap(),
    );
    for name in ["notes.txt", "README", "1.key", ".nfs000000000001", "x.new"] {
        fs::write(folder.join(name), "what is this").unwrap();
    }
    let id = one.current(&site("berlin")).unwrap();
    assert!(two.follows(id).unwrap());
    assert_eq!(two.current(&site("berlin")).unwrap(), id);
    let other = one.current(&site("paris")).unwrap();
    fs::write(key_path(&folder, other), "torn").unwrap();
    assert!(two.follows(other).is_err());
    fs::remove_file(key_path(&folder, other)).unwrap();
    assert!(!two.follows(other).unwrap(), "an old listing is no answer");
}

#[test]
fn of_clouds_that_begin_at_once_all_have_the_same_key_of_the_index() {
    let (_above, folder) = folder();
    fs::create_dir(&folder).unwrap();
    let path = folder.join(TERM_KEY);
    let keys: Vec<_> = std::thread::scope(|all| {
        let begin = || file::read_or_make_terms(&path, true).unwrap();
        let starts: Vec<_> = (0..8).map(|_| all.spawn(begin)).collect();
        starts.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Also one that found the folder empty a moment before.
    let late = file::make_terms(&path).unwrap();
    for key in keys.iter().chain([&late]) {
        assert_eq!(key.expose(), keys[0].expose());
    }
    assert_eq!(files::names(&folder).unwrap(), [TERM_KEY]);
}

#[test]
fn neither_keys_nor_their_files_tell_anything_in_debug() {
    let (_above, folder) = folder();
    let keys = SiteKeys::open(&folder).unwrap();
    let id = keys.current(&site("berlin")).unwrap();
    let text = fs::read_to_string(key_path(&folder, id)).unwrap();
    let hex = text
        .lines()
        .find_map(|line| line.strip_prefix("key "))
        .unwrap();
    let shown = format!("{keys:?}");
    assert!(!shown.contains(hex) && shown.contains("Secret(..)"));
}
