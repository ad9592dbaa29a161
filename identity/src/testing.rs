//! A test authority that issues good and deliberately bad SVIDs, and a clock that tests turn by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::bundle::TrustBundle;
use crate::clock::{BootTime, Clock, Timestamp};
use crate::deny::DenyList;
use crate::keys::{PublicKey, Signer, SoftwareKey, SpkiHash};
use crate::secret::Secret;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::svid::Svid;
use crate::tls::peer::TrustView;

/// The moment at which test authorities believe themselves to be: 2027-01-15T08:00:00Z.
pub const TEST_NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A root and an issuing CA, as a cloud has them.
pub struct TestAuthority {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    root_key: Arc<SoftwareKey>,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A clock that stands still until a test turns it.
#[derive(Debug)]
pub struct TurnedClock {
    now_millis: AtomicU64,
    boot_millis: AtomicU64,
}

impl TestAuthority {
    pub fn new(trust_domain: &str) -> Self {
        let trust_domain = TrustDomain::new(trust_domain).expect("a valid trust domain");
        let (root_pair, root_key) = key();
        let root_params = authority_params(&trust_domain);
        let root = root_params.self_signed(&root_pair).expect("self-signs");
        let root_issuer = Issuer::new(root_params, root_pair);
        let (issuing_pair, _) = key();
        let issuing_params = authority_params(&trust_domain);
        let issuing = issuing_params
            .signed_by(&issuing_pair, &root_issuer)
            .expect("the root signs");
        Self {
            trust_domain,
            root: root.der().clone(),
            root_key: Arc::new(root_key),
            issuing: issuing.der().clone(),
            issuer: Issuer::new(issuing_params, issuing_pair),
        }
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs key sets.
    pub fn root_key(&self) -> &Arc<SoftwareKey> {
        &self.root_key
    }

    pub fn root_pin(&self) -> SpkiHash {
        self.root_key.public_key().spki_hash()
    }

    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.trust_domain.clone(), 1, 300, vec![self.root.clone()])
            .expect("one good root")
    }

    pub fn trust_view(&self) -> TrustView {
        TrustView {
            bundle: self.bundle(),
            deny: DenyList::new(0, BTreeMap::new()).expect("an empty list is not full"),
        }
    }

    /// An SVID with a new software key, valid from an hour before to a day after [`TEST_NOW`].
    /// `path` is what follows the trust domain: `node/a`.
    pub fn svid(&self, path: &str) -> Svid {
        self.svid_with(path, |_| {})
    }

    /// As [`TestAuthority::svid`], with the certificate's parameters changed first.
    pub fn svid_with(&self, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        let (chain, key) = self.chain_with(path, change);
        Svid::new(chain, Arc::new(key)).expect("a good svid")
    }

    /// A chain (leaf, issuing, root) and its key, which may break every rule.
    pub fn chain_with(
        &self,
        path: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, SoftwareKey) {
        let (pair, key) = key();
        let mut params = leaf_params(&format!("spiffe://{}/{path}", self.trust_domain));
        change(&mut params);
        let leaf = params
            .signed_by(&pair, &self.issuer)
            .expect("the issuing ca signs");
        (
            vec![leaf.der().clone(), self.issuing.clone(), self.root.clone()],
            key,
        )
    }

    /// A chain (leaf, issuing) for somebody else's key.
    pub fn chain_for(
        &self,
        path: &str,
        key: &PublicKey,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let key = rcgen::SubjectPublicKeyInfo::from_der(&key.spki_der()).expect("a p-256 key");
        let mut params = leaf_params(&format!("spiffe://{}/{path}", self.trust_domain));
        change(&mut params);
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("the issuing ca signs");
        vec![leaf.der().clone(), self.issuing.clone()]
    }

    pub fn id(&self, path: &str) -> SpiffeId {
        format!("spiffe://{}/{path}", self.trust_domain)
            .parse()
            .expect("a valid spiffe id")
    }
}

impl TurnedClock {
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            now_millis: AtomicU64::new(now.millis()),
            boot_millis: AtomicU64::new(1_000_000),
        })
    }

    /// Turns both clocks forward.
    pub fn turn(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_millis.fetch_add(millis, Ordering::SeqCst);
        self.boot_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock only, as an operator or attacker would.
    pub fn set_now(&self, now: Timestamp) {
        self.now_millis.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_millis.load(Ordering::SeqCst))
    }

    fn boottime(&self) -> BootTime {
        BootTime::from_duration(Duration::from_millis(
            self.boot_millis.load(Ordering::SeqCst),
        ))
    }
}

fn key() -> (KeyPair, SoftwareKey) {
    let key = SoftwareKey::generate().expect("the random source works");
    let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8().expose().clone());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
        .expect("a p-256 key is supported");
    let copy =
        SoftwareKey::from_pkcs8(Secret::new(key.pkcs8().expose().clone())).expect("the same key");
    (pair, copy)
}

fn authority_params(trust_domain: &TrustDomain) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    validity(
        &mut params,
        TEST_NOW.minus(DAY * 365),
        TEST_NOW.plus(DAY * 365),
    );
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri(id)];
    validity(&mut params, TEST_NOW.minus(DAY / 24), TEST_NOW.plus(DAY));
    params
}

/// A URI name for [`CertificateParams::subject_alt_names`].
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

/// Sets a certificate's validity.
pub fn validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let time = |at: Timestamp| std::time::UNIX_EPOCH + Duration::from_secs(at.secs());
    params.not_before = time(not_before).into();
    params.not_after = time(not_after).into();
}
