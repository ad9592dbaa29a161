//! The file system that holds trees of applications and nothing else, so that a guard of all its opens slows nobody down.
//!
//! It is given: a folder where a file system is mounted, by the machine's administrator or by [`prepare`]. The agent
//! mounts nothing while it runs: in its own mount namespace nobody else would see it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgeward_apps::manifest::{Entry, Manifest};
use edgeward_guard::volume::NotAVolume;
use rustix::fs::{FallocateFlags, StatVfsMountFlags};

use super::folder::{self, Folder};

/// Where releases are made before they are moved into their places.
pub(super) const STAGING: &str = ".staging";
/// What a file system needs for itself besides the files, in percent of them.
const SPARE_PERCENT: u64 = 10;
/// Smallest image of a volume, in bytes.
pub const MIN_IMAGE_BYTES: u64 = 8 * 1024 * 1024;
/// Where programs that make and mount a file system are; no variable of the caller's says so.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Is there where the kernel's ext4 can seal files (fs-verity).
const SEALS: &str = "/sys/fs/ext4/features/verity";
/// What is kept of a program's complaint, in bytes.
const MAX_COMPLAINT_BYTES: usize = 500;

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    root: Folder,
    path: PathBuf,
    /// Whether the file system knows files that nobody may change, and lets the agent say so.
    locks: bool,
}

/// A file that holds a file system, and where that is mounted.
#[derive(Clone, Debug)]
pub struct Image {
    pub file: PathBuf,
    /// Its size when it is made.
    pub bytes: u64,
    pub folder: PathBuf,
}

/// What it took to have the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prepared {
    /// Nothing: it was mounted already.
    There,
    Mounted,
    /// The image was made, and mounted.
    Made,
}

/// Why there is no volume. Whose fault: the machine's, or its administrator's.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(transparent)]
    NotAVolume(#[from] NotAVolume),
    #[error("volume is mounted noexec, nothing could start from it: {}", .0.display())]
    NoExec(PathBuf),
    #[error("volume {}: {source}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("image of a volume is below the least size in bytes: {MIN_IMAGE_BYTES}")]
    TooSmall,
    #[error("{program} failed: {complaint}")]
    Program {
        program: &'static str,
        complaint: String,
    },
}

/// More is needed than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("{needed} bytes are needed on the volume of applications, and {free} are free")]
    Bytes { needed: u64, free: u64 },
    #[error("{needed} files are needed on the volume of applications, and {free} are free")]
    Files { needed: u64, free: u64 },
}

impl Volume {
    pub fn open(path: &Path) -> Result<Self, VolumeError> {
        let failed = |source| VolumeError::Io {
            path: path.to_owned(),
            source,
        };
        let checked = edgeward_guard::volume::Volume::open(path).map_err(|error| match error {
            NotAVolume::Io(source) => failed(source),
            other => other.into(),
        })?;
        let root = Folder::of(checked.folder()).map_err(failed)?;
        let space = root.space().map_err(failed)?;
        if space.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return Err(VolumeError::NoExec(path.to_owned()));
        }
        Self::of(root, path).map_err(failed)
    }

    /// A folder that stands for a volume, in tests that mount nothing.
    #[cfg(test)]
    pub(super) fn in_folder(path: &Path) -> Self {
        Self::of(Folder::open(path).unwrap(), path).unwrap()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether files of an installed release can be made such that nobody changes them.
    pub fn locks(&self) -> bool {
        self.locks
    }

    /// Whether a release fits. Asked before it is staged; a volume that fills up meanwhile ends the staging.
    pub(super) fn fits(&self, manifest: &Manifest) -> io::Result<Result<(), NoRoom>> {
        let space = self.root.space()?;
        let block = space.f_frsize.max(1);
        let (mut bytes, mut files) = (0u64, 0u64);
        let mut folders = std::collections::BTreeSet::new();
        for (path, entry) in manifest.entries() {
            folders.extend(path.above());
            let own = match entry {
                Entry::File(file) => file.size,
                Entry::Link(_) => 1,
            };
            bytes = bytes.saturating_add(own.div_ceil(block).saturating_mul(block));
            files = files.saturating_add(1);
        }
        // Folders that lead to it: its own, its app's, its publisher's, and the staging's.
        let folders = (folders.len() as u64).saturating_add(4);
        bytes = bytes.saturating_add(folders.saturating_mul(block));
        files = files.saturating_add(folders);
        let needed = bytes.saturating_add(bytes / 100 * SPARE_PERCENT);
        let free = space.f_bavail.saturating_mul(block);
        if needed > free {
            return Ok(Err(NoRoom::Bytes { needed, free }));
        }
        // Some file systems count no files.
        let free = space.f_favail;
        match space.f_files != 0 && files > free {
            true => Ok(Err(NoRoom::Files {
                needed: files,
                free,
            })),
            false => Ok(Ok(())),
        }
    }

    pub(super) fn root(&self) -> &Folder {
        &self.root
    }

    fn of(root: Folder, path: &Path) -> io::Result<Self> {
        let staging = root.ensure(STAGING)?;
        Ok(Self {
            locks: can_lock(&staging)?,
            root,
            path: path.to_owned(),
        })
    }
}

