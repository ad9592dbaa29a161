//! Chunks on disk, by their digests: what was fetched and is not installed yet.
//!
//! Nothing is taken that nobody asked for, and nothing that is not what its name says; what is read is checked again. A
//! download that was cut goes on where it was: each chunk stands alone.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use edgeward_apps::Digest;
use edgeward_apps::chunk;
use edgeward_apps::manifest::{Chunk, MAX_CHUNK_BYTES, Manifest};
use parking_lot::Mutex;

use super::folder::{Folder, is_full};

const FILE_MODE: u32 = 0o600;
/// What a chunk is called while it is written.
const UNFINISHED: &str = ".new";

/// How much a store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all chunks, in bytes.
    pub bytes: u64,
    /// What is left free on the disk for everybody else, in bytes.
    pub keep_free: u64,
}

/// Chunks in a folder of their own.
#[derive(Debug)]
pub struct ChunkStore {
    folder: Folder,
    limits: Limits,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    held: BTreeMap<Digest, u32>,
    /// Of all that is held.
    bytes: u64,
    wanted: BTreeMap<Digest, u32>,
}

/// Why a chunk is not taken, or the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("chunk was not asked for: {0}")]
    Unwanted(Digest),
    #[error("chunk is not what its name says: {0}")]
    Other(Digest),
    #[error("{needed} bytes of chunks are more than the store may hold: {limit}")]
    Limit { needed: u64, limit: u64 },
    #[error("no room on the disk: {0} bytes are kept free for others")]
    DiskFull(u64),
    #[error("chunk store: {0}")]
    Io(#[from] io::Error),
}

impl ChunkStore {
    /// Takes up what is there. Files that are no chunks, or not finished, are removed.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let folder = Folder::made(path)?;
        let mut index = Index::default();
        for shard in folder.names()? {
            let Ok(inner) = folder.below(&shard) else {
                folder.remove(&shard)?;
                continue;
            };
            for name in inner.names()? {
                match chunk_of(&inner, &shard, &name)? {
                    Some((digest, size)) => index.add(digest, size),
                    None => inner.remove(&name)?,
                }
            }
        }
        Ok(Self {
            folder,
            limits,
            index: Mutex::new(index),
        })
    }

    /// From now on the chunks of these releases are taken, and no others are kept.
    pub fn want(&self, releases: &[&Manifest]) -> Result<(), StoreError> {
        let wanted: BTreeMap<Digest, u32> = releases
            .iter()
            .flat_map(|release| release.chunks())
            .map(|chunk| (chunk.digest, chunk.size))
            .collect();
        let mut index = self.index.lock();
        let gone: Vec<Digest> = index
            .held
            .keys()
            .filter(|held| !wanted.contains_key(held))
            .copied()
            .collect();
        index.wanted = wanted;
        for digest in gone {
            self.forget(&mut index, &digest)?;
        }
        Ok(())
    }

    /// Whether the store may ever hold so much at once.
    pub fn check_size(&self, needed: u64) -> Result<(), StoreError> {
        let limit = self.limits.bytes;
        match needed > limit {
            true => Err(StoreError::Limit { needed, limit }),
            false => Ok(()),
        }
    }

    pub fn holds(&self, digest: &Digest) -> bool {
        self.index.lock().held.contains_key(digest)
    }

    /// Of all chunks.
    pub fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }

    pub fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let mut index = self.index.lock();
        let size = *index
            .wanted
            .get(&digest)
            .ok_or(StoreError::Unwanted(digest))?;
        if index.held.contains_key(&digest) {
            return Ok(());
        }
        chunk::check(&Chunk { digest, size }, bytes).map_err(|_| StoreError::Other(digest))?;
        let needed = index.bytes.saturating_add(u64::from(size));
        self.check_size(needed)?;
        self.check_disk(size)?;
        self.write(&digest, bytes)
            .map_err(|error| match is_full(&error) {
                true => StoreError::DiskFull(self.limits.keep_free),
                false => error.into(),
            })?;
        index.add(digest, size);
        Ok(())
    }

    /// `None`: it is not here. A chunk that is no longer what its name says is dropped.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read_unchecked(digest)? {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Some(_) => self.drop_spoiled(digest).map(|()| None),
            None => Ok(None),
        }
    }

    /// As [`ChunkStore::read`], for whoever checks it before it is used, and has it dropped if it is something else.
    pub(super) fn read_unchecked(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(size) = self.index.lock().held.get(digest).copied() else {
            return Ok(None);
        };
        match read_up_to(&self.folder, &path_of(digest), size) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Err(_) => self.drop_spoiled(digest).map(|()| None),
        }
    }

    /// It is not what its name says, or not there: it will be fetched again.
    pub(super) fn drop_spoiled(&self, digest: &Digest) -> Result<(), StoreError> {
        self.forget(&mut self.index.lock(), digest)
    }

    /// Chunks that are of no use any more: their release was installed.
    pub fn drop_all<'c>(&self, chunks: impl Iterator<Item = &'c Digest>) -> Result<(), StoreError> {
        let mut index = self.index.lock();
        for digest in chunks {
            index.wanted.remove(digest);
            self.forget(&mut index, digest)?;
        }
        Ok(())
    }

    fn forget(&self, index: &mut Index, digest: &Digest) -> Result<(), StoreError> {
        if let Some(size) = index.held.remove(digest) {
            index.bytes = index.bytes.saturating_sub(u64::from(size));
            let (shard, name) = names_of(digest);
            if let Ok(folder) = self.folder.below(&shard) {
                folder.remove(&name)?;
            }
        }
        Ok(())
    }

    fn check_disk(&self, size: u32) -> Result<(), StoreError> {
        let space = self.folder.space()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let keep = self.limits.keep_free;
        match free < keep.saturating_add(u64::from(size)) {
            true => Err(StoreError::DiskFull(keep)),
            false => Ok(()),
        }
    }

    /// Not flushed: a chunk that a power cut tears is found out when it is read, and fetched again.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let (shard, name) = names_of(digest);
        let shard = self.folder.ensure(&shard)?;
        let unfinished = format!("{name}{UNFINISHED}");
        shard.remove(&unfinished)?;
        let written = shard
            .create(&unfinished, FILE_MODE)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| shard.replace(&unfinished, &name));
        if written.is_err() {
            // What went wrong first is what counts.
            let _ = shard.remove(&unfinished);
        }
        written
    }
}

impl Index {
    fn add(&mut self, digest: Digest, size: u32) {
        self.held.insert(digest, size);
        self.bytes = self.bytes.saturating_add(u64::from(size));
    }
}

/// Reads a file that should have so many bytes; of a longer one, one more.
pub(super) fn read_up_to(folder: &Folder, path: &str, size: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    folder
        .file(path)?
        .take(u64::from(size).saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn chunk_of(folder: &Folder, shard: &str, name: &str) -> io::Result<Option<(Digest, u32)>> {
    let Ok(digest) = name.parse::<Digest>() else {
        return Ok(None);
    };
    let bytes = folder.known(name)?.map(|known| known.bytes);
    let size = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    let fits = size.filter(|size| (1..=MAX_CHUNK_BYTES).contains(size) && name.starts_with(shard));
    Ok(fits.map(|size| (digest, size)))
}

fn names_of(digest: &Digest) -> (String, String) {
    let name = digest.to_string();
    (name.chars().take(2).collect(), name)
}

fn path_of(digest: &Digest) -> String {
    let (shard, name) = names_of(digest);
    format!("{shard}/{name}")
}

#[cfg(test)]
mod tests;
