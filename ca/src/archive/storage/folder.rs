//! An archive in a folder: a disk of its own, or one that others carry away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::NotArchived;

#[derive(Debug)]
pub(in crate::archive) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) async fn put(&self, name: &str, segment: Bytes) -> Result<(), NotArchived> {
        let (above, path) = (self.0.clone(), self.0.join(name));
        tokio::task::spawn_blocking(move || put(&above, &path, &segment))
            .await
            .map_err(|error| NotArchived::Down(error.to_string()))?
    }

    pub(super) async fn length_of(&self, name: &str) -> Result<Option<u64>, NotArchived> {
        let (above, path) = (self.0.clone(), self.0.join(name));
        tokio::task::spawn_blocking(move || length_of(&above, &path))
            .await
            .map_err(|error| NotArchived::Down(error.to_string()))?
    }
}

fn length_of(above: &Path, path: &Path) -> Result<Option<u64>, NotArchived> {
    is_made(above)?;
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(NotArchived::Down(format!("{}: {error}", path.display()))),
    }
}

/// A disk that is not mounted would be an empty folder that nobody made: the operator makes it.
fn is_made(above: &Path) -> Result<(), NotArchived> {
    match above.is_dir() {
        true => Ok(()),
        false => Err(NotArchived::Refused(format!(
            "{}: no such folder",
            above.display()
        ))),
    }
}

fn put(above: &Path, path: &Path, segment: &[u8]) -> Result<(), NotArchived> {
    let shown = path.display();
    let failed = |error: io::Error| NotArchived::Down(format!("{shown}: {error}"));
    is_made(above)?;
    let folder = path.parent().unwrap_or(above);
    if !folder.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        // Each new name on the way down.
        for folder in folder
            .ancestors()
            .take_while(|part| part.starts_with(above))
        {
            flush(folder).map_err(failed)?;
        }
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(segment).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let written = fs::read(&beside).map_err(failed)?;
    if written != segment {
        return Err(NotArchived::Changed(shown.to_string()));
    }
    fs::rename(&beside, path).map_err(failed)?;
    flush(folder).map_err(failed)
}

fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
