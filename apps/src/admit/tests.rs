use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::signed::{Expect, Header, PurposeKey};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{KeySet, Purpose, SignedObject, Signer as _, SoftwareKey, TrustDomain};

use super::*;
use crate::director::{Assigned, Orders, Wish};
use crate::image::{Image, ImageFloors, ImageRefused};
use crate::manifest::tests::sample;
use crate::testing::{Repository, acme, policy_keys, refreshed, tomorrow};

const NODE: &str = "spiffe://plant.example/node/gw-3";

/// The cloud, a publisher and a policy that agree.
struct Scene {
    repository: Repository,
    root: SoftwareKey,
    key: SoftwareKey,
    orders: Orders,
    rules: AppRules,
    floors: AppFloors,
    number: u64,
    manifests: BTreeMap<String, Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            repository: Repository::new(),
            root: SoftwareKey::generate().unwrap(),
            key: SoftwareKey::generate().unwrap(),
            orders: Orders::default(),
            rules: AppRules::default(),
            floors: AppFloors::default(),
            number: 7,
            manifests: BTreeMap::new(),
        };
        scene
            .rules
            .publishers
            .insert(acme(), policy_keys(&scene.repository.publisher_keys(), 2));
        scene.rules.allow.push(Allow::Publisher {
            publisher: acme(),
            name: Some("collector".to_owned()),
            min_version: Some("2.3.0".parse().unwrap()),
        });
        scene.release("2.3.1");
        scene
    }

    /// Signed by the publisher, and what the director wants from now on.
    fn release(&mut self, version: &str) {
        let mut manifest = sample();
        manifest.version = version.parse().unwrap();
        let bytes = self.repository.publish(&manifest);
        self.manifests.insert(version.to_owned(), bytes);
        self.assign(version);
    }

    fn assign(&mut self, version: &str) -> &mut Assigned {
        let bytes = &self.manifests[version];
        let assigned = Assigned {
            version: version.parse().unwrap(),
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
            state: Wish::Running,
            back: false,
        };
        let app: AppName = "acme/collector".parse().unwrap();
        self.orders.apps.insert(app.clone(), assigned);
        self.orders.apps.get_mut(&app).unwrap()
    }

    fn object(&self) -> SignedObject {
        let header = self.header(Purpose::Director, NODE);
        SignedObject::sign_json(&self.key, header, &self.orders).unwrap()
    }

    fn header(&self, purpose: Purpose, audience: &str) -> Header {
        Header {
            purpose,
            trust_domain: domain(),
            audience: audience.to_owned(),
            number: self.number,
            issued: TEST_NOW,
            expires: tomorrow(),
        }
    }

    fn keys(&self) -> KeySet {
        let keys = vec![PurposeKey {
            purpose: Purpose::Director,
            key: *self.key.public_key(),
            not_after: tomorrow(),
        }];
        let header = self.header(Purpose::Keys, edgeward_identity::signed::EVERYBODY);
        let object = SignedObject::sign_json(&self.root, header, &keys).unwrap();
        KeySet::open(&object, &[*self.root.public_key()], &domain(), 0, TEST_NOW).unwrap()
    }

    fn director(&self) -> Director {
        Director::open(&self.object(), &self.keys(), &expect(&domain())).unwrap()
    }

    fn image(&self) -> Image {
        let repository = &self.repository;
        refreshed(
            &repository.files(),
            repository.root(),
            &ImageFloors::default(),
            &repository.policy(),
            TEST_NOW,
        )
        .unwrap()
    }

    fn agreed(&self) -> Result<Agreed, Disagreed> {
        self.director()
            .agree(&self.image(), &"acme/collector".parse().unwrap(), TEST_NOW)
    }

    fn admitted(&self) -> Result<Installable, NotAdmitted> {
        let agreed = self.agreed()?;
        let manifest = &self.manifests[&agreed.release().version.to_string()];
        admit(
            &agreed,
            manifest,
            &self.director(),
            &self.rules,
            &self.floors,
            TEST_NOW,
        )
    }

    /// As a node does: what was accepted is remembered.
    fn install(&mut self) -> Result<(), NotAdmitted> {
        self.floors = self.admitted()?.floors().clone();
        Ok(())
    }
}

fn domain() -> TrustDomain {
    "plant.example".parse().unwrap()
}

fn expect(domain: &TrustDomain) -> Expect<'_> {
    Expect {
        purpose: Purpose::Director,
        trust_domain: domain,
        audience: NODE,
        least_number: 0,
        now: TEST_NOW,
    }
}

