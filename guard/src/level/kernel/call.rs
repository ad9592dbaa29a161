//! bpf(2). A place with `unsafe`: no crate at hand makes these calls without a compiler of its own.
#![allow(unsafe_code, reason = "no safe way to this system call")]

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

const MAKE_MAP: i32 = 0;
const LOOK_UP: i32 = 1;
const PUT: i32 = 2;
const REMOVE: i32 = 3;
const NEXT: i32 = 4;
const LOAD: i32 = 5;
const PIN: i32 = 6;
const PINNED: i32 = 7;
const ATTACH: i32 = 17;
/// Of the attributes that are given, all others being zero.
const ATTRIBUTES_BYTES: usize = 120;
pub(super) const INSTRUCTION_BYTES: usize = 8;
/// The kernel takes programs that decide under some licences only. Ours, the few instructions in `programs`, may be used
/// under either of these two as well.
const LICENCE: &[u8] = b"Dual MIT/GPL\0";
/// What the kernel may say about a program that it does not take, in bytes.
const LOG_BYTES: usize = 64 * 1024;

/// The kernel's `union bpf_attr`. `'a` is what its pointers lead to.
struct Attributes<'a> {
    bytes: [u8; ATTRIBUTES_BYTES],
    leads_to: PhantomData<&'a mut [u8]>,
}

impl<'a> Attributes<'a> {
    fn new() -> Self {
        Self {
            bytes: [0; ATTRIBUTES_BYTES],
            leads_to: PhantomData,
        }
    }

    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    fn number(self, at: usize, number: u32) -> Self {
        self.put(at, &number.to_ne_bytes())
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.put(at, &fd.as_raw_fd().to_ne_bytes())
    }

    fn read_from(self, at: usize, bytes: &'a [u8]) -> Self {
        self.put(at, &(bytes.as_ptr() as u64).to_ne_bytes())
    }

    fn write_to(self, at: usize, bytes: &'a mut [u8]) -> Self {
        self.put(at, &(bytes.as_mut_ptr() as u64).to_ne_bytes())
    }

    fn call(self, command: i32) -> io::Result<i32> {
        // SAFETY: what the attributes lead to outlives this call; lengths are given beside each of them, or are those of a
        // map's keys and values, which `Map` holds its slices to.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                self.bytes.as_ptr(),
                ATTRIBUTES_BYTES,
            )
        };
        match i32::try_from(done) {
            Ok(done) if done >= 0 => Ok(done),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn open(self, command: i32) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: the kernel has just made this descriptor for us, closed on exec.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// A program that the kernel does not take, and what it says about it if it says anything.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}{log}", if .log.is_empty() { "" } else { ": " })]
pub struct NotTaken {
    #[source]
    pub error: io::Error,
    pub log: String,
}

pub(super) fn load(
    kind: u32,
    attach: u32,
    function: u32,
    program: &[u8],
) -> Result<OwnedFd, NotTaken> {
    let count = program.len() / INSTRUCTION_BYTES;
    let attributes = || {
        Attributes::new()
            .number(0, kind)
            .number(4, u32::try_from(count).unwrap_or(u32::MAX))
            .read_from(8, program)
            .read_from(16, LICENCE)
            .number(68, attach)
            .number(108, function)
    };
    let silent = match attributes().open(LOAD) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Once more, to hear why.
    let mut log = vec![0; LOG_BYTES];
    let length = u32::try_from(LOG_BYTES).unwrap_or(0);
    let told = attributes()
        .number(24, 1)
        .number(28, length)
        .write_to(32, &mut log)
        .open(LOAD);
    if let Ok(fd) = told {
        return Ok(fd);
    }
    let text =
        String::from_utf8_lossy(log.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
    // What was wrong comes last, before what it cost to find out.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("processed"))
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(3)..)
        .unwrap_or_default();
    Err(NotTaken {
        error: silent,
        log: last.join("; "),
    })
}

/// The program is asked from now on, as long as the descriptor or a pin of it is there.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Attributes::new().fd(8, program).open(ATTACH)
}

/// Keeps something without a process, under a name.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attributes = Attributes::new().read_from(0, path.as_bytes_with_nul());
    attributes.fd(8, fd).call(PIN).map(drop)
}

/// What the kernel and programs in it share with us.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    key_bytes: usize,
    value_bytes: usize,
}

impl Map {
    pub(super) fn make(
        kind: u32,
        key_bytes: usize,
        value_bytes: usize,
        entries: u32,
        flags: u32,
    ) -> io::Result<Self> {
        let small = |bytes| u32::try_from(bytes).map_err(io::Error::other);
        let fd = Attributes::new()
            .number(0, kind)
            .number(4, small(key_bytes)?)
            .number(8, small(value_bytes)?)
            .number(12, entries)
            .number(16, flags)
            .open(MAKE_MAP)?;
        Ok(Self {
            fd,
            key_bytes,
            value_bytes,
        })
    }

    /// One that was pinned. Of another shape, it is refused.
    pub(super) fn pinned(path: &Path, key_bytes: usize, value_bytes: usize) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        let fd = Attributes::new()
            .read_from(0, name.as_bytes_with_nul())
            .open(PINNED)?;
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let says = |name: &str, wanted: usize| {
            let line = format!("{name}:\t{wanted}");
            told.lines().any(|told| told == line)
        };
        if !says("key_size", key_bytes) || !says("value_size", value_bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            fd,
            key_bytes,
            value_bytes,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether there was one.
    pub(super) fn look_up(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.fits(key, Some(value))?;
        let attributes = Attributes::new().fd(0, self.fd()).read_from(8, key);
        found(attributes.write_to(16, value).call(LOOK_UP))
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.fits(key, Some(value))?;
        let attributes = Attributes::new().fd(0, self.fd()).read_from(8, key);
        attributes.read_from(16, value).call(PUT).map(drop)
    }

    pub(super) fn remove(&self, key: &[u8]) -> io::Result<bool> {
        self.fits(key, None)?;
        let attributes = Attributes::new().fd(0, self.fd()).read_from(8, key);
        found(attributes.call(REMOVE))
    }

    /// The key after this one; without one, the first.
    pub(super) fn next(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes];
        let mut attributes = Attributes::new().fd(0, self.fd());
        if let Some(key) = key {
            self.fits(key, None)?;
            attributes = attributes.read_from(8, key);
        }
        let found = found(attributes.write_to(16, &mut next).call(NEXT))?;
        Ok(found.then_some(next))
    }

    fn fits(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let good = key.len() == self.key_bytes
            && value.is_none_or(|value| value.len() == self.value_bytes);
        match good {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn found(done: io::Result<i32>) -> io::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
