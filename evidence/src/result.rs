//! Attestation results (RFC 9334): what the cloud says about a node after appraising its evidence, signed for the
//! purpose `results` and checked by every peer. A result counts only beside the leaf whose key it names.
//!
//! On the wire it is an EAR (draft-ietf-rats-ear-04), a JWT in compact form (RFC 7519) signed with ES256, which anybody
//! with the key can read. Claims: `claims.rs`, and for people `docs/attestation-results.md`.

mod claims;

use edgeward_identity::jws::{self, BadJws, Compact};
use edgeward_identity::signed::{KeySet, Unacceptable};
use edgeward_identity::{
    AttestationState, PublicKey, Purpose, SignError, Signer, SpiffeId, SpkiHash, Tier, Timestamp,
    TrustDomain,
};

use crate::app_log::Runs;
use crate::appraise::{Appraisal, LOG_PENDING, ProfileRef, STATED_BY_DEFAULT};
use crate::digest::Digest;
use crate::tpm::PcrSelection;
use crate::verify::{AttestationKey, Subject, TpmFacts, VerifiedEvidence};

use claims::{Claims, TrustVector};

/// Largest signed result accepted, in bytes. With a P-256 AK and usual names one has 1.4 kB.
pub const MAX_RESULT_BYTES: usize = 8 * 1024;
/// How far ahead of the reader's clock a result may say it was issued: clocks of peers differ.
pub const MAX_AHEAD: std::time::Duration = std::time::Duration::from_secs(600);

/// What is said about a node. Made from evidence and its appraisal; read through [`CheckedResult`] elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationResult {
    spiffe_id: SpiffeId,
    svid_spki: SpkiHash,
    boot_key: PublicKey,
    tier: Tier,
    state: AttestationState,
    /// Why the state is not `trusted`.
    code: Option<String>,
    profile: Option<ProfileRef>,
    /// Codes of mismatches that a profile in mode `monitor` let pass.
    would_fail: Vec<String>,
    tpm: Option<TpmResult>,
    vector: TrustVector,
    /// `None`: nothing proves what runs.
    runs: Option<Runs>,
    issued: Timestamp,
    deny_number: u64,
}

/// What the TPM proved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TpmResult {
    ak: AttestationKey,
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
}

/// The TPM's side of a checked result.
#[derive(Clone, Copy, Debug)]
pub struct CheckedTpm<'a>(&'a TpmResult);

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
    #[error("result is no json web signature of ours: {0}")]
    Jws(BadJws),
    #[error("result's header has more than algorithm, type and key, or no key")]
    Header,
    #[error("result: {0}")]
    Signed(#[from] Unacceptable),
    #[error("result says it was issued in the future: {0} ms")]
    Ahead(u64),
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
        if matches!(evidence.subject(), Subject::Node(node) | Subject::Recovered(node) if node != context.spiffe_id)
        {
            return Err(NoResult::OtherNode);
        }
        // A machine without a TPM proves nothing, whatever the profile's mode forgives.
        let state = evidence.tpm().map_or(AttestationState::None, |_| state);
        let would_fail = appraisal.would_fail().into_iter().map(str::to_owned);
        Ok(Self {
            spiffe_id: context.spiffe_id.clone(),
            svid_spki: evidence.svid_key().spki_hash(),
            boot_key: *evidence.boot_key(),
            tier: evidence.tier(),
            state,
            code: (state == AttestationState::Stale).then(|| LOG_PENDING.to_owned()),
            profile: appraisal.profile().cloned(),
            would_fail: would_fail.collect(),
            tpm: evidence.tpm().map(|facts| {
                let (pcr_selection, pcr_digest) = stated(facts, appraisal);
                TpmResult {
                    ak: facts.ak().clone(),
                    pcr_selection,
                    pcr_digest,
                    reset_count: facts.reset_count(),
                    restart_count: facts.restart_count(),
                }
            }),
            vector: TrustVector::new(evidence, appraisal),
            runs: appraisal.runs().cloned(),
            issued: context.issued,
            deny_number: context.deny_number,
        })
    }

    /// Signs for everybody in the node's trust domain: an EAR in compact form. `number` rises with every result about
    /// this node. The end is cut to whole seconds.
    pub fn sign(
        &self,
        signer: &dyn Signer,
        number: u64,
        expires: Timestamp,
    ) -> Result<Vec<u8>, SignError> {
        let claims = Claims::of(self, number, expires);
        let payload =
            serde_json::to_vec(&claims).map_err(|e| SignError::KeyStore(e.to_string()))?;
        let kid = signer.public_key().spki_hash();
        let token = jws::sign(signer, &serde_json::json!({ "kid": kid }), &payload)?;
        Ok(token.into_bytes())
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

    /// Why the state is `stale`.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// `None` where the node's group has no profile.
    pub fn profile(&self) -> Option<&ProfileRef> {
        self.profile.as_ref()
    }

    /// Codes of mismatches that a profile in mode `monitor` let pass.
    pub fn would_fail(&self) -> &[String] {
        &self.would_fail
    }

    /// Applications that run on the node, as its TPM measured: `publisher/name` and version. `None` where nothing proves
    /// it; that is not the same as none.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.as_ref()
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
    let text = std::str::from_utf8(bytes).map_err(|_| ResultRefused::Jws(BadJws::Parts))?;
    let token = Compact::parse(text, MAX_RESULT_BYTES)?;
    let claims = verified_claims(&token, keys, expect.now)?;
    let (number, expires) = (claims.number(), claims.expires());
    let result = claims.into_result()?;
    if result.spiffe_id.trust_domain() != expect.trust_domain {
        let other = result.spiffe_id.trust_domain().clone();
        return Err(Unacceptable::TrustDomain(other).into());
    }
    if number < expect.least_number {
        let least = expect.least_number;
        return Err(Unacceptable::Rollback { number, least }.into());
    }
    if expires <= expect.now {
        return Err(Unacceptable::Expired.into());
    }
    if result.issued > expect.now.plus(MAX_AHEAD) {
        return Err(ResultRefused::Ahead(result.issued.millis()));
    }
    if result.spiffe_id != *expect.spiffe_id {
        return Err(ResultRefused::OtherIdentity(result.spiffe_id));
    }
    if result.svid_spki != *expect.svid_spki {
        return Err(ResultRefused::OtherKey(result.svid_spki));
    }
    Ok(CheckedResult {
        number,
        expires,
        result,
    })
}

