use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Signer as _, SoftwareKey};
use serde_json::{Value, json};

use super::*;
use crate::author::{Envelope, Pin};
use crate::manifest::tests::sample;
use crate::testing::{Files, Repository, acme, policy_keys, refreshed, signed, signers, tomorrow};
use crate::vectors;

/// With one release, at the test's time.
fn repository() -> Repository {
    let mut repository = Repository::new();
    repository.publish(&sample());
    repository
}

fn image(repository: &Repository, floors: &ImageFloors) -> Result<Image, ImageRefused> {
    refreshed(
        &repository.files(),
        repository.roots[&1].as_slice(),
        floors,
        &repository.policy(),
        TEST_NOW,
    )
}

fn from_files(repository: &Repository, files: &Files) -> Result<Image, ImageRefused> {
    refreshed(
        files,
        repository.root(),
        &ImageFloors::default(),
        &repository.policy(),
        TEST_NOW,
    )
}

fn release(image: &Image) -> Result<Release, ImageRefused> {
    let manifest = sample();
    image.release(&manifest.app, &manifest.version, TEST_NOW)
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let repository = repository();
    let files = repository.files();
    for (name, bytes) in files
        .iter()
        .filter(|(name, _)| !name.ends_with("root.json"))
    {
        for at in (0..bytes.len()).step_by(5) {
            let mut changed = files.clone();
            changed.get_mut(name).unwrap()[at] ^= 1;
            assert!(
                from_files(&repository, &changed).is_err(),
                "byte {at} of {name}"
            );
        }
        let mut cut = files.clone();
        cut.get_mut(name).unwrap().pop();
        assert!(from_files(&repository, &cut).is_err(), "{name} cut");
        let mut gone = files.clone();
        gone.remove(name);
        assert!(
            matches!(from_files(&repository, &gone), Err(ImageRefused::Missing(missing)) if missing == *name)
        );
    }
    let image = from_files(&repository, &files).unwrap();
    assert_eq!(
        release(&image).unwrap().length,
        sample().to_json().unwrap().len() as u64
    );
    assert_eq!(image.valid_until(&acme()).unwrap(), tomorrow());
}

#[test]
fn what_was_not_signed_or_not_asked_for_is_no_release() {
    let image = image(&repository(), &ImageFloors::default()).unwrap();
    let find = |app: &str, version: &str, now| {
        image.release(&app.parse().unwrap(), &version.parse().unwrap(), now)
    };
    assert!(matches!(
        find("acme/collector", "2.3.2", TEST_NOW),
        Err(ImageRefused::NoRelease(_))
    ));
    assert!(matches!(
        find("other/collector", "2.3.1", TEST_NOW),
        Err(ImageRefused::NotAsked(_))
    ));
    assert!(matches!(
        find("acme/collector", "2.3.1", tomorrow()),
        Err(ImageRefused::Expired)
    ));
}

#[test]
fn each_role_s_end_is_the_end() {
    type Change = fn(&mut Repository);
    let changes: [(&str, Change); 5] = [
        ("root", |r| {
            r.expires.root = TEST_NOW.minus(Duration::from_secs(1))
        }),
        ("timestamp", |r| {
            r.expires.timestamp = TEST_NOW.minus(Duration::from_secs(1))
        }),
        ("snapshot", |r| {
            r.expires.snapshot = TEST_NOW.minus(Duration::from_secs(1))
        }),
        ("targets", |r| {
            r.expires.targets = TEST_NOW.minus(Duration::from_secs(1))
        }),
        ("acme", |r| {
            r.expires.publisher = TEST_NOW.minus(Duration::from_secs(1))
        }),
    ];
    for (expired, change) in changes {
        let mut repository = repository();
        change(&mut repository);
        repository.sign_root(&[]);
        let refused = image(&repository, &ImageFloors::default());
        let source = match refused {
            Err(ImageRefused::Unverified { source, .. }) => source,
            other => panic!("{expired}: {other:?}"),
        };
        assert!(
            matches!(source, sigstore_tuf::Error::Expired { role, .. } if role == expired),
            "{expired}"
        );
    }
}

