//! One sealed file: encrypted, authenticated, replaced as a whole, flushed.
//!
//! Layout, integers big-endian: `"EWSF" | version 1 | epoch u64 | nonce [12] | AES-256-GCM(JSON) and tag`; header and
//! the file's label are the associated data, so that no file passes for another.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use edgeward_identity::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file, in bytes: a full slice in base64 and all else.
pub const MAX_STATE_BYTES: u64 = 64 * 1024 * 1024;
const MAGIC: &[u8; 5] = b"EWSF\x01";
const HEADER_BYTES: usize = MAGIC.len() + 8 + NONCE_LEN;
const FILE_MODE: u32 = 0o600;

/// A file's place, label and key.
pub struct SealedFile {
    path: PathBuf,
    label: &'static [u8],
    key: LessSafeKey,
}

/// A file's content and the epoch it was written in.
#[derive(Debug)]
pub struct Opened<T> {
    pub epoch: u64,
    pub value: T,
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("state file {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("state file {path} is larger than the limit in bytes: {MAX_STATE_BYTES}")]
    TooLarge { path: PathBuf },
    #[error("state file {path} was altered, or sealed by another machine")]
    Altered { path: PathBuf },
    #[error("state file {path} was written by another version: {source}")]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("state key is not {} bytes", super::STATE_KEY_BYTES)]
    Key,
    #[error("the random source failed")]
    Random,
}

impl SealedFile {
    pub fn new(
        path: PathBuf,
        label: &'static [u8],
        key: &Secret<Vec<u8>>,
    ) -> Result<Self, FileError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| FileError::Key)?;
        Ok(Self {
            path,
            label,
            key: LessSafeKey::new(key),
        })
    }

    /// The content; none where there is no file.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<Opened<T>>, FileError> {
        let Some(mut bytes) = read_bounded(&self.path)? else {
            return Ok(None);
        };
        let altered = || FileError::Altered {
            path: self.path.clone(),
        };
        let (header, sealed) = bytes
            .split_at_mut_checked(HEADER_BYTES)
            .ok_or_else(altered)?;
        let rest = header.strip_prefix(MAGIC).ok_or_else(altered)?;
        let (epoch, nonce) = rest.split_first_chunk::<8>().ok_or_else(altered)?;
        let epoch = u64::from_be_bytes(*epoch);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| altered())?;
        let aad = Aad::from([self.label, header].concat());
        let plain = self
            .key
            .open_in_place(nonce, aad, sealed)
            .map_err(|_| altered())?;
        let value = serde_json::from_slice(plain).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })?;
        Ok(Some(Opened { epoch, value }))
    }

    /// Replaces the file. When this returns, the new content is on disk; when it fails, the old one is.
    pub fn write<T: Serialize>(&self, epoch: u64, value: &T) -> Result<(), FileError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| FileError::Random)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&epoch.to_be_bytes());
        header.extend_from_slice(&nonce);
        let mut body = serde_json::to_vec(value).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })?;
        let aad = Aad::from([self.label, &header].concat());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| FileError::Key)?;
        header.extend_from_slice(&body);
        replace(&self.path, &header)
    }
}

/// Reads a whole file within the limit; none where there is none.
pub(crate) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_STATE_BYTES) {
        Ok(Some(bytes))
    } else {
        Err(FileError::TooLarge {
            path: path.to_owned(),
        })
    }
}

/// Writes beside, flushes, renames, flushes the folder.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let staged = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&staged)
        .map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&staged, path).map_err(io)?;
    if let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io)?;
    }
    Ok(())
}
