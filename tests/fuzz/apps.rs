//! Targets for what publishers, operators and clouds send of applications.

use std::io::Cursor;
use std::sync::LazyLock;

use edgeward_agent::apps::receipt::Receipt;
use edgeward_apps::author::{Envelope, Signers};
use edgeward_apps::cosign::{self, Signature};
use edgeward_apps::image::{
    ImageFloors, PublisherKeys, Refresh, StatedImage, StatedReleases, StatedRoot,
};
use edgeward_apps::oci::{ImageManifest, check_layout, choose};
use edgeward_apps::testing::{Files, Repository, acme};
use edgeward_apps::unpack::{Discard, Tree};
use edgeward_apps::{AppRules, Manifest, Orders, strict};
use edgeward_ca::apps::AppsSaid;
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Signer, SoftwareKey};
use edgeward_wire::limits::MAX_APPS_SAID;
use edgeward_wire::said::STATES;
use edgeward_wire::v1;
use prost::Message;
use serde_json::json;

struct Made {
    files: Files,
    root: Vec<u8>,
    policy: Vec<(edgeward_apps::PublisherName, PublisherKeys)>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let repository = Repository::new();
    Made {
        files: repository.files(),
        root: repository.root().to_vec(),
        policy: repository.policy(),
    }
});

/// The steps of a refresh: root, timestamp, snapshot, targets, publisher.
const STEPS: u8 = 5;

/// The first byte says at which step the rest is given; all before it are right.
pub fn metadata(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else {
        return;
    };
    let made = &*MADE;
    let refresh = Refresh::new(
        &made.root,
        ImageFloors::default(),
        made.policy.clone(),
        TEST_NOW,
    );
    let mut refresh = refresh.expect("a repository that holds");
    for at in 0..STEPS {
        let Ok(Some(wanted)) = refresh.wanted() else {
            return;
        };
        if at == step % STEPS {
            // Nothing that says anything else than the right file is taken for it, however it is written.
            let floors = refresh.floors().clone();
            if refresh.give(Some(bytes)).is_ok() && refresh.floors() != &floors {
                let right = made.files.get(&wanted.name).map(|right| signed_part(right));
                assert_eq!(right, Some(signed_part(bytes)));
            }
            return;
        }
        let right = made.files.get(&wanted.name).map(Vec::as_slice);
        refresh.give(right).expect("the right file");
    }
}

fn signed_part(bytes: &[u8]) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).expect("json");
    value["signed"].take()
}

pub fn metadata_files() -> Vec<Vec<u8>> {
    let names = [
        "1.root.json",
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
        "1.acme.json",
    ];
    names
        .into_iter()
        .zip(0u8..)
        .map(|(name, step)| [&[step], MADE.files[name].as_slice()].concat())
        .collect()
}

/// What an operator or publisher builds upon, and counts the signatures of.
pub fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::parse(bytes) else {
        return;
    };
    let _read = (
        envelope.kind().is_ok(),
        envelope.version().is_ok(),
        envelope.expires().is_ok(),
        envelope.manifests().is_ok(),
    );
    let top = envelope.top_roles().unwrap_or_default().into_values();
    let publishers = envelope.publishers().unwrap_or_default().into_values();
    for authority in top.chain(publishers) {
        if let Ok(tally) = envelope.tally(&authority) {
            assert!(tally.signed.is_disjoint(&tally.missing));
        }
    }
    let nobody = Signers {
        keys: Vec::new(),
        threshold: 1,
    };
    assert!(
        !envelope
            .tally(&nobody)
            .is_ok_and(|tally| tally.is_complete())
    );
}

pub fn envelopes() -> Vec<Vec<u8>> {
    MADE.files.values().cloned().collect()
}

/// What the cloud reads of offline metadata before it is verified.
pub fn stated(bytes: &[u8]) {
    let _ = StatedRoot::read(bytes);
    let _ = StatedImage::read(bytes);
    let _ = StatedReleases::read(&acme(), bytes);
}

/// A manifest that reads is written so that it reads again as the same.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = manifest.to_json().expect("a manifest that holds together");
        assert_eq!(Manifest::parse(&again).expect("its own text"), manifest);
    }
}

pub fn manifests() -> Vec<Vec<u8>> {
    let file = json!({ "path": "bin/x", "sha256": "00".repeat(32), "size": 0, "executable": true });
    let link = json!({ "path": "bin/y", "link": "x" });
    let manifest = json!({
        "format": "edgeward-app/1", "app": "acme/x", "version": "1.2",
        "entry": { "path": "bin/x", "args": ["-v"], "env": { "A": "b" } },
        "resources": { "tasks": 4 }, "identity": "a/b", "writable": ["data"],
        "host_libraries": true, "entries": [file, link],
    });
    vec![manifest.to_string().into_bytes()]
}

pub fn orders(bytes: &[u8]) {
    let _ = Orders::parse(bytes);
}

pub fn orders_seeds() -> Vec<Vec<u8>> {
    let assigned =
        json!({ "version": "1.2", "digest": "00".repeat(32), "length": 7, "state": "running" });
    let orders = json!({ "apps": { "acme/x": assigned }, "denied": ["11".repeat(32)], "highest": { "acme/x": "1.3" } });
    vec![orders.to_string().into_bytes()]
}

pub fn rules(bytes: &[u8]) {
    let _ = serde_json::from_slice::<AppRules>(bytes);
}

pub fn rules_seeds() -> Vec<Vec<u8>> {
    let rules = AppRules {
        publishers: MADE.policy.iter().cloned().collect(),
        ..AppRules::default()
    };
    vec![serde_json::to_vec(&rules).expect("rules")]
}

