//! SHA-256 of programs, kept by the identity of their file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::digest::{Context, SHA256};

/// Largest program that is read, in bytes.
pub const MAX_PROGRAM_BYTES: u64 = 512 * 1024 * 1024;
/// How long reading one may take.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Most programs remembered.
const MAX_REMEMBERED: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;

/// Digests by file: another inode, size or time of change is another program.
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<Known>,
    /// One program is read at a time: whoever asks for many slows down nobody but those who ask.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    turn: u64,
    digests: BTreeMap<Identity, (u64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The program has no digest. No selector on it matches then.
#[derive(Debug, thiserror::Error)]
pub enum NoDigest {
    #[error("program cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("program is larger than the limit in bytes: {MAX_PROGRAM_BYTES}")]
    TooLarge,
    #[error("program could not be read within {} s", READ_DEADLINE.as_secs())]
    TooSlow,
    #[error("program changed while it was read")]
    Changed,
}

impl Digests {
    /// Lower-case hex. Blocks for as long as reading takes.
    pub fn of(&self, file: &mut File) -> Result<String, NoDigest> {
        let identity = identity_of(file)?;
        if let Some(digest) = self.known.lock().get(&identity) {
            return Ok(digest);
        }
        let _turn = self.reading.lock();
        if let Some(digest) = self.known.lock().get(&identity) {
            return Ok(digest);
        }
        if identity.size > MAX_PROGRAM_BYTES {
            return Err(NoDigest::TooLarge);
        }
        let digest = read(file)?;
        if identity_of(file)? != identity {
            return Err(NoDigest::Changed);
        }
        self.known.lock().put(identity, digest.clone());
        Ok(digest)
    }
}

impl Known {
    fn get(&mut self, identity: &Identity) -> Option<String> {
        self.turn += 1;
        let (used, digest) = self.digests.get_mut(identity)?;
        *used = self.turn;
        Some(digest.clone())
    }

    fn put(&mut self, identity: Identity, digest: String) {
        if self.digests.len() >= MAX_REMEMBERED {
            let oldest = self.digests.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(identity, _)| *identity) {
                self.digests.remove(&oldest);
            }
        }
        self.digests.insert(identity, (self.turn, digest));
    }
}

fn identity_of(file: &File) -> Result<Identity, NoDigest> {
    let data = file.metadata()?;
    Ok(Identity {
        device: data.dev(),
        inode: data.ino(),
        size: data.size(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

fn read(file: &mut File) -> Result<String, NoDigest> {
    let begun = Instant::now();
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let count = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hex::encode(context.finish()));
        };
        context.update(bytes);
        total += u64::try_from(count).unwrap_or(u64::MAX);
        if total > MAX_PROGRAM_BYTES {
            return Err(NoDigest::TooLarge);
        }
        if begun.elapsed() > READ_DEADLINE {
            return Err(NoDigest::TooSlow);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn digest_of(digests: &Digests, path: &std::path::Path) -> Result<String, NoDigest> {
        digests.of(&mut File::open(path).unwrap())
    }

    #[test]
    fn a_program_that_is_too_large_has_no_digest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_PROGRAM_BYTES + 1).unwrap();
        let refused = digest_of(&Digests::default(), file.path());
        assert!(matches!(refused, Err(NoDigest::TooLarge)));
    }

    #[test]
    fn another_content_is_another_digest_and_the_same_file_is_read_once() {
        let digests = Digests::default();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for _ in 0..3 {
            assert_eq!(digest_of(&digests, file.path()).unwrap(), abc);
        }
        assert_eq!(digests.known.lock().digests.len(), 1);
        file.write_all(b"d").unwrap();
        assert_ne!(digest_of(&digests, file.path()).unwrap(), abc);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_least_used_goes() {
        let mut known = Known::default();
        let identity = |inode| Identity {
            device: 1,
            inode,
            size: 0,
            modified: (0, 0),
            changed: (0, 0),
        };
        for inode in 0..=MAX_REMEMBERED as u64 {
            known.put(identity(inode), inode.to_string());
            assert!(known.get(&identity(0)).is_some());
        }
        assert_eq!(known.digests.len(), MAX_REMEMBERED);
        assert!(known.get(&identity(1)).is_none());
    }
}
