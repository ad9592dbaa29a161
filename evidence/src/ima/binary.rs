//! The kernel's binary list, `binary_runtime_measurements`: for each entry
//! `pcr u32 | template digest [20] | name u32+bytes | template data u32+bytes`, integers little-endian.
//!
//! Entries borrow from the bytes at hand; nothing is allocated but the list of them, which the bytes bound.

use super::{
    FileDigest, IMA_PCR, ImaEntry, ImaRefused, MAX_IMA_PART_BYTES, MAX_PATH_BYTES,
    MAX_TEMPLATE_DATA_BYTES, TEMPLATE_HASH_BYTES, Template, hash_of_name,
};
use crate::tpm::HashAlg;

/// Bytes of an entry's fixed parts, its template's name (`ima-ng`) and the shortest data there is.
const MIN_ENTRY_BYTES: usize = 70;

/// What a node sends of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// Whole entries.
    pub entries: &'a [u8],
    /// Whether entries follow that did not fit.
    pub more: bool,
}

/// Reads entries to the last byte. Each one's template digest is checked over its data.
pub fn parse_binary(bytes: &[u8]) -> Result<Vec<ImaEntry<'_>>, ImaRefused> {
    if bytes.len() > MAX_IMA_PART_BYTES {
        return Err(ImaRefused::TooLarge);
    }
    let mut entries = Vec::with_capacity(bytes.len() / MIN_ENTRY_BYTES);
    let mut rest = bytes;
    let mut index = 0;
    while !rest.is_empty() {
        let raw = Raw::read(&mut rest, index)?;
        entries.push(raw.judge(index)?);
        index += 1;
    }
    Ok(entries)
}

/// Cuts the entries from `first` on out of a whole list, as many as fit into `limit` bytes but at least one. The list
/// may end within an entry: the kernel was about to write it.
pub fn window(list: &[u8], first: u64, limit: usize) -> Result<Window<'_>, ImaRefused> {
    let mut rest = list;
    for index in 0..first {
        Raw::read(&mut rest, index)?;
    }
    let (start, mut index) = (rest, first);
    let mut length = 0;
    while !rest.is_empty() {
        match Raw::read(&mut rest, index) {
            Ok(_) => {}
            Err(ImaRefused::Truncated(_)) => break,
            Err(refused) => return Err(refused),
        }
        let read = start.len().saturating_sub(rest.len());
        if length > 0 && read > limit {
            return Ok(Window {
                entries: start.get(..length).unwrap_or_default(),
                more: true,
            });
        }
        length = read;
        index += 1;
    }
    Ok(Window {
        entries: start.get(..length).unwrap_or_default(),
        more: false,
    })
}

/// One entry as it lies there.
struct Raw<'a> {
    pcr: u32,
    template_hash: &'a [u8],
    name: &'a [u8],
    data: &'a [u8],
}

impl<'a> Raw<'a> {
    fn read(rest: &mut &'a [u8], index: u64) -> Result<Self, ImaRefused> {
        let cut = || ImaRefused::Truncated(index);
        let pcr = u32_of(rest).ok_or_else(cut)?;
        let template_hash = take(rest, TEMPLATE_HASH_BYTES).ok_or_else(cut)?;
        let name_length = u32_of(rest).ok_or_else(cut)?;
        let name = match usize::try_from(name_length) {
            Ok(length @ 1..=16) => take(rest, length).ok_or_else(cut)?,
            _ => return Err(ImaRefused::Template(index)),
        };
        // The oldest template has no length here, so that nothing after it could be read.
        if name == b"ima" {
            return Err(ImaRefused::Template(index));
        }
        let data_length = u32_of(rest).ok_or_else(cut)?;
        let data = match usize::try_from(data_length) {
            Ok(length) if length <= MAX_TEMPLATE_DATA_BYTES => {
                take(rest, length).ok_or_else(cut)?
            }
            _ => return Err(ImaRefused::EntryTooLarge(index)),
        };
        Ok(Self {
            pcr,
            template_hash,
            name,
            data,
        })
    }

    fn judge(self, index: u64) -> Result<ImaEntry<'a>, ImaRefused> {
        if self.pcr != u32::from(IMA_PCR) {
            return Err(ImaRefused::Pcr(index));
        }
        let template = Template::from_name(self.name).ok_or(ImaRefused::Template(index))?;
        let (file, path, signature) = fields(self.data, template, index)?;
        // The kernel writes zeros for a violation, whatever the data.
        let violation = self.template_hash == [0; TEMPLATE_HASH_BYTES];
        if !violation && !covers(self.template_hash, self.data) {
            return Err(ImaRefused::TemplateHash(index));
        }
        Ok(ImaEntry {
            template,
            violation,
            data: self.data,
            file,
            path,
            signature,
        })
    }
}

type Fields<'a> = (FileDigest<'a>, &'a [u8], Option<&'a [u8]>);

/// Each field is `u32+bytes`: digest (`algorithm:` zero digest), path with a zero byte, signature.
fn fields(data: &[u8], template: Template, index: u64) -> Result<Fields<'_>, ImaRefused> {
    let mut rest = data;
    let mut field = || {
        let length = u32_of(&mut rest)?;
        take(&mut rest, usize::try_from(length).ok()?)
    };
    let malformed = ImaRefused::Fields(index);
    let (Some(digest), Some(path)) = (field(), field()) else {
        return Err(malformed);
    };
    let signature = match template {
        Template::ImaNg => None,
        Template::ImaSig => Some(field().ok_or(malformed.clone())?),
    };
    if !rest.is_empty() {
        return Err(malformed);
    }
    let file = file_digest(digest, index)?;
    let path = match path.split_last() {
        Some((0, path)) if (1..=MAX_PATH_BYTES).contains(&path.len()) && !path.contains(&0) => path,
        _ => return Err(ImaRefused::Path(index)),
    };
    Ok((file, path, signature))
}

fn file_digest(field: &[u8], index: u64) -> Result<FileDigest<'_>, ImaRefused> {
    let colon = field
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(ImaRefused::Fields(index))?;
    let (name, rest) = field
        .split_at_checked(colon)
        .ok_or(ImaRefused::Fields(index))?;
    let digest = rest.strip_prefix(b":\0").ok_or(ImaRefused::Fields(index))?;
    let hash = hash_of_name(name).ok_or(ImaRefused::Algorithm(index))?;
    if digest.len() != hash.digest_len() {
        return Err(ImaRefused::DigestLength(index));
    }
    Ok(FileDigest { hash, digest })
}

fn covers(template_hash: &[u8], data: &[u8]) -> bool {
    ring::digest::digest(HashAlg::Sha1.ring(), data).as_ref() == template_hash
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn u32_of(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}
