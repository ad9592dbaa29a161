//! Numbers are those of the checklist of refusals that the project keeps.

use edgeward_identity::{Kind, Secret, Signer, SoftwareKey};

use super::*;
use crate::testing::{SoftwareTpm, sha256_selection, sign, signing_public};
use crate::tpm::attest::Attest;
use crate::tpm::public::{Curve, Key, Scheme};
use crate::tpm::{AttestBody, Attributes, HashAlg, PcrBank, Signature};

/// A machine in the middle of enrolling or of answering a challenge.
struct Scene {
    tpm: SoftwareTpm,
    trust_domain: TrustDomain,
    node: SpiffeId,
    nonce: Nonce,
    exporter: Exporter,
    boot_key: PublicKey,
    secret: ActivationSecret,
    selection: PcrSelection,
    known_pcrs: Option<BTreeMap<u8, Vec<u8>>>,
    last: ClockInfo,
}

impl Scene {
    fn new() -> Self {
        let trust_domain = TrustDomain::new("plant.example").unwrap();
        let tpm = SoftwareTpm::new();
        Self {
            node: SpiffeId::new(&trust_domain, Kind::Node, "gw-1").unwrap(),
            trust_domain,
            nonce: Nonce::from_bytes([1; 32]),
            exporter: Exporter::from_bytes([2; 32]),
            boot_key: *SoftwareKey::generate().unwrap().public_key(),
            secret: Secret::new([3; 32]),
            selection: sha256_selection(&[0, 2, 4, 7]),
            known_pcrs: None,
            last: tpm.clock,
            tpm,
        }
    }

    fn enrol_data(&self) -> Digest {
        let ek_digest = self.tpm.ek_public().digest();
        Transcript {
            trust_domain: &self.trust_domain,
            boot_key: &self.boot_key,
            moment: Moment::EnrolTpm {
                token_id: "t1",
                nonce: &self.nonce,
                exporter: &self.exporter,
                ek_digest: &ek_digest,
                ak_name: self.tpm.attestation_key().name(),
                svid_public: self.tpm.svid_key().public_bytes(),
                secret: &self.secret,
            },
        }
        .qualifying_data()
    }

    fn attest_data(&self) -> Digest {
        let ek_digest = self.tpm.ek_public().digest();
        Transcript {
            trust_domain: &self.trust_domain,
            boot_key: &self.boot_key,
            moment: Moment::AttestTpm {
                node: &self.node,
                nonce: &self.nonce,
                exporter: &self.exporter,
                ek_digest: &ek_digest,
                ak_name: self.tpm.attestation_key().name(),
                svid_public: self.tpm.svid_key().public_bytes(),
            },
        }
        .qualifying_data()
    }

    fn enrol_evidence(&mut self) -> EnrolEvidence {
        let data = self.enrol_data();
        EnrolEvidence {
            quote: self.tpm.quote(data.as_bytes(), &self.selection),
            certify: self.tpm.certify(data.as_bytes()),
        }
    }

    fn attest_evidence(&mut self) -> AttestEvidence {
        let data = self.attest_data();
        AttestEvidence {
            svid: SvidProof::Current,
            quote: self.tpm.quote(data.as_bytes(), &self.selection),
        }
    }

    /// Evidence whose quote was altered before the AK signed it.
    fn altered_quote(&mut self, alter: impl FnOnce(&mut Attest)) -> AttestEvidence {
        let data = self.attest_data();
        let mut attest = self.tpm.quote_attest(data.as_bytes(), &self.selection);
        alter(&mut attest);
        AttestEvidence {
            svid: SvidProof::Current,
            quote: QuoteEvidence {
                quote: self.tpm.sign(&attest),
                pcr_values: self.tpm.pcr_values(&self.selection),
            },
        }
    }

