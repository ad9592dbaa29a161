//! The machine on a turned clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::Director;
use edgeward_apps::admit::Deny;
use edgeward_apps::digest::Digest;
use edgeward_apps::manifest::{Chunk, Entry, EntryPoint, File, Manifest};
use edgeward_apps::name::AppName;
use edgeward_apps::testing::Published;
use edgeward_guard::control::{Ended, Order, Run};
use edgeward_identity::{BootTime, Timestamp};

use super::super::guard::Heard;
use super::super::launch::{Places, Running, Wanted, app_of_group, group_name};
use super::machine::{Input, MAX_WAIT, Machine, Note, Output, Stage};
use super::words::Words;
use crate::apps::testing::slice;
use crate::view::HeldSlice;

mod beside;
mod unsure;

const UNTIL: Timestamp = Timestamp::from_millis(1_000_000);

fn app() -> AppName {
    "acme/collector".parse().unwrap()
}

fn manifest(version: &str) -> Manifest {
    let digest = Digest::of(version.as_bytes());
    let file = File {
        digest,
        size: 1,
        executable: true,
        chunks: vec![Chunk { digest, size: 1 }],
    };
    let path: edgeward_apps::path::AppPath = "bin/collector".parse().unwrap();
    let entry = EntryPoint {
        path: path.clone(),
        args: vec!["--fast".to_owned()],
        env: BTreeMap::new(),
    };
    let entries = BTreeMap::from([(path, Entry::File(file))]);
    Manifest::new(app(), version.parse().unwrap(), entry, entries).unwrap()
}

fn wanted(version: &str) -> Wanted {
    Wanted {
        manifest: Arc::new(manifest(version)),
        digest: Digest::of(format!("manifest {version}").as_bytes()),
        tree: PathBuf::from("/volume/acme/collector").join(version),
        until: UNTIL,
        uid: 61_184,
    }
}

/// The director revoked release 1.0; the policy denies a file that is in it alone.
fn forbidding() -> [Input; 2] {
    [
        Input::Words(Words {
            director: Some(revoking(&[wanted("1.0").digest])),
            slice: None,
        }),
        Input::Words(Words {
            director: None,
            slice: Some(denying(Digest::of(b"1.0"))),
        }),
    ]
}

fn revoking(digests: &[Digest]) -> Arc<Director> {
    let mut published = Published::new();
    published.orders.denied.extend(digests);
    Arc::new(published.director())
}

/// Everything of the publisher may run but what has this file.
fn denying(digest: Digest) -> Arc<HeldSlice> {
    let mut rules = Published::new().rules;
    rules.deny.push(Deny::Digest { digest });
    slice(1, rules)
}

fn places() -> Places {
    Places {
        cgroup: PathBuf::from("/sys/fs/cgroup/apps"),
        state: PathBuf::from("/var/lib/edgeward-apps-state"),
        workload: None,
    }
}

fn run(version: &str) -> Run {
    Run {
        name: group_name(&app()),
        what: wanted(version).what(),
        pid: 4711,
        lacks: Vec::new(),
    }
}

fn set(version: &str) -> Input {
    Input::Want(BTreeMap::from([(app(), wanted(version))]))
}

fn ended(code: i32) -> Input {
    Input::Heard(Heard::Ended {
        name: group_name(&app()),
        how: Ended {
            code: Some(code),
            signal: None,
        },
    })
}

fn gone() -> Input {
    Input::Heard(Heard::Gone(group_name(&app())))
}

fn granted() -> Input {
    Input::Granted(app(), Ok(()))
}

fn make() -> Output {
    Output::Order(Order::Make {
        name: group_name(&app()),
    })
}

fn end() -> Output {
    Output::End(app())
}

/// A machine with a clock.
struct Turned {
    machine: Machine,
    now: Duration,
}

impl Turned {
    fn new() -> Self {
        Self {
            machine: Machine::new(places()),
            now: Duration::ZERO,
        }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let wall = Timestamp::from_millis(u64::try_from(self.now.as_millis()).unwrap());
        self.machine
            .step(input, wall, BootTime::from_duration(self.now))
    }

