//! What a node's machine says and proves.

use std::time::Duration;

use edgeward_evidence::app_log::AppLog;
use edgeward_evidence::ima::{MAX_IMA_PART_BYTES, window};
use edgeward_evidence::make_credential::{ActivationSecret, Credential};
use edgeward_evidence::testing::SoftwareTpm;
use edgeward_evidence::testing::boot_log::BootLogBuilder;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::tpm::{HashAlg, PcrBank, PcrSelection};
use edgeward_evidence::transcript::Moment;
use edgeward_evidence::{Digest, Exporter, Nonce, Transcript};
use edgeward_identity::{Secret, Signer, SoftwareKey, Svid};
use edgeward_wire::v1;
use rustls::pki_types::CertificateDer;

use super::{SECRET, copy_of, domain, node, now};

/// A machine with a TPM in software.
pub(crate) struct Machine {
    pub(crate) tpm: SoftwareTpm,
    pub(crate) boot_key: SoftwareKey,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// What its firmware wrote down; none where it wrote nothing.
    pub(crate) boot_log: Option<Vec<u8>>,
    pub(crate) ima: Option<ImaList>,
    /// Most bytes of its IMA list that it sends at once.
    pub(crate) ima_limit: usize,
    pub(crate) app_control: &'static str,
    /// What it measured of its applications, and what the boot left in that PCR; none: an agent that does not.
    pub(crate) apps: Option<(AppLog, [u8; 32])>,
    /// How far its own clock is ahead of the cloud's, and how far behind.
    pub(crate) clock_off: (Duration, Duration),
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            tpm: SoftwareTpm::new(),
            boot_key: SoftwareKey::generate().unwrap(),
            chain: Vec::new(),
            boot_log: None,
            ima: None,
            ima_limit: MAX_IMA_PART_BYTES,
            app_control: "",
            apps: None,
            clock_off: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// Boots: the log and the values of the PCRs that it gives, with Secure Boot on or off.
    pub(crate) fn boot(&mut self, log: &BootLogBuilder) {
        self.boot_log = Some(log.build());
        for (pcr, value) in self
            .tpm
            .pcrs
            .iter_mut()
            .zip(log.pcrs(HashAlg::Sha256))
            .take(16)
        {
            pcr.copy_from_slice(&value);
        }
        self.measure(ImaList::new());
    }

    /// The kernel's list of what ran, and PCR 10 with it.
    pub(crate) fn measure(&mut self, list: ImaList) {
        self.tpm.pcrs[10] = list.pcr;
        self.ima = Some(list);
    }

    fn logs(&self, wanted: &v1::LogsWanted) -> v1::Logs {
        let known = |log: &[u8]| wanted.boot_known == Digest::of(log).as_bytes();
        let boot = self.boot_log.clone().filter(|log| !known(log));
        let ima = self.ima.as_ref().filter(|_| wanted.ima).map(|list| {
            let part = window(&list.bytes, wanted.ima_known, self.ima_limit).unwrap();
            v1::ImaPart {
                path: "/ima".to_owned(),
                first: wanted.ima_known,
                entries: part.entries.to_vec(),
                more: part.more,
                missing: String::new(),
            }
        });
        v1::Logs {
            boot: boot.filter(|_| wanted.boot).map(|log| v1::BootLog {
                path: "/log".to_owned(),
                log,
                missing: String::new(),
            }),
            ima,
            apps: self
                .apps
                .as_ref()
                .and_then(|apps| self.apps_part(apps, wanted)),
        }
    }

    fn apps_part(
        &self,
        (log, start): &(AppLog, [u8; 32]),
        wanted: &v1::LogsWanted,
    ) -> Option<v1::AppsPart> {
        let pcr = usize::try_from(wanted.apps_pcr_plus_one)
            .unwrap()
            .checked_sub(1)?;
        let known = usize::try_from(wanted.apps_known).unwrap();
        Some(v1::AppsPart {
            first: wanted.apps_known,
            records: log.part(known, *start, &self.tpm.pcrs[pcr]).to_vec(),
            missing: String::new(),
        })
    }

