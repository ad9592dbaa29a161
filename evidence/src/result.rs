//! Attestation results (RFC 9334): what the cloud says about a node after appraising its evidence, signed for the
//! purpose `results` and checked by every peer. A result counts only beside the leaf whose key it names.

use edgeward_identity::signed::{EVERYBODY, Expect, Header, KeySet, Unacceptable};
use edgeward_identity::{
    AttestationState, PublicKey, Purpose, SignError, SignedObject, Signer, SpiffeId, SpkiHash,
    Tier, Timestamp, TrustDomain,
};
use serde::{Deserialize, Serialize};

use crate::appraise::{Appraisal, ProfileRef};
use crate::digest::Digest;
use crate::tpm::{Name, PcrSelection};
use crate::verify::{AttestationKey, Subject, VerifiedEvidence};

/// Largest signed result accepted, in bytes.
pub const MAX_RESULT_BYTES: usize = 8 * 1024;

/// What is said about a node. Made from evidence and its appraisal; read through [`CheckedResult`] elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationResult {
    spiffe_id: SpiffeId,
    svid_spki: SpkiHash,
    boot_key: PublicKey,
    tier: Tier,
    state: AttestationState,
    profile: Option<ProfileRef>,
    /// Codes of mismatches that a profile in mode `monitor` let pass.
    would_fail: Vec<String>,
    tpm: Option<TpmResult>,
    issued: Timestamp,
    deny_number: u64,
}

/// What the TPM proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TpmResult {
    ak_name: Name,
    /// `TPMT_PUBLIC`, hex.
    ak_public: String,
    pcr_selection: PcrSelection,
    pcr_digest: Digest,
    reset_count: u32,
    restart_count: u32,
}

/// What the cloud adds.
#[derive(Clone, Copy, Debug)]
pub struct ResultContext<'a> {
    pub spiffe_id: &'a SpiffeId,
    pub issued: Timestamp,
    /// Number of the deny-list that was in force.
    pub deny_number: u64,
}

/// Why no result is made. The fault is ours, or the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoResult {
    #[error("appraisal is of other evidence")]
    OtherEvidence,
    #[error("appraisal failed")]
    Failed,
    #[error("evidence speaks for another node")]
    OtherNode,
}

/// A result that a key of the cloud signed, about the key of the leaf at hand.
#[derive(Clone, Debug)]
pub struct CheckedResult {
    number: u64,
    expires: Timestamp,
    result: AttestationResult,
    tpm: Option<CheckedTpm>,
}

/// The TPM's side of a checked result.
#[derive(Clone, Debug)]
pub struct CheckedTpm {
    ak: AttestationKey,
    pcr_selection: PcrSelection,
    pcr_digest: Digest,
    reset_count: u32,
    restart_count: u32,
}

/// What the reader of a result insists on.
#[derive(Clone, Copy, Debug)]
pub struct ResultExpect<'a> {
    pub trust_domain: &'a TrustDomain,
    /// Identity and key of the leaf that signed the handshake.
    pub spiffe_id: &'a SpiffeId,
    pub svid_spki: &'a SpkiHash,
    /// Lower numbers are refused: the last one accepted about this node.
    pub least_number: u64,
    pub now: Timestamp,
}

