//! The published SPIFFE vectors: X.509-SVIDs and bundles, good and bad.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test helpers")]

use std::path::PathBuf;

use edgeward_identity::bundle::BundleError;
use edgeward_identity::jwt::JwtBundle;
use edgeward_identity::svid::{SvidError, check_intermediate, leaf_uri};
use edgeward_identity::{TrustBundle, TrustDomain};

fn vectors(family: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("EDGEWARD_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors")),
        PathBuf::from,
    );
    let family = folder.join(family);
    if family.is_dir() {
        return Some(family);
    }
    eprintln!("vectors not found: skipped: {}", family.display());
    None
}

fn certificates(path: PathBuf) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(&path).unwrap();
    match pem::parse_many(&bytes) {
        Ok(blocks) if !blocks.is_empty() => blocks
            .iter()
            .filter(|block| block.tag() == "CERTIFICATE")
            .map(|block| block.contents().to_vec())
            .collect(),
        _ => vec![bytes],
    }
}

#[test]
fn published_svids_are_judged_as_the_standard_says() {
    let Some(folder) = vectors("spiffe-x509-svid") else {
        return;
    };
    let leaf = |name: &str| leaf_uri(&certificates(folder.join(name))[0]);
    assert_eq!(
        leaf("go-spiffe/good-leaf-only.pem").as_deref(),
        Ok("spiffe://example.org/workload-1")
    );
    assert_eq!(
        leaf("go-spiffe/good-leaf-and-intermediate.pem").as_deref(),
        Ok("spiffe://example.org/workload-1")
    );
    assert_eq!(
        leaf("rust-spiffe/svid-with-dns.der").as_deref(),
        Ok("spiffe://example.org/service")
    );
    for family in [
        "go-spiffe/wrong-leaf-no-digital-signature.pem",
        "rust-spiffe/wrong-leaf-no-digital-signature.der",
    ] {
        assert_eq!(leaf(family), Err(SvidError::NoDigitalSignature), "{family}");
    }
    for family in [
        "go-spiffe/wrong-leaf-empty-id.pem",
        "rust-spiffe/wrong-leaf-empty-id.der",
    ] {
        assert_eq!(leaf(family), Err(SvidError::NotOneUri(0)), "{family}");
    }
    assert_eq!(leaf("rust-spiffe/corrupted"), Err(SvidError::Malformed));
    let corrupt = std::fs::read(folder.join("go-spiffe/corrupt-cert.pem")).unwrap();
    assert!(leaf_uri(&corrupt).is_err());
    let mut trailing = certificates(folder.join("rust-spiffe/svid-with-dns.der")).remove(0);
    trailing.push(0);
    assert_eq!(leaf_uri(&trailing), Err(SvidError::Malformed));
}

#[test]
fn a_published_intermediate_without_cert_sign_is_refused() {
    let Some(folder) = vectors("spiffe-x509-svid") else {
        return;
    };
    let chain = certificates(folder.join("go-spiffe/wrong-intermediate-no-key-cert-sign.pem"));
    assert_eq!(
        check_intermediate(&chain[1]),
        Err(SvidError::IntermediateMayNotSign)
    );
    let good = certificates(folder.join("go-spiffe/good-leaf-and-intermediate.pem"));
    assert_eq!(check_intermediate(&good[1]), Ok(()));
}

#[test]
fn published_bundles_are_judged_as_the_standard_says() {
    let Some(folder) = vectors("spiffe-bundles") else {
        return;
    };
    let read = |name: &str| {
        let json = std::fs::read(folder.join("go-spiffe/spiffebundle").join(name)).unwrap();
        TrustBundle::from_spiffe_json(TrustDomain::new("example.org").unwrap(), &json)
    };
    let bundle = read("spiffebundle_valid_2.json").unwrap();
    assert!(!bundle.roots().is_empty());
    let again =
        TrustBundle::from_spiffe_json(bundle.trust_domain().clone(), &bundle.to_spiffe_json())
            .unwrap();
    assert_eq!(again.roots(), bundle.roots());
    assert!(matches!(
        read("spiffebundle_no_keys.json"),
        Err(BundleError::NoAuthorities | BundleError::Json(_))
    ));
    assert!(matches!(
        read("spiffebundle_multiple_x509.json"),
        Err(BundleError::NotOneCertificate(2))
    ));
}

#[test]
fn no_cut_bundle_panics_or_passes() {
    let Some(folder) = vectors("spiffe-bundles") else {
        return;
    };
    let json =
        std::fs::read(folder.join("go-spiffe/spiffebundle/spiffebundle_valid_2.json")).unwrap();
    let json = json.trim_ascii_end();
    for length in 0..json.len() {
        assert!(
            TrustBundle::from_spiffe_json(
                TrustDomain::new("example.org").unwrap(),
                &json[..length]
            )
            .is_err()
        );
    }
}

#[test]
fn published_jwt_bundles_are_judged_as_the_standard_says() {
    let Some(folder) = vectors("spiffe-bundles") else {
        return;
    };
    let domain = || TrustDomain::new("example.org").unwrap();
    let read = |name: &str| std::fs::read(folder.join("go-spiffe/jwtbundle").join(name)).unwrap();
    let bundle = JwtBundle::from_jwks(domain(), &read("jwks_valid_2.json")).unwrap();
    assert_eq!(bundle.keys().len(), 2);
    assert!(bundle.get("C6vs25welZOx6WksNYfbMfiw9l96pMnD").is_some());
    assert_eq!(
        JwtBundle::from_jwks(domain(), &bundle.to_jwks()).unwrap(),
        bundle
    );
    let missing = JwtBundle::from_jwks(domain(), &read("jwks_missing_kid.json"));
    assert!(matches!(missing, Err(BundleError::NoKeyId)));
    let json = read("jwks_valid_2.json");
    let json = json.trim_ascii_end();
    for length in 0..json.len() {
        assert!(JwtBundle::from_jwks(domain(), &json[..length]).is_err());
    }
    // The keys for tokens stand in the whole bundle beside the roots, and come back from it.
    let path = folder.join("go-spiffe/spiffebundle/spiffebundle_valid_2.json");
    let whole = TrustBundle::from_spiffe_json(domain(), &std::fs::read(path).unwrap()).unwrap();
    let both = whole.clone().with_jwt_keys(bundle.keys().values().copied());
    let again = TrustBundle::from_spiffe_json(domain(), &both.to_spiffe_json()).unwrap();
    assert_eq!(again, both);
    assert_eq!(again.jwt_keys().len(), 2);
    assert_eq!(again.roots(), whole.roots());
}
