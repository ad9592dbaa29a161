//! A root without keys, for tests of what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_evidence::BootStatement;
use edgeward_evidence::tpm::{ClockInfo, PcrSelection};
use edgeward_identity::{PublicKey, Secret, Signer, SpiffeId};
use edgeward_wire::v1;
use parking_lot::Mutex;

use super::{Conversation, EnrolClaim, Root, RootError};
use crate::tpm::{Priority, SvidSlot};

/// A root that seals by a tag of its own and keeps an epoch.
#[derive(Debug)]
pub(crate) struct FakeRoot {
    tag: u8,
    pub(crate) epoch: Mutex<u64>,
    pub(crate) pcrs: Mutex<BTreeMap<u8, [u8; 32]>>,
    /// The next extension is not done.
    pub(crate) busy: Mutex<bool>,
}

impl FakeRoot {
    pub(crate) fn new(tag: u8) -> Self {
        Self {
            tag,
            epoch: Mutex::new(0),
            pcrs: Mutex::default(),
            busy: Mutex::default(),
        }
    }
}

#[async_trait]
impl Root for FakeRoot {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn tpm_clock(&self) -> Result<Option<ClockInfo>, RootError> {
        Ok(None)
    }

    async fn begin_enrolment(&self, _: SvidSlot) -> Result<v1::enrol_begin::Root, RootError> {
        Err(RootError::Random)
    }

    async fn prove_enrolment(
        &self,
        _: SvidSlot,
        _: EnrolClaim<'_>,
        _: &Conversation,
        _: &v1::EnrolChallenge,
    ) -> Result<v1::EnrolProof, RootError> {
        Err(RootError::Random)
    }

    async fn attest(
        &self,
        _: SvidSlot,
        _: &SpiffeId,
        _: &Conversation,
        _: &v1::AttestChallenge,
    ) -> Result<v1::attest_evidence::Root, RootError> {
        Err(RootError::Random)
    }

    async fn signer(&self, _: SvidSlot, _: Priority) -> Result<Arc<dyn Signer>, RootError> {
        Err(RootError::Random)
    }

    async fn boot_statement(
        &self,
        _: SvidSlot,
        _: &SpiffeId,
        _: &PublicKey,
        _: &PcrSelection,
    ) -> Result<Option<BootStatement>, RootError> {
        Ok(None)
    }

    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, RootError> {
        Ok([&[self.tag], key.expose().as_slice()].concat())
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Secret<Vec<u8>>, RootError> {
        match sealed.split_first() {
            Some((tag, key)) if *tag == self.tag => Ok(Secret::new(key.to_vec())),
            _ => Err(RootError::Sealed),
        }
    }

    async fn vouch(&self, message: &[u8]) -> Result<Option<Vec<u8>>, RootError> {
        Ok(Some([&[self.tag], message].concat()))
    }

    fn has_vouched(&self, message: &[u8], signature: &[u8]) -> bool {
        signature == [&[self.tag], message].concat()
    }

    async fn extend(&self, pcr: u8, digest: [u8; 32]) -> Result<bool, RootError> {
        if std::mem::take(&mut *self.busy.lock()) {
            return Err(RootError::Random);
        }
        let mut pcrs = self.pcrs.lock();
        let value = pcrs.entry(pcr).or_default();
        let next = ring::digest::digest(&ring::digest::SHA256, &[*value, digest].concat());
        value.copy_from_slice(next.as_ref());
        Ok(true)
    }

    async fn pcr(&self, pcr: u8) -> Result<Option<[u8; 32]>, RootError> {
        Ok(Some(
            self.pcrs.lock().get(&pcr).copied().unwrap_or_default(),
        ))
    }

    async fn epoch(&self) -> Result<Option<u64>, RootError> {
        Ok(Some(*self.epoch.lock()))
    }

    async fn raise_epoch(&self) -> Result<Option<u64>, RootError> {
        let mut epoch = self.epoch.lock();
        // As a new NV counter does: it starts where others ended.
        *epoch = if *epoch == 0 { 41 } else { *epoch + 1 };
        Ok(Some(*epoch))
    }
}
