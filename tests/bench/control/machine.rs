//! Machines with software TPMs that enrol and keep sessions over gRPC, as agents do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use arc_swap::ArcSwap;
use edgeward_evidence::ima::{IMA_PCR, MAX_IMA_PART_BYTES, window};
use edgeward_evidence::make_credential::Credential;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::testing::{BootLogBuilder, SoftwareTpm};
use edgeward_evidence::tpm::{HashAlg, PcrBank, PcrSelection};
use edgeward_evidence::transcript::Moment;
use edgeward_evidence::{Digest, Exporter, Nonce, Transcript};
use edgeward_identity::tls::peer::TrustView;
use edgeward_identity::tls::{
    Credentials, EVIDENCE_EXPORTER_LABEL, EXPORTER_BYTES, PeerVerifier, PinnedVerifier,
    anonymous_client, client,
};
use edgeward_identity::{
    Clock, DenyList, Kind, Secret, Signer, SoftwareKey, SpiffeId, Svid, SystemClock, TrustBundle,
    TrustDomain,
};
use edgeward_wire::limits::ALPN_H2;
use edgeward_wire::token::BootstrapToken;
use edgeward_wire::v1::enrolment_client::EnrolmentClient;
use edgeward_wire::v1::session_client::SessionClient;
use edgeward_wire::v1::{self, cloud_message, enrol_request, enrol_response, node_message};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

type ExporterBytes = [u8; EXPORTER_BYTES];

/// One machine, before or after it enrolled.
#[derive(Debug)]
pub struct Machine {
    tpm: SoftwareTpm,
    boot_key: SoftwareKey,
    boot: [u8; 16],
    name: String,
    logs: Arc<Logs>,
}

/// What machines of one make have measured, and what of it the policy compares.
#[derive(Debug)]
pub struct Logs {
    boot: Vec<u8>,
    boot_hash: Digest,
    ima: ImaList,
    pcrs: Vec<Vec<u8>>,
}

impl Logs {
    /// SHA-256 of every file that IMA measured.
    pub const FILE: [u8; 32] = [0x5e; 32];

    /// A boot with Secure Boot, its log and the IMA list each about as long as asked for, in bytes.
    pub fn new(boot_bytes: usize, ima_bytes: usize) -> Self {
        let mut log = BootLogBuilder::typical(true);
        let mut boot = log.build();
        while boot.len() < boot_bytes {
            for _ in 0..16 {
                log = log.grub_command(
                    "menuentry_id_option=--id a line of a boot loader's configuration",
                );
            }
            boot = log.build();
        }
        let mut ima = ImaList::new();
        let mut number = 0;
        while ima.bytes.len() < ima_bytes {
            number += 1;
            ima.add(
                format!("/usr/lib/x86_64-linux-gnu/library-{number}.so"),
                HashAlg::Sha256,
                &Self::FILE,
            );
        }
        let mut pcrs = log.pcrs(HashAlg::Sha256);
        if let Some(pcr) = pcrs.get_mut(usize::from(IMA_PCR)) {
            *pcr = ima.pcr.to_vec();
        }
        Self {
            boot_hash: Digest::of(&boot),
            boot,
            ima,
            pcrs,
        }
    }

    /// Lengths of the boot log and the IMA list, in bytes.
    pub fn lengths(&self) -> (usize, usize) {
        (self.boot.len(), self.ima.bytes.len())
    }

    fn sent(&self, wanted: &v1::LogsWanted) -> anyhow::Result<v1::Logs> {
        let ima = match wanted.ima {
            true => {
                let part = window(&self.ima.bytes, wanted.ima_known, MAX_IMA_PART_BYTES)?;
                Some(v1::ImaPart {
                    path: "/sys/kernel/security/ima/binary_runtime_measurements".to_owned(),
                    first: wanted.ima_known,
                    entries: part.entries.to_vec(),
                    more: part.more,
                    missing: String::new(),
                })
            }
            false => None,
        };
        let new = wanted.boot && wanted.boot_known != self.boot_hash.as_bytes();
        Ok(v1::Logs {
            boot: new.then(|| v1::BootLog {
                path: "/sys/kernel/security/tpm0/binary_bios_measurements".to_owned(),
                log: self.boot.clone(),
                missing: String::new(),
            }),
            ima,
            apps: None,
        })
    }
}