    fn verify_enrol(&self, evidence: &EnrolEvidence) -> Result<VerifiedEvidence, EvidenceRefused> {
        verify_enrolment(
            evidence,
            &EnrolExpected {
                trust_domain: &self.trust_domain,
                token_id: "t1",
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

    fn verify_attest(
        &self,
        evidence: &AttestEvidence,
    ) -> Result<VerifiedEvidence, EvidenceRefused> {
        verify_attestation(
            evidence,
            &AttestExpected {
                trust_domain: &self.trust_domain,
                node: &self.node,
                nonce: &self.nonce,
                exporter: &self.exporter,
                boot_key: &self.boot_key,
                ek_digest: &self.tpm.ek_public().digest(),
                tier: TpmTier::new(Tier::Virtual).unwrap(),
                ak: &self.tpm.attestation_key(),
                svid: &self.tpm.svid_key(),
                selection: &self.selection,
                known_pcrs: self.known_pcrs.as_ref(),
                last: self.last,
            },
        )
    }

    fn enrol_code(&self, evidence: &EnrolEvidence) -> &'static str {
        self.verify_enrol(evidence).unwrap_err().code()
    }

    fn attest_code(&self, evidence: &AttestEvidence) -> &'static str {
        self.verify_attest(evidence).unwrap_err().code()
    }
}

fn ak_code(alter: impl FnOnce(&mut Public)) -> &'static str {
    let mut public = SoftwareTpm::new().ak_public();
    alter(&mut public);
    AttestationKey::from_public(&public.to_bytes())
        .unwrap_err()
        .code()
}

fn svid_code(alter: impl FnOnce(&mut Public)) -> &'static str {
    let mut public = SoftwareTpm::new().svid_public();
    alter(&mut public);
    SvidKey::from_public(&public.to_bytes()).unwrap_err().code()
}

fn clear(attribute: Attributes) -> impl FnOnce(&mut Public) {
    move |public| public.attributes = public.attributes.without(attribute)
}

/// Test 15.
#[test]
fn an_ak_that_is_not_restricted_is_refused() {
    assert_eq!(ak_code(clear(Attributes::RESTRICTED)), "ak_not_restricted");
}

/// Test 16.
#[test]
fn an_ak_that_may_leave_its_tpm_is_refused() {
    assert_eq!(ak_code(clear(Attributes::FIXED_TPM)), "ak_not_fixed_tpm");
    assert_eq!(
        ak_code(clear(Attributes::FIXED_PARENT)),
        "ak_not_fixed_parent"
    );
}

/// Test 17.
#[test]
fn an_imported_ak_is_refused() {
    assert_eq!(
        ak_code(clear(Attributes::SENSITIVE_DATA_ORIGIN)),
        "ak_imported"
    );
}

/// Test 18.
#[test]
fn an_ak_for_other_uses_or_with_a_weak_scheme_is_refused() {
    let decrypts =
        ak_code(|public| public.attributes = public.attributes.with(Attributes::DECRYPT));
    assert_eq!(decrypts, "ak_decrypts");
    assert_eq!(ak_code(clear(Attributes::SIGN)), "ak_not_signing");
    assert_eq!(ak_code(|public| public.scheme = Scheme::Null), "ak_scheme");
    let sha1 = ak_code(|public| public.scheme = Scheme::Ecdsa(HashAlg::Sha1));
    assert_eq!(sha1, "ak_scheme");
    assert_eq!(
        ak_code(|public| public.name_alg = HashAlg::Sha1),
        "ak_name_algorithm"
    );
    let p384 = ak_code(|public| {
        public.key = Key::Ecc {
            curve: Curve::P384,
            x: vec![1; 48],
            y: vec![1; 48],
        };
    });
    assert_eq!(p384, "ak_scheme");
}

/// Test 19.
#[test]
fn an_ak_under_another_name_is_refused() {
    let tpm = SoftwareTpm::new();
    let ak = tpm.ak_public().to_bytes();
    let refused = AttestationKey::from_public_and_name(&ak, tpm.svid_public().name().as_bytes());
    assert_eq!(refused.unwrap_err().code(), "ak_name_mismatch");
    assert!(AttestationKey::from_public_and_name(&ak, tpm.ak_public().name().as_bytes()).is_ok());
}

/// Test 20.
#[test]
fn a_certification_of_another_key_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.enrol_evidence();
    let mut attest = scene.tpm.certify_attest(scene.enrol_data().as_bytes());
    attest.body = AttestBody::Certify {
        name: scene.tpm.ak_public().name().as_bytes().to_vec(),
        qualified_name: Vec::new(),
    };
    evidence.certify = scene.tpm.sign(&attest);
    assert_eq!(scene.enrol_code(&evidence), "certify_name_mismatch");
}

