//! Who is at the other end: the one place where a certificate chain becomes a [`VerifiedPeer`].

use std::any::Any;

use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::bundle::{TrustBundle, spki_hash_of_certificate};
use crate::clock::Timestamp;
use crate::deny::DenyList;
use crate::keys::{PublicKey, SpkiHash};
use crate::spiffe_id::{Kind, SpiffeId, TrustDomain};
use crate::svid::{MAX_CHAIN, SvidError, SvidLeaf, check_intermediate};

/// What a verifier holds at one moment: roots and deny-list. Replaced as a whole.
#[derive(Clone, Debug)]
pub struct TrustView {
    pub bundle: TrustBundle,
    pub deny: DenyList,
}

/// A peer whose chain, SVID shape, kind, validity and standing were checked, and whose key signed the
/// handshake. Only the functions of this file make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    id: SpiffeId,
    key: PublicKey,
    leaf_hash: [u8; 32],
    not_after: Timestamp,
    /// Keys of the authorities between the leaf and the root, the leaf's issuer first.
    issuers: Vec<SpkiHash>,
}

/// Why a peer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    #[error("no certificate was presented")]
    NoCertificate,
    #[error("chain longer than the limit: {MAX_CHAIN}")]
    ChainTooLong,
    #[error("not an x.509-svid: {0}")]
    Svid(#[from] SvidError),
    #[error("of another trust domain: {0}")]
    TrustDomain(TrustDomain),
    #[error("of a kind that is not accepted here: {0}")]
    Kind(Kind),
    #[error("chain does not lead to a trusted root: {0}")]
    Path(webpki::Error),
    #[error("not within its validity")]
    Expired,
    #[error("on the deny-list: {0}")]
    Denied(String),
    #[error("no presented certificate has the pinned key")]
    Pin,
}

impl PeerRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "peer_no_certificate",
            Self::ChainTooLong => "peer_chain_too_long",
            Self::Svid(_) => "peer_not_svid",
            Self::TrustDomain(_) => "peer_trust_domain",
            Self::Kind(_) => "peer_kind",
            Self::Path(_) => "peer_untrusted",
            Self::Expired => "peer_expired",
            Self::Denied(_) => "peer_denied",
            Self::Pin => "peer_pin",
        }
    }
}

impl VerifiedPeer {
    /// The peer of a finished TLS handshake. `None` if it presented no certificate.
    ///
    /// rustls has checked that the leaf's key signed this handshake; everything else is checked here, against
    /// the trust view of now.
    pub fn of_tls(
        connection: &rustls::CommonState,
        trust: &TrustView,
        kinds: &[Kind],
        now: Timestamp,
    ) -> Result<Option<Self>, PeerRefused> {
        match connection.peer_certificates() {
            None | Some([]) => Ok(None),
            Some(_) if connection.is_handshaking() => Err(PeerRefused::NoCertificate),
            Some(chain) => verify(chain, trust, kinds, now).map(Some),
        }
    }

    /// The peer of a finished QUIC handshake, from the identity that the QUIC library keeps for it.
    pub fn of_quic(
        identity: Box<dyn Any>,
        trust: &TrustView,
        kinds: &[Kind],
        now: Timestamp,
    ) -> Result<Self, PeerRefused> {
        let chain = identity
            .downcast::<Vec<CertificateDer<'static>>>()
            .map_err(|_| PeerRefused::NoCertificate)?;
        verify(&chain, trust, kinds, now)
    }

