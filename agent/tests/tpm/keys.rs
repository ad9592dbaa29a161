use edgeward_agent::tpm::activate::activate;
use edgeward_agent::tpm::ek::endorsement;
use edgeward_agent::tpm::keys::{ak_public, renew_svid, svid_public};
use edgeward_agent::tpm::signer::point_of;
use edgeward_agent::tpm::{EkChoice, EkKind, SvidSlot, TpmError, quote};
use edgeward_evidence::ek::{EkFile, EkLists, EkRoots, Terms, verify_ek_certificate};
use edgeward_evidence::make_credential::{draw_secret, make_credential};
use edgeward_evidence::tpm::{Attest, AttestBody, PcrBank, PcrSelection, Public, Signature};
use edgeward_identity::{Clock, SystemClock, Tier};
use ring::rand::SystemRandom;

use super::swtpm::{Swtpm, installed};
use super::{NONCE, call, quoted, request};

/// The hierarchy `TPM_RH_ENDORSEMENT`.
const ENDORSEMENT: u32 = 0x4000_000b;

fn activates(swtpm: &Swtpm, choice: EkChoice, kind: EkKind) {
    let tpm = swtpm.open();
    let (endorsement, ak) = call(&tpm, move |device| {
        Ok((endorsement(device, choice)?, ak_public(device)?))
    })
    .unwrap();
    assert_eq!(endorsement.kind, kind);
    let ek = Public::parse(&endorsement.public).unwrap();
    let name = Public::parse(&ak).unwrap().name();
    let secret = draw_secret(&SystemRandom::new()).unwrap();
    let credential = make_credential(&ek, &name, &secret, &SystemRandom::new()).unwrap();
    let (blob, seed) = (
        credential.id_object.clone(),
        credential.encrypted_secret.clone(),
    );
    let opened = call(&tpm, move |device| activate(device, kind, &blob, &seed)).unwrap();
    assert_eq!(opened.expose().as_slice(), secret.expose().as_slice());

    let (mut blob, seed) = (credential.id_object, credential.encrypted_secret);
    *blob.last_mut().unwrap() ^= 1;
    assert!(matches!(
        call(&tpm, move |device| activate(device, kind, &blob, &seed)),
        Err(TpmError::Failed {
            what: "activate a credential",
            ..
        })
    ));
    // Neither left a session or an object behind: there are only three of each.
    for _ in 0..4 {
        let credential = make_credential(&ek, &name, &secret, &SystemRandom::new()).unwrap();
        call(&tpm, move |device| {
            activate(
                device,
                kind,
                &credential.id_object,
                &credential.encrypted_secret,
            )
        })
        .unwrap();
    }
}

#[test]
fn a_credential_for_an_rsa_ek_is_opened_and_an_altered_one_refused() {
    if installed() {
        activates(&Swtpm::start(), EkChoice::Rsa2048, EkKind::Rsa2048);
    }
}

#[test]
fn a_credential_for_a_p384_ek_is_opened_and_an_altered_one_refused() {
    if installed() {
        activates(&Swtpm::start(), EkChoice::Auto, EkKind::P384);
    }
}

#[test]
fn a_credential_for_a_p256_ek_without_certificate_is_opened() {
    if installed() {
        activates(&Swtpm::start(), EkChoice::P256, EkKind::P256);
    }
}

#[test]
fn a_p256_ek_with_a_certificate_is_preferred() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    swtpm.provision_p256();
    activates(&swtpm, EkChoice::Auto, EkKind::P256);
    let endorsement = call(&swtpm.open(), |device| endorsement(device, EkChoice::Auto)).unwrap();
    assert_eq!(endorsement.certificates.len(), 1);
}

#[test]
fn a_cloud_that_knows_the_maker_accepts_the_ek_with_its_certificate() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let certificates = swtpm.ca_certificates();
    let files: Vec<EkFile<'_>> = certificates
        .iter()
        .map(|(name, bytes)| EkFile {
            tier: Tier::Virtual,
            name,
            bytes,
            terms: Terms::default(),
        })
        .collect();
    let (roots, refused) = EkRoots::load(&files, EkLists::default());
    assert!(refused.is_empty(), "{refused:?}");
    for choice in [EkChoice::Rsa2048, EkChoice::P384] {
        let found = call(&tpm, move |device| endorsement(device, choice)).unwrap();
        let chain: Vec<&[u8]> = found.certificates.iter().map(Vec::as_slice).collect();
        let verified =
            verify_ek_certificate(&chain, &found.public, &roots, SystemClock.now()).unwrap();
        assert_eq!(verified.public().to_bytes(), found.public);
    }
}

/// First index of the chain.
const CHAIN: u32 = 0x01c0_0100;
/// Certificates of the EKs that swtpm_setup makes.
const RSA_2048: u32 = 0x01c0_0002;
const P_384: u32 = 0x01c0_0016;