    fn later(&mut self, by: Duration) -> Vec<Output> {
        self.now += by;
        self.step(Input::Tick)
    }

    fn running(&self) -> Option<Running> {
        self.machine.running().remove(&app())
    }

    /// With the first version running.
    fn up() -> Self {
        let mut turned = Self::new();
        turned.step(Input::Heard(Heard::Here(Vec::new())));
        turned.step(set("1.0"));
        turned.goes_up("1.0");
        turned
    }

    /// From the order to make its group on.
    fn goes_up(&mut self, version: &str) {
        let asked = self.step(Input::Heard(Heard::Made(group_name(&app()))));
        assert!(matches!(asked.as_slice(), [Output::Grant(_)]), "{asked:?}");
        assert!(self.running().is_none(), "nothing was granted yet");
        let started = self.step(granted());
        assert!(
            matches!(started.as_slice(), [Output::Order(Order::Start(_))]),
            "{started:?}"
        );
        assert!(self.running().is_some(), "before it runs");
        self.step(Input::Heard(Heard::Started(run(version))));
        assert_eq!(self.machine.stages().get(&app()), Some(&Stage::Running));
    }
}

#[test]
fn nothing_is_started_without_a_guard_nor_without_what_it_needs() {
    let mut turned = Turned::new();
    assert!(turned.step(set("1.0")).is_empty());
    assert!(turned.later(MAX_WAIT).is_empty());
    let asked = turned.step(Input::Heard(Heard::Here(Vec::new())));
    assert_eq!(asked, [make()]);
    turned.step(Input::Heard(Heard::Made(group_name(&app()))));
    let refused = turned.step(Input::Granted(app(), Err("journal is full".to_owned())));
    assert_eq!(refused.first(), Some(&Output::Withdraw(app())));
    assert!(turned.running().is_none());
    assert!(
        !refused
            .iter()
            .any(|output| matches!(output, Output::Order(_)))
    );
    assert_eq!(turned.later(Duration::from_secs(1)), [make()]);
    turned.goes_up("1.0");
}

#[test]
fn an_application_whose_lease_is_over_neither_starts_nor_runs_on() {
    let mut turned = Turned::up();
    turned.now = Duration::from_millis(999_999);
    assert!(turned.step(Input::Tick).is_empty());
    let ended_by = turned.later(Duration::from_millis(1));
    assert_eq!(ended_by, [Output::Withdraw(app()), end()]);
    turned.step(ended(0));
    assert_eq!(
        turned.step(gone()),
        [Output::Ended {
            app: app(),
            lasting: true
        }]
    );
    assert!(turned.later(MAX_WAIT).is_empty());
    let mut renewed = wanted("1.0");
    renewed.until = Timestamp::from_millis(2_000_000);
    let again = turned.step(Input::Want(BTreeMap::from([(app(), renewed)])));
    assert_eq!(again, [make()]);
}

#[test]
fn what_it_may_is_withdrawn_before_it_is_ended_and_nobody_takes_it_for_running() {
    for input in [
        Input::Want(BTreeMap::new()),
        Input::End(app(), "app-denied"),
        set("1.1"),
    ] {
        let mut turned = Turned::up();
        assert_eq!(turned.step(input), [Output::Withdraw(app()), end()]);
        assert!(turned.running().is_none());
        assert!(turned.step(Input::Tick).is_empty());
    }
}

#[test]
fn what_was_said_ends_what_runs_whoever_wants_it_and_wants_it_again() {
    for input in forbidding() {
        let mut turned = Turned::up();
        assert_eq!(turned.step(input), [Output::Withdraw(app()), end()]);
        assert!(turned.running().is_none());
        // Whoever has not heard it yet wants it still.
        assert!(turned.step(set("1.0")).is_empty());
        let down = turned.step(ended(137));
        assert!(
            matches!(
                down.as_slice(),
                [Output::Note(Note::Down {
                    why: "app-denied",
                    ..
                })]
            ),
            "{down:?}"
        );
        turned.step(gone());
        assert!(turned.step(set("1.0")).is_empty());
        assert!(turned.later(MAX_WAIT).is_empty());
        assert!(turned.machine.stages().is_empty());
        // Another release may.
        assert_eq!(turned.step(set("1.1")), [make()]);
    }
}

