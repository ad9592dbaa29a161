//! A build without the level of the kernel: there is never one of these.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use crate::digest::Digest;
use crate::verity::Sealed;
use crate::volume::Volume;

#[derive(Debug)]
pub struct Kernel(Infallible);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("not built in")]
pub struct NotLoaded;

impl Kernel {
    pub fn over(_volume: &Volume) -> Result<Self, NotLoaded> {
        Err(NotLoaded)
    }

    pub fn kept(_folder: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn folder(&self) -> &Path {
        match self.0 {}
    }

    pub fn enforce(&self, _enforce: bool) -> io::Result<()> {
        match self.0 {}
    }

    pub fn set_readers(&self, _keeper: i32, _watch: i32) -> io::Result<()> {
        match self.0 {}
    }

    pub fn admit(&self, _sealed: &Sealed, _content: &Digest) -> io::Result<()> {
        match self.0 {}
    }

    pub fn keep_only(&self, _wanted: impl Fn(&Digest) -> bool) -> io::Result<()> {
        match self.0 {}
    }

    pub fn refused(&self) -> io::Result<u64> {
        match self.0 {}
    }
}

pub fn release(_volume: &Volume) -> io::Result<()> {
    Ok(())
}