#[test]
fn nothing_goes_back_below_what_was_accepted() {
    let mut repository = repository();
    let old = repository.versions;
    type Change = fn(&mut crate::testing::Versions);
    let changes: [(&str, Change); 4] = [
        ("timestamp", |v| v.timestamp = 5),
        ("snapshot", |v| v.snapshot = 5),
        ("targets", |v| v.targets = 5),
        ("acme", |v| v.publisher = 5),
    ];
    for (back, change) in changes {
        repository.versions = old;
        change(&mut repository.versions);
        let newer = image(&repository, &ImageFloors::default()).unwrap();
        assert_eq!(newer.floors().roles[back].version, 5);
        repository.versions = old;
        // Everything is fresh, rightly signed and fits together; only the state that survives the disk says no.
        let refused = image(&repository, newer.floors());
        assert!(
            matches!(&refused, Err(ImageRefused::Rollback { role, version: 1, highest: 5 }) if role == back),
            "{back}: {refused:?}"
        );
        image(&repository, &ImageFloors::default()).unwrap();
        // A node that lost them hears them from the director.
        let stated = ImageFloors::default().joined(newer.floors());
        assert!(image(&repository, &stated).is_err(), "{back}");
    }
}

#[test]
fn files_of_different_times_do_not_mix() {
    let mut repository = repository();
    let old = repository.files();
    repository.versions.publisher = 2;
    repository.versions.snapshot = 2;
    repository.versions.timestamp = 2;
    repository.manifests.clear();
    let new = repository.files();
    let mixed = |name: &str, from: &str| {
        let mut files = new.clone();
        files.insert(name.to_owned(), old[from].clone());
        from_files(&repository, &files)
    };
    assert!(mixed("2.acme.json", "1.acme.json").is_err());
    assert!(mixed("2.snapshot.json", "1.snapshot.json").is_err());
    let image = from_files(&repository, &new).unwrap();
    assert!(
        matches!(release(&image), Err(ImageRefused::NoRelease(_))),
        "what was withdrawn is gone"
    );
}

#[test]
fn a_publisher_needs_its_threshold_of_keys_that_both_sides_name() {
    let repository = repository();
    let keys = repository.publisher_keys();
    let stranger = SoftwareKey::generate().unwrap();
    let files = repository.files();
    let refused = |policy: PublisherKeys| {
        refreshed(
            &files,
            repository.root(),
            &ImageFloors::default(),
            &[(acme(), policy)],
            TEST_NOW,
        )
        .unwrap_err()
    };
    // Signed by the first two.
    assert!(
        matches!(
            refused(policy_keys(&keys[1..], 2)),
            ImageRefused::Unverified { .. }
        ),
        "one of them counts"
    );
    assert!(
        matches!(
            refused(policy_keys(&keys, 3)),
            ImageRefused::Unverified { .. }
        ),
        "policy wants three"
    );
    assert!(
        matches!(
            refused(policy_keys(&[keys[0], &stranger], 1)),
            ImageRefused::Authority { .. }
        ),
        "two are wanted by the image role"
    );
    assert!(matches!(
        refused(policy_keys(&[&stranger], 1)),
        ImageRefused::Authority { .. }
    ));
    assert!(
        matches!(refused(policy_keys(&[], 0)), ImageRefused::Authority { .. }),
        "no keys check nothing"
    );
}

#[test]
fn what_one_publisher_signed_wrongly_stops_no_other() {
    let repository = repository();
    let stranger = SoftwareKey::generate().unwrap();
    let mut policy = repository.policy();
    policy.push(("gone".parse().unwrap(), policy_keys(&[&stranger], 1)));
    policy.insert(0, ("absent".parse().unwrap(), policy_keys(&[&stranger], 1)));
    let files = repository.files();
    let refresh = |policy: Vec<(PublisherName, PublisherKeys)>, files: &Files| {
        let mut refresh =
            Refresh::new(repository.root(), ImageFloors::default(), policy, TEST_NOW).unwrap();
        while let Some(wanted) = refresh.wanted().unwrap() {
            refresh
                .give(files.get(&wanted.name).map(Vec::as_slice))
                .unwrap();
        }
        refresh.finish().unwrap()
    };
    let image = refresh(policy.clone(), &files);
    release(&image).unwrap();
    assert_eq!(image.refused().len(), 2);
    let find = |image: &Image, app: &str| {
        image.release(&app.parse().unwrap(), &"1".parse().unwrap(), TEST_NOW)
    };
    assert!(matches!(
        find(&image, "gone/x"),
        Err(ImageRefused::Publisher(_))
    ));
    let mut broken = files.clone();
    broken.remove("1.acme.json");
    let image = refresh(policy, &broken);
    assert!(matches!(release(&image), Err(ImageRefused::Publisher(_))));
    assert!(
        !image.floors().roles.contains_key("acme"),
        "nothing was verified"
    );
}

