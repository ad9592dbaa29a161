//! Endorsement keys (EK): how a TPM is rooted.
//!
//! Three steps, each of which refuses with its own reason: the certificate's shape ([`certificate`], TCG EK
//! Credential Profile for TPM 2.0), its path to a pinned root ([`roots`]), and the public area, which is rebuilt from the
//! certified key and the standard [`template`], so that nothing of the node's own copy is believed.

pub mod certificate;
pub mod der;
mod issuer;
mod path;
pub mod refusal;
pub mod roots;
mod signed;
pub mod template;
pub mod weak;

use edgeward_identity::{Tier, Timestamp};

use crate::digest::Digest;
use crate::tpm::Public;
use crate::verify::TpmTier;

pub use certificate::TpmIdentity;
pub use refusal::EkRefused;
pub use roots::{EkFile, EkLists, EkRoots, Terms};

/// Most certificates in a path: leaf, intermediates and root.
pub const MAX_CHAIN: usize = 5;
/// Largest certificate accepted, in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// An endorsement key that leads to a pinned root, or that is listed.
#[derive(Clone, Debug)]
pub struct VerifiedEk {
    public: Public,
    digest: Digest,
    tier: TpmTier,
    anchor: EkAnchor,
}

/// Where the trust in an EK comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EkAnchor {
    /// A certificate path to the root in the file of this name.
    Certificate {
        root: String,
        tpm: TpmIdentity,
        /// Of the EK certificate, lower-case hex.
        serial: String,
        /// Whether the certificate had ended and counts on by an operator's word.
        ended: bool,
    },
    /// The allow-list.
    Listed,
}

/// Verifies an EK certificate (DER, leaf first, then what the TPM holds of its chain) against the pinned roots,
/// and the node's `TPMT_PUBLIC` of the EK against the certified key.
pub fn verify_ek_certificate(
    chain: &[&[u8]],
    ek_public: &[u8],
    roots: &EkRoots,
    now: Timestamp,
) -> Result<VerifiedEk, EkRefused> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(EkRefused::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(EkRefused::ChainTooLong);
    }
    let leaf = certificate::check_leaf(leaf_der, roots.strictness_of(leaf_der))?;
    let public = template::rebuild(&leaf.key)?;
    if public.to_bytes() != ek_public {
        return Err(EkRefused::PublicMismatch);
    }
    let digest = public.digest();
    roots.refuse_denied(&digest)?;
    let validity = certificate::check_validity(&leaf, now);
    if validity
        .as_ref()
        .is_err_and(|refused| *refused != EkRefused::Expired)
    {
        validity.clone()?;
    }
    let path = match (roots.verify_path(leaf_der, intermediates, now), &validity) {
        (Ok(path), Err(refused)) if !path.after_its_end => return Err(refused.clone()),
        (Err(_), Err(refused)) => return Err(refused.clone()),
        (path, _) => path?,
    };
    Ok(VerifiedEk {
        public,
        digest,
        tier: path.tier,
        anchor: EkAnchor::Certificate {
            root: path.root,
            tpm: leaf.tpm,
            serial: leaf.serial,
            ended: validity.is_err(),
        },
    })
}

/// Verifies the EK of a TPM without certificate: a standard template, and its digest on the allow-list.
pub fn verify_listed_ek(ek_public: &[u8], roots: &EkRoots) -> Result<VerifiedEk, EkRefused> {
    let public = Public::parse(ek_public).map_err(EkRefused::PublicMalformed)?;
    template::check(&public)?;
    let digest = public.digest();
    roots.refuse_denied(&digest)?;
    if !roots.is_listed(&digest) {
        return Err(EkRefused::NotListed(digest));
    }
    let tier = TpmTier::new(Tier::Listed).ok_or(EkRefused::NotListed(digest))?;
    Ok(VerifiedEk {
        public,
        digest,
        tier,
        anchor: EkAnchor::Listed,
    })
}

impl VerifiedEk {
    /// The public area to make challenges for.
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// SHA-256 of the `TPMT_PUBLIC`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn tier(&self) -> TpmTier {
        self.tier
    }

    pub fn anchor(&self) -> &EkAnchor {
        &self.anchor
    }
}

#[cfg(test)]
mod tests;
