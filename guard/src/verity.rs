//! Sealing of files by the file system (fs-verity): from then on nobody writes to the file, and every page of it that is
//! read is held against a digest, which the kernel tells at once.
#![allow(unsafe_code, reason = "no safe way to these two calls of the kernel's")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;

const ENABLE: libc::c_ulong = 0x4080_6685;
const MEASURE: libc::c_ulong = 0xc004_6686;
const SHA256: u32 = 1;
const DIGEST_BYTES: u16 = 32;
/// Bytes of what the kernel tells: kind, length, digest.
pub const SEALED_BYTES: usize = 36;
/// Largest block over which a digest is taken, in bytes: the smallest page of any machine.
const MAX_BLOCK_BYTES: u64 = 4096;
const ENABLE_BYTES: usize = 128;

/// What a sealed file holds, as the kernel's own digest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed([u8; SEALED_BYTES]);

impl Sealed {
    pub fn bytes(&self) -> &[u8; SEALED_BYTES] {
        &self.0
    }
}

/// Seals a file that is open for reading and that nobody has open for writing. False: this file system cannot.
pub fn seal(file: &File) -> io::Result<bool> {
    let space = nix::sys::statvfs::fstatvfs(file)?;
    let block = u32::try_from(MAX_BLOCK_BYTES.min(space.block_size())).map_err(io::Error::other)?;
    let mut order = [0_u8; ENABLE_BYTES];
    for (place, word) in order.chunks_exact_mut(4).zip([1, SHA256, block]) {
        place.copy_from_slice(&u32::to_ne_bytes(word));
    }
    // SAFETY: the kernel reads so many bytes of `order`, which names no other memory.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE, order.as_ptr()) };
    match result(done) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EEXIST) => Ok(true),
            Some(libc::EOPNOTSUPP | libc::ENOTTY) => Ok(false),
            _ => Err(error),
        },
    }
}

/// What the file was sealed with; `None` if it was not.
pub fn measure(file: BorrowedFd<'_>) -> io::Result<Option<Sealed>> {
    let mut told = [0_u8; SEALED_BYTES];
    if let Some(room) = told.get_mut(2..4) {
        room.copy_from_slice(&DIGEST_BYTES.to_ne_bytes());
    }
    // SAFETY: the kernel writes at most as many bytes behind the first four as these say.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, told.as_mut_ptr()) };
    match result(done) {
        Ok(()) => Ok(Some(Sealed(told))),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOTTY) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether files below this folder can be sealed.
pub fn can_seal(folder: &File) -> bool {
    let mut told = [0_u8; SEALED_BYTES];
    // SAFETY: as above; a folder is never sealed, so nothing is written.
    let done = unsafe { libc::ioctl(folder.as_fd().as_raw_fd(), MEASURE, told.as_mut_ptr()) };
    result(done).is_err_and(|error| error.raw_os_error() == Some(libc::ENODATA))
}

fn result(done: i32) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sealed_is_not_and_says_so() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        // Memory file systems cannot.
        assert!(!can_seal(&File::open(folder.path()).unwrap()));
        assert!(!seal(&file).unwrap());
        assert_eq!(measure(file.as_fd()).unwrap(), None);
        std::fs::write(&path, "other").unwrap();
    }
}