#[test]
fn one_key_under_two_ids_counts_once_and_is_refused() {
    let repository = repository();
    let mut root: Value = serde_json::from_slice(repository.root()).unwrap();
    let id = root["signed"]["roles"]["timestamp"]["keyids"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let key = root["signed"]["keys"][&id].clone();
    let point = hex::encode(repository.online.public_key().point());
    let spelled = |public: Value| {
        let mut other = key.clone();
        other["keyval"]["public"] = public;
        other
    };
    let pem = key["keyval"]["public"].as_str().unwrap();
    for other in [
        json!(pem),
        json!(pem.replace('\n', "\r\n")),
        json!(pem.trim()),
        json!(point),
    ] {
        root["signed"]["keys"]["ff"] = spelled(other);
        root["signed"]["roles"]["timestamp"] = json!({ "keyids": [id, "ff"], "threshold": 2 });
        let envelope = Envelope::parse(root.to_string().as_bytes()).unwrap();
        let bytes = signed(envelope, &repository.offline()[..2]);
        let refused = Refresh::new(&bytes, ImageFloors::default(), Vec::new(), TEST_NOW)
            .err()
            .unwrap();
        let twice = matches!(
            &refused,
            ImageRefused::Authority {
                source: BadAuthority::Twice(_),
                ..
            }
        );
        assert!(twice, "{refused:?}");
    }
}

#[test]
fn a_publisher_has_its_own_folder_and_nothing_else() {
    let repository = repository();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 7] = [
        ("all", |r| r["paths"] = json!(["*/*/*"])),
        ("more", |r| r["paths"] = json!(["acme/*/*", "other/*/*"])),
        ("deeper", |r| r["paths"] = json!(["acme/*"])),
        ("none", |r| drop(r.as_object_mut().unwrap().remove("paths"))),
        ("hashes", |r| r["path_hash_prefixes"] = json!([""])),
        ("goes on", |r| r["terminating"] = json!(false)),
        ("another name", |r| r["name"] = json!("acmee")),
    ];
    for (name, change) in changes {
        let mut files = repository.files();
        let mut targets: Value = serde_json::from_slice(&files["1.targets.json"]).unwrap();
        change(&mut targets["signed"]["delegations"]["roles"][0]);
        targets["signatures"] = json!([]);
        let targets = signed(
            Envelope::parse(targets.to_string().as_bytes()).unwrap(),
            &repository.offline()[..2],
        );
        let pins = BTreeMap::from([
            ("targets".to_owned(), Pin::of(1, &targets)),
            ("acme".to_owned(), Pin::of(1, &files["1.acme.json"])),
        ]);
        let snapshot = signed(
            Envelope::snapshot(1, tomorrow(), &pins).unwrap(),
            &[&repository.online],
        );
        let fresh = Envelope::timestamp(1, tomorrow(), &Pin::of(1, &snapshot)).unwrap();
        files.insert(
            "timestamp.json".to_owned(),
            signed(fresh, &[&repository.online]),
        );
        files.insert("1.snapshot.json".to_owned(), snapshot);
        files.insert("1.targets.json".to_owned(), targets);
        let refused = from_files(&repository, &files);
        assert!(
            matches!(refused, Err(ImageRefused::Delegation(_))),
            "{name}: {refused:?}"
        );
    }
}

/// New offline keys, signed for by `by` of the old ones.
fn rotated(by: usize) -> Repository {
    let mut repository = repository();
    let old: Vec<SoftwareKey> = std::mem::take(&mut repository.offline);
    repository.offline = (0..3).map(|_| SoftwareKey::generate().unwrap()).collect();
    repository.versions.root = 2;
    repository.sign_root(&old.iter().take(by).collect::<Vec<_>>());
    repository
}

