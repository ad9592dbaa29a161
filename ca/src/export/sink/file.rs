//! Lines in a file, which is followed by another when it is full.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use edgeward_audit::export::Exported;

use super::{Given, NotGiven, line};
use crate::config::exports::Export;

/// Bytes read at once while looking for the last line's end.
const STEP: u64 = 64 * 1024;

/// `PATH` is written; `PATH.1` is the one before, `PATH.2` the one before that.
#[derive(Debug)]
pub(crate) struct FileSink {
    path: PathBuf,
    rotate_bytes: u64,
    keep: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl FileSink {
    pub(crate) fn new(path: PathBuf, rotate_bytes: u64, keep: u32) -> Self {
        Self {
            path,
            rotate_bytes,
            keep,
            open: None,
        }
    }

    pub(super) async fn give(
        &mut self,
        export: &Export,
        events: &[Exported<'_>],
    ) -> Result<Given, NotGiven> {
        let mut bytes = Vec::new();
        for event in events {
            bytes.extend_from_slice(line(export, event).as_bytes());
            bytes.push(b'\n');
        }
        let mut sink = Self {
            path: self.path.clone(),
            rotate_bytes: self.rotate_bytes,
            keep: self.keep,
            open: self.open.take(),
        };
        // A slow disk is not to hold up the cloud.
        let (sink, written) = tokio::task::spawn_blocking(move || {
            let written = sink.write(&bytes);
            (sink, written)
        })
        .await
        .map_err(|error| NotGiven::down(error.to_string()))?;
        self.open = sink.open;
        match written {
            Ok(()) => Ok(Given::Kept),
            Err(error) => {
                // Opened anew it ends where its last whole line does.
                self.open = None;
                Err(NotGiven::down(format!("{}: {error}", self.path.display())))
            }
        }
    }

    /// Writes whole lines and waits until they are on the disk.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.is(&self.path) => open,
            // Moved away by somebody else (logrotate), or not open yet.
            Some(_) | None => Open::at(&self.path)?,
        };
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if open.length > 0 && open.length.saturating_add(more) > self.rotate_bytes {
            drop(open);
            self.rotate()?;
            open = Open::at(&self.path)?;
        }
        open.file.write_all(bytes)?;
        open.file.sync_data()?;
        open.length += more;
        self.open = Some(open);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            rename_if_there(&self.numbered(number), &self.numbered(number + 1))?;
        }
        rename_if_there(&self.path, &self.numbered(1))?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    /// Opens for writing at the end of the last whole line: what a crash left of another is cut off, and given again.
    fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        let length = whole_lines(&mut file)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { file, length })
    }

    /// Whether this is still the file of that name.
    fn is(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(named)) => ours.ino() == named.ino() && ours.dev() == named.dev(),
            _ => false,
        }
    }
}

/// Length of the file up to its last line's end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + u64::try_from(at).unwrap_or(0) + 1);
        }
        end = start;
    }
    Ok(0)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
