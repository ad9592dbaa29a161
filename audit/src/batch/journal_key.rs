//! The key that signs batches: a software key of the running boot, which the SVID key vouches for.
//!
//! A TPM signs in tens of milliseconds, so the SVID key signs one statement for each boot (and again when that ends),
//! and the journal key signs the batches.

use std::time::Duration;

use edgeward_identity::signed::{EVERYBODY, Expect, Header, Malformed, Unacceptable};
use edgeward_identity::{PublicKey, Purpose, SignError, SignedObject, Signer, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::BootId;

/// How long a statement holds. Agents make a new one when half of it is over.
pub const JOURNAL_KEY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 6 * 1024;

/// The SVID key's word for a journal key: a signed object of purpose `journal`, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalKeyStatement(SignedObject);

/// A journal key that the node's SVID key vouched for. Only [`JournalKeyStatement::verify`] makes one.
#[derive(Clone, Debug)]
pub struct JournalKey {
    node: SpiffeId,
    boot: BootId,
    key: PublicKey,
    expires: Timestamp,
    source: Vec<u8>,
}

/// The statement is refused.
#[derive(Debug, thiserror::Error)]
pub enum JournalKeyError {
    #[error("statement is longer than the limit in bytes: {MAX_STATEMENT_BYTES}")]
    TooLong,
    #[error("statement is malformed")]
    Malformed(#[from] Malformed),
    #[error("statement is not acceptable")]
    Unacceptable(#[from] Unacceptable),
    #[error("statement is about another node: {0}")]
    Node(SpiffeId),
    #[error("statement holds for longer than allowed")]
    Lifetime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    node: SpiffeId,
    boot: BootId,
    key: PublicKey,
}

impl JournalKeyStatement {
    /// Lets the SVID key vouch for `journal_key` during `boot`, from `now` for [`JOURNAL_KEY_LIFETIME`].
    pub fn sign(
        svid_key: &dyn Signer,
        node: &SpiffeId,
        boot: BootId,
        journal_key: &PublicKey,
        now: Timestamp,
    ) -> Result<Self, SignError> {
        let header = Header {
            purpose: Purpose::Journal,
            trust_domain: node.trust_domain().clone(),
            audience: EVERYBODY.to_owned(),
            number: 0,
            issued: now,
            expires: now.plus(JOURNAL_KEY_LIFETIME),
        };
        let payload = Payload {
            node: node.clone(),
            boot,
            key: *journal_key,
        };
        SignedObject::sign_json(svid_key, header, &payload).map(Self)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, JournalKeyError> {
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(JournalKeyError::TooLong);
        }
        Ok(Self(SignedObject::parse(bytes)?))
    }

    /// Checks that the key of the node's SVID, from the leaf that the session authenticated, vouches for this key now.
    pub fn verify(
        &self,
        node: &SpiffeId,
        svid_key: &PublicKey,
        now: Timestamp,
    ) -> Result<JournalKey, JournalKeyError> {
        let expect = Expect {
            purpose: Purpose::Journal,
            trust_domain: node.trust_domain(),
            audience: EVERYBODY,
            least_number: 0,
            now,
        };
        let payload = self.0.open_with_key(svid_key, &expect)?;
        let payload: Payload =
            serde_json::from_slice(payload).map_err(|_| Unacceptable::Payload)?;
        if payload.node != *node {
            return Err(JournalKeyError::Node(payload.node));
        }
        let header = self.0.header();
        if header.expires.since(header.issued) > JOURNAL_KEY_LIFETIME {
            return Err(JournalKeyError::Lifetime);
        }
        Ok(JournalKey {
            node: payload.node,
            boot: payload.boot,
            key: payload.key,
            expires: header.expires,
            source: self.to_bytes(),
        })
    }
}

impl JournalKey {
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    /// The boot in which the key lives. It may send what earlier boots left behind.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether this key was verified from exactly these bytes and still holds: saves the signature check on the
    /// following batches of a session.
    pub fn came_from(&self, statement: &[u8], now: Timestamp) -> bool {
        self.source == statement && now < self.expires
    }
}

impl JournalKeyError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong | Self::Malformed(_) => "audit_statement_malformed",
            Self::Unacceptable(reason) => reason.code(),
            Self::Node(_) => "audit_statement_node",
            Self::Lifetime => "audit_statement_lifetime",
        }
    }
}