    /// Whether this peer would still be accepted under a newer trust view.
    pub fn still_accepted(&self, trust: &TrustView, now: Timestamp) -> Result<(), PeerRefused> {
        if now > self.not_after {
            return Err(PeerRefused::Expired);
        }
        check_denied(&self.key, &self.issuers, trust)
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    pub fn spki_hash(&self) -> SpkiHash {
        self.key.spki_hash()
    }

    /// SHA-256 of the leaf certificate's DER.
    pub fn leaf_hash(&self) -> &[u8; 32] {
        &self.leaf_hash
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Keys of the authorities between the leaf and the root, the leaf's issuer first.
    pub fn issuers(&self) -> &[SpkiHash] {
        &self.issuers
    }
}

/// Checks a presented chain (leaf first). What it does not establish: that the leaf's key signed anything.
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    trust: &TrustView,
    kinds: &[Kind],
    now: Timestamp,
) -> Result<VerifiedPeer, PeerRefused> {
    let roots: Vec<&CertificateDer<'_>> = trust.bundle.roots().iter().collect();
    let peer = verify_path(chain, &roots, trust.bundle.trust_domain(), kinds, now)?;
    check_denied(&peer.key, &peer.issuers, trust)?;
    Ok(peer)
}

/// As [`verify`], with the root taken from the presented chain by the SHA-256 of its SPKI (enrolment).
pub(super) fn verify_pinned(
    chain: &[CertificateDer<'_>],
    pin: &SpkiHash,
    trust_domain: &TrustDomain,
    kinds: &[Kind],
    now: Timestamp,
) -> Result<VerifiedPeer, PeerRefused> {
    let root = pinned_root(chain, pin)?;
    verify_path(chain, &[root], trust_domain, kinds, now)
}

/// The presented certificate whose key has the pin.
pub fn pinned_root<'a>(
    chain: &'a [CertificateDer<'a>],
    pin: &SpkiHash,
) -> Result<&'a CertificateDer<'a>, PeerRefused> {
    chain
        .iter()
        .skip(1)
        .find(|certificate| spki_hash_of_certificate(certificate).is_ok_and(|hash| hash == *pin))
        .ok_or(PeerRefused::Pin)
}

fn verify_path(
    chain: &[CertificateDer<'_>],
    roots: &[&CertificateDer<'_>],
    trust_domain: &TrustDomain,
    kinds: &[Kind],
    now: Timestamp,
) -> Result<VerifiedPeer, PeerRefused> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(PeerRefused::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(PeerRefused::ChainTooLong);
    }
    let leaf = SvidLeaf::parse(leaf_der)?;
    if leaf.id.trust_domain() != trust_domain {
        return Err(PeerRefused::TrustDomain(leaf.id.trust_domain().clone()));
    }
    if !kinds.contains(&leaf.id.kind()) {
        return Err(PeerRefused::Kind(leaf.id.kind()));
    }
    for intermediate in intermediates {
        check_intermediate(intermediate)?;
    }
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .map(|root| anchor_from_trusted_cert(root))
        .collect::<Result<_, _>>()
        .map_err(PeerRefused::Path)?;
    let end_entity = EndEntityCert::try_from(leaf_der).map_err(PeerRefused::Path)?;
    let path = end_entity
        .verify_for_usage(
            &[webpki::ring::ECDSA_P256_SHA256],
            &anchors,
            intermediates,
            now.into(),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(|error| match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                PeerRefused::Expired
            }
            other => PeerRefused::Path(other),
        })?;
    let issuers = path
        .intermediate_certificates()
        .map(|authority| spki_hash_of_certificate(&authority.der()))
        .collect::<Result<_, _>>()
        .map_err(|_| SvidError::Malformed)?;
    let mut leaf_hash = [0; 32];
    leaf_hash.copy_from_slice(digest(&SHA256, leaf_der).as_ref());
    Ok(VerifiedPeer {
        id: leaf.id,
        key: leaf.key,
        leaf_hash,
        not_after: leaf.not_after,
        issuers,
    })
}

/// An authority on the list takes with it whatever it signed.
fn check_denied(
    key: &PublicKey,
    issuers: &[SpkiHash],
    trust: &TrustView,
) -> Result<(), PeerRefused> {
    let leaf = key.spki_hash();
    let denied = std::iter::once(&leaf)
        .chain(issuers)
        .find_map(|key| trust.deny.get(key));
    match denied {
        Some(denied) => Err(PeerRefused::Denied(denied.reason.clone())),
        None => Ok(()),
    }
}
