//! Storage in memory that fails on demand: for tests and simulations of every crate that keeps a journal.

use std::collections::BTreeMap;
use std::io;

use super::storage::{SegmentId, SegmentStore, StorageError};

/// Segments in memory. What was not synced can be lost by [`MemoryStore::power_cut`].
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    segments: BTreeMap<SegmentId, MemorySegment>,
    reserve: u64,
    /// Most bytes that fit, reserve included.
    capacity: Option<u64>,
    faults: Vec<Fault>,
    read_only: bool,
    /// Bytes that are still written before the disk is gone; none: it stays.
    life: Option<usize>,
}

/// A failure to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next append writes so many bytes of what it was given and fails.
    AppendAfter(usize),
    /// The next sync fails.
    Sync,
    /// The next truncate fails.
    Truncate,
}

#[derive(Clone, Debug, Default)]
struct MemorySegment {
    data: Vec<u8>,
    synced: usize,
    /// The name itself is on disk.
    named: bool,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk holds no more than this; none: endless.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The same disk, well again.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.faults.clear();
        self.read_only = false;
        self.life = None;
        self
    }

    /// Every change fails from now on, as on a disk that the kernel has made read-only.
    pub fn set_read_only(&mut self) {
        self.read_only = true;
    }

    /// So many bytes are still appended, and then every change fails: the moment before the power is gone.
    pub fn die_after(&mut self, bytes: usize) {
        self.life = Some(bytes);
    }

    /// The power fails: of each segment only what was synced survives, and `keep` bytes of the rest.
    pub fn power_cut(&mut self, keep: usize) {
        self.segments.retain(|_, segment| segment.named || keep > 0);
        for segment in self.segments.values_mut() {
            segment.data.truncate(segment.synced.saturating_add(keep));
        }
    }

    /// The bytes of a segment, to look at or to damage.
    pub fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Vec<u8>> {
        self.segments.get_mut(&id).map(|segment| &mut segment.data)
    }

    /// Bytes in use, reserve included.
    pub fn used(&self) -> u64 {
        let data: u64 = self
            .segments
            .values()
            .map(|segment| segment.data.len() as u64)
            .sum();
        data + self.reserve
    }

    fn writable(&self) -> Result<(), StorageError> {
        if self.read_only {
            return Err(StorageError::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        if self.life == Some(0) {
            return Err(StorageError::Io(io::Error::other("gone")));
        }
        Ok(())
    }

    fn take(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.faults.iter().position(wanted)?;
        Some(self.faults.remove(at))
    }

    fn free(&self) -> u64 {
        self.capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn get(&self, id: SegmentId) -> Result<&MemorySegment, StorageError> {
        self.segments.get(&id).ok_or_else(missing)
    }

    fn get_mut(&mut self, id: SegmentId) -> Result<&mut MemorySegment, StorageError> {
        self.segments.get_mut(&id).ok_or_else(missing)
    }
}

impl SegmentStore for MemoryStore {
    fn list(&self) -> Result<Vec<SegmentId>, StorageError> {
        Ok(self.segments.keys().copied().collect())
    }

    fn len(&self, id: SegmentId) -> Result<u64, StorageError> {
        Ok(self.get(id)?.data.len() as u64)
    }

    fn read(&self, id: SegmentId, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(self
            .get(id)?
            .data
            .iter()
            .skip(offset)
            .take(length)
            .copied()
            .collect())
    }

    fn create(&mut self, id: SegmentId) -> Result<(), StorageError> {
        self.writable()?;
        if self.segments.contains_key(&id) {
            return Err(StorageError::Io(io::ErrorKind::AlreadyExists.into()));
        }
        self.segments.insert(id, MemorySegment::default());
        Ok(())
    }

    fn append(&mut self, id: SegmentId, bytes: &[u8]) -> Result<(), StorageError> {
        self.writable()?;
        if let Some(life) = self.life {
            let fits = life.min(bytes.len());
            self.life = Some(life - fits);
            self.get_mut(id)?.data.extend(bytes.iter().take(fits));
            return match fits == bytes.len() {
                true => Ok(()),
                false => self.writable(),
            };
        }
        let fault = self.take(|fault| matches!(fault, Fault::AppendAfter(_)));
        let free = usize::try_from(self.free()).unwrap_or(usize::MAX);
        let segment = self.get_mut(id)?;
        let fits = match fault {
            Some(Fault::AppendAfter(fits)) => fits.min(bytes.len()),
            _ => free.min(bytes.len()),
        };
        segment.data.extend(bytes.iter().take(fits));
        match fault {
            Some(_) => Err(StorageError::Io(io::Error::other("injected"))),
            None if fits < bytes.len() => Err(StorageError::NoSpace),
            None => Ok(()),
        }
    }

    fn truncate(&mut self, id: SegmentId, length: u64) -> Result<(), StorageError> {
        self.writable()?;
        if self.take(|fault| *fault == Fault::Truncate).is_some() {
            return Err(StorageError::Io(io::Error::other("injected")));
        }
        let segment = self.get_mut(id)?;
        segment
            .data
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        segment.synced = segment.synced.min(segment.data.len());
        Ok(())
    }

    fn sync(&mut self, id: SegmentId) -> Result<(), StorageError> {
        self.writable()?;
        if self.take(|fault| *fault == Fault::Sync).is_some() {
            return Err(StorageError::Io(io::Error::other("injected")));
        }
        let segment = self.get_mut(id)?;
        segment.synced = segment.data.len();
        segment.named = true;
        Ok(())
    }

    fn delete(&mut self, id: SegmentId) -> Result<(), StorageError> {
        self.writable()?;
        self.segments.remove(&id).map(|_| ()).ok_or_else(missing)
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StorageError> {
        self.writable()?;
        let more = bytes.saturating_sub(self.reserve);
        if more > self.free() {
            return Err(StorageError::NoSpace);
        }
        self.reserve += more;
        Ok(())
    }

    fn release_reserve(&mut self) -> Result<(), StorageError> {
        self.writable()?;
        self.reserve = 0;
        Ok(())
    }
}

fn missing() -> StorageError {
    StorageError::Io(io::ErrorKind::NotFound.into())
}
