//! Judging evidence. [`VerifiedEvidence`] has private fields and one maker, so that what needs evidence cannot be
//! reached without it.
//!
//! Four ways lead here: [`verify_enrolment`] and [`verify_recovery`] (Certify of the SVID key and Quote, both bound to the
//! activated secret), [`verify_attestation`] (Quote; Certify, too, where the SVID key is renewed) and, for machines without a TPM,
//! [`verify_software_enrolment`] and [`verify_software_attestation`] (possession of the SVID key and nothing else).

pub mod certify;
pub mod keys;
pub mod quote;
mod recover;
pub mod refusal;

use std::collections::BTreeMap;

use edgeward_identity::{PublicKey, SpiffeId, Tier, TrustDomain};

use crate::digest::Digest;
use crate::ek::VerifiedEk;
use crate::make_credential::ActivationSecret;
use crate::tpm::{ClockInfo, Name, PcrSelection, PcrValue, Public};
use crate::transcript::{Exporter, Moment, Nonce, Transcript};

pub use keys::{AttestationKey, KeyRefused, SvidKey};
pub use quote::ClockRefused;
pub use recover::{RecoverExpected, verify_recovery};
pub use refusal::EvidenceRefused;

/// An attested structure and its signature, as sent: `TPMS_ATTEST` and `TPMT_SIGNATURE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedAttest {
    pub attest: Vec<u8>,
    pub signature: Vec<u8>,
}

/// A quote with the values that it is said to cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuoteEvidence {
    pub quote: SignedAttest,
    pub pcr_values: Vec<PcrValue>,
}

/// What a TPM sends to enrol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolEvidence {
    pub certify: SignedAttest,
    pub quote: QuoteEvidence,
}

/// What a TPM sends to answer a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestEvidence {
    pub svid: SvidProof,
    pub quote: QuoteEvidence,
}

/// Which SVID key the evidence speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SvidProof {
    /// That of the current leaf.
    Current,
    /// One to be certified by the AK now, because a new leaf follows. May be the current one again.
    Renewed {
        /// `TPMT_PUBLIC`.
        public: Vec<u8>,
        certify: SignedAttest,
    },
}

/// What an enrolment must be bound to.
#[derive(Clone, Copy, Debug)]
pub struct EnrolExpected<'a> {
    pub trust_domain: &'a TrustDomain,
    pub token_id: &'a str,
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    pub boot_key: &'a PublicKey,
    pub ek: &'a VerifiedEk,
    pub ak: &'a AttestationKey,
    pub svid: &'a SvidKey,
    /// The secret that the credential challenge carried.
    pub secret: &'a ActivationSecret,
    pub selection: &'a PcrSelection,
}

/// What the answer to a challenge must be bound to: what the cloud stored about the node.
#[derive(Clone, Copy, Debug)]
pub struct AttestExpected<'a> {
    pub trust_domain: &'a TrustDomain,
    pub node: &'a SpiffeId,
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    /// As told in this session.
    pub boot_key: &'a PublicKey,
    pub ek_digest: &'a Digest,
    pub tier: TpmTier,
    pub ak: &'a AttestationKey,
    /// The key of the leaf that authenticated the session.
    pub svid: &'a SvidKey,
    pub selection: &'a PcrSelection,
    /// Values of the last evidence that passed, where the challenge said so: the answer may leave them out while the
    /// TPM signs the same ones.
    pub known_pcrs: Option<&'a BTreeMap<u8, Vec<u8>>>,
    /// Of the last accepted evidence.
    pub last: ClockInfo,
}

/// What a machine without a TPM must sign to enrol.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareEnrolExpected<'a> {
    pub trust_domain: &'a TrustDomain,
    pub token_id: &'a str,
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    pub boot_key: &'a PublicKey,
    pub svid_key: &'a PublicKey,
}

/// What a node without a TPM must sign to answer a challenge.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareAttestExpected<'a> {
    pub trust_domain: &'a TrustDomain,
    pub node: &'a SpiffeId,
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    pub boot_key: &'a PublicKey,
    pub svid_key: &'a PublicKey,
}

/// A tier that has a TPM: every one but `software`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmTier(Tier);

/// Evidence that passed every check. What it measured is not judged yet: that is [`crate::appraise`].
#[derive(Clone, Debug)]
pub struct VerifiedEvidence {
    subject: Subject,
    boot_key: PublicKey,
    svid_key: PublicKey,
    root: Root,
    qualifying_data: Digest,
}

/// Whom evidence speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Whoever holds the token with this id.
    Token(String),
    Node(SpiffeId),
    /// The node that stands on this EK, which has no certificate that it could speak with. Renews nothing: a
    /// certificate on this evidence is a recovery, and counted as one.
    Recovered(SpiffeId),
}

