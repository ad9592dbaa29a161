//! Keys and certificates on disk: written whole or not at all, private ones with mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use edgeward_identity::{Secret, SoftwareKey};
use rustls_pki_types::CertificateDer;

/// Largest key or certificate file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024;
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;
/// Everybody but the owner: such bits on a private key file are refused.
const OTHERS: u32 = 0o077;

/// Why a key or certificate file is not usable. All are the operator's or the disk's fault.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: larger than the limit in bytes: {MAX_FILE_BYTES}", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: readable by others than its owner: mode {mode:o}", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{}: not {wanted}", path.display())]
    Content { path: PathBuf, wanted: &'static str },
}

/// Makes a directory that only its owner may enter.
pub(crate) fn private_directory(path: &Path) -> Result<(), FileFault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_fault(path, source))
}

/// Removes a directory and what is in it; one that is not there is no fault.
pub(crate) fn remove_directory(path: &Path) -> Result<(), FileFault> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_fault(path, error)),
    }
}

/// Renames a directory for good; an existing target is a fault.
pub(crate) fn rename_directory(from: &Path, to: &Path) -> Result<(), FileFault> {
    fs::rename(from, to)
        .and_then(|()| flush_parent(to))
        .map_err(|source| io_fault(to, source))
}

/// Names of the files in a directory that are valid text; ours are.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, FileFault> {
    let entries = fs::read_dir(path).map_err(|source| io_fault(path, source))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// Removes a file; one that is not there is no fault.
pub(crate) fn remove(path: &Path) -> Result<(), FileFault> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_fault(path, error)),
    }
}

pub(crate) fn exists(path: &Path) -> Result<bool, FileFault> {
    path.try_exists().map_err(|source| io_fault(path, source))
}

/// Reads a PKCS#8 P-256 key in PEM. A file that others can read is refused.
pub(crate) fn read_key(path: &Path) -> Result<SoftwareKey, FileFault> {
    let wanted = "a p-256 private key in pkcs#8 pem";
    SoftwareKey::from_pkcs8(read_pkcs8(path, wanted)?).map_err(|_| FileFault::Content {
        path: path.to_owned(),
        wanted,
    })
}

pub(crate) fn write_key(path: &Path, key: &SoftwareKey) -> Result<(), FileFault> {
    write_pkcs8(path, key.pkcs8())
}

/// Reads a private key in PEM; `wanted` names it in errors. A file that others can read is refused.
pub(crate) fn read_pkcs8(path: &Path, wanted: &'static str) -> Result<Secret<Vec<u8>>, FileFault> {
    let content = || FileFault::Content {
        path: path.to_owned(),
        wanted,
    };
    let text = read_private(path)?;
    let document = pem::parse(text.expose()).map_err(|_| content())?;
    match document.tag() {
        "PRIVATE KEY" => Ok(Secret::new(document.into_contents())),
        _ => Err(content()),
    }
}

/// Reads a file that holds a secret. One that others can read is refused.
pub(crate) fn read_private(path: &Path) -> Result<Secret<Vec<u8>>, FileFault> {
    let mode = fs::metadata(path)
        .map_err(|source| io_fault(path, source))?
        .permissions()
        .mode();
    if mode & OTHERS != 0 {
        return Err(FileFault::Exposed {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(Secret::new(read(path)?))
}

/// Writes a file that only its owner may read, under a name of the caller's before it gets its own: several processes
/// may write it.
pub(crate) fn write_private(path: &Path, beside: &Path, bytes: &[u8]) -> Result<(), FileFault> {
    write_by(path, beside, bytes, PRIVATE)
}

/// As [`write_private`], but a file that is there stays as it is. Says whether this one is it.
pub(crate) fn create_private(path: &Path, beside: &Path, bytes: &[u8]) -> Result<bool, FileFault> {
    let fault = |source| io_fault(path, source);
    put(beside, bytes, PRIVATE).map_err(fault)?;
    // Unlike a rename this replaces nothing.
    let is_ours = match fs::hard_link(beside, path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(fault(error)),
    };
    remove(beside)?;
    flush_parent(path).map_err(fault)?;
    Ok(is_ours)
}

/// Makes what was done to the names in a directory durable.
pub(crate) fn flush_directory(path: &Path) -> Result<(), FileFault> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_fault(path, source))
}

pub(crate) fn write_pkcs8(path: &Path, pkcs8: &Secret<Vec<u8>>) -> Result<(), FileFault> {
    let text = Secret::new(pem::encode(&pem::Pem::new(
        "PRIVATE KEY",
        pkcs8.expose().clone(),
    )));
    write(path, text.expose().as_bytes(), PRIVATE)
}

/// Reads a file of certificates in PEM, in their order.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let documents = pem::parse_many(read(path)?).map_err(|_| FileFault::Content {
        path: path.to_owned(),
        wanted: "certificates in pem",
    })?;
    Ok(documents
        .into_iter()
        .filter(|document| document.tag() == "CERTIFICATE")
        .map(|document| CertificateDer::from(document.into_contents()))
        .collect())
}

pub(crate) fn write_certificates(
    path: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<(), FileFault> {
    let documents: Vec<pem::Pem> = chain
        .iter()
        .map(|certificate| pem::Pem::new("CERTIFICATE", certificate.to_vec()))
        .collect();
    write(path, pem::encode_many(&documents).as_bytes(), PUBLIC)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileFault> {
    let length = fs::metadata(path)
        .map_err(|source| io_fault(path, source))?
        .len();
    if length > MAX_FILE_BYTES {
        return Err(FileFault::TooLarge {
            path: path.to_owned(),
        });
    }
    fs::read(path).map_err(|source| io_fault(path, source))
}

pub(crate) fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileFault> {
    write(path, bytes, PUBLIC)
}

/// New content beside the old, flushed, renamed over it, directory flushed: after a crash it is one or the other.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileFault> {
    let beside = path.with_extension("new");
    remove(&beside)?;
    write_by(path, &beside, bytes, mode)
}

fn write_by(path: &Path, beside: &Path, bytes: &[u8], mode: u32) -> Result<(), FileFault> {
    let fault = |source| io_fault(path, source);
    put(beside, bytes, mode).map_err(fault)?;
    fs::rename(beside, path).map_err(fault)?;
    flush_parent(path).map_err(fault)
}

/// A new file, on disk.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn flush_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

pub(super) fn io_fault(path: &Path, source: io::Error) -> FileFault {
    FileFault::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeward_identity::Signer;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.key");
        write_key(&path, &SoftwareKey::generate().unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_key(&path),
            Err(FileFault::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_torn_or_foreign_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.key");
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            write(&path, text.as_bytes(), PRIVATE).unwrap();
            assert!(matches!(read_key(&path), Err(FileFault::Content { .. })));
        }
    }

    #[test]
    fn a_key_is_read_back_as_written_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.key");
        let key = SoftwareKey::generate().unwrap();
        write_key(&path, &key).unwrap();
        assert_eq!(read_key(&path).unwrap().public_key(), key.public_key());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
