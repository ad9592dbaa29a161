//! A root in the TPM: EK, AK and SVID key never leave it.

use std::sync::Arc;

use async_trait::async_trait;
use edgeward_evidence::BootStatement;
use edgeward_evidence::digest::Digest;
use edgeward_evidence::make_credential::SECRET_BYTES;
use edgeward_evidence::tpm::{ClockInfo, Name, PcrBank, PcrSelection, Public};
use edgeward_evidence::transcript::{Moment, Transcript};
use edgeward_evidence::verify::SignedAttest;
use edgeward_identity::{PublicKey, Secret, Signer, SpiffeId};
use edgeward_wire::v1;

use super::{Conversation, EnrolClaim, Root, RootError};
use crate::tpm::signer::point_of;
use crate::tpm::{
    Certified, EkChoice, Endorsement, PcrRequest, Priority, Quoted, SealedBlob, SvidSlot, Tpm,
    TpmError, TpmSigner, activate, ek, keys, nv, pcr, quote, seal, vouch,
};

/// The TPM with what of it does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct TpmRoot {
    tpm: Tpm,
    endorsement: Arc<Endorsement>,
    ak_public: Arc<[u8]>,
    ak_name: Name,
}

impl TpmRoot {
    /// Reads EK and certificates and makes the AK if there is none.
    pub async fn open(tpm: Tpm, choice: EkChoice) -> Result<Self, RootError> {
        let (endorsement, ak_public) = tpm
            .call(Priority::Session, move |device| {
                Ok((ek::endorsement(device, choice)?, keys::ak_public(device)?))
            })
            .await?;
        let ak_name = Public::parse(&ak_public)
            .map_err(|_| TpmError::Answer("an ak that cannot be read"))?
            .name();
        Ok(Self {
            tpm,
            endorsement: Arc::new(endorsement),
            ak_public: ak_public.into(),
            ak_name,
        })
    }

    pub fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// `TPMT_PUBLIC` of the AK.
    pub fn ak_public(&self) -> &[u8] {
        &self.ak_public
    }

    pub fn endorsement(&self) -> &Endorsement {
        &self.endorsement
    }

    /// SHA-256 of the EK's `TPMT_PUBLIC`: what allow-lists and tokens name.
    pub fn ek_digest(&self) -> Digest {
        Digest::of(&self.endorsement.public)
    }

    async fn svid_public(&self, slot: SvidSlot) -> Result<Vec<u8>, RootError> {
        let public = self
            .tpm
            .call(Priority::Attest, move |device| {
                keys::svid_public(device, slot)
            })
            .await?;
        Ok(public)
    }

    async fn activate(
        &self,
        challenge: &v1::EnrolChallenge,
    ) -> Result<Secret<[u8; SECRET_BYTES]>, RootError> {
        let (blob, secret) = (
            challenge.credential_blob.clone(),
            challenge.encrypted_secret.clone(),
        );
        let kind = self.endorsement.kind;
        let opened = self
            .tpm
            .call(Priority::Session, move |device| {
                activate::activate(device, kind, &blob, &secret)
            })
            .await?;
        <[u8; SECRET_BYTES]>::try_from(opened.expose().as_slice())
            .map(Secret::new)
            .map_err(|_| RootError::Challenge("activated secret is not 32 bytes"))
    }

    async fn quote(&self, selection: PcrSelection, data: Digest) -> Result<Quoted, RootError> {
        let request = PcrRequest {
            selection,
            qualifying_data: *data.as_bytes(),
        };
        let quoted = self
            .tpm
            .call(Priority::Attest, move |device| {
                quote::quote(device, &request)
            })
            .await?;
        Ok(quoted)
    }

    async fn certify(&self, slot: SvidSlot, data: Digest) -> Result<Certified, RootError> {
        let certified = self
            .tpm
            .call(Priority::Attest, move |device| {
                quote::certify(device, slot, data.as_bytes())
            })
            .await?;
        Ok(certified)
    }
}