#[test]
fn a_root_is_followed_only_where_the_one_before_signed_it() {
    let turned = image(&rotated(2), &ImageFloors::default()).unwrap();
    assert_eq!(turned.floors().root, 2);
    release(&turned).unwrap();
    assert!(
        matches!(image(&rotated(1), &ImageFloors::default()), Err(ImageRefused::Unverified { role, .. }) if role == "root")
    );

    // The root that is held was put back: the floor knows better.
    let repository = rotated(2);
    let put_back = refreshed(
        &repository.files(),
        &repository.roots[&1],
        turned.floors(),
        &repository.policy(),
        TEST_NOW,
    );
    assert!(matches!(put_back, Err(ImageRefused::Rollback { role, .. }) if role == "root"));

    // A number is not left out.
    let mut repository = rotated(2);
    let skipping = repository.roots.remove(&2).unwrap();
    repository.roots.insert(3, skipping.clone());
    let mut files = repository.files();
    files.insert("2.root.json".to_owned(), {
        let mut value: Value = serde_json::from_slice(&skipping).unwrap();
        value["signed"]["version"] = json!(3);
        value.to_string().into_bytes()
    });
    assert!(
        refreshed(
            &files,
            &repository.roots[&1],
            &ImageFloors::default(),
            &repository.policy(),
            TEST_NOW
        )
        .is_err()
    );
}

#[test]
fn a_changed_byte_anywhere_in_a_root_that_follows_another_is_refused() {
    let repository = rotated(2);
    let files = repository.files();
    let take = |files: &Files| {
        refreshed(
            files,
            &repository.roots[&1],
            &ImageFloors::default(),
            &repository.policy(),
            TEST_NOW,
        )
    };
    let good = &files["2.root.json"];
    assert_eq!(take(&files).unwrap().floors().root, 2);
    for at in (0..good.len()).step_by(3) {
        let mut changed = files.clone();
        changed.get_mut("2.root.json").unwrap()[at] ^= 1;
        assert!(take(&changed).is_err(), "byte {at}");
    }
    for end in (0..good.len()).step_by(7) {
        let mut cut = files.clone();
        cut.get_mut("2.root.json").unwrap().truncate(end);
        assert!(take(&cut).is_err(), "cut at {end}");
    }
}

#[test]
fn new_online_keys_end_what_stolen_ones_signed() {
    let mut repository = repository();
    repository.versions.timestamp = u64::MAX;
    repository.versions.snapshot = u64::MAX;
    let stolen = image(&repository, &ImageFloors::default()).unwrap();
    repository.versions.timestamp = 2;
    repository.versions.snapshot = 2;
    assert!(
        matches!(
            image(&repository, stolen.floors()),
            Err(ImageRefused::Rollback { .. })
        ),
        "under the same keys"
    );
    repository.online = SoftwareKey::generate().unwrap();
    repository.versions.root = 2;
    repository.sign_root(&[]);
    let mended = image(&repository, stolen.floors()).unwrap();
    assert_eq!(mended.floors().roles["timestamp"].version, 2);
    // What was offline kept its floor.
    assert_eq!(mended.floors().roles["acme"], stolen.floors().roles["acme"]);
}

#[test]
fn endless_files_are_not_read_and_a_refresh_has_an_end() {
    let repository = repository();
    let mut refresh = Refresh::new(
        repository.root(),
        ImageFloors::default(),
        repository.policy(),
        TEST_NOW,
    )
    .unwrap();
    let endless = vec![b' '; usize::try_from(MAX_ROOT_BYTES).unwrap() + 1];
    assert!(matches!(
        refresh.give(Some(&endless)),
        Err(ImageRefused::Ambiguous {
            source: Ambiguous::TooLong(..),
            ..
        })
    ));
    let refresh = Refresh::new(
        repository.root(),
        ImageFloors::default(),
        repository.policy(),
        TEST_NOW,
    )
    .unwrap();
    assert!(
        matches!(refresh.finish(), Err(ImageRefused::Unfinished(name)) if name == "2.root.json")
    );
    let many = vec![repository.policy().remove(0); MAX_PUBLISHERS + 1];
    assert!(matches!(
        Refresh::new(repository.root(), ImageFloors::default(), many, TEST_NOW),
        Err(ImageRefused::Publishers)
    ));
}

