//! Two ends of a TLS 1.3 connection: a client whose SVID key is handed in, a server with a software key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgeward_identity::tls::{self, Credentials, PeerVerifier};
use edgeward_identity::{
    DenyList, Kind, Secret, Signer, SoftwareKey, Svid, SystemClock, TrustBundle, TrustDomain,
    TrustView,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, ServerName};

pub(crate) fn pair(
    client_key: Arc<dyn Signer>,
) -> (rustls::ClientConnection, rustls::ServerConnection) {
    let root_pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![uri("spiffe://plant.example")];
    let root = params.self_signed(&root_pair).unwrap().der().clone();
    let issuer = Issuer::new(params, root_pair);
    let server_key: Arc<dyn Signer> = Arc::new(software());
    let view = TrustView {
        bundle: TrustBundle::new(
            TrustDomain::new("plant.example").unwrap(),
            1,
            300,
            vec![root.clone()],
        )
        .unwrap(),
        deny: DenyList::new(0, BTreeMap::new()).unwrap(),
    };
    let trust = Arc::new(ArcSwap::from_pointee(view));
    let clock = Arc::new(SystemClock);
    let client = tls::client(
        Credentials::new(&svid("node/a", client_key, &issuer, &root)),
        PeerVerifier::mandatory(trust.clone(), clock.clone(), &[Kind::Cloud]),
        &[b"h2"],
    );
    let server = tls::server(
        Credentials::new(&svid("cloud/c", server_key, &issuer, &root)),
        PeerVerifier::mandatory(trust, clock, &[Kind::Node]),
        &[b"h2"],
    );
    let name = ServerName::try_from("cloud").unwrap();
    (
        rustls::ClientConnection::new(Arc::new(client), name).unwrap(),
        rustls::ServerConnection::new(Arc::new(server)).unwrap(),
    )
}

fn svid(
    path: &str,
    key: Arc<dyn Signer>,
    issuer: &Issuer<'_, KeyPair>,
    root: &CertificateDer<'static>,
) -> Svid {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(&format!("spiffe://plant.example/{path}"))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let spki = SubjectPublicKeyInfo::from_der(&key.public_key().spki_der()).unwrap();
    let leaf = params.signed_by(&spki, issuer).unwrap();
    Svid::new(vec![leaf.der().clone(), root.clone()], key).unwrap()
}

fn software() -> SoftwareKey {
    SoftwareKey::from_pkcs8(Secret::new(KeyPair::generate().unwrap().serialize_der())).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
