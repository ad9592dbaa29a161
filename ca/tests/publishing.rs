//! Publishing as its people do it: the offline ceremony, releases signed by a few of many, with the real program and no
//! cloud. What comes out is held against the node's own verifier.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use edgeward_apps::author::{Envelope, Pin, RoleKey};
use edgeward_apps::chunk::Filling;
use edgeward_apps::image::{Image, ImageFloors, ImageRefused, PublisherKeys, Refresh};
use edgeward_apps::manifest::{Entry, Manifest};
use edgeward_apps::oci::carried;
use edgeward_apps::{AppPath, Digest};
use edgeward_identity::{Clock, Signer, SoftwareKey, SystemClock};
use serde_json::Value;

const EDGEWARD: &str = env!("CARGO_BIN_EXE_edgeward");
const HSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A folder with keys, content, and the repository `repo`.
struct Desk {
    folder: tempfile::TempDir,
    /// The cloud's key, which signs snapshot and timestamp.
    online: SoftwareKey,
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            online: SoftwareKey::generate().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(EDGEWARD)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let done = self.run(arguments);
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    fn key(&self, name: &str, kind: &str) -> String {
        let made = self.good(&["publisher", "key", "--new", name, "--kind", kind]);
        std::fs::write(self.path(&format!("{name}.pub")), &made).unwrap();
        made.trim().to_owned()
    }

    fn online_key(&self) -> String {
        format!(
            "ecdsa-p256:{}",
            hex::encode(self.online.public_key().point())
        )
    }

    /// A root of two operators and a third key, and publisher acme of `keys`.
    fn ceremony(&self, keys: &[&str], threshold: &str) {
        for name in ["ops-1", "ops-2", "ops-3"] {
            self.key(name, "ecdsa-p256");
        }
        let online = self.online_key();
        let mut init = vec![
            "publisher",
            "root",
            "init",
            "--repo",
            "repo",
            "--threshold",
            "2",
        ];
        for key in ["ops-1.pub", "ops-2.pub", "ops-3.pub"] {
            init.extend(["--key", key]);
        }
        init.extend(["--online", &online]);
        self.good(&init);
        let mut add = vec![
            "publisher",
            "add",
            "acme",
            "--repo",
            "repo",
            "--threshold",
            threshold,
        ];
        for key in keys {
            add.extend(["--key", key]);
        }
        self.good(&add);
        for file in ["1.root.json", "1.targets.json"] {
            for signer in ["ops-1", "ops-2"] {
                self.sign(file, signer);
            }
        }
    }

    fn sign(&self, file: &str, signer: &str) -> Value {
        let file = format!("repo/image/metadata/{file}");
        self.json(&["publisher", "sign", &file, "--signer", signer])
    }

    /// A folder with an app, and its `app.toml`.
    fn app(&self, version: &str, more: &str) {
        let top = self.path("collector");
        std::fs::create_dir_all(top.join("bin")).unwrap();
        std::fs::create_dir_all(top.join("etc/empty")).unwrap();
        let program: Vec<u8> = (0..600_000u32)
            .flat_map(|at| (at.wrapping_mul(at)).to_be_bytes())
            .collect();
        std::fs::write(top.join("bin/collector"), program).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(top.join("bin/collector"), mode).unwrap();
        std::fs::write(top.join("etc/c.toml"), "x = 1\n").unwrap();
        let _ = std::os::unix::fs::symlink("collector", top.join("bin/same"));
        self.app_toml("bin/collector", version, more);
    }

    fn app_toml(&self, entry: &str, version: &str, more: &str) {
        let text = format!(
            "app = \"acme/collector\"\nversion = \"{version}\"\n{more}\n[entry]\npath = \"{entry}\"\nargs = [\"-v\"]\n[resources]\ntasks = 8\n"
        );
        std::fs::write(self.path("app.toml"), text).unwrap();
    }

