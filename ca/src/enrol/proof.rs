//! A machine's proof, judged for what it claims.

use std::fmt;

use edgeward_evidence::verify::{
    EnrolEvidence, EnrolExpected, RecoverExpected, SignedAttest, SoftwareEnrolExpected,
    VerifiedEvidence, verify_enrolment, verify_recovery, verify_software_enrolment,
};
use edgeward_identity::SpiffeId;
use edgeward_wire::v1;
use edgeward_wire::v1::enrol_proof::Proof;

use super::Challenge;
use super::claims::{Candidate, Rooted, TpmClaims};
use super::refusal::EnrolRefused;
use crate::attest::answer::quote_from_wire;
use crate::hub::Hub;

/// By what a machine wants a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim<'a> {
    /// The id of the token that it holds.
    Token(&'a str),
    /// The node that it says it is.
    Recover(&'a SpiffeId),
}

/// Judges the proof of an attempt.
pub(super) fn verify(
    hub: &Hub,
    claim: Claim<'_>,
    candidate: &Candidate,
    challenge: &Challenge,
    proof: Proof,
) -> Result<VerifiedEvidence, EnrolRefused> {
    match (&candidate.rooted, proof, claim) {
        (Rooted::Tpm(claims), Proof::Tpm(proof), _) => {
            verify_tpm(hub, claim, (candidate, claims), challenge, proof)
        }
        (Rooted::Software { svid_key }, Proof::Software(proof), Claim::Token(token_id)) => {
            let expected = SoftwareEnrolExpected {
                trust_domain: &hub.config.trust_domain,
                token_id,
                nonce: &challenge.nonce,
                exporter: &challenge.exporter,
                boot_key: &candidate.boot_key,
                svid_key,
            };
            Ok(verify_software_enrolment(&proof.signature, &expected)?)
        }
        _ => Err(EnrolRefused::Order),
    }
}

fn verify_tpm(
    hub: &Hub,
    claim: Claim<'_>,
    (candidate, claims): (&Candidate, &TpmClaims),
    challenge: &Challenge,
    proof: v1::TpmProof,
) -> Result<VerifiedEvidence, EnrolRefused> {
    let quote = proof.quote.ok_or(EnrolRefused::Incomplete("quote"))?;
    let evidence = EnrolEvidence {
        certify: SignedAttest {
            attest: proof.certify_attest,
            signature: proof.certify_signature,
        },
        quote: quote_from_wire(quote)?,
    };
    let trust_domain = &hub.config.trust_domain;
    let selection = &challenge.measured.selection;
    let verified = match claim {
        Claim::Token(token_id) => verify_enrolment(
            &evidence,
            &EnrolExpected {
                trust_domain,
                token_id,
                nonce: &challenge.nonce,
                exporter: &challenge.exporter,
                boot_key: &candidate.boot_key,
                ek: &claims.ek,
                ak: &claims.ak,
                svid: &claims.svid,
                secret: &challenge.secret,
                selection,
            },
        )?,
        Claim::Recover(node) => verify_recovery(
            &evidence,
            &RecoverExpected {
                trust_domain,
                node,
                nonce: &challenge.nonce,
                exporter: &challenge.exporter,
                boot_key: &candidate.boot_key,
                ek: &claims.ek,
                ak: &claims.ak,
                svid: &claims.svid,
                secret: &challenge.secret,
                selection,
            },
        )?,
    };
    Ok(verified)
}

/// As reservations are told apart: a token's id is no SPIFFE ID.
impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => f.write_str(id),
            Self::Recover(node) => node.fmt(f),
        }
    }
}
