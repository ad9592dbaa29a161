//! The SVID a process presents, replaceable while connections are open (new handshakes take the new one).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer as TlsSigner, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};

use crate::keys::Signer;
use crate::svid::Svid;

/// One writer, many readers: the process's current SVID as rustls wants it.
pub struct Credentials {
    current: ArcSwap<CertifiedKey>,
}

impl Credentials {
    pub fn new(svid: &Svid) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(certified(svid)),
        })
    }

    /// From now on handshakes present this SVID.
    pub fn replace(&self, svid: &Svid) {
        self.current.store(Arc::new(certified(svid)));
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// A [`Signer`] as rustls wants it. The call blocks for as long as the key store takes.
#[derive(Clone, Debug)]
struct TlsKey(Arc<dyn Signer>);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn TlsSigner>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn TlsSigner>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.public_key().spki_der().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl TlsSigner for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

fn certified(svid: &Svid) -> CertifiedKey {
    CertifiedKey::new(
        svid.chain().to_vec(),
        Arc::new(TlsKey(svid.signer().clone())),
    )
}
