//! Verified peers of every kind, each made by a real handshake over memory.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::tls::{Credentials, PeerVerifier, client, server};
use edgeward_identity::{
    Clock, DenyList, Kind, Signer, SoftwareKey, SpiffeId, Svid, SystemClock, TrustBundle,
    TrustView, VerifiedPeer,
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, ServerConnection};

use super::{Someone, domain};
use crate::keys::certificates::parameters;
use crate::keys::rcgen_key::{Holder, Issuing};

const HOUR: Duration = Duration::from_secs(3600);

/// A root that issues leaves of every kind.
pub(super) struct Pki {
    key: SoftwareKey,
    root: CertificateDer<'static>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let key = SoftwareKey::generate().unwrap();
        let now = SystemClock.now();
        let uri = format!("spiffe://{}", domain());
        let mut params = parameters("root", &uri, now.minus(HOUR), now.plus(HOUR)).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&Issuing(&key)).unwrap().der().clone();
        Self { key, root }
    }

    pub(super) fn someone(&self, kind: Kind, name: &str) -> Someone {
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let svid = self.svid(kind, name, key.clone());
        Someone {
            peer: Some(Arc::new(self.handshake(&svid))),
            key: Some(key),
            bearer: None,
        }
    }

    fn svid(&self, kind: Kind, name: &str, key: Arc<SoftwareKey>) -> Svid {
        let id = SpiffeId::new(&domain(), kind, name).unwrap();
        let now = SystemClock.now();
        let mut params =
            parameters("leaf", &id.to_string(), now.minus(HOUR), now.plus(HOUR)).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let issuer = Issuer::from_ca_cert_der(&self.root, Issuing(&self.key)).unwrap();
        let leaf = params
            .signed_by(&Holder(key.public_key()), &issuer)
            .unwrap();
        Svid::new(vec![leaf.der().clone()], key).unwrap()
    }

    fn handshake(&self, svid: &Svid) -> VerifiedPeer {
        let bundle = TrustBundle::new(domain(), 1, 60, vec![self.root.clone()]).unwrap();
        let trust = TrustView {
            bundle,
            deny: DenyList::default(),
        };
        let shared = Arc::new(ArcSwap::from_pointee(trust.clone()));
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let cloud = self.svid(Kind::Cloud, "c", key);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let accepts = PeerVerifier::optional(shared.clone(), clock.clone(), &Kind::ALL);
        let mut here =
            ServerConnection::new(Arc::new(server(Credentials::new(&cloud), accepts, &[])))
                .unwrap();
        let expects = PeerVerifier::mandatory(shared, clock, &[Kind::Cloud]);
        let config = Arc::new(client(Credentials::new(svid), expects, &[]));
        let name = ServerName::try_from("cloud").unwrap();
        let mut there = ClientConnection::new(config, name).unwrap();
        while here.is_handshaking() || there.is_handshaking() {
            let mut wire = Vec::new();
            there.write_tls(&mut wire).unwrap();
            here.read_tls(&mut Cursor::new(wire)).unwrap();
            here.process_new_packets().unwrap();
            let mut wire = Vec::new();
            here.write_tls(&mut wire).unwrap();
            there.read_tls(&mut Cursor::new(wire)).unwrap();
            there.process_new_packets().unwrap();
        }
        VerifiedPeer::of_tls(&here, &trust, &Kind::ALL, SystemClock.now())
            .unwrap()
            .unwrap()
    }
}