#[test]
fn what_is_forbidden_while_it_is_granted_something_ends_and_does_not_wait_if_it_runs() {
    let [by_director, _] = forbidding();
    let mut coming = Turned::new();
    coming.step(Input::Heard(Heard::Here(Vec::new())));
    coming.step(set("1.0"));
    coming.step(Input::Heard(Heard::Made(group_name(&app()))));
    assert_eq!(coming.step(by_director), [Output::Withdraw(app())]);
    assert_eq!(coming.step(granted()), [Output::Withdraw(app()), end()]);

    let [by_director, _] = forbidding();
    let mut there = Turned::new();
    there.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    there.step(set("1.0"));
    assert_eq!(there.step(by_director), [Output::Withdraw(app()), end()]);
    there.step(ended(137));
    assert!(there.step(gone()).is_empty(), "the answer is on its way");
    assert_eq!(there.step(granted()), [Output::Withdraw(app()), end()]);
    there.step(gone());
    assert!(there.machine.stages().is_empty());
}

#[test]
fn what_an_agent_before_started_ends_by_the_word_before_anybody_wants_anything() {
    let [by_director, _] = forbidding();
    let mut heard_first = Turned::new();
    heard_first.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    assert_eq!(
        heard_first.step(by_director),
        [Output::Withdraw(app()), end()]
    );
    let [by_director, _] = forbidding();
    let mut said_first = Turned::new();
    assert!(said_first.step(by_director).is_empty());
    let here = Input::Heard(Heard::Here(vec![run("1.0")]));
    assert_eq!(said_first.step(here), [Output::Withdraw(app()), end()]);
    let other = Input::Heard(Heard::Here(vec![run("1.1")]));
    assert!(Turned::new().step(other).is_empty());
}

#[test]
fn another_release_starts_when_the_one_before_has_gone() {
    let mut turned = Turned::up();
    turned.step(set("1.1"));
    assert!(
        turned
            .step(ended(0))
            .iter()
            .all(|output| matches!(output, Output::Note(_)))
    );
    let next = turned.step(gone());
    assert_eq!(next.last(), Some(&make()));
    turned.goes_up("1.1");
    assert_eq!(turned.running().unwrap().version, "1.1".parse().unwrap());
}

#[test]
fn an_application_that_fails_again_and_again_is_tried_ever_more_rarely() {
    let mut turned = Turned::up();
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let failed = turned.step(ended(1));
        assert_eq!(failed.first(), Some(&Output::Withdraw(app())));
        assert!(failed.contains(&Output::Ended {
            app: app(),
            lasting: false
        }));
        assert!(
            turned
                .later(Duration::from_millis(wait * 1000 - 1))
                .is_empty()
        );
        assert_eq!(turned.later(Duration::from_millis(1)), [make()]);
        turned.goes_up("1.0");
    }
    turned.later(Duration::from_secs(60));
    turned.step(ended(1));
    assert_eq!(
        turned.later(Duration::from_secs(1)),
        [make()],
        "it ran well"
    );
}

#[test]
fn what_is_granted_too_late_is_taken_back() {
    let mut turned = Turned::new();
    turned.step(Input::Heard(Heard::Here(Vec::new())));
    turned.step(set("1.0"));
    turned.step(Input::Heard(Heard::Made(group_name(&app()))));
    assert_eq!(
        turned.step(Input::Want(BTreeMap::new())),
        [Output::Withdraw(app())]
    );
    assert_eq!(turned.step(granted()), [Output::Withdraw(app()), end()]);
    turned.step(gone());
    assert!(turned.machine.stages().is_empty());
}

#[test]
fn when_the_guard_is_away_everything_is_ended_and_starts_anew_with_the_next() {
    let mut turned = Turned::up();
    let away = turned.step(Input::Heard(Heard::Away));
    assert_eq!(away.first(), Some(&Output::Withdraw(app())));
    assert_eq!(away.get(1), Some(&Output::KillAll));
    assert!(turned.running().is_none());
    assert!(turned.later(MAX_WAIT).is_empty());
    assert_eq!(turned.step(Input::Heard(Heard::Here(Vec::new()))), [make()]);
    turned.goes_up("1.0");
}

