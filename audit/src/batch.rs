//! Batches: records on their way to the cloud.
//!
//! Layout, integers big-endian:
//! `"EWJB" | version 1 | key statement u16+bytes | boot 16 | first sequence number u64 | count u16 | count x (u16+record) |
//! signature u16+bytes`.
//!
//! The signature is by the journal key of the running boot ([`JournalKeyStatement`]) over a label, the node, the records'
//! boot, the first sequence number, the count and the last record's hash, which covers every record before it. The records
//! are of one boot, not necessarily the running one: what a boot could not send, the next one sends.

use edgeward_identity::{PublicKey, SignError, Signer, SpiffeId};

use crate::digest::Digest;
use crate::record::{
    BootId, Chain, ChainError, Head, MAX_RECORD_BYTES, RecordError, SealedRecord, record_hash,
};

mod dedup;
mod journal_key;

#[cfg(test)]
mod tests;

pub use dedup::{Accepted, Continuity, DedupError, accept, continuity};
pub use journal_key::{
    JOURNAL_KEY_LIFETIME, JournalKey, JournalKeyError, JournalKeyStatement, MAX_STATEMENT_BYTES,
};

/// Longest batch, in bytes.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Most records of one batch.
pub const MAX_BATCH_RECORDS: usize = 500;
/// Most bytes of records in one batch, frames included: leaves room for statement and signature.
pub const MAX_BATCH_RECORD_BYTES: usize = MAX_BATCH_BYTES - 8 * 1024;

const MAGIC: &[u8; 4] = b"EWJB";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"edgeward-journal-batch-v1\0";
/// Longest ECDSA P-256 signature in DER, in bytes.
const MAX_SIGNATURE_BYTES: usize = 72;

/// A batch as it travels: parsed within bounds, nothing verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    statement: Vec<u8>,
    boot: BootId,
    first: u64,
    records: Vec<Vec<u8>>,
    signature: Vec<u8>,
}

/// A batch whose signature holds and whose records form a chain. Only [`Batch::verify`] makes one. Whether it continues
/// what is stored is for [`accept`] to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBatch {
    node: SpiffeId,
    boot: BootId,
    records: Vec<SealedRecord>,
    first: u64,
    head: Head,
    boot_key: Option<PublicKey>,
}

/// The bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchMalformed {
    #[error("batch is longer than the limit in bytes: {MAX_BATCH_BYTES}")]
    TooLong,
    #[error("batch is truncated or has trailing bytes")]
    Length,
    #[error("not a batch of a known version")]
    Magic,
    #[error("a batch has 1 to {MAX_BATCH_RECORDS} records, this one: {0}")]
    Count(usize),
    #[error("a record, statement or signature is longer than its limit")]
    PartTooLong,
}

/// The batch is the peer's fault and is refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchRefused {
    #[error("batch is of another node than the session")]
    Node,
    #[error("batch is not signed by the journal key")]
    Signature,
    #[error("record {index} of the batch cannot be read")]
    Record {
        index: usize,
        #[source]
        source: RecordError,
    },
    #[error("batch has no records")]
    Empty,
    #[error("records of the batch are no chain")]
    Chain(#[source] ChainError),
}

