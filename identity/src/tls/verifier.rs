//! The rustls verifiers: identity is the SPIFFE ID of the leaf; host names mean nothing here.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};

use super::config::provider;
use super::peer::{PeerRefused, TrustView, verify, verify_pinned};
use crate::clock::Clock;
use crate::keys::SpkiHash;
use crate::spiffe_id::{Kind, TrustDomain};

/// Accepts peers of the given kinds that the current trust view vouches for.
pub struct PeerVerifier {
    trust: Arc<ArcSwap<TrustView>>,
    clock: Arc<dyn Clock>,
    kinds: Vec<Kind>,
    mandatory: bool,
}

/// Accepts a cloud whose chain leads to a pinned root: what enrolment starts from.
pub struct PinnedVerifier {
    pin: SpkiHash,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
}

impl PeerVerifier {
    /// Every peer must present an SVID of one of `kinds`.
    pub fn mandatory(
        trust: Arc<ArcSwap<TrustView>>,
        clock: Arc<dyn Clock>,
        kinds: &[Kind],
    ) -> Arc<Self> {
        Arc::new(Self {
            trust,
            clock,
            kinds: kinds.to_vec(),
            mandatory: true,
        })
    }

    /// A client may come without a certificate; one that is presented must be good. For servers whose routes
    /// each state their callers.
    pub fn optional(
        trust: Arc<ArcSwap<TrustView>>,
        clock: Arc<dyn Clock>,
        kinds: &[Kind],
    ) -> Arc<Self> {
        Arc::new(Self {
            trust,
            clock,
            kinds: kinds.to_vec(),
            mandatory: false,
        })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let chain = chain_of(leaf, intermediates);
        verify(&chain, &self.trust.load(), &self.kinds, self.clock.now())
            .map(|_| ())
            .map_err(refusal)
    }
}

impl PinnedVerifier {
    pub fn new(pin: SpkiHash, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            pin,
            trust_domain,
            clock,
        })
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain_of(end_entity, intermediates);
        verify_pinned(
            &chain,
            &self.pin,
            &self.trust_domain,
            &[Kind::Cloud],
            self.clock.now(),
        )
        .map(|_| ServerCertVerified::assertion())
        .map_err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("kinds", &self.kinds)
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PinnedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedVerifier")
            .field("pin", &self.pin)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

fn chain_of<'a>(
    leaf: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf)
        .chain(intermediates)
        .cloned()
        .collect()
}

fn check_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(
        message,
        cert,
        dss,
        &provider().signature_verification_algorithms,
    )
}

fn refusal(refused: PeerRefused) -> Error {
    let error = match refused {
        PeerRefused::Expired => CertificateError::Expired,
        PeerRefused::Denied(_) => CertificateError::Revoked,
        PeerRefused::Path(_) | PeerRefused::Pin => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(error)
}

fn tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}