    pub(crate) fn svid(&self) -> Svid {
        Svid::new(self.chain.clone(), copy_of(&self.tpm.svid)).unwrap()
    }

    pub(crate) fn begin(&self, token: &str, name: &str) -> v1::EnrolBegin {
        v1::EnrolBegin {
            token_id: token.to_owned(),
            token_secret: SECRET.to_vec(),
            wanted_name: name.to_owned(),
            root: Some(v1::enrol_begin::Root::Tpm(v1::TpmClaims {
                ek_certificates: Vec::new(),
                ek_public: self.tpm.ek_public().to_bytes(),
                ak_public: self.tpm.ak_public().to_bytes(),
                svid_public: self.tpm.svid_public().to_bytes(),
            })),
            boot_key: self.boot_key.public_key().point().to_vec(),
            agent_version: "test".to_owned(),
            recover: String::new(),
        }
    }

    pub(crate) fn prove(
        &mut self,
        challenge: &v1::EnrolChallenge,
        exporter: &[u8; 32],
        token: &str,
    ) -> v1::EnrolProof {
        let secret = self.activate(challenge).unwrap_or([0; 32]);
        self.prove_with(challenge, exporter, token, secret)
    }

    /// As a node that comes back without a certificate.
    pub(crate) fn begin_recovery(&self, name: &str) -> v1::EnrolBegin {
        v1::EnrolBegin {
            token_id: String::new(),
            token_secret: Vec::new(),
            recover: node(name).to_string(),
            ..self.begin("", "")
        }
    }

    pub(crate) fn prove_recovery(
        &mut self,
        challenge: &v1::EnrolChallenge,
        exporter: &[u8; 32],
        name: &str,
    ) -> v1::EnrolProof {
        let secret: ActivationSecret = Secret::new(self.activate(challenge).unwrap_or([0; 32]));
        let moment = Moment::RecoverTpm {
            node: &node(name),
            nonce: &nonce_of(&challenge.nonce),
            exporter: &Exporter::from_bytes(*exporter),
            ek_digest: &self.tpm.ek_public().digest(),
            ak_name: &self.tpm.ak_public().name(),
            svid_public: &self.tpm.svid_public().to_bytes(),
            secret: &secret,
        };
        self.sign_proof(challenge, moment)
    }

    pub(crate) fn activate(&self, challenge: &v1::EnrolChallenge) -> Option<[u8; 32]> {
        let credential = Credential {
            id_object: challenge.credential_blob.clone(),
            encrypted_secret: challenge.encrypted_secret.clone(),
        };
        self.tpm
            .ek
            .activate(&self.tpm.ak_public().name(), &credential)
    }

    pub(crate) fn prove_with(
        &mut self,
        challenge: &v1::EnrolChallenge,
        exporter: &[u8; 32],
        token: &str,
        secret: [u8; 32],
    ) -> v1::EnrolProof {
        let secret: ActivationSecret = Secret::new(secret);
        let moment = Moment::EnrolTpm {
            token_id: token,
            nonce: &nonce_of(&challenge.nonce),
            exporter: &Exporter::from_bytes(*exporter),
            ek_digest: &self.tpm.ek_public().digest(),
            ak_name: &self.tpm.ak_public().name(),
            svid_public: &self.tpm.svid_public().to_bytes(),
            secret: &secret,
        };
        self.sign_proof(challenge, moment)
    }