#[async_trait]
impl Root for TpmRoot {
    fn name(&self) -> &'static str {
        "tpm"
    }

    async fn tpm_clock(&self) -> Result<Option<ClockInfo>, RootError> {
        Ok(Some(self.tpm.call(Priority::Session, quote::clock).await?))
    }

    async fn begin_enrolment(&self, slot: SvidSlot) -> Result<v1::enrol_begin::Root, RootError> {
        let svid_public = self
            .tpm
            .call(Priority::Session, move |device| {
                keys::renew_svid(device, slot)
            })
            .await?;
        Ok(v1::enrol_begin::Root::Tpm(v1::TpmClaims {
            ek_certificates: self.endorsement.certificates.clone(),
            ek_public: self.endorsement.public.clone(),
            ak_public: self.ak_public.to_vec(),
            svid_public,
        }))
    }

    async fn prove_enrolment(
        &self,
        slot: SvidSlot,
        claim: EnrolClaim<'_>,
        talk: &Conversation,
        challenge: &v1::EnrolChallenge,
    ) -> Result<v1::EnrolProof, RootError> {
        let secret = self.activate(challenge).await?;
        let svid_public = self.svid_public(slot).await?;
        let ek_digest = self.ek_digest();
        let moment = match claim {
            EnrolClaim::Token(token_id) => Moment::EnrolTpm {
                token_id,
                nonce: &talk.nonce,
                exporter: &talk.exporter,
                ek_digest: &ek_digest,
                ak_name: &self.ak_name,
                svid_public: &svid_public,
                secret: &secret,
            },
            EnrolClaim::Recover(node) => Moment::RecoverTpm {
                node,
                nonce: &talk.nonce,
                exporter: &talk.exporter,
                ek_digest: &ek_digest,
                ak_name: &self.ak_name,
                svid_public: &svid_public,
                secret: &secret,
            },
        };
        let data = Transcript {
            trust_domain: &talk.trust_domain,
            boot_key: &talk.boot_key,
            moment,
        }
        .qualifying_data();
        let selection = selection_of(challenge.pcr_selection.as_ref())?;
        let certified = self.certify(slot, data).await?;
        let quoted = self.quote(selection, data).await?;
        Ok(v1::EnrolProof {
            proof: Some(v1::enrol_proof::Proof::Tpm(v1::TpmProof {
                certify_attest: certified.attest,
                certify_signature: certified.signature,
                quote: Some(wire_quote(quoted)),
            })),
        })
    }

    async fn attest(
        &self,
        slot: SvidSlot,
        node: &SpiffeId,
        talk: &Conversation,
        challenge: &v1::AttestChallenge,
    ) -> Result<v1::attest_evidence::Root, RootError> {
        let svid_public = self.svid_public(slot).await?;
        let data = Transcript {
            trust_domain: &talk.trust_domain,
            boot_key: &talk.boot_key,
            moment: Moment::AttestTpm {
                node,
                nonce: &talk.nonce,
                exporter: &talk.exporter,
                ek_digest: &self.ek_digest(),
                ak_name: &self.ak_name,
                svid_public: &svid_public,
            },
        }
        .qualifying_data();
        let selection = selection_of(challenge.pcr_selection.as_ref())?;
        let mut evidence = v1::TpmEvidence {
            quote: Some(wire_quote(self.quote(selection, data).await?)),
            ..Default::default()
        };
        if challenge.renew {
            evidence.svid_public = svid_public;
            let certified = self.certify(slot, data).await?;
            evidence.certify_attest = certified.attest;
            evidence.certify_signature = certified.signature;
        }
        Ok(v1::attest_evidence::Root::Tpm(evidence))
    }

    async fn signer(
        &self,
        slot: SvidSlot,
        priority: Priority,
    ) -> Result<Arc<dyn Signer>, RootError> {
        Ok(Arc::new(TpmSigner::open(&self.tpm, slot, priority).await?))
    }

    async fn boot_statement(
        &self,
        slot: SvidSlot,
        node: &SpiffeId,
        boot_key: &PublicKey,
        selection: &PcrSelection,
    ) -> Result<Option<BootStatement>, RootError> {
        let svid_key = point_of(&self.svid_public(slot).await?)?;
        let data = Transcript {
            trust_domain: node.trust_domain(),
            boot_key,
            moment: Moment::Boot {
                node,
                ak_name: &self.ak_name,
                svid_key: &svid_key,
            },
        }
        .qualifying_data();
        let quoted = self.quote(selection.clone(), data).await?;
        Ok(Some(BootStatement {
            boot_key: *boot_key,
            quote: SignedAttest {
                attest: quoted.attest,
                signature: quoted.signature,
            },
        }))
    }

    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, RootError> {
        let key = key.clone();
        let blob = self
            .tpm
            .call(Priority::Session, move |device| {
                seal::seal(device, key.expose())
            })
            .await?;
        serde_json::to_vec(&blob).map_err(|_| RootError::Sealed)
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Secret<Vec<u8>>, RootError> {
        let blob: SealedBlob = serde_json::from_slice(sealed).map_err(|_| RootError::Sealed)?;
        let key = self
            .tpm
            .call(Priority::Session, move |device| seal::unseal(device, &blob))
            .await?;
        Ok(key)
    }

    async fn vouch(&self, message: &[u8]) -> Result<Option<Vec<u8>>, RootError> {
        let message = message.to_vec();
        let signature = self
            .tpm
            .call(Priority::Session, move |device| {
                vouch::vouch(device, &message)
            })
            .await?;
        Ok(Some(signature))
    }

    fn has_vouched(&self, message: &[u8], signature: &[u8]) -> bool {
        point_of(&self.ak_public).is_ok_and(|ak| vouch::is_vouched(&ak, message, signature))
    }

    async fn extend(&self, index: u8, digest: [u8; 32]) -> Result<bool, RootError> {
        self.tpm
            .call(Priority::Session, move |device| {
                pcr::extend(device, index, digest)
            })
            .await?;
        Ok(true)
    }

    async fn pcr(&self, index: u8) -> Result<Option<[u8; 32]>, RootError> {
        let read = move |device: &mut _| pcr::read(device, index);
        Ok(Some(self.tpm.call(Priority::Session, read).await?))
    }

    async fn epoch(&self) -> Result<Option<u64>, RootError> {
        // A TPM that has no counter yet has seen no state: epoch 0.
        let epoch = self.tpm.call(Priority::Session, nv::epoch).await?;
        Ok(Some(epoch.unwrap_or(0)))
    }

    async fn raise_epoch(&self) -> Result<Option<u64>, RootError> {
        Ok(Some(
            self.tpm.call(Priority::Session, nv::raise_epoch).await?,
        ))
    }
}

