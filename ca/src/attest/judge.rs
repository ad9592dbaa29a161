//! Judging one answer to one challenge: evidence, then its appraisal.

use edgeward_evidence::appraise::{Appraisal, Logs, appraise, appraise_without_profile};
use edgeward_evidence::result::NoResult;
use edgeward_evidence::tpm::{ClockInfo, PcrValue};
use edgeward_evidence::verify::{
    AttestEvidence, AttestExpected, AttestationKey, EvidenceRefused, KeyRefused, QuoteEvidence,
    SignedAttest, SoftwareAttestExpected, SvidKey, SvidProof, TpmTier, VerifiedEvidence,
    verify_attestation, verify_software_attestation,
};
use edgeward_evidence::{Digest, Exporter, Nonce};
use edgeward_identity::keys::KeyError;
use edgeward_identity::{AttestationState, PublicKey, SpiffeId, TrustDomain};
use edgeward_wire::v1;

use super::Measured;
use super::profile::Unmeasurable;
use crate::store::nodes::NodeRow;
use crate::store::results::Counters;

/// An answer as it came, parsed.
#[derive(Clone, Debug)]
pub enum Answer {
    Tpm(AttestEvidence),
    /// A signature by the SVID key.
    Software(Vec<u8>),
}

/// What the cloud knows about the node and this session.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub trust_domain: &'a TrustDomain,
    pub node: &'a SpiffeId,
    pub row: &'a NodeRow,
    /// As stored with the certificate that the session was opened with.
    pub svid_public: &'a [u8],
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    pub boot_key: &'a PublicKey,
    pub measured: &'a Measured,
    pub last: Counters,
    /// Whether a renewal was asked for: then the answer must certify the key.
    pub renew: bool,
}

/// An answer that passed.
#[derive(Debug)]
pub struct Judged {
    pub evidence: VerifiedEvidence,
    pub appraisal: Appraisal,
    /// To be stored: the next answer is compared with it.
    pub counters: Counters,
    pub rebooted: bool,
    /// `TPMT_PUBLIC`, or point, of the key that the evidence proved.
    pub svid_public: Vec<u8>,
}

