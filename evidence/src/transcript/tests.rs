use std::collections::BTreeSet;

use edgeward_identity::{Kind, Secret, Signer, SoftwareKey};

use super::*;
use crate::testing::SoftwareTpm;

/// One transcript of each moment, with a single field changed from the first.
fn variants() -> Vec<(&'static str, Digest)> {
    let tpm = SoftwareTpm::new();
    let domains = ["plant.example", "plant.example2"].map(|name| TrustDomain::new(name).unwrap());
    let boot_keys = [(); 2].map(|()| *SoftwareKey::generate().unwrap().public_key());
    let nonces = [1, 2].map(|fill| Nonce::from_bytes([fill; 32]));
    let exporters = [1, 2].map(|fill| Exporter::from_bytes([fill; 32]));
    let eks = [b"a", b"b"].map(|bytes| Digest::of(bytes));
    let names = [tpm.ak_public().name(), tpm.svid_public().name()];
    let publics = [tpm.ak_public().to_bytes(), tpm.svid_public().to_bytes()];
    let secrets = [1, 2].map(|fill| Secret::new([fill; 32]));
    let nodes = ["a", "b"].map(|name| SpiffeId::new(&domains[0], Kind::Node, name).unwrap());
    let tokens = ["t1", "t2"];
    let mut all = Vec::new();
    // Field number `changed` takes its second value.
    for changed in 0..=9 {
        let pick = |field: usize| usize::from(field == changed);
        let mut push = |what, moment| {
            let transcript = Transcript {
                trust_domain: &domains[pick(1)],
                boot_key: &boot_keys[pick(2)],
                moment,
            };
            all.push((what, transcript.qualifying_data()));
        };
        let (nonce, exporter) = (&nonces[pick(4)], &exporters[pick(5)]);
        let (ek_digest, ak_name) = (&eks[pick(6)], &names[pick(7)]);
        let svid_public = publics[pick(8)].as_slice();
        let svid_key = &boot_keys[pick(8)];
        push(
            "enrol",
            Moment::EnrolTpm {
                token_id: tokens[pick(3)],
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
                secret: &secrets[pick(9)],
            },
        );
        push(
            "recover",
            Moment::RecoverTpm {
                node: &nodes[pick(3)],
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
                secret: &secrets[pick(9)],
            },
        );
        push(
            "enrol-software",
            Moment::EnrolSoftware {
                token_id: tokens[pick(3)],
                nonce,
                exporter,
                svid_key,
            },
        );
        push(
            "attest",
            Moment::AttestTpm {
                node: &nodes[pick(3)],
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
            },
        );
        push(
            "attest-software",
            Moment::AttestSoftware {
                node: &nodes[pick(3)],
                nonce,
                exporter,
                svid_key,
            },
        );
        push(
            "boot",
            Moment::Boot {
                node: &nodes[pick(3)],
                ak_name,
                svid_key,
            },
        );
    }
    all
}

#[test]
fn every_field_changes_the_qualifying_data_of_every_moment_that_has_it() {
    let all = variants();
    let different = |what: &str| {
        let digests: BTreeSet<_> = all
            .iter()
            .filter(|(moment, _)| *moment == what)
            .map(|(_, digest)| *digest)
            .collect();
        digests.len()
    };
    // The unchanged one, and one for each field that the moment has.
    assert_eq!(different("enrol"), 10);
    assert_eq!(different("recover"), 10);
    assert_eq!(different("attest"), 9);
    assert_eq!(different("enrol-software"), 7);
    assert_eq!(different("attest-software"), 7);
    assert_eq!(different("boot"), 6);
}

#[test]
fn no_moment_can_be_taken_for_another() {
    let all = variants();
    let moments: BTreeSet<_> = all.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(moments.len(), 10 + 10 + 9 + 7 + 7 + 6);
}

#[test]
fn a_boundary_between_two_fields_cannot_be_moved() {
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    assert_ne!(hash(&[b"ab", b""]), hash(&[b"ab"]));
}

/// Test 29.
#[test]
fn a_million_nonces_do_not_repeat() {
    let random = ring::rand::SystemRandom::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000_000 {
        assert!(seen.insert(*Nonce::draw(&random).unwrap().as_bytes()));
    }
}
