//! An authority in this process, that issues as a test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_identity::jwt::JwtClaims;
use edgeward_identity::testing::{TestAuthority, TurnedClock, validity};
use edgeward_identity::{Clock, SoftwareKey, SpiffeId};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use super::authority::{Authority, NotIssued};

/// Issues X.509-SVIDs for ten minutes and tokens for five.
pub(crate) struct FakeAuthority {
    pub(super) ca: TestAuthority,
    pub(super) jwt_key: SoftwareKey,
    pub(super) clock: Arc<TurnedClock>,
    pub(super) refusal: Mutex<Option<NotIssued>>,
    /// Issued instead of what is asked for.
    pub(super) instead: Mutex<Option<String>>,
    pub(super) asked: Mutex<u32>,
}

pub(super) const LIFETIME: Duration = Duration::from_secs(600);

impl FakeAuthority {
    pub(crate) fn new(ca: TestAuthority, clock: Arc<TurnedClock>) -> Arc<Self> {
        Arc::new(Self {
            ca,
            jwt_key: SoftwareKey::generate().unwrap(),
            clock,
            refusal: Mutex::new(None),
            instead: Mutex::new(None),
            asked: Mutex::new(0),
        })
    }

    pub(super) fn refuse(&self, code: Option<&str>) {
        *self.refusal.lock() = code.map(|code| NotIssued::Refused(code.to_owned()));
    }

    pub(super) fn asked(&self) -> u32 {
        *self.asked.lock()
    }

    fn begin(&self) -> Result<(), NotIssued> {
        *self.asked.lock() += 1;
        match self.refusal.lock().clone() {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Authority for FakeAuthority {
    async fn x509(
        &self,
        id: &SpiffeId,
        key: &SoftwareKey,
    ) -> Result<Vec<CertificateDer<'static>>, NotIssued> {
        use edgeward_identity::Signer;
        self.begin()?;
        tokio::task::yield_now().await;
        let path = format!("{}/{}", id.kind(), id.name());
        let path = self.instead.lock().clone().unwrap_or(path);
        let now = self.clock.now();
        let change = |params: &mut _| {
            validity(
                params,
                now.minus(Duration::from_secs(60)),
                now.plus(LIFETIME),
            );
        };
        Ok(self.ca.chain_for(&path, key.public_key(), change))
    }

    async fn jwt(&self, id: &SpiffeId, audience: &[String]) -> Result<String, NotIssued> {
        self.begin()?;
        let now = self.clock.now();
        let claims = JwtClaims {
            subject: id.clone(),
            audience: audience.to_vec(),
            issued: now,
            expires: now.plus(Duration::from_secs(300)),
            serial: self.asked().to_string(),
        };
        Ok(claims.sign(&self.jwt_key)?)
    }
}