#[test]
fn metadata_that_two_readers_read_differently_is_refused() {
    let repository = repository();
    let mut files = repository.files();
    let fresh = String::from_utf8(files["timestamp.json"].clone()).unwrap();
    let twice = fresh.replacen("\"version\":1", "\"version\":9,\"version\":1", 1);
    assert_ne!(twice, fresh);
    files.insert("timestamp.json".to_owned(), twice.into_bytes());
    let refused = from_files(&repository, &files);
    assert!(
        matches!(refused, Err(ImageRefused::Ambiguous { .. })),
        "{refused:?}"
    );
}

#[test]
fn releases_are_signed_one_after_another_at_places_apart() {
    let repository = repository();
    let keys = repository.publisher_keys();
    let envelope = Envelope::releases(1, tomorrow(), &repository.manifests).unwrap();
    let first = signed(envelope, &keys[..1]);
    let second = signed(Envelope::parse(&first).unwrap(), &keys[1..2]);
    assert_eq!(
        serde_json::from_slice::<Value>(&second).unwrap()["signed"],
        serde_json::from_slice::<Value>(&first).unwrap()["signed"]
    );
    let mut files = repository.files();
    assert!(
        from_files(&repository, &{
            let mut files = files.clone();
            files.insert("1.acme.json".to_owned(), first);
            files
        })
        .is_err()
    );
    // ECDSA signatures differ each time: the snapshot pins those bytes, so all is signed anew.
    let pins = BTreeMap::from([
        ("targets".to_owned(), Pin::of(1, &files["1.targets.json"])),
        ("acme".to_owned(), Pin::of(1, &second)),
    ]);
    let snapshot = signed(
        Envelope::snapshot(1, tomorrow(), &pins).unwrap(),
        &[&repository.online],
    );
    let fresh = Envelope::timestamp(1, tomorrow(), &Pin::of(1, &snapshot)).unwrap();
    files.insert(
        "timestamp.json".to_owned(),
        signed(fresh, &[&repository.online]),
    );
    files.insert("1.snapshot.json".to_owned(), snapshot);
    files.insert("1.acme.json".to_owned(), second);
    release(&from_files(&repository, &files).unwrap()).unwrap();
}

#[test]
fn a_publisher_may_sign_with_ed25519_too() {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let role = crate::author::RoleKey::ed25519(&key).unwrap();
    let mut repository = repository();
    let mut delegations = BTreeMap::from([(acme(), signers(&[], 1))]);
    delegations
        .get_mut(&acme())
        .unwrap()
        .keys
        .push(role.clone());
    repository.delegations = Some(delegations);
    let mut files = repository.files();
    let mut releases = Envelope::releases(1, tomorrow(), &repository.manifests).unwrap();
    let bytes = releases.to_sign().unwrap();
    releases.add(&role, pair.sign(&bytes).as_ref()).unwrap();
    let releases = releases.to_bytes();
    let pins = BTreeMap::from([
        ("targets".to_owned(), Pin::of(1, &files["1.targets.json"])),
        ("acme".to_owned(), Pin::of(1, &releases)),
    ]);
    let snapshot = signed(
        Envelope::snapshot(1, tomorrow(), &pins).unwrap(),
        &[&repository.online],
    );
    let fresh = Envelope::timestamp(1, tomorrow(), &Pin::of(1, &snapshot)).unwrap();
    files.insert(
        "timestamp.json".to_owned(),
        signed(fresh, &[&repository.online]),
    );
    files.insert("1.snapshot.json".to_owned(), snapshot);
    files.insert("1.acme.json".to_owned(), releases);
    let keys = [format!("ed25519:{}", hex::encode(key)).parse().unwrap()].into();
    let policy = [(acme(), PublisherKeys { keys, threshold: 1 })];
    let image = refreshed(
        &files,
        repository.root(),
        &ImageFloors::default(),
        &policy,
        TEST_NOW,
    )
    .unwrap();
    release(&image).unwrap();
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn the_public_repository_of_sigstore_verifies_and_no_altered_byte_of_it() {
    let Some(folder) = vectors::folder("tuf-conformance/sigstore-root-signing") else {
        return;
    };
    let at: Timestamp = Timestamp::from_secs(1_739_102_528);
    let later = Timestamp::from_secs(1_739_750_400);
    let root = read(&folder.join("initial_root.json"));
    let files: Files = std::fs::read_dir(folder.join("metadata"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                read(&path),
            )
        })
        .collect();
    let mut refresh = Refresh::new(&root, ImageFloors::default(), Vec::new(), at).unwrap();
    while let Some(wanted) = refresh.wanted().unwrap() {
        refresh
            .give(files.get(&wanted.name).map(Vec::as_slice))
            .unwrap();
    }
    let target = refresh
        .set
        .targets_role("targets")
        .unwrap()
        .target("trusted_root.json")
        .unwrap()
        .clone();
    let image = refresh.finish().unwrap();
    let digest = target.hashes["sha256"].clone();
    let content = read(
        &folder
            .join("targets")
            .join(format!("{digest}.trusted_root.json")),
    );
    assert_eq!(crate::Digest::of(&content).to_string(), digest);
    assert!(
        refreshed(&files, &root, image.floors(), &[], later).is_err(),
        "the timestamp ended"
    );
    assert!(refreshed(&files, &root, image.floors(), &[], at).is_ok());
    for (name, bytes) in files.iter().filter(|(name, _)| !name.contains("registry")) {
        for offset in (0..bytes.len()).step_by(97) {
            let mut changed = files.clone();
            changed.get_mut(name).unwrap()[offset] ^= 1;
            let outcome = refreshed(&changed, &root, &ImageFloors::default(), &[], at);
            // Roots before the one we start from are never read, and a surplus signature is not needed.
            if let Ok(same) = outcome {
                assert_eq!(same.floors(), image.floors(), "byte {offset} of {name}");
            }
        }
    }
}

