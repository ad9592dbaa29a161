//! What a node says of its own journal, in a few bytes: where it ends, and what of it is gone. Signed by the boot key.
//!
//! A head is said with every heartbeat. It commits to every record of the boot, so a journal that was cut short, put
//! back or written twice is noticed before a body arrives. A loss is the answer where the cloud asks for records that
//! the node does not have any more: what follows them need not wait for ever.
//!
//! Layouts, integers big-endian; both begin with `"EWJS" | version 1 | what u8` and end with `signature u16+bytes`:
//!
//! * head, what = 1: `boot 16 | last sequence number u64 | hash 32 | boot of the oldest record kept 16 | number of the
//!   heartbeat that is answered u64`;
//! * loss, what = 2: `boot 16 | first u64 | last u64`.
//!
//! Each signature covers a label, the node's name and everything before the signature.

use edgeward_identity::{PublicKey, SignError, Signer, SpiffeId};

use crate::digest::Digest;
use crate::record::{BOOT_ID_BYTES, BootId, Head};

/// Longest statement, in bytes.
pub const MAX_SIGNED_BYTES: usize = 256;
/// Longest ECDSA P-256 signature in DER, in bytes.
const MAX_SIGNATURE_BYTES: usize = 72;
const MAGIC: &[u8; 4] = b"EWJS";
const VERSION: u8 = 1;
const HEAD: u8 = 1;
const LOSS: u8 = 2;
const LABEL: &[u8] = b"edgeward-journal-statement-v1\0";

/// Where the journal of a boot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStated {
    pub boot: BootId,
    /// The last record that is on disk.
    pub head: Head,
    /// The boot of the oldest record that is kept.
    pub oldest: BootId,
    /// Number of the heartbeat that this answers; 0: none.
    pub answers: u64,
}

/// Records that the node does not have any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossStated {
    pub boot: BootId,
    pub first_seq: u64,
    pub last_seq: u64,
}

/// As it travels: parsed within bounds, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    stated: T,
    signature: Vec<u8>,
}

/// The bytes are no statement, or nobody may believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementRefused {
    #[error("statement is longer than the limit in bytes: {MAX_SIGNED_BYTES}")]
    TooLong,
    #[error("statement is truncated, has trailing bytes, or is not of a known kind and version")]
    Malformed,
    #[error("statement is not signed by the boot key")]
    Signature,
}

impl StatementRefused {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong | Self::Malformed => "journal_statement_malformed",
            Self::Signature => "journal_statement_signature",
        }
    }
}

/// What can be stated: a sealed set of two.
pub trait Stated: Copy + private::Layout {}

impl Stated for HeadStated {}
impl Stated for LossStated {}

mod private {
    use super::Reader;

    pub trait Layout: Sized {
        const WHAT: u8;
        fn put(&self, bytes: &mut Vec<u8>);
        fn take(reader: &mut Reader<'_>) -> Option<Self>;
    }
}

impl private::Layout for HeadStated {
    const WHAT: u8 = HEAD;

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.boot.as_bytes());
        bytes.extend_from_slice(&self.head.seq.to_be_bytes());
        bytes.extend_from_slice(self.head.hash.as_bytes());
        bytes.extend_from_slice(self.oldest.as_bytes());
        bytes.extend_from_slice(&self.answers.to_be_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            boot: reader.boot()?,
            head: Head {
                seq: reader.number()?,
                hash: Digest::from_bytes(reader.array()?),
            },
            oldest: reader.boot()?,
            answers: reader.number()?,
        })
    }
}

impl private::Layout for LossStated {
    const WHAT: u8 = LOSS;

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.boot.as_bytes());
        bytes.extend_from_slice(&self.first_seq.to_be_bytes());
        bytes.extend_from_slice(&self.last_seq.to_be_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let stated = Self {
            boot: reader.boot()?,
            first_seq: reader.number()?,
            last_seq: reader.number()?,
        };
        (stated.first_seq <= stated.last_seq).then_some(stated)
    }
}

