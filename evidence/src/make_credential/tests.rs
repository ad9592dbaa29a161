use aes::cipher::KeyIvInit as _;
use ring::rand::SystemRandom;
use rsa::RsaPrivateKey;
use serde::Deserialize;

use super::*;
use crate::ek::template::{self, CertifiedKey};
use crate::testing::ek::FixedRandom;
use crate::testing::{SoftwareEk, SoftwareTpm};
use crate::vectors;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RsaCase {
    name: String,
    label: String,
    #[serde(rename = "OAEPSalt", deserialize_with = "crate::vectors::hex_bytes")]
    oaep_salt: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    public_key: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    secret: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EccCase {
    name: String,
    label: String,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    ephemeral_private: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    public_key: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    secret: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    ciphertext: Vec<u8>,
}

fn open(
    ek: &Public,
    object: &Name,
    seed: &[u8],
    id_object: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let hash = ek.name_alg;
    let (mac, sealed) = id_object[2..].split_at(hash.digest_len());
    let mac_key = kdfa(hash, seed, INTEGRITY, &[], &[], bits_of(hash.digest_len()));
    if hash.hmac(&mac_key, &[sealed, object.as_bytes()]).as_ref() != mac {
        return Err("integrity");
    }
    let bits = ek.symmetric.unwrap();
    let key = kdfa(hash, seed, STORAGE, object.as_bytes(), &[], bits.into());
    let mut plain = sealed.to_vec();
    let iv = [0; 16];
    if bits == 128 {
        cfb_mode::Decryptor::<aes::Aes128>::new_from_slices(&key, &iv)
            .unwrap()
            .decrypt(&mut plain);
    } else {
        cfb_mode::Decryptor::<aes::Aes256>::new_from_slices(&key, &iv)
            .unwrap()
            .decrypt(&mut plain);
    }
    Ok(plain[2..].to_vec())
}

fn secret() -> ActivationSecret {
    draw_secret(&SystemRandom::new()).unwrap()
}

#[test]
fn a_credential_for_another_name_or_with_any_byte_altered_does_not_open() {
    let ek = SoftwareEk::generate(Curve::P256);
    let tpm = SoftwareTpm::new();
    let name = tpm.ak_public().name();
    let credential = make_credential(ek.public(), &name, &secret(), &SystemRandom::new()).unwrap();
    assert_eq!(ek.activate(&tpm.svid_public().name(), &credential), None);
    assert_eq!(tpm.ek.activate(&name, &credential), None);
    for index in 0..credential.id_object.len() {
        let mut altered = credential.clone();
        altered.id_object[index] ^= 1;
        assert_eq!(ek.activate(&name, &altered), None, "byte {index}");
    }
    for index in 0..credential.encrypted_secret.len() {
        let mut altered = credential.clone();
        altered.encrypted_secret[index] ^= 1;
        assert_eq!(ek.activate(&name, &altered), None, "byte {index}");
    }
}

#[test]
fn a_credential_opens_for_its_ek_and_name() {
    for curve in [Curve::P256, Curve::P384] {
        let ek = SoftwareEk::generate(curve);
        let name = SoftwareTpm::new().ak_public().name();
        let secret = secret();
        let credential =
            make_credential(ek.public(), &name, &secret, &SystemRandom::new()).unwrap();
        let opened = ek.activate(&name, &credential).unwrap();
        assert!(secret.matches(&opened), "{curve:?}");
    }
}

#[test]
fn a_point_off_the_curve_and_a_key_that_stores_nothing_get_no_challenge() {
    let name = SoftwareTpm::new().ak_public().name();
    let off_curve = template::rebuild(&CertifiedKey::Ecc {
        curve: Curve::P256,
        x: vec![1; 32],
        y: vec![2; 32],
    })
    .unwrap();
    let refused =
        |ek: &Public| make_credential(ek, &name, &secret(), &SystemRandom::new()).unwrap_err();
    assert_eq!(refused(&off_curve), CannotChallenge::InvalidKey);
    let mut no_storage = SoftwareTpm::new().ek_public();
    no_storage.symmetric = None;
    assert_eq!(refused(&no_storage), CannotChallenge::Unsupported);
}

#[test]
fn rsa_encapsulation_equals_the_vectors() {
    let Some(bytes) = vectors::read("tpm-kdf/rsa_labeled_encaps.json") else {
        return;
    };
    let cases: Vec<RsaCase> = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(cases.len(), 60);
    for case in cases {
        // Restricted keys hash with their name algorithm, others with that of their OAEP scheme.
        let parts: Vec<&str> = case.name.split('_').collect();
        let hash = if parts[1] == "R" { parts[3] } else { parts[4] };
        let bits: usize = parts[2].parse().unwrap();
        let modulus = &case.public_key[case.public_key.len() - bits / 8..];
        let label = case.label.as_bytes();
        let (seed, salt) = (&case.secret, &case.oaep_salt);
        let encrypted = match hash {
            "SHA1" => rsa_oaep::<sha1::Sha1>(modulus, label, seed, salt),
            "SHA256" => rsa_oaep::<sha2::Sha256>(modulus, label, seed, salt),
            "SHA384" => rsa_oaep::<sha2::Sha384>(modulus, label, seed, salt),
            "SHA512" => rsa_oaep::<sha2::Sha512>(modulus, label, seed, salt),
            other => panic!("{other}"),
        };
        assert_eq!(encrypted.unwrap(), case.ciphertext, "{}", case.name);
        let relabelled = rsa_oaep::<sha2::Sha256>(modulus, b"STORAGE", seed, salt);
        assert_ne!(
            relabelled.unwrap_or_default(),
            case.ciphertext,
            "{}",
            case.name
        );
    }
}

#[test]
fn ecc_encapsulation_equals_the_vectors() {
    let Some(bytes) = vectors::read("tpm-kdf/ecc_labeled_encaps.json") else {
        return;
    };
    let cases: Vec<EccCase> = serde_json::from_slice(&bytes).unwrap();
    let mut compared = 0;
    for case in cases {
        let parts: Vec<&str> = case.name.split('_').collect();
        let curve = match parts[2] {
            "P256" => Curve::P256,
            "P384" => Curve::P384,
            // No EK that is accepted is on P-521.
            "P521" => {
                assert!(Public::parse(&case.public_key).is_err());
                continue;
            }
            other => panic!("{other}"),
        };
        let hash =
            HashAlg::from_id(u16::from_be_bytes([case.public_key[2], case.public_key[3]])).unwrap();
        let length = curve.coordinate_len();
        let key = &case.public_key[case.public_key.len() - 2 * (length + 2)..];
        let point = [&[4], &key[2..length + 2], &key[length + 4..]].concat();
        let random = FixedRandom {
            bytes: &case.ephemeral_private,
        };
        let (seed, encrypted) =
            encapsulate_ecc(hash, curve, &point, case.label.as_bytes(), &random).unwrap();
        assert_eq!(seed.as_slice(), case.secret, "{}", case.name);
        assert_eq!(encrypted, case.ciphertext, "{}", case.name);
        let (other, _) = encapsulate_ecc(hash, curve, &point, b"STORAGE", &random).unwrap();
        assert_ne!(other.as_slice(), case.secret, "{}", case.name);
        compared += 1;
    }
    assert_eq!(compared, 37);
}

#[test]
fn a_credential_for_an_rsa_ek_opens_with_its_private_key() {
    let Some(bytes) = vectors::read("tpm-kdf/rsa_labeled_encaps.json") else {
        return;
    };
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
    let case = cases
        .iter()
        .find(|case| {
            case["Name"]
                .as_str()
                .unwrap()
                .ends_with("R_2048_SHA256_128")
        })
        .unwrap();
    let bytes = |field: &str| hex::decode(case[field].as_str().unwrap()).unwrap();
    let ek = Public::parse(&bytes("PublicKey")).unwrap();
    let Key::Rsa { modulus, .. } = &ek.key else {
        panic!("not rsa");
    };
    // TPMT_SENSITIVE: type, auth value, seed value, then one prime.
    let sensitive = bytes("PrivateKey");
    let prime = BigUint::from_bytes_be(&sensitive[sensitive.len() - 128..]);
    let other = BigUint::from_bytes_be(modulus) / &prime;
    let private = RsaPrivateKey::from_p_q(prime, other, BigUint::from(RSA_EXPONENT)).unwrap();
    let name = SoftwareTpm::new().ak_public().name();
    let secret = secret();
    let credential = make_credential(&ek, &name, &secret, &SystemRandom::new()).unwrap();
    let padding = Oaep::new_with_label::<sha2::Sha256, _>("IDENTITY\0");
    let seed = private
        .decrypt(padding, &credential.encrypted_secret)
        .unwrap();
    let opened = open(&ek, &name, &seed, &credential.id_object).unwrap();
    assert!(secret.matches(&opened));
}

#[test]
fn a_credential_has_the_layout_of_another_implementation() {
    let (Some(ek), Some(name), Some(made)) = (
        vectors::read("tpm-quotes/keylime/ek.pub"),
        vectors::read("tpm-quotes/keylime/ak.name"),
        vectors::read("tpm-quotes/keylime/mkcred.out"),
    ) else {
        return;
    };
    // A TPM2B_PUBLIC; magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let ek = Public::parse(&ek[2..]).unwrap();
    assert_eq!(template::check(&ek), Ok(()));
    let name = Name::parse(&name).unwrap();
    let credential = make_credential(&ek, &name, &secret(), &SystemRandom::new()).unwrap();
    let id_object_len = usize::from(u16::from_be_bytes([made[8], made[9]]));
    // Its secret has 9 bytes, ours 32.
    assert_eq!(credential.id_object.len(), id_object_len - 9 + SECRET_BYTES);
    assert_eq!(credential.id_object[..2], made[10..12]);
    let encrypted = &made[10 + id_object_len..];
    assert_eq!(credential.encrypted_secret.len(), encrypted.len() - 2);
}
