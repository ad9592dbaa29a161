//! Chunks of a release that other releases brought already: read from their trees, so that only what is new travels, and
//! nothing lies on the disk twice.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use edgeward_apps::Digest;
use edgeward_apps::manifest::{Entry, Manifest};

use super::folder::Folder;

/// Most chunks of installed releases that are known for nodes nearby: a few tens of MiB of memory.
const MAX_GIVEN: usize = 262_144;

/// Where chunks are found. Bounded by what is wanted, however much is installed.
#[derive(Debug, Default)]
pub(super) struct SharedChunks {
    /// `None`: no tree has it.
    wanted: BTreeMap<Digest, Option<Place>>,
}

#[derive(Debug)]
struct Place {
    /// On the volume.
    path: Arc<str>,
    offset: u64,
    /// In bytes.
    size: u32,
}

impl SharedChunks {
    pub(super) fn wanted_by(releases: &[&Manifest]) -> Self {
        let chunks = releases.iter().flat_map(|release| release.chunks());
        Self {
            wanted: chunks.map(|chunk| (chunk.digest, None)).collect(),
        }
    }

    /// Takes note of what a tree has of the wanted chunks, by its manifest.
    pub(super) fn look_into(&mut self, tree: &str, manifest: &Manifest) {
        for (path, entry) in manifest.entries() {
            let Entry::File(file) = entry else { continue };
            let path: Arc<str> = format!("{tree}/{path}").into();
            let mut offset = 0u64;
            for chunk in &file.chunks {
                if let Some(place @ None) = self.wanted.get_mut(&chunk.digest) {
                    *place = Some(Place {
                        path: path.clone(),
                        offset,
                        size: chunk.size,
                    });
                }
                offset = offset.saturating_add(u64::from(chunk.size));
            }
        }
    }

    /// Takes note of all that a tree has, within the limit.
    pub(super) fn know(&mut self, tree: &str, manifest: &Manifest) {
        for chunk in manifest.chunks() {
            if self.wanted.len() >= MAX_GIVEN {
                break;
            }
            self.wanted.entry(chunk.digest).or_default();
        }
        self.look_into(tree, manifest);
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        matches!(self.wanted.get(digest), Some(Some(_)))
    }

    /// A chunk that is not what it should be is not said to be here again: it will be fetched.
    pub(super) fn read(&mut self, volume: &Folder, digest: &Digest) -> Option<Vec<u8>> {
        let place = self.wanted.get_mut(digest)?;
        let found = read_at(volume, place.as_ref()?);
        match found {
            Ok(bytes) if Digest::of(&bytes) == *digest => Some(bytes),
            _ => {
                *place = None;
                None
            }
        }
    }
}

fn read_at(volume: &Folder, place: &Place) -> io::Result<Vec<u8>> {
    let mut file = volume.file(&place.path)?;
    file.seek(SeekFrom::Start(place.offset))?;
    let mut bytes = Vec::with_capacity(place.size as usize);
    file.take(u64::from(place.size)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
