//! The one place with `unsafe`: nix makes a group of a descriptor from elsewhere only on the caller's word.
#![allow(unsafe_code, reason = "nix offers no other way to take a group over")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::fanotify::Fanotify;

pub(super) fn group(fd: OwnedFd) -> io::Result<Fanotify> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if kind.as_os_str() != "anon_inode:[fanotify]" {
        return Err(io::Error::other(format!("it is {}", kind.display())));
    }
    // SAFETY: the descriptor is owned, open, and, as the kernel says, one of fanotify.
    Ok(unsafe { Fanotify::from_owned_fd(fd) })
}
