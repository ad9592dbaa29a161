use edgeward_identity::{Signer as _, SoftwareKey};
use serde_json::json;

use super::*;
use crate::testing::policy_keys;
use crate::vectors;

fn payload(image: &[u8]) -> Vec<u8> {
    let digest = format!("sha256:{}", Digest::of(image));
    json!({ "critical": { "identity": { "docker-reference": "x" }, "image": { "docker-manifest-digest": digest }, "type": SIMPLE }, "optional": null })
        .to_string()
        .into_bytes()
}

#[test]
fn as_many_keys_as_the_policy_wants_must_have_signed_this_image() {
    let keys: Vec<SoftwareKey> = (0..3).map(|_| SoftwareKey::generate().unwrap()).collect();
    let keys: Vec<&SoftwareKey> = keys.iter().collect();
    let image = b"manifest";
    let payload = payload(image);
    let made: Vec<Vec<u8>> = keys.iter().map(|key| key.sign(&payload).unwrap()).collect();
    let simple = |at: usize| Signature::Simple {
        payload: &payload,
        signature: &made[at],
    };
    check(image, &[simple(0), simple(2)], &policy_keys(&keys, 2)).unwrap();
    let refused = |signatures: &[Signature<'_>], threshold| {
        check(image, signatures, &policy_keys(&keys, threshold)).unwrap_err()
    };
    assert!(
        matches!(
            refused(&[simple(0), simple(0)], 2),
            Unsigned::TooFew { found: 1, .. }
        ),
        "one key twice"
    );
    assert!(matches!(refused(&[], 1), Unsigned::TooFew { found: 0, .. }));
    assert!(matches!(refused(&[simple(0)], 0), Unsigned::Threshold));
    assert!(matches!(refused(&[simple(0)], 4), Unsigned::Threshold));
    assert!(matches!(
        refused(&[simple(0); MAX_SIGNATURES + 1], 1),
        Unsigned::TooMany
    ));
    assert!(
        check(b"other", &[simple(0)], &policy_keys(&keys, 1)).is_err(),
        "another image"
    );
    assert!(
        check(image, &[simple(0)], &policy_keys(&keys[1..], 1)).is_err(),
        "another key"
    );
    let other = String::from_utf8(payload.clone())
        .unwrap()
        .replace(SIMPLE, "something else")
        .into_bytes();
    let signature = keys[0].sign(&other).unwrap();
    let other = Signature::Simple {
        payload: &other,
        signature: &signature,
    };
    assert!(
        check(image, &[other], &policy_keys(&keys, 1)).is_err(),
        "a signature of something else"
    );
}

#[test]
fn a_bundle_of_a_key_holds_for_its_artefact_and_no_other() {
    let Some(base) = vectors::folder("sigstore-bundles") else {
        return;
    };
    let folder = base.join("managed-key-and-trusted-root");
    let bundle = std::fs::read(folder.join("bundle.sigstore.json")).unwrap();
    let artefact = std::fs::read(folder.join("artifact"))
        .or_else(|_| std::fs::read(base.join("a.txt")))
        .unwrap();
    let pem = std::fs::read_to_string(folder.join("key.pub")).unwrap();
    let der = DerPublicKey::from_pem(&pem).unwrap();
    let key = edgeward_identity::PublicKey::from_spki_der(der.as_bytes()).unwrap();
    let policy = |point: &[u8]| PublisherKeys {
        keys: [format!("ecdsa-p256:{}", hex::encode(point))
            .parse()
            .unwrap()]
        .into(),
        threshold: 1,
    };
    check(
        &artefact,
        &[Signature::Bundle(&bundle)],
        &policy(key.point()),
    )
    .unwrap();
    assert!(
        check(
            b"other",
            &[Signature::Bundle(&bundle)],
            &policy(key.point())
        )
        .is_err()
    );
    let other = SoftwareKey::generate().unwrap();
    assert!(
        check(
            &artefact,
            &[Signature::Bundle(&bundle)],
            &policy(other.public_key().point())
        )
        .is_err()
    );
    let mut accepted = 0;
    for at in (0..bundle.len()).step_by(11) {
        let mut changed = bundle.clone();
        changed[at] ^= 1;
        // What a log said of it is not asked for; nothing else may change.
        accepted += usize::from(
            check(
                b"other",
                &[Signature::Bundle(&changed)],
                &policy(key.point()),
            )
            .is_ok(),
        );
    }
    assert_eq!(accepted, 0, "no change makes it hold for something else");
}