/// When a result says that it was issued, whoever signed it: to choose between results that are checked later.
pub fn issued_unverified(bytes: &[u8]) -> Option<Timestamp> {
    if bytes.len() > MAX_RESULT_BYTES {
        return None;
    }
    let payload = bytes.split(|byte| *byte == b'.').nth(1)?;
    Some(Claims::of_base64(payload)?.time())
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
    pub fn tpm(&self) -> Option<CheckedTpm<'_>> {
        self.result.tpm.as_ref().map(CheckedTpm)
    }
}

impl<'a> CheckedTpm<'a> {
    pub fn ak(&self) -> &'a AttestationKey {
        &self.0.ak
    }

    /// What a boot without the cloud must equal.
    pub fn pcr_selection(&self) -> &'a PcrSelection {
        &self.0.pcr_selection
    }

    pub fn pcr_digest(&self) -> &'a Digest {
        &self.0.pcr_digest
    }

    pub fn reset_count(&self) -> u32 {
        self.0.reset_count
    }

    pub fn restart_count(&self) -> u32 {
        self.0.restart_count
    }
}

impl ResultRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Jws(BadJws::TooLarge) => "result_too_large",
            Self::Jws(BadJws::Parts | BadJws::Signature) => "result_malformed",
            Self::Jws(BadJws::Algorithm) => "result_algorithm",
            Self::Jws(BadJws::Header | BadJws::Critical) | Self::Header => "result_header",
            Self::Signed(refused) => refused.code(),
            Self::Ahead(_) => "result_issued_ahead",
            Self::OtherIdentity(_) => "result_other_identity",
            Self::OtherKey(_) => "result_other_key",
            Self::Inconsistent(_) => "result_inconsistent",
        }
    }
}

impl From<BadJws> for ResultRefused {
    fn from(bad: BadJws) -> Self {
        Self::Jws(bad)
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

/// What a boot without the cloud must equal, out of what was quoted. Where a profile that only watches names PCRs that
/// were not quoted, the rest is stated; where nothing is left, all that was quoted.
fn stated(facts: &TpmFacts, appraisal: &Appraisal) -> (PcrSelection, Digest) {
    let wanted: Vec<u8> = match appraisal.stated() {
        Some(selection) => selection.indexes().collect(),
        None => STATED_BY_DEFAULT.to_vec(),
    };
    let quoted = facts.selection();
    let there = wanted.into_iter().filter(|index| quoted.contains(*index));
    let selection = PcrSelection::new(quoted.bank(), there).unwrap_or_else(|_| quoted.clone());
    let values: Vec<u8> = facts
        .pcr_values()
        .iter()
        .filter(|(index, _)| selection.contains(**index))
        .flat_map(|(_, value)| value.iter().copied())
        .collect();
    (selection, Digest::of(&values))
}

fn verified_claims(
    token: &Compact<'_>,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Claims, ResultRefused> {
    // Nothing in a header may bring a key along or say where to get one.
    if token
        .header()
        .keys()
        .any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ"))
    {
        return Err(ResultRefused::Header);
    }
    let kid = token.header_text("kid").ok_or(ResultRefused::Header)?;
    let kid: SpkiHash = kid.parse().map_err(|_| ResultRefused::Header)?;
    let key = keys
        .keys_for(Purpose::Results, now)
        .into_iter()
        .find(|key| key.spki_hash() == kid)
        .ok_or(Unacceptable::Key)?;
    let payload = token.verify(&key).map_err(|_| Unacceptable::Signature)?;
    Ok(serde_json::from_slice(payload).map_err(|_| Unacceptable::Payload)?)
}

#[cfg(test)]
pub(crate) mod tests;
