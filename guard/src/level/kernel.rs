//! Whether this kernel takes programs that decide about exec (BPF LSM), found out by loading one that allows everything
//! and dropping it again. What a kernel is built with says little: some refuse all the same.

mod call;
mod names;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

pub use names::{BadNames, function};

/// Where the kernel says how its functions are numbered.
const NAMES: &str = "/sys/kernel/btf/vmlinux";
/// Most bytes of it.
const MAX_NAMES_BYTES: u64 = 64 * 1024 * 1024;
/// Asked at every exec.
const HOOK: &str = "bpf_lsm_bprm_check_security";
const PROGRAM_LSM: u32 = 29;
const ATTACH_LSM: u32 = 27;
/// `r0 = 0; exit`
const ALLOW: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    #[error("kernel does not say how its functions are numbered: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Names(#[from] BadNames),
    #[error("kernel refuses a program of this kind: {0}")]
    Refused(#[source] io::Error),
}

/// Loads a program for exec and drops it. Needs the rights of root.
pub fn probe() -> Result<(), NotLoaded> {
    let mut names = Vec::new();
    let file = File::open(NAMES).map_err(NotLoaded::Read)?;
    file.take(MAX_NAMES_BYTES)
        .read_to_end(&mut names)
        .map_err(NotLoaded::Read)?;
    let hook = function(&names, HOOK)?;
    load(PROGRAM_LSM, ATTACH_LSM, hook)
        .map(drop)
        .map_err(NotLoaded::Refused)
}

/// A program of this kind that allows everything.
pub fn load(kind: u32, attach: u32, function: u32) -> io::Result<OwnedFd> {
    call::load(kind, attach, function, &ALLOW)
}
