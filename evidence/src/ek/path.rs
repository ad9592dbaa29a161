//! Certificate paths (RFC 5280, section 6) from an EK certificate to a pinned root.
//!
//! Written out here because webpki refuses critical certificate policies, which the issuing certificates of Infineon,
//! STMicroelectronics and Intel all have. Signatures are webpki's. Policies are not constrained (any policy will do);
//! what would have to be processed and is not (name constraints, policy constraints) is refused.

use edgeward_identity::Timestamp;
use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::ring;

use crate::ek::issuer::Issuer;
use crate::ek::refusal::EkRefused;
use crate::ek::signed::Signed;

/// Most signatures verified for one path, whatever certificates are sent: each costs some 0.1 ms.
pub(crate) const MAX_SIGNATURES: usize = 32;

/// SHA-1 is not among them.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P256_SHA384,
    ring::ECDSA_P384_SHA256,
    ring::ECDSA_P384_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA256,
    ring::RSA_PKCS1_2048_8192_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA512,
    ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A verified path: where it ends, and over which of the candidates it goes, leaf's issuer first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Index of the anchor.
    pub(crate) anchor: usize,
    /// Indexes of candidates.
    pub(crate) intermediates: Vec<usize>,
}

/// What a path may use and must satisfy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) candidates: &'a [&'a Issuer],
    pub(crate) anchors: &'a [&'a Issuer],
    /// A purpose that every issuer which states purposes must state (dotted OID).
    pub(crate) usage: &'a str,
    pub(crate) now: Timestamp,
    /// Most certificates, leaf and anchor included.
    pub(crate) max_chain: usize,
}

struct Search<'a> {
    rules: Rules<'a>,
    signatures_left: usize,
    /// The failure that got nearest to a root, for the report.
    nearest: Option<(usize, EkRefused)>,
    intermediates: Vec<usize>,
}

/// Finds a path for `leaf`, or says why the most promising one fails.
pub(crate) fn verify(leaf: &Signed<'_>, rules: Rules<'_>) -> Result<Path, EkRefused> {
    let mut search = Search {
        rules,
        signatures_left: MAX_SIGNATURES,
        nearest: None,
        intermediates: Vec::new(),
    };
    match search.climb(leaf) {
        Some(anchor) => Ok(Path {
            anchor,
            intermediates: search.intermediates,
        }),
        None => Err(search
            .nearest
            .map_or(EkRefused::ChainUntrusted, |(_, refused)| refused)),
    }
}

impl Search<'_> {
    /// Depth first: anchors before intermediates. Leaves the intermediates of the path found in place.
    fn climb(&mut self, subject: &Signed<'_>) -> Option<usize> {
        for (index, anchor) in self.rules.anchors.iter().enumerate() {
            if anchor.subject() != subject.issuer {
                continue;
            }
            match self.step(subject, anchor) {
                Ok(()) => return Some(index),
                Err(refused) => self.note(refused),
            }
        }
        for (index, candidate) in self.rules.candidates.iter().enumerate() {
            if candidate.subject() != subject.issuer || self.intermediates.contains(&index) {
                continue;
            }
            // Leaf, those so far, this one, and an anchor.
            if self.intermediates.len() + 3 > self.rules.max_chain {
                self.note(EkRefused::ChainTooLong);
                continue;
            }
            if let Err(refused) = self.step(subject, candidate) {
                self.note(refused);
                continue;
            }
            self.intermediates.push(index);
            if let Some(anchor) = self.climb(&candidate.signed()) {
                return Some(anchor);
            }
            self.intermediates.pop();
        }
        None
    }

    /// Whether `issuer` may have issued `subject`, and did.
    fn step(&mut self, subject: &Signed<'_>, issuer: &Issuer) -> Result<(), EkRefused> {
        issuer.check_may_sign()?;
        issuer.check_validity(self.rules.now)?;
        issuer.check_usage(self.rules.usage)?;
        let below = self
            .intermediates
            .iter()
            .filter_map(|index| self.rules.candidates.get(*index));
        issuer.check_path_length(below.filter(|issuer| !issuer.is_self_issued()).count())?;
        self.signatures_left = self
            .signatures_left
            .checked_sub(1)
            .ok_or_else(|| EkRefused::ChainConstraint("too many signatures to check".into()))?;
        verify_signature(subject, issuer)
    }

    fn note(&mut self, refused: EkRefused) {
        let depth = self.intermediates.len();
        if self
            .nearest
            .as_ref()
            .is_none_or(|(nearest, _)| *nearest < depth)
        {
            self.nearest = Some((depth, refused));
        }
    }
}

fn verify_signature(subject: &Signed<'_>, issuer: &Issuer) -> Result<(), EkRefused> {
    let (key_algorithm, key) = issuer.key().ok_or(EkRefused::ChainSignature)?;
    let verified = ALGORITHMS
        .iter()
        .filter(|algorithm| {
            algorithm.signature_alg_id().as_ref() == subject.algorithm
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
        })
        .any(|algorithm| {
            algorithm
                .verify_signature(key, subject.tbs, subject.signature)
                .is_ok()
        });
    verified.then_some(()).ok_or(EkRefused::ChainSignature)
}

#[cfg(test)]
mod tests;
