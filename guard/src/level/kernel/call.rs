//! The second place with `unsafe`: no crate at hand makes this call (bpf(2)).
#![allow(unsafe_code, reason = "no safe way to this system call")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

const LOAD: i32 = 5;
/// Of the attributes that are given, all others being zero.
const ATTRIBUTES_BYTES: usize = 120;
const INSTRUCTION_BYTES: usize = 8;
const LICENCE: &[u8] = b"Apache-2.0\0";

/// Places in the kernel's `union bpf_attr`, in bytes.
mod at {
    pub(super) const KIND: usize = 0;
    pub(super) const COUNT: usize = 4;
    pub(super) const INSTRUCTIONS: usize = 8;
    pub(super) const LICENCE: usize = 16;
    pub(super) const ATTACH: usize = 68;
    pub(super) const FUNCTION: usize = 108;
}

pub(super) fn load(kind: u32, attach: u32, function: u32, program: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = [0_u8; ATTRIBUTES_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = attributes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let count = u32::try_from(program.len() / INSTRUCTION_BYTES).map_err(io::Error::other)?;
    put(at::KIND, &kind.to_ne_bytes());
    put(at::COUNT, &count.to_ne_bytes());
    put(at::INSTRUCTIONS, &(program.as_ptr() as u64).to_ne_bytes());
    put(at::LICENCE, &(LICENCE.as_ptr() as u64).to_ne_bytes());
    put(at::ATTACH, &attach.to_ne_bytes());
    put(at::FUNCTION, &function.to_ne_bytes());
    // SAFETY: the kernel reads `attributes`, `program` and `LICENCE`, all of which outlive the call, in the lengths given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LOAD, attributes.as_ptr(), ATTRIBUTES_BYTES) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
