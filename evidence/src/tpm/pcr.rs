//! PCR banks, selections (`TPML_PCR_SELECTION`, part 2, 10.9.7) and the digest over selected values.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::alg::HashAlg;
use crate::digest::Digest;
use crate::reader::{Malformed, Reader, put_u16, put_u32};

/// PCRs of the PC Client platform: 0 to 23.
pub const PCR_COUNT: u8 = 24;
/// Bytes of the bitmap for [`PCR_COUNT`] PCRs.
pub const BITMAP_BYTES: usize = 3;
/// Most banks accepted in one selection list.
pub const MAX_SELECTIONS: u32 = 8;
/// Longest bitmap accepted, in bytes; only [`BITMAP_BYTES`] can ever match a request.
pub const MAX_BITMAP_BYTES: usize = 4;

/// A PCR bank that may be asked for. SHA-1 is not among them: a quote over it can never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcrBank {
    Sha256,
    Sha384,
    Sha512,
}

/// Which PCRs of one bank are to be quoted: never none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "SelectionFields", into = "SelectionFields")]
pub struct PcrSelection {
    bank: PcrBank,
    bitmap: [u8; BITMAP_BYTES],
}

/// One PCR's value as a node sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrValue {
    pub index: u8,
    pub value: Vec<u8>,
}

/// One entry of a parsed selection list, exactly as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankSelection {
    /// `TPM_ALG_ID` of the bank, known or not.
    pub hash: u16,
    pub bitmap: Vec<u8>,
}

/// Why PCRs cannot be asked for. The fault is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSelection {
    #[error("no pcr is selected")]
    Empty,
    #[error("there is no such pcr: {0}")]
    Index(u8),
    #[error("not a pcr bank that may be asked for: {0:#06x}")]
    Bank(u16),
}

/// Why values do not fit what was quoted. The fault is the node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcrRefused {
    #[error("quoted banks or pcrs are not those asked for")]
    SelectionMismatch,
    #[error("quoted bank is sha-1")]
    BankSha1,
    #[error("value of a pcr that no quote covers: {0}")]
    NotQuoted(u8),
    #[error("value of a pcr is given twice: {0}")]
    Twice(u8),
    #[error("value of a quoted pcr is missing: {0}")]
    Missing(u8),
    #[error("value of a pcr has another length than its bank: {0}")]
    Length(u8),
    #[error("values do not hash to the quoted digest")]
    DigestMismatch,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectionFields {
    bank: PcrBank,
    pcrs: BTreeSet<u8>,
}

impl PcrBank {
    pub const fn hash(self) -> HashAlg {
        match self {
            Self::Sha256 => HashAlg::Sha256,
            Self::Sha384 => HashAlg::Sha384,
            Self::Sha512 => HashAlg::Sha512,
        }
    }

    /// From a `TPM_ALG_ID`.
    pub fn from_id(id: u16) -> Result<Self, BadSelection> {
        [Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|bank| bank.hash().id() == id)
            .ok_or(BadSelection::Bank(id))
    }
}

impl PcrSelection {
    pub fn new(bank: PcrBank, pcrs: impl IntoIterator<Item = u8>) -> Result<Self, BadSelection> {
        let mut bitmap = [0; BITMAP_BYTES];
        for index in pcrs {
            let byte = bitmap
                .get_mut(usize::from(index / 8))
                .ok_or(BadSelection::Index(index))?;
            *byte |= 1 << (index % 8);
        }
        if bitmap == [0; BITMAP_BYTES] {
            return Err(BadSelection::Empty);
        }
        Ok(Self { bank, bitmap })
    }

    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// Selected PCRs, ascending.
    pub fn indexes(&self) -> impl Iterator<Item = u8> + '_ {
        (0..PCR_COUNT).filter(|index| self.contains(*index))
    }

    pub fn contains(&self, index: u8) -> bool {
        self.bitmap
            .get(usize::from(index / 8))
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// What a TPM must have signed for this request.
    pub fn as_signed(&self) -> Vec<BankSelection> {
        vec![BankSelection {
            hash: self.bank.hash().id(),
            bitmap: self.bitmap.to_vec(),
        }]
    }

    /// Whether the quoted list is this request, bit for bit.
    pub fn check(&self, quoted: &[BankSelection]) -> Result<(), PcrRefused> {
        if quoted.iter().any(|entry| entry.hash == HashAlg::Sha1.id()) {
            return Err(PcrRefused::BankSha1);
        }
        if quoted != self.as_signed().as_slice() {
            return Err(PcrRefused::SelectionMismatch);
        }
        Ok(())
    }

    /// The digest over the selected values in ascending order, by SHA-256 (the hash of the AK's scheme;
    /// part 3, `TPM2_Quote`). Every selected PCR must be there once, and no other.
    pub fn digest_of(
        &self,
        values: &[PcrValue],
    ) -> Result<(Digest, BTreeMap<u8, Vec<u8>>), PcrRefused> {
        let mut sorted = BTreeMap::new();
        for value in values {
            if !self.contains(value.index) {
                return Err(PcrRefused::NotQuoted(value.index));
            }
            if value.value.len() != self.bank.hash().digest_len() {
                return Err(PcrRefused::Length(value.index));
            }
            if sorted.insert(value.index, value.value.clone()).is_some() {
                return Err(PcrRefused::Twice(value.index));
            }
        }
        if let Some(missing) = self.indexes().find(|index| !sorted.contains_key(index)) {
            return Err(PcrRefused::Missing(missing));
        }
        let all: Vec<u8> = sorted.values().flatten().copied().collect();
        Ok((Digest::of(&all), sorted))
    }
}

