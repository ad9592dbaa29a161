//! A folder with an image repository, or the part of one that an operator or a publisher works on: metadata, manifests
//! and chunks as the cloud serves them and as a USB stick carries them. Nothing in it is believed for where it lies.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use edgeward_apps::author::{Envelope, MAX_METADATA_BYTES};
use edgeward_apps::chunk;
use edgeward_apps::manifest::{Chunk, MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES, Manifest};
use edgeward_apps::{AppName, Digest, Version};

use super::Failure;

/// Most files of metadata that a folder is looked through for.
const MAX_FILES: usize = 100_000;

/// The folder.
#[derive(Debug)]
pub(super) struct Repo {
    folder: PathBuf,
}

impl Repo {
    /// The folder need not exist: whoever writes makes it.
    pub(super) fn new(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder }
    }

    /// The folder, role and version that a file of metadata belongs to, by its path.
    pub(super) fn of_file(file: &Path) -> Result<(Self, String, u64), Failure> {
        let wrong = || {
            Failure::Usage(format!(
                "{}: metadata lies in DIR/image/metadata and is called N.root.json, N.targets.json or N.<publisher>.json",
                file.display()
            ))
        };
        let absolute = std::path::absolute(file).map_err(Failure::file(file))?;
        let name = absolute.file_name().and_then(|name| name.to_str());
        let (version, role) = name.and_then(role_of).ok_or_else(wrong)?;
        let folder = absolute
            .parent()
            .filter(|folder| folder.ends_with("image/metadata"))
            .and_then(Path::parent)
            .and_then(Path::parent);
        Ok((Self::new(folder.ok_or_else(wrong)?), role, version))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn metadata_path(&self, role: &str, version: u64) -> PathBuf {
        self.metadata_folder()
            .join(format!("{version}.{role}.json"))
    }

    pub(super) fn metadata_folder(&self) -> PathBuf {
        self.folder.join("image/metadata")
    }

    /// Versions of a role that are here.
    pub(super) fn versions(&self, role: &str) -> Result<BTreeSet<u64>, Failure> {
        let all = self.all()?.into_iter();
        Ok(all
            .filter(|(_, own)| own == role)
            .map(|(version, _)| version)
            .collect())
    }

    /// Roles of which there is metadata.
    pub(super) fn roles(&self) -> Result<BTreeSet<String>, Failure> {
        Ok(self.all()?.into_iter().map(|(_, role)| role).collect())
    }

    fn all(&self) -> Result<Vec<(u64, String)>, Failure> {
        let folder = self.metadata_folder();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file(folder)(error)),
        };
        let names = entries
            .take(MAX_FILES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| role_of(&name)).collect())
    }

    /// The newest metadata of a role.
    pub(super) fn newest(&self, role: &str) -> Result<Option<(u64, Envelope)>, Failure> {
        match self.versions(role)?.last() {
            Some(version) => self.read(role, *version).map(|read| Some((*version, read))),
            None => Ok(None),
        }
    }

    pub(super) fn read(&self, role: &str, version: u64) -> Result<Envelope, Failure> {
        let path = self.metadata_path(role, version);
        let unsound =
            |why: &dyn std::fmt::Display| Failure::Unsound(format!("{}: {why}", path.display()));
        let bytes = read_bounded(&path, MAX_METADATA_BYTES)?;
        let envelope = Envelope::parse(&bytes).map_err(|why| unsound(&why))?;
        let stated = envelope.version().map_err(|why| unsound(&why))?;
        match stated == version {
            true => Ok(envelope),
            false => Err(unsound(&format_args!("is of version {stated}"))),
        }
    }

    pub(super) fn write(
        &self,
        role: &str,
        version: u64,
        envelope: &Envelope,
    ) -> Result<PathBuf, Failure> {
        let path = self.metadata_path(role, version);
        write(&path, &envelope.to_bytes(), true)?;
        Ok(path)
    }

    /// Metadata as somebody else has it; not looked into.
    pub(super) fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        write(&self.metadata_folder().join(name), bytes, true)
    }

    /// The director's word for a node.
    pub(super) fn write_director(&self, node: &str, bytes: &[u8]) -> Result<(), Failure> {
        let plain = !node.contains(['/', '\0']) && !matches!(node, "" | "." | "..");
        match plain {
            true => write(
                &self.folder.join("director").join(format!("{node}.signed")),
                bytes,
                true,
            ),
            false => Err(Failure::Usage(format!("not a node's name: {node:?}"))),
        }
    }

    pub(super) fn manifest_path(
        &self,
        app: &AppName,
        version: &Version,
        digest: Digest,
    ) -> PathBuf {
        self.folder
            .join("image/targets")
            .join(app.to_string())
            .join(format!("{digest}.{version}"))
    }

    pub(super) fn write_manifest(
        &self,
        app: &AppName,
        version: &Version,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        write(
            &self.manifest_path(app, version, Digest::of(bytes)),
            bytes,
            true,
        )
    }

    /// The manifest of a release, if it is the one that is named.
    pub(super) fn manifest(
        &self,
        app: &AppName,
        version: &Version,
        digest: Digest,
    ) -> Result<(Vec<u8>, Manifest), Failure> {
        let path = self.manifest_path(app, version, digest);
        let unsound = |why: String| Failure::Unsound(format!("{}: {why}", path.display()));
        let bytes = read_bounded(&path, MAX_MANIFEST_BYTES)?;
        if Digest::of(&bytes) != digest {
            return Err(unsound("is not what its name says".to_owned()));
        }
        let manifest = Manifest::parse(&bytes).map_err(|why| unsound(why.to_string()))?;
        let named = manifest.app == *app && manifest.version.to_string() == version.to_string();
        match named {
            true => Ok((bytes, manifest)),
            false => Err(unsound(format!(
                "is of {} {}",
                manifest.app, manifest.version
            ))),
        }
    }

    pub(super) fn write_chunk(&self, chunk: &Chunk, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.chunk_path(chunk.digest);
        match path.try_exists() {
            // A torn one is found out when it is read.
            Ok(true)
                if fs::metadata(&path).is_ok_and(|about| about.len() == u64::from(chunk.size)) =>
            {
                Ok(())
            }
            _ => write(&path, bytes, false),
        }
    }

    pub(super) fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, Failure> {
        let path = self.chunk_path(chunk.digest);
        if !path.exists() {
            return Err(Failure::Unsound(format!(
                "{}: content is missing: sign the same files again, which writes it anew",
                path.display()
            )));
        }
        let bytes = read_bounded(&path, u64::from(MAX_CHUNK_BYTES))?;
        match chunk::check(chunk, &bytes) {
            Ok(()) => Ok(bytes),
            Err(why) => Err(Failure::Unsound(format!(
                "{}: {why}: remove it and sign the same files again, which writes it anew",
                path.display()
            ))),
        }
    }

    fn chunk_path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let begin = name.get(..2).unwrap_or_default();
        self.folder.join("image/chunks").join(begin).join(&name)
    }
}

