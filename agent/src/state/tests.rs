use super::*;
use std::time::Duration;

use crate::root::fake::FakeRoot;
use crate::tpm::SvidSlot;
use crate::view::CutFloors;

fn stored(address: &str) -> Stored {
    Stored {
        node: "spiffe://plant.example/node/a".parse().unwrap(),
        addresses: vec![address.to_owned()],
        slot: SvidSlot::A,
        svid_chain: Vec::new(),
        trust_bundle: held::Blob::default(),
        key_set: held::Blob::default(),
        deny_list: held::Blob::default(),
        slice: held::Blob::default(),
        v4: None,
        peers: Vec::new(),
        cuts: CutFloors::default(),
        join: 0,
        glass: Default::default(),
        apps: Default::default(),
    }
}

fn recent(seconds: u64) -> Recent {
    Recent {
        floor: Timestamp::from_secs(seconds),
        kernel_boot: "one".to_owned(),
        boot_millis: 10_000,
        ..Recent::default()
    }
}

async fn reopen(path: &Path, root: &FakeRoot) -> Result<Found, StateError> {
    StateFolder::open(path, root).await.map(|(_, found)| found)
}

#[tokio::test]
async fn an_altered_byte_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeRoot::new(1);
    let (mut state, _) = StateFolder::open(folder.path(), &root).await.unwrap();
    state
        .write_new_epoch(&root, &stored("c:1"), &recent(5))
        .await
        .unwrap();
    for name in [HELD, RECENT] {
        let path = folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(
                matches!(
                    reopen(folder.path(), &root).await,
                    Err(StateError::File(FileError::Altered { .. }))
                ),
                "{name} {at}"
            );
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(reopen(folder.path(), &root).await.is_err());
        std::fs::write(&path, &good).unwrap();
    }
    // One file does not pass for the other.
    std::fs::copy(folder.path().join(RECENT), folder.path().join(HELD)).unwrap();
    assert!(reopen(folder.path(), &root).await.is_err());
}

#[tokio::test]
async fn the_state_of_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, _) = StateFolder::open(folder.path(), &FakeRoot::new(1))
        .await
        .unwrap();
    state.write_held(&stored("c:1")).unwrap();
    assert!(matches!(
        reopen(folder.path(), &FakeRoot::new(2)).await,
        Err(StateError::ForeignKey { .. })
    ));
}

#[tokio::test]
async fn an_older_state_is_found_out_and_a_crash_before_the_raise_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeRoot::new(1);
    let (mut state, found) = StateFolder::open(folder.path(), &root).await.unwrap();
    assert!(found.held.is_none() && !found.rolled_back);
    state
        .write_new_epoch(&root, &stored("old:1"), &recent(5))
        .await
        .unwrap();
    let old: Vec<(PathBuf, Vec<u8>)> = [HELD, RECENT]
        .iter()
        .map(|name| folder.path().join(name))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert!(!reopen(folder.path(), &root).await.unwrap().rolled_back);
    state
        .write_new_epoch(&root, &stored("new:1"), &recent(6))
        .await
        .unwrap();
    assert_eq!(
        reopen(folder.path(), &root).await.unwrap().held,
        Some(stored("new:1"))
    );

    // The power fails after the files are written and before the counter is raised.
    let raised = *root.epoch.lock();
    *root.epoch.lock() = raised - 1;
    let (mut state, found) = StateFolder::open(folder.path(), &root).await.unwrap();
    assert!(!found.rolled_back);
    state
        .write_new_epoch(&root, &stored("newer:1"), &recent(7))
        .await
        .unwrap();
    assert!(!reopen(folder.path(), &root).await.unwrap().rolled_back);

    for (path, bytes) in old {
        std::fs::write(path, bytes).unwrap();
    }
    assert!(reopen(folder.path(), &root).await.unwrap().rolled_back);
}

#[tokio::test]
async fn a_floor_older_than_the_rest_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeRoot::new(1);
    let (mut state, _) = StateFolder::open(folder.path(), &root).await.unwrap();
    state
        .write_new_epoch(&root, &stored("c:1"), &recent(5))
        .await
        .unwrap();
    let old = std::fs::read(folder.path().join(RECENT)).unwrap();
    state
        .write_new_epoch(&root, &stored("c:1"), &recent(6))
        .await
        .unwrap();
    std::fs::write(folder.path().join(RECENT), old).unwrap();
    assert_eq!(reopen(folder.path(), &root).await.unwrap().recent, None);
}

fn found(recent: Option<Recent>, rolled_back: bool) -> Found {
    Found {
        held: Some(stored("c:1")),
        recent,
        rolled_back,
    }
}

