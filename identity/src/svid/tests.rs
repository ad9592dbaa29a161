use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{TestAuthority, uri};
use rcgen::CertificateParams;

fn refused(change: impl FnOnce(&mut CertificateParams)) -> SvidError {
    let authority = TestAuthority::new("plant.example");
    let (chain, _) = authority.chain_with("node/a", change);
    SvidLeaf::parse(&chain[0]).unwrap_err()
}

#[test]
fn garbage_is_malformed() {
    assert_eq!(SvidLeaf::parse(&[]), Err(SvidError::Malformed));
    assert_eq!(
        SvidLeaf::parse(&[0x30, 0x82, 0xff, 0xff]),
        Err(SvidError::Malformed)
    );
    assert_eq!(
        SvidLeaf::parse(&vec![0; MAX_CERTIFICATE_BYTES + 1]),
        Err(SvidError::TooLarge)
    );
}

#[test]
fn a_good_leaf_names_its_node() {
    let authority = TestAuthority::new("plant.example");
    let svid = authority.svid("node/a");
    assert_eq!(svid.id().to_string(), "spiffe://plant.example/node/a");
    assert!(svid.leaf().half_life() > svid.leaf().not_before);
    assert!(svid.leaf().half_life() < svid.leaf().not_after);
}

#[test]
fn every_broken_rule_of_the_standard_has_its_own_refusal() {
    let second = uri("spiffe://plant.example/node/b");
    assert_eq!(
        refused(|p| p.subject_alt_names.push(second)),
        SvidError::NotOneUri(2)
    );
    assert_eq!(
        refused(|p| p.subject_alt_names.clear()),
        SvidError::NotOneUri(0)
    );
    assert_eq!(
        refused(|p| p.subject_alt_names = vec![uri("spiffe://plant.example")]),
        SvidError::Id(SpiffeIdError::NoPath)
    );
    assert_eq!(
        refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        SvidError::LeafIsAuthority
    );
    assert_eq!(
        refused(|p| p.key_usages.clear()),
        SvidError::KeyUsageMissing
    );
    assert_eq!(
        refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        SvidError::NoDigitalSignature
    );
    assert_eq!(
        refused(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        SvidError::LeafMaySign
    );
    assert_eq!(
        refused(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
        SvidError::LeafMaySign
    );
    assert_eq!(
        refused(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        SvidError::ExtendedKeyUsage
    );
}

#[test]
fn a_leaf_with_another_key_is_no_svid() {
    let authority = TestAuthority::new("plant.example");
    let (chain, _) = authority.chain_with("node/a", |_| {});
    let (_, other_key) = authority.chain_with("node/a", |_| {});
    assert_eq!(
        Svid::new(chain, Arc::new(other_key)).unwrap_err(),
        SvidError::KeyMismatch
    );
}

#[test]
fn no_cut_or_altered_certificate_panics() {
    let authority = TestAuthority::new("plant.example");
    let (chain, _) = authority.chain_with("node/a", |_| {});
    for index in 0..chain[0].len() {
        assert!(SvidLeaf::parse(&chain[0][..index]).is_err());
        for bit in 0..8 {
            let mut altered = chain[0].to_vec();
            altered[index] ^= 1 << bit;
            let _ = SvidLeaf::parse(&altered);
        }
    }
}
