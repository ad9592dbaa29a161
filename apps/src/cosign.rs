//! cosign's signatures of OCI images, under keys that the policy names, with no network: sigstore bundles (0.1 to 0.3),
//! and the older pair of a payload and its signature.
//!
//! A transparency log is not asked for: the key is the policy's, and its word is enough. What a bundle carries of a log
//! must fit it all the same.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::Deserialize;
use sigstore_types::{Bundle, DerPublicKey};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::{PublicKeyVerificationPolicy, verify};

use crate::digest::Digest;
use crate::image::{KeyText, PublisherKeys};
use crate::provider::{self, ForeignProvider};
use crate::strict::{self, Ambiguous};

/// Longest bundle, and longest payload, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 256 * 1024;
/// Most signatures of one image that are looked at.
pub const MAX_SIGNATURES: usize = 64;

/// Trusts no log, no authority and no clock: nothing but the key.
const NOBODY: &str = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[],"certificateAuthorities":[],"ctlogs":[],"timestampAuthorities":[]}"#;
const SIMPLE: &str = "cosign container image signature";

/// One signature, as it lies beside the image.
#[derive(Clone, Copy, Debug)]
pub enum Signature<'b> {
    /// A sigstore bundle in JSON.
    Bundle(&'b [u8]),
    /// What was signed, and the signature over it: ASN.1 DER, or Ed25519's 64 bytes.
    Simple {
        payload: &'b [u8],
        signature: &'b [u8],
    },
}

/// Why an image counts as unsigned.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    #[error(transparent)]
    Provider(#[from] ForeignProvider),
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("more signatures than the limit: {MAX_SIGNATURES}")]
    TooMany,
    #[error("a threshold of zero, or above the number of keys, checks nothing")]
    Threshold,
    #[error("image {image} has {found} of {threshold} signatures of keys that the policy names")]
    TooFew {
        image: Digest,
        found: usize,
        threshold: usize,
    },
    #[error("the root of nobody does not read: {0}")]
    Root(String),
}

/// Whether as many of the keys as are needed signed the image, whose manifest is given whole.
pub fn check(
    manifest: &[u8],
    signatures: &[Signature<'_>],
    policy: &PublisherKeys,
) -> Result<(), Unsigned> {
    provider::ensure()?;
    let threshold = usize::from(policy.threshold);
    if !(1..=policy.keys.len()).contains(&threshold) {
        return Err(Unsigned::Threshold);
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(Unsigned::TooMany);
    }
    let nobody =
        TrustedRoot::from_json(NOBODY).map_err(|error| Unsigned::Root(error.to_string()))?;
    let image = Digest::of(manifest);
    let signed = |key: &&KeyText| {
        signatures.iter().any(|signature| match signature {
            Signature::Bundle(bundle) => by_bundle(bundle, manifest, key, &nobody),
            Signature::Simple { payload, signature } => by_payload(payload, signature, image, key),
        })
    };
    let found = policy.keys.iter().filter(signed).count();
    match found >= threshold {
        true => Ok(()),
        false => Err(Unsigned::TooFew {
            image,
            found,
            threshold,
        }),
    }
}

fn by_bundle(bundle: &[u8], manifest: &[u8], key: &KeyText, nobody: &TrustedRoot) -> bool {
    let read = strict::check(bundle, MAX_BUNDLE_BYTES)
        .ok()
        .and_then(|()| std::str::from_utf8(bundle).ok());
    let Some(bundle) = read.and_then(|text| Bundle::from_json(text).ok()) else {
        return false;
    };
    let policy =
        PublicKeyVerificationPolicy::new(DerPublicKey::new(key.spki_der())).skip_tlog_unsafe();
    verify(manifest, &bundle, &policy, nobody).is_ok()
}

fn by_payload(payload: &[u8], signature: &[u8], image: Digest, key: &KeyText) -> bool {
    let (algorithm, bytes): (&dyn ring::signature::VerificationAlgorithm, _) = match key.parts() {
        (true, bytes) => (&ED25519, bytes),
        (false, bytes) => (&ECDSA_P256_SHA256_ASN1, bytes),
    };
    if UnparsedPublicKey::new(algorithm, bytes)
        .verify(payload, signature)
        .is_err()
    {
        return false;
    }
    let Ok(()) = strict::check(payload, MAX_BUNDLE_BYTES) else {
        return false;
    };
    let stated: Option<Simple> = serde_json::from_slice(payload).ok();
    stated.is_some_and(|stated| {
        stated.critical.kind == SIMPLE && stated.critical.image.digest == format!("sha256:{image}")
    })
}

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SimpleImage,
}

#[derive(Deserialize)]
struct SimpleImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[cfg(test)]
mod tests;
