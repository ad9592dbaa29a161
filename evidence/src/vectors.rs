//! Published test vectors, read in place where they are present.

use std::path::PathBuf;

use serde::Deserialize;

use crate::kdf::{kdfa, kdfe};
use crate::tpm::{Attest, AttestBody, HashAlg, Name, PcrValue, Public, Signature};

/// A file of the vectors, or a note that they are not here.
pub(crate) fn read(path: &str) -> Option<Vec<u8>> {
    let Some(folder) = folder() else {
        println!("vectors not found: skipped");
        return None;
    };
    Some(std::fs::read(folder.join(path)).expect("the vectors hold this file"))
}

pub(crate) fn folder() -> Option<PathBuf> {
    let folder = match std::env::var_os("EDGEWARD_VECTORS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    folder.is_dir().then_some(folder)
}

pub(crate) fn hex_bytes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(text).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KdfCase {
    name: String,
    hash_alg: u16,
    #[serde(
        alias = "Key",
        alias = "Z",
        deserialize_with = "crate::vectors::hex_bytes"
    )]
    secret: Vec<u8>,
    label: String,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    context_u: Vec<u8>,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    context_v: Vec<u8>,
    bits: u32,
    #[serde(deserialize_with = "crate::vectors::hex_bytes")]
    result: Vec<u8>,
}

type Kdf = fn(HashAlg, &[u8], &[u8], &[u8], &[u8], u32) -> zeroize::Zeroizing<Vec<u8>>;