#[test]
fn a_release_needs_the_publisher_and_the_director_and_the_same_bytes() {
    let scene = Scene::new();
    let admitted = scene.admitted().unwrap();
    assert_eq!(admitted.manifest(), &sample());
    assert_eq!(admitted.floors().director, 7);

    let mut alone = Scene::new();
    alone.repository.manifests.clear();
    assert!(
        matches!(
            alone.agreed(),
            Err(Disagreed::Image(ImageRefused::NoRelease(_)))
        ),
        "the director alone"
    );

    let mut alone = Scene::new();
    alone.orders.apps.clear();
    assert!(
        matches!(alone.agreed(), Err(Disagreed::NotAssigned(_))),
        "the publisher alone"
    );

    let mut other = Scene::new();
    other.assign("2.3.1").digest = Digest::of(b"other");
    assert!(matches!(other.agreed(), Err(Disagreed::Different(_))));
    other.assign("2.3.1").length += 1;
    assert!(matches!(other.agreed(), Err(Disagreed::Different(_))));

    let agreed = scene.agreed().unwrap();
    let bytes = &scene.manifests["2.3.1"];
    for at in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(
            matches!(agreed.manifest(&changed), Err(Disagreed::Digest(_))),
            "byte {at}"
        );
    }
    assert!(matches!(
        agreed.manifest(&bytes[1..]),
        Err(Disagreed::Length { .. })
    ));
}

#[test]
fn a_manifest_of_another_release_is_refused_though_both_sides_name_it() {
    let mut scene = Scene::new();
    let bytes = scene.manifests["2.3.1"].clone();
    let named = (bytes.len() as u64, Digest::of(&bytes));
    scene
        .repository
        .manifests
        .insert("acme/collector/2.4.0".to_owned(), named);
    scene.manifests.insert("2.4.0".to_owned(), bytes);
    scene.assign("2.4.0");
    assert!(matches!(
        scene.admitted(),
        Err(NotAdmitted::Disagreed(Disagreed::Other(..)))
    ));
}

