//! The state folder on a real TPM: what a thief of the disk, or somebody with an old copy of it, gets.

use std::path::Path;

use edgeward_agent::root::{Root, TpmRoot};
use edgeward_agent::state::{Blob, FileError, Found, Recent, StateError, StateFolder, Stored};
use edgeward_agent::tpm::{EkChoice, SvidSlot};
use edgeward_agent::view::CutFloors;
use edgeward_identity::{BootTime, Timestamp};

use super::swtpm::{Swtpm, installed};

async fn root(swtpm: &Swtpm) -> TpmRoot {
    TpmRoot::open(swtpm.open(), EkChoice::P256).await.unwrap()
}

fn stored(address: &str) -> Stored {
    Stored {
        node: "spiffe://plant.example/node/a".parse().unwrap(),
        addresses: vec![address.to_owned()],
        slot: SvidSlot::A,
        svid_chain: Vec::new(),
        trust_bundle: Blob::default(),
        key_set: Blob::default(),
        deny_list: Blob::default(),
        slice: Blob::default(),
        v4: None,
        peers: Vec::new(),
        cuts: CutFloors::default(),
        join: 0,
        glass: Default::default(),
        apps: Default::default(),
    }
}

fn recent() -> Recent {
    Recent::at(
        Timestamp::from_secs(1_800_000_000),
        "one",
        BootTime::default(),
    )
}

async fn open(path: &Path, root: &dyn Root) -> Result<Found, StateError> {
    StateFolder::open(path, root).await.map(|(_, found)| found)
}

#[tokio::test]
async fn the_state_is_sealed_to_its_tpm_and_an_older_one_is_found_out() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let tpm = root(&swtpm).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut state, _) = StateFolder::open(folder.path(), &tpm).await.unwrap();
    state
        .write_new_epoch(&tpm, &stored("old:1"), &recent())
        .await
        .unwrap();
    let files = ["held", "recent"].map(|name| folder.path().join(name));
    let old = files.each_ref().map(|path| std::fs::read(path).unwrap());
    state
        .write_new_epoch(&tpm, &stored("new:1"), &recent())
        .await
        .unwrap();
    drop((state, tpm));

    swtpm.power_cut();
    swtpm.power_on();
    let tpm = root(&swtpm).await;
    let found = open(folder.path(), &tpm).await.unwrap();
    assert_eq!(found.held, Some(stored("new:1")));
    assert!(!found.rolled_back);

    for (path, bytes) in files.iter().zip(&old) {
        std::fs::write(path, bytes).unwrap();
    }
    assert!(open(folder.path(), &tpm).await.unwrap().rolled_back);

    let mut altered = old[0].clone();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0], altered).unwrap();
    assert!(matches!(
        open(folder.path(), &tpm).await,
        Err(StateError::File(FileError::Altered { .. }))
    ));

    let other = Swtpm::start();
    assert!(matches!(
        open(folder.path(), &root(&other).await).await,
        Err(StateError::ForeignKey { .. })
    ));
}
