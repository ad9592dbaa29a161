use edgeward_apps::admit::{Allow, Deny};
use edgeward_apps::director::Wish;
use edgeward_apps::{ImageFloors, Mode, PublisherKeys};
use edgeward_identity::testing::TEST_NOW;

use super::*;
use crate::apps::Content;

const APP: &str = "acme/collector";

/// A policy, a repository and a node's past.
struct Scene {
    install: Install,
    rules: AppRules,
    releases: Releases,
    denied: BTreeSet<Digest>,
    given: BTreeMap<AppName, Given>,
    back: BTreeMap<AppName, Version>,
}

fn app() -> AppName {
    APP.parse().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// One that only the release of this version holds; or `in all`.
fn file(text: &str) -> Digest {
    Digest::of(format!("file of {text}").as_bytes())
}

impl Scene {
    fn new(published: &[&str]) -> Self {
        let mut rules = AppRules::default();
        let key = format!("ed25519:{}", "ab".repeat(32)).parse().unwrap();
        let keys = PublisherKeys {
            keys: [key].into(),
            threshold: 1,
        };
        rules.publishers.insert(app().publisher().clone(), keys);
        rules.allow.push(Allow::Publisher {
            publisher: app().publisher().clone(),
            name: None,
            min_version: Some(version("2.0")),
        });
        let mut scene = Self {
            install: Install {
                app: app(),
                version: None,
                wish: Wish::Running,
                reach: BTreeSet::new(),
            },
            rules,
            releases: Releases::default(),
            denied: BTreeSet::new(),
            given: BTreeMap::new(),
            back: BTreeMap::new(),
        };
        for text in published {
            scene.publish(text);
        }
        scene
    }

    fn publish(&mut self, text: &str) {
        let release = PublishedRelease {
            digest: digest(text),
            length: 100,
            size: 1_000,
            content: Content::of_files(&[file(text), file("in all")]),
            published: TEST_NOW,
            published_by: "operator/li".to_owned(),
        };
        let versions = self.releases.apps.entry(app()).or_default();
        versions.insert(version(text), release);
    }

    fn direct(&self) -> Directed {
        self.ask(direct)
    }

    fn ask<T>(&self, answer: impl FnOnce(&Question<'_>) -> T) -> T {
        let installs = [(&self.install.app, &self.install)].into();
        answer(&Question {
            installs: &installs,
            rules: &self.rules,
            releases: &self.releases,
            denied: &self.denied,
            given: &self.given,
            back: &self.back,
        })
    }

    /// The version that the node is given, and whether it goes back; it takes it.
    fn step(&mut self) -> Result<(String, bool), Unmet> {
        let directed = self.direct();
        if let Some(why) = directed.unmet.get(&app()) {
            assert!(directed.orders.apps.is_empty());
            return Err(*why);
        }
        let assigned = directed.orders.apps[&app()].clone();
        assert_eq!(assigned.digest, digest(&assigned.version.to_string()));
        self.given.extend(directed.raised);
        assert_eq!(directed.orders.highest[&app()], self.given[&app()].highest);
        Ok((assigned.version.to_string(), assigned.back))
    }
}

fn forward(text: &str) -> Result<(String, bool), Unmet> {
    Ok((text.to_owned(), false))
}

#[test]
fn nothing_is_given_that_is_not_published_or_not_allowed() {
    assert_eq!(Scene::new(&[]).step(), Err(Unmet::NotPublished));
    assert_eq!(Scene::new(&["1.9"]).step(), Err(Unmet::NotAllowed));
    let mut denied = Scene::new(&["2.0", "2.1"]);
    denied.denied.insert(digest("2.1"));
    assert_eq!(
        denied.step(),
        forward("2.0"),
        "revoked before anybody had it"
    );
    denied.rules.deny.push(Deny::Digest {
        digest: digest("2.0"),
    });
    assert_eq!(denied.step(), Err(Unmet::NotAllowed));
    let mut keyless = Scene::new(&["2.0"]);
    keyless.rules.publishers.clear();
    assert_eq!(keyless.step(), Err(Unmet::NotAllowed));
    let mut pinned = Scene::new(&["2.0", "2.1"]);
    pinned.install.version = Some(version("2.2"));
    assert_eq!(pinned.step(), Err(Unmet::NotPublished));
}

/// A node refuses it, and would go on without the app.
#[test]
fn a_release_with_a_file_in_it_that_is_denied_or_revoked_is_not_given() {
    for revoked in [false, true] {
        let mut scene = Scene::new(&["2.0", "2.1"]);
        let forbid = |scene: &mut Scene, digest| match revoked {
            true => assert!(scene.denied.insert(digest)),
            false => scene.rules.deny.push(Deny::Digest { digest }),
        };
        forbid(&mut scene, file("2.1"));
        assert_eq!(scene.step(), forward("2.0"), "revoked: {revoked}");
        scene.publish("2.2");
        assert_eq!(scene.step(), forward("2.2"));
        forbid(&mut scene, file("of another app"));
        assert_eq!(scene.step(), forward("2.2"));
        forbid(&mut scene, file("in all"));
        assert_eq!(scene.step(), Err(Unmet::NotAllowed));
        scene.rules.mode = Mode::Observe;
        let expected = match revoked {
            true => Err(Unmet::NotAllowed),
            false => forward("2.2"),
        };
        assert_eq!(scene.step(), expected, "what only observes takes nothing");
    }
}

#[test]
fn the_highest_version_that_is_allowed_is_given() {
    let mut scene = Scene::new(&["2.9", "2.10", "1.0"]);
    assert_eq!(scene.step(), forward("2.10"));
    scene.publish("2.11");
    assert_eq!(scene.step(), forward("2.11"));
    assert_eq!(
        scene.given[&app()],
        Given {
            highest: version("2.11"),
            previous: Some(version("2.10")),
        }
    );
    let mut pinned = Scene::new(&["2.9", "2.10"]);
    pinned.install.version = Some(version("2.9.0"));
    assert_eq!(pinned.step(), forward("2.9"));
}

#[test]
fn nothing_leads_back_but_an_operators_word_and_then_one_step() {
    let mut scene = Scene::new(&["2.0"]);
    scene.step().unwrap();
    for text in ["2.1", "2.2"] {
        scene.publish(text);
        scene.step().unwrap();
    }
    // Neither a revocation nor a policy that names a lower version does.
    scene.denied.insert(digest("2.2"));
    assert_eq!(scene.step(), Err(Unmet::Lower));
    scene.install.version = Some(version("2.0"));
    assert_eq!(scene.step(), Err(Unmet::Lower));
    scene.install.version = None;
    // The order is from what the node has now: an older one does not count.
    scene.back.insert(app(), version("2.1"));
    assert_eq!(scene.step(), Err(Unmet::Lower));
    scene.back.insert(app(), version("2.2"));
    assert_eq!(scene.step(), Ok(("2.1".to_owned(), true)));
    assert_eq!(scene.step(), Ok(("2.1".to_owned(), true)), "it stays");
    assert_eq!(
        scene.given[&app()].highest,
        version("2.2"),
        "the floor stays"
    );
    scene.denied.insert(digest("2.1"));
    assert_eq!(scene.step(), Err(Unmet::NotAllowed), "no second step");
    scene.publish("2.3");
    assert_eq!(scene.step(), forward("2.3"), "what is newer ends the order");
    scene.denied.insert(digest("2.3"));
    assert_eq!(
        scene.step(),
        Err(Unmet::Lower),
        "and it does not hold again"
    );
}

#[test]
fn what_is_revoked_and_what_was_reached_is_told_whatever_is_wanted() {
    let mut scene = Scene::new(&["2.0"]);
    scene.step().unwrap();
    scene.denied.insert(digest("a file"));
    let floors: ImageFloors = serde_json::from_str(r#"{"root":3,"roles":{}}"#).unwrap();
    scene.releases.floors = floors.clone();
    let directed = direct(&Question {
        installs: &BTreeMap::new(),
        rules: &scene.rules,
        releases: &scene.releases,
        denied: &scene.denied,
        given: &scene.given,
        back: &scene.back,
    });
    assert!(directed.orders.apps.is_empty() && directed.raised.is_empty());
    assert_eq!(directed.orders.denied, scene.denied);
    assert_eq!(directed.orders.floors, floors);
    assert_eq!(directed.orders.highest[&app()], version("2.0"));
    // What fits stays within what nodes read.
    let bytes = serde_json::to_vec(&directed.orders).unwrap();
    assert_eq!(Orders::parse(&bytes).unwrap(), directed.orders);
}

#[test]
fn no_more_is_told_than_a_node_reads() {
    let mut scene = Scene::new(&["2.0"]);
    for number in 0..2 * MAX_ASSIGNED {
        let given = Given {
            highest: version("1"),
            previous: None,
        };
        let name: AppName = format!("aaa/{number:04}").parse().unwrap();
        scene.given.insert(name, given);
    }
    let directed = scene.direct();
    assert_eq!(directed.orders.highest.len(), MAX_ASSIGNED);
    assert!(
        directed.orders.highest.contains_key(&app()),
        "what it has now"
    );
    Orders::parse(&serde_json::to_vec(&directed.orders).unwrap()).unwrap();
}

#[test]
fn a_word_that_waits_for_nothing_gives_nothing_and_takes_nothing_but_what_is_revoked() {
    let mut scene = Scene::new(&["2.0", "2.1"]);
    // It was given nothing yet.
    let orders = scene.ask(direct_as_given);
    assert!(orders.apps.is_empty() && orders.highest.is_empty());
    scene.install.version = Some(version("2.0"));
    assert_eq!(scene.step(), forward("2.0"));
    // 2.1 is about to be given: what the node has stays until then.
    scene.install.version = None;
    assert_eq!(scene.direct().orders.apps[&app()].digest, digest("2.1"));
    let orders = scene.ask(direct_as_given);
    assert_eq!(orders.apps[&app()].digest, digest("2.0"));
    assert_eq!(orders.highest[&app()], version("2.0"));
    assert!(!orders.apps[&app()].back);
    scene.denied.insert(digest("2.0"));
    let orders = scene.ask(direct_as_given);
    assert!(orders.apps.is_empty());
    assert_eq!(orders.denied, [digest("2.0")].into());
    assert_eq!(orders.highest[&app()], version("2.0"));
    // Where nothing is to be given it is the same word.
    scene.denied.clear();
    assert_eq!(scene.step(), forward("2.1"));
    assert_eq!(scene.ask(direct_as_given), scene.direct().orders);
}

#[test]
fn a_word_that_waits_for_nothing_leaves_a_node_back_where_it_was_ordered() {
    let mut scene = Scene::new(&["2.0"]);
    scene.step().unwrap();
    scene.publish("2.1");
    scene.step().unwrap();
    scene.back.insert(app(), version("2.1"));
    assert_eq!(scene.step(), Ok(("2.0".to_owned(), true)));
    // What ends the order is published, and given to nobody yet.
    scene.publish("2.2");
    let orders = scene.ask(direct_as_given);
    let held = &orders.apps[&app()];
    assert_eq!((&held.version, held.back), (&version("2.0"), true));
    assert_eq!(held.digest, digest("2.0"));
    assert_eq!(orders.highest[&app()], version("2.1"));
    // The way back is revoked: what it was led away from does not come back for that.
    scene.denied.insert(digest("2.0"));
    let orders = scene.ask(direct_as_given);
    assert!(orders.apps.is_empty(), "{orders:?}");
}
