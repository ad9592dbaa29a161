//! Mutual TLS 1.3 at the gateway, with the node's own SVID. No resumption and no early data: each connection proves
//! its key. The signature is made in the TPM, so strangers get a [`Budget`] of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::svid::SvidError;
use edgeward_identity::tls::{Credentials, PeerVerifier};
use edgeward_identity::{Clock, Kind, Svid, TrustView, VerifiedPeer};
use edgeward_policy::L7;
use edgeward_tunnel::bind::blocking::off_the_workers;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::budget::Budget;
use super::identity::{Proof, Seen};
use crate::enforce::decide::Decider;

/// First byte of a TLS record that carries a handshake (RFC 8446 5.1).
pub(super) const HANDSHAKE: u8 = 0x16;
/// A handshake is done within this time or not at all.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Most handshakes under way at once: each may hold a thread while the TPM signs.
const MAX_HANDSHAKES: usize = 64;

/// Who may present what at the gateway.
const KINDS: [Kind; 3] = [Kind::Node, Kind::Operator, Kind::Device];

/// Why nobody came of a handshake. Stable words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub(super) enum TlsRefused {
    /// Too many handshakes, from this source or in all.
    Budget,
    Deadline,
    /// None, or one that does not count.
    Certificate,
    /// No TLS 1.3, or broken off.
    Handshake,
    /// This node's own SVID cannot be presented.
    OwnIdentity,
}

/// Makes handshakes for all listeners.
pub(super) struct Tls {
    svid: watch::Receiver<Arc<Svid>>,
    presented: Mutex<Arc<Svid>>,
    credentials: Arc<Credentials>,
    plain: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    trust: Arc<ArcSwap<TrustView>>,
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
    room: Semaphore,
}

impl Tls {
    pub(super) fn new(
        svid: watch::Receiver<Arc<Svid>>,
        trust: Arc<ArcSwap<TrustView>>,
        clock: Arc<dyn Clock>,
        decider: Arc<Decider>,
    ) -> Result<Self, SvidError> {
        let present = svid.borrow().clone();
        let credentials = Credentials::new(&off_the_workers(&present)?);
        let verifier = Arc::new(Verifier {
            svids: PeerVerifier::mandatory(Arc::clone(&trust), Arc::clone(&clock), &KINDS),
            decider,
        });
        let config = |alpn: &[&[u8]]| {
            let verifier = Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>;
            Arc::new(edgeward_identity::tls::server(
                Arc::clone(&credentials),
                verifier,
                alpn,
            ))
        };
        Ok(Self {
            plain: config(&[]),
            http: config(&[b"h2", b"http/1.1"]),
            presented: Mutex::new(present),
            credentials,
            svid,
            trust,
            budget: Mutex::new(Budget::new(clock.boottime())),
            clock,
            room: Semaphore::new(MAX_HANDSHAKES),
        })
    }

    /// One handshake; and what its client proved.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        l7: Option<&L7>,
        seen: Seen,
    ) -> Result<(TlsStream<TcpStream>, Proof), TlsRefused> {
        let _room = self.room.try_acquire().map_err(|_| TlsRefused::Budget)?;
        if !self.spend(seen.ip) {
            return Err(TlsRefused::Budget);
        }
        self.present_newest()?;
        let config = match l7 {
            Some(L7::Http(_)) => &self.http,
            Some(L7::Mqtt(_) | L7::Modbus(_)) | None => &self.plain,
        };
        let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(source = %seen.ip, %error, "tls handshake at the gateway");
                return Err(refusal_of(&error));
            }
            Err(_) => return Err(TlsRefused::Deadline),
        };
        let proof = self.proof(&stream, seen)?;
        Ok((stream, proof))
    }

    fn spend(&self, source: IpAddr) -> bool {
        self.budget.lock().spend(source, self.clock.boottime())
    }

    /// Handshakes present the newest SVID.
    fn present_newest(&self) -> Result<(), TlsRefused> {
        let newest = self.svid.borrow().clone();
        let mut presented = self.presented.lock();
        if !Arc::ptr_eq(&newest, &presented) {
            let svid = off_the_workers(&newest).map_err(|_| TlsRefused::OwnIdentity)?;
            self.credentials.replace(&svid);
            *presented = newest;
        }
        Ok(())
    }

    fn proof(&self, stream: &TlsStream<TcpStream>, seen: Seen) -> Result<Proof, TlsRefused> {
        let (_, connection) = stream.get_ref();
        let trust = self.trust.load();
        match VerifiedPeer::of_tls(connection, &trust, &KINDS, self.clock.now()) {
            Ok(Some(peer)) => Ok(Proof::Svid {
                peer: Box::new(peer),
                seen,
            }),
            Ok(None) => Err(TlsRefused::Certificate),
            // No SVID: the verifier took it for a device's own certificate.
            Err(_) => {
                let leaf = connection.peer_certificates().and_then(<[_]>::first);
                let leaf = leaf.ok_or(TlsRefused::Certificate)?;
                let certificate = Some(hash_of(leaf));
                Ok(Proof::Sighting(Seen {
                    certificate,
                    ..seen
                }))
            }
        }
    }
}

/// Takes SVIDs, and the certificates of devices that policy names by their hash.
struct Verifier {
    svids: Arc<PeerVerifier>,
    decider: Arc<Decider>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = match self
            .svids
            .verify_client_cert(end_entity, intermediates, now)
        {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let known = self
            .decider
            .picture()
            .parts()
            .rules
            .as_ref()
            .is_some_and(|rules| {
                let hash = hex::encode(hash_of(end_entity));
                let mut devices = rules.engine().slice().devices.iter();
                devices.any(|device| device.recognised.certificate.as_ref() == Some(&hash))
            });
        match known {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(refused),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.svids.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.svids.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.svids.supported_verify_schemes()
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

fn hash_of(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
    hash
}

fn refusal_of(error: &std::io::Error) -> TlsRefused {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            TlsRefused::Certificate
        }
        _ => TlsRefused::Handshake,
    }
}

impl TlsRefused {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Certificate => "certificate",
            Self::Handshake => "handshake",
            Self::OwnIdentity => "own-identity",
        }
    }
}