/// What a machine holds once it is a node.
#[derive(Debug)]
pub struct Enrolled {
    pub id: SpiffeId,
    svid: Svid,
    bundle: TrustBundle,
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Sender<v1::NodeMessage>,
    responses: Streaming<v1::CloudMessage>,
    exporter: ExporterBytes,
}

impl Machine {
    pub fn new(number: usize, logs: &Arc<Logs>) -> anyhow::Result<Self> {
        let boot = u128::try_from(number)?.to_be_bytes();
        let mut tpm = SoftwareTpm::new();
        for (pcr, value) in tpm.pcrs.iter_mut().zip(&logs.pcrs) {
            pcr.copy_from_slice(value);
        }
        Ok(Self {
            tpm,
            boot_key: SoftwareKey::generate()?,
            boot,
            name: format!("m-{number}"),
            logs: logs.clone(),
        })
    }

    /// `count` machines, numbered from 1, with logs as long as a test asks for, in bytes.
    pub fn many(count: usize, (boot, ima): (usize, usize)) -> anyhow::Result<Vec<Self>> {
        let logs = Arc::new(Logs::new(boot, ima));
        (1..=count).map(|number| Self::new(number, &logs)).collect()
    }

    /// From now on its quotes are bad: register 7 has another value.
    pub fn turn_bad(&mut self) {
        if let Some(pcr) = self.tpm.pcrs.get_mut(7) {
            *pcr = [0xbd; 32];
        }
    }

    pub fn pcr_7(&self) -> String {
        self.tpm.pcrs.get(7).map(hex::encode).unwrap_or_default()
    }

    pub fn ek_digest(&self) -> String {
        self.tpm.ek_public().digest().to_string()
    }

    pub fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// The key that the SVID certifies.
    pub fn svid_key(&self) -> &dyn Signer {
        &self.tpm.svid
    }

    /// A whole enrolment on a connection of its own, up to the cloud's end of the stream.
    pub async fn enrol(
        &mut self,
        address: SocketAddr,
        token: &BootstrapToken,
    ) -> anyhow::Result<Enrolled> {
        let domain = token.trust_domain().clone();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let pinned = PinnedVerifier::new(*token.pin(), domain.clone(), clock);
        let (channel, exporter) = connect(address, anonymous_client(pinned, &[ALPN_H2])).await?;
        let (requests, receiver) = mpsc::channel(4);
        let send = async |step| {
            requests
                .send(v1::EnrolRequest { step: Some(step) })
                .await
                .context("the cloud hung up")
        };
        send(enrol_request::Step::Begin(self.begin(token))).await?;
        let mut responses = EnrolmentClient::new(channel)
            .enrol(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let challenge = match next(&mut responses).await? {
            enrol_response::Step::Challenge(challenge) => challenge,
            other => anyhow::bail!("no challenge: {other:?}"),
        };
        let proof = self.prove(&challenge, exporter, token)?;
        send(enrol_request::Step::Proof(proof)).await?;
        let issued = match next(&mut responses).await? {
            enrol_response::Step::Issued(issued) => issued,
            other => anyhow::bail!("not issued: {other:?}"),
        };
        send(enrol_request::Step::Acknowledge(v1::EnrolAcknowledge {})).await?;
        anyhow::ensure!(responses.message().await?.is_none(), "the stream goes on");
        self.enrolled(issued, &domain)
    }

    /// Opens a session and says Hello.
    pub async fn attach(&self, address: SocketAddr, node: &Enrolled) -> anyhow::Result<Session> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let trust = Arc::new(ArcSwap::from_pointee(TrustView {
            bundle: node.bundle.clone(),
            deny: DenyList::default(),
        }));
        let verifier = PeerVerifier::mandatory(trust, clock, &[Kind::Cloud]);
        let config = client(Credentials::new(&node.svid), verifier, &[ALPN_H2]);
        let (channel, exporter) = connect(address, config).await?;
        let (requests, receiver) = mpsc::channel(16);
        let hello = v1::Hello {
            agent_version: "bench".to_owned(),
            boot_id: self.boot.to_vec(),
            boot_key: self.boot_key.public_key().point().to_vec(),
            endpoints: vec!["192.0.2.1:51820".to_owned()],
            ..v1::Hello::default()
        };
        requests
            .send(v1::NodeMessage {
                body: Some(node_message::Body::Hello(hello)),
            })
            .await?;
        let responses = SessionClient::new(channel)
            .attach(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Session {
            requests,
            responses,
            exporter,
        })
    }

