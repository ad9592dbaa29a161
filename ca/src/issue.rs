//! Issuing X.509-SVIDs. The cloud decides the whole content of a certificate; the holder contributes a key and nothing
//! else (SPIFFE X509-SVID standard, sections 2 to 5; RFC 5280).
//!
//! Every leaf has one URI name, a critical key usage of digital signature alone, both TLS key usages, `cA = false`, a
//! random serial of 128 bits, and begins 60 s before it was made.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_identity::svid::SvidError;
use edgeward_identity::{
    Kind, PublicKey, Signer, SpiffeId, SpkiHash, Svid, SvidLeaf, Timestamp, TrustDomain,
};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use crate::keys::certificates::{BACKDATE, CertificateFault, parameters, validity_of};
use crate::keys::rcgen_key::{Holder, Issuing};

mod name;
mod node;
mod workload;

pub use name::{BadPattern, NamePattern};
pub use node::{NodeGrant, NodeIssued, NodeNotIssued, lifetime};

/// Lifetime of the cloud's own SVID; renewed at half.
pub const CLOUD_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longest lifetime of an operator's certificate.
pub const MAX_OPERATOR_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// The issuing authority: signs leaves, nothing else.
#[derive(Debug)]
pub struct Issuer {
    trust_domain: TrustDomain,
    certificate: CertificateDer<'static>,
    above: Above,
    signer: Arc<dyn Signer>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// What stands above an issuing certificate.
#[derive(Clone, Debug)]
pub(crate) struct Above {
    /// The oldest root that leads here; bootstrap tokens may pin its key.
    pub(crate) root: CertificateDer<'static>,
    /// The key of the issuing certificate's own root, certified by `root`, where that is another one.
    pub(crate) cross: Option<CertificateDer<'static>>,
    /// Whether peers may still know only `root`.
    pub(crate) with_leaves: bool,
}

/// A certificate that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Leaf first, then the issuing certificate, and what leads to an older root while one is trusted.
    pub chain: Vec<CertificateDer<'static>>,
    pub leaf: SvidLeaf,
    /// Key of the authority that signed it.
    pub issuer: SpkiHash,
}

impl Issued {
    /// The event of this issue, with enough to find the certificate by its serial years later. Every path that gives a
    /// certificate out records this first.
    #[must_use]
    pub fn recorded_in(&self, event: Event) -> Event {
        event
            .detail("serial", &self.leaf.serial)
            .detail("key", self.leaf.key.spki_hash())
            .detail("issuer", self.issuer)
            .detail("not_after", crate::when::format(self.leaf.not_after))
    }
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueFault {
    /// The caller's.
    #[error("identity is of another trust domain: {0}")]
    TrustDomain(TrustDomain),
    #[error("identity is of another kind: {0}")]
    Kind(Kind),
    /// Ours.
    #[error("issuing certificate has expired")]
    IssuerExpired,
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("what was made is no svid: {0}")]
    Made(#[from] SvidError),
}

impl Issuer {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        certificate: CertificateDer<'static>,
        above: Above,
        signer: Arc<dyn Signer>,
    ) -> Result<Self, CertificateFault> {
        let (not_before, not_after) = validity_of(&certificate)?;
        Ok(Self {
            trust_domain,
            certificate,
            above,
            signer,
            not_before,
            not_after,
        })
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    /// SHA-256 of its SPKI: the authority's name in the ledger, in records and on the deny-list.
    pub fn key_hash(&self) -> SpkiHash {
        self.signer.public_key().spki_hash()
    }

    /// When half of the issuing certificate's life is over.
    pub fn half_life(&self) -> Timestamp {
        self.not_before
            .plus(self.not_after.since(self.not_before) / 2)
    }

    /// An operator's certificate. Whether there is such an operator is the caller's to know.
    pub fn issue_operator(
        &self,
        id: &SpiffeId,
        key: &PublicKey,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueFault> {
        self.issue(
            id,
            Kind::Operator,
            key,
            lifetime.min(MAX_OPERATOR_LIFETIME),
            now,
        )
    }

    /// The cloud's own SVID. Its chain ends with the root, so that a bootstrap token's pin can be met.
    pub fn issue_cloud(
        &self,
        id: &SpiffeId,
        signer: Arc<dyn Signer>,
        now: Timestamp,
    ) -> Result<Svid, IssueFault> {
        let issued = self.issue(id, Kind::Cloud, signer.public_key(), CLOUD_LIFETIME, now)?;
        let mut chain = issued.chain;
        if let Some(cross) = &self.above.cross
            && !self.above.with_leaves
        {
            chain.push(cross.clone());
        }
        chain.push(self.above.root.clone());
        Ok(Svid::new(chain, signer)?)
    }

    fn issue(
        &self,
        id: &SpiffeId,
        kind: Kind,
        key: &PublicKey,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueFault> {
        if *id.trust_domain() != self.trust_domain {
            return Err(IssueFault::TrustDomain(id.trust_domain().clone()));
        }
        if id.kind() != kind {
            return Err(IssueFault::Kind(id.kind()));
        }
        if now >= self.not_after {
            return Err(IssueFault::IssuerExpired);
        }
        // X.520 bounds a common name at 64 characters. It is for people; nothing reads it.
        let common_name: String = id.name().chars().take(64).collect();
        let not_after = now.plus(lifetime).min(self.not_after);
        let mut params = parameters(
            &common_name,
            &id.to_string(),
            now.minus(BACKDATE),
            not_after,
        )?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let issuer =
            rcgen::Issuer::from_ca_cert_der(&self.certificate, Issuing(self.signer.as_ref()))
                .map_err(CertificateFault::from)?;
        let certificate = params
            .signed_by(&Holder(key), &issuer)
            .map_err(CertificateFault::from)?;
        let leaf = SvidLeaf::parse(certificate.der())?;
        let mut chain = vec![certificate.der().clone(), self.certificate.clone()];
        if self.above.with_leaves {
            chain.extend(self.above.cross.clone());
        }
        Ok(Issued {
            chain,
            leaf,
            issuer: self.key_hash(),
        })
    }
}

#[cfg(test)]
mod tests;
