use std::os::unix::fs::MetadataExt;

use edgeward_apps::testing::Published;

use super::super::testing::{install, with_own_mounts};
use super::*;
use crate::apps::installer::Installer;
use crate::apps::store::Limits;

fn image(folder: &Path) -> Image {
    Image {
        file: folder.join("apps.img"),
        bytes: 2 * MIN_IMAGE_BYTES,
        folder: folder.join("volume"),
    }
}

fn unmount(path: &Path) {
    let done = Command::new("umount").arg(path).status().unwrap();
    assert!(done.success());
}

#[test]
fn what_is_no_file_system_of_its_own_or_starts_nothing_is_no_volume() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let refused = Volume::open(folder.path());
        assert!(matches!(refused, Err(VolumeError::NotAVolume(_))));
        let mount = |options: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "none"]);
            assert!(mount.arg(folder.path()).status().unwrap().success());
        };
        mount("mode=0755,noexec");
        let refused = Volume::open(folder.path());
        assert!(matches!(refused, Err(VolumeError::NoExec(_))));
        unmount(folder.path());
        mount("mode=0777");
        let refused = Volume::open(folder.path());
        assert!(matches!(refused, Err(VolumeError::NotAVolume(_))));
        unmount(folder.path());
        mount("mode=0755");
        Volume::open(folder.path()).unwrap();
        unmount(folder.path());
    });
}

#[test]
fn an_image_is_made_once_with_all_its_space_and_holds_what_was_installed() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path());
        assert_eq!(prepare(&image).unwrap(), Prepared::Made);
        let made = image.file.metadata().unwrap();
        assert_eq!(made.len(), image.bytes);
        assert!(made.blocks() * 512 >= image.bytes, "taken at once");
        assert_eq!(made.mode() & 0o777, 0o600);
        let volume = Volume::open(&image.folder).unwrap();
        let flags = volume.root.space().unwrap().f_flag;
        assert!(flags.contains(StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV));
        assert!(volume.locks());

        let state = folder.path().join("state");
        let limits = Limits {
            bytes: 1 << 20,
            keep_free: 0,
        };
        let (installer, _) = Installer::open(volume, &state, limits).unwrap();
        let mut published = Published::new();
        let program = edgeward_apps::testing::Content::Program(b"a program");
        published.release("acme/x", "1", &[("x", program)]);
        install(&installer, &mut published, "acme/x");
        drop(installer);
        assert_eq!(prepare(&image).unwrap(), Prepared::There);
        unmount(&image.folder);
        assert_eq!(prepare(&image).unwrap(), Prepared::Mounted);
        assert_eq!(
            image.file.metadata().unwrap().ino(),
            made.ino(),
            "not made anew"
        );
        let volume = Volume::open(&image.folder).unwrap();
        let (installer, _) = Installer::open(volume, &state, limits).unwrap();
        installer.check(&installer.installed()[0]).unwrap();
        drop(installer);
        unmount(&image.folder);
    });
}

#[test]
fn an_image_that_cannot_be_made_leaves_nothing_behind() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let good = image(folder.path());
        let small = Image {
            bytes: MIN_IMAGE_BYTES - 1,
            ..good.clone()
        };
        assert!(matches!(prepare(&small), Err(VolumeError::TooSmall)));
        let too_large = Image {
            bytes: 1 << 50,
            ..good.clone()
        };
        assert!(matches!(prepare(&too_large), Err(VolumeError::Io { .. })));
        let nowhere = Image {
            file: folder.path().join("missing/apps.img"),
            ..good.clone()
        };
        assert!(matches!(prepare(&nowhere), Err(VolumeError::Io { .. })));
        std::fs::write(&good.file, b"no file system").unwrap();
        let refused = prepare(&good);
        assert!(matches!(
            refused,
            Err(VolumeError::Program {
                program: "mount",
                ..
            })
        ));
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "the image that is none, and the folder");
    });
}