    fn release<'a>(&self, input: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let own = [
            "app",
            "sign",
            input,
            "--manifest",
            "app.toml",
            "--repo",
            "repo",
        ];
        [&own[..], more].concat()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(&format!("repo/image/metadata/{name}"))).unwrap()
    }

    /// What a node makes of the folder, once the cloud signed snapshot and timestamp.
    fn node(&self, targets: u64, acme: u64, policy: &PublisherKeys) -> Result<Image, ImageRefused> {
        let now = SystemClock.now();
        let end = now.plus(std::time::Duration::from_secs(3600));
        let key = RoleKey::p256(self.online.public_key()).unwrap();
        let signed = |mut envelope: Envelope| {
            let bytes = envelope.to_sign().unwrap();
            envelope
                .add(&key, &self.online.sign(&bytes).unwrap())
                .unwrap();
            envelope.to_bytes()
        };
        let [targets_name, acme_name] = [
            format!("{targets}.targets.json"),
            format!("{acme}.acme.json"),
        ];
        let pins = BTreeMap::from([
            (
                "targets".to_owned(),
                Pin::of(targets, &self.file(&targets_name)),
            ),
            ("acme".to_owned(), Pin::of(acme, &self.file(&acme_name))),
        ]);
        let snapshot = signed(Envelope::snapshot(1, end, &pins).unwrap());
        let timestamp = signed(Envelope::timestamp(1, end, &Pin::of(1, &snapshot)).unwrap());
        let publishers = vec![("acme".parse().unwrap(), policy.clone())];
        let mut refresh = Refresh::new(
            &self.file("1.root.json"),
            ImageFloors::default(),
            publishers,
            now,
        )?;
        while let Some(wanted) = refresh.wanted()? {
            let bytes = match wanted.name.as_str() {
                "timestamp.json" => Some(timestamp.clone()),
                "1.snapshot.json" => Some(snapshot.clone()),
                name => std::fs::read(self.path(&format!("repo/image/metadata/{name}"))).ok(),
            };
            refresh.give(bytes.as_deref())?;
        }
        refresh.finish()
    }

    fn manifest(&self, image: &Image, version: &str) -> Manifest {
        let app = "acme/collector".parse().unwrap();
        let release = image
            .release(&app, &version.parse().unwrap(), SystemClock.now())
            .unwrap();
        let path = format!(
            "repo/image/targets/acme/collector/{}.{version}",
            release.digest
        );
        let bytes = std::fs::read(self.path(&path)).unwrap();
        assert_eq!(Digest::of(&bytes), release.digest);
        Manifest::parse(&bytes).unwrap()
    }

    /// A file put together of its chunks, checked as a node does.
    fn content(&self, manifest: &Manifest, path: &str) -> Vec<u8> {
        let path: AppPath = path.parse().unwrap();
        let mut filling = Filling::new(manifest.file(&path).unwrap());
        let mut content = Vec::new();
        while let Some(chunk) = filling.wanted() {
            let name = chunk.digest.to_string();
            let at = self.path(&format!(
                "repo/image/chunks/{}/{name}",
                name.get(..2).unwrap()
            ));
            let bytes = std::fs::read(at).unwrap();
            filling.take(&bytes).unwrap();
            content.extend(bytes);
        }
        filling.finish().unwrap();
        content
    }
}

fn policy(keys: &[String], threshold: u16) -> PublisherKeys {
    PublisherKeys {
        keys: keys.iter().map(|key| key.parse().unwrap()).collect(),
        threshold,
    }
}

