//! Verifications a second on one core, of evidence signed in software (P-256): quotes alone, and with logs parsed,
//! replayed, judged and appraised.
//!
//! `cargo run --release -p edgeward-evidence --features testing --example verify_rate`
#![expect(clippy::print_stdout, reason = "prints its figures")]

#[expect(clippy::indexing_slicing, reason = "a software TPM has 24 PCRs")]
mod logs;

use std::time::{Duration, Instant};

use edgeward_evidence::testing::{SoftwareTpm, sha256_selection};
use edgeward_evidence::tpm::{ClockInfo, PcrSelection};
use edgeward_evidence::transcript::Moment;
use edgeward_evidence::verify::{
    AttestEvidence, AttestExpected, AttestationKey, EnrolEvidence, EnrolExpected, SvidKey,
    SvidProof, TpmTier, VerifiedEvidence, verify_attestation, verify_enrolment,
};
use edgeward_evidence::{Digest, Exporter, Nonce, Transcript, make_credential};
use edgeward_identity::{
    Kind, PublicKey, Secret, Signer, SoftwareKey, SpiffeId, Tier, TrustDomain,
};
use ring::rand::SystemRandom;

use logs::Logged;

/// How long each figure is measured.
const EACH: Duration = Duration::from_secs(3);

struct Bench {
    tpm: SoftwareTpm,
    trust_domain: TrustDomain,
    node: SpiffeId,
    nonce: Nonce,
    exporter: Exporter,
    boot_key: PublicKey,
    selection: PcrSelection,
}

fn main() {
    let trust_domain = TrustDomain::new("plant.example").expect("a valid name");
    let mut bench = Bench {
        tpm: SoftwareTpm::new(),
        node: SpiffeId::new(&trust_domain, Kind::Node, "gw-1").expect("a valid name"),
        trust_domain,
        nonce: Nonce::draw(&SystemRandom::new()).expect("randomness"),
        exporter: Exporter::from_bytes([2; 32]),
        boot_key: *SoftwareKey::generate().expect("randomness").public_key(),
        selection: sha256_selection(&[0, 1, 2, 3, 4, 5, 6, 7]),
    };
    bench.attestations();
    bench.with_logs();
    bench.enrolments();
    bench.challenges();
}

/// An answer, and what is known of who gave it.
struct Attestation {
    ek_digest: Digest,
    ak: AttestationKey,
    svid: SvidKey,
    evidence: AttestEvidence,
    last: ClockInfo,
}

impl Attestation {
    fn verify(&self, bench: &Bench) -> VerifiedEvidence {
        let expected = AttestExpected {
            trust_domain: &bench.trust_domain,
            node: &bench.node,
            nonce: &bench.nonce,
            exporter: &bench.exporter,
            boot_key: &bench.boot_key,
            ek_digest: &self.ek_digest,
            tier: TpmTier::new(Tier::Virtual).expect("virtual has a TPM"),
            ak: &self.ak,
            svid: &self.svid,
            selection: &bench.selection,
            known_pcrs: None,
            last: self.last,
        };
        verify_attestation(&self.evidence, &expected).expect("good evidence")
    }
}

impl Bench {
    fn attestations(&mut self) {
        let attestation = self.attestation();
        measure("attestations verified (one quote)", || {
            attestation.verify(self);
        });
    }

    fn attestation(&mut self) -> Attestation {
        let ek_digest = self.tpm.ek_public().digest();
        let (ak, svid) = (self.tpm.attestation_key(), self.tpm.svid_key());
        let last = self.tpm.clock;
        let data = self.transcript(Moment::AttestTpm {
            node: &self.node,
            nonce: &self.nonce,
            exporter: &self.exporter,
            ek_digest: &ek_digest,
            ak_name: ak.name(),
            svid_public: svid.public_bytes(),
        });
        let evidence = AttestEvidence {
            svid: SvidProof::Current,
            quote: self.tpm.quote(data.as_bytes(), &self.selection),
        };
        Attestation {
            ek_digest,
            ak,
            svid,
            evidence,
            last,
        }
    }

    /// What is measured is all of it: the quote each time, then its logs.
    fn with_logs(&mut self) {
        let mut logged = Logged::new(&mut self.tpm);
        let (boot, ima) = logged.sizes();
        println!("logs: uefi {boot} bytes, ima {ima} bytes");
        let selection = logged.profile().selection().clone();
        let asked = std::mem::replace(&mut self.selection, selection);
        let attestation = self.attestation();
        logged.judge_before(&attestation.verify(self));
        let facts = attestation.verify(self);
        let facts = facts.tpm().expect("a TPM");
        measure("uefi log parsed and judged, no quote", || {
            logged.boot(facts);
        });
        measure("attestations with a uefi log", || {
            let evidence = attestation.verify(self);
            logged.boot(evidence.tpm().expect("a TPM"));
        });
        measure(
            "attestations with a uefi log and an ima list, first",
            || {
                logged.first(&attestation.verify(self));
            },
        );
        measure("attestations with new ima entries alone", || {
            logged.incremental(&attestation.verify(self));
        });
        self.selection = asked;
    }

    fn enrolments(&mut self) {
        let (ek, ak, svid) = (
            self.tpm.listed_ek(),
            self.tpm.attestation_key(),
            self.tpm.svid_key(),
        );
        let secret = Secret::new([3; 32]);
        let data = self.transcript(Moment::EnrolTpm {
            token_id: "t1",
            nonce: &self.nonce,
            exporter: &self.exporter,
            ek_digest: &ek.digest(),
            ak_name: ak.name(),
            svid_public: svid.public_bytes(),
            secret: &secret,
        });
        let evidence = EnrolEvidence {
            quote: self.tpm.quote(data.as_bytes(), &self.selection),
            certify: self.tpm.certify(data.as_bytes()),
        };
        let expected = EnrolExpected {
            trust_domain: &self.trust_domain,
            token_id: "t1",
            nonce: &self.nonce,
            exporter: &self.exporter,
            boot_key: &self.boot_key,
            ek: &ek,
            ak: &ak,
            svid: &svid,
            secret: &secret,
            selection: &self.selection,
        };
        measure("enrolments verified (quote and certify)", || {
            verify_enrolment(&evidence, &expected).expect("good evidence");
        });
    }

    fn challenges(&self) {
        let (ek, ak) = (self.tpm.listed_ek(), self.tpm.attestation_key());
        let secret = Secret::new([3; 32]);
        measure("credential challenges made (P-256 EK)", || {
            make_credential(ek.public(), ak.name(), &secret, &SystemRandom::new())
                .expect("a good EK");
        });
    }

    fn transcript(&self, moment: Moment<'_>) -> Digest {
        Transcript {
            trust_domain: &self.trust_domain,
            boot_key: &self.boot_key,
            moment,
        }
        .qualifying_data()
    }
}

fn measure(what: &str, mut once: impl FnMut()) {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < EACH {
        once();
        count += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {:.0} a second on one core",
        f64::from(count) / seconds
    );
}
