//! The journal's keys: each vouches for the next one, and for all records before, and is then gone.
//!
//! A record of type `journal.sealed` (a *turn*) names the next key and carries a signature by the one that is in use, over
//! its own place in the chain. Keys turn by count of records, never by the clock. The first turn of a boot is signed by
//! the boot key, which evidence names. Whoever takes a node over finds the newest key only: records before the last turn
//! cannot be changed, nor left out, without a turn that no longer holds, and turns that stay away are noticed, since no
//! key covers more than [`MAX_RECORDS_A_KEY`].

use edgeward_identity::{PublicKey, SignError, Signer, SpiffeId, Timestamp};

use crate::digest::Digest;
use crate::event::{Event, EventKind};

use super::{BootId, Chain, SealedRecord};

/// Keepers turn their key after so many records.
pub const RECORDS_A_KEY: u64 = 1_000;
/// More records without a turn than this are a fault. The room between is for a full journal, where a turn finds no place
/// and what takes rights away still does.
pub const MAX_RECORDS_A_KEY: u64 = 4 * RECORDS_A_KEY;

const LABEL: &[u8] = b"edgeward journal key turn v1\n";
const NUMBER: &str = "number";
const KEY: &str = "key";
const SIGNATURE: &str = "signature";

/// What a turn says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTurn {
    /// Of the next key; 0 is the first of a boot.
    pub number: u32,
    /// The next key.
    pub key: PublicKey,
    signature: Vec<u8>,
}

/// The newest key of one boot's journal, as its turns prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChain {
    pub number: u32,
    pub key: PublicKey,
    /// The sequence number of its turn: everything up to here is beyond the reach of the keys that still exist.
    pub seq: u64,
}

/// Why a turn does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    #[error("record is no turn of a key")]
    Malformed,
    #[error("turn leads to key {found} where {expected} is due")]
    Number { expected: u64, found: u32 },
    #[error("turn is not signed by the key in use")]
    Signature,
}

impl KeyTurn {
    /// The event that turns `chain`'s key to `next`, to be its next record. `signer` is the key in use: the boot key for
    /// number 0.
    pub fn event(
        chain: &Chain,
        signer: &dyn Signer,
        (number, next): (u32, &PublicKey),
        time: Timestamp,
    ) -> Result<Event, SignError> {
        let seq = chain.next_seq().unwrap_or(u64::MAX);
        let place = (chain.node(), chain.boot(), seq, chain.next_prev());
        let signature = signer.sign(&covered(place, number, next))?;
        let node = chain.node().clone();
        Ok(Event::new(time, node.clone(), EventKind::JournalSealed)
            .subject(node)
            .detail(NUMBER, number)
            .detail(KEY, hex::encode(next.point()))
            .detail(SIGNATURE, hex::encode(signature)))
    }

    /// A turn that was read before.
    pub fn from_parts(number: u32, key: PublicKey, signature: Vec<u8>) -> Self {
        Self {
            number,
            key,
            signature,
        }
    }

    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Reads a turn; nothing is verified.
    pub fn parse(event: &Event) -> Result<Self, TurnError> {
        let field = |name| event.detail.get(name).ok_or(TurnError::Malformed);
        let bytes = |name| hex::decode(field(name)?).map_err(|_| TurnError::Malformed);
        if event.kind != EventKind::JournalSealed {
            return Err(TurnError::Malformed);
        }
        Ok(Self {
            number: field(NUMBER)?.parse().map_err(|_| TurnError::Malformed)?,
            key: PublicKey::from_point(&bytes(KEY)?).map_err(|_| TurnError::Malformed)?,
            signature: bytes(SIGNATURE)?,
        })
    }
}

impl KeyChain {
    /// Checks the next turn of a boot. `known` is what the turns before have proven, none before the first; `root` is the
    /// boot key where it is known: where it is not, the first turn is taken on trust and what follows is checked.
    pub fn advance(
        known: Option<&Self>,
        record: &SealedRecord,
        root: Option<&PublicKey>,
    ) -> Result<Self, TurnError> {
        let turn = KeyTurn::parse(record.event())?;
        let inner = record.record();
        Self::follow(
            known,
            &turn,
            (&inner.node, inner.boot, inner.seq, inner.prev),
            root,
        )
    }

    /// As [`KeyChain::advance`], for a turn that was read before: node, boot, number and predecessor are those of its record.
    pub fn follow(
        known: Option<&Self>,
        turn: &KeyTurn,
        place: (&SpiffeId, BootId, u64, Digest),
        root: Option<&PublicKey>,
    ) -> Result<Self, TurnError> {
        let expected = known.map_or(0, |known| u64::from(known.number) + 1);
        if u64::from(turn.number) != expected {
            return Err(TurnError::Number {
                expected,
                found: turn.number,
            });
        }
        if let Some(signer) = known.map(|known| &known.key).or(root) {
            signer
                .verify(&covered(place, turn.number, &turn.key), &turn.signature)
                .map_err(|_| TurnError::Signature)?;
        }
        Ok(Self {
            number: turn.number,
            key: turn.key,
            seq: place.2,
        })
    }

    /// The chain from this turn on, taken on trust: where the turns before it are missing, which is an alarm already.
    pub fn resume(turn: &SealedRecord) -> Result<Self, TurnError> {
        let said = KeyTurn::parse(turn.event())?;
        Ok(Self {
            number: said.number,
            key: said.key,
            seq: turn.record().seq,
        })
    }

    /// Whether a boot whose last record is `seq` should have turned its key long ago.
    pub fn is_overdue(&self, seq: u64) -> bool {
        seq.saturating_sub(self.seq) > MAX_RECORDS_A_KEY
    }
}

impl TurnError {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "audit_turn_malformed",
            Self::Number { .. } => "audit_turn_number",
            Self::Signature => "audit_turn_signature",
        }
    }
}

fn covered(
    (node, boot, seq, prev): (&SpiffeId, BootId, u64, Digest),
    number: u32,
    next: &PublicKey,
) -> Vec<u8> {
    let node = node.to_string();
    let mut message = LABEL.to_vec();
    // A SPIFFE ID is at most 2,048 bytes long.
    let length = u16::try_from(node.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(node.as_bytes());
    message.extend_from_slice(boot.as_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(prev.as_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    message.extend_from_slice(next.point());
    message
}

#[cfg(test)]
mod tests;
