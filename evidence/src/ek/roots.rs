//! The EK trust store: pinned certificates of TPM makers with a tier each, an allow-list and a deny-list of EKs.
//!
//! The files are read by a shell and handed in as bytes; several certificates a file, PEM (text around the blocks is
//! skipped) or one DER. A self-issued certificate becomes a root, and so does one whose [`Terms`] say so; any other one is
//! an intermediate at hand, which must itself lead to a root here.

use std::collections::BTreeSet;

use edgeward_identity::{Tier, Timestamp};

use crate::digest::Digest;
use crate::ek::certificate::EKU_EK_CERTIFICATE;
use crate::ek::der::Strictness;
use crate::ek::issuer::Issuer;
use crate::ek::path::{self, Rules};
use crate::ek::refusal::EkRefused;
use crate::ek::signed::Signed;
use crate::ek::{MAX_CHAIN, der};
use crate::verify::TpmTier;

/// Most certificates in a trust store.
pub const MAX_ROOTS: usize = 1024;
/// Largest file of certificates, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// One file of the trust store.
#[derive(Clone, Copy, Debug)]
pub struct EkFile<'a> {
    pub tier: Tier,
    /// As the operator knows it; appears in errors and in [`crate::ek::EkAnchor`].
    pub name: &'a str,
    pub bytes: &'a [u8],
    pub terms: Terms,
}

/// On which terms a certificate is trusted. By default the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// A path may end here although another authority issued it: this very certificate is pinned.
    pub anchor: bool,
    /// It, and what it issued, may have the members of a set out of order ([`Strictness::SetsInAnyOrder`]).
    pub sets_in_any_order: bool,
    /// What it issued counts after its end and after the end of the EK certificate: its maker is gone.
    pub after_its_end: bool,
}

/// What was said about single EKs, each named by the SHA-256 of its `TPMT_PUBLIC`, and single EK certificates, each named
/// by the SHA-256 of its DER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EkLists {
    /// EKs of TPMs without a certificate: tier `listed`.
    pub listed: BTreeSet<Digest>,
    /// EKs refused whatever their certificate says.
    pub denied: BTreeSet<Digest>,
    /// Certificates that may have the members of a set out of order.
    pub sets_in_any_order: BTreeSet<Digest>,
}

/// Pinned roots, intermediates at hand, allow-list and deny-list.
#[derive(Clone, Debug, Default)]
pub struct EkRoots {
    roots: Vec<Pinned>,
    intermediates: Vec<Pinned>,
    lists: EkLists,
}

/// A file, or a certificate in it, that the trust store did not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ek trust store: {name}: {reason}")]
pub struct RefusedFile {
    pub name: String,
    pub reason: RootRefused,
}

/// Why. The fault is the operator's, or the TPM maker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootRefused {
    #[error("tier software has no tpm and no roots")]
    TierSoftware,
    #[error("no certificate in the file")]
    Empty,
    #[error("file is larger than the limit in bytes: {MAX_FILE_BYTES}")]
    TooLarge,
    #[error("trust store has more certificates than the limit: {MAX_ROOTS}")]
    TooMany,
    #[error("not pem: {0}")]
    Pem(String),
    #[error("{0}")]
    Certificate(#[from] EkRefused),
    #[error("same root as in another tier: {0}")]
    TwoTiers(String),
}

/// A path to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootedPath {
    pub(crate) tier: TpmTier,
    pub(crate) root: String,
    /// Whether the end of the leaf's validity does not matter under this root.
    pub(crate) after_its_end: bool,
}

#[derive(Clone, Debug)]
struct Pinned {
    name: String,
    tier: TpmTier,
    certificate: Issuer,
    terms: Terms,
}