/// We could not make a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("records do not make a batch")]
    Shape(#[source] BatchMalformed),
    #[error("records of our own journal cannot be read or are no chain")]
    Records(#[source] BatchRefused),
    #[error("the journal key could not sign")]
    Sign(#[from] SignError),
}

impl Batch {
    /// Signs records of one boot, as [`crate::journal::Journal::pending`] gave them.
    pub fn sign(
        statement: &JournalKeyStatement,
        journal_key: &dyn Signer,
        records: Vec<Vec<u8>>,
    ) -> Result<Self, BatchError> {
        check_count(records.len()).map_err(BatchError::Shape)?;
        let (chain, first, _) = read_chain(&records).map_err(BatchError::Records)?;
        let message = covered(chain.node(), chain.boot(), first, &records);
        let signature = journal_key.sign(&message)?;
        let batch = Self {
            statement: statement.to_bytes(),
            boot: chain.boot(),
            first,
            records,
            signature,
        };
        if batch.encoded_len() > MAX_BATCH_BYTES {
            return Err(BatchError::Shape(BatchMalformed::TooLong));
        }
        Ok(batch)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        put(&mut bytes, &self.statement);
        bytes.extend_from_slice(self.boot.as_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&short(self.records.len()).to_be_bytes());
        for record in &self.records {
            put(&mut bytes, record);
        }
        put(&mut bytes, &self.signature);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BatchMalformed> {
        if bytes.len() > MAX_BATCH_BYTES {
            return Err(BatchMalformed::TooLong);
        }
        let mut reader = Reader(bytes);
        if reader.array::<4>()? != *MAGIC || reader.array::<1>()? != [VERSION] {
            return Err(BatchMalformed::Magic);
        }
        let statement = reader.part(MAX_STATEMENT_BYTES)?;
        let boot = BootId::from_bytes(reader.array()?);
        let first = u64::from_be_bytes(reader.array()?);
        let count = usize::from(u16::from_be_bytes(reader.array()?));
        check_count(count)?;
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(reader.part(MAX_RECORD_BYTES)?);
        }
        let signature = reader.part(MAX_SIGNATURE_BYTES)?;
        if reader.0.is_empty() {
            Ok(Self {
                statement,
                boot,
                first,
                records,
                signature,
            })
        } else {
            Err(BatchMalformed::Length)
        }
    }

    /// The statement that came along, for [`JournalKeyStatement::parse`]; a session that has verified it once compares
    /// with [`JournalKey::came_from`] instead.
    pub fn statement_bytes(&self) -> &[u8] {
        &self.statement
    }

    /// The boot whose records these claim to be.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    pub fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Checks signature, node, boot and chain. The signature is checked before any record is read.
    pub fn verify(&self, key: &JournalKey) -> Result<VerifiedBatch, BatchRefused> {
        let message = covered(key.node(), self.boot, self.first, &self.records);
        key.public_key()
            .verify(&message, &self.signature)
            .map_err(|_| BatchRefused::Signature)?;
        let (chain, first, records) = read_chain(&self.records)?;
        if chain.node() != key.node() {
            return Err(BatchRefused::Node);
        }
        if chain.boot() != self.boot {
            return Err(BatchRefused::Chain(ChainError::Boot(chain.boot())));
        }
        if first != self.first {
            return Err(BatchRefused::Chain(ChainError::Sequence {
                expected: self.first,
                found: first,
            }));
        }
        let head = chain.head().ok_or(BatchRefused::Empty)?;
        Ok(VerifiedBatch {
            node: key.node().clone(),
            boot: self.boot,
            records,
            first,
            head,
            boot_key: (key.boot() == self.boot).then(|| *key.public_key()),
        })
    }

    fn encoded_len(&self) -> usize {
        let records: usize = self.records.iter().map(|record| 2 + record.len()).sum();
        4 + 1 + 2 + self.statement.len() + 16 + 8 + 2 + records + 2 + self.signature.len()
    }
}

impl VerifiedBatch {
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// At least one record, contiguous and linked.
    pub fn records(&self) -> &[SealedRecord] {
        &self.records
    }

    pub fn first_seq(&self) -> u64 {
        self.first
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// The key of the boot whose records these are; none if a later boot sends them.
    pub fn boot_key(&self) -> Option<&PublicKey> {
        self.boot_key.as_ref()
    }
}

impl BatchMalformed {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong | Self::PartTooLong => "audit_batch_too_long",
            Self::Length | Self::Magic | Self::Count(_) => "audit_batch_malformed",
        }
    }
}

impl BatchRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Node => "audit_batch_node",
            Self::Signature => "audit_batch_signature",
            Self::Record { .. } => "audit_record_malformed",
            Self::Empty | Self::Chain(_) => "audit_batch_chain",
        }
    }
}

fn check_count(count: usize) -> Result<(), BatchMalformed> {
    if (1..=MAX_BATCH_RECORDS).contains(&count) {
        Ok(())
    } else {
        Err(BatchMalformed::Count(count))
    }
}

/// Reads all records as one chain.
fn read_chain(records: &[Vec<u8>]) -> Result<(Chain, u64, Vec<SealedRecord>), BatchRefused> {
    let mut sealed = Vec::with_capacity(records.len());
    let mut chain: Option<Chain> = None;
    for (index, bytes) in records.iter().enumerate() {
        let record =
            SealedRecord::parse(bytes).map_err(|source| BatchRefused::Record { index, source })?;
        match &mut chain {
            None => chain = Some(Chain::starting_at(&record)),
            Some(chain) => chain.advance(&record).map_err(BatchRefused::Chain)?,
        }
        sealed.push(record);
    }
    match (chain, sealed.first()) {
        (Some(chain), Some(first)) => {
            let first = first.record().seq;
            Ok((chain, first, sealed))
        }
        _ => Err(BatchRefused::Empty),
    }
}

fn covered(node: &SpiffeId, boot: BootId, first: u64, records: &[Vec<u8>]) -> Vec<u8> {
    let last = records
        .last()
        .map_or(Digest::ZERO, |bytes| record_hash(bytes));
    let mut message = LABEL.to_vec();
    put(&mut message, node.to_string().as_bytes());
    message.extend_from_slice(boot.as_bytes());
    message.extend_from_slice(&first.to_be_bytes());
    message.extend_from_slice(&short(records.len()).to_be_bytes());
    message.extend_from_slice(last.as_bytes());
    message
}

/// All parts are far below 64 KiB by their own limits.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&short(part.len()).to_be_bytes());
    bytes.extend_from_slice(part);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchMalformed> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(BatchMalformed::Length)?;
        self.0 = tail;
        Ok(*head)
    }

    fn part(&mut self, limit: usize) -> Result<Vec<u8>, BatchMalformed> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > limit {
            return Err(BatchMalformed::PartTooLong);
        }
        let (head, tail) = self
            .0
            .split_at_checked(length)
            .ok_or(BatchMalformed::Length)?;
        self.0 = tail;
        Ok(head.to_vec())
    }
}
