use edgeward_audit::journal::{Boot as JournalBoot, Fault, Limits, MemoryStore};
use edgeward_audit::record::Salts;
use edgeward_audit::{Event, EventKind};

use super::*;

const TIME: Timestamp = Timestamp::from_secs(1_795_000_000);

fn journal(store: MemoryStore, boot: &Boot) -> Journal<MemoryStore> {
    let boot = JournalBoot {
        id: boot.id(),
        reset_count: None,
        restart_count: None,
    };
    let node = "spiffe://plant.example/node/a".parse().unwrap();
    let salts = Salts::from_seed([7; 32]);
    let opened = Journal::open(store, &node, &boot, Limits::default(), TIME, salts);
    opened.unwrap().0
}

fn boot_in(folder: &Path) -> Boot {
    Boot::new("kernel", None).unwrap().kept_in(folder)
}

fn bytes_of(held: &Held) -> Vec<u8> {
    held.key.pkcs8().expose().clone()
}

fn holds(path: &Path, key: &[u8]) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(key.len()).any(|window| window == key)
}

#[test]
fn a_file_of_another_boot_or_a_broken_one_gives_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let boot = boot_in(folder.path());
    let mut journal = journal(MemoryStore::new(), &boot);
    let mut ring = KeyRing::of(&boot);
    ring.turn(&mut journal, TIME, BootTime::default()).unwrap();
    let path = folder.path().join(FILE);
    let good = std::fs::read(&path).unwrap();
    let other = BootId::from_bytes([9; 16]);
    assert!(find(&path, boot.id()).is_some());
    assert!(find(&path, other).is_none());
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(find(&path, boot.id()).is_none(), "{length}");
    }
    std::fs::write(&path, [good.as_slice(), &[0]].concat()).unwrap();
    assert!(find(&path, boot.id()).is_none());
    // The journal says that there is a key: without it this boot cannot go on.
    assert!(!KeyRing::of(&boot).settle(journal.last_turn()));
}

#[test]
fn a_key_is_nowhere_any_more_after_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let boot = boot_in(folder.path());
    let mut journal = journal(MemoryStore::new(), &boot);
    let mut ring = KeyRing::of(&boot);
    assert!(ring.is_due(&journal));
    ring.turn(&mut journal, TIME, BootTime::default()).unwrap();
    assert!(!ring.is_due(&journal));
    let path = folder.path().join(FILE);
    let first = bytes_of(ring.current.as_ref().unwrap());
    assert!(holds(&path, &first));
    // Whoever still has the old file open finds nothing in it either.
    let old = std::fs::File::open(&path).unwrap();
    ring.turn(&mut journal, TIME, BootTime::default()).unwrap();
    assert!(!holds(&path, &first));
    assert_ne!(bytes_of(ring.current.as_ref().unwrap()), first);
    let mut left = Vec::new();
    (&old).read_to_end(&mut left).unwrap();
    assert!(left.iter().all(|byte| *byte == 0));
}

#[test]
fn a_start_between_a_turn_and_its_keeping_goes_on_with_the_key_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let boot = boot_in(folder.path());
    let mut first = journal(MemoryStore::new(), &boot);
    let mut ring = KeyRing::of(&boot);
    ring.turn(&mut first, TIME, BootTime::default()).unwrap();
    let path = folder.path().join(FILE);
    // Both keys are written down, and the process ends before, or after, the turn's record is on disk.
    let key = SoftwareKey::generate().unwrap();
    let next = *key.public_key();
    ring.pending = Some(Held { number: 1, key });
    ring.keep();
    let both = std::fs::read(&path).unwrap();
    let mut before = KeyRing::of(&boot);
    assert!(before.settle(first.last_turn()));
    assert_eq!(before.current.as_ref().unwrap().number, 0);
    let signer = &before.current.as_ref().unwrap().key;
    first
        .turn(signer, (1, &next), TIME, BootTime::default())
        .unwrap();
    std::fs::write(&path, both).unwrap();
    let mut after = KeyRing::of(&boot);
    assert!(after.settle(first.last_turn()));
    assert_eq!(*after.current.as_ref().unwrap().key.public_key(), next);
    assert!(!holds(&path, &bytes_of(before.current.as_ref().unwrap())));
}

#[test]
fn a_turn_that_is_not_on_record_leaves_the_old_key_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let boot = boot_in(folder.path());
    let mut store = MemoryStore::new();
    let mut ring = KeyRing::of(&boot);
    let mut journal = {
        let mut journal = journal(store.clone(), &boot);
        ring.turn(&mut journal, TIME, BootTime::default()).unwrap();
        store = journal.into_store();
        store.inject(Fault::AppendAfter(9));
        self::journal(store, &boot)
    };
    assert!(ring.turn(&mut journal, TIME, BootTime::default()).is_err());
    assert_eq!(ring.current.as_ref().unwrap().number, 0);
    assert!(ring.settle(journal.last_turn()));
    assert_eq!(ring.pause, RETRY_AFTER_RECORDS);
    ring.turn(&mut journal, TIME, BootTime::default()).unwrap();
    assert_eq!(journal.last_turn().unwrap().number, 1);
    let event = Event::new(TIME, journal.chain().node().clone(), EventKind::BindOpened);
    journal.append(event, BootTime::default()).unwrap();
}
