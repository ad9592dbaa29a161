//! The journal on real file systems that are full, or read-only: a small tmpfs in a mount namespace of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgeward_audit::journal::{Boot, FileStore, JournalError, Limits, OpenError};
use edgeward_audit::record::{BootId, Salts};
use edgeward_audit::{Chain, Event, EventKind, Journal, SealedRecord};
use edgeward_identity::{BootTime, SpiffeId, Timestamp};

const TIME: Timestamp = Timestamp::from_secs(1_795_000_000);
/// Set where the test runs within its namespace: the folder of the small disk.
const DISK: &str = "EDGEWARD_TEST_DISK";
const DISK_BYTES: &str = "2m";

/// The folder of a small disk. Outside of the namespace: runs the test again within one, and gives none.
fn disk(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(DISK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let own = |options: &str| {
        let mut command = Command::new("unshare");
        command.arg(options);
        command
    };
    let root = own("-m").arg("true").status().unwrap().success();
    let script =
        "mount -t tmpfs -o size=\"$1\" none \"$2\" && exec \"$3\" --exact \"$4\" --nocapture";
    let status = own(if root { "-m" } else { "-rm" })
        .args(["sh", "-c", script, "sh", DISK_BYTES])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(DISK, folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    None
}

fn node() -> SpiffeId {
    "spiffe://plant.example/node/gw-3".parse().unwrap()
}

fn open(folder: &Path, boot: u8) -> Result<Journal<FileStore>, OpenError> {
    let boot = Boot {
        id: BootId::from_bytes([boot; 16]),
        reset_count: None,
        restart_count: None,
    };
    let store = FileStore::open(&folder.join("journal"))?;
    let salts = Salts::from_seed([7; 32]);
    Journal::open(store, &node(), &boot, Limits::default(), TIME, salts).map(|(journal, _)| journal)
}

fn event(kind: EventKind, n: usize) -> Event {
    Event::new(TIME, node(), kind).detail("n", n)
}

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(std::time::Duration::from_secs(seconds))
}

/// All records, of which those of one boot are one chain.
fn all(journal: &mut Journal<FileStore>) -> Vec<SealedRecord> {
    let mut found: Vec<SealedRecord> = Vec::new();
    let mut from = None;
    while let Some(pending) = journal.pending(from).unwrap() {
        from = Some(pending.next());
        let mut chain: Option<Chain> = None;
        for bytes in &pending.records {
            let record = SealedRecord::parse(bytes).unwrap();
            match &mut chain {
                None => chain = Some(Chain::starting_at(&record)),
                Some(chain) => chain.advance(&record).unwrap(),
            }
            found.push(record);
        }
    }
    found
}

#[test]
fn on_a_disk_that_is_full_nothing_is_granted_and_what_takes_away_is_recorded() {
    let Some(disk) =
        disk("on_a_disk_that_is_full_nothing_is_granted_and_what_takes_away_is_recorded")
    else {
        return;
    };
    let mut journal = open(&disk, 1).unwrap();
    let mut granted = 0;
    let refused = loop {
        match journal.append(event(EventKind::BindOpened, granted), at(0)) {
            Ok(_) => granted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full), "{refused}");
    assert!(granted > 1_000, "{granted}");
    let cuts = 300;
    for n in 0..cuts {
        journal
            .append(event(EventKind::CutEffected, n), at(0))
            .unwrap();
    }
    // A restart on the full disk opens, sends all that there is, and grants nothing.
    drop(journal);
    let mut journal = open(&disk, 2).unwrap();
    let refused = journal.append(event(EventKind::BindOpened, 0), at(0));
    assert!(matches!(refused, Err(JournalError::Full)));
    let records = all(&mut journal);
    let count = |kind| {
        let of_kind = records.iter().filter(|record| record.event().kind == kind);
        of_kind.count()
    };
    assert_eq!(
        (count(EventKind::BindOpened), count(EventKind::CutEffected)),
        (granted, cuts)
    );
    assert!(count(EventKind::JournalLost) > 0);
    // The cloud has it all: there is room again, and the reserve is back.
    let end = records.last().unwrap().record().clone();
    for boot in [1, 2] {
        let boot = BootId::from_bytes([boot; 16]);
        let next = if boot == end.boot {
            end.seq + 1
        } else {
            u64::MAX
        };
        journal.acknowledge(boot, next).unwrap();
    }
    journal
        .append(event(EventKind::BindOpened, 1), at(60))
        .unwrap();
    assert!(disk.join("journal/reserve").exists());
}

#[test]
fn a_read_only_disk_is_no_damage_and_nothing_on_it_is_touched() {
    let Some(disk) = disk("a_read_only_disk_is_no_damage_and_nothing_on_it_is_touched") else {
        return;
    };
    let remount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(&disk);
        assert!(command.status().unwrap().success());
    };
    let mut journal = open(&disk, 1).unwrap();
    journal
        .append(event(EventKind::BindOpened, 1), at(0))
        .unwrap();
    drop(journal);
    let files = || {
        let mut files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(disk.join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    remount("remount,ro");
    let refused = open(&disk, 2).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Storage(_))), "{refused:?}");
    assert_eq!(files(), before);
    remount("remount,rw");
    let mut journal = open(&disk, 1).unwrap();
    journal
        .append(event(EventKind::CutEffected, 2), at(0))
        .unwrap();
    let kinds: Vec<EventKind> = all(&mut journal)
        .iter()
        .map(|record| record.event().kind)
        .collect();
    let expected = [
        EventKind::JournalOpened,
        EventKind::BindOpened,
        EventKind::CutEffected,
    ];
    assert_eq!(kinds, expected);
}
