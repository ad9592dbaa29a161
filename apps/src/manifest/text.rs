//! A manifest as it is written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Chunk, Entry, EntryPoint, File, MAX_CHUNKS, Malformed, Manifest, Resources};
use crate::digest::{DIGEST_BYTES, Digest};
use crate::name::{AppName, Version};
use crate::path::AppPath;

pub(super) const FORMAT: &str = "edgeward-app/1";
/// A chunk in the packed list: its length (big-endian), then its digest.
const CHUNK_RECORD_BYTES: usize = 4 + DIGEST_BYTES;

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    pub(super) format: String,
    pub(super) app: AppName,
    pub(super) version: Version,
    pub(super) entry: EntryPoint,
    #[serde(default)]
    pub(super) resources: Resources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) writable: Vec<AppPath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Digest>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) host_libraries: bool,
    pub(super) entries: Vec<EntryText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryText {
    pub(super) path: AppPath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    /// Packed and in base64: a list in JSON would be three times as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<String>,
}

impl EntryText {
    pub(super) fn read(self) -> Result<Entry, Malformed> {
        match (self.link, self.sha256, self.size, self.chunks) {
            (Some(target), None, None, None) if !self.executable => Ok(Entry::Link(target)),
            (None, Some(digest), Some(size), chunks) => {
                let chunks = unpack_chunks(&chunks.unwrap_or_default())
                    .ok_or(Malformed::Chunks(self.path))?;
                Ok(Entry::File(File {
                    digest,
                    size,
                    executable: self.executable,
                    chunks,
                }))
            }
            _ => Err(Malformed::Kind(self.path)),
        }
    }
}

impl Text {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let entries = manifest.entries.iter().map(|(path, entry)| match entry {
            Entry::Link(target) => EntryText {
                path: path.clone(),
                link: Some(target.clone()),
                sha256: None,
                size: None,
                executable: false,
                chunks: None,
            },
            Entry::File(file) => EntryText {
                path: path.clone(),
                link: None,
                sha256: Some(file.digest),
                size: Some(file.size),
                executable: file.executable,
                chunks: (!file.chunks.is_empty()).then(|| pack_chunks(&file.chunks)),
            },
        });
        Self {
            format: FORMAT.to_owned(),
            app: manifest.app.clone(),
            version: manifest.version.clone(),
            entry: manifest.entry.clone(),
            resources: manifest.resources,
            identity: manifest.identity.clone(),
            writable: manifest.writable.clone(),
            image: manifest.image,
            host_libraries: manifest.host_libraries,
            entries: entries.collect(),
        }
    }
}

fn pack_chunks(chunks: &[Chunk]) -> String {
    let mut bytes = Vec::with_capacity(chunks.len() * CHUNK_RECORD_BYTES);
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.size.to_be_bytes());
        bytes.extend_from_slice(chunk.digest.as_bytes());
    }
    STANDARD.encode(bytes)
}

fn unpack_chunks(text: &str) -> Option<Vec<Chunk>> {
    let bytes = STANDARD.decode(text).ok()?;
    let (records, rest) = bytes.as_chunks::<CHUNK_RECORD_BYTES>();
    if !rest.is_empty() || records.len() > MAX_CHUNKS {
        return None;
    }
    let chunk = |record: &[u8; CHUNK_RECORD_BYTES]| {
        let (size, digest) = record.split_first_chunk::<4>()?;
        Some(Chunk {
            size: u32::from_be_bytes(*size),
            digest: Digest::from_bytes(digest.try_into().ok()?),
        })
    };
    records.iter().map(chunk).collect()
}