/// `N.role.json`.
fn role_of(name: &str) -> Option<(u64, String)> {
    let (version, role) = name.strip_suffix(".json")?.split_once('.')?;
    let number: u64 = version.parse().ok()?;
    (number.to_string() == version && !role.is_empty()).then(|| (number, role.to_owned()))
}

/// What a file holds, if that is not more than it may.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let file = fs::File::open(path).map_err(Failure::file(path))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Failure::file(path))?;
    match bytes.len() as u64 > limit {
        true => Err(Failure::Unsound(format!(
            "{}: larger than the limit in bytes: {limit}",
            path.display()
        ))),
        false => Ok(bytes),
    }
}

/// Whole or not at all; `lasting`: also after a power cut. Chunks are checked whenever they are read.
pub(super) fn write(path: &Path, bytes: &[u8], lasting: bool) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let store = || -> std::io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        file.write_all(bytes)?;
        if lasting {
            file.sync_all()?;
        }
        fs::rename(&beside, path)?;
        match lasting {
            true => fs::File::open(folder)?.sync_all(),
            false => Ok(()),
        }
    };
    store()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .map_err(Failure::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_the_repository_has_are_metadata() {
        for wrong in [
            "root.json",
            "01.root.json",
            "1.json",
            "1..json",
            "x.root.json",
            "1.root.jso",
            "-1.root.json",
            "timestamp.json",
            "1.root.json.new-7",
        ] {
            assert_eq!(role_of(wrong), None, "{wrong}");
        }
        assert_eq!(
            role_of("12.acme.tools.json"),
            Some((12, "acme.tools".to_owned()))
        );
        let (repo, role, version) =
            Repo::of_file(Path::new("/r/image/metadata/3.acme.json")).unwrap();
        assert_eq!(
            (repo.folder(), role.as_str(), version),
            (Path::new("/r"), "acme", 3)
        );
        assert!(Repo::of_file(Path::new("/r/3.acme.json")).is_err());
    }

    #[test]
    fn what_lies_under_a_wrong_name_or_was_changed_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::new(folder.path());
        let expires = edgeward_identity::Timestamp::from_secs(1_800_000_000);
        let envelope = Envelope::releases(2, expires, &Default::default()).unwrap();
        repo.write("acme", 3, &envelope).unwrap();
        assert!(matches!(repo.read("acme", 3), Err(Failure::Unsound(_))));
        repo.write("acme", 2, &envelope).unwrap();
        assert_eq!(repo.read("acme", 2).unwrap(), envelope);
        assert_eq!(repo.versions("acme").unwrap(), BTreeSet::from([2, 3]));
        assert!(repo.newest("other").unwrap().is_none());

        let chunk = Chunk {
            digest: Digest::of(b"content"),
            size: 7,
        };
        repo.write_chunk(&chunk, b"content").unwrap();
        assert_eq!(repo.chunk(&chunk).unwrap(), b"content");
        fs::write(repo.chunk_path(chunk.digest), b"cOntent").unwrap();
        assert!(matches!(repo.chunk(&chunk), Err(Failure::Unsound(_))));
        fs::write(repo.chunk_path(chunk.digest), b"torn").unwrap();
        repo.write_chunk(&chunk, b"content").unwrap();
        assert_eq!(repo.chunk(&chunk).unwrap(), b"content");
    }
}