/// A tree never has a file where another of its entries needs a folder.
pub fn archive(bytes: &[u8]) {
    let mut tree = Tree::default();
    if tree.add(Cursor::new(bytes), &mut Discard).is_ok() {
        for path in tree.nodes().keys() {
            for above in path.above() {
                let folder = tree.nodes().iter().find(|(at, _)| at.as_str() == above);
                assert!(matches!(
                    folder,
                    Some((_, edgeward_apps::unpack::Node::Folder))
                ));
            }
        }
    }
}

/// One file in a folder, as `tar` writes it.
pub fn archives() -> Vec<Vec<u8>> {
    let member = |name: &str, kind: u8, content: &[u8]| {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        let size = format!("{:011o}\0", content.len());
        header[124..136].copy_from_slice(size.as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let padding = content.len().next_multiple_of(512) - content.len();
        [&header[..], content, &vec![0; padding]].concat()
    };
    let archive = [
        member("bin/", b'5', b""),
        member("bin/x", b'0', b"program"),
        member("bin/.wh.y", b'0', b""),
        vec![0; 1024],
    ];
    vec![archive.concat()]
}

pub fn image(bytes: &[u8]) {
    let _ = check_layout(bytes);
    let _ = choose(bytes, "amd64");
    let _ = ImageManifest::parse(bytes);
}

pub fn images() -> Vec<Vec<u8>> {
    let named = |kind: &str| {
        json!({ "mediaType": kind, "digest": format!("sha256:{}", "00".repeat(32)), "size": 1,
            "platform": { "os": "linux", "architecture": "amd64" } })
    };
    [
        json!({ "imageLayoutVersion": "1.0.0" }),
        json!({ "schemaVersion": 2, "manifests": [named("application/vnd.oci.image.manifest.v1+json")] }),
        json!({ "schemaVersion": 2, "layers": [named("application/vnd.oci.image.layer.v1.tar")] }),
    ]
    .map(|value| value.to_string().into_bytes())
    .to_vec()
}

/// No signature that was not made signs an image.
pub fn signatures(bytes: &[u8]) {
    static KEYS: LazyLock<PublisherKeys> = LazyLock::new(|| {
        let key = SoftwareKey::generate().expect("randomness");
        let text = format!("ecdsa-p256:{}", hex::encode(key.public_key().point()));
        PublisherKeys {
            keys: std::iter::once(text.parse().expect("a key")).collect(),
            threshold: 1,
        }
    });
    let (payload, signature) = bytes.split_at(bytes.len() / 2);
    let both = [
        Signature::Bundle(bytes),
        Signature::Simple { payload, signature },
    ];
    assert!(cosign::check(b"image", &both, &KEYS).is_err());
}

pub fn bundles() -> Vec<Vec<u8>> {
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": "x" }, "tlogEntries": [] },
        "messageSignature": { "messageDigest": { "algorithm": "SHA2_256", "digest": "AAAA" }, "signature": "AAAA" },
    });
    vec![bundle.to_string().into_bytes()]
}

/// What an installation left behind is written as it is read.
pub fn receipt(bytes: &[u8]) {
    if let Ok(receipt) = Receipt::parse(bytes) {
        let again = receipt.to_json().expect("a receipt");
        assert!(Receipt::parse(&again).is_ok());
    }
}

pub fn receipts() -> Vec<Vec<u8>> {
    let words = json!({ "root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "publisher": 1,
        "director": 1, "policy": 1 });
    let receipt = json!({ "format": "edgeward-receipt/1", "app": "acme/x", "version": "1",
        "manifest": "00".repeat(32), "words": words, "installed_at": 1_800_000_000_000u64, "files": {} });
    vec![receipt.to_string().into_bytes()]
}

/// What says one thing is JSON for everybody.
pub fn plain(bytes: &[u8]) {
    if strict::check(bytes, 1 << 20).is_ok() {
        serde_json::from_slice::<serde_json::Value>(bytes).expect("json");
    }
}

pub fn plain_texts() -> Vec<Vec<u8>> {
    vec![br#"{"a":[1,-2,"x\u00e9",null,true,{"b":{}}],"c":18446744073709551615}"#.to_vec()]
}

/// What a node says of its applications: whatever the cloud takes of it is bounded, and plain enough for a terminal.
pub fn said(bytes: &[u8]) {
    let Ok(state) = v1::AppsState::decode(bytes) else {
        return;
    };
    let Ok(said) = AppsSaid::of(state.clone(), TEST_NOW) else {
        return;
    };
    assert!(said.apps.len() <= MAX_APPS_SAID && said.apps.len() == state.apps.len());
    for (app, told) in said.apps.iter().zip(&state.apps) {
        assert!(STATES.contains(&app.state));
        assert!(app.code.len() <= 64 && app.code.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(app.app.to_string(), told.app);
    }
}

pub fn said_seeds() -> Vec<Vec<u8>> {
    let app = |state: &str| v1::AppState {
        app: "acme/collector".to_owned(),
        version: "2.3.1".to_owned(),
        sha256: vec![7; 32],
        state: state.to_owned(),
        code: "app-not-allowed".to_owned(),
        fetched: 1,
        wanted: 2,
    };
    let said = |apps| v1::AppsState {
        app_control: "fanotify".to_owned(),
        director_number: 7,
        apps,
        measured: 3,
        ..v1::AppsState::default()
    };
    let all = STATES.iter().map(|state| app(state)).collect();
    [said(Vec::new()), said(vec![app("running")]), said(all)]
        .map(|said| said.encode_to_vec())
        .to_vec()
}
