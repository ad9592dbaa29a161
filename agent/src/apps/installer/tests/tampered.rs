//! What somebody changed on the disk, and what is not the release that was admitted.

use super::*;

fn installed_one() -> (Ground, Installer, Published, Installed) {
    let ground = Ground::new();
    let (installer, mut published) = (ground.installer(), Published::new());
    release(&mut published, "1.0");
    install(&installer, &mut published, APP);
    let one = installer.installed().remove(0);
    (ground, installer, published, one)
}

#[test]
fn every_kind_of_change_to_a_tree_is_found() {
    as_the_agent(|| {
        type Change = fn(&Path);
        let changes: [(&str, Change); 10] = [
            ("a byte", |tree| {
                let path = tree.join("bin/collector");
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[123_456] ^= 1;
                open_up(&path);
                std::fs::write(&path, bytes).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).unwrap();
                std::fs::set_permissions(tree.join("bin"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("a byte more", |tree| {
                let path = tree.join("etc/empty");
                open_up(&path);
                std::fs::write(&path, b"x").unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("a file more", |tree| {
                open_up(&tree.join("etc/empty"));
                std::fs::write(tree.join("etc/more"), b"x").unwrap();
                std::fs::set_permissions(tree.join("etc/empty"), PermissionsExt::from_mode(0o444))
                    .unwrap();
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("a folder more", |tree| {
                open_up(&tree.join("x"));
                std::fs::create_dir(tree.join("more")).unwrap();
            }),
            ("a file less", |tree| {
                open_up(&tree.join("etc/empty"));
                std::fs::remove_file(tree.join("etc/empty")).unwrap();
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("permissions of a file", |tree| {
                open_up(&tree.join("etc/version"));
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("permissions of a folder", |tree| {
                open_up(&tree.join("etc"));
            }),
            ("a link that leads elsewhere", |tree| {
                open_up(&tree.join("lib/x"));
                std::fs::remove_file(tree.join("lib/libx.so")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", tree.join("lib/libx.so")).unwrap();
                std::fs::set_permissions(tree.join("lib"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("a link in a file's place", |tree| {
                open_up(&tree.join("etc/version"));
                std::fs::remove_file(tree.join("etc/version")).unwrap();
                std::os::unix::fs::symlink("empty", tree.join("etc/version")).unwrap();
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
            ("a second name of a file", |tree| {
                open_up(&tree.join("etc/version"));
                std::fs::hard_link(tree.join("etc/version"), tree.join("../second")).unwrap();
                std::fs::set_permissions(
                    tree.join("etc/version"),
                    PermissionsExt::from_mode(0o444),
                )
                .unwrap();
                std::fs::set_permissions(tree.join("etc"), PermissionsExt::from_mode(0o555))
                    .unwrap();
            }),
        ];
        for (what, change) in changes {
            let (_ground, installer, mut published, one) = installed_one();
            installer.check(&one).unwrap();
            change(&one.tree);
            let found = installer.check(&one);
            assert!(
                matches!(found, Err(CheckError::Differs(_))),
                "{what}: {found:?}"
            );
            // Installed again, it gives way to a whole one; what of it still holds is not fetched again.
            let manifest = installer.manifest(&one.digest).unwrap();
            let release = published.installable(APP).unwrap();
            let bytes = published.manifests[&one.digest].clone();
            installer.want(&[&manifest]).unwrap();
            let mut rounds = 0;
            let staged = loop {
                match installer.stage(&release, &bytes) {
                    Ok(staged) => break staged,
                    Err(NotStaged::Missing(digest)) => {
                        assert_eq!(installer.missing(&manifest).unwrap()[0].digest, digest);
                        installer.put(digest, &published.chunks[&digest]).unwrap();
                    }
                    Err(other) => panic!("{what}: {other}"),
                }
                rounds += 1;
                assert!(rounds <= 2, "{what}");
            };
            installer.activate(&staged, WORDS, TEST_NOW).unwrap();
            installer.check(&one).unwrap();
            assert_eq!(current(&installer).as_deref(), Some("1.0"));
            published.chunks.clear();
        }
    });
}

#[test]
fn a_record_that_was_changed_is_of_no_use() {
    as_the_agent(|| {
        let (ground, installer, _, one) = installed_one();
        let folder = ground.state().join(RELEASES).join(one.digest.to_string());
        let receipt = std::fs::read(folder.join("receipt.json")).unwrap();
        for at in (0..receipt.len()).step_by(31) {
            let mut changed = receipt.clone();
            changed[at] ^= 0x80;
            std::fs::write(folder.join("receipt.json"), changed).unwrap();
            assert!(installer.receipt(&one.digest).is_err(), "byte {at}");
        }
        std::fs::write(folder.join("receipt.json"), &receipt).unwrap();
        let path = folder.join("manifest.json");
        let manifest = std::fs::read(&path).unwrap();
        let mut changed = manifest.clone();
        changed[40] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(
            installer.manifest(&one.digest),
            Err(RecordError::Altered(_))
        ));
        assert!(matches!(installer.check(&one), Err(CheckError::Record(_))));
        // At the next start nobody can say what the tree is: it goes.
        let reopened = ground.installer();
        assert_eq!(reopened.installed(), []);
        assert!(!one.tree.exists());
        assert_sound(&ground, &reopened);
    });
}

#[test]
fn a_manifest_or_content_that_is_not_the_release_s_is_not_staged() {
    as_the_agent(|| {
        let ground = Ground::new();
        let (installer, mut published) = (ground.installer(), Published::new());
        let manifest = release(&mut published, "1.0");
        let admitted = published.installable(APP).unwrap();
        fetch(&installer, &published, &manifest);
        let bytes = published.manifests[&admitted.digest()].clone();
        let mut other = bytes.clone();
        other.push(b' ');
        let refused = installer.stage(&admitted, &other);
        assert!(matches!(refused, Err(NotStaged::Manifest(_))));

        for chunk in manifest.chunks() {
            let digest = chunk.digest.to_string();
            let file = ground
                .state()
                .join(CHUNKS)
                .join(digest.split_at(2).0)
                .join(&digest);
            let mut content = std::fs::read(&file).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            std::fs::write(&file, content).unwrap();
            let refused = installer.stage(&admitted, &bytes);
            assert!(matches!(refused, Err(NotStaged::Missing(missing)) if missing == chunk.digest));
            assert_eq!(installer.missing(&manifest).unwrap(), [chunk]);
            assert_sound(&ground, &installer);
            installer
                .put(chunk.digest, &published.chunks[&chunk.digest])
                .unwrap();
        }
        installer.stage(&admitted, &bytes).unwrap();
    });
}

#[test]
fn a_link_in_the_place_of_a_folder_leads_nobody_out_of_the_volume() {
    as_the_agent(|| {
        for place in ["acme", "acme/collector"] {
            let (ground, mut published) = (Ground::new(), Published::new());
            let outside = ground.path().join("outside");
            std::fs::create_dir(&outside).unwrap();
            let installer = ground.installer();
            std::fs::create_dir_all(ground.volume().join(place).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&outside, ground.volume().join(place)).unwrap();
            let manifest = release(&mut published, "1.0");
            let admitted = published.installable(APP).unwrap();
            fetch(&installer, &published, &manifest);
            let bytes = published.manifests[&admitted.digest()].clone();
            let staged = installer.stage(&admitted, &bytes).unwrap();
            installer.activate(&staged, WORDS, TEST_NOW).unwrap_err();
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{place}");
            assert_eq!(installer.installed(), []);
            let (_, swept) = ground.open();
            assert_eq!(swept.foreign, [place]);
            assert!(outside.exists());
        }
        // The staging itself.
        let ground = Ground::new();
        let outside = ground.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("dear"), b"x").unwrap();
        std::os::unix::fs::symlink(&outside, ground.volume().join(".staging")).unwrap();
        let volume = std::panic::catch_unwind(|| ground.installer());
        assert!(volume.is_err(), "no volume whose staging lies elsewhere");
        assert!(outside.join("dear").exists());
    });
}