#[test]
fn what_too_few_or_the_wrong_keys_signed_goes_nowhere() {
    let desk = Desk::new();
    for name in ["acme-1", "acme-2", "stranger"] {
        desk.key(name, "ed25519");
    }
    desk.ceremony(&["acme-1.pub", "acme-2.pub"], "2");
    desk.app("2.3.1", "");
    let told = desk.refused(&desk.release("collector", &["--signer", "stranger"]), 1);
    assert!(told.contains("would not count"), "{told}");
    assert!(
        !desk.path("repo/image/metadata/1.acme.json").exists(),
        "nothing is half signed"
    );
    // The operators' keys are not the publisher's.
    desk.refused(&desk.release("collector", &["--signer", "ops-1"]), 1);
    desk.good(&desk.release("collector", &["--signer", "acme-1"]));
    // One key twice is one signature.
    let again = desk.json(&desk.release("collector", &["--signer", "acme-1"]));
    assert_eq!(again["complete"], false, "{again}");
    assert_eq!(again["version"], 1);
    let told = desk.refused(&["app", "publish", "--repo", "repo"], 1);
    assert!(told.contains("signatures are missing"), "{told}");
    // Nobody adds a signature to a release whose content is not here or was changed.
    let chunks = desk.path("repo/image/chunks");
    let hidden = desk.path("hidden");
    std::fs::rename(&chunks, &hidden).unwrap();
    let add = [
        "app",
        "sign",
        "--add",
        "acme/collector@2.3.1",
        "--repo",
        "repo",
        "--signer",
        "acme-2",
    ];
    desk.refused(&add, 1);
    std::fs::rename(&hidden, &chunks).unwrap();
    let added = desk.json(&add);
    assert_eq!(added["complete"], true, "{added}");
    // A byte of it changed by hand: the signatures count no more.
    let path = desk.path("repo/image/metadata/1.acme.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"length\":", "\"length\":1")).unwrap();
    let shown = desk.json(&["publisher", "sign", "repo/image/metadata/1.acme.json"]);
    assert_eq!(shown["complete"], false);
    assert_eq!(
        shown["authorities"][0]["others"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn slips_are_named_before_anything_is_written_or_sent() {
    let desk = Desk::new();
    desk.key("acme-1", "ed25519");
    desk.ceremony(&["acme-1.pub"], "1");
    desk.app("1.0", "colour = \"red\"");
    let sign = |more: &[&'static str]| desk.release("collector", more);
    let told = desk.refused(&sign(&["--signer", "acme-1"]), 1);
    assert!(
        told.contains("app.toml:3:1: unknown field `colour`"),
        "{told}"
    );
    desk.app("1.0", "");
    let other = [
        "app",
        "sign",
        "collector",
        "--manifest",
        "app.toml",
        "--repo",
        "rep",
        "--signer",
        "acme-1",
    ];
    let told = desk.refused(&other, 1);
    assert!(told.contains("edgeward publisher fetch"), "{told}");
    assert!(!desk.path("rep").exists(), "a slip made a folder");
    let told = desk.refused(&sign(&["--signer", "acme-1.pub"]), 64);
    assert!(told.contains("but a public one"), "{told}");
    // What has ended is refused here, not by the cloud after all of it was sent.
    desk.good(&sign(&["--signer", "acme-1", "--expires", "0s"]));
    let publish = ["app", "publish", "--repo", "repo"];
    let told = desk.refused(&publish, 1);
    assert!(
        told.contains("has expired") && told.contains("app sign --renew acme"),
        "{told}"
    );
    let renew = [
        "app", "sign", "--renew", "acme", "--repo", "repo", "--signer", "acme-1",
    ];
    desk.good(&renew);
    let told = desk.refused(&publish, 64);
    assert!(told.contains("no context"), "{told}");
    // Content that was lost comes back with the files that it was cut from.
    let add = [
        "app",
        "sign",
        "--add",
        "acme/collector@1.0",
        "--repo",
        "repo",
        "--signer",
        "acme-1",
    ];
    desk.good(&add);
    std::fs::remove_dir_all(desk.path("repo/image/chunks")).unwrap();
    let told = desk.refused(&add, 1);
    assert!(told.contains("sign the same files again"), "{told}");
    desk.good(&sign(&["--signer", "acme-1"]));
    desk.good(&add);
}

#[test]
fn the_image_role_is_renewed_as_it_stands() {
    let desk = Desk::new();
    desk.key("acme-1", "ed25519");
    let told = desk.refused(&["publisher", "renew", "--repo", "repo"], 1);
    assert!(told.contains("no image role there"), "{told}");
    assert!(
        !desk.path("repo").exists(),
        "an image role of nobody was made"
    );
    desk.ceremony(&["acme-1.pub"], "1");
    let renewed = desk.json(&["publisher", "renew", "--repo", "repo", "--expires", "30d"]);
    assert_eq!(
        (&renewed["role"], &renewed["version"]),
        (&Value::from("targets"), &Value::from(2))
    );
    for change in ["added", "removed"] {
        assert_eq!(
            renewed[change].as_array().map(Vec::len),
            Some(0),
            "{renewed}"
        );
    }
    assert_eq!(renewed["complete"], false);
    desk.sign("2.targets.json", "ops-1");
    assert_eq!(desk.sign("2.targets.json", "ops-2")["complete"], true);
}

#[test]
fn a_release_signed_by_two_of_three_is_what_a_node_verifies() {
    let desk = Desk::new();
    let keys: Vec<String> = ["acme-1", "acme-2", "acme-3"]
        .into_iter()
        .zip(["ed25519", "ecdsa-p256", "ed25519"])
        .map(|(name, kind)| desk.key(name, kind))
        .collect();
    desk.ceremony(&["acme-1.pub", "acme-2.pub", "acme-3.pub"], "2");
    desk.app(
        "2.3.1",
        "writable = [\"data\"]\nidentity = \"line3/collector\"",
    );
    let both = ["--signer", "acme-1", "--signer", "acme-2"];
    desk.good(&desk.release("collector", &both));
    let image = desk.node(1, 1, &policy(&keys, 2)).unwrap();
    assert!(image.refused().is_empty(), "{:?}", image.refused());
    let manifest = desk.manifest(&image, "2.3.1");
    assert_eq!(manifest.identity.as_deref(), Some("line3/collector"));
    assert_eq!(manifest.resources.tasks, Some(8));
    let paths: Vec<&str> = manifest.entries().keys().map(AppPath::as_str).collect();
    assert_eq!(paths, ["bin/collector", "bin/same", "etc/c.toml"]);
    assert_eq!(
        desk.content(&manifest, "bin/collector"),
        std::fs::read(desk.path("collector/bin/collector")).unwrap()
    );
    // The same as an archive is the same release, signed already.
    let tar = Command::new("tar")
        .args(["-czf", "collector.tar.gz", "-C", "collector", "."])
        .current_dir(desk.folder.path())
        .status();
    assert!(tar.unwrap().success());
    let same = desk.json(&desk.release("collector.tar.gz", &["--signer", "acme-3"]));
    assert_eq!(
        (&same["version"], &same["complete"]),
        (&Value::from(1), &Value::from(true))
    );
    assert!(!std::fs::read_dir(desk.path("repo")).unwrap().any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("unpacking")
    }));
    // Other files under a version that was signed are refused, also where the version is written otherwise.
    std::fs::write(desk.path("collector/etc/c.toml"), "x = 2\n").unwrap();
    let told = desk.refused(&desk.release("collector", &both), 1);
    assert!(told.contains("another version"), "{told}");
    desk.app_toml("bin/collector", "2.3.1.0", "");
    let told = desk.refused(&desk.release("collector", &both), 1);
    assert!(told.contains("same version"), "{told}");
    desk.app_toml("bin/collector", "2.4", "");
    let next = desk.json(&desk.release("collector", &both));
    assert_eq!(next["version"], 2);
    assert!(
        next["removed"].as_array().unwrap().is_empty() || next["added"].to_string().contains("2.4")
    );
    let image = desk.node(1, 2, &policy(&keys, 2)).unwrap();
    desk.manifest(&image, "2.3.1");
    assert_eq!(
        desk.content(&desk.manifest(&image, "2.4"), "etc/c.toml"),
        b"x = 2\n"
    );
    // Withdrawn, and a publisher whom the policy asks for more signatures.
    let withdraw = [
        "app",
        "sign",
        "--withdraw",
        "acme/collector@2.3.1",
        "--repo",
        "repo",
    ];
    desk.good(&[&withdraw[..], &both[..]].concat());
    let image = desk.node(1, 3, &policy(&keys, 2)).unwrap();
    let app = "acme/collector".parse().unwrap();
    let now = SystemClock.now();
    assert!(image.release(&app, &"2.3.1".parse().unwrap(), now).is_err());
    let strict = desk.node(1, 3, &policy(&keys, 3)).unwrap();
    assert_eq!(strict.refused().len(), 1);
}

#[test]
fn roots_and_publishers_change_hands_and_old_keys_sign_no_more() {
    let desk = Desk::new();
    let keys: Vec<String> = (1..=3)
        .map(|at| desk.key(&format!("acme-{at}"), "ed25519"))
        .collect();
    desk.ceremony(&["acme-1.pub", "acme-2.pub"], "1");
    desk.app("1.0", "");
    desk.good(&desk.release("collector", &["--signer", "acme-1"]));
    // A first root is made once; keys that are there, and thresholds that nobody meets, are refused as usage.
    let online = desk.online_key();
    let init = [
        "publisher",
        "root",
        "init",
        "--repo",
        "repo",
        "--key",
        "ops-1.pub",
        "--threshold",
        "1",
    ];
    desk.refused(&[&init[..], &["--online", &online]].concat(), 2);
    desk.refused(
        &[
            "publisher",
            "add",
            "acme",
            "--repo",
            "repo",
            "--key",
            "acme-3.pub",
            "--threshold",
            "1",
        ],
        2,
    );
    desk.refused(
        &[
            "publisher",
            "add",
            "b",
            "--repo",
            "repo",
            "--key",
            "acme-3.pub",
            "--threshold",
            "2",
        ],
        2,
    );
    desk.refused(
        &[
            "publisher",
            "add",
            "root",
            "--repo",
            "repo",
            "--key",
            "acme-3.pub",
            "--threshold",
            "1",
        ],
        2,
    );
    desk.refused(
        &["publisher", "root", "add-key", "--repo", "repo", &online],
        2,
    );
    // A new root: under the old keys and the new.
    desk.key("ops-4", "ed25519");
    desk.good(&[
        "publisher",
        "root",
        "add-key",
        "ops-4.pub",
        "--repo",
        "repo",
    ]);
    // A root that is not signed to its end gives its new keys no say.
    let image = "repo/image/metadata/1.targets.json";
    let told = desk.refused(&["publisher", "sign", image, "--signer", "ops-4"], 1);
    assert!(told.contains("would not count"), "{told}");
    desk.good(&[
        "publisher",
        "root",
        "remove-key",
        "ops-1.pub",
        "--role",
        "root",
        "--repo",
        "repo",
    ]);
    let one = desk.sign("2.root.json", "ops-4");
    assert_eq!(one["authorities"][1]["by"], "root 1");
    assert_eq!(one["authorities"][1]["signed"].as_array().unwrap().len(), 0);
    assert!(one["removed"].to_string().contains("root: key"), "{one}");
    desk.sign("2.root.json", "ops-2");
    let done = desk.sign("2.root.json", "ops-1");
    assert_eq!(done["complete"], true, "{done}");
    // Rotated: what the old key signed counts no more, and is signed again under the next version.
    let rotate = [
        "publisher",
        "rotate",
        "acme",
        "--repo",
        "repo",
        "--key",
        "acme-3.pub",
        "--threshold",
        "1",
    ];
    desk.good(&rotate);
    desk.sign("2.targets.json", "ops-1");
    desk.sign("2.targets.json", "ops-3");
    assert_eq!(
        desk.node(2, 1, &policy(&keys, 1)).unwrap().refused().len(),
        1
    );
    desk.refused(
        &[
            "app", "sign", "--renew", "acme", "--repo", "repo", "--signer", "acme-1",
        ],
        1,
    );
    let renewed = desk.json(&[
        "app", "sign", "--renew", "acme", "--repo", "repo", "--signer", "acme-3",
    ]);
    assert_eq!(
        (&renewed["version"], &renewed["complete"]),
        (&Value::from(2), &Value::from(true))
    );
    let image = desk.node(2, 2, &policy(&keys, 1)).unwrap();
    desk.manifest(&image, "1.0");
    let listed = desk.json(&["publisher", "list", "--repo", "repo"]);
    assert_eq!(listed[0]["keys"][0].as_str(), Some(keys[2].as_str()));
    // Changes before the last signature replace each other under one version.
    desk.good(&["publisher", "remove", "acme", "--repo", "repo"]);
    desk.refused(&["publisher", "remove", "acme", "--repo", "repo"], 2);
    assert!(desk.path("repo/image/metadata/3.targets.json").exists());
    desk.good(&[
        "publisher",
        "add",
        "other",
        "--repo",
        "repo",
        "--key",
        "acme-1.pub",
        "--threshold",
        "1",
    ]);
    assert!(!desk.path("repo/image/metadata/4.targets.json").exists());
}

#[test]
fn content_that_no_app_may_have_is_not_signed() {
    let desk = Desk::new();
    desk.key("acme-1", "ed25519");
    desk.ceremony(&["acme-1.pub"], "1");
    let signer = ["--signer", "acme-1"];
    let refused = |desk: &Desk, reason: &str| {
        let told = desk.refused(&desk.release("collector", &signer), 1);
        assert!(told.contains(reason), "{reason}: {told}");
        assert!(
            !desk.path("repo/image/metadata/1.acme.json").exists(),
            "{reason}"
        );
    };
    desk.app("1.0", "");
    let top = desk.path("collector");
    std::os::unix::fs::symlink("/etc/passwd", top.join("out")).unwrap();
    refused(&desk, "out");
    std::fs::remove_file(top.join("out")).unwrap();
    std::os::unix::fs::symlink("nothing", top.join("dangling")).unwrap();
    refused(&desk, "nothing");
    std::fs::remove_file(top.join("dangling")).unwrap();
    let pipe = Command::new("mkfifo")
        .arg(top.join("pipe"))
        .status()
        .unwrap();
    assert!(pipe.success());
    refused(&desk, "neither file, folder nor link");
    std::fs::remove_file(top.join("pipe")).unwrap();
    desk.app_toml("etc/c.toml", "1.0", "");
    refused(&desk, "entry point");
    std::fs::write(top.join("bin/script"), "#!/bin/sh\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(top.join("bin/script"), mode).unwrap();
    desk.app_toml("bin/script", "1.0", "");
    refused(&desk, "interpreter");
    desk.app_toml("bin/collector", "01.0", "");
    refused(&desk, "version");
    desk.app_toml("bin/collector", "1.0", "enviroment = 1");
    refused(&desk, "enviroment");
    // A key that others may read is a bad configuration.
    let key = desk.path("acme-1");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    desk.app_toml("bin/collector", "1.0", "");
    desk.refused(&desk.release("collector", &signer), 64);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    desk.good(&desk.release("collector", &signer));
    desk.refused(&["publisher", "key", "--new", "acme-1"], 1);
}

#[test]
fn a_key_in_a_token_signs_beside_one_in_a_file() {
    let desk = Desk::new();
    let tokens = desk.path("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let config = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(desk.path("softhsm2.conf"), config).unwrap();
    let tool = |program: &str, arguments: &[&str]| {
        let done = Command::new(program)
            .env("SOFTHSM2_CONF", desk.path("softhsm2.conf"))
            .args(arguments)
            .output()
            .expect("softhsm2 and opensc are installed (tests/run does)");
        assert!(done.status.success(), "{done:?}");
    };
    let init = [
        "--init-token",
        "--free",
        "--label",
        "hsm",
        "--so-pin",
        "12345678",
        "--pin",
        "1234",
    ];
    tool("softhsm2-util", &init);
    let key = SoftwareKey::generate().unwrap();
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", key.pkcs8().expose().clone()));
    std::fs::write(desk.path("import.pem"), pem).unwrap();
    let import = desk.path("import.pem");
    tool(
        "softhsm2-util",
        &[
            "--import",
            import.to_str().unwrap(),
            "--token",
            "hsm",
            "--label",
            "acme-2",
            "--id",
            "a2",
            "--pin",
            "1234",
        ],
    );
    let pin = desk.path("pin");
    std::fs::write(&pin, "1234\n").unwrap();
    std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o600)).unwrap();
    let uri = |object: &str| {
        format!(
            "pkcs11:token=hsm;object={object}?module-path={HSM}&pin-source=file:{}",
            pin.display()
        )
    };
    let good = uri("acme-2");
    let file = desk.key("acme-1", "ed25519");
    let token = desk.good(&["publisher", "key", &good]).trim().to_owned();
    assert_eq!(
        token,
        format!("ecdsa-p256:{}", hex::encode(key.public_key().point()))
    );
    desk.refused(&["publisher", "key", &uri("acme-9")], 1);
    desk.refused(&["publisher", "key", "pkcs11:token=hsm"], 2);
    desk.ceremony(&["acme-1.pub", &good], "2");
    desk.app("1.0", "");
    desk.good(&desk.release("collector", &["--signer", "acme-1"]));
    let added = desk.json(&[
        "app",
        "sign",
        "--add",
        "acme/collector@1.0",
        "--repo",
        "repo",
        "--signer",
        &good,
    ]);
    assert_eq!(added["complete"], true, "{added}");
    let image = desk.node(1, 1, &policy(&[file, token], 2)).unwrap();
    desk.manifest(&image, "1.0");
}

#[test]
fn an_oci_layout_becomes_an_app_that_carries_its_signed_image() {
    let desk = Desk::new();
    let key = desk.key("acme-1", "ed25519");
    desk.ceremony(&["acme-1.pub"], "1");
    desk.app("1.0", "");
    let cosign = SoftwareKey::generate().unwrap();
    let image_digest = layout(&desk);
    let payload =
        serde_json::json!({ "critical": { "identity": { "docker-reference": "acme/collector" },
        "image": { "docker-manifest-digest": format!("sha256:{image_digest}") },
        "type": "cosign container image signature" }, "optional": null })
        .to_string();
    std::fs::write(desk.path("payload"), &payload).unwrap();
    use base64::Engine as _;
    let signature = cosign.sign(payload.as_bytes()).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(signature);
    std::fs::write(desk.path("payload.sig"), text).unwrap();
    let signed = [
        "--payload",
        "payload",
        "--payload-signature",
        "payload.sig",
        "--signer",
        "acme-1",
    ];
    // Signatures of an image belong to an image.
    desk.refused(&desk.release("collector", &signed), 2);
    // No image for that machine.
    desk.refused(
        &desk.release(
            "layout",
            &[&signed[..], &["--architecture", "riscv64"]].concat(),
        ),
        1,
    );
    let amd64 = [&signed[..], &["--architecture", "amd64"]].concat();
    desk.good(&desk.release("layout", &amd64));
    let image = desk.node(1, 1, &policy(&[key], 1)).unwrap();
    let manifest = desk.manifest(&image, "1.0");
    assert_eq!(manifest.image, Some(image_digest));
    let mut open = |path: &AppPath| {
        let content = desk.content(&manifest, path.as_str());
        Ok(Box::new(std::io::Cursor::new(content)) as Box<dyn std::io::Read>)
    };
    let named = |key: &SoftwareKey| format!("ecdsa-p256:{}", hex::encode(key.public_key().point()));
    carried::check(&manifest, &mut open, &policy(&[named(&cosign)], 1)).unwrap();
    let other = SoftwareKey::generate().unwrap();
    assert!(carried::check(&manifest, &mut open, &policy(&[named(&other)], 1)).is_err());
    // A lower layer's file that an upper one took away is not in the app.
    let gone: AppPath = "etc/gone".parse().unwrap();
    assert!(!manifest.entries().contains_key(&gone));
    assert!(matches!(
        manifest.entries().get(&"bin/same".parse::<AppPath>().unwrap()),
        Some(Entry::Link(target)) if target == "collector"
    ));
    // A blob that is not what its name says.
    let blob = std::fs::read_dir(desk.path("layout/blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    desk.app_toml("bin/collector", "1.1", "");
    desk.refused(&desk.release("layout", &amd64), 1);
}

/// Two layers of the app's folder, the upper one with a whiteout, under an index for two machines.
fn layout(desk: &Desk) -> Digest {
    let folder = desk.path("layout/blobs/sha256");
    std::fs::create_dir_all(&folder).unwrap();
    let store = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(folder.join(digest.to_string()), bytes).unwrap();
        serde_json::json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let tar = |top: &Path| {
        let done = Command::new("tar")
            .arg("-cf")
            .arg("-")
            .arg("-C")
            .arg(top)
            .arg(".")
            .output();
        done.unwrap().stdout
    };
    let lower = desk.path("lower");
    std::fs::create_dir_all(lower.join("etc")).unwrap();
    std::fs::write(lower.join("etc/gone"), "x").unwrap();
    std::fs::write(desk.path("collector/etc/.wh.gone"), "").unwrap();
    let layers = [tar(&lower), tar(&desk.path("collector"))].map(|layer| {
        let mut named = store(&layer);
        named["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
        named
    });
    let manifest = serde_json::json!({ "schemaVersion": 2, "layers": layers }).to_string();
    let mut named = store(manifest.as_bytes());
    named["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    named["platform"] = serde_json::json!({ "os": "linux", "architecture": "amd64" });
    let mut other = named.clone();
    other["platform"]["architecture"] = "arm64".into();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [other, named] });
    std::fs::write(desk.path("layout/index.json"), index.to_string()).unwrap();
    std::fs::write(
        desk.path("layout/oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )
    .unwrap();
    std::fs::remove_file(desk.path("collector/etc/.wh.gone")).unwrap();
    Digest::of(manifest.as_bytes())
}
