//! What a machine claims at first, parsed and rooted. Nothing of it is proven yet.

use edgeward_evidence::ek::{
    EkAnchor, EkRoots, VerifiedEk, verify_ek_certificate, verify_listed_ek,
};
use edgeward_evidence::verify::{AttestationKey, SvidKey};
use edgeward_identity::{PublicKey, Timestamp};
use edgeward_wire::v1::{self, enrol_begin::Root};

use super::refusal::EnrolRefused;
use crate::store::nodes::RootId;

/// A machine that wants to enrol.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) rooted: Rooted,
    pub(super) boot_key: PublicKey,
    pub(super) wanted_name: String,
}

/// What it would stand on.
#[derive(Debug)]
pub(super) enum Rooted {
    Tpm(Box<TpmClaims>),
    Software { svid_key: PublicKey },
}

#[derive(Debug)]
pub(super) struct TpmClaims {
    pub(super) ek: VerifiedEk,
    pub(super) ak: AttestationKey,
    pub(super) svid: SvidKey,
}

impl Candidate {
    pub(super) fn parse(
        begin: v1::EnrolBegin,
        roots: &EkRoots,
        now: Timestamp,
    ) -> Result<Self, EnrolRefused> {
        let boot_key = PublicKey::from_point(&begin.boot_key)
            .map_err(|_| EnrolRefused::Incomplete("boot key"))?;
        let rooted = match begin.root.ok_or(EnrolRefused::Incomplete("root"))? {
            Root::Software(claims) => Rooted::Software {
                svid_key: PublicKey::from_point(&claims.svid_key)
                    .map_err(|_| EnrolRefused::Incomplete("svid key"))?,
            },
            Root::Tpm(claims) => {
                let ek = verify_ek(&claims, roots, now)?;
                Rooted::Tpm(Box::new(TpmClaims {
                    ek,
                    ak: AttestationKey::from_public(&claims.ak_public)?,
                    svid: SvidKey::from_public(&claims.svid_public)?,
                }))
            }
        };
        Ok(Self {
            rooted,
            boot_key,
            wanted_name: begin.wanted_name,
        })
    }

    /// Whether the EK certificate has ended and counts on by an operator's word.
    pub(super) fn ek_ended(&self) -> bool {
        match &self.rooted {
            Rooted::Tpm(claims) => {
                matches!(
                    claims.ek.anchor(),
                    EkAnchor::Certificate { ended: true, .. }
                )
            }
            Rooted::Software { .. } => false,
        }
    }

    pub(super) fn root_id(&self) -> RootId {
        match &self.rooted {
            Rooted::Tpm(claims) => RootId::of_ek(&claims.ek.digest().to_string()),
            Rooted::Software { svid_key } => RootId::of_key(&svid_key.spki_hash()),
        }
    }
}

/// A certificate first; without one that leads to a root, the allow-list.
fn verify_ek(
    claims: &v1::TpmClaims,
    roots: &EkRoots,
    now: Timestamp,
) -> Result<VerifiedEk, EnrolRefused> {
    if claims.ek_certificates.is_empty() {
        return Ok(verify_listed_ek(&claims.ek_public, roots)?);
    }
    let chain: Vec<&[u8]> = claims.ek_certificates.iter().map(Vec::as_slice).collect();
    match verify_ek_certificate(&chain, &claims.ek_public, roots, now) {
        Ok(ek) => Ok(ek),
        Err(refused) => verify_listed_ek(&claims.ek_public, roots).map_err(|_| refused.into()),
    }
}
