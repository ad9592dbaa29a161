//! Members of a tar archive (POSIX.1-2001 pax, GNU long names), one at a time. The `tar` crate reads the headers in
//! its raw mode; the records that extend them are read here, since it would read those of any length.

use std::io::Read;

use tar::{EntryType, Header, PaxExtensions};

use super::bounded::{Bounded, refusal};
use super::{Refused, Sink, copy, read_some};
use crate::digest::Digest;
use crate::path::MAX_PATH_BYTES;

/// Bytes of a header, and what contents are padded to.
const BLOCK: u64 = 512;
/// Longest record that extends a header, in bytes.
const MAX_EXTENDED_BYTES: u64 = 64 * 1024;
/// Most records in a row that extend one header: a long name, a long link and pax.
const MAX_EXTENDING: usize = 4;

pub(super) struct Headers<R> {
    archive: Bounded<R>,
    /// Bytes of the present member that were not read yet.
    left: u64,
    padding: u64,
}

pub(super) struct Next {
    pub(super) path: String,
    pub(super) link: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File {
        executable: bool,
    },
    /// A symbolic link.
    Link,
    /// A hard link to an earlier member.
    Same,
    /// Devices, pipes and what nobody knows.
    Other,
}

/// What records in front of a header said.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl<R: Read> Headers<R> {
    pub(super) fn new(archive: Bounded<R>) -> Self {
        Self {
            archive,
            left: 0,
            padding: 0,
        }
    }

    /// The next file, folder or link. Its content is to be read, or skipped, before the one after it.
    pub(super) fn next(&mut self) -> Result<Option<Next>, Refused> {
        let mut extended = Extended::default();
        for _ in 0..=MAX_EXTENDING {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            let size = header.entry_size().map_err(Refused::Read)?;
            match kind {
                EntryType::XGlobalHeader => self.extension(size).map(|_| ())?,
                EntryType::XHeader => extended.pax(&self.extension(size)?)?,
                EntryType::GNULongName => once(&mut extended.path, self.long_name(size)?)?,
                EntryType::GNULongLink => once(&mut extended.link, self.long_name(size)?)?,
                _ => return self.member(&header, size, extended).map(Some),
            }
        }
        Err(Refused::Extended)
    }

    /// The content of the present member.
    pub(super) fn content(&mut self, sink: &mut dyn Sink) -> Result<(Digest, u64), Refused> {
        let size = std::mem::take(&mut self.left);
        copy(&mut self.archive, size, sink)
    }

    pub(super) fn skip_rest(&mut self) -> Result<(), Refused> {
        let rest = std::mem::take(&mut self.left).saturating_add(std::mem::take(&mut self.padding));
        copy(&mut self.archive, rest, &mut super::Discard).map(|_| ())
    }

    /// `None` at the end: two blocks of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<Header>, Refused> {
        let mut header = Header::new_old();
        let got = read_some(&mut self.archive, header.as_mut_bytes()).map_err(refusal)?;
        if got == 0 || (got as u64 == BLOCK && header.as_bytes().iter().all(|byte| *byte == 0)) {
            return Ok(None);
        }
        if (got as u64) < BLOCK {
            return Err(Refused::Torn);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    u32::from(b' ')
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        match header.cksum() {
            Ok(stated) if stated == sum => Ok(Some(header)),
            _ => Err(Refused::Torn),
        }
    }

    fn member(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Next, Refused> {
        let size = extended.size.unwrap_or(size);
        self.left = size;
        self.padding = padding(size);
        let own = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Refused::Extended);
        let path = match extended.path {
            Some(path) => path,
            None => own(&header.path_bytes())?,
        };
        let link = match (extended.link, header.link_name_bytes()) {
            (Some(link), _) => link,
            (None, Some(bytes)) => own(&bytes)?,
            (None, None) => String::new(),
        };
        let executable = header.mode().map_err(Refused::Read)? & 0o111 != 0;
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File { executable },
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link,
            EntryType::Link => Kind::Same,
            _ => Kind::Other,
        };
        // Before POSIX a folder was a file whose name ends so.
        let kind = match kind {
            Kind::File { .. } if path.ends_with('/') => Kind::Folder,
            kind => kind,
        };
        Ok(Next { path, link, kind })
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Refused> {
        if size > MAX_EXTENDED_BYTES {
            return Err(Refused::Extended);
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Refused::Extended)?];
        let got = read_some(&mut self.archive, &mut bytes).map_err(refusal)?;
        if got != bytes.len() {
            return Err(Refused::Torn);
        }
        copy(&mut self.archive, padding(size), &mut super::Discard)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<String, Refused> {
        let mut bytes = self.extension(size)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        match String::from_utf8(bytes) {
            Ok(name) if name.len() <= MAX_PATH_BYTES => Ok(name),
            _ => Err(Refused::Extended),
        }
    }
}

impl Extended {
    fn pax(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| Refused::Extended)?;
            let value = || {
                record
                    .value()
                    .map(str::to_owned)
                    .map_err(|_| Refused::Extended)
            };
            match record.key_bytes() {
                b"path" => once(&mut self.path, value()?)?,
                b"linkpath" => once(&mut self.link, value()?)?,
                b"size" => once(
                    &mut self.size,
                    value()?.parse().map_err(|_| Refused::Extended)?,
                )?,
                // A sparse file's content is not what its bytes are.
                key if key.starts_with(b"GNU.sparse.") => return Err(Refused::Extended),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Readers differ in which of two they take.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Refused> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refused::Extended),
    }
}

fn padding(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK)
        .map_or(0, |end| end.saturating_sub(size))
}