/// Test 21.
#[test]
fn an_svid_key_that_may_leave_its_tpm_is_refused() {
    assert_eq!(
        svid_code(clear(Attributes::FIXED_TPM)),
        "svid_key_not_fixed"
    );
    assert_eq!(
        svid_code(clear(Attributes::FIXED_PARENT)),
        "svid_key_not_fixed"
    );
    assert_eq!(
        svid_code(clear(Attributes::SENSITIVE_DATA_ORIGIN)),
        "svid_key_imported"
    );
    assert_eq!(svid_code(clear(Attributes::SIGN)), "svid_key_use");
    let restricted =
        svid_code(|public| public.attributes = public.attributes.with(Attributes::RESTRICTED));
    assert_eq!(restricted, "svid_key_use");
    assert_eq!(
        svid_code(|public| public.scheme = Scheme::Null),
        "svid_key_scheme"
    );
    assert_eq!(
        svid_code(|public| public.name_alg = HashAlg::Sha384),
        "svid_key_name_algorithm"
    );
}

/// Test 22.
#[test]
fn an_svid_key_certified_by_another_nodes_ak_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.enrol_evidence();
    let mut other = Scene::new();
    other.tpm.svid = SoftwareKey::from_pkcs8(scene.tpm.svid.pkcs8().clone()).unwrap();
    let data = scene.enrol_data();
    evidence.certify = other.tpm.certify(data.as_bytes());
    assert_eq!(scene.enrol_code(&evidence), "certify_signature_mismatch");
}

/// Tests 23 and 24: the secret is proven through the qualifying data.
#[test]
fn evidence_bound_to_another_activated_secret_is_refused() {
    let mut scene = Scene::new();
    scene.secret = Secret::new([9; 32]);
    let evidence = scene.enrol_evidence();
    scene.secret = Secret::new([3; 32]);
    assert_eq!(scene.enrol_code(&evidence), "quote_nonce_mismatch");
}

/// Test 26.
#[test]
fn a_structure_without_the_tpms_magic_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.attest_evidence();
    let mut attest = evidence.quote.quote.attest.clone();
    attest[0] = 0;
    evidence.quote.quote = scene.tpm.sign_bytes(attest);
    assert_eq!(scene.attest_code(&evidence), "quote_magic");
}

/// Test 27.
#[test]
fn another_attested_structure_in_place_of_a_quote_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.attest_evidence();
    let data = scene.attest_data();
    evidence.quote.quote = scene.tpm.certify(data.as_bytes());
    assert_eq!(scene.attest_code(&evidence), "quote_type");
    // TPM_ST_ATTEST_TIME, _NV and _CREATION.
    for kind in [0x19, 0x14, 0x1a] {
        let mut attest = scene.attest_evidence().quote.quote.attest;
        attest[5] = kind;
        evidence.quote.quote = scene.tpm.sign_bytes(attest);
        assert_eq!(scene.attest_code(&evidence), "quote_unsupported");
    }
    let mut enrol = scene.enrol_evidence();
    enrol.certify = enrol.quote.quote.clone();
    assert_eq!(scene.enrol_code(&enrol), "certify_type");
}

/// Test 28.
#[test]
fn a_quote_bound_to_another_nonce_is_refused() {
    let mut scene = Scene::new();
    let data = scene.attest_data();
    let old = scene.attest_evidence();
    scene.nonce = Nonce::from_bytes([7; 32]);
    assert_eq!(scene.attest_code(&old), "quote_nonce_mismatch");
    scene.nonce = Nonce::from_bytes([1; 32]);
    let wrong = [
        Vec::new(),
        data.as_bytes()[..31].to_vec(),
        data.to_string().into_bytes(),
        scene.nonce.as_bytes().to_vec(),
    ];
    for extra in wrong {
        let evidence = scene.altered_quote(|attest| attest.extra_data = extra.clone());
        let code = scene.attest_code(&evidence);
        assert_eq!(code, "quote_nonce_mismatch", "{extra:02x?}");
    }
    let evidence = scene.altered_quote(|attest| attest.extra_data = vec![1; 67]);
    assert_eq!(scene.attest_code(&evidence), "quote_malformed");
}

/// Test 28, for the certification.
#[test]
fn a_certification_bound_to_another_nonce_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.enrol_evidence();
    evidence.certify = scene.tpm.certify(&[1; 32]);
    assert_eq!(scene.enrol_code(&evidence), "certify_nonce_mismatch");
}

/// Test 30, and everything else that the transcript binds.
#[test]
fn evidence_relayed_over_another_session_is_refused() {
    let mut scene = Scene::new();
    let evidence = scene.enrol_evidence();
    scene.exporter = Exporter::from_bytes([8; 32]);
    assert_eq!(scene.enrol_code(&evidence), "quote_nonce_mismatch");
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    scene.exporter = Exporter::from_bytes([8; 32]);
    assert_eq!(scene.attest_code(&evidence), "quote_nonce_mismatch");
}