/// The selection of a challenge as a type that cannot be empty.
fn selection_of(wire: Option<&v1::PcrSelection>) -> Result<PcrSelection, RootError> {
    let wire = wire.ok_or(RootError::Challenge("no pcr selection"))?;
    let bank = u16::try_from(wire.bank)
        .ok()
        .and_then(|id| PcrBank::from_id(id).ok())
        .ok_or(RootError::Challenge("unknown pcr bank"))?;
    let indexes = wire
        .indexes
        .iter()
        .map(|index| u8::try_from(*index))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| RootError::Challenge("no such pcr"))?;
    PcrSelection::new(bank, indexes).map_err(|_| RootError::Challenge("no such pcrs"))
}

fn wire_quote(quoted: Quoted) -> v1::Quote {
    v1::Quote {
        attest: quoted.attest,
        signature: quoted.signature,
        pcrs: quoted
            .pcrs
            .into_iter()
            .map(|pcr| v1::PcrValue {
                index: u32::from(pcr.index),
                digest: pcr.value,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_that_would_quote_nothing_is_refused() {
        let wire = |bank, indexes: &[u32]| v1::PcrSelection {
            bank,
            indexes: indexes.to_vec(),
        };
        assert!(selection_of(None).is_err());
        assert!(selection_of(Some(&wire(0x000b, &[]))).is_err());
        assert!(selection_of(Some(&wire(0x0004, &[0]))).is_err());
        assert!(selection_of(Some(&wire(0x0001_000b, &[0]))).is_err());
        assert!(selection_of(Some(&wire(0x000b, &[300]))).is_err());
        assert!(selection_of(Some(&wire(0x000b, &[24]))).is_err());
        assert!(selection_of(Some(&wire(0x000b, &[0, 7]))).is_ok());
    }
}
