//! A node that comes back without a certificate: the same proof as an enrolment, for a name that it has already.
//!
//! What an enrolment takes from its token, a recovery takes from the EK: the credential challenge opens only in the TPM
//! that the node enrolled with, and the transcript names the node. Whether this EK *is* that node's, the cloud's
//! records say; here it is proven that whoever answers holds it.

use edgeward_identity::{PublicKey, SpiffeId, TrustDomain};

use super::{
    AttestationKey, Candidate, EnrolEvidence, EvidenceRefused, Subject, SvidKey, VerifiedEvidence,
};
use crate::ek::VerifiedEk;
use crate::make_credential::ActivationSecret;
use crate::tpm::PcrSelection;
use crate::transcript::{Exporter, Moment, Nonce};

/// What a recovery must be bound to.
#[derive(Clone, Copy, Debug)]
pub struct RecoverExpected<'a> {
    pub trust_domain: &'a TrustDomain,
    /// Who it says it is.
    pub node: &'a SpiffeId,
    pub nonce: &'a Nonce,
    pub exporter: &'a Exporter,
    pub boot_key: &'a PublicKey,
    pub ek: &'a VerifiedEk,
    /// May be another than the node had: a TPM that was cleared, or an agent of another version, makes a new one.
    pub ak: &'a AttestationKey,
    pub svid: &'a SvidKey,
    /// The secret that the credential challenge carried.
    pub secret: &'a ActivationSecret,
    pub selection: &'a PcrSelection,
}

/// Judges what a TPM sent to recover. The TPM's counts are not compared with earlier ones: clearing a TPM sets them to
/// zero (TPM 2.0 part 3, `TPM2_Clear`).
pub fn verify_recovery(
    evidence: &EnrolEvidence,
    expected: &RecoverExpected<'_>,
) -> Result<VerifiedEvidence, EvidenceRefused> {
    let moment = Moment::RecoverTpm {
        node: expected.node,
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
    candidate.judge(evidence, Subject::Recovered(expected.node.clone()), moment)
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{Kind, Secret, Signer, SoftwareKey};

    use super::*;
    use crate::testing::{SoftwareTpm, sha256_selection};
    use crate::transcript::Transcript;

    /// A machine in the middle of a recovery.
    struct Scene {
        tpm: SoftwareTpm,
        trust_domain: TrustDomain,
        node: SpiffeId,
        nonce: Nonce,
        exporter: Exporter,
        boot_key: PublicKey,
        secret: ActivationSecret,
        selection: PcrSelection,
    }

    impl Scene {
        fn new() -> Self {
            let trust_domain = TrustDomain::new("plant.example").unwrap();
            Self {
                tpm: SoftwareTpm::new(),
                node: SpiffeId::new(&trust_domain, Kind::Node, "gw-1").unwrap(),
                trust_domain,
                nonce: Nonce::from_bytes([1; 32]),
                exporter: Exporter::from_bytes([2; 32]),
                boot_key: *SoftwareKey::generate().unwrap().public_key(),
                secret: Secret::new([3; 32]),
                selection: sha256_selection(&[0, 2, 4, 7]),
            }
        }

        /// Evidence bound to what `change` makes of the moment.
        fn evidence(&mut self, moment: impl Fn(&Self) -> crate::Digest) -> EnrolEvidence {
            let data = moment(self);
            EnrolEvidence {
                quote: self.tpm.quote(data.as_bytes(), &self.selection),
                certify: self.tpm.certify(data.as_bytes()),
            }
        }

        fn data(&self, node: &SpiffeId, secret: &ActivationSecret) -> crate::Digest {
            Transcript {
                trust_domain: &self.trust_domain,
                boot_key: &self.boot_key,
                moment: Moment::RecoverTpm {
                    node,
                    nonce: &self.nonce,
                    exporter: &self.exporter,
                    ek_digest: &self.tpm.ek_public().digest(),
                    ak_name: self.tpm.attestation_key().name(),
                    svid_public: self.tpm.svid_key().public_bytes(),
                    secret,
                },
            }
            .qualifying_data()
        }

        fn verify(&self, evidence: &EnrolEvidence) -> Result<VerifiedEvidence, EvidenceRefused> {
            verify_recovery(
                evidence,
                &RecoverExpected {
                    trust_domain: &self.trust_domain,
                    node: &self.node,
                    nonce: &self.nonce,
                    exporter: &self.exporter,
                    boot_key: &self.boot_key,
                    ek: &self.tpm.listed_ek(),
                    ak: &self.tpm.attestation_key(),
                    svid: &self.tpm.svid_key(),
                    secret: &self.secret,
                    selection: &self.selection,
                },
            )
        }

        fn code(&self, evidence: &EnrolEvidence) -> &'static str {
            self.verify(evidence)
                .map_or_else(|refused| refused.code(), |_| "ok")
        }
    }

    #[test]
    fn an_enrolments_or_attestations_proof_recovers_nobody() {
        let mut scene = Scene::new();
        let enrol = scene.evidence(|scene| {
            Transcript {
                trust_domain: &scene.trust_domain,
                boot_key: &scene.boot_key,
                moment: Moment::EnrolTpm {
                    token_id: "spiffe://plant.example/node/gw-1",
                    nonce: &scene.nonce,
                    exporter: &scene.exporter,
                    ek_digest: &scene.tpm.ek_public().digest(),
                    ak_name: scene.tpm.attestation_key().name(),
                    svid_public: scene.tpm.svid_key().public_bytes(),
                    secret: &scene.secret,
                },
            }
            .qualifying_data()
        });
        assert_eq!(scene.code(&enrol), "quote_nonce_mismatch");
        let attest = scene.evidence(|scene| {
            Transcript {
                trust_domain: &scene.trust_domain,
                boot_key: &scene.boot_key,
                moment: Moment::AttestTpm {
                    node: &scene.node,
                    nonce: &scene.nonce,
                    exporter: &scene.exporter,
                    ek_digest: &scene.tpm.ek_public().digest(),
                    ak_name: scene.tpm.attestation_key().name(),
                    svid_public: scene.tpm.svid_key().public_bytes(),
                },
            }
            .qualifying_data()
        });
        assert_eq!(scene.code(&attest), "quote_nonce_mismatch");
    }

    #[test]
    fn whoever_cannot_open_the_challenge_or_names_another_node_recovers_nobody() {
        let mut scene = Scene::new();
        let guessed = scene.evidence(|scene| scene.data(&scene.node, &Secret::new([9; 32])));
        assert_eq!(scene.code(&guessed), "quote_nonce_mismatch");
        let other = SpiffeId::new(&scene.trust_domain, Kind::Node, "gw-2").unwrap();
        let renamed = scene.evidence(|scene| scene.data(&other, &scene.secret));
        assert_eq!(scene.code(&renamed), "quote_nonce_mismatch");
    }

    #[test]
    fn good_evidence_speaks_for_the_node_that_comes_back() {
        let mut scene = Scene::new();
        let evidence = scene.evidence(|scene| scene.data(&scene.node, &scene.secret));
        let verified = scene.verify(&evidence).unwrap();
        assert_eq!(verified.subject(), &Subject::Recovered(scene.node.clone()));
        assert_eq!(verified.svid_key(), scene.tpm.svid.public_key());
        assert_eq!(verified.tier(), scene.tpm.listed_ek().tier().get());
    }
}