#[test]
fn the_vectors_of_tough_end_as_they_say() {
    let Some(folder) = vectors::folder("tough") else {
        return;
    };
    let root = |name: &str| read(&folder.join(name).join("root.json"));
    let loads = |name: &str| {
        Refresh::new(&root(name), ImageFloors::default(), Vec::new(), TEST_NOW).map(|_| ())
    };
    loads("simple-rsa").unwrap();
    assert!(matches!(
        loads("no-root-json-signatures"),
        Err(ImageRefused::Unverified { .. })
    ));
    assert!(loads("mismatched-root-json-keyids").is_err());
    assert!(matches!(
        loads("duplicate-sigs"),
        Err(ImageRefused::Unverified {
            source: sigstore_tuf::Error::DuplicateSignature { .. }
                | sigstore_tuf::Error::ThresholdNotMet { .. },
            ..
        })
    ));
    assert!(loads("duplicate-sig-keys").is_err());
    assert!(matches!(
        loads("duplicate-keyid"),
        Err(ImageRefused::Ambiguous {
            source: Ambiguous::Json(_),
            ..
        })
    ));
    for old in ["hex-encoded-ecdsa-sig-keys", "ecdsa-new-type-sig-keys"] {
        Metadata::<sigstore_tuf::Root>::from_slice(&root(old)).unwrap();
    }

    let Some(folder) = vectors::folder("tough/expired-repository/metadata") else {
        return;
    };
    let files: Files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                read(&path),
            )
        })
        .collect();
    let first = files["1.root.json"].clone();
    let files = files
        .into_iter()
        .filter(|(name, _)| name != "1.root.json")
        .collect();
    let ended = refreshed(
        &files,
        &first,
        &ImageFloors::default(),
        &[],
        Timestamp::from_secs(1_600_000_000),
    );
    assert!(
        matches!(&ended, Err(ImageRefused::Unverified { role, source: sigstore_tuf::Error::Expired { .. } }) if role == "timestamp"),
        "{ended:?}"
    );
    let Some(folder) = vectors::folder("tough/safe-target-paths/metadata") else {
        return;
    };
    let first = read(&folder.join("1.root.json"));
    let now = Timestamp::from_secs(1_600_000_000);
    let refused = refreshed(&Files::new(), &first, &ImageFloors::default(), &[], now);
    assert!(
        matches!(refused, Err(ImageRefused::Inconsistent)),
        "{refused:?}"
    );
}
