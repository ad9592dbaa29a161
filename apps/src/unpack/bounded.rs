//! A reader that gives no more than it may: what a few bytes of gzip unpack to has no other end.

use std::io::{self, Read};

use super::Refused;

pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct TooLarge(u64);

impl<R: Read> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            left: limit,
            limit,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(into)?;
        match self.left.checked_sub(got as u64) {
            Some(left) => {
                self.left = left;
                Ok(got)
            }
            None => Err(io::Error::other(TooLarge(self.limit))),
        }
    }
}

/// The limit, or a fault of what is read.
pub(super) fn refusal(error: io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(TooLarge(limit)) => Refused::TooLarge(*limit),
        None => Refused::Read(error),
    }
}
