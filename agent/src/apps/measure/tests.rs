use edgeward_evidence::app_log::{AppLog, AppState, MAX_RECORDS};

use super::ledger::MAX_DENIALS;
use super::*;
use crate::logs::LogPaths;
use crate::root::fake::FakeRoot;

const PCR: u8 = 14;

/// A node whose TPM is a map, and the folder of its boot.
struct Node {
    root: Arc<FakeRoot>,
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self {
            root: Arc::new(FakeRoot::new(1)),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A start of the agent.
    async fn start(&self) -> Measure {
        let absent = LogPaths {
            boot: self.folder.path().join("absent"),
            ima: self.folder.path().join("absent"),
        };
        let logs = Arc::new(LogReader::new(absent));
        let measure = Measure::new(self.root.clone(), logs, self.folder.path().to_owned());
        measure.set_pcr(Some(PCR)).await.unwrap();
        measure
    }

    fn value(&self) -> [u8; 32] {
        self.root.pcrs.lock().get(&PCR).copied().unwrap_or_default()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("apps-pcr14.log")
    }

    /// What the cloud makes of what is sent, from the beginning.
    async fn followed(&self, measure: &Measure) -> AppState {
        let part = measure.part(PCR, 0, &self.value()).await;
        assert_eq!(part.missing, "");
        AppState::new(u32::from(PCR), [0; 32])
            .follow(part.first, &part.records, &self.value())
            .unwrap()
    }

    async fn runs(&self, measure: &Measure) -> Vec<String> {
        let followed = self.followed(measure).await;
        assert!(followed.reached(&self.value()));
        followed.runs().unwrap().into_keys().collect()
    }
}

fn app(name: &str) -> App {
    App {
        publisher: "acme".to_owned(),
        name: name.to_owned(),
        version: "2.3.1".to_owned(),
        digest: hex::encode([7; 32]),
    }
}

fn denied(number: usize) -> Happened {
    Happened::Denied {
        digest: format!("{number:064x}"),
    }
}

#[tokio::test]
async fn what_the_tpm_does_not_take_is_an_error_and_the_next_try_makes_up_for_it() {
    let node = Node::new();
    let measure = node.start().await;
    let first = measure.record(Happened::Started(app("a"))).await.unwrap();
    assert_eq!(first, Proof::Measured);
    *node.root.busy.lock() = true;
    let refused = measure.record(Happened::Started(app("b"))).await;
    assert_eq!(refused.unwrap_err().code(), "apps_log_tpm");
    // It was on disk already: the TPM gets it first, and then it is not new.
    let again = measure.record(Happened::Started(app("b"))).await.unwrap();
    assert_eq!(again, Proof::Known);
    assert_eq!(node.runs(&measure).await, ["acme/a", "acme/b"]);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_lets_nothing_be_started() {
    let node = Node::new();
    let measure = node.start().await;
    std::fs::create_dir(node.file()).unwrap();
    let refused = measure.record(Happened::Started(app("a"))).await;
    assert_eq!(refused.unwrap_err().code(), "apps_log_unwritable");
    assert_eq!(node.value(), [0; 32], "nothing was extended");
    std::fs::remove_dir(node.file()).unwrap();
    let measured = measure.record(Happened::Started(app("a"))).await.unwrap();
    assert_eq!(measured, Proof::Measured);
    assert_eq!(node.runs(&measure).await, ["acme/a"]);
}

#[tokio::test]
async fn an_agent_that_starts_again_goes_on_with_its_log_wherever_it_was_killed() {
    let node = Node::new();
    let measure = node.start().await;
    for name in ["a", "b"] {
        measure.record(Happened::Started(app(name))).await.unwrap();
    }
    let two = std::fs::read(node.file()).unwrap();
    let size = two.len() / 2;
    // Killed before the third record, within it, and between it and the TPM.
    let mut three = AppLog::parse(&two, u32::from(PCR)).unwrap();
    let event = edgeward_evidence::app_log::Event {
        happened: Happened::Started(app("c")),
        level: String::new(),
    };
    three.append(u32::from(PCR), &event).unwrap();
    for (end, runs) in [(2 * size, 2), (2 * size + 40, 2), (3 * size, 3)] {
        std::fs::write(node.file(), &three.bytes()[..end]).unwrap();
        let again = node.start().await;
        assert_eq!(node.runs(&again).await.len(), runs, "{end}");
        assert_eq!(std::fs::read(node.file()).unwrap().len(), runs * size);
    }
    let again = node.start().await;
    let known = again.record(Happened::Started(app("c"))).await.unwrap();
    assert_eq!(known, Proof::Known);
}

#[tokio::test]
async fn after_a_boot_nothing_of_the_log_before_it_is_told() {
    let node = Node::new();
    let measure = node.start().await;
    measure.record(Happened::Started(app("a"))).await.unwrap();
    // The folder is not in RAM.
    node.root.pcrs.lock().clear();
    let again = node.start().await;
    assert!(node.runs(&again).await.is_empty());
    again.record(Happened::Started(app("b"))).await.unwrap();
    assert_eq!(node.runs(&again).await, ["acme/b"]);
}

#[tokio::test]
async fn where_somebody_else_extended_the_pcr_nothing_is_proved_and_nothing_held_up() {
    let node = Node::new();
    let measure = node.start().await;
    measure.record(Happened::Started(app("a"))).await.unwrap();
    node.root.extend(PCR, [9; 32]).await.unwrap();
    let again = node.start().await;
    let unproven = again.record(Happened::Started(app("b"))).await.unwrap();
    assert_eq!(unproven, Proof::None);
    let followed = node.followed(&again).await;
    assert!(!followed.reached(&node.value()));
    // And a log that was taken away.
    std::fs::remove_file(node.file()).unwrap();
    let again = node.start().await;
    assert!(!node.followed(&again).await.reached(&node.value()));
}

#[tokio::test]
async fn without_a_pcr_or_a_tpm_nothing_is_measured_and_nothing_held_up() {
    let node = Node::new();
    let measure = node.start().await;
    measure.set_pcr(None).await.unwrap();
    let unproven = measure.record(Happened::Started(app("a"))).await.unwrap();
    assert_eq!(unproven, Proof::None);
    assert_eq!(node.value(), [0; 32]);
    let root = crate::root::SoftwareRoot::new(&node.folder.path().join("keys"));
    let logs = Arc::new(LogReader::new(LogPaths::default()));
    let software = Measure::new(Arc::new(root), logs, node.folder.path().to_owned());
    software.set_pcr(Some(PCR)).await.unwrap();
    let unproven = software.record(Happened::Started(app("a"))).await.unwrap();
    assert_eq!(unproven, Proof::None);
}

#[tokio::test]
async fn each_thing_is_told_once_and_a_release_that_comes_back_again() {
    let node = Node::new();
    let measure = node.start().await;
    let newer = App {
        version: "2.4.0".to_owned(),
        digest: hex::encode([8; 32]),
        ..app("a")
    };
    let started = |app: &App| Happened::Started(app.clone());
    let steps = [
        (Happened::Installed(app("a")), Proof::Measured),
        (Happened::Installed(app("a")), Proof::Known),
        (started(&app("a")), Proof::Measured),
        (started(&app("a")), Proof::Known),
        (started(&newer), Proof::Measured),
        (Happened::Stopped(app("a")), Proof::Known),
        (started(&app("a")), Proof::Measured),
        (Happened::Revoked(app("a")), Proof::Measured),
        (Happened::Revoked(app("a")), Proof::Known),
        (Happened::Stopped(app("a")), Proof::Known),
        (started(&app("a")), Proof::Measured),
        (Happened::Revoked(app("a")), Proof::Measured),
    ];
    for (number, (step, proof)) in steps.into_iter().enumerate() {
        assert_eq!(measure.record(step).await.unwrap(), proof, "{number}");
    }
    assert!(node.runs(&measure).await.is_empty());
}

#[tokio::test]
async fn denials_leave_room_for_what_runs_and_a_full_log_says_that_it_is() {
    let node = Node::new();
    let measure = node.start().await;
    for number in 0..MAX_DENIALS + 50 {
        measure.record(denied(number)).await.unwrap();
    }
    let followed = node.followed(&measure).await;
    assert_eq!(followed.denied(), MAX_DENIALS);
    assert_eq!(followed.records(), MAX_DENIALS + 1);
    let mut proof = Proof::Measured;
    for number in 0..MAX_RECORDS {
        let app = app(&format!("a{number}"));
        proof = measure.record(Happened::Started(app)).await.unwrap();
    }
    assert_eq!(proof, Proof::None);
    let followed = node.followed(&measure).await;
    assert_eq!(followed.records(), MAX_RECORDS);
    assert!(followed.reached(&node.value()));
    assert_eq!(followed.runs(), None);
    let again = node.start().await;
    let silent = again.record(Happened::Started(app("b"))).await.unwrap();
    assert_eq!(silent, Proof::None);
    assert_eq!(node.followed(&again).await.records(), MAX_RECORDS);
}

#[tokio::test]
async fn a_level_is_measured_when_it_changes_and_evidence_says_the_last() {
    let node = Node::new();
    let measure = node.start().await;
    for level in ["fanotify", "fanotify", "launcher"] {
        measure.set_level(level).await.unwrap();
    }
    assert_eq!(measure.level(), "launcher");
    let followed = node.followed(&measure).await;
    assert_eq!(
        (followed.records(), followed.level()),
        (2, Some("launcher"))
    );
    // Nobody has looked yet: that is no change.
    let again = node.start().await;
    again.record(Happened::Started(app("a"))).await.unwrap();
    again.set_level("launcher").await.unwrap();
    let followed = node.followed(&again).await;
    assert_eq!(
        (followed.records(), followed.level()),
        (3, Some("launcher"))
    );
}

#[tokio::test]
async fn another_pcr_gets_all_that_runs_and_its_own_log() {
    let node = Node::new();
    let measure = node.start().await;
    measure.set_level("fanotify").await.unwrap();
    measure.record(Happened::Started(app("a"))).await.unwrap();
    measure.record(Happened::Started(app("b"))).await.unwrap();
    measure.record(Happened::Stopped(app("b"))).await.unwrap();
    measure.set_pcr(Some(15)).await.unwrap();
    let now = node.root.pcrs.lock()[&15];
    let part = measure.part(15, 0, &now).await;
    let followed = AppState::new(15, [0; 32])
        .follow(part.first, &part.records, &now)
        .unwrap();
    assert!(followed.reached(&now));
    assert_eq!(followed.level(), Some("fanotify"));
    let runs: Vec<String> = followed.runs().unwrap().into_keys().collect();
    assert_eq!(runs, ["acme/a"]);
    assert_eq!(
        measure.part(PCR, 0, &node.value()).await,
        v1::AppsPart::default()
    );
}

#[tokio::test]
async fn only_what_the_cloud_does_not_know_is_sent_and_only_up_to_the_quote() {
    let node = Node::new();
    let measure = node.start().await;
    let mut values = vec![node.value()];
    for name in ["a", "b", "c"] {
        measure.record(Happened::Started(app(name))).await.unwrap();
        values.push(node.value());
    }
    let size = std::fs::read(node.file()).unwrap().len() / 3;
    for (known, quoted, first, records) in [
        (0, 3, 0, 3),
        (0, 1, 0, 1),
        (2, 3, 2, 1),
        (3, 3, 3, 0),
        (3, 2, 3, 0),
        (9, 3, 0, 3),
    ] {
        let part = measure.part(PCR, known, &values[quoted]).await;
        let sent = (part.first, part.records.len() / size);
        assert_eq!(sent, (first, records), "{known} {quoted}");
    }
}
