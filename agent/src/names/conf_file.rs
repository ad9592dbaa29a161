//! Keeps `/etc/resolv.conf` as [`super::resolv_conf`] has it, and puts back what was there.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::resolv_conf::{Before, MAX_FILE_BYTES, Present};

/// Who reads a file that was not there before us.
const MODE: u32 = 0o644;

/// The file, by its path.
#[derive(Clone, Debug)]
pub struct ConfFile(PathBuf);

/// The file cannot be ours. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfFailed {
    #[error(
        "{} is a link, so another program writes it; with systemd-resolved use names = \"resolved\"", .0.display()
    )]
    Link(PathBuf),
    #[error("{} is longer than the limit in bytes: {MAX_FILE_BYTES}", .0.display())]
    TooLong(PathBuf),
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ConfFile {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Puts `own` in front, unless it is there. Says what was there before us, and whether anything was written.
    pub fn take(&self, own: IpAddr) -> Result<(Before, bool), ConfFailed> {
        let present = self.read()?;
        let before = present.clone().map_or(Before::NoFile, Present::before);
        let wanted = before.with(own);
        let is_there = match present {
            Some(Present::Ours(_)) => self.bytes()?.as_deref() == Some(&wanted[..]),
            _ => false,
        };
        if !is_there {
            self.write(&wanted).map_err(|source| self.failed(source))?;
        }
        Ok((before, !is_there))
    }

    /// Puts back what was there, if what is there is ours. Says whether it was.
    pub fn put_back(&self) -> Result<bool, ConfFailed> {
        let done = match self.read()? {
            Some(Present::Ours(Before::File(text))) => self.write(&text),
            Some(Present::Ours(Before::NoFile)) => match std::fs::remove_file(&self.0) {
                // A file that is mounted there cannot go away.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.write(&[]),
                removed => removed,
            },
            Some(Present::Theirs(_)) | None => return Ok(false),
        };
        done.map(|()| true).map_err(|source| self.failed(source))
    }

    fn read(&self) -> Result<Option<Present>, ConfFailed> {
        match std::fs::symlink_metadata(&self.0) {
            Ok(found) if found.is_symlink() => return Err(ConfFailed::Link(self.0.clone())),
            _ => {}
        }
        Ok(self.bytes()?.map(|bytes| Present::read(&bytes)))
    }

    fn bytes(&self) -> Result<Option<Vec<u8>>, ConfFailed> {
        let file = match std::fs::File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| self.failed(source))?;
        match bytes.len() <= MAX_FILE_BYTES {
            true => Ok(Some(bytes)),
            false => Err(ConfFailed::TooLong(self.0.clone())),
        }
    }

    /// At once, where the folder allows it; into the file that is there where it is mounted, as containers have it.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.replace(bytes) {
            Ok(()) => Ok(()),
            Err(_) if self.0.exists() => {
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(&self.0)?;
                file.write_all(bytes)?;
                file.sync_all()
            }
            Err(error) => Err(error),
        }
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut staged = self.0.clone().into_os_string();
        staged.push(".edgeward");
        let staged = Path::new(&staged);
        let _left = std::fs::remove_file(staged);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(staged)?;
        let done = (|| {
            if let Ok(present) = std::fs::metadata(&self.0) {
                file.set_permissions(std::fs::Permissions::from_mode(present.mode() & 0o7777))?;
                fchown(&file, Some(present.uid()), Some(present.gid()))?;
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(staged, &self.0)
        })();
        if done.is_err() {
            let _left = std::fs::remove_file(staged);
        }
        done
    }

    fn failed(&self, source: io::Error) -> ConfFailed {
        ConfFailed::File {
            path: self.0.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 55));
    const TEXT: &[u8] = b"search a.example\nnameserver 192.0.2.1";

    fn file(folder: &tempfile::TempDir) -> (PathBuf, ConfFile) {
        let path = folder.path().join("resolv.conf");
        (path.clone(), ConfFile::new(path))
    }

    #[test]
    fn a_link_and_a_huge_file_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conf) = file(&folder);
        let target = folder.path().join("stub");
        std::fs::write(&target, TEXT).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(conf.take(OWN), Err(ConfFailed::Link(_))));
        assert!(matches!(conf.put_back(), Err(ConfFailed::Link(_))));
        assert_eq!(std::fs::read(&target).unwrap(), TEXT);
        std::fs::remove_file(&path).unwrap();
        let huge = vec![b'\n'; MAX_FILE_BYTES + 1];
        std::fs::write(&path, &huge).unwrap();
        assert!(matches!(conf.take(OWN), Err(ConfFailed::TooLong(_))));
        assert_eq!(std::fs::read(&path).unwrap(), huge);
    }

    #[test]
    fn a_file_that_another_wrote_meanwhile_is_not_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conf) = file(&folder);
        std::fs::write(&path, TEXT).unwrap();
        conf.take(OWN).unwrap();
        std::fs::write(&path, "nameserver 192.0.2.9\n").unwrap();
        assert!(!conf.put_back().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"nameserver 192.0.2.9\n");
        // Taken again, that is what comes back.
        assert!(conf.take(OWN).unwrap().1);
        assert!(conf.put_back().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"nameserver 192.0.2.9\n");
    }

    #[test]
    fn what_was_there_comes_back_with_its_mode_even_by_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conf) = file(&folder);
        std::fs::write(&path, TEXT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (before, written) = conf.take(OWN).unwrap();
        assert_eq!(
            (before.clone(), written),
            (Before::File(TEXT.to_vec()), true)
        );
        // The agent died here; another takes the file as it is.
        assert_eq!(conf.take(OWN).unwrap(), (before, false));
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1);
        assert!(conf.put_back().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), TEXT);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn where_there_was_no_file_none_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conf) = file(&folder);
        assert_eq!(conf.take(OWN).unwrap(), (Before::NoFile, true));
        assert!(path.exists());
        assert!(conf.put_back().unwrap());
        assert!(!path.exists());
    }
}