fn check_kdf(file: &str, kdf: Kdf) {
    let Some(bytes) = read(file) else {
        return;
    };
    let cases: Vec<KdfCase> = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(cases.len(), 60);
    for case in cases {
        let hash = HashAlg::from_id(case.hash_alg).unwrap();
        let run = |label: &str, u: &[u8]| {
            kdf(
                hash,
                &case.secret,
                label.as_bytes(),
                u,
                &case.context_v,
                case.bits,
            )
        };
        let result = run(&case.label, &case.context_u);
        assert_eq!(result.as_slice(), case.result, "{}", case.name);
        if case.bits >= 64 {
            assert_ne!(
                run("OTHER", &case.context_u).as_slice(),
                case.result,
                "{}",
                case.name
            );
            let other = [case.context_u.as_slice(), &[1]].concat();
            assert_ne!(
                run(&case.label, &other).as_slice(),
                case.result,
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn kdfa_equals_the_vectors() {
    check_kdf("tpm-kdf/kdfa.json", kdfa);
}

#[test]
fn kdfe_equals_the_vectors() {
    check_kdf("tpm-kdf/kdfe.json", kdfe);
}

struct Keylime {
    ak: Public,
    quote: Vec<u8>,
    signature: Vec<u8>,
}

fn keylime() -> Option<Keylime> {
    Some(Keylime {
        // A TPM2B_PUBLIC.
        ak: Public::parse(&read("tpm-quotes/keylime/ak.pub")?[2..]).unwrap(),
        quote: read("tpm-quotes/keylime/quote.out")?,
        signature: read("tpm-quotes/keylime/quotesig.out")?,
    })
}

#[test]
fn a_real_quote_with_any_bit_altered_is_refused() {
    let Some(real) = keylime() else {
        return;
    };
    let verify = |quote: &[u8], signature: &[u8]| {
        Attest::parse(quote).is_ok()
            && Signature::parse(signature)
                .is_ok_and(|parsed| parsed.verify(&real.ak, quote).is_ok())
    };
    assert!(verify(&real.quote, &real.signature));
    for bit in 0..real.quote.len() * 8 {
        let mut quote = real.quote.clone();
        quote[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(&quote, &real.signature), "quote bit {bit}");
    }
    for byte in 0..real.signature.len() {
        let mut signature = real.signature.clone();
        signature[byte] ^= 0x10;
        assert!(!verify(&real.quote, &signature), "signature byte {byte}");
    }
}

#[test]
fn a_real_ak_has_the_name_that_its_tpm_gave_it() {
    let (Some(real), Some(name)) = (keylime(), read("tpm-quotes/keylime/ak.name")) else {
        return;
    };
    assert_eq!(real.ak.name(), Name::parse(&name).unwrap());
}

#[test]
fn a_real_quote_says_what_is_known_of_it() {
    let (Some(real), Some(nonce), Some(pcrs)) = (
        keylime(),
        read("tpm-quotes/keylime/rand.out"),
        read("tpm-quotes/keylime/quotepcr.out"),
    ) else {
        return;
    };
    let attest = Attest::parse(&real.quote).unwrap();
    assert_eq!(attest.to_bytes(), real.quote);
    assert_eq!(attest.extra_data, nonce);
    let AttestBody::Quote {
        selections,
        pcr_digest,
    } = &attest.body
    else {
        panic!("not a quote");
    };
    let asked = crate::testing::sha256_selection(&[15, 16, 22]);
    assert_eq!(asked.check(selections), Ok(()));
    let fewer = crate::testing::sha256_selection(&[15, 16]);
    assert!(fewer.check(selections).is_err());
    // tpm2-tools' layout: a selection list of 132 bytes, a count of digest lists, then a count and the digests,
    // each with a size in two bytes and room for 64; all little-endian.
    let values: Vec<PcrValue> = [15, 16, 22]
        .into_iter()
        .zip(pcrs[132 + 4 + 4..].chunks_exact(66))
        .map(|(index, digest)| PcrValue {
            index,
            value: digest[2..34].to_vec(),
        })
        .collect();
    let (computed, _) = asked.digest_of(&values).unwrap();
    assert!(computed.matches(pcr_digest));
}

#[test]
fn a_quote_over_sha1_banks_is_refused_even_though_it_verifies() {
    let Some(file) = read("tpm-quotes/go-eventlog/windows_gcp_shielded_vm.json") else {
        return;
    };
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let attest = Attest::parse(&base64(&file["Quote"]["Quote"])).unwrap();
    let AttestBody::Quote { selections, .. } = &attest.body else {
        panic!("not a quote");
    };
    let asked = crate::testing::sha256_selection(&[0]);
    assert_eq!(asked.check(selections).unwrap_err().code(), "pcr_bank_sha1");
    // Its AK signs with SHA-1, too.
    let ak = base64(&file["AK"]["Public"]);
    let refused = crate::verify::AttestationKey::from_public(&ak).unwrap_err();
    assert_eq!(refused.code(), "ak_scheme");
}

#[test]
fn a_quote_of_tpm_1_2_is_refused() {
    let Some(file) = read("tpm-quotes/go-eventlog/linux_tpm12.json") else {
        return;
    };
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let refused = Attest::parse(&base64(&file["Quote"]["Quote"])).unwrap_err();
    assert_eq!(refused.code(), "attest_magic");
}

#[test]
fn quotes_of_a_cloud_machine_verify_in_every_bank() {
    let Some(file) = read("tpm-quotes/go-tpm-tools/gce-cos-85-no-nonce.pb") else {
        return;
    };
    let fields = protobuf(&file);
    let ak = Public::parse(field(&fields, 1)).unwrap();
    let quotes: Vec<_> = fields.iter().filter(|(number, _)| *number == 2).collect();
    assert_eq!(quotes.len(), 3);
    for (_, quote) in quotes {
        let parts = protobuf(quote);
        let attest = field(&parts, 1);
        let parsed = Attest::parse(attest).unwrap();
        assert_eq!(parsed.to_bytes(), attest);
        let signature = Signature::parse(field(&parts, 2)).unwrap();
        assert_eq!(signature.to_bytes(), field(&parts, 2));
        assert_eq!(signature.verify(&ak, attest), Ok(()));
    }
}

/// Every parser on every file of these families, cut and altered at every byte (large files at a stride).
#[test]
fn no_parser_panics_on_a_vector_cut_or_altered_anywhere() {
    let Some(folder) = folder() else {
        println!("vectors not found: skipped");
        return;
    };
    let mut files = Vec::new();
    for family in ["tpm-quotes", "ek-ca-certificates", "ek-certificates"] {
        collect(&folder.join(family), &mut files);
    }
    assert!(files.len() > 40);
    for bytes in files {
        let stride = (bytes.len() / 400).max(1);
        for index in (0..bytes.len()).step_by(stride) {
            parse_all(&bytes[..index]);
            parse_all(&bytes[index..]);
            let mut altered = bytes.clone();
            altered[index] ^= 0xff;
            parse_all(&altered);
        }
    }
}

/// All parsers of outside bytes, on one input.
fn parse_all(bytes: &[u8]) {
    let _ = Public::parse(bytes);
    let _ = Name::parse(bytes);
    let _ = Attest::parse(bytes);
    let _ = Signature::parse(bytes);
    let _ = crate::ek::der::check_strict(bytes);
    let _ = crate::ek::certificate::check_leaf(bytes, crate::ek::der::Strictness::SetsInAnyOrder);
    let _ = crate::ek::certificate::check_issuer(bytes, crate::ek::der::Strictness::SetsInAnyOrder);
    let _ = crate::BootStatement::parse(bytes);
    let _ = crate::verify::SvidKey::from_public(bytes);
    let _ = crate::verify::AttestationKey::from_public(bytes);
    if let Some(inner) = bytes.get(2..) {
        let _ = Public::parse(inner);
    }
}

fn collect(folder: &std::path::Path, files: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if let Ok(blocks) = pem::parse_many(&bytes) {
            files.extend(blocks.into_iter().map(pem::Pem::into_contents));
        }
        if path
            .extension()
            .is_none_or(|ext| ext != "txt" && ext != "tsv")
        {
            files.push(bytes);
        }
    }
}

pub(crate) fn base64(value: &serde_json::Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(value.as_str().unwrap())
        .unwrap()
}

pub(crate) fn field<'a>(fields: &[(u64, &'a [u8])], number: u64) -> &'a [u8] {
    fields.iter().find(|(found, _)| *found == number).unwrap().1
}

/// Length-delimited fields of a protobuf message; integers are skipped.
pub(crate) fn protobuf(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        if key & 7 == 2 {
            let (field, rest) = bytes.split_at(usize::try_from(value).unwrap());
            fields.push((key >> 3, field));
            bytes = rest;
        }
    }
    fields
}