/// The TPM's side of verified evidence.
#[derive(Clone, Debug)]
pub struct TpmFacts {
    ek_digest: Digest,
    tier: TpmTier,
    ak: AttestationKey,
    svid: SvidKey,
    selection: PcrSelection,
    pcr_digest: Digest,
    pcr_values: BTreeMap<u8, Vec<u8>>,
    clock: ClockInfo,
    firmware: u64,
    rebooted: bool,
}

#[derive(Clone, Debug)]
enum Root {
    Tpm(Box<TpmFacts>),
    Software,
}

/// Judges what a TPM sent to enrol. Refused evidence says why, and changes nothing.
pub fn verify_enrolment(
    evidence: &EnrolEvidence,
    expected: &EnrolExpected<'_>,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let moment = Moment::EnrolTpm {
        token_id: expected.token_id,
        nonce: expected.nonce,
        exporter: expected.exporter,
        ek_digest: &expected.ek.digest(),
        ak_name: expected.ak.name(),
        svid_public: expected.svid.public_bytes(),
        secret: expected.secret,
    };
    let candidate = Candidate {
        trust_domain: expected.trust_domain,
        boot_key: expected.boot_key,
        ek: expected.ek,
        ak: expected.ak,
        svid: expected.svid,
        selection: expected.selection,
    };
    candidate.judge(
        evidence,
        Subject::Token(expected.token_id.to_owned()),
        moment,
    )
}

/// A TPM that asks for a certificate, by whatever right: with a token, or coming back by its EK.
struct Candidate<'a> {
    trust_domain: &'a TrustDomain,
    boot_key: &'a PublicKey,
    ek: &'a VerifiedEk,
    ak: &'a AttestationKey,
    svid: &'a SvidKey,
    selection: &'a PcrSelection,
}

impl Candidate<'_> {
    /// Quote and Certify, both bound to the moment and made in one boot.
    fn judge(
        &self,
        evidence: &EnrolEvidence,
        subject: Subject,
        moment: Moment<'_>,
    ) -> Result<VerifiedEvidence, EvidenceRefused> {
        let qualifying_data = Transcript {
            trust_domain: self.trust_domain,
            boot_key: self.boot_key,
            moment,
        }
        .qualifying_data();
        let quoted = quote::verify(&evidence.quote, self.ak, &qualifying_data, self.selection)?;
        let certified = certify::verify(&evidence.certify, self.ak, &qualifying_data, self.svid)?;
        certify::same_boot(certified, quoted.clock)?;
        Ok(VerifiedEvidence {
            subject,
            boot_key: *self.boot_key,
            svid_key: *self.svid.key(),
            root: Root::Tpm(Box::new(TpmFacts {
                ek_digest: self.ek.digest(),
                tier: self.ek.tier(),
                ak: self.ak.clone(),
                svid: self.svid.clone(),
                selection: self.selection.clone(),
                pcr_digest: quoted.pcr_digest,
                pcr_values: quoted.pcr_values,
                clock: quoted.clock,
                firmware: quoted.firmware,
                rebooted: false,
            })),
            qualifying_data,
        })
    }
}

/// Judges a TPM's answer to a challenge.
pub fn verify_attestation(
    evidence: &AttestEvidence,
    expected: &AttestExpected<'_>,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let svid = match &evidence.svid {
        SvidProof::Current => expected.svid.clone(),
        SvidProof::Renewed { public, .. } => SvidKey::from_public(public)?,
    };
    let qualifying_data = Transcript {
        trust_domain: expected.trust_domain,
        boot_key: expected.boot_key,
        moment: Moment::AttestTpm {
            node: expected.node,
            nonce: expected.nonce,
            exporter: expected.exporter,
            ek_digest: expected.ek_digest,
            ak_name: expected.ak.name(),
            svid_public: svid.public_bytes(),
        },
    }
    .qualifying_data();
    let quoted = quote::verify_knowing(
        &evidence.quote,
        expected.ak,
        &qualifying_data,
        expected.selection,
        expected.known_pcrs,
    )?;
    let rebooted = quote::check_clock(quoted.clock, expected.last)?;
    if let SvidProof::Renewed { certify, .. } = &evidence.svid {
        let certified = certify::verify(certify, expected.ak, &qualifying_data, &svid)?;
        certify::same_boot(certified, quoted.clock)?;
    }
    Ok(VerifiedEvidence {
        subject: Subject::Node(expected.node.clone()),
        boot_key: *expected.boot_key,
        svid_key: *svid.key(),
        root: Root::Tpm(Box::new(TpmFacts {
            ek_digest: *expected.ek_digest,
            tier: expected.tier,
            ak: expected.ak.clone(),
            svid,
            selection: expected.selection.clone(),
            pcr_digest: quoted.pcr_digest,
            pcr_values: quoted.pcr_values,
            clock: quoted.clock,
            firmware: quoted.firmware,
            rebooted,
        })),
        qualifying_data,
    })
}

