//! SHA-256 of files, read through a descriptor within bounds.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use ring::digest::{Context, SHA256};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
const CHUNK_BYTES: usize = 128 * 1024;
const DIGEST_BYTES: usize = 32;

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

/// A file has no digest.
#[derive(Debug, thiserror::Error)]
pub enum NoDigest {
    #[error("file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("file is larger than the limit in bytes: {MAX_FILE_BYTES}")]
    TooLarge,
    #[error("file could not be read in time")]
    TooSlow,
}

/// Text that is no digest.
#[derive(Debug, thiserror::Error)]
#[error("digest is not 64 lower-case hex digits")]
pub struct NotADigest;

impl Digest {
    pub fn new(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    pub fn parse(text: &str) -> Result<Self, NotADigest> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bytes = lower.then(|| hex::decode(text).ok()).flatten();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(NotADigest)
    }

    /// Reads the whole file from its beginning; the descriptor's own position stays. Blocks until `due` at most, one
    /// read more or less.
    pub fn of(fd: BorrowedFd<'_>, due: Instant) -> Result<Self, NoDigest> {
        let file = File::from(fd.try_clone_to_owned()?);
        if file.metadata()?.len() > MAX_FILE_BYTES {
            return Err(NoDigest::TooLarge);
        }
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        loop {
            let count = file.read_at(&mut chunk, at)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
                let mut digest = [0; DIGEST_BYTES];
                digest.copy_from_slice(context.finish().as_ref());
                return Ok(Self(digest));
            };
            context.update(bytes);
            at += bytes.len() as u64;
            if at > MAX_FILE_BYTES {
                return Err(NoDigest::TooLarge);
            }
            if Instant::now() >= due {
                return Err(NoDigest::TooSlow);
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_64_lower_case_digits_are_a_digest() {
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::parse(good).unwrap().to_string(), good);
        for bad in [
            "",
            "ba",
            &good.to_uppercase(),
            good.get(1..).unwrap(),
            &format!("{good}00"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_from_its_beginning_wherever_its_descriptor_stands_and_not_beyond_its_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let later = Instant::now() + Duration::from_secs(5);
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(file.as_fd(), later).unwrap().to_string(), abc);
        assert_eq!(Digest::of(file.as_fd(), later).unwrap().to_string(), abc);
        let late = Digest::of(file.as_fd(), Instant::now());
        assert!(matches!(late, Err(NoDigest::TooSlow)));
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(
            Digest::of(file.as_fd(), later),
            Err(NoDigest::TooLarge)
        ));
        file.set_len(MAX_FILE_BYTES).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(
            Digest::of(file.as_fd(), soon),
            Err(NoDigest::TooSlow)
        ));
    }
}
