//! A root in files: tier `software`, whose attestation state is always `none`.
//!
//! The SVID key and the state's key lie in the state folder, mode 0600. Nothing here stops who copies the disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_evidence::BootStatement;
use edgeward_evidence::tpm::{ClockInfo, PcrSelection};
use edgeward_evidence::transcript::{Moment, Transcript};
use edgeward_identity::{PublicKey, Secret, Signer, SoftwareKey, SpiffeId};
use edgeward_wire::v1;

use super::{Conversation, EnrolClaim, Root, RootError};
use crate::tpm::{Priority, SvidSlot};

/// Only the agent reads its keys.
const KEY_MODE: u32 = 0o600;

/// Keys in a folder.
#[derive(Clone, Debug)]
pub struct SoftwareRoot {
    folder: PathBuf,
}

impl SoftwareRoot {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn key_path(&self, slot: SvidSlot) -> PathBuf {
        self.folder.join(match slot {
            SvidSlot::A => "svid-key-a.der",
            SvidSlot::B => "svid-key-b.der",
        })
    }

    fn load(&self, slot: SvidSlot) -> Result<SoftwareKey, RootError> {
        let path = self.key_path(slot);
        let shown = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|source| RootError::KeyFile {
            path: shown.clone(),
            source,
        })?;
        SoftwareKey::from_pkcs8(Secret::new(bytes))
            .map_err(|_| RootError::KeyFileContent { path: shown })
    }

    /// The key of the slot; made where there is none, so that a retry comes with the same key.
    fn load_or_make(&self, slot: SvidSlot) -> Result<SoftwareKey, RootError> {
        let path = self.key_path(slot);
        if path.exists() {
            return self.load(slot);
        }
        let key = SoftwareKey::generate().map_err(|_| RootError::Random)?;
        write_private(&path, key.pkcs8().expose()).map_err(|source| RootError::KeyFile {
            path: path.display().to_string(),
            source,
        })?;
        Ok(key)
    }
}

#[async_trait]
impl Root for SoftwareRoot {
    fn name(&self) -> &'static str {
        "software"
    }

    async fn tpm_clock(&self) -> Result<Option<ClockInfo>, RootError> {
        Ok(None)
    }

    async fn begin_enrolment(&self, slot: SvidSlot) -> Result<v1::enrol_begin::Root, RootError> {
        let key = self.load_or_make(slot)?;
        Ok(v1::enrol_begin::Root::Software(v1::SoftwareClaims {
            svid_key: key.public_key().point().to_vec(),
        }))
    }

    async fn prove_enrolment(
        &self,
        slot: SvidSlot,
        claim: EnrolClaim<'_>,
        talk: &Conversation,
        _challenge: &v1::EnrolChallenge,
    ) -> Result<v1::EnrolProof, RootError> {
        let EnrolClaim::Token(token_id) = claim else {
            return Err(RootError::NothingToRecoverBy);
        };
        let key = self.load(slot)?;
        let data = Transcript {
            trust_domain: &talk.trust_domain,
            boot_key: &talk.boot_key,
            moment: Moment::EnrolSoftware {
                token_id,
                nonce: &talk.nonce,
                exporter: &talk.exporter,
                svid_key: key.public_key(),
            },
        }
        .qualifying_data();
        let proof = v1::SoftwareProof {
            signature: key.sign(data.as_bytes())?,
        };
        Ok(v1::EnrolProof {
            proof: Some(v1::enrol_proof::Proof::Software(proof)),
        })
    }

    async fn attest(
        &self,
        slot: SvidSlot,
        node: &SpiffeId,
        talk: &Conversation,
        _challenge: &v1::AttestChallenge,
    ) -> Result<v1::attest_evidence::Root, RootError> {
        let key = self.load(slot)?;
        let data = Transcript {
            trust_domain: &talk.trust_domain,
            boot_key: &talk.boot_key,
            moment: Moment::AttestSoftware {
                node,
                nonce: &talk.nonce,
                exporter: &talk.exporter,
                svid_key: key.public_key(),
            },
        }
        .qualifying_data();
        Ok(v1::attest_evidence::Root::Software(v1::SoftwareProof {
            signature: key.sign(data.as_bytes())?,
        }))
    }

    async fn signer(
        &self,
        slot: SvidSlot,
        _priority: Priority,
    ) -> Result<Arc<dyn Signer>, RootError> {
        Ok(Arc::new(self.load(slot)?))
    }

    async fn boot_statement(
        &self,
        _slot: SvidSlot,
        _node: &SpiffeId,
        _boot_key: &PublicKey,
        _selection: &PcrSelection,
    ) -> Result<Option<BootStatement>, RootError> {
        Ok(None)
    }

    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, RootError> {
        Ok(key.expose().clone())
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Secret<Vec<u8>>, RootError> {
        Ok(Secret::new(sealed.to_vec()))
    }

    async fn vouch(&self, _message: &[u8]) -> Result<Option<Vec<u8>>, RootError> {
        Ok(None)
    }

    fn has_vouched(&self, _message: &[u8], _signature: &[u8]) -> bool {
        false
    }

    async fn extend(&self, _: u8, _: [u8; 32]) -> Result<bool, RootError> {
        Ok(false)
    }

    async fn pcr(&self, _: u8) -> Result<Option<[u8; 32]>, RootError> {
        Ok(None)
    }

    async fn epoch(&self) -> Result<Option<u64>, RootError> {
        Ok(None)
    }

    async fn raise_epoch(&self) -> Result<Option<u64>, RootError> {
        Ok(None)
    }
}

/// Creates a file that only the agent reads, and flushes it.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(KEY_MODE)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_retry_comes_with_the_same_key_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = SoftwareRoot::new(folder.path());
        assert!(root.signer(SvidSlot::A, Priority::Session).await.is_err());
        let first = root.begin_enrolment(SvidSlot::A).await.unwrap();
        assert_eq!(root.begin_enrolment(SvidSlot::A).await.unwrap(), first);
        let mode = std::fs::metadata(root.key_path(SvidSlot::A))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, KEY_MODE);
    }
}
