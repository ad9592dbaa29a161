//! A certificate that issues others: parsed once, asked many times.

use edgeward_identity::Timestamp;

use crate::ek::certificate::{check_issuer, validity};
use crate::ek::der::Strictness;
use crate::ek::refusal::EkRefused;
use crate::ek::signed::{Signed, split_key};

/// `anyExtendedKeyUsage`.
const ANY_USAGE: &str = "2.5.29.37.0";

/// A distinguished name without attributes.
const EMPTY_NAME: [u8; 2] = [0x30, 0x00];

/// An issuer's certificate of the right shape; whether it may issue is asked when it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuer {
    der: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: Vec<u8>,
    is_authority: bool,
    may_sign_certificates: bool,
    path_length: Option<u32>,
    /// Dotted OIDs; `None` where the certificate states no purposes.
    usages: Option<Vec<String>>,
    has_name_constraints: bool,
    not_before: Timestamp,
    not_after: Timestamp,
    counts_after_its_end: bool,
}

impl Issuer {
    pub(crate) fn parse(bytes: &[u8], strictness: Strictness) -> Result<Self, EkRefused> {
        let certificate = check_issuer(bytes, strictness)?;
        Signed::parse(bytes)?;
        let constraints = certificate.basic_constraints().ok().flatten();
        let key_usage = certificate.key_usage().ok().flatten();
        let usages = certificate
            .extended_key_usage()
            .ok()
            .flatten()
            .map(|usage| {
                let mut oids: Vec<String> = usage
                    .value
                    .other
                    .iter()
                    .map(|oid| oid.to_id_string())
                    .collect();
                if usage.value.any {
                    oids.push(ANY_USAGE.into());
                }
                oids
            });
        let (not_before, not_after) = validity(&certificate);
        Ok(Self {
            der: bytes.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            spki: certificate.public_key().raw.to_vec(),
            is_authority: constraints.as_ref().is_some_and(|found| found.value.ca),
            may_sign_certificates: key_usage.is_some_and(|usage| usage.value.key_cert_sign()),
            path_length: constraints.and_then(|found| found.value.path_len_constraint),
            usages,
            has_name_constraints: certificate.name_constraints().ok().flatten().is_some(),
            not_before,
            not_after,
            counts_after_its_end: false,
        })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's name, whole.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether both are one authority: same name and key.
    pub(crate) fn is_same_authority(&self, other: &Self) -> bool {
        self.subject == other.subject && self.spki == other.spki
    }

    pub(crate) fn signed(&self) -> Signed<'_> {
        Signed::parse(&self.der).expect("parsed when it was made")
    }

    /// Algorithm and bits of the public key.
    pub(crate) fn key(&self) -> Option<(&[u8], &[u8])> {
        split_key(&self.spki).ok()
    }

    /// Basic constraints and key usage must both be there and say so.
    pub(crate) fn check_may_sign(&self) -> Result<(), EkRefused> {
        if !self.is_authority {
            return Err(EkRefused::IssuerMayNotSign("not a certification authority"));
        }
        if self.subject == EMPTY_NAME {
            return Err(EkRefused::IssuerMayNotSign("no name"));
        }
        if !self.may_sign_certificates {
            return Err(EkRefused::IssuerMayNotSign(
                "no certificate signing in its key usage",
            ));
        }
        if self.has_name_constraints {
            return Err(EkRefused::ChainConstraint(
                "name constraints are not supported".into(),
            ));
        }
        Ok(())
    }

    /// An operator's word: its maker is gone, and what it signed counts on.
    pub(crate) fn counting_after_its_end(self) -> Self {
        Self {
            counts_after_its_end: true,
            ..self
        }
    }

    pub(crate) fn counts_after_its_end(&self) -> bool {
        self.counts_after_its_end
    }

    pub(crate) fn check_validity(&self, now: Timestamp) -> Result<(), EkRefused> {
        let ended = now > self.not_after && !self.counts_after_its_end;
        if now < self.not_before || ended {
            return Err(EkRefused::ChainExpired);
        }
        Ok(())
    }

    pub(crate) fn check_usage(&self, usage: &str) -> Result<(), EkRefused> {
        match &self.usages {
            Some(usages)
                if !usages
                    .iter()
                    .any(|found| found == usage || found == ANY_USAGE) =>
            {
                Err(EkRefused::ChainConstraint(
                    "issuer is for other purposes".into(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// `below` counts the intermediates between this issuer and the leaf that are not self-issued.
    pub(crate) fn check_path_length(&self, below: usize) -> Result<(), EkRefused> {
        let too_long = self
            .path_length
            .is_some_and(|limit| usize::try_from(limit).is_ok_and(|limit| below > limit));
        if too_long {
            return Err(EkRefused::ChainConstraint(
                "longer than an issuer allows".into(),
            ));
        }
        Ok(())
    }
}