impl EkRoots {
    /// Takes what can be taken and names what cannot. An EK is never better off for a refused file.
    pub fn load(files: &[EkFile<'_>], lists: EkLists) -> (Self, Vec<RefusedFile>) {
        let mut store = Self {
            lists,
            ..Self::default()
        };
        let mut refused = Vec::new();
        for file in files {
            let results = match certificates_of(file.bytes) {
                Ok(certificates) => certificates
                    .iter()
                    .map(|der| store.pin(file, der))
                    .collect(),
                Err(reason) => vec![Err(reason)],
            };
            refused.extend(
                results
                    .into_iter()
                    .filter_map(Result::err)
                    .map(|reason| RefusedFile {
                        name: file.name.to_owned(),
                        reason,
                    }),
            );
        }
        (store, refused)
    }

    /// Pinned roots: name and tier.
    pub fn roots(&self) -> impl Iterator<Item = (&str, Tier)> {
        self.roots
            .iter()
            .map(|root| (root.name.as_str(), root.tier.get()))
    }

    /// Number of intermediates at hand.
    pub fn intermediate_count(&self) -> usize {
        self.intermediates.len()
    }

    pub fn is_listed(&self, ek: &Digest) -> bool {
        self.lists.listed.contains(ek)
    }

    pub(crate) fn refuse_denied(&self, ek: &Digest) -> Result<(), EkRefused> {
        if self.lists.denied.contains(ek) {
            return Err(EkRefused::Denied(*ek));
        }
        Ok(())
    }

    /// How strictly a certificate that a node sent is read: forgiven is only what was listed, or claims an issuer that
    /// was. Whether that issuer made it, the path tells.
    pub(crate) fn strictness_of(&self, certificate: &[u8]) -> Strictness {
        let of_such = || {
            Signed::parse(certificate).is_ok_and(|signed| {
                self.roots
                    .iter()
                    .chain(&self.intermediates)
                    .filter(|pinned| pinned.terms.sets_in_any_order)
                    .any(|pinned| pinned.certificate.subject() == signed.issuer)
            })
        };
        match self
            .lists
            .sets_in_any_order
            .contains(&Digest::of(certificate))
            || of_such()
        {
            true => Strictness::SetsInAnyOrder,
            false => Strictness::Strict,
        }
    }

    /// Verifies a path; its tier is the worst of all pinned certificates on it.
    pub(crate) fn verify_path(
        &self,
        leaf: &[u8],
        sent: &[&[u8]],
        now: Timestamp,
    ) -> Result<RootedPath, EkRefused> {
        let sent: Vec<Issuer> = sent
            .iter()
            .map(|bytes| Issuer::parse(bytes, self.strictness_of(bytes)))
            .collect::<Result<_, _>>()?;
        let at_hand = self.intermediates.iter().map(|pinned| &pinned.certificate);
        let candidates: Vec<&Issuer> = sent.iter().chain(at_hand).collect();
        let anchors: Vec<&Issuer> = self.roots.iter().map(|root| &root.certificate).collect();
        let rules = Rules {
            candidates: &candidates,
            anchors: &anchors,
            usage: EKU_EK_CERTIFICATE,
            now,
            max_chain: MAX_CHAIN,
        };
        let path = path::verify(&Signed::parse(leaf)?, rules)?;
        let root = self
            .roots
            .get(path.anchor)
            .ok_or(EkRefused::ChainUntrusted)?;
        let used = || {
            path.intermediates
                .iter()
                .filter_map(|index| candidates.get(*index))
        };
        let tier = self
            .intermediates
            .iter()
            .filter(|pinned| used().any(|used| used.is_same_authority(&pinned.certificate)))
            .map(|pinned| pinned.tier)
            .fold(root.tier, |worst, tier| {
                if tier.get() > worst.get() {
                    tier
                } else {
                    worst
                }
            });
        Ok(RootedPath {
            tier,
            root: root.name.clone(),
            after_its_end: root.certificate.counts_after_its_end(),
        })
    }

    fn pin(&mut self, file: &EkFile<'_>, bytes: &[u8]) -> Result<(), RootRefused> {
        let tier = TpmTier::new(file.tier).ok_or(RootRefused::TierSoftware)?;
        if self.roots.len() + self.intermediates.len() >= MAX_ROOTS {
            return Err(RootRefused::TooMany);
        }
        let strictness = match file.terms.sets_in_any_order {
            true => Strictness::SetsInAnyOrder,
            false => Strictness::Strict,
        };
        let certificate = match file.terms.after_its_end {
            true => Issuer::parse(bytes, strictness)?.counting_after_its_end(),
            false => Issuer::parse(bytes, strictness)?,
        };
        certificate.check_may_sign()?;
        let is_root = certificate.is_self_issued() || file.terms.anchor;
        let pinned = if is_root {
            &mut self.roots
        } else {
            &mut self.intermediates
        };
        let known = pinned.iter().find(|other| match is_root {
            true => other.certificate.is_same_authority(&certificate),
            false => other.certificate.der() == certificate.der(),
        });
        match known {
            Some(other) if other.tier != tier => Err(RootRefused::TwoTiers(other.name.clone())),
            Some(_) => Ok(()),
            None => {
                pinned.push(Pinned {
                    name: file.name.to_owned(),
                    tier,
                    certificate,
                    terms: file.terms,
                });
                Ok(())
            }
        }
    }
}

impl RefusedFile {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match &self.reason {
            RootRefused::TierSoftware => "ek_roots_tier_software",
            RootRefused::Empty => "ek_roots_empty",
            RootRefused::TooLarge => "ek_roots_too_large",
            RootRefused::TooMany => "ek_roots_too_many",
            RootRefused::Pem(_) => "ek_roots_pem",
            RootRefused::Certificate(refused) => refused.code(),
            RootRefused::TwoTiers(_) => "ek_roots_two_tiers",
        }
    }
}

/// The certificates (DER) in a file: PEM blocks with any text around them, or one DER that may be padded.
pub fn certificates_of(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RootRefused> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(RootRefused::TooLarge);
    }
    // A DER certificate is a sequence of more than 127 bytes.
    if matches!(bytes, [0x30, 0x81..=0x83, ..]) {
        let certificate = der::trim(bytes).map_err(EkRefused::BadDer)?;
        return Ok(vec![certificate.to_vec()]);
    }
    let blocks = pem::parse_many(bytes).map_err(|error| RootRefused::Pem(error.to_string()))?;
    let certificates: Vec<Vec<u8>> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents)
        .collect();
    if certificates.is_empty() {
        return Err(RootRefused::Empty);
    }
    Ok(certificates)
}