#[test]
fn a_chain_in_nv_leads_to_a_maker_of_whom_the_cloud_knows_the_root_only() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let [root, issuer] = <[_; 2]>::try_from(swtpm.ca_certificates()).unwrap();
    let file = EkFile {
        tier: Tier::Virtual,
        name: &root.0,
        bytes: &root.1,
        terms: Terms::default(),
    };
    let (roots, refused) = EkRoots::load(&[file], EkLists::default());
    assert!(refused.is_empty(), "{refused:?}");
    let verified = |swtpm: &Swtpm| {
        let found = call(&swtpm.open(), |device| endorsement(device, EkChoice::P384)).unwrap();
        let chain: Vec<&[u8]> = found.certificates.iter().map(Vec::as_slice).collect();
        let verified = verify_ek_certificate(&chain, &found.public, &roots, SystemClock.now());
        (
            chain.len(),
            verified.map(|_| ()).map_err(|error| error.code()),
        )
    };
    assert_eq!(verified(&swtpm), (1, Err("ek_chain_untrusted")));

    // Two indices, the certificate goes over from one into the other, and the second is padded.
    let der = pem::parse(&issuer.1).unwrap().into_contents();
    let (one, two) = der.split_at(der.len() / 2);
    swtpm.provision_index(CHAIN, one);
    swtpm.provision_index(CHAIN + 1, &[two, &[0xff; 20]].concat());
    assert_eq!(verified(&swtpm), (2, Ok(())));
}

#[test]
fn a_certificate_with_padding_behind_it_is_taken_without() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let own = call(&swtpm.open(), |device| endorsement(device, EkChoice::P384))
        .unwrap()
        .certificates;
    swtpm.remove_index(P_384);
    swtpm.provision_index(P_384, &[own[0].as_slice(), &[0; 100]].concat());
    let padded = call(&swtpm.open(), |device| endorsement(device, EkChoice::P384)).unwrap();
    assert_eq!(padded.certificates, own);
}

#[test]
fn an_ek_certificate_of_a_kind_that_is_not_used_is_not_passed_over_in_silence() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    for index in [RSA_2048, P_384] {
        swtpm.remove_index(index);
    }
    swtpm.provision_index(0x01c0_001c, &[0x30, 0x00]);
    let refused = call(&swtpm.open(), |device| endorsement(device, EkChoice::Auto));
    assert!(
        matches!(
            refused,
            Err(TpmError::EndorsementKeyUnsupported("rsa-3072"))
        ),
        "{refused:?}"
    );
    let named = call(&swtpm.open(), |device| endorsement(device, EkChoice::P256)).unwrap();
    assert!(named.certificates.is_empty());
}

#[test]
fn the_ak_is_restricted_fixed_and_a_primary_of_the_endorsement_hierarchy() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let ak = Public::parse(&call(&tpm, ak_public).unwrap()).unwrap();
    let attest = Attest::parse(&quoted(&tpm).attest).unwrap();
    assert_eq!(
        attest.qualified_signer,
        ak.qualified_name_below(ENDORSEMENT).as_bytes()
    );
    assert_eq!(attest.extra_data, NONCE);
    // The same key again: it is persistent.
    assert_eq!(Public::parse(&call(&tpm, ak_public).unwrap()).unwrap(), ak);
}

#[test]
fn certify_names_the_svid_key_of_its_slot_and_renewal_leaves_the_other_slot_alone() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    assert!(matches!(
        call(&tpm, |device| svid_public(device, SvidSlot::A)),
        Err(TpmError::KeyMissing { .. })
    ));
    let a = call(&tpm, |device| renew_svid(device, SvidSlot::A)).unwrap();
    let b = call(&tpm, |device| renew_svid(device, SvidSlot::B)).unwrap();
    assert_ne!(a, b);
    assert_eq!(
        call(&tpm, |device| svid_public(device, SvidSlot::A)).unwrap(),
        a
    );
    let certified = call(&tpm, |device| quote::certify(device, SvidSlot::B, &NONCE)).unwrap();
    let attest = Attest::parse(&certified.attest).unwrap();
    let AttestBody::Certify { name, .. } = attest.body else {
        panic!("not a certify");
    };
    assert_eq!(name, Public::parse(&b).unwrap().name().as_bytes());
    let b2 = call(&tpm, |device| renew_svid(device, SvidSlot::B)).unwrap();
    assert_ne!(b, b2);
    assert_ne!(point_of(&b).unwrap(), point_of(&b2).unwrap());
    assert_eq!(
        call(&tpm, |device| svid_public(device, SvidSlot::A)).unwrap(),
        a
    );
}

#[test]
fn a_quote_covers_exactly_the_values_it_comes_with() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let all = request(PcrBank::Sha256, 0..24);
    let quoted = call(&tpm, move |device| quote::quote(device, &all)).unwrap();
    let selection = PcrSelection::new(PcrBank::Sha256, 0..24).unwrap();
    let attest = Attest::parse(&quoted.attest).unwrap();
    let AttestBody::Quote {
        selections,
        pcr_digest,
    } = attest.body
    else {
        panic!("not a quote");
    };
    selection.check(&selections).unwrap();
    let (digest, _) = selection.digest_of(&quoted.pcrs).unwrap();
    assert!(digest.matches(&pcr_digest));
    Signature::parse(&quoted.signature).unwrap();
}

#[test]
fn a_bank_that_the_tpm_does_not_keep_is_an_error_and_not_an_empty_quote() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let inactive = request(PcrBank::Sha384, 0..4);
    assert!(matches!(
        call(&tpm, move |device| quote::quote(device, &inactive)),
        Err(TpmError::PcrSelection(_))
    ));
}