/// Why an answer did not pass. The fault is the node's unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("evidence is of another root than the node's")]
    OtherRoot,
    #[error("a renewal was asked for and the key is not certified")]
    NotCertified,
    #[error("evidence is incomplete")]
    Incomplete,
    #[error(transparent)]
    Evidence(#[from] EvidenceRefused),
    #[error("key: {0}")]
    Key(#[from] KeyRefused),
    #[error("what was measured is not what the profile says: {0}")]
    Appraisal(String, &'static str),
    #[error("result: {0}")]
    Result(#[from] NoResult),
    /// The policy's.
    #[error("policy: {0}")]
    Policy(#[from] Unmeasurable),
    /// Ours.
    #[error("stored keys of the node are unreadable")]
    Stored,
}

impl Refusal {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherRoot => "evidence_other_root",
            Self::NotCertified => "certify_missing",
            Self::Incomplete => "evidence_incomplete",
            Self::Evidence(refused) => refused.code(),
            Self::Key(refused) => refused.code(),
            Self::Appraisal(_, code) => code,
            Self::Result(refused) => refused.code(),
            Self::Policy(refused) => refused.code(),
            Self::Stored => "internal",
        }
    }
}

impl From<KeyError> for Refusal {
    fn from(_: KeyError) -> Self {
        Self::Stored
    }
}

/// Judges an answer. It passes, or the reason why not is returned; nothing else changes.
pub fn judge(answer: &Answer, expected: &Expected<'_>) -> Result<Judged, Refusal> {
    let evidence = verify(answer, expected)?;
    let appraisal = appraised(&evidence, expected.measured)?;
    let (counters, rebooted, svid_public) = match evidence.tpm() {
        Some(facts) => (
            Counters::from(facts.clock()),
            facts.rebooted(),
            facts.svid().public_bytes().to_vec(),
        ),
        None => (
            Counters::default(),
            false,
            evidence.svid_key().point().to_vec(),
        ),
    };
    Ok(Judged {
        evidence,
        appraisal,
        counters,
        rebooted,
        svid_public,
    })
}

/// Compares evidence with what the node must measure.
pub(crate) fn appraised(
    evidence: &VerifiedEvidence,
    measured: &Measured,
) -> Result<Appraisal, Refusal> {
    let appraisal = match (&measured.profile, evidence.tpm()) {
        (Some(profile), Some(_)) => appraise(evidence, profile, &Logs::default()),
        // A machine without a TPM is where its profiles allow that; there is nothing to compare.
        (Some(_), None) if !measured.software => {
            return Err(Refusal::Appraisal(
                "tier software".to_owned(),
                "tier_software",
            ));
        }
        (Some(_) | None, _) => appraise_without_profile(evidence, &Logs::default()),
    };
    if appraisal.state() == AttestationState::Failed {
        let reasons: Vec<String> = appraisal
            .reasons()
            .iter()
            .map(ToString::to_string)
            .collect();
        let code = appraisal.reasons().first().map_or(
            "profile_mismatch",
            edgeward_evidence::appraise::Mismatch::code,
        );
        return Err(Refusal::Appraisal(reasons.join("; "), code));
    }
    Ok(appraisal)
}

fn verify(answer: &Answer, expected: &Expected<'_>) -> Result<VerifiedEvidence, Refusal> {
    match (
        answer,
        expected.row.root.ek(),
        TpmTier::new(expected.row.tier),
    ) {
        (Answer::Tpm(evidence), Some(ek), Some(tier)) => {
            if expected.renew && evidence.svid == SvidProof::Current {
                return Err(Refusal::NotCertified);
            }
            let ek_digest: Digest = ek.parse().map_err(|_| Refusal::Stored)?;
            let ak = AttestationKey::from_public(&expected.row.ak).map_err(|_| Refusal::Stored)?;
            let svid = SvidKey::from_public(expected.svid_public).map_err(|_| Refusal::Stored)?;
            Ok(verify_attestation(
                evidence,
                &AttestExpected {
                    trust_domain: expected.trust_domain,
                    node: expected.node,
                    nonce: expected.nonce,
                    exporter: expected.exporter,
                    boot_key: expected.boot_key,
                    ek_digest: &ek_digest,
                    tier,
                    ak: &ak,
                    svid: &svid,
                    selection: &expected.measured.selection,
                    known_pcrs: None,
                    last: expected.last.into(),
                },
            )?)
        }
        (Answer::Software(signature), None, None) => {
            let svid_key = PublicKey::from_point(expected.svid_public)?;
            Ok(verify_software_attestation(
                signature,
                &SoftwareAttestExpected {
                    trust_domain: expected.trust_domain,
                    node: expected.node,
                    nonce: expected.nonce,
                    exporter: expected.exporter,
                    boot_key: expected.boot_key,
                    svid_key: &svid_key,
                },
            )?)
        }
        _ => Err(Refusal::OtherRoot),
    }
}

impl Answer {
    /// From the contract's message. Structures inside are judged later.
    pub fn from_wire(message: v1::AttestEvidence) -> Result<Self, Refusal> {
        use v1::attest_evidence::Root;
        match message.root.ok_or(Refusal::Incomplete)? {
            Root::Software(proof) => Ok(Self::Software(proof.signature)),
            Root::Tpm(evidence) => {
                let quote = quote_from_wire(evidence.quote.ok_or(Refusal::Incomplete)?)?;
                let svid = match evidence.svid_public.is_empty() {
                    true => SvidProof::Current,
                    false => SvidProof::Renewed {
                        public: evidence.svid_public,
                        certify: SignedAttest {
                            attest: evidence.certify_attest,
                            signature: evidence.certify_signature,
                        },
                    },
                };
                Ok(Self::Tpm(AttestEvidence { svid, quote }))
            }
        }
    }
}

/// A quote from the contract's message.
pub(crate) fn quote_from_wire(quote: v1::Quote) -> Result<QuoteEvidence, Refusal> {
    let pcr_values = quote
        .pcrs
        .into_iter()
        .map(|pcr| {
            Ok(PcrValue {
                index: u8::try_from(pcr.index).map_err(|_| Refusal::Incomplete)?,
                value: pcr.digest,
            })
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    Ok(QuoteEvidence {
        quote: SignedAttest {
            attest: quote.attest,
            signature: quote.signature,
        },
        pcr_values,
    })
}

/// A selection as the contract says it.
pub(crate) fn selection_to_wire(
    selection: &edgeward_evidence::tpm::PcrSelection,
) -> v1::PcrSelection {
    v1::PcrSelection {
        bank: u32::from(selection.bank().hash().id()),
        indexes: selection.indexes().map(u32::from).collect(),
    }
}

impl From<ClockInfo> for Counters {
    fn from(clock: ClockInfo) -> Self {
        Self {
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            clock: clock.clock_ms,
            safe: clock.safe,
        }
    }
}

impl From<Counters> for ClockInfo {
    fn from(counters: Counters) -> Self {
        Self {
            clock_ms: counters.clock,
            reset_count: counters.reset_count,
            restart_count: counters.restart_count,
            safe: counters.safe,
        }
    }
}
