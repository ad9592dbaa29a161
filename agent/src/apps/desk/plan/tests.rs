use std::time::Duration;

use edgeward_apps::Mode;
use edgeward_apps::testing::{Content, Published};
use edgeward_identity::testing::TEST_NOW;

use super::*;

const PROGRAM: &[(&str, Content<'_>)] = &[("bin/x", Content::Program(b"\x7fELF one"))];

/// `acme/x` 1.0, assigned and in use.
struct Scene {
    published: Published,
    here: Vec<Here>,
}

impl Scene {
    fn new() -> Self {
        let mut published = Published::new();
        let manifest = published.release("acme/x", "1.0", PROGRAM);
        let here = vec![here(&published, manifest, true)];
        Self { published, here }
    }

    fn plan(&self, change: impl FnOnce(&mut Facts<'_>)) -> Plan {
        let director = self.published.director();
        let mut facts = Facts {
            here: &self.here,
            director: Some(&director),
            rules: Some(&self.published.rules),
            granting: true,
            now: TEST_NOW,
        };
        change(&mut facts);
        facts.plan()
    }
}

fn here(published: &Published, manifest: Manifest, current: bool) -> Here {
    let digest = published.orders.apps[&manifest.app].digest;
    Here {
        digest,
        tree: PathBuf::from("/volume/x"),
        manifest: Arc::new(manifest),
        current,
    }
}

fn app() -> AppName {
    "acme/x".parse().unwrap()
}

fn day() -> Duration {
    Duration::from_secs(86_400)
}

#[test]
fn nothing_runs_without_a_word_a_policy_or_a_node_that_may_grant_and_nothing_is_removed_for_it() {
    let scene = Scene::new();
    let cases: [(&str, Plan); 4] = [
        ("apps-unordered", scene.plan(|facts| facts.director = None)),
        ("apps-unordered", scene.plan(|facts| facts.rules = None)),
        (
            "director-expired",
            scene.plan(|facts| facts.now = TEST_NOW.plus(day())),
        ),
        ("agent-held", scene.plan(|facts| facts.granting = false)),
    ];
    for (why, plan) in cases {
        assert!(plan.run.is_empty() && plan.fetch.is_empty(), "{why}");
        assert!(plan.lose.is_empty(), "{why}");
        assert_eq!(plan.held[&app()], why);
    }
    let plan = scene.plan(|facts| facts.now = TEST_NOW.plus(day() - Duration::from_secs(1)));
    assert_eq!(plan.run.len(), 1, "until the last second");
    assert!(plan.held.is_empty() && plan.fetch.is_empty());
}

#[test]
fn what_is_revoked_goes_though_it_is_assigned_and_also_where_rules_only_observe() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let mut scene = Scene::new();
        scene.published.rules.mode = mode;
        scene.published.orders.denied.insert(scene.here[0].digest);
        let plan = scene.plan(|_| {});
        assert_eq!(plan.lose.len(), 1, "{mode:?}");
        assert_eq!(plan.lose[0].told.code, "app-denied");
        assert!(plan.lose[0].revoked && plan.run.is_empty());
    }
    // A node that may grant nothing takes away all the same.
    let mut scene = Scene::new();
    scene.published.orders.denied.insert(scene.here[0].digest);
    assert_eq!(scene.plan(|facts| facts.granting = false).lose.len(), 1);
}

#[test]
fn what_rules_no_longer_allow_goes_and_what_they_only_observe_stays_and_is_told() {
    let mut scene = Scene::new();
    scene.published.rules.allow.clear();
    let plan = scene.plan(|_| {});
    assert_eq!(plan.lose[0].told.code, "app-not-allowed");
    assert!(plan.run.is_empty());
    scene.published.rules.mode = Mode::Observe;
    let plan = scene.plan(|_| {});
    assert!(plan.lose.is_empty());
    assert_eq!(plan.would_deny[0].code, "app-not-allowed");
    assert_eq!(plan.run.len(), 1);
}

#[test]
fn what_nobody_assigns_goes_with_what_was_kept_of_it() {
    let mut scene = Scene::new();
    let newer = scene.published.release("acme/x", "2.0", PROGRAM);
    scene.here[0].current = false;
    scene.here.push(here(&scene.published, newer, true));
    scene.published.orders.apps.clear();
    let plan = scene.plan(|_| {});
    assert_eq!(plan.lose.len(), 2);
    assert!(plan.lose.iter().all(|lost| !lost.revoked));
    assert!(plan.run.is_empty() && plan.fetch.is_empty());
}

#[test]
fn a_release_runs_on_until_the_next_one_is_here() {
    let mut scene = Scene::new();
    let old = scene.here[0].digest;
    scene.published.release("acme/x", "2.0", PROGRAM);
    let plan = scene.plan(|_| {});
    assert_eq!(plan.run[&app()], old);
    assert!(plan.fetch.contains(&app()));
    // Unless it may not stay.
    scene.published.orders.denied.insert(old);
    let plan = scene.plan(|_| {});
    assert!(plan.run.is_empty() && plan.fetch.contains(&app()));
}

#[test]
fn what_is_kept_for_a_way_back_does_not_run_and_is_lost_alone() {
    let mut scene = Scene::new();
    let old = scene.here[0].digest;
    let newer = scene.published.release("acme/x", "2.0", PROGRAM);
    scene.here[0].current = false;
    scene.here.push(here(&scene.published, newer, true));
    let new = scene.here[1].digest;
    assert_eq!(scene.plan(|_| {}).run[&app()], new);
    scene.published.orders.denied.insert(old);
    let plan = scene.plan(|_| {});
    assert_eq!(plan.lose.len(), 1);
    assert_eq!((plan.lose[0].digest, plan.run[&app()]), (old, new));
}

#[test]
fn what_is_only_to_be_installed_is_not_started() {
    let mut scene = Scene::new();
    let assigned = scene.published.orders.apps.get_mut(&app()).unwrap();
    assigned.state = Wish::Installed;
    let plan = scene.plan(|_| {});
    assert!(plan.run.is_empty() && plan.fetch.is_empty() && plan.lose.is_empty());
}