#[test]
fn an_answer_of_before_the_guard_was_away_starts_nothing() {
    let mut turned = Turned::new();
    turned.step(Input::Heard(Heard::Here(Vec::new())));
    turned.step(set("1.0"));
    turned.step(Input::Heard(Heard::Made(group_name(&app()))));
    turned.step(Input::Heard(Heard::Away));
    turned.step(Input::Heard(Heard::Here(Vec::new())));
    let late = turned.step(granted());
    assert_eq!(late, [Output::Withdraw(app()), end()]);
    assert_eq!(turned.step(gone()).last(), Some(&make()));
    turned.goes_up("1.0");
}

#[test]
fn what_ran_before_this_agent_runs_on_if_it_is_what_is_wanted_and_is_granted_again() {
    let mut turned = Turned::new();
    assert!(
        turned
            .step(Input::Heard(Heard::Here(vec![run("1.0")])))
            .is_empty()
    );
    let asked = turned.step(set("1.0"));
    assert!(matches!(asked.as_slice(), [Output::Grant(_)]), "{asked:?}");
    assert!(turned.running().is_none());
    let up = turned.step(granted());
    assert!(
        matches!(up.as_slice(), [Output::Note(Note::Up(..))]),
        "{up:?}"
    );
    assert!(turned.running().is_some());

    let mut refused = Turned::new();
    refused.step(set("1.0"));
    refused.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    let ended = refused.step(Input::Granted(app(), Err("not measured".to_owned())));
    assert_eq!(ended, [Output::Withdraw(app()), end()]);

    for wanted in [set("1.1"), Input::Want(BTreeMap::new())] {
        let mut other = Turned::new();
        other.step(Input::Heard(Heard::Here(vec![run("1.0")])));
        assert_eq!(other.step(wanted), [Output::Withdraw(app()), end()]);
    }
}

#[test]
fn what_was_there_and_ended_before_it_was_granted_is_not_taken_for_running() {
    let mut early = Turned::new();
    early.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    early.step(ended(0));
    assert_eq!(early.step(set("1.0")), [make()]);
    early.goes_up("1.0");

    let mut late = Turned::new();
    late.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    late.step(set("1.0"));
    late.step(ended(0));
    let started = late.step(granted());
    assert!(
        matches!(started.as_slice(), [Output::Order(Order::Start(_))]),
        "{started:?}"
    );
}

#[test]
fn an_applications_group_has_a_name_of_its_own_that_leads_back() {
    let names = ["acme/collector", "acme/a.b", "acme/a_b", "a.b/c", "a-b/c"];
    let mut groups: Vec<String> = Vec::new();
    for name in names {
        let app: AppName = name.parse().unwrap();
        groups.push(group_name(&app));
        assert_eq!(app_of_group(&group_name(&app)), Some(app));
    }
    groups.sort();
    groups.dedup();
    assert_eq!(groups.len(), names.len());
    assert_eq!(app_of_group("guard"), None);
}

#[test]
fn a_tree_with_another_byte_or_another_file_is_not_what_was_verified() {
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = wanted("1");
    wanted.tree = folder.path().to_owned();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = bin.join("collector");
    let allow = |path: &std::path::Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let put = |bytes: &[u8]| {
        let _old = std::fs::remove_file(&program);
        std::fs::write(&program, bytes).unwrap();
        allow(&program, 0o555);
        allow(&bin, 0o555);
    };
    allow(&bin, 0o555);
    assert!(wanted.verify_tree().is_err(), "it is missing");
    put(b"1");
    wanted.verify_tree().unwrap();
    put(b"2");
    assert!(wanted.verify_tree().is_err());
    put(b"1");
    std::fs::write(bin.join("libevil.so"), b"").unwrap();
    assert!(wanted.verify_tree().is_err());
    std::fs::remove_file(bin.join("libevil.so")).unwrap();
    std::os::unix::fs::symlink("collector", bin.join("other")).unwrap();
    assert!(wanted.verify_tree().is_err());
}
