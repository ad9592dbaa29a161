//! What of an event is sealed, and what binds it to its place.

use edgeward_audit::record::SealedRecord;

use crate::keys::sites::{Site, SiteKeyFault, SiteKeyId, SiteKeys, Unopened};
use crate::store::StoreError;

/// Something sealed, and where it stands: moved to another place, it cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The record at a leaf, in the tail.
    Body(u64),
    /// The columns of a part of a block.
    Columns(u64),
    /// The records of a part of a block.
    Bodies(u64),
}

impl Sealed {
    /// What is authenticated with it.
    pub fn context(self) -> Vec<u8> {
        let (label, number): (&[u8], u64) = match self {
            Self::Body(leaf) => (b"edgeward event body v1\n", leaf),
            Self::Columns(block) => (b"edgeward block columns v1\n", block),
            Self::Bodies(block) => (b"edgeward block bodies v1\n", block),
        };
        let mut context = Vec::with_capacity(label.len() + 8);
        context.extend_from_slice(label);
        context.extend_from_slice(&number.to_be_bytes());
        context
    }

    /// A leaf by which people find it.
    fn leaf(self) -> u64 {
        match self {
            Self::Body(leaf) => leaf,
            Self::Columns(block) | Self::Bodies(block) => {
                block.saturating_mul(edgeward_audit::block::BLOCK_LEAVES)
            }
        }
    }

    /// Opens it; none if its key was erased.
    pub(super) fn open(
        self,
        keys: &SiteKeys,
        key: SiteKeyId,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let context = self.context();
        let mut opened = keys.open_sealed(key, &context, sealed);
        if opened == Err(Unopened::NoKey) {
            // Another cloud may have made it.
            keys.look_again()?;
            opened = keys.open_sealed(key, &context, sealed);
        }
        match opened {
            Ok(plain) => Ok(Some(plain)),
            Err(Unopened::Erased) => Ok(None),
            Err(Unopened::NoKey) => Err(StoreError::NoSiteKey {
                key,
                leaf: self.leaf(),
            }),
            Err(Unopened::Damaged) => Err(self.damaged("cannot be opened")),
        }
    }

    /// What this says when it cannot be read.
    pub(super) fn damaged(self, why: impl std::fmt::Display) -> StoreError {
        let value = match self {
            Self::Body(leaf) => format!("event {leaf}: {why}"),
            Self::Columns(block) => format!("columns of block {block}: {why}"),
            Self::Bodies(block) => format!("records of block {block}: {why}"),
        };
        StoreError::Unreadable {
            what: "sealed part of the log",
            value,
        }
    }
}

/// Whether the key was destroyed on purpose.
pub(super) fn is_erased(keys: &SiteKeys, key: SiteKeyId) -> bool {
    matches!(keys.open_sealed(key, &[], &[]), Err(Unopened::Erased))
}

/// Seals a record with its site's key of this moment. An erasure may come in between: then with the next.
pub(super) fn seal_body(
    keys: &SiteKeys,
    site: &Site,
    leaf: u64,
    record: &SealedRecord,
) -> Result<(SiteKeyId, Vec<u8>), StoreError> {
    let context = Sealed::Body(leaf).context();
    let mut again = true;
    loop {
        let key = keys.current(site)?;
        match keys.seal(key, &context, record.bytes()) {
            Err(SiteKeyFault::Erased) if again => again = false,
            sealed => return Ok((key, sealed?)),
        }
    }
}
