use std::os::unix::fs::{MetadataExt, PermissionsExt};

use edgeward_apps::testing::{Content, Published, noise};
use edgeward_identity::testing::TEST_NOW;

use super::super::folder::Folder;
use super::super::testing::{Ground, WORDS, as_the_agent, fetch, install, open_up};
use super::*;

mod delta;
mod full;
mod stopped;
mod tampered;

const APP: &str = "acme/collector";

/// A release with every kind of entry; its version is in its content.
fn release(published: &mut Published, version: &str) -> Manifest {
    let seed = version.bytes().map(u64::from).sum();
    let (program, library) = (noise(300_000, seed), noise(70_000, 7));
    let tree = [
        ("bin/collector", Content::Program(&program)),
        ("lib/deep/er/libx.so.1", Content::Data(&library)),
        ("lib/libx.so", Content::Link("deep/er/libx.so.1")),
        ("etc/empty", Content::Data(b"")),
        ("etc/version", Content::Data(version.as_bytes())),
    ];
    published.release(APP, version, &tree)
}

fn current(installer: &Installer) -> Option<String> {
    let installed = installer.installed();
    let mut current = installed.iter().filter(|it| it.current);
    current.next().map(|it| it.version.to_string())
}

/// What is on the volume by the folders' names, and what the records say, are the same, whole, and all there is.
fn assert_sound(ground: &Ground, installer: &Installer) {
    let root = Folder::open(ground.volume()).unwrap();
    assert_eq!(root.below(".staging").unwrap().names().unwrap(), [""; 0]);
    let installed = installer.installed();
    for one in &installed {
        installer.check(one).unwrap();
        let receipt = installer.receipt(&one.digest).unwrap();
        assert_eq!(receipt.manifest, one.digest);
    }
    let mut expected: Vec<String> = installed
        .iter()
        .map(|one| one.tree.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    if let Some(used) = installed.iter().find(|one| one.current) {
        let link = ground.volume().join(APP).join("current");
        assert_eq!(
            link.canonicalize().unwrap(),
            used.tree.canonicalize().unwrap()
        );
        expected.push("current".to_owned());
    }
    expected.sort_unstable();
    let found = root.below(APP).map(|home| home.names().unwrap());
    assert_eq!(found.unwrap_or_default(), expected);
    let mut records = Folder::open(&ground.state().join(RELEASES))
        .unwrap()
        .names()
        .unwrap();
    let mut digests: Vec<String> = installed.iter().map(|one| one.digest.to_string()).collect();
    digests.sort_unstable();
    records.sort_unstable();
    assert_eq!(records, digests);
}

#[test]
fn a_release_is_whole_in_its_place_and_nobody_may_change_it() {
    as_the_agent(|| {
        let ground = Ground::new();
        let (installer, mut published) = (ground.installer(), Published::new());
        let manifest = release(&mut published, "2.3.1");
        let receipt = install(&installer, &mut published, APP);
        let [one] = installer.installed().try_into().unwrap();
        assert!(one.current);
        assert_eq!(receipt.words, WORDS);
        assert_eq!(receipt.previous, None);
        let files = manifest
            .entries()
            .iter()
            .filter_map(|(path, entry)| match entry {
                edgeward_apps::manifest::Entry::File(file) => Some((path.clone(), file.digest)),
                edgeward_apps::manifest::Entry::Link(_) => None,
            });
        let files: Vec<_> = files.collect();
        let in_receipt: Vec<_> = receipt
            .files
            .iter()
            .map(|(path, it)| (path.clone(), it.sha256))
            .collect();
        assert_eq!(in_receipt, files);
        assert_eq!(installer.receipt(&one.digest).unwrap(), receipt);
        assert_sound(&ground, &installer);
        let mode =
            |path: &str| one.tree.join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("bin/collector"), 0o555);
        assert_eq!(mode("etc/version"), 0o444);
        assert_eq!(mode("lib/deep"), 0o555);
        assert_eq!(mode(""), 0o555);
        assert_eq!(
            std::fs::read_link(one.tree.join("lib/libx.so"))
                .unwrap()
                .to_str(),
            Some("deep/er/libx.so.1")
        );
        assert_eq!(
            std::fs::read(one.tree.join("lib/libx.so")).unwrap(),
            noise(70_000, 7)
        );
        if installer.volume().locks() {
            let open = std::fs::OpenOptions::new()
                .write(true)
                .open(one.tree.join("bin/collector"));
            assert!(open.is_err());
            assert!(std::fs::write(one.tree.join("bin/other"), b"x").is_err());
            assert!(std::fs::write(one.tree.join("other"), b"x").is_err());
            assert!(std::fs::remove_file(one.tree.join("bin/collector")).is_err());
            assert!(std::fs::rename(&one.tree, one.tree.with_extension("away")).is_err());
        }
        assert_eq!(
            installer.store.bytes(),
            0,
            "what is installed lies on the disk once"
        );
    });
}

