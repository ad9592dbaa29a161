//! Applications measured into a real TPM: the log, the PCR and a power cut.

use std::sync::Arc;

use edgeward_agent::apps::measure::{Measure, Proof};
use edgeward_agent::logs::{LogPaths, LogReader};
use edgeward_agent::root::{Root, TpmRoot};
use edgeward_agent::tpm::{EkChoice, pcr};
use edgeward_evidence::app_log::{App, AppState, Happened};

use super::call;
use super::swtpm::{Swtpm, installed};

const PCR: u8 = 14;

fn started(name: &str) -> Happened {
    Happened::Started(App {
        publisher: "acme".to_owned(),
        name: name.to_owned(),
        version: "2.3.1".to_owned(),
        digest: "ab".repeat(32),
    })
}

/// A start of the agent, with the TPM as it is.
async fn begin(swtpm: &Swtpm, folder: &std::path::Path) -> (Arc<TpmRoot>, Measure) {
    let root = Arc::new(TpmRoot::open(swtpm.open(), EkChoice::P256).await.unwrap());
    let absent = LogPaths {
        boot: folder.join("absent"),
        ima: folder.join("absent"),
    };
    let logs = Arc::new(LogReader::new(absent));
    let measure = Measure::new(root.clone(), logs, folder.to_owned());
    measure.set_pcr(Some(PCR)).await.unwrap();
    (root, measure)
}

/// What the log replays to, held against the PCR itself.
async fn runs(root: &TpmRoot, measure: &Measure) -> Option<Vec<String>> {
    let value = root.pcr(PCR).await.unwrap().unwrap();
    let part = measure.part(PCR, 0, &value).await;
    let followed = AppState::new(u32::from(PCR), [0; 32])
        .follow(part.first, &part.records, &value)
        .unwrap();
    let runs = followed.runs()?;
    followed.reached(&value).then(|| runs.into_keys().collect())
}

#[tokio::test]
async fn what_is_measured_replays_to_what_the_tpm_holds_through_restarts_and_a_power_cut() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let folder = tempfile::tempdir().unwrap();
    {
        let (root, measure) = begin(&swtpm, folder.path()).await;
        assert_eq!(root.pcr(PCR).await.unwrap(), Some([0; 32]));
        for name in ["a", "b"] {
            let proof = measure.record(started(name)).await.unwrap();
            assert_eq!(proof, Proof::Measured);
        }
        assert_eq!(runs(&root, &measure).await.unwrap(), ["acme/a", "acme/b"]);
    }
    // The agent starts again, and goes on.
    {
        let (root, measure) = begin(&swtpm, folder.path()).await;
        assert_eq!(measure.record(started("a")).await.unwrap(), Proof::Known);
        measure.record(started("c")).await.unwrap();
        assert_eq!(runs(&root, &measure).await.unwrap().len(), 3);
    }
    // A boot: the PCR begins anew, whatever lies in the folder.
    swtpm.power_cut();
    swtpm.power_on();
    let (root, measure) = begin(&swtpm, folder.path()).await;
    assert_eq!(runs(&root, &measure).await.unwrap(), [""; 0]);
    measure.record(started("d")).await.unwrap();
    assert_eq!(runs(&root, &measure).await.unwrap(), ["acme/d"]);
    // Somebody else extends it: nothing proves what runs any more.
    root.extend(PCR, [9; 32]).await.unwrap();
    drop((root, measure));
    let (root, measure) = begin(&swtpm, folder.path()).await;
    assert_eq!(measure.record(started("e")).await.unwrap(), Proof::None);
    assert_eq!(runs(&root, &measure).await, None);
}

#[test]
fn pcrs_of_the_firmware_of_ima_and_those_that_can_be_reset_are_not_extended() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    for index in [0, 7, 10, 16, 17, 23, 24, 255] {
        let refused = call(&tpm, move |device| pcr::extend(device, index, [1; 32]));
        assert!(refused.is_err(), "{index}");
    }
    let before = call(&tpm, |device| pcr::read(device, 15)).unwrap();
    call(&tpm, |device| pcr::extend(device, 15, [1; 32])).unwrap();
    let after = call(&tpm, |device| pcr::read(device, 15)).unwrap();
    assert_ne!(before, after);
}