#[test]
fn a_changed_byte_anywhere_in_a_payload_or_its_signature_is_refused() {
    let key = SoftwareKey::generate().unwrap();
    let image = b"manifest";
    let payload = payload(image);
    let made = key.sign(&payload).unwrap();
    let holds = |payload: &[u8], signature: &[u8]| {
        let simple = Signature::Simple { payload, signature };
        check(image, &[simple], &policy_keys(&[&key], 1)).is_ok()
    };
    assert!(holds(&payload, &made));
    for (bytes, is_payload) in [(&payload, true), (&made, false)] {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let took = match is_payload {
                true => holds(&changed, &made),
                false => holds(&payload, &changed),
            };
            assert!(!took, "byte {at}, of the payload: {is_payload}");
        }
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            let took = match is_payload {
                true => holds(cut, &made),
                false => holds(&payload, cut),
            };
            assert!(!took, "cut at {end}, of the payload: {is_payload}");
        }
    }
}

/// Signature and digest are what the key vouches for; what a log said of them is not asked for.
#[test]
fn a_changed_byte_in_the_signature_or_digest_of_a_bundle_is_refused() {
    let Some(base) = vectors::folder("sigstore-bundles") else {
        return;
    };
    let folder = base.join("managed-key-and-trusted-root");
    let bundle = std::fs::read(folder.join("bundle.sigstore.json")).unwrap();
    let artefact = std::fs::read(folder.join("artifact"))
        .or_else(|_| std::fs::read(base.join("a.txt")))
        .unwrap();
    let pem = std::fs::read_to_string(folder.join("key.pub")).unwrap();
    let der = DerPublicKey::from_pem(&pem).unwrap();
    let key = edgeward_identity::PublicKey::from_spki_der(der.as_bytes()).unwrap();
    let policy = PublisherKeys {
        keys: [format!("ecdsa-p256:{}", hex::encode(key.point()))
            .parse()
            .unwrap()]
        .into(),
        threshold: 1,
    };
    let holds = |bundle: &[u8]| check(&artefact, &[Signature::Bundle(bundle)], &policy).is_ok();
    assert!(holds(&bundle));
    let value: serde_json::Value = serde_json::from_slice(&bundle).unwrap();
    let signed = &value["messageSignature"];
    let text = String::from_utf8(bundle.clone()).unwrap();
    let mut tried = 0;
    for part in [&signed["signature"], &signed["messageDigest"]["digest"]] {
        let part = part.as_str().unwrap();
        let at = text.find(part).unwrap();
        // The last digits hold bits that belong to no byte.
        for place in at..at + part.trim_end_matches('=').len() - 1 {
            let mut changed = bundle.clone();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(!holds(&changed), "byte {place}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

/// All public cases, with the roots of trust that they name: the verifier under [`check`] does as sigstore's others do.
#[test]
fn the_public_bundles_end_as_they_say() {
    use sigstore_verify::VerificationPolicy;
    provider::ensure().unwrap();
    let Some(base) = vectors::folder("sigstore-bundles") else {
        return;
    };
    let public = std::fs::read_to_string(base.join("public-good-trusted_root.json")).unwrap();
    let mut cases = 0;
    for entry in std::fs::read_dir(&base).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        cases += 1;
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let text = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        let artefact = std::fs::read(folder.join("artifact"))
            .or_else(|_| std::fs::read(base.join("a.txt")))
            .unwrap();
        let identity = text("identity").unwrap_or_else(|| "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main".to_owned());
        let issuer = text("issuer")
            .unwrap_or_else(|| "https://token.actions.githubusercontent.com".to_owned());
        let root =
            TrustedRoot::from_json(&text("trusted_root.json").unwrap_or_else(|| public.clone()))
                .unwrap();
        let holds =
            Bundle::from_json(&text("bundle.sigstore.json").unwrap()).is_ok_and(
                |bundle| match text("key.pub") {
                    Some(pem) => {
                        let policy =
                            PublicKeyVerificationPolicy::new(DerPublicKey::from_pem(&pem).unwrap());
                        verify(artefact.as_slice(), &bundle, &policy, &root).is_ok()
                    }
                    None => verify(
                        artefact.as_slice(),
                        &bundle,
                        &VerificationPolicy::new(identity.trim(), issuer.trim()),
                        &root,
                    )
                    .is_ok(),
                },
            );
        assert_eq!(holds, !name.ends_with("_fail"), "{name}");
    }
    assert_eq!(cases, 42);
}