#[test]
fn evidence_for_another_boot_key_node_or_svid_key_is_refused() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    let boot_key = scene.boot_key;
    scene.boot_key = *SoftwareKey::generate().unwrap().public_key();
    assert_eq!(scene.attest_code(&evidence), "quote_nonce_mismatch");
    scene.boot_key = boot_key;
    scene.node = SpiffeId::new(&scene.trust_domain, Kind::Node, "gw-2").unwrap();
    assert_eq!(scene.attest_code(&evidence), "quote_nonce_mismatch");
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    scene.tpm.svid = SoftwareKey::generate().unwrap();
    assert_eq!(scene.attest_code(&evidence), "quote_nonce_mismatch");
}

#[test]
fn enrolment_evidence_does_not_answer_a_challenge() {
    let mut scene = Scene::new();
    let enrol = scene.enrol_evidence();
    let evidence = AttestEvidence {
        svid: SvidProof::Current,
        quote: enrol.quote,
    };
    assert_eq!(scene.attest_code(&evidence), "quote_nonce_mismatch");
}

/// Test 31.
#[test]
fn a_quote_over_another_selection_is_refused() {
    let mut scene = Scene::new();
    let asked = scene.selection.clone();
    for selection in [
        sha256_selection(&[0, 2, 4]),
        sha256_selection(&[0, 2, 4, 7, 8]),
        PcrSelection::new(PcrBank::Sha384, [0, 2, 4, 7]).unwrap(),
    ] {
        let evidence = scene.altered_quote(|attest| {
            replace_selections(attest, |list| {
                *list = selection.as_signed();
            })
        });
        assert_eq!(scene.attest_code(&evidence), "pcr_selection_mismatch");
    }
    // An empty selection beside the right one, the right one twice, or a bitmap with a byte more.
    let odd: [fn(&mut Vec<crate::tpm::pcr::BankSelection>); 3] = [
        |list| {
            let mut empty = list[0].clone();
            empty.bitmap = vec![0; 3];
            list.push(empty);
        },
        |list| list.push(list[0].clone()),
        |list| list[0].bitmap.push(0),
    ];
    for alter in odd {
        let evidence = scene.altered_quote(|attest| replace_selections(attest, alter));
        assert_eq!(scene.attest_code(&evidence), "pcr_selection_mismatch");
    }
    // Everything is right, but fewer PCRs were quoted and fewer values sent.
    scene.selection = sha256_selection(&[0, 2]);
    let evidence = scene.attest_evidence();
    scene.selection = asked;
    assert_eq!(scene.attest_code(&evidence), "pcr_selection_mismatch");
}

/// Test 32.
#[test]
fn a_pcr_value_that_no_quote_covers_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.attest_evidence();
    evidence.quote.pcr_values.push(PcrValue {
        index: 9,
        value: vec![0; 32],
    });
    assert_eq!(scene.attest_code(&evidence), "pcr_value_not_quoted");
    evidence.quote.pcr_values.truncate(3);
    assert_eq!(scene.attest_code(&evidence), "pcr_value_missing");
    evidence
        .quote
        .pcr_values
        .push(evidence.quote.pcr_values[0].clone());
    assert_eq!(scene.attest_code(&evidence), "pcr_value_twice");
}

/// Test 33.
#[test]
fn pcr_values_that_do_not_hash_to_the_quoted_digest_are_refused() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    let mut altered = evidence.clone();
    altered.quote.pcr_values[1].value[5] ^= 1;
    assert_eq!(scene.attest_code(&altered), "pcr_digest_mismatch");
    let mut permuted = evidence.clone();
    permuted.quote.pcr_values[0].index = 2;
    permuted.quote.pcr_values[1].index = 0;
    assert_eq!(scene.attest_code(&permuted), "pcr_digest_mismatch");
    let mut of_another_bank = evidence;
    of_another_bank.quote.pcr_values[0].value = vec![0; 48];
    assert_eq!(scene.attest_code(&of_another_bank), "pcr_value_length");
}