impl PcrSelection {
    /// As [`PcrSelection::digest_of`], of values that are known from before. Those of another selection are no help: then
    /// values are missing.
    pub fn digest_of_known(
        &self,
        known: &BTreeMap<u8, Vec<u8>>,
    ) -> Result<(Digest, BTreeMap<u8, Vec<u8>>), PcrRefused> {
        let length = self.bank.hash().digest_len();
        if let Some(missing) = self
            .indexes()
            .find(|index| known.get(index).is_none_or(|value| value.len() != length))
        {
            return Err(PcrRefused::Missing(missing));
        }
        let values: BTreeMap<u8, Vec<u8>> = known
            .iter()
            .filter(|(index, _)| self.contains(**index))
            .map(|(index, value)| (*index, value.clone()))
            .collect();
        let all: Vec<u8> = values.values().flatten().copied().collect();
        Ok((Digest::of(&all), values))
    }
}

impl PcrRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SelectionMismatch => "pcr_selection_mismatch",
            Self::BankSha1 => "pcr_bank_sha1",
            Self::NotQuoted(_) => "pcr_value_not_quoted",
            Self::Twice(_) => "pcr_value_twice",
            Self::Missing(_) => "pcr_value_missing",
            Self::Length(_) => "pcr_value_length",
            Self::DigestMismatch => "pcr_digest_mismatch",
        }
    }
}

pub(crate) fn read_selections(reader: &mut Reader<'_>) -> Result<Vec<BankSelection>, Malformed> {
    let count = reader.u32()?;
    if count > MAX_SELECTIONS {
        return Err(Malformed::Unsupported {
            what: "count of pcr banks",
            value: count,
        });
    }
    (0..count)
        .map(|_| {
            let hash = reader.u16()?;
            let size = usize::from(reader.u8()?);
            if size > MAX_BITMAP_BYTES {
                return Err(Malformed::TooLarge {
                    what: "pcr bitmap",
                    size,
                    limit: MAX_BITMAP_BYTES,
                });
            }
            let bitmap = reader.take(size)?.to_vec();
            Ok(BankSelection { hash, bitmap })
        })
        .collect()
}

pub(crate) fn put_selections(out: &mut Vec<u8>, selections: &[BankSelection]) {
    put_u32(out, u32::try_from(selections.len()).unwrap_or(u32::MAX));
    for selection in selections {
        put_u16(out, selection.hash);
        out.push(u8::try_from(selection.bitmap.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&selection.bitmap);
    }
}

impl TryFrom<SelectionFields> for PcrSelection {
    type Error = BadSelection;

    fn try_from(fields: SelectionFields) -> Result<Self, Self::Error> {
        Self::new(fields.bank, fields.pcrs)
    }
}

impl From<PcrSelection> for SelectionFields {
    fn from(selection: PcrSelection) -> Self {
        Self {
            bank: selection.bank,
            pcrs: selection.indexes().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(index: u8, fill: u8) -> PcrValue {
        PcrValue {
            index,
            value: vec![fill; 32],
        }
    }

    #[test]
    fn nothing_and_a_pcr_that_does_not_exist_cannot_be_asked_for() {
        assert_eq!(
            PcrSelection::new(PcrBank::Sha256, []),
            Err(BadSelection::Empty)
        );
        assert_eq!(
            PcrSelection::new(PcrBank::Sha256, [24]),
            Err(BadSelection::Index(24))
        );
        assert!(serde_json::from_str::<PcrSelection>(r#"{"bank":"sha256","pcrs":[]}"#).is_err());
        assert!(serde_json::from_str::<PcrSelection>(r#"{"bank":"sha1","pcrs":[0]}"#).is_err());
        assert_eq!(PcrBank::from_id(4), Err(BadSelection::Bank(4)));
    }

    #[test]
    fn every_selected_value_is_needed_once_and_no_other() {
        let selection = PcrSelection::new(PcrBank::Sha256, [0, 7]).unwrap();
        let refused = |values: &[PcrValue]| selection.digest_of(values).unwrap_err();
        assert_eq!(refused(&[value(0, 1)]), PcrRefused::Missing(7));
        assert_eq!(
            refused(&[value(0, 1), value(8, 1)]),
            PcrRefused::NotQuoted(8)
        );
        assert_eq!(
            refused(&[value(0, 1), value(200, 1)]),
            PcrRefused::NotQuoted(200)
        );
        assert_eq!(refused(&[value(0, 1), value(0, 1)]), PcrRefused::Twice(0));
        let short = PcrValue {
            index: 7,
            value: vec![0; 20],
        };
        assert_eq!(refused(&[value(0, 1), short]), PcrRefused::Length(7));
    }

    #[test]
    fn values_hash_in_ascending_order_however_they_were_sent() {
        let selection = PcrSelection::new(PcrBank::Sha256, [7, 0]).unwrap();
        let forwards = selection.digest_of(&[value(0, 1), value(7, 2)]).unwrap();
        let backwards = selection.digest_of(&[value(7, 2), value(0, 1)]).unwrap();
        assert_eq!(forwards, backwards);
        let swapped = selection.digest_of(&[value(7, 1), value(0, 2)]).unwrap();
        assert_ne!(forwards.0, swapped.0);
    }
}