/// Makes the image if there is none, and mounts it if it is not mounted. For a program of its own that runs before the
/// agent and the guard, in the machine's mount namespace.
pub fn prepare(image: &Image) -> Result<Prepared, VolumeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| VolumeError::Io { path, source }
    };
    std::fs::create_dir_all(&image.folder).map_err(failed(&image.folder))?;
    if edgeward_guard::volume::Volume::open(&image.folder).is_ok() {
        return Ok(Prepared::There);
    }
    let made = !image.file.try_exists().map_err(failed(&image.file))?;
    if made {
        make(image)?;
    }
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop,nodev,nosuid,noatime"]);
    run("mount", mount.arg(&image.file).arg(&image.folder))?;
    Volume::open(&image.folder)?;
    Ok(match made {
        true => Prepared::Made,
        false => Prepared::Mounted,
    })
}

/// All its space is taken at once: a disk that fills up later would fail writes of a file system that has room.
fn make(image: &Image) -> Result<(), VolumeError> {
    use std::os::unix::fs::OpenOptionsExt;
    if image.bytes < MIN_IMAGE_BYTES {
        return Err(VolumeError::TooSmall);
    }
    let staged = image.file.with_extension("new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|file| {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, image.bytes)?;
            Ok(())
        });
    let made = written
        .map_err(|source| VolumeError::Io {
            path: staged.clone(),
            source,
        })
        .and_then(|()| {
            let mut mkfs = Command::new("mkfs.ext4");
            // Discarding would give the space back.
            let options = "nodiscard,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0";
            mkfs.args(["-q", "-F", "-m", "0", "-L", "edgeward-apps", "-E", options]);
            // A kernel that cannot seal files would not mount a file system that says they may be.
            if Path::new(SEALS).exists() {
                // The block over which seals are taken is no larger than the file system's own.
                mkfs.args(["-O", "verity", "-b", "4096"]);
            }
            run("mkfs.ext4", mkfs.arg(&staged))
        })
        .and_then(|()| {
            std::fs::rename(&staged, &image.file).map_err(|source| VolumeError::Io {
                path: image.file.clone(),
                source,
            })
        });
    if made.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    made
}

fn run(program: &'static str, command: &mut Command) -> Result<(), VolumeError> {
    let done = command
        .env_clear()
        .env("PATH", PROGRAMS)
        .stdin(std::process::Stdio::null())
        .output();
    let complaint = match done {
        Ok(done) if done.status.success() => return Ok(()),
        Ok(done) => {
            let kept = done.stderr.get(..MAX_COMPLAINT_BYTES);
            String::from_utf8_lossy(kept.unwrap_or(&done.stderr)).into_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(VolumeError::Program {
        program,
        complaint: complaint.trim().to_owned(),
    })
}

/// Tried on a file, since the file system, the kernel and the agent's capabilities all have a say.
fn can_lock(staging: &Folder) -> io::Result<bool> {
    const PROBE: &str = ".probe";
    staging.remove(PROBE)?;
    let probe = staging.create(PROBE, 0o400)?;
    let locks = folder::lock(&probe).is_ok();
    staging.remove(PROBE)?;
    Ok(locks)
}

#[cfg(test)]
mod tests;