    fn sign_proof(&mut self, challenge: &v1::EnrolChallenge, moment: Moment<'_>) -> v1::EnrolProof {
        let data = Transcript {
            trust_domain: &domain(),
            boot_key: self.boot_key.public_key(),
            moment,
        }
        .qualifying_data();
        let selection = selection_of(challenge.pcr_selection.as_ref().unwrap());
        let certify = self.tpm.certify(data.as_bytes());
        v1::EnrolProof {
            proof: Some(v1::enrol_proof::Proof::Tpm(v1::TpmProof {
                certify_attest: certify.attest,
                certify_signature: certify.signature,
                quote: Some(self.quote(data.as_bytes(), &selection)),
            })),
        }
    }

    pub(crate) fn hello(&self) -> v1::Hello {
        v1::Hello {
            agent_version: "test".to_owned(),
            boot_id: vec![7; 16],
            boot_key: self.boot_key.public_key().point().to_vec(),
            slice_number: 0,
            deny_number: 0,
            key_set_number: 0,
            endpoints: vec!["192.0.2.1:51820".to_owned()],
            bundle_sequence: 0,
            join: 0,
            slice_deltas: false,
            slice_digest: Vec::new(),
            metered: false,
            apps: None,
            log_size: None,
            journal_head: Vec::new(),
        }
    }

    /// A good answer to a challenge.
    pub(crate) fn answer(
        &mut self,
        challenge: &v1::AttestChallenge,
        exporter: &[u8; 32],
        name: &str,
    ) -> v1::AttestEvidence {
        let data = Transcript {
            trust_domain: &domain(),
            boot_key: self.boot_key.public_key(),
            moment: Moment::AttestTpm {
                node: &node(name),
                nonce: &nonce_of(&challenge.nonce),
                exporter: &Exporter::from_bytes(*exporter),
                ek_digest: &self.tpm.ek_public().digest(),
                ak_name: &self.tpm.ak_public().name(),
                svid_public: &self.tpm.svid_public().to_bytes(),
            },
        }
        .qualifying_data();
        let selection = selection_of(challenge.pcr_selection.as_ref().unwrap());
        let mut quote = self.quote(data.as_bytes(), &selection);
        let values: Vec<u8> = quote
            .pcrs
            .iter()
            .flat_map(|pcr| pcr.digest.clone())
            .collect();
        if challenge.pcrs_known == Digest::of(&values).as_bytes() {
            quote.pcrs.clear();
        }
        let (certify, svid_public) = match challenge.renew {
            true => (
                self.tpm.certify(data.as_bytes()),
                self.tpm.svid_public().to_bytes(),
            ),
            false => (
                edgeward_evidence::verify::SignedAttest::default(),
                Vec::new(),
            ),
        };
        v1::AttestEvidence {
            nonce: challenge.nonce.clone(),
            root: Some(v1::attest_evidence::Root::Tpm(v1::TpmEvidence {
                quote: Some(quote),
                certify_attest: certify.attest,
                certify_signature: certify.signature,
                svid_public,
            })),
            logs: challenge.logs.as_ref().map(|wanted| self.logs(wanted)),
            app_control: self.app_control.to_owned(),
            time: now()
                .plus(self.clock_off.0)
                .minus(self.clock_off.1)
                .millis(),
        }
    }

    fn quote(&mut self, data: &[u8], selection: &PcrSelection) -> v1::Quote {
        let quote = self.tpm.quote(data, selection);
        v1::Quote {
            attest: quote.quote.attest,
            signature: quote.quote.signature,
            pcrs: quote
                .pcr_values
                .into_iter()
                .map(|pcr| v1::PcrValue {
                    index: u32::from(pcr.index),
                    digest: pcr.value,
                })
                .collect(),
        }
    }
}

fn nonce_of(bytes: &[u8]) -> Nonce {
    Nonce::from_bytes(bytes.try_into().unwrap())
}

fn selection_of(selection: &v1::PcrSelection) -> PcrSelection {
    let bank = PcrBank::from_id(u16::try_from(selection.bank).unwrap()).unwrap();
    let indexes = selection
        .indexes
        .iter()
        .map(|index| u8::try_from(*index).unwrap());
    PcrSelection::new(bank, indexes).unwrap()
}