/// Tests 31 to 33 where values are left out since they are known: only those that the TPM signed now count.
#[test]
fn values_left_out_of_an_answer_must_be_the_known_ones() {
    let mut scene = Scene::new();
    let passed = scene.attest_evidence();
    let verified = scene.verify_attest(&passed).unwrap();
    let known = verified.tpm().unwrap().pcr_values().clone();
    let without_values = |scene: &mut Scene| {
        let mut evidence = scene.attest_evidence();
        evidence.quote.pcr_values.clear();
        evidence
    };
    // Nothing is known: nothing may be left out.
    let evidence = without_values(&mut scene);
    assert_eq!(scene.attest_code(&evidence), "pcr_value_missing");
    // What is known is of other PCRs, or of another bank.
    for broken in [
        BTreeMap::new(),
        BTreeMap::from([(0, vec![0; 32])]),
        known
            .iter()
            .map(|(pcr, value)| (*pcr, [value.as_slice(), &[0; 16]].concat()))
            .collect(),
    ] {
        scene.known_pcrs = Some(broken);
        let evidence = without_values(&mut scene);
        assert_eq!(scene.attest_code(&evidence), "pcr_value_missing");
    }
    // One of the values changed since.
    scene.known_pcrs = Some(known.clone());
    scene.tpm.pcrs[4] = [0xee; 32];
    let evidence = without_values(&mut scene);
    assert_eq!(scene.attest_code(&evidence), "pcr_digest_mismatch");
    // Values that came along are the ones that count.
    let evidence = scene.attest_evidence();
    let verified = scene.verify_attest(&evidence).unwrap();
    assert_eq!(verified.tpm().unwrap().pcr_values()[&4], [0xee; 32]);
    // The quote must still be over what was asked for.
    scene.tpm.pcrs[4] = [4; 32];
    let asked = std::mem::replace(&mut scene.selection, sha256_selection(&[0, 2, 4]));
    let fewer = without_values(&mut scene);
    scene.selection = asked;
    assert_eq!(scene.attest_code(&fewer), "pcr_selection_mismatch");
    // More may be known than is asked for now.
    scene.known_pcrs = Some(
        known
            .clone()
            .into_iter()
            .chain([(9, vec![1; 32])])
            .collect(),
    );
    let evidence = without_values(&mut scene);
    let verified = scene.verify_attest(&evidence).unwrap();
    assert_eq!(*verified.tpm().unwrap().pcr_values(), known);
}

/// Test 34.
#[test]
fn a_quote_over_a_sha1_bank_is_refused() {
    let mut scene = Scene::new();
    let evidence =
        scene.altered_quote(|attest| replace_selections(attest, |list| list[0].hash = 4));
    assert_eq!(scene.attest_code(&evidence), "pcr_bank_sha1");
}

/// Test 35.
#[test]
fn an_empty_selection_with_the_digest_of_nothing_is_refused() {
    let mut scene = Scene::new();
    for bitmap in [None, Some(vec![]), Some(vec![0; 3])] {
        let mut evidence = scene.altered_quote(|attest| {
            if let AttestBody::Quote {
                selections,
                pcr_digest,
            } = &mut attest.body
            {
                match bitmap {
                    None => selections.clear(),
                    Some(bitmap) => selections[0].bitmap = bitmap,
                }
                *pcr_digest = Digest::of(b"").as_bytes().to_vec();
            }
        });
        evidence.quote.pcr_values.clear();
        assert_eq!(scene.attest_code(&evidence), "pcr_selection_mismatch");
    }
}

/// Test 36.
#[test]
fn a_quote_signed_by_another_nodes_ak_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.attest_evidence();
    let other = SoftwareTpm::new();
    evidence.quote.quote = other.sign_bytes(evidence.quote.quote.attest);
    assert_eq!(scene.attest_code(&evidence), "quote_signature_mismatch");
}

/// Test 37.
#[test]
fn a_signature_of_another_algorithm_or_hash_than_the_aks_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.attest_evidence();
    let Signature::Ecdsa { r, s, .. } = sign(&scene.tpm.ak, &evidence.quote.quote.attest) else {
        panic!("software keys sign with ecdsa");
    };
    let hash = HashAlg::Sha1;
    evidence.quote.quote.signature = Signature::Ecdsa { hash, r, s }.to_bytes();
    assert_eq!(scene.attest_code(&evidence), "quote_signature_algorithm");
    let signature = vec![1; 256];
    let hash = HashAlg::Sha256;
    evidence.quote.quote.signature = Signature::RsaSsa { hash, signature }.to_bytes();
    assert_eq!(scene.attest_code(&evidence), "quote_signature_algorithm");
    // TPM_ALG_SM2, TPM_ALG_HMAC, TPM_ALG_NULL.
    for scheme in [0x1b, 0x05, 0x10] {
        evidence.quote.quote.signature = vec![0, scheme, 0, 0x0b];
        assert_eq!(scene.attest_code(&evidence), "quote_signature_malformed");
    }
}

