//! The half of the EK trust store that is files: `<dir>/<tier>/*.pem|*.der|*.crt|*.cer`, `<dir>/listed.txt` and
//! `<dir>/denied.txt` (one SHA-256 of an EK's public area in a line, `#` begins a comment).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use edgeward_evidence::Digest;
use edgeward_evidence::ek::EkLists;
use edgeward_evidence::ek::roots::{MAX_FILE_BYTES, MAX_ROOTS};
use edgeward_identity::Tier;

/// Largest list of digests, in bytes.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Why the trust store cannot be read. All are the operator's.
#[derive(Debug, thiserror::Error)]
pub enum RootsFault {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: larger than the limit in bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: more files than the limit: {MAX_ROOTS}", path.display())]
    TooMany { path: PathBuf },
    #[error("{}:{line}: not a sha-256 in hex", path.display())]
    Digest { path: PathBuf, line: usize },
}

/// A file and what tells that it has changed.
pub(super) type Seen = (PathBuf, u64, Option<SystemTime>);

/// A file of certificates as it lies there.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    pub(super) tier: Tier,
    /// `<tier>/<file name>`.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Reads the certificates. A folder that is not there holds none: then no EK leads anywhere by it.
pub(super) fn certificates(folder: &Path) -> Result<Vec<OnDisk>, RootsFault> {
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    let mut files = Vec::new();
    for tier in [Tier::Hardware, Tier::Listed, Tier::Virtual] {
        for path in sorted_files(&folder.join(tier.as_str()))? {
            if files.len() >= MAX_ROOTS {
                return Err(RootsFault::TooMany { path });
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push(OnDisk {
                tier,
                name: format!("{tier}/{name}"),
                bytes: read(&path, limit)?,
            });
        }
    }
    Ok(files)
}

/// Reads the lists of EKs.
pub(super) fn lists(folder: &Path) -> Result<EkLists, RootsFault> {
    Ok(EkLists {
        listed: digests(&folder.join("listed.txt"))?,
        denied: digests(&folder.join("denied.txt"))?,
        sets_in_any_order: BTreeSet::new(),
    })
}

/// What tells whether anything in the folder has changed.
pub(super) fn seen(folder: &Path) -> Result<Vec<Seen>, RootsFault> {
    let mut paths = vec![folder.join("listed.txt"), folder.join("denied.txt")];
    for tier in [Tier::Hardware, Tier::Listed, Tier::Virtual] {
        paths.extend(sorted_files(&folder.join(tier.as_str()))?);
    }
    Ok(paths
        .into_iter()
        .filter_map(|path| {
            let about = fs::metadata(&path).ok()?;
            Some((path, about.len(), about.modified().ok()))
        })
        .collect())
}

fn sorted_files(folder: &Path) -> Result<Vec<PathBuf>, RootsFault> {
    let fault = |source| RootsFault::Io {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fault)?.path();
        let known = path.extension().is_some_and(|ending| {
            ["pem", "der", "crt", "cer"]
                .iter()
                .any(|known| ending == *known)
        });
        if known {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn digests(path: &Path) -> Result<BTreeSet<Digest>, RootsFault> {
    let text = match read(path, MAX_LIST_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(RootsFault::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(BTreeSet::new());
        }
        Err(fault) => return Err(fault),
    };
    let mut digests = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let digest = line.parse().map_err(|_| RootsFault::Digest {
            path: path.to_owned(),
            line: index + 1,
        })?;
        digests.insert(digest);
    }
    Ok(digests)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RootsFault> {
    let fault = |source| RootsFault::Io {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(fault)?.len() > limit {
        return Err(RootsFault::TooLarge {
            path: path.to_owned(),
        });
    }
    fs::read(path).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_digest_is_refused_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let good = "ab".repeat(32);
        fs::write(
            folder.path().join("listed.txt"),
            format!("# ours\n{good} # box 1\nxyz\n"),
        )
        .unwrap();
        assert!(matches!(
            lists(folder.path()),
            Err(RootsFault::Digest { line: 3, .. })
        ));
    }

    #[test]
    fn a_folder_that_is_not_there_roots_nothing() {
        let folder = Path::new("/nonexistent/ek-roots");
        assert!(certificates(folder).unwrap().is_empty());
        assert_eq!(lists(folder).unwrap(), EkLists::default());
    }
}