#[test]
fn nothing_is_granted_on_a_clock_behind_the_floor_an_old_state_or_no_floor() {
    let (early, late) = (Timestamp::from_secs(99), Timestamp::from_secs(101));
    let at = BootTime::from_duration(Duration::from_secs(3));
    let judge = |found, now| judge(&found, &clocks("two", now, at, None)).0;
    assert_eq!(
        judge(found(Some(recent(100)), false), early),
        Standing::Held(Hold::ClockBehindFloor)
    );
    assert_eq!(
        judge(found(Some(recent(100)), true), late),
        Standing::Held(Hold::StateRolledBack)
    );
    assert_eq!(
        judge(found(None, false), late),
        Standing::Held(Hold::NoFloor)
    );
    assert_eq!(
        judge(found(Some(recent(100)), false), late),
        Standing::Granting
    );
}

#[test]
fn within_one_boot_time_goes_on_by_the_boot_clock_whatever_the_wall_clock_says() {
    let at = BootTime::from_duration(Duration::from_secs(30));
    let found = found(Some(recent(100)), false);
    let (standing, anchor) = judge(&found, &clocks("one", Timestamp::from_secs(0), at, None));
    assert_eq!(standing, Standing::Granting);
    assert_eq!(anchor.time, Timestamp::from_secs(120));
    assert_eq!(anchor.at, at);
}

fn clocks<'a>(
    kernel_boot: &'a str,
    wall: Timestamp,
    boottime: BootTime,
    tpm: Option<ClockInfo>,
) -> Clocks<'a> {
    Clocks {
        kernel_boot,
        boottime,
        wall,
        tpm,
    }
}

fn tpm_clock(seconds: u64, reset_count: u32, safe: bool) -> ClockInfo {
    ClockInfo {
        clock_ms: seconds * 1000,
        reset_count,
        restart_count: 0,
        safe,
    }
}

#[test]
fn the_tpms_clock_finds_a_wall_clock_that_was_turned_back_to_after_the_stored_floor() {
    let at = BootTime::from_duration(Duration::from_secs(3));
    let mut stored = recent(1000);
    stored.signed = Some(SignedTime {
        time: Timestamp::from_secs(1000),
        tpm: tpm_clock(50, 7, true),
    });
    let judge = |wall, tpm| {
        let found = found(Some(stored.clone()), false);
        judge(&found, &clocks("two", Timestamp::from_secs(wall), at, tpm))
    };
    // 11,500 s on a clock that may be 15 percent fast are at least 10,000 s.
    let later = Some(tpm_clock(50 + 11_500, 8, true));
    let (standing, anchor) = judge(10_999, later);
    assert_eq!(standing, Standing::Held(Hold::ClockBehindFloor));
    assert_eq!(anchor.time, Timestamp::from_secs(11_000));
    assert_eq!(judge(11_001, later).0, Standing::Granting);

    for says_nothing in [
        None,
        Some(tpm_clock(50 + 11_500, 8, false)),
        Some(tpm_clock(50 + 11_500, 6, true)),
        Some(tpm_clock(49, 8, true)),
    ] {
        let (standing, anchor) = judge(1001, says_nothing);
        assert_eq!(standing, Standing::Granting, "{says_nothing:?}");
        assert_eq!(anchor.time, Timestamp::from_secs(1000));
        assert_ne!(judge(999, says_nothing).0, Standing::Granting);
    }
}

#[test]
fn a_floor_of_an_earlier_version_is_read() {
    let mut old = serde_json::to_value(recent(5)).unwrap();
    old.as_object_mut().unwrap().remove("signed").unwrap();
    assert_eq!(serde_json::from_value::<Recent>(old).unwrap(), recent(5));
}

/// As an agent wrote it that knew nothing of joins, broken glass and applications.
const OLDER: &str = r#"{
    "node": "spiffe://plant.example/node/a", "addresses": ["c:1"], "slot": "a", "svid_chain": [],
    "trust_bundle": "", "key_set": "", "deny_list": "", "slice": "", "v4": null, "peers": [],
    "cuts": { "number": 0, "floors": {} }
}"#;

#[tokio::test]
async fn the_state_of_an_older_agent_is_read_and_what_it_did_not_know_begins_at_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeRoot::new(1);
    let (state, _) = StateFolder::open(folder.path(), &root).await.unwrap();
    let older: serde_json::Value = serde_json::from_str(OLDER).unwrap();
    let epoch = state.epoch;
    state.held.write(epoch, &older).unwrap();
    state.write_recent(&recent(5)).unwrap();
    let found = reopen(folder.path(), &root).await.unwrap();
    assert!(!found.rolled_back);
    assert_eq!(found.held, Some(stored("c:1")));
    let apps = found.held.unwrap().apps;
    assert!(!apps.taken.joined, "the director says how high it was");

    // The other way round nothing is guessed: what this agent does not know may be what must not be lost.
    let mut newer = older;
    newer["tomorrow"] = serde_json::json!({});
    state.held.write(epoch, &newer).unwrap();
    let refused = reopen(folder.path(), &root).await;
    assert!(refused.is_err(), "{refused:?}");
}