/// Judges what a machine without a TPM sent to enrol: `signature` is ECDSA (DER) over the qualifying data.
pub fn verify_software_enrolment(
    signature: &[u8],
    expected: &SoftwareEnrolExpected<'_>,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let transcript = Transcript {
        trust_domain: expected.trust_domain,
        boot_key: expected.boot_key,
        moment: Moment::EnrolSoftware {
            token_id: expected.token_id,
            nonce: expected.nonce,
            exporter: expected.exporter,
            svid_key: expected.svid_key,
        },
    };
    let subject = Subject::Token(expected.token_id.to_owned());
    verify_possession(signature, expected.svid_key, &transcript, subject)
}

/// Judges the answer of a node without a TPM: `signature` is ECDSA (DER) over the qualifying data.
pub fn verify_software_attestation(
    signature: &[u8],
    expected: &SoftwareAttestExpected<'_>,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let transcript = Transcript {
        trust_domain: expected.trust_domain,
        boot_key: expected.boot_key,
        moment: Moment::AttestSoftware {
            node: expected.node,
            nonce: expected.nonce,
            exporter: expected.exporter,
            svid_key: expected.svid_key,
        },
    };
    let subject = Subject::Node(expected.node.clone());
    verify_possession(signature, expected.svid_key, &transcript, subject)
}

impl TpmTier {
    /// `None` for tier `software`.
    pub fn new(tier: Tier) -> Option<Self> {
        (tier != Tier::Software).then_some(Self(tier))
    }

    pub fn get(self) -> Tier {
        self.0
    }
}

impl VerifiedEvidence {
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub fn tier(&self) -> Tier {
        match &self.root {
            Root::Tpm(facts) => facts.tier.get(),
            Root::Software => Tier::Software,
        }
    }

    pub fn boot_key(&self) -> &PublicKey {
        &self.boot_key
    }

    /// The key that a leaf may be issued for.
    pub fn svid_key(&self) -> &PublicKey {
        &self.svid_key
    }

    /// What the TPM proved; `None` in tier `software`.
    pub fn tpm(&self) -> Option<&TpmFacts> {
        match &self.root {
            Root::Tpm(facts) => Some(facts),
            Root::Software => None,
        }
    }

    /// The hash that this evidence, and no other, was bound to.
    pub fn qualifying_data(&self) -> &Digest {
        &self.qualifying_data
    }
}

impl TpmFacts {
    pub fn ek_digest(&self) -> &Digest {
        &self.ek_digest
    }

    pub fn ak(&self) -> &AttestationKey {
        &self.ak
    }

    pub fn ak_name(&self) -> &Name {
        self.ak.name()
    }

    pub fn ak_public(&self) -> &Public {
        self.ak.public()
    }

    pub fn svid(&self) -> &SvidKey {
        &self.svid
    }

    pub fn selection(&self) -> &PcrSelection {
        &self.selection
    }

    pub fn pcr_digest(&self) -> &Digest {
        &self.pcr_digest
    }

    /// Every selected PCR's value, in the bank's length.
    pub fn pcr_values(&self) -> &BTreeMap<u8, Vec<u8>> {
        &self.pcr_values
    }

    /// To be stored: the next answer is compared with it.
    pub fn clock(&self) -> ClockInfo {
        self.clock
    }

    pub fn reset_count(&self) -> u32 {
        self.clock.reset_count
    }

    pub fn restart_count(&self) -> u32 {
        self.clock.restart_count
    }

    pub fn firmware(&self) -> u64 {
        self.firmware
    }

    /// Whether the machine booted since the last accepted evidence: cached verdicts about its boot are void.
    pub fn rebooted(&self) -> bool {
        self.rebooted
    }
}

fn verify_possession(
    signature: &[u8],
    svid_key: &PublicKey,
    transcript: &Transcript<'_>,
    subject: Subject,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let qualifying_data = transcript.qualifying_data();
    svid_key
        .verify(qualifying_data.as_bytes(), signature)
        .map_err(|_| EvidenceRefused::SoftwareSignature)?;
    Ok(VerifiedEvidence {
        subject,
        boot_key: *transcript.boot_key,
        svid_key: *svid_key,
        root: Root::Software,
        qualifying_data,
    })
}

#[cfg(test)]
mod tests;
