//! Contents of an archive on their way into chunks: on disk, since an archive is read from its front to its end and a
//! later layer may take away what an earlier one brought.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Bound;
use std::path::PathBuf;

use edgeward_apps::AppPath;
use edgeward_apps::unpack::Sink;

use super::super::Failure;
use super::super::repo::Repo;

/// The folder is removed when this is dropped.
pub(super) struct Spool {
    folder: PathBuf,
    /// Numbers of files. Two paths may have one.
    kept: BTreeMap<AppPath, u64>,
    next: u64,
    open: Option<BufWriter<File>>,
}

impl Spool {
    pub(super) fn new(repo: &Repo) -> Result<Self, Failure> {
        let folder = repo
            .folder()
            .join(format!(".unpacking-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
        Ok(Self {
            folder,
            kept: BTreeMap::new(),
            next: 0,
            open: None,
        })
    }

    /// The content that a path has in the end.
    pub(super) fn content(&mut self, path: &AppPath) -> Result<File, Failure> {
        self.close().map_err(Failure::file(&self.folder))?;
        let number = self
            .kept
            .get(path)
            .ok_or_else(|| Failure::Unsound(format!("{path} has no content")))?;
        let file = self.file(*number);
        File::open(&file).map_err(Failure::file(file))
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(mut open) => open.flush(),
            None => Ok(()),
        }
    }
}

impl Sink for Spool {
    fn begin(&mut self, path: &AppPath) -> io::Result<()> {
        self.close()?;
        let file = File::create_new(self.file(self.next))?;
        self.open = Some(BufWriter::new(file));
        self.kept.insert(path.clone(), self.next);
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(open) => open.write_all(bytes),
            None => Err(io::Error::other("content of no file")),
        }
    }

    fn same(&mut self, path: &AppPath, first: &AppPath) -> io::Result<()> {
        match self.kept.get(first).copied() {
            Some(number) => {
                self.kept.insert(path.clone(), number);
                Ok(())
            }
            None => Err(io::Error::other("the same as no file")),
        }
    }

    fn remove(&mut self, path: &AppPath) -> io::Result<()> {
        let begin = format!("{path}/");
        let below = self
            .kept
            .range::<AppPath, _>((Bound::Excluded(path), Bound::Unbounded))
            .map(|(at, _)| at)
            .filter(|at| at.as_str().starts_with(&begin));
        let gone: Vec<AppPath> = below.cloned().collect();
        for at in gone.iter().chain([path]) {
            if let Some(number) = self.kept.remove(at)
                && !self.kept.values().any(|other| *other == number)
            {
                fs::remove_file(self.file(number))?;
            }
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