#[test]
fn a_director_s_word_is_for_one_node_one_purpose_and_a_time() {
    let scene = Scene::new();
    let (object, keys, domain) = (scene.object(), scene.keys(), domain());
    let open = |change: &dyn Fn(&mut Expect<'_>)| {
        let mut expect = expect(&domain);
        change(&mut expect);
        Director::open(&object, &keys, &expect)
    };
    open(&|_| {}).unwrap();
    assert!(open(&|expect| expect.audience = "spiffe://plant.example/node/gw-4").is_err());
    assert!(open(&|expect| expect.purpose = Purpose::Policy).is_err());
    assert!(open(&|expect| expect.least_number = 8).is_err());
    assert!(open(&|expect| expect.now = tomorrow()).is_err());
    let ended = scene
        .director()
        .agree(&scene.image(), &sample().app, tomorrow());
    assert!(matches!(ended, Err(Disagreed::Expired)));
    assert!(Orders::parse(br#"{"apps":{},"apps":{}}"#).is_err());
    assert!(Orders::parse(br#"{"apps":{},"all":true}"#).is_err());
}

#[test]
fn the_policy_says_whose_apps_and_which() {
    let refused = |change: fn(&mut AppRules)| {
        let mut scene = Scene::new();
        change(&mut scene.rules);
        scene.admitted().unwrap_err()
    };
    let digest = Digest::of(&Scene::new().manifests["2.3.1"]);
    let file = sample()
        .file(&"bin/collector".parse().unwrap())
        .unwrap()
        .digest;
    assert_eq!(
        refused(|rules| rules.allow.clear()).code(),
        "app-not-allowed"
    );
    assert_eq!(
        refused(|rules| rules.publishers.clear()).code(),
        "app-not-allowed"
    );
    let other = |name: &str| Allow::Publisher {
        publisher: acme(),
        name: Some(name.to_owned()),
        min_version: None,
    };
    let mut scene = Scene::new();
    scene.rules.allow = vec![other("sender")];
    assert_eq!(scene.admitted().unwrap_err().code(), "app-not-allowed");
    scene.rules.allow.push(Allow::Digest { digest });
    scene.admitted().unwrap();
    scene.rules.deny = vec![Deny::Digest { digest: file }];
    assert_eq!(
        scene.admitted().unwrap_err().code(),
        "app-denied",
        "any file in it"
    );
    scene.rules.deny = vec![Deny::Publisher {
        publisher: acme(),
        name: None,
    }];
    assert_eq!(
        scene.admitted().unwrap_err().code(),
        "app-denied",
        "deny wins"
    );
    scene.rules.deny.clear();
    scene.orders.denied.insert(digest);
    assert_eq!(
        scene.admitted().unwrap_err().code(),
        "app-denied",
        "revoked"
    );

    let mut old = Scene::new();
    old.release("2.2.9");
    assert_eq!(old.admitted().unwrap_err().code(), "app-too-old");
    assert_eq!(
        refused(|rules| rules.deny = vec![
            Deny::Digest {
                digest: Digest::of(b"")
            };
            MAX_RULES + 1
        ])
        .code(),
        "app-rules"
    );
}

#[test]
fn rules_that_observe_tell_and_let_pass_what_is_proven_and_nothing_else() {
    let mut scene = Scene::new();
    scene.rules.allow.clear();
    scene.rules.mode = Mode::Observe;
    let observed = scene.admitted().unwrap();
    assert_eq!(
        observed.would_deny().map(NotAdmitted::code),
        Some("app-not-allowed")
    );
    scene.orders.denied.insert(observed.digest());
    assert_eq!(scene.admitted().unwrap_err().code(), "app-denied");
    scene.orders.denied.clear();
    scene.floors.apps.insert(
        sample().app,
        AppFloor {
            highest: "2.4".parse().unwrap(),
            previous: None,
        },
    );
    assert_eq!(scene.admitted().unwrap_err().code(), "app-rollback");
    scene.rules.mode = Mode::Enforce;
    assert_eq!(scene.admitted().unwrap_err().code(), "app-not-allowed");
    let allowed = Scene::new().admitted().unwrap();
    assert!(allowed.would_deny().is_none());
}

#[test]
fn rules_are_told_apart_in_their_text_and_say_one_thing() {
    let allow = |text: &str| serde_json::from_str::<Allow>(text);
    assert!(matches!(
        allow(r#"{"publisher":"acme","min_version":"1.0"}"#),
        Ok(Allow::Publisher { name: None, .. })
    ));
    assert!(allow(r#"{"publisher":"acme","digest":"00"}"#).is_err());
    assert!(allow("{}").is_err());
    assert!(serde_json::from_str::<Deny>("{}").is_err());
}

#[test]
fn an_app_goes_back_one_version_by_order_and_never_by_itself() {
    let mut scene = Scene::new();
    scene.install().unwrap();
    scene.release("2.4.0");
    scene.install().unwrap();
    scene.release("2.5.0");
    scene.install().unwrap();
    scene.assign("2.4.0");
    assert_eq!(scene.admitted().unwrap_err().code(), "app-rollback");
    scene.assign("2.4.0").back = true;
    scene.install().unwrap();
    scene.assign("2.3.1").back = true;
    assert_eq!(
        scene.admitted().unwrap_err().code(),
        "app-rollback",
        "one back, no further"
    );
    scene.assign("2.5.0");
    scene.install().unwrap();
    // What the policy does not allow any more is no way back either.
    scene.rules.allow = vec![Allow::Publisher {
        publisher: acme(),
        name: None,
        min_version: Some("2.5".parse().unwrap()),
    }];
    scene.assign("2.4.0").back = true;
    assert_eq!(scene.admitted().unwrap_err().code(), "app-too-old");
}

#[test]
fn a_word_that_was_replaced_does_not_come_back() {
    let mut scene = Scene::new();
    scene.install().unwrap();
    scene.number = 6;
    assert_eq!(scene.admitted().unwrap_err().code(), "director-rollback");
    scene.number = 7;
    scene.admitted().unwrap();
    // Two words must not be mixed: what is denied is read from the one that assigned.
    let agreed = scene.agreed().unwrap();
    scene.number = 8;
    let manifest = scene.manifests["2.3.1"].clone();
    let mixed = admit(
        &agreed,
        &manifest,
        &scene.director(),
        &scene.rules,
        &scene.floors,
        TEST_NOW,
    );
    assert_eq!(mixed.unwrap_err().code(), "director-rollback");
    let late = admit(
        &agreed,
        &manifest,
        &scene.director(),
        &scene.rules,
        &scene.floors,
        tomorrow().plus(Duration::from_secs(1)),
    );
    assert_eq!(late.unwrap_err().code(), "app-expired");
}

#[test]
fn a_node_that_lost_its_state_hears_how_high_it_was() {
    let mut scene = Scene::new();
    let stated = BTreeMap::from([(sample().app, "2.4".parse().unwrap())]);
    scene.floors = AppFloors::default().joined(&stated);
    assert_eq!(scene.admitted().unwrap_err().code(), "app-rollback");
    scene.release("2.4.0");
    scene.install().unwrap();
}

#[test]
fn only_publishers_that_rules_name_are_asked_for() {
    let scene = Scene::new();
    assert_eq!(publishers(&scene.director(), &scene.rules).len(), 1);
    assert!(publishers(&scene.director(), &AppRules::default()).is_empty());
}
