//! Files that only their owner may read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use edgeward_identity::Secret;

use super::super::Failure;

/// Largest file of a context, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

pub(in crate::cli) fn read_private(path: &Path) -> Result<Secret<String>, Failure> {
    let mode = fs::metadata(path)
        .map_err(Failure::file(path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Failure::Exposed(path.to_owned()));
    }
    String::from_utf8(read_bounded(path)?)
        .map(Secret::new)
        .map_err(|_| Failure::Content {
            path: path.to_owned(),
            wanted: "text",
        })
}

pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, Failure> {
    let size = fs::metadata(path).map_err(Failure::file(path))?.len();
    if size > MAX_FILE_BYTES {
        return Err(Failure::Content {
            path: path.to_owned(),
            wanted: "of a reasonable size",
        });
    }
    fs::read(path).map_err(Failure::file(path))
}

/// Replaces a file as a whole; only its owner may read it.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(Failure::file(path))
}

pub(super) fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Failure::file(path))
}
