//! Why a list of measurements was refused: every reason with its stable code. The fault is the node's.

use super::{MAX_IMA_LIST_BYTES, MAX_IMA_PART_BYTES, MAX_PATH_BYTES, MAX_TEMPLATE_DATA_BYTES};

/// The list is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImaRefused {
    #[error("part of a list is larger than the limit in bytes: {MAX_IMA_PART_BYTES}")]
    TooLarge,
    #[error("list is larger than the limit in bytes: {MAX_IMA_LIST_BYTES}")]
    ListTooLarge,
    #[error("list ends within an entry: {0}")]
    Truncated(u64),
    #[error(
        "entry's template data is larger than the limit of {MAX_TEMPLATE_DATA_BYTES} bytes: {0}"
    )]
    EntryTooLarge(u64),
    #[error("entry is of another pcr than 10: {0}")]
    Pcr(u64),
    #[error("entry is of a template that is not read (ima-ng, ima-sig are): {0}")]
    Template(u64),
    #[error("entry's template data does not have the template's fields: {0}")]
    Fields(u64),
    #[error("entry's digest is of an unknown algorithm: {0}")]
    Algorithm(u64),
    #[error("entry's digest has not its algorithm's length: {0}")]
    DigestLength(u64),
    #[error(
        "entry's path is empty, longer than {MAX_PATH_BYTES} bytes or not ended by its one zero byte: {0}"
    )]
    Path(u64),
    #[error("entry's template digest is not over its data: {0}")]
    TemplateHash(u64),
    #[error("line of an ascii list is malformed: {0}")]
    Line(u64),
    #[error("list does not begin with boot_aggregate")]
    FirstEntry,
    #[error("entries do not begin where the known ones end: {first} instead of {known}")]
    NotContinued { known: u64, first: u64 },
    #[error("list was judged by another profile's lists")]
    OtherPolicy,
}

impl ImaRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "ima_too_large",
            Self::ListTooLarge => "ima_list_too_large",
            Self::Truncated(_) => "ima_truncated",
            Self::EntryTooLarge(_) => "ima_entry_too_large",
            Self::Pcr(_) => "ima_pcr",
            Self::Template(_) => "ima_template",
            Self::Fields(_) => "ima_fields",
            Self::Algorithm(_) => "ima_algorithm",
            Self::DigestLength(_) => "ima_digest_length",
            Self::Path(_) => "ima_path",
            Self::TemplateHash(_) => "ima_template_hash",
            Self::Line(_) => "ima_line",
            Self::FirstEntry => "ima_first_entry",
            Self::NotContinued { .. } => "ima_not_continued",
            Self::OtherPolicy => "ima_other_policy",
        }
    }
}