/// Why a result is not believed. The fault is the sender's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultRefused {
    #[error("result is larger than the limit in bytes: {MAX_RESULT_BYTES}")]
    TooLarge,
    #[error("result: {0}")]
    Signed(#[from] Unacceptable),
    #[error("result is about another identity: {0}")]
    OtherIdentity(SpiffeId),
    #[error("result is about another key: {0}")]
    OtherKey(SpkiHash),
    #[error("result contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl AttestationResult {
    /// Puts together what evidence and appraisal say about the node `context.spiffe_id`.
    pub fn new(
        evidence: &VerifiedEvidence,
        appraisal: &Appraisal,
        context: &ResultContext<'_>,
    ) -> Result<Self, NoResult> {
        if appraisal.about() != evidence.qualifying_data() {
            return Err(NoResult::OtherEvidence);
        }
        let state = appraisal.state();
        if state == AttestationState::Failed {
            return Err(NoResult::Failed);
        }
        if matches!(evidence.subject(), Subject::Node(node) if node != context.spiffe_id) {
            return Err(NoResult::OtherNode);
        }
        let codes = appraisal
            .reasons()
            .iter()
            .map(|reason| reason.code().to_owned());
        Ok(Self {
            spiffe_id: context.spiffe_id.clone(),
            svid_spki: evidence.svid_key().spki_hash(),
            boot_key: *evidence.boot_key(),
            tier: evidence.tier(),
            // A machine without a TPM proves nothing, whatever the profile's mode forgives.
            state: match evidence.tpm() {
                Some(_) => state,
                None => AttestationState::None,
            },
            profile: appraisal.profile().cloned(),
            would_fail: codes.collect(),
            tpm: evidence.tpm().map(|facts| TpmResult {
                ak_name: facts.ak_name().clone(),
                ak_public: hex::encode(facts.ak().public_bytes()),
                pcr_selection: facts.selection().clone(),
                pcr_digest: *facts.pcr_digest(),
                reset_count: facts.reset_count(),
                restart_count: facts.restart_count(),
            }),
            issued: context.issued,
            deny_number: context.deny_number,
        })
    }

    /// Signs for everybody in the node's trust domain. `number` rises with every result about this node.
    pub fn sign(
        &self,
        signer: &dyn Signer,
        number: u64,
        expires: Timestamp,
    ) -> Result<SignedObject, SignError> {
        let header = Header {
            purpose: Purpose::Results,
            trust_domain: self.spiffe_id.trust_domain().clone(),
            audience: EVERYBODY.to_owned(),
            number,
            issued: self.issued,
            expires,
        };
        SignedObject::sign_json(signer, header, self)
    }

    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    pub fn svid_spki(&self) -> &SpkiHash {
        &self.svid_spki
    }

    pub fn boot_key(&self) -> &PublicKey {
        &self.boot_key
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    pub fn state(&self) -> AttestationState {
        self.state
    }

    /// `None` where the node's group has no profile.
    pub fn profile(&self) -> Option<&ProfileRef> {
        self.profile.as_ref()
    }

    /// Codes of mismatches that a profile in mode `monitor` let pass.
    pub fn would_fail(&self) -> &[String] {
        &self.would_fail
    }

    pub fn issued(&self) -> Timestamp {
        self.issued
    }

    pub fn deny_number(&self) -> u64 {
        self.deny_number
    }
}

/// Checks a signed result against the cloud's keys and the leaf it must be about. Its age is for the lease to judge.
pub fn check_result(
    bytes: &[u8],
    keys: &KeySet,
    expect: &ResultExpect<'_>,
) -> Result<CheckedResult, ResultRefused> {
    if bytes.len() > MAX_RESULT_BYTES {
        return Err(ResultRefused::TooLarge);
    }
    let object = SignedObject::parse(bytes).map_err(Unacceptable::from)?;
    let result: AttestationResult = object.open_json(
        keys,
        &Expect {
            purpose: Purpose::Results,
            trust_domain: expect.trust_domain,
            audience: EVERYBODY,
            least_number: expect.least_number,
            now: expect.now,
        },
    )?;
    if result.spiffe_id != *expect.spiffe_id {
        return Err(ResultRefused::OtherIdentity(result.spiffe_id));
    }
    if result.svid_spki != *expect.svid_spki {
        return Err(ResultRefused::OtherKey(result.svid_spki));
    }
    if result.spiffe_id.trust_domain() != expect.trust_domain {
        return Err(ResultRefused::Inconsistent(
            "identity of another trust domain",
        ));
    }
    let tpm = result.tpm.as_ref().map(check_tpm).transpose()?;
    if tpm.is_some() == (result.tier == Tier::Software) {
        return Err(ResultRefused::Inconsistent("tier and tpm"));
    }
    if tpm.is_none() && result.state == AttestationState::Trusted {
        return Err(ResultRefused::Inconsistent("trusted without a tpm"));
    }
    Ok(CheckedResult {
        number: object.header().number,
        expires: object.header().expires,
        result,
        tpm,
    })
}

impl CheckedResult {
    /// To be remembered: the next result about this node must not have a lower one.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    pub fn result(&self) -> &AttestationResult {
        &self.result
    }

    /// `None` in tier `software`.
    pub fn tpm(&self) -> Option<&CheckedTpm> {
        self.tpm.as_ref()
    }
}

impl CheckedTpm {
    pub fn ak(&self) -> &AttestationKey {
        &self.ak
    }

    pub fn pcr_selection(&self) -> &PcrSelection {
        &self.pcr_selection
    }

    pub fn pcr_digest(&self) -> &Digest {
        &self.pcr_digest
    }

    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }

    pub fn restart_count(&self) -> u32 {
        self.restart_count
    }
}

impl ResultRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "result_too_large",
            Self::Signed(refused) => refused.code(),
            Self::OtherIdentity(_) => "result_other_identity",
            Self::OtherKey(_) => "result_other_key",
            Self::Inconsistent(_) => "result_inconsistent",
        }
    }
}

impl NoResult {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherEvidence => "result_other_evidence",
            Self::Failed => "result_appraisal_failed",
            Self::OtherNode => "result_other_node",
        }
    }
}

fn check_tpm(tpm: &TpmResult) -> Result<CheckedTpm, ResultRefused> {
    let bytes =
        hex::decode(&tpm.ak_public).map_err(|_| ResultRefused::Inconsistent("ak is not hex"))?;
    let ak = AttestationKey::from_public_and_name(&bytes, tpm.ak_name.as_bytes())
        .map_err(|_| ResultRefused::Inconsistent("ak"))?;
    Ok(CheckedTpm {
        ak,
        pcr_selection: tpm.pcr_selection.clone(),
        pcr_digest: tpm.pcr_digest,
        reset_count: tpm.reset_count,
        restart_count: tpm.restart_count,
    })
}

#[cfg(test)]
pub(crate) mod tests;