#[test]
fn one_release_is_kept_for_a_way_back_and_no_more() {
    as_the_agent(|| {
        let ground = Ground::new();
        let (installer, mut published) = (ground.installer(), Published::new());
        for version in ["1.0", "1.1", "1.2"] {
            release(&mut published, version);
            install(&installer, &mut published, APP);
            assert_eq!(current(&installer).as_deref(), Some(version));
            assert_sound(&ground, &installer);
        }
        let versions = |installer: &Installer| -> Vec<String> {
            installer
                .installed()
                .iter()
                .map(|one| one.version.to_string())
                .collect()
        };
        assert_eq!(versions(&installer), ["1.2", "1.1"]);

        // Back, without a byte that travels or is written.
        let back = release(&mut published, "1.1");
        published.orders.apps.get_mut(&back.app).unwrap().back = true;
        let release_back = published.installable(APP).unwrap();
        assert_eq!(fetch(&installer, &published, &back), 0, "all of it is here");
        let tree = installer.installed()[1].tree.clone();
        let inode = tree.join("bin/collector").metadata().unwrap().ino();
        let bytes = published.manifests[&release_back.digest()].clone();
        let staged = installer.stage(&release_back, &bytes).unwrap();
        let receipt = installer.activate(&staged, WORDS, TEST_NOW).unwrap();
        assert_eq!(tree.join("bin/collector").metadata().unwrap().ino(), inode);
        assert_eq!(versions(&installer), ["1.1", "1.2"]);
        assert_sound(&ground, &installer);

        // The same again changes nothing, and forgets nothing of what is kept.
        let again = installer.activate(&staged, WORDS, TEST_NOW).unwrap();
        assert_eq!(again.previous, receipt.previous);
        let (reopened, swept) = ground.open();
        assert_eq!(versions(&reopened), ["1.1", "1.2"]);
        assert_eq!(swept.foreign, [""; 0]);
        assert_sound(&ground, &reopened);
    });
}

#[test]
fn what_is_removed_leaves_nothing_and_the_release_in_use_takes_its_app_along() {
    as_the_agent(|| {
        let ground = Ground::new();
        let (installer, mut published) = (ground.installer(), Published::new());
        for version in ["1.0", "1.1"] {
            release(&mut published, version);
            install(&installer, &mut published, APP);
        }
        published.release("acme/other", "1", &[("x", Content::Program(b"other"))]);
        install(&installer, &mut published, "acme/other");
        let of_app = |installer: &Installer| -> Vec<Installed> {
            let all = installer.installed().into_iter();
            all.filter(|one| one.app.to_string() == APP).collect()
        };
        let [used, kept] = of_app(&installer).try_into().unwrap();
        installer.remove(&kept).unwrap();
        assert!(!kept.tree.exists());
        assert_eq!(of_app(&installer), std::slice::from_ref(&used));
        installer.check(&used).unwrap();
        // A release that is not there any more is no error.
        installer.remove(&kept).unwrap();
        release(&mut published, "1.2");
        install(&installer, &mut published, APP);
        installer.remove(&of_app(&installer)[0]).unwrap();
        assert_eq!(of_app(&installer), []);
        assert!(!ground.volume().join(APP).exists());
        assert!(ground.volume().join("acme/other/current").exists());
        installer.remove(&installer.installed()[0]).unwrap();
        assert!(!ground.volume().join("acme").exists());
        assert_eq!(installer.installed(), []);
        assert_eq!(ground.open().0.installed(), []);
        // And what is gone can be installed again.
        install(&installer, &mut published, APP);
        assert_sound(&ground, &installer);
    });
}
