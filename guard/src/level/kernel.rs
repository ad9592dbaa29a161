//! The kernel decides by itself (BPF LSM with fs-verity): what is read, mapped or executed on the volume must be held by the
//! file system to a digest that was admitted. The watch admits what it found listed. The programs stay without a process of
//! ours, so the death of all of them opens nothing.
//!
//! What a kernel is built with says little: whether it asks is found out by having it refuse something.

mod btf;
mod call;
mod code;
mod programs;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{fstat, major, minor};

use crate::book::MAX_FILES;
use crate::digest::Digest;
use crate::verity::{self, SEALED_BYTES, Sealed};
use crate::volume::Volume;
pub use btf::{BadTypes, Types};
use call::Map;
pub use call::NotTaken;
pub use code::BadCode;
use programs::{Hook, Maps, Places};

/// Where the kernel describes its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Most bytes of it.
const MAX_TYPES_BYTES: u64 = 64 * 1024 * 1024;
/// Where things are kept without a process.
const PINS: &str = "/sys/fs/bpf";
const PREFIX: &str = "edgeward-guard";
const ADMITTED: &str = "admitted";
const SETTINGS: &str = "settings";
const PROGRAM_LSM: u32 = 29;
const ATTACH_LSM: u32 = 27;
const MAP_HASH: u32 = 1;
const MAP_ARRAY: u32 = 2;
const MAP_OF_EACH_PROCESSOR: u32 = 6;
const NOT_ALL_AT_ONCE: u32 = 1;
const DIGEST_BYTES: usize = 32;
const NUMBER_BYTES: usize = 4;
const SETTING_BYTES: usize = 8;
const SETTING_COUNT: u32 = 4;
/// A digest with its kind and length, in whole words.
const SCRATCH_BYTES: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    #[error("kernel does not describe its types: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Types(#[from] BadTypes),
    #[error(transparent)]
    Code(#[from] BadCode),
    #[error("kernel refuses a program of this kind: {0}")]
    Refused(#[from] NotTaken),
    #[error("kernel takes programs that decide and does not ask them (lsm=...,bpf)")]
    NotAsked,
    #[error("volume's file system does not seal files (fs-verity)")]
    NoSeals,
    #[error("nothing can be kept without a process in {PINS}: {0}")]
    NotKept(#[source] io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A handle on what the kernel decides by.
#[derive(Debug)]
pub struct Kernel {
    admitted: Map,
    settings: Map,
    folder: PathBuf,
}

/// Has the kernel refuse one read of this process's own, and drops that again. Needs the rights of root.
pub fn probe() -> Result<(), NotLoaded> {
    let description = description()?;
    let types = Types::read(&description)?;
    let hook = types.function(Hook::Read.function())?;
    let process = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let program = load(PROGRAM_LSM, ATTACH_LSM, hook, &programs::probe(process)?)?;
    let mut file = File::open("/dev/zero")?;
    let attached = call::attach(program.as_fd())?;
    let read = file.read(&mut [0]);
    drop(attached);
    match read {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => Ok(()),
        _ => Err(NotLoaded::NotAsked),
    }
}

/// Loads a program of any kind. It decides nothing before it is attached.
pub fn load(kind: u32, attach: u32, function: u32, program: &[u8]) -> Result<OwnedFd, NotTaken> {
    call::load(kind, attach, function, program)
}

/// Takes away what an earlier guard of this volume left in the kernel.
pub fn release(volume: &Volume) -> io::Result<()> {
    remove_all(&prefix(volume)?, None)
}

impl Kernel {
    /// From the return on nothing is admitted. What an earlier guard of this volume had there goes afterwards.
    pub fn over(volume: &Volume) -> Result<Self, NotLoaded> {
        if !verity::can_seal(volume.folder()) {
            return Err(NotLoaded::NoSeals);
        }
        probe()?;
        let description = description()?;
        let types = Types::read(&description)?;
        let places = Places::find(&types)?;
        let entries = u32::try_from(MAX_FILES).unwrap_or(u32::MAX);
        let admitted = Map::make(
            MAP_HASH,
            SEALED_BYTES,
            DIGEST_BYTES,
            entries,
            NOT_ALL_AT_ONCE,
        )?;
        let settings = Map::make(MAP_ARRAY, NUMBER_BYTES, SETTING_BYTES, SETTING_COUNT, 0)?;
        let scratch = Map::make(MAP_OF_EACH_PROCESSOR, NUMBER_BYTES, SCRATCH_BYTES, 1, 0)?;
        let maps = Maps {
            admitted: admitted.fd().as_raw_fd(),
            settings: settings.fd().as_raw_fd(),
            scratch: scratch.fd().as_raw_fd(),
            volume: device(volume)?,
        };
        let prefix = prefix(volume)?;
        let folder = Path::new(PINS).join(format!("{prefix}-{}", std::process::id()));
        let kernel = Self {
            admitted,
            settings,
            folder,
        };
        kernel.enforce(true)?;
        let kept = kernel.keep(&types, &places, &maps);
        if kept.is_err() {
            let _what_there_is = remove(&kernel.folder);
        }
        kept?;
        remove_all(&prefix, Some(&kernel.folder))?;
        Ok(kernel)
    }

    /// What another process of ours has put there. Needs no right but to open the folder.
    pub fn kept(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            admitted: Map::pinned(&folder.join(ADMITTED), SEALED_BYTES, DIGEST_BYTES)?,
            settings: Map::pinned(&folder.join(SETTINGS), NUMBER_BYTES, SETTING_BYTES)?,
            folder: folder.to_owned(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Refuses, or lets everything through.
    pub fn enforce(&self, enforce: bool) -> io::Result<()> {
        self.set(programs::ENFORCE, u64::from(enforce))
    }

    /// Processes that may read what is not admitted; 0 is nobody.
    pub fn set_readers(&self, keeper: i32, watch: i32) -> io::Result<()> {
        for (number, process) in [(programs::KEEPER, keeper), (programs::WATCH, watch)] {
            self.set(number, u64::try_from(process).unwrap_or(0))?;
        }
        Ok(())
    }

    /// What is sealed so has this content, and is let through.
    pub fn admit(&self, sealed: &Sealed, content: &Digest) -> io::Result<()> {
        self.admitted.put(sealed.bytes(), content.bytes())
    }

    /// Admits no longer what is not wanted.
    pub fn keep_only(&self, wanted: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let mut next = self.admitted.next(None)?;
        // As many as there are; one that comes meanwhile is of the same book.
        for _ in 0..MAX_FILES {
            let Some(key) = next else {
                return Ok(());
            };
            next = self.admitted.next(Some(&key))?;
            let mut content = [0; DIGEST_BYTES];
            if self.admitted.look_up(&key, &mut content)? && !wanted(&Digest::new(content)) {
                self.admitted.remove(&key)?;
            }
        }
        Ok(())
    }

    /// How often it refused.
    pub fn refused(&self) -> io::Result<u64> {
        let mut value = [0; SETTING_BYTES];
        self.settings
            .look_up(&programs::REFUSED.to_ne_bytes(), &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    fn set(&self, number: i32, value: u64) -> io::Result<()> {
        self.settings
            .put(&number.to_ne_bytes(), &value.to_ne_bytes())
    }

    /// Everything must be there, or nothing is.
    fn keep(&self, types: &Types<'_>, places: &Places, maps: &Maps) -> Result<(), NotLoaded> {
        let mut folder = std::fs::DirBuilder::new();
        folder
            .mode(0o700)
            .create(&self.folder)
            .map_err(NotLoaded::NotKept)?;
        let pin = |fd: BorrowedFd<'_>, name: &str| {
            call::pin(fd, &self.folder.join(name)).map_err(NotLoaded::NotKept)
        };
        pin(self.admitted.fd(), ADMITTED)?;
        pin(self.settings.fd(), SETTINGS)?;
        for hook in Hook::ALL {
            let program = programs::program(hook, places, maps)?;
            let function = types.function(hook.function())?;
            let loaded = load(PROGRAM_LSM, ATTACH_LSM, function, &program)?;
            let attached = call::attach(loaded.as_fd())?;
            pin(attached.as_fd(), hook.name())?;
        }
        Ok(())
    }
}

fn description() -> Result<Vec<u8>, NotLoaded> {
    let mut description = Vec::new();
    let file = File::open(TYPES).map_err(NotLoaded::Read)?;
    file.take(MAX_TYPES_BYTES)
        .read_to_end(&mut description)
        .map_err(NotLoaded::Read)?;
    Ok(description)
}

fn number(volume: &Volume) -> io::Result<(u64, u64)> {
    let device = fstat(volume.folder())?.st_dev;
    Ok((major(device), minor(device)))
}

/// As the kernel numbers volumes for itself, which is not how it tells them.
fn device(volume: &Volume) -> io::Result<i32> {
    const MINOR_BITS: u32 = 20;
    let (major, minor) = number(volume)?;
    let device = u32::try_from(major << MINOR_BITS | minor).map_err(io::Error::other)?;
    Ok(device.cast_signed())
}

fn prefix(volume: &Volume) -> io::Result<String> {
    let (major, minor) = number(volume)?;
    Ok(format!("{PREFIX}-{major}-{minor}"))
}

fn remove_all(prefix: &str, but: Option<&Path>) -> io::Result<()> {
    let entries = match std::fs::read_dir(PINS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let prefix = format!("{prefix}-");
    for entry in entries {
        let entry = entry?;
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(&prefix));
        if is_ours && Some(entry.path().as_path()) != but {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    std::fs::remove_dir(folder)
}