impl<T: Stated> Signed<T> {
    /// Lets the boot key sign what `node` states.
    pub fn sign(stated: T, node: &SpiffeId, boot_key: &dyn Signer) -> Result<Self, SignError> {
        let signature = boot_key.sign(&covered(node, &stated))?;
        Ok(Self { stated, signature })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = body(&self.stated);
        let length = u16::try_from(self.signature.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, StatementRefused> {
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(StatementRefused::TooLong);
        }
        Self::take(bytes).ok_or(StatementRefused::Malformed)
    }

    /// What is stated, if the boot key of `node` signed it.
    pub fn verify(&self, node: &SpiffeId, boot_key: &PublicKey) -> Result<T, StatementRefused> {
        boot_key
            .verify(&covered(node, &self.stated), &self.signature)
            .map_err(|_| StatementRefused::Signature)?;
        Ok(self.stated)
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.array()? != *MAGIC || reader.array()? != [VERSION, T::WHAT] {
            return None;
        }
        let stated = T::take(&mut reader)?;
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        let whole = length <= MAX_SIGNATURE_BYTES && reader.0.len() == length;
        whole.then(|| Self {
            stated,
            signature: reader.0.to_vec(),
        })
    }
}

fn body<T: Stated>(stated: &T) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[VERSION, T::WHAT]);
    stated.put(&mut bytes);
    bytes
}

fn covered<T: Stated>(node: &SpiffeId, stated: &T) -> Vec<u8> {
    let node = node.to_string();
    let length = u16::try_from(node.len()).unwrap_or(u16::MAX);
    let mut message = LABEL.to_vec();
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(node.as_bytes());
    message.extend_from_slice(&body(stated));
    message
}

/// Takes parts off the front.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn boot(&mut self) -> Option<BootId> {
        self.array::<BOOT_ID_BYTES>().map(BootId::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use edgeward_identity::SoftwareKey;

    use super::*;

    fn node(name: &str) -> SpiffeId {
        format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap()
    }

    fn head() -> HeadStated {
        HeadStated {
            boot: BootId::from_bytes([1; 16]),
            head: Head {
                seq: 41,
                hash: Digest::of(&[b"record"]),
            },
            oldest: BootId::from_bytes([2; 16]),
            answers: 7,
        }
    }

    fn loss() -> LossStated {
        LossStated {
            boot: BootId::from_bytes([1; 16]),
            first_seq: 3,
            last_seq: 9,
        }
    }

    fn holds_against_changes<T: Stated + PartialEq + std::fmt::Debug>(stated: T) {
        let key = SoftwareKey::generate().unwrap();
        let other = SoftwareKey::generate().unwrap();
        let signed = Signed::sign(stated, &node("a"), &key).unwrap();
        let bytes = signed.to_bytes();
        assert!(bytes.len() <= MAX_SIGNED_BYTES);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let believed = Signed::<T>::parse(&changed)
                .is_ok_and(|signed| signed.verify(&node("a"), key.public_key()).is_ok());
            assert!(!believed, "byte {place}");
            assert!(Signed::<T>::parse(&bytes[..place]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Signed::<T>::parse(&longer),
            Err(StatementRefused::Malformed)
        );
        let read = Signed::<T>::parse(&bytes).unwrap();
        assert!(read.verify(&node("b"), key.public_key()).is_err());
        assert!(read.verify(&node("a"), other.public_key()).is_err());
        assert_eq!(read.verify(&node("a"), key.public_key()), Ok(stated));
    }

    #[test]
    fn a_statement_with_any_byte_changed_or_of_another_node_or_key_is_not_believed() {
        holds_against_changes(head());
        holds_against_changes(loss());
    }

    #[test]
    fn one_kind_of_statement_does_not_pass_for_the_other_and_a_loss_goes_forward() {
        let key = SoftwareKey::generate().unwrap();
        let bytes = Signed::sign(loss(), &node("a"), &key).unwrap().to_bytes();
        assert!(Signed::<HeadStated>::parse(&bytes).is_err());
        let backward = LossStated {
            first_seq: 9,
            last_seq: 3,
            ..loss()
        };
        let bytes = Signed::sign(backward, &node("a"), &key).unwrap().to_bytes();
        assert_eq!(
            Signed::<LossStated>::parse(&bytes),
            Err(StatementRefused::Malformed)
        );
    }
}
