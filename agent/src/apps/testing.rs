//! A ground to install on, in tests: a folder that stands for the volume, or a real file system in an image.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use edgeward_apps::AppRules;
use edgeward_apps::manifest::Manifest;
use edgeward_apps::testing::{Published, TEST_NODE};
use edgeward_identity::testing::TEST_NOW;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::folder::{self, Folder};
use super::installer::Installer;
use super::receipt::{Receipt, Words};
use super::store::Limits;
use super::sweep::Swept;
use super::volume::Volume;
use crate::view::{self, HeldSlice};

pub(super) const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    keep_free: 64 << 10,
};
pub(super) const WORDS: Words = Words {
    root: 1,
    timestamp: 2,
    snapshot: 3,
    targets: 4,
    publisher: 5,
    director: 6,
    policy: 7,
};

pub(super) struct Ground {
    folder: tempfile::TempDir,
    volume: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Ground {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        Self {
            folder,
            volume,
            mounts: Vec::new(),
        }
    }

    /// With the volume on a file system of its own. The caller's thread must have mounts of its own.
    pub(super) fn mounted(bytes: u64, options: &[&str]) -> Self {
        let mut ground = Self::new();
        let (image, volume) = (ground.path().join("volume.img"), ground.volume.clone());
        ground.mount(&image, &volume, bytes, options);
        ground
    }

    /// Makes a file system in an image and mounts it.
    pub(super) fn mount(&mut self, image: &Path, on: &Path, bytes: u64, options: &[&str]) {
        std::fs::File::create(image)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-m", "0"]).args(options).arg(image);
        assert!(mkfs.status().unwrap().success());
        self.mount_again(image, on);
    }

    pub(super) fn mount_again(&mut self, image: &Path, on: &Path) {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-o", "loop"]).arg(image).arg(on);
        assert!(mount.status().unwrap().success(), "mount {}", on.display());
        self.mounts.push(on.to_owned());
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn volume(&self) -> &Path {
        &self.volume
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(super) fn open(&self) -> (Installer, Swept) {
        let volume = match self.mounts.contains(&self.volume) {
            true => Volume::open(&self.volume).unwrap(),
            false => Volume::in_folder(&self.volume),
        };
        Installer::open(volume, &self.state(), LIMITS).unwrap()
    }

    pub(super) fn installer(&self) -> Installer {
        self.open().0
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
        // Trees are locked; the temporary folder's own removal would stop at them.
        if let Ok(volume) = Folder::open(&self.volume) {
            for name in volume.names().unwrap_or_default() {
                let _ = volume.remove(&name);
            }
        }
    }
}

/// Lets a file and its folder be written to, as root does who means it.
pub(super) fn open_up(path: &Path) {
    for above in [path, path.parent().unwrap()] {
        if let Ok(file) = std::fs::File::open(above) {
            folder::unlock(&file).unwrap();
            let mode = if file.metadata().unwrap().is_dir() {
                0o755
            } else {
                0o644
            };
            std::fs::set_permissions(above, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

/// Whatever is missing comes from the publisher.
pub(super) fn fetch(installer: &Installer, published: &Published, manifest: &Manifest) -> u64 {
    installer.want(&[manifest]).unwrap();
    let mut bytes = 0;
    for chunk in installer.missing(manifest).unwrap() {
        installer
            .put(chunk.digest, &published.chunks[&chunk.digest])
            .unwrap();
        bytes += u64::from(chunk.size);
    }
    bytes
}

/// Fetches, stages and activates what is assigned of an app.
pub(super) fn install(installer: &Installer, published: &mut Published, app: &str) -> Receipt {
    let release = published.installable(app).unwrap();
    fetch(installer, published, release.manifest());
    let bytes = published.manifests[&release.digest()].clone();
    let staged = installer.stage(&release, &bytes).unwrap();
    installer.activate(&staged, WORDS, TEST_NOW).unwrap()
}

/// On a thread that may do no more than the agent's unit lets it.
pub(super) fn as_the_agent(test: impl FnOnce() + Send + 'static) {
    let limited = || {
        let own = CapabilitySet::NET_ADMIN
            | CapabilitySet::NET_BIND_SERVICE
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::LINUX_IMMUTABLE;
        let mut sets = capabilities(None).unwrap();
        sets.effective &= own;
        sets.permitted &= own;
        set_capabilities(None, sets).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(limited).join() {
        std::panic::resume_unwind(panic);
    }
}

/// On a thread whose mounts nobody else sees.
pub(super) fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
    let apart = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let mut private = Command::new("mount");
        let private = private.args(["--make-rprivate", "/"]).status().unwrap();
        assert!(private.success());
        test();
    };
    if let Err(panic) = std::thread::spawn(apart).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A policy for this node that says something of applications alone.
pub(super) fn slice(number: u64, apps: AppRules) -> Arc<HeldSlice> {
    let mut slice = view::testing::slice(number, TEST_NODE);
    slice.apps = apps;
    view::testing::held(slice)
}
