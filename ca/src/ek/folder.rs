//! The EK trust store on disk: `<dir>/<tier>/*.pem|*.der|*.crt`, `<dir>/listed.txt` and `<dir>/denied.txt` (one SHA-256
//! of an EK's public area in a line, `#` begins a comment).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use edgeward_evidence::ek::roots::{MAX_FILE_BYTES, MAX_ROOTS, RefusedFile};
use edgeward_evidence::ek::{EkFile, EkLists, Terms};
use edgeward_evidence::{Digest, EkRoots};
use edgeward_identity::{Tier, Timestamp};
use ring::digest::{SHA256, digest};
use tokio_util::sync::CancellationToken;

use crate::api::views::EkRootView;
use crate::when::When;

/// How often the folder is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
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

/// The trust store as it is on disk, read again when a file changes.
#[derive(Debug)]
pub struct Watched {
    folder: PathBuf,
    seen: Vec<Seen>,
    current: Arc<ArcSwap<EkRoots>>,
}

/// A file and what tells that it has changed.
type Seen = (PathBuf, u64, Option<SystemTime>);

impl Watched {
    /// A folder that cannot be read stops the start.
    pub fn load(folder: &Path) -> Result<Self, RootsFault> {
        let seen = seen(folder)?;
        let roots = load_and_tell(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            seen,
            current: Arc::new(ArcSwap::from_pointee(roots)),
        })
    }

    pub fn current(&self) -> Arc<ArcSwap<EkRoots>> {
        self.current.clone()
    }

    /// Looks every [`LOOK_EVERY`] until `stop`. What cannot be read leaves what was there before.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(fault) = self.look() {
                tracing::error!(%fault, "ek trust store cannot be read: the one before stays");
            }
        }
    }

    fn look(&mut self) -> Result<(), RootsFault> {
        let now = seen(&self.folder)?;
        if now == self.seen {
            return Ok(());
        }
        self.seen = now;
        self.current.store(Arc::new(load_and_tell(&self.folder)?));
        tracing::info!("ek trust store read again");
        Ok(())
    }
}

fn load_and_tell(folder: &Path) -> Result<EkRoots, RootsFault> {
    let (roots, refused) = load(folder)?;
    for refused in refused {
        tracing::warn!(%refused, "left out of the ek trust store");
    }
    Ok(roots)
}

fn seen(folder: &Path) -> Result<Vec<Seen>, RootsFault> {
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

/// Reads the folder. A folder that is not there holds nothing: then no EK leads anywhere. Files that are not what they
/// should be are named and left out.
pub fn load(folder: &Path) -> Result<(EkRoots, Vec<RefusedFile>), RootsFault> {
    let mut files: Vec<(Tier, String, Vec<u8>)> = Vec::new();
    for tier in [Tier::Hardware, Tier::Listed, Tier::Virtual] {
        let tier_folder = folder.join(tier.as_str());
        for path in sorted_files(&tier_folder)? {
            if files.len() >= MAX_ROOTS {
                return Err(RootsFault::TooMany { path });
            }
            let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
            let name = format!(
                "{tier}/{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            );
            files.push((tier, name, read(&path, limit)?));
        }
    }
    let files: Vec<EkFile<'_>> = files
        .iter()
        .map(|(tier, name, bytes)| EkFile {
            tier: *tier,
            name,
            bytes,
            terms: Terms::default(),
        })
        .collect();
    let listed = digests(&folder.join("listed.txt"))?;
    let denied = digests(&folder.join("denied.txt"))?;
    Ok(EkRoots::load(
        &files,
        EkLists {
            listed,
            denied,
            ..EkLists::default()
        },
    ))
}

/// The certificates in the folder as operators are shown them.
pub fn views(folder: &Path) -> Result<Vec<EkRootView>, RootsFault> {
    let mut views = Vec::new();
    for tier in [Tier::Hardware, Tier::Listed, Tier::Virtual] {
        for path in sorted_files(&folder.join(tier.as_str()))? {
            let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
            for der in certificates_of(&read(&path, limit)?) {
                let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else {
                    continue;
                };
                let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
                views.push(EkRootView {
                    name: parsed.subject().to_string().chars().take(256).collect(),
                    tier: tier.as_str().to_owned(),
                    fingerprint: hex::encode(digest(&SHA256, &der)),
                    expires: When(Timestamp::from_secs(ends)),
                });
            }
        }
    }
    Ok(views)
}

fn certificates_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    match pem::parse_many(bytes) {
        Ok(documents) if !documents.is_empty() => documents
            .into_iter()
            .filter(|document| document.tag() == "CERTIFICATE")
            .map(pem::Pem::into_contents)
            .collect(),
        Ok(_) | Err(_) => vec![bytes.to_vec()],
    }
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
            load(folder.path()),
            Err(RootsFault::Digest { line: 3, .. })
        ));
    }

    #[test]
    fn a_folder_that_is_not_there_roots_nothing() {
        let (_, refused) = load(Path::new("/nonexistent/ek-roots")).unwrap();
        assert!(refused.is_empty());
    }

    #[test]
    fn a_change_is_read_again_and_a_bad_one_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("listed.txt");
        let mut watched = Watched::load(folder.path()).unwrap();
        let first = watched.current.load_full();
        fs::write(&list, "ab".repeat(32)).unwrap();
        watched.look().unwrap();
        let second = watched.current.load_full();
        assert!(!Arc::ptr_eq(&first, &second));
        watched.look().unwrap();
        fs::write(&list, "nonsense").unwrap();
        assert!(watched.look().is_err());
        assert!(Arc::ptr_eq(&second, &watched.current.load_full()));
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("virtual")).unwrap();
        fs::write(folder.path().join("virtual/local.pem"), "nothing").unwrap();
        fs::write(folder.path().join("virtual/readme.txt"), "nothing").unwrap();
        let (_, refused) = load(folder.path()).unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].name, "virtual/local.pem");
    }
}