    /// Quotes for a challenge of `session`.
    pub fn answer(
        &mut self,
        node: &Enrolled,
        session: &Session,
        challenge: &v1::AttestChallenge,
    ) -> anyhow::Result<node_message::Body> {
        let data = self.transcript(
            node.id.trust_domain(),
            Moment::AttestTpm {
                node: &node.id,
                nonce: &nonce(&challenge.nonce)?,
                exporter: &Exporter::from_bytes(session.exporter),
                ek_digest: &self.tpm.ek_public().digest(),
                ak_name: &self.tpm.ak_public().name(),
                svid_public: &self.tpm.svid_public().to_bytes(),
            },
        );
        anyhow::ensure!(!challenge.renew, "a renewal within minutes of the issue");
        let mut quote = self.quote(&data, challenge.pcr_selection.as_ref())?;
        let values: Vec<u8> = quote
            .pcrs
            .iter()
            .flat_map(|pcr| pcr.digest.iter().copied())
            .collect();
        if challenge.pcrs_known == Digest::of(&values).as_bytes() {
            quote.pcrs.clear();
        }
        let wanted = challenge.logs.as_ref();
        Ok(node_message::Body::Evidence(v1::AttestEvidence {
            nonce: challenge.nonce.clone(),
            root: Some(v1::attest_evidence::Root::Tpm(v1::TpmEvidence {
                quote: Some(quote),
                ..v1::TpmEvidence::default()
            })),
            logs: wanted.map(|wanted| self.logs.sent(wanted)).transpose()?,
            app_control: String::new(),
            time: SystemClock.now().millis(),
        }))
    }

    fn begin(&self, token: &BootstrapToken) -> v1::EnrolBegin {
        v1::EnrolBegin {
            token_id: token.id().to_owned(),
            token_secret: token.secret().expose().to_vec(),
            wanted_name: self.name.clone(),
            root: Some(v1::enrol_begin::Root::Tpm(v1::TpmClaims {
                ek_certificates: Vec::new(),
                ek_public: self.tpm.ek_public().to_bytes(),
                ak_public: self.tpm.ak_public().to_bytes(),
                svid_public: self.tpm.svid_public().to_bytes(),
            })),
            boot_key: self.boot_key.public_key().point().to_vec(),
            agent_version: "bench".to_owned(),
            recover: String::new(),
        }
    }

    fn prove(
        &mut self,
        challenge: &v1::EnrolChallenge,
        exporter: ExporterBytes,
        token: &BootstrapToken,
    ) -> anyhow::Result<v1::EnrolProof> {
        let credential = Credential {
            id_object: challenge.credential_blob.clone(),
            encrypted_secret: challenge.encrypted_secret.clone(),
        };
        let secret = self
            .tpm
            .ek
            .activate(&self.tpm.ak_public().name(), &credential)
            .context("the challenge is for another machine")?;
        let data = self.transcript(
            token.trust_domain(),
            Moment::EnrolTpm {
                token_id: token.id(),
                nonce: &nonce(&challenge.nonce)?,
                exporter: &Exporter::from_bytes(exporter),
                ek_digest: &self.tpm.ek_public().digest(),
                ak_name: &self.tpm.ak_public().name(),
                svid_public: &self.tpm.svid_public().to_bytes(),
                secret: &Secret::new(secret),
            },
        );
        let certify = self.tpm.certify(data.as_bytes());
        Ok(v1::EnrolProof {
            proof: Some(v1::enrol_proof::Proof::Tpm(v1::TpmProof {
                certify_attest: certify.attest,
                certify_signature: certify.signature,
                quote: Some(self.quote(&data, challenge.pcr_selection.as_ref())?),
            })),
        })
    }