/// Test 38.
#[test]
fn ecdsa_numbers_out_of_range_are_refused_without_panic() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    let Signature::Ecdsa { r, s, .. } = sign(&scene.tpm.ak, &evidence.quote.quote.attest) else {
        panic!("software keys sign with ecdsa");
    };
    let order =
        hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let hash = HashAlg::Sha256;
    let wrong = [
        vec![],
        vec![0],
        vec![0; 32],
        order,
        vec![0xff; 32],
        vec![1; 33],
        vec![0xff; 48],
    ];
    for number in wrong {
        for (r, s) in [(number.clone(), s.clone()), (r.clone(), number.clone())] {
            let mut evidence = evidence.clone();
            evidence.quote.quote.signature = Signature::Ecdsa { hash, r, s }.to_bytes();
            assert_eq!(scene.attest_code(&evidence), "quote_signature_mismatch");
        }
    }
    let mut oversized = evidence;
    let r = vec![1; 49];
    oversized.quote.quote.signature = Signature::Ecdsa { hash, r, s }.to_bytes();
    assert_eq!(scene.attest_code(&oversized), "quote_signature_malformed");
}

/// Test 39.
#[test]
fn bytes_after_a_structure_are_refused() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    let mut longer = evidence.clone();
    longer.quote.quote.attest.push(0);
    longer.quote.quote = scene.tpm.sign_bytes(longer.quote.quote.attest);
    assert_eq!(scene.attest_code(&longer), "quote_malformed");
    let mut longer = evidence;
    longer.quote.quote.signature.push(0);
    assert_eq!(scene.attest_code(&longer), "quote_signature_malformed");
    let mut enrol = scene.enrol_evidence();
    enrol.certify.signature.push(0);
    assert_eq!(scene.enrol_code(&enrol), "certify_signature_malformed");
}

/// Test 40.
#[test]
fn an_ak_that_is_no_primary_of_the_endorsement_hierarchy_is_refused() {
    let mut scene = Scene::new();
    // TPM_RH_OWNER, TPM_RH_PLATFORM.
    for hierarchy in [0x4000_0001, 0x4000_000c] {
        let signer = scene.tpm.ak_public().qualified_name_below(hierarchy);
        let evidence =
            scene.altered_quote(|attest| attest.qualified_signer = signer.as_bytes().to_vec());
        assert_eq!(scene.attest_code(&evidence), "quote_signer_mismatch");
        let mut enrol = scene.enrol_evidence();
        let mut attest = scene.tpm.certify_attest(scene.enrol_data().as_bytes());
        attest.qualified_signer = signer.as_bytes().to_vec();
        enrol.certify = scene.tpm.sign(&attest);
        assert_eq!(scene.enrol_code(&enrol), "certify_signer_mismatch");
    }
}

fn with_clock(alter: impl FnOnce(&mut ClockInfo)) -> Result<VerifiedEvidence, EvidenceRefused> {
    let mut scene = Scene::new();
    let evidence = scene.altered_quote(|attest| alter(&mut attest.clock));
    scene.verify_attest(&evidence)
}

/// Test 41.
#[test]
fn a_clock_that_does_not_advance_within_a_boot_is_refused() {
    let last = SoftwareTpm::new().clock.clock_ms;
    for clock_ms in [0, last - 1, last] {
        let refused = with_clock(|clock| clock.clock_ms = clock_ms).unwrap_err();
        assert_eq!(refused.code(), "clock_not_advanced");
    }
}

/// Test 42.
#[test]
fn counts_below_the_last_accepted_are_refused() {
    let refused = with_clock(|clock| clock.reset_count -= 1).unwrap_err();
    assert_eq!(refused.code(), "clock_reset_count_below");
    let mut scene = Scene::new();
    scene.last.restart_count = 3;
    let evidence = scene.attest_evidence();
    assert_eq!(scene.attest_code(&evidence), "clock_restart_count_below");
    // It may fall when the reset count rose.
    scene.tpm.reboot(true);
    let evidence = scene.attest_evidence();
    assert!(scene.verify_attest(&evidence).is_ok());
}

