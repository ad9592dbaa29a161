use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgeward_apps::Digest;
use edgeward_evidence::app_log::AppState;
use edgeward_identity::Tier;
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_policy as policy;

use super::*;
use crate::logs::{LogPaths, LogReader};
use crate::root::fake::FakeRoot;
use crate::workload::testing::FakeAuthority;
use crate::workload::tests::{holding, slice};

const PCR: u8 = 14;
/// Says to this program that it runs in namespaces of its own.
const INSIDE: &str = "EDGEWARD_TEST_INSIDE";

/// A slice whose profile measures applications.
fn measured() -> Arc<crate::view::HeldSlice> {
    let mut held = slice(1, &[]).as_ref().clone();
    held.slice.profiles.push(policy::Profile {
        name: "gateway".to_owned(),
        tiers: vec![Tier::Hardware],
        bank: policy::PcrBank::Sha256,
        pcrs: BTreeMap::from([(7, vec!["00".repeat(32)])]),
        firmware_deny: vec![],
        secure_boot: None,
        ima: None,
        app_control: None,
        apps_pcr: Some(PCR),
        mode: policy::Mode::Enforce,
        fresh: None,
        offline: None,
    });
    Arc::new(held)
}

/// The control groups of one test; they go with it.
struct Groups(PathBuf);

impl Groups {
    fn new() -> Self {
        let parent = PathBuf::from(format!(
            "/sys/fs/cgroup/edgeward-rights-{}",
            std::process::id()
        ));
        std::fs::create_dir(&parent).unwrap();
        std::fs::create_dir(parent.join("a")).unwrap();
        Self(parent)
    }

    fn app(&self) -> Running {
        Running {
            app: "acme/a".parse().unwrap(),
            version: "2.3.1".parse().unwrap(),
            manifest: Digest::of(b"manifest"),
            entry: Digest::of(b"entry"),
            files: Arc::new(BTreeSet::from([Digest::of(b"entry")])),
            cgroup: self.0.join("a"),
            uid: 61_184,
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.0.join("a"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whether the kernel's table lets this group send at all.
fn is_let_in(group: &Path) -> bool {
    let listed = Command::new("nft").args(["list", "ruleset"]).output();
    let text = String::from_utf8(listed.unwrap().stdout).unwrap();
    let name = group.strip_prefix("/sys/fs/cgroup").unwrap();
    text.contains(&format!("\"{}\" : goto app", name.display()))
}

#[tokio::test]
async fn nothing_is_had_that_was_not_measured_and_all_of_it_is_taken_before_the_end() {
    if std::env::var_os(INSIDE).is_none() {
        return run_inside(
            "nothing_is_had_that_was_not_measured_and_all_of_it_is_taken_before_the_end",
        );
    }
    let groups = Groups::new();
    let running = groups.app();
    let clock = TurnedClock::at(TEST_NOW);
    let authority = FakeAuthority::new(TestAuthority::new("plant.example"), clock.clone());
    let (_publisher, view) = holding(&authority, clock, measured());
    let root = Arc::new(FakeRoot::new(1));
    let folder = tempfile::tempdir().unwrap();
    let absent = LogPaths {
        boot: folder.path().join("absent"),
        ima: folder.path().join("absent"),
    };
    let logs = Arc::new(LogReader::new(absent));
    let measure = Measure::new(root.clone(), logs, folder.path().to_owned());
    let tunnel = "edgeward0".parse().unwrap();
    let egress = Egress::new(view.clone(), tunnel, groups.0.clone(), None);
    let (launched_to, launched) = watch::channel(Arc::default());
    let rights = AppRights::new(view, measure.clone(), egress, launched_to);

    *root.busy.lock() = true;
    let refused = rights.grant(&running).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("measurement: "),
        "{refused}"
    );
    assert!(launched.borrow().is_empty() && !is_let_in(&running.cgroup));

    rights.grant(&running).await.unwrap();
    let known = launched.borrow().clone();
    assert_eq!(known.len(), 1);
    let group = running.cgroup.strip_prefix("/sys/fs/cgroup").unwrap();
    assert_eq!(known[0].cgroup, format!("/{}", group.display()));
    assert_eq!(
        (known[0].uid, known[0].facts.name.as_str()),
        (61_184, "acme/a")
    );
    assert!(is_let_in(&running.cgroup));
    assert_eq!(runs(&root, &measure).await, ["acme/a"]);

    // It still runs, so it is still measured; but it has nothing.
    rights.withdraw(&running.app).await;
    assert!(launched.borrow().is_empty() && !is_let_in(&running.cgroup));
    assert_eq!(runs(&root, &measure).await, ["acme/a"]);
    // A crash is no end.
    rights.ended(&running.app, false).await;
    assert_eq!(runs(&root, &measure).await, ["acme/a"]);
    rights.ended(&running.app, true).await;
    assert_eq!(runs(&root, &measure).await, [""; 0]);

    // A group that is not one of ours is given nothing.
    let elsewhere = Running {
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        ..running
    };
    assert!(rights.grant(&elsewhere).await.is_err());
    assert!(launched.borrow().is_empty());
}

async fn runs(root: &FakeRoot, measure: &Measure) -> Vec<String> {
    let value = root.pcrs.lock()[&PCR];
    let part = measure.part(PCR, 0, &value).await;
    let followed = AppState::new(u32::from(PCR), [0; 32])
        .follow(part.first, &part.records, &value)
        .unwrap();
    assert!(followed.reached(&value));
    followed.runs().unwrap().into_keys().collect()
}

/// This test once more, with a network and a view of control groups that are its own.
fn run_inside(test: &str) {
    let script =
        "mount -t cgroup2 none /sys/fs/cgroup && exec timeout -s KILL 60 \"$0\" --exact \"$1\"";
    let status = Command::new("unshare")
        .args(["-n", "-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("apps::rights::tests::{test}"))
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// The table outlives an agent; what it let in, the next one must be able to take.
#[tokio::test]
async fn what_an_agent_before_let_in_is_withdrawn_by_the_next() {
    if std::env::var_os(INSIDE).is_none() {
        return run_inside("what_an_agent_before_let_in_is_withdrawn_by_the_next");
    }
    let groups = Groups::new();
    let running = groups.app();
    let clock = TurnedClock::at(TEST_NOW);
    let authority = FakeAuthority::new(TestAuthority::new("plant.example"), clock.clone());
    let (_publisher, view) = holding(&authority, clock, measured());
    let egress = || {
        let tunnel = "edgeward0".parse().unwrap();
        Egress::new(view.clone(), tunnel, groups.0.clone(), None)
    };
    let before = egress();
    before
        .admit(&running.app, running.cgroup.clone())
        .await
        .unwrap();
    drop(before);
    assert!(is_let_in(&running.cgroup), "it stays in");
    egress().withdraw(&running.app).await.unwrap();
    assert!(!is_let_in(&running.cgroup));
}
