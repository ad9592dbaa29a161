//! The list of what the Linux kernel measured at run time (Integrity Measurement Architecture), replayed and judged.
//!
//! A list proves nothing by itself: [`ImaVerdict::follow`] replays it entry by entry until PCR 10 is what a TPM quoted,
//! and judges every entry on the way against an [`ImaPolicy`]. What comes after that point was measured after the quote
//! and counts next time. State and verdict are kept, so that a node that measured nothing new sends nothing.
//!
//! Read are lists of the templates `ima-ng` and `ima-sig` as `binary_runtime_measurements` has them on little-endian
//! kernels (`Documentation/security/IMA-templates.rst`); SHA-1 template digests in the list, and in every other bank the
//! digest of the same template data, as kernels do since 5.8.

pub mod ascii;
mod binary;
pub mod policy;
pub mod refusal;
mod state;
mod text;
pub mod verdict;

use crate::tpm::HashAlg;

pub use ascii::binary_of_ascii;
pub use binary::{Window, parse_binary, window};
pub use policy::{BadImaPolicy, ImaPolicy, ListedFile, Violations};
pub use refusal::ImaRefused;
pub use state::{ImaState, replay};
pub use text::escaped;
pub use verdict::{FileFault, ImaVerdict, RefusedFile};

/// The PCR that lists are extended into (the kernel's default).
pub const IMA_PCR: u8 = 10;
/// Most bytes of a list in one answer.
pub const MAX_IMA_PART_BYTES: usize = 2 << 20;
/// Most bytes of a whole list. A gateway's has 100 kB to 10 MB.
pub const MAX_IMA_LIST_BYTES: u64 = 64 << 20;
/// Longest template data of one entry, in bytes: a path of `PATH_MAX` (4096) and a signature.
pub const MAX_TEMPLATE_DATA_BYTES: usize = 8 << 10;
/// Longest path of one entry, in bytes (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// Path of the first entry of every list: a digest over the PCRs of the boot.
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// Bytes of a SHA-1 template digest.
pub(crate) const TEMPLATE_HASH_BYTES: usize = 20;

/// One measurement. Only the bytes in [`ImaEntry::data`] are covered by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImaEntry<'a> {
    template: Template,
    violation: bool,
    data: &'a [u8],
    file: FileDigest<'a>,
    path: &'a [u8],
    signature: Option<&'a [u8]>,
}

/// How an entry's data is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Digest with its algorithm, and path.
    ImaNg,
    /// The same and the file's signature.
    ImaSig,
}

/// Digest of a file by the algorithm that the list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest<'a> {
    pub hash: HashAlg,
    pub digest: &'a [u8],
}

impl<'a> ImaEntry<'a> {
    pub fn template(&self) -> Template {
        self.template
    }

    /// A file that changed while it was measured: its digest is unknown, and nothing covers what the entry says.
    pub fn is_violation(&self) -> bool {
        self.violation
    }

    /// The bytes that the template digest is over.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    pub fn file(&self) -> FileDigest<'a> {
        self.file
    }

    /// As the kernel wrote it: any bytes but zero. For people: [`escaped`].
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// In template `ima-sig`; empty where the file has none.
    pub fn signature(&self) -> Option<&'a [u8]> {
        self.signature
    }
}

impl Template {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImaNg => "ima-ng",
            Self::ImaSig => "ima-sig",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::ImaNg, Self::ImaSig]
            .into_iter()
            .find(|template| template.as_str().as_bytes() == name)
    }
}

/// The algorithm as IMA names it. Others, `sm3_256` among them, are refused: nothing could be compared by them.
pub(crate) fn hash_of_name(name: &[u8]) -> Option<HashAlg> {
    HashAlg::ALL
        .into_iter()
        .find(|hash| hash.name().as_bytes() == name)
}

impl std::fmt::Display for FileDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.hash.name(), hex::encode(self.digest))
    }
}

#[cfg(test)]
mod tests;
