//! Content cut where it says so itself (FastCDC): what two releases share has the same chunks, and travels once.

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};
use crate::manifest::{Chunk, File, MAX_CHUNK_BYTES, MAX_CHUNKS};

/// Shortest chunk but for the last of a file, in bytes.
pub const MIN_CHUNK_BYTES: usize = 32 * 1024;
/// What chunks have on average, in bytes.
pub const MEAN_CHUNK_BYTES: usize = 128 * 1024;

/// The chunks of one file in memory, and what the manifest says of it. For the publisher.
pub fn cut(content: &[u8], executable: bool) -> File {
    let cutter = fastcdc::v2020::FastCDC::new(
        content,
        MIN_CHUNK_BYTES,
        MEAN_CHUNK_BYTES,
        MAX_CHUNK_BYTES as usize,
    );
    let chunks = cutter.filter_map(|cut| {
        let bytes = content.get(cut.offset..cut.offset.checked_add(cut.length)?)?;
        Some(Chunk {
            digest: Digest::of(bytes),
            size: u32::try_from(bytes.len()).ok()?,
        })
    });
    File {
        digest: Digest::of(content),
        size: content.len() as u64,
        executable,
        chunks: chunks.collect(),
    }
}

/// The same of a file of any length, each chunk handed on as it is cut.
pub fn cut_stream(
    content: impl Read,
    executable: bool,
    mut each: impl FnMut(&Chunk, &[u8]) -> io::Result<()>,
) -> io::Result<File> {
    let cutter = fastcdc::v2020::StreamCDC::new(
        content,
        MIN_CHUNK_BYTES,
        MEAN_CHUNK_BYTES,
        MAX_CHUNK_BYTES as usize,
    );
    let (mut hasher, mut size, mut chunks) = (Hasher::new(), 0u64, Vec::new());
    for cut in cutter {
        let bytes = cut.map_err(io::Error::from)?.data;
        let chunk = Chunk {
            digest: Digest::of(&bytes),
            size: u32::try_from(bytes.len()).map_err(io::Error::other)?,
        };
        each(&chunk, &bytes)?;
        hasher.update(&bytes);
        size = size.saturating_add(u64::from(chunk.size));
        chunks.push(chunk);
        if chunks.len() > MAX_CHUNKS {
            return Err(io::Error::other("more chunks than an app may have"));
        }
    }
    Ok(File {
        digest: hasher.finish(),
        size,
        executable,
        chunks,
    })
}

/// A file in the making: each chunk is checked before it is written, the whole when it is complete.
pub struct Filling<'f> {
    file: &'f File,
    next: usize,
    hasher: Hasher,
}

/// Bytes are not what the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThatFile {
    #[error("chunk is not the one that the manifest names: {0}")]
    Chunk(Digest),
    #[error("more chunks than the file has")]
    TooMany,
    #[error("the file is not complete")]
    Incomplete,
    #[error("the chunks make another file than the manifest says: {0}")]
    File(Digest),
}

impl<'f> Filling<'f> {
    pub fn new(file: &'f File) -> Self {
        Self {
            file,
            next: 0,
            hasher: Hasher::new(),
        }
    }

    /// The chunk that is wanted next.
    pub fn wanted(&self) -> Option<Chunk> {
        self.file.chunks.get(self.next).copied()
    }

    /// Checks the next chunk, which may be written then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), NotThatFile> {
        let wanted = self.wanted().ok_or(NotThatFile::TooMany)?;
        check(&wanted, bytes)?;
        self.hasher.update(bytes);
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    pub fn finish(self) -> Result<(), NotThatFile> {
        if self.wanted().is_some() {
            return Err(NotThatFile::Incomplete);
        }
        let found = self.hasher.finish();
        match found == self.file.digest {
            true => Ok(()),
            false => Err(NotThatFile::File(found)),
        }
    }
}

/// Whether bytes are a chunk: for whoever stores it before the file is made.
pub fn check(chunk: &Chunk, bytes: &[u8]) -> Result<(), NotThatFile> {
    let found = Digest::of(bytes);
    match found == chunk.digest && bytes.len() as u64 == u64::from(chunk.size) {
        true => Ok(()),
        false => Err(NotThatFile::Chunk(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let byte = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        std::iter::repeat_with(byte).take(length).collect()
    }

    #[test]
    fn only_the_right_chunks_in_the_right_order_make_the_file() {
        let content = noise(3_000_000, 1);
        let file = cut(&content, false);
        assert!(file.chunks.len() > 3, "{}", file.chunks.len());
        let mut parts = Vec::new();
        let mut rest = content.as_slice();
        for chunk in &file.chunks {
            let (part, after) = rest.split_at(chunk.size as usize);
            parts.push(part);
            rest = after;
        }
        assert!(rest.is_empty());
        let mut filling = Filling::new(&file);
        assert!(
            matches!(filling.take(parts[1]), Err(NotThatFile::Chunk(_))),
            "out of order"
        );
        let mut changed = parts[0].to_vec();
        changed[7] ^= 1;
        assert!(matches!(filling.take(&changed), Err(NotThatFile::Chunk(_))));
        assert!(filling.take(&parts[0][..5]).is_err());
        for part in &parts {
            filling.take(part).unwrap();
        }
        assert_eq!(filling.take(parts[0]), Err(NotThatFile::TooMany));
        filling.finish().unwrap();

        let mut short = Filling::new(&file);
        short.take(parts[0]).unwrap();
        assert_eq!(short.finish(), Err(NotThatFile::Incomplete));
        let lying = File {
            digest: Digest::of(b"other"),
            ..file.clone()
        };
        let mut filling = Filling::new(&lying);
        parts.iter().for_each(|part| filling.take(part).unwrap());
        assert!(matches!(filling.finish(), Err(NotThatFile::File(_))));
    }

    #[test]
    fn a_change_in_the_middle_moves_few_chunks() {
        let old = noise(8_000_000, 2);
        let mut new = old.clone();
        new.splice(4_000_000..4_000_010, noise(33, 3));
        let (old, new) = (cut(&old, false), cut(&new, false));
        let fresh = new
            .chunks
            .iter()
            .filter(|chunk| !old.chunks.contains(chunk))
            .count();
        assert!(fresh <= 3, "{fresh} of {}", new.chunks.len());
    }

    #[test]
    fn a_file_in_pieces_is_cut_as_in_one() {
        struct Slow<'c>(&'c [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let some = into.len().min(1_013);
                self.0.read(&mut into[..some])
            }
        }
        for length in [0, 1, MIN_CHUNK_BYTES, 5_000_000] {
            let content = noise(length, 7);
            let mut whole = Vec::new();
            let file = cut_stream(Slow(&content), true, |chunk, bytes| {
                check(chunk, bytes).unwrap();
                whole.extend_from_slice(bytes);
                Ok(())
            });
            assert_eq!(file.unwrap(), cut(&content, true), "{length}");
            assert_eq!(whole, content);
        }
        let full = |_: &Chunk, _: &[u8]| Err(io::Error::other("disk full"));
        assert!(cut_stream(noise(10, 1).as_slice(), false, full).is_err());
    }

    #[test]
    fn an_empty_file_has_no_chunks() {
        let file = cut(b"", true);
        assert!(file.chunks.is_empty());
        Filling::new(&file).finish().unwrap();
    }
}
