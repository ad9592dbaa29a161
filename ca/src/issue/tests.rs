use edgeward_identity::SoftwareKey;
use edgeward_identity::bundle::spki_hash_of_certificate;
use edgeward_identity::svid::check_intermediate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::keys::CloudKeys;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn id(kind: Kind, name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), kind, name).unwrap()
}

fn keys() -> (tempfile::TempDir, CloudKeys) {
    let folder = tempfile::tempdir().unwrap();
    let keys = CloudKeys::create(folder.path(), &domain(), NOW, |_| Ok(())).unwrap();
    (folder, keys)
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    x509_parser::parse_x509_certificate(der).unwrap().1
}

#[test]
fn another_kind_or_trust_domain_gets_no_certificate() {
    let (_folder, keys) = keys();
    let key = SoftwareKey::generate().unwrap();
    let node = id(Kind::Node, "a");
    let refused =
        keys.issuer()
            .issue_operator(&node, key.public_key(), Duration::from_secs(60), NOW);
    assert!(matches!(refused, Err(IssueFault::Kind(Kind::Node))));
    let other = TrustDomain::new("other.example").unwrap();
    let foreign = SpiffeId::new(&other, Kind::Operator, "a").unwrap();
    let refused =
        keys.issuer()
            .issue_operator(&foreign, key.public_key(), Duration::from_secs(60), NOW);
    assert!(matches!(refused, Err(IssueFault::TrustDomain(_))));
}

#[test]
fn an_expired_issuing_certificate_signs_nothing() {
    let (_folder, keys) = keys();
    let key = SoftwareKey::generate().unwrap();
    let issuer = keys.issuer();
    let refused = issuer.issue_operator(
        &id(Kind::Operator, "a"),
        key.public_key(),
        Duration::from_secs(60),
        issuer.not_after(),
    );
    assert!(matches!(refused, Err(IssueFault::IssuerExpired)));
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let (_folder, keys) = keys();
    let key = SoftwareKey::generate().unwrap();
    let issuer = keys.issuer();
    let late = issuer.not_after().minus(Duration::from_secs(3600));
    let issued = issuer
        .issue_operator(
            &id(Kind::Operator, "a"),
            key.public_key(),
            MAX_OPERATOR_LIFETIME,
            late,
        )
        .unwrap();
    assert_eq!(issued.leaf.not_after, issuer.not_after());
}

#[test]
fn a_leaf_has_every_must_of_the_x509_svid_standard_and_nothing_else() {
    let (_folder, keys) = keys();
    let key = SoftwareKey::generate().unwrap();
    let issued = keys
        .issuer()
        .issue_operator(
            &id(Kind::Operator, "li"),
            key.public_key(),
            Duration::from_secs(3600),
            NOW,
        )
        .unwrap();
    let leaf = parsed(&issued.chain[0]);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [GeneralName::URI("spiffe://plant.example/operator/li")]
    );
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digital signature alone");
    let extended = leaf.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && extended.value.client_auth);
    assert!(!extended.value.any && extended.value.other.is_empty());
    assert_eq!(leaf.raw_serial().len(), 16);
    assert_eq!(issued.leaf.not_before, NOW.minus(BACKDATE));
    assert_eq!(issued.leaf.not_after, NOW.plus(Duration::from_secs(3600)));
    assert_eq!(issued.leaf.key, *key.public_key());
}

#[test]
fn signing_certificates_have_every_must_of_the_x509_svid_standard() {
    let (_folder, keys) = keys();
    let svid = keys
        .issuer()
        .issue_cloud(
            &id(Kind::Cloud, "c"),
            Arc::new(SoftwareKey::generate().unwrap()),
            NOW,
        )
        .unwrap();
    let [_, issuing, root] = svid.chain() else {
        panic!("leaf, issuing, root");
    };
    for (certificate, path_length) in [(issuing, 0), (root, 1)] {
        check_intermediate(certificate).unwrap();
        let certificate = parsed(certificate);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert_eq!(constraints.value.path_len_constraint, Some(path_length));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI("spiffe://plant.example")]
        );
    }
    assert_eq!(spki_hash_of_certificate(root).unwrap(), keys.root_pin());
}

#[test]
fn serial_numbers_do_not_repeat() {
    let (_folder, keys) = keys();
    let key = SoftwareKey::generate().unwrap();
    let issuer = keys.issuer();
    let serials: std::collections::BTreeSet<String> = (0..64)
        .map(|_| {
            issuer
                .issue_operator(
                    &id(Kind::Operator, "a"),
                    key.public_key(),
                    Duration::from_secs(60),
                    NOW,
                )
                .unwrap()
                .leaf
                .serial
        })
        .collect();
    assert_eq!(serials.len(), 64);
}
