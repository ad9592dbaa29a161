//! The grant: what one sealed file may open, on one node, once.

use std::collections::BTreeSet;

use edgeward_identity::signed::{Expect, Header, Unacceptable};
use edgeward_identity::{
    KeySet, Kind, PublicKey, Purpose, SignError, SignedObject, Signer, SpiffeId, SpkiHash,
    Timestamp, TrustDomain,
};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The `schema` of a grant.
pub const GRANT_SCHEMA: &str = "edgeward-break-glass/1";
/// Most rules that one grant opens.
pub const MAX_RULES: usize = 64;
/// Most operators that may open one grant.
pub const MAX_APPROVERS: usize = 64;
/// Longest time that anything stays open, in seconds.
pub const MAX_TTL_SECONDS: u64 = 72 * 3600;

/// What the cloud signs, as JSON. The header has the node as audience, the grant's number, and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    pub schema: String,
    /// `[break-glass.<name>]` of the policy.
    pub name: String,
    /// Key of the node's SVID when this was issued: a machine that took the name over since opens nothing with it.
    pub node_key: SpkiHash,
    /// Ids of rules, each once.
    pub rules: Vec<String>,
    /// Who may open it, each operator and each key once.
    pub approvers: Vec<Approver>,
    /// How many of them it takes.
    pub quorum: u16,
    /// How long it stays open.
    pub ttl_seconds: u64,
}

/// An operator who may open a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    pub id: SpiffeId,
    pub key: PublicKey,
}

/// A grant that verified. Only [`Grant::open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    header: Header,
    body: GrantBody,
    digest: [u8; 32],
}

/// The bytes are no grant for this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAGrant {
    #[error(transparent)]
    Signed(#[from] Unacceptable),
    #[error("the signed grant is not what this version knows")]
    Content,
}

impl GrantBody {
    /// Signs it for one node.
    pub fn sign(&self, signer: &dyn Signer, header: Header) -> Result<Vec<u8>, SignError> {
        Ok(SignedObject::sign_json(signer, header, self)?.to_bytes())
    }

    fn is_sound(&self, header: &Header) -> bool {
        let members: BTreeSet<&SpiffeId> = self.approvers.iter().map(|one| &one.id).collect();
        let keys: BTreeSet<&PublicKey> = self.approvers.iter().map(|one| &one.key).collect();
        let rules: BTreeSet<&String> = self.rules.iter().collect();
        self.schema == GRANT_SCHEMA
            && (1..=MAX_RULES).contains(&self.rules.len())
            && rules.len() == self.rules.len()
            && (1..=MAX_APPROVERS).contains(&self.approvers.len())
            && members.len() == self.approvers.len()
            && keys.len() == self.approvers.len()
            && members
                .iter()
                .all(|id| id.kind() == Kind::Operator && *id.trust_domain() == header.trust_domain)
            && (1..=self.approvers.len()).contains(&usize::from(self.quorum))
            && (1..=MAX_TTL_SECONDS).contains(&self.ttl_seconds)
    }
}

impl Grant {
    /// Verifies a grant for `node` under the keys that the reader holds.
    pub fn open(
        bytes: &[u8],
        keys: &KeySet,
        node: &SpiffeId,
        now: Timestamp,
    ) -> Result<Self, NotAGrant> {
        let object = SignedObject::parse(bytes).map_err(Unacceptable::from)?;
        let expect = Expect {
            purpose: Purpose::BreakGlass,
            trust_domain: node.trust_domain(),
            audience: &node.to_string(),
            least_number: 1,
            now,
        };
        Self::opened(&object, bytes, keys, &expect)
    }

    /// Verifies a grant for whatever node it names: for operators, who are no node.
    pub fn open_for_any(
        bytes: &[u8],
        keys: &KeySet,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, NotAGrant> {
        let object = SignedObject::parse(bytes).map_err(Unacceptable::from)?;
        let audience = object.header().audience.clone();
        let expect = Expect {
            purpose: Purpose::BreakGlass,
            trust_domain,
            audience: &audience,
            least_number: 1,
            now,
        };
        Self::opened(&object, bytes, keys, &expect)
    }

    fn opened(
        object: &SignedObject,
        bytes: &[u8],
        keys: &KeySet,
        expect: &Expect<'_>,
    ) -> Result<Self, NotAGrant> {
        let body: GrantBody = object.open_json(keys, expect)?;
        let header = object.header().clone();
        if !body.is_sound(&header) {
            return Err(NotAGrant::Content);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Ok(Self {
            header,
            body,
            digest: hash,
        })
    }

    pub fn body(&self) -> &GrantBody {
        &self.body
    }

    /// Names it among all grants of the trust domain.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Past this it opens nothing.
    pub fn expires(&self) -> Timestamp {
        self.header.expires
    }

    pub fn issued(&self) -> Timestamp {
        self.header.issued
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.header.trust_domain
    }

    /// SPIFFE ID of the node that it is for.
    pub fn node(&self) -> &str {
        &self.header.audience
    }

    /// SHA-256 of the signed object: what approvals are over.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}