/// Test 43.
#[test]
fn a_higher_reset_count_says_that_the_machine_booted() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    let verified = scene.verify_attest(&evidence).unwrap();
    assert!(!verified.tpm().unwrap().rebooted());
    scene.tpm.reboot(true);
    let evidence = scene.attest_evidence();
    let verified = scene.verify_attest(&evidence).unwrap();
    assert!(verified.tpm().unwrap().rebooted());
    assert_eq!(
        verified.tpm().unwrap().reset_count(),
        scene.last.reset_count + 1
    );
}

/// Test 43, where the TPM counts an orderly start as a restart.
#[test]
fn a_higher_restart_count_says_that_the_machine_may_have_booted() {
    let verified = with_clock(|clock| clock.restart_count += 1).unwrap();
    assert!(verified.tpm().unwrap().rebooted());
}

/// Test 44, as the design overrides it: power cuts happen.
#[test]
fn an_unsafe_clock_is_refused_unless_a_count_rose() {
    let refused = with_clock(|clock| clock.safe = false).unwrap_err();
    assert_eq!(refused.code(), "clock_unsafe");
    let resumed = with_clock(|clock| {
        clock.safe = false;
        clock.restart_count += 1;
    });
    assert!(resumed.is_ok());
    let mut scene = Scene::new();
    scene.tpm.reboot(false);
    let evidence = scene.attest_evidence();
    let verified = scene.verify_attest(&evidence).unwrap();
    let after_power_cut = verified.tpm().unwrap().clock();
    assert!(after_power_cut.clock_ms < scene.last.clock_ms);
    // The TPM needs minutes until its clock is safe again; until then it must still advance.
    scene.last = after_power_cut;
    assert_eq!(scene.attest_code(&evidence), "clock_not_advanced");
    let evidence = scene.attest_evidence();
    assert!(scene.verify_attest(&evidence).is_ok());
}

#[test]
fn a_certification_of_another_boot_than_the_quote_is_refused() {
    let mut scene = Scene::new();
    let mut evidence = scene.enrol_evidence();
    scene.tpm.reboot(true);
    let data = scene.enrol_data();
    evidence.certify = scene.tpm.certify(data.as_bytes());
    assert_eq!(scene.enrol_code(&evidence), "certify_other_boot");
}

#[test]
fn a_renewed_svid_key_needs_its_own_certification() {
    let mut scene = Scene::new();
    let old = scene.tpm.svid_key();
    scene.tpm.svid = SoftwareKey::generate().unwrap();
    let data = scene.attest_data();
    let renewed = |scene: &mut Scene, certify: SignedAttest| AttestEvidence {
        svid: SvidProof::Renewed {
            public: scene.tpm.svid_public().to_bytes(),
            certify,
        },
        quote: scene.tpm.quote(data.as_bytes(), &scene.selection),
    };
    let certify = scene.tpm.certify(&[0; 32]);
    let evidence = renewed(&mut scene, certify);
    assert_eq!(scene.attest_code(&evidence), "certify_nonce_mismatch");
    let quote = scene.attest_evidence().quote.quote;
    let evidence = renewed(&mut scene, quote);
    assert_eq!(scene.attest_code(&evidence), "certify_type");
    let certify = scene.tpm.certify(data.as_bytes());
    let evidence = renewed(&mut scene, certify);
    let verified = scene.verify_attest(&evidence).unwrap();
    assert_eq!(verified.svid_key(), scene.tpm.svid.public_key());
    assert_ne!(verified.svid_key(), old.key());
    let weak = signing_public(scene.tpm.svid.public_key(), Attributes::RESTRICTED);
    let AttestEvidence { svid, quote } = evidence;
    let SvidProof::Renewed { certify, .. } = svid else {
        panic!("renewed");
    };
    let public = weak.to_bytes();
    let svid = SvidProof::Renewed { public, certify };
    let evidence = AttestEvidence { svid, quote };
    assert_eq!(scene.attest_code(&evidence), "svid_key_use");
}

#[test]
fn good_enrolment_evidence_says_everything_about_its_machine() {
    let mut scene = Scene::new();
    let evidence = scene.enrol_evidence();
    let verified = scene.verify_enrol(&evidence).unwrap();
    let facts = verified.tpm().unwrap();
    assert_eq!(verified.subject(), &Subject::Token("t1".into()));
    assert_eq!(verified.tier(), Tier::Listed);
    assert_eq!(verified.boot_key(), &scene.boot_key);
    assert_eq!(verified.svid_key(), scene.tpm.svid.public_key());
    assert_eq!(facts.ek_digest(), &scene.tpm.ek_public().digest());
    assert_eq!(facts.ak_name(), &scene.tpm.ak_public().name());
    assert_eq!(facts.selection(), &scene.selection);
    assert_eq!(facts.pcr_values().len(), 4);
    assert_eq!(facts.firmware(), scene.tpm.firmware);
}