    fn enrolled(&self, issued: v1::EnrolIssued, domain: &TrustDomain) -> anyhow::Result<Enrolled> {
        let chain = issued.svid_chain.into_iter().map(CertificateDer::from);
        let key = SoftwareKey::from_pkcs8(self.tpm.svid.pkcs8().clone())?;
        let svid = Svid::new(chain.collect(), Arc::new(key))?;
        Ok(Enrolled {
            id: svid.id().clone(),
            svid,
            bundle: TrustBundle::from_spiffe_json(domain.clone(), &issued.trust_bundle)?,
        })
    }

    fn transcript(&self, trust_domain: &TrustDomain, moment: Moment<'_>) -> Digest {
        Transcript {
            trust_domain,
            boot_key: self.boot_key.public_key(),
            moment,
        }
        .qualifying_data()
    }

    fn quote(
        &mut self,
        data: &Digest,
        selection: Option<&v1::PcrSelection>,
    ) -> anyhow::Result<v1::Quote> {
        let selection = selection.context("no selection of registers")?;
        let bank = PcrBank::from_id(u16::try_from(selection.bank)?)?;
        let indexes: Vec<u8> = selection
            .indexes
            .iter()
            .map(|index| u8::try_from(*index))
            .collect::<Result<_, _>>()?;
        let selection = PcrSelection::new(bank, indexes)?;
        let quote = self.tpm.quote(data.as_bytes(), &selection);
        Ok(v1::Quote {
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
        })
    }
}

impl Session {
    pub async fn send(&self, body: node_message::Body) -> anyhow::Result<()> {
        self.requests
            .send(v1::NodeMessage { body: Some(body) })
            .await
            .context("the cloud hung up")
    }

    /// The next message; fails where the session ended.
    pub async fn next(&mut self) -> anyhow::Result<cloud_message::Body> {
        let message = self
            .responses
            .message()
            .await?
            .context("the session ended")?;
        match message.body.context("an empty message")? {
            cloud_message::Body::Goodbye(goodbye) => anyhow::bail!("goodbye: {}", goodbye.code),
            body => Ok(body),
        }
    }
}

/// A connection that is made at once, and what it exports.
async fn connect(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> anyhow::Result<(Channel, ExporterBytes)> {
    let exporter = Arc::new(Mutex::new([0; EXPORTER_BYTES]));
    let (connector, taken) = (TlsConnector::from(Arc::new(config)), exporter.clone());
    let channel = Endpoint::from_static("http://cloud")
        .connect_with_connector(tower::service_fn(move |_| {
            let (connector, taken) = (connector.clone(), taken.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("cloud").map_err(std::io::Error::other)?;
                let stream = connector.connect(name, stream).await?;
                let exported = stream
                    .get_ref()
                    .1
                    .export_keying_material([0; EXPORTER_BYTES], EVIDENCE_EXPORTER_LABEL, None)
                    .map_err(std::io::Error::other)?;
                *taken
                    .lock()
                    .map_err(|_| std::io::Error::other("poisoned"))? = exported;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await?;
    let exporter = *exporter.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    Ok((channel, exporter))
}

async fn next(
    responses: &mut Streaming<v1::EnrolResponse>,
) -> anyhow::Result<enrol_response::Step> {
    let message = responses.message().await?.context("the stream ended")?;
    message.step.context("an empty message")
}

fn nonce(bytes: &[u8]) -> anyhow::Result<Nonce> {
    Ok(Nonce::from_bytes(bytes.try_into().context("nonce length")?))
}