#[test]
fn no_altered_byte_of_good_evidence_is_accepted() {
    let mut scene = Scene::new();
    let evidence = scene.attest_evidence();
    for index in 0..evidence.quote.quote.attest.len() {
        let mut altered = evidence.clone();
        altered.quote.quote.attest[index] ^= 1;
        assert!(
            scene.verify_attest(&altered).is_err(),
            "attest byte {index}"
        );
    }
    for index in 0..evidence.quote.quote.signature.len() {
        let mut altered = evidence.clone();
        altered.quote.quote.signature[index] ^= 1;
        assert!(
            scene.verify_attest(&altered).is_err(),
            "signature byte {index}"
        );
    }
}

#[test]
fn software_evidence_needs_the_svid_key_over_this_conversation() {
    let scene = Scene::new();
    let svid = SoftwareKey::generate().unwrap();
    let expected = SoftwareAttestExpected {
        trust_domain: &scene.trust_domain,
        node: &scene.node,
        nonce: &scene.nonce,
        exporter: &scene.exporter,
        boot_key: &scene.boot_key,
        svid_key: svid.public_key(),
    };
    let data = Transcript {
        trust_domain: &scene.trust_domain,
        boot_key: &scene.boot_key,
        moment: Moment::AttestSoftware {
            node: &scene.node,
            nonce: &scene.nonce,
            exporter: &scene.exporter,
            svid_key: svid.public_key(),
        },
    }
    .qualifying_data();
    let signature = svid.sign(data.as_bytes()).unwrap();
    let other = SoftwareKey::generate()
        .unwrap()
        .sign(data.as_bytes())
        .unwrap();
    let code = |signature: &[u8], expected| {
        verify_software_attestation(signature, expected)
            .unwrap_err()
            .code()
    };
    assert_eq!(code(&other, &expected), "software_signature_mismatch");
    assert_eq!(code(&[], &expected), "software_signature_mismatch");
    let elsewhere = Exporter::from_bytes([9; 32]);
    let relayed = SoftwareAttestExpected {
        exporter: &elsewhere,
        ..expected
    };
    assert_eq!(code(&signature, &relayed), "software_signature_mismatch");
    let enrol = SoftwareEnrolExpected {
        trust_domain: &scene.trust_domain,
        token_id: "t1",
        nonce: &scene.nonce,
        exporter: &scene.exporter,
        boot_key: &scene.boot_key,
        svid_key: svid.public_key(),
    };
    assert!(verify_software_enrolment(&signature, &enrol).is_err());
    let verified = verify_software_attestation(&signature, &expected).unwrap();
    assert_eq!(verified.tier(), Tier::Software);
    assert!(verified.tpm().is_none());
}

#[test]
fn tier_software_is_no_tier_of_a_tpm() {
    assert_eq!(TpmTier::new(Tier::Software), None);
}

#[test]
fn every_refusal_has_its_own_code() {
    // Codes are an outside contract: this list changes only on purpose.
    let codes = [
        "quote_type",
        "quote_signer_mismatch",
        "quote_nonce_mismatch",
        "certify_type",
        "certify_signer_mismatch",
        "certify_nonce_mismatch",
        "certify_name_mismatch",
        "certify_other_boot",
        "software_signature_mismatch",
    ];
    let refusals = [
        EvidenceRefused::QuoteType,
        EvidenceRefused::QuoteSigner,
        EvidenceRefused::QuoteNonce,
        EvidenceRefused::CertifyType,
        EvidenceRefused::CertifySigner,
        EvidenceRefused::CertifyNonce,
        EvidenceRefused::CertifyName,
        EvidenceRefused::CertifyOtherBoot,
        EvidenceRefused::SoftwareSignature,
    ];
    assert_eq!(refusals.map(|refused| refused.code()), codes);
}

fn replace_selections(
    attest: &mut Attest,
    alter: impl FnOnce(&mut Vec<crate::tpm::pcr::BankSelection>),
) {
    if let AttestBody::Quote { selections, .. } = &mut attest.body {
        alter(selections);
    }
}
