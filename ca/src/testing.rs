//! A whole cloud in this process, and machines with software TPMs that talk to it over TLS. For tests.

use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::make_credential::{ActivationSecret, Credential};
use edgeward_evidence::testing::SoftwareTpm;
use edgeward_evidence::tpm::{PcrBank, PcrSelection};
use edgeward_evidence::transcript::Moment;
use edgeward_evidence::{Exporter, Nonce, Transcript};
use edgeward_identity::tls::{
    Credentials, EVIDENCE_EXPORTER_LABEL, PeerVerifier, PinnedVerifier, anonymous_client, client,
};
use edgeward_identity::{
    Clock, Kind, Secret, Signer, SoftwareKey, SpiffeId, Svid, SystemClock, Timestamp, TrustDomain,
};
use edgeward_policy::{CompiledPolicy, Labels, SourceFile};
use edgeward_runtime::readiness::Readiness;
use edgeward_runtime::shutdown::Tasks;
use edgeward_wire::limits::ALPN_H2;
use edgeward_wire::v1::enrolment_client::EnrolmentClient;
use edgeward_wire::v1::session_client::SessionClient;
use edgeward_wire::v1::{self, cloud_message, enrol_request, enrol_response, node_message};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, ServerName};
use sqlx::Row;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::api::Control;
use crate::config::Config;
use crate::cut::NodeControl;
use crate::hub::Hub;
use crate::store::tokens::TokenRow;

/// The secret of every token made here.
pub(crate) const SECRET: &[u8] = b"a secret of thirty-two bytes....";

pub(crate) struct Cloud {
    pub(crate) hub: Arc<Hub>,
    pub(crate) config: Arc<Config>,
    stop: CancellationToken,
    _ends: DropGuard,
    running: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

/// A machine with a TPM in software.
pub(crate) struct Machine {
    pub(crate) tpm: SoftwareTpm,
    pub(crate) boot_key: SoftwareKey,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// One attempt to enrol.
pub(crate) struct Attempt {
    requests: mpsc::Sender<v1::EnrolRequest>,
    responses: Streaming<v1::EnrolResponse>,
    pub(crate) exporter: [u8; 32],
}

/// A session as an agent sees it.
pub(crate) struct Agent {
    requests: mpsc::Sender<v1::NodeMessage>,
    responses: Streaming<v1::CloudMessage>,
    pub(crate) exporter: [u8; 32],
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

pub(crate) fn node(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), Kind::Node, name).unwrap()
}

impl Cloud {
    /// A cloud that lists the EKs of these machines.
    pub(crate) async fn start(machines: &[&Machine]) -> Self {
        Self::start_with(machines, "").await
    }

    /// As [`Cloud::start`], with more lines of configuration.
    pub(crate) async fn start_with(machines: &[&Machine], more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listed: Vec<String> = machines
            .iter()
            .map(|machine| machine.tpm.ek_public().digest().to_string())
            .collect();
        let roots = folder.path().join("data/ek-roots");
        std::fs::create_dir_all(&roots).unwrap();
        std::fs::write(roots.join("listed.txt"), listed.join("\n")).unwrap();
        let text = format!(
            "trust_domain = \"plant.example\"\nlisten = \"127.0.0.1:1\"\ndata_dir = {:?}\n{more}",
            folder.path().join("data")
        );
        std::fs::write(folder.path().join("edgeward.toml"), text).unwrap();
        Self::open(folder).await
    }

    async fn open(folder: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = folder.path().join("edgeward.toml");
        let mut config = Config::load_with(&path, std::iter::empty()).unwrap();
        config.listen = listener.local_addr().unwrap();
        let config = Arc::new(config);
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let hub = crate::run::start(
            config.clone(),
            listener,
            Arc::new(SystemClock),
            &Readiness::new(),
            &mut tasks,
        )
        .await
        .unwrap();
        let running = tokio::spawn(async move { tasks.run().await.unwrap() });
        Self {
            hub,
            config,
            _ends: stop.clone().drop_guard(),
            stop,
            running,
            folder,
        }
    }

    /// Ends it well and starts it again on what it left.
    pub(crate) async fn restart(self) -> Self {
        self.stop.cancel();
        self.running.await.unwrap();
        drop(self.hub);
        Self::open(self.folder).await
    }

    pub(crate) fn control(&self) -> NodeControl {
        NodeControl::new(self.hub.clone())
    }

    /// A token for one use, changed as wanted; its id is `t1` unless changed.
    pub(crate) async fn token(&self, change: impl FnOnce(&mut TokenRow)) -> String {
        use ring::digest::{SHA256, digest};
        let now = SystemClock.now();
        let mut token = TokenRow {
            id: "t1".to_owned(),
            secret_hash: hex::encode(digest(&SHA256, SECRET)),
            created: now,
            created_by: "cloud".to_owned(),
            expires: now.plus(Duration::from_secs(7200)),
            uses: 1,
            used: 0,
            labels: Labels::from([("role".to_owned(), "gateway".to_owned())]),
            name: None,
            ek: None,
            approval: false,
            revoked: None,
            revoked_by: None,
        };
        change(&mut token);
        let mut tx = self.hub.store.begin("test").await.unwrap();
        tx.insert_token(&token).await.unwrap();
        tx.commit().await.unwrap();
        token.id
    }

    /// Puts a policy in force whose one profile for gateways is what this machine measures now.
    pub(crate) fn profile_of(&self, machine: &Machine) {
        let value = hex::encode(machine.tpm.pcrs[7]);
        self.policy(
            1,
            &format!(
                "tier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{value}\"] }}\n"
            ),
        );
    }

    /// Puts a policy in force with one profile for gateways, and everybody among them reaching everybody's `ssh`.
    pub(crate) fn policy(&self, number: u64, profile: &str) {
        let subjects = match profile.contains("software") {
            true => "tier = [\"software\"]\nstate = [\"none\"]\n",
            false => "",
        };
        let text = format!(
            "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n[profile.gateway]\n{profile}\n\
             [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n\
             [service.shell]\non = \"gateways\"\n[service.shell.interface.ssh]\nnet = \"mesh\"\nl4 = \"tcp/22\"\n\
             [[rule]]\nid = \"all\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\nto = [\"shell/ssh\"]\ndo = [\"connect\"]\n{subjects}"
        );
        let files = [SourceFile::new("test.toml".to_owned(), text)];
        let policy = CompiledPolicy::compile(&files, number)
            .unwrap_or_else(|report| panic!("{:?}", report.diagnostics));
        self.hub.set_policy(Arc::new(policy));
    }

    /// Type and record of every event so far, oldest first.
    pub(crate) async fn events(&self) -> Vec<(String, String)> {
        self.hub.audit.flush().await;
        sqlx::query("SELECT type, record FROM events ORDER BY leaf")
            .fetch_all(&mut *self.hub.store.read().await.unwrap())
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("type"), row.get("record")))
            .collect()
    }

    /// Whether an event of this type with this code was recorded.
    pub(crate) async fn recorded(&self, kind: &str, code: &str) -> bool {
        let code = format!("\"code\":\"{code}\"");
        self.events()
            .await
            .iter()
            .any(|(found, record)| found == kind && record.contains(&code))
    }

    /// Everything that an attempt could change, to be compared before and after.
    pub(crate) async fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for sql in [
            "SELECT id || ' ' || used AS row FROM tokens ORDER BY id",
            "SELECT token || ' ' || root AS row FROM token_uses ORDER BY token, root",
            "SELECT name || ' ' || status || ' ' || root AS row FROM nodes ORDER BY name",
            "SELECT serial || ' ' || acknowledged AS row FROM svids ORDER BY serial",
            "SELECT node || ' ' || state || ' ' || changed AS row FROM attestations ORDER BY node",
            "SELECT key_hash || ' ' || reason AS row FROM denied ORDER BY key_hash",
            "SELECT name || ' ' || value AS row FROM facts ORDER BY name",
        ] {
            let rows = sqlx::query(sql)
                .fetch_all(&mut *self.hub.store.read().await.unwrap())
                .await
                .unwrap();
            state.extend(rows.iter().map(|row| row.get::<String, _>("row")));
        }
        state
    }

    pub(crate) async fn connect(&self, svid: Option<&Svid>) -> (Channel, [u8; 32]) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = match svid {
            None => anonymous_client(
                PinnedVerifier::new(self.hub.keys.root_pin(), domain(), clock),
                &[ALPN_H2],
            ),
            Some(svid) => client(
                Credentials::new(svid),
                PeerVerifier::mandatory(self.hub.trust.clone(), clock, &[Kind::Cloud]),
                &[ALPN_H2],
            ),
        };
        let exporter = Arc::new(Mutex::new([0; 32]));
        let (connector, taken) = (TlsConnector::from(Arc::new(config)), exporter.clone());
        let address = self.config.listen;
        let channel = Endpoint::from_static("http://cloud")
            .connect_with_connector(tower::service_fn(move |_| {
                let (connector, taken) = (connector.clone(), taken.clone());
                async move {
                    let stream = TcpStream::connect(address).await?;
                    let name = ServerName::try_from("cloud").unwrap();
                    let stream = connector.connect(name, stream).await?;
                    *taken.lock() = stream
                        .get_ref()
                        .1
                        .export_keying_material([0; 32], EVIDENCE_EXPORTER_LABEL, None)
                        .unwrap();
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            }))
            .await
            .unwrap();
        let exporter = *exporter.lock();
        (channel, exporter)
    }

    pub(crate) async fn attempt(&self) -> Attempt {
        let (channel, exporter) = self.connect(None).await;
        let (requests, receiver) = mpsc::channel(4);
        let responses = EnrolmentClient::new(channel)
            .enrol(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Attempt {
            requests,
            responses,
            exporter,
        }
    }

    /// The whole of an enrolment; the code where it is refused.
    pub(crate) async fn enrol(
        &self,
        machine: &mut Machine,
        token: &str,
        name: &str,
    ) -> Result<v1::EnrolIssued, String> {
        let mut attempt = self.attempt().await;
        attempt.begin(machine.begin(token, name)).await;
        let challenge = match attempt.next().await {
            enrol_response::Step::Challenge(challenge) => challenge,
            enrol_response::Step::Refused(refused) => return Err(refused.code),
            other => panic!("{other:?}"),
        };
        let proof = machine.prove(&challenge, &attempt.exporter, token);
        attempt.prove(proof).await;
        match attempt.next().await {
            enrol_response::Step::Issued(issued) => {
                machine.chain = issued
                    .svid_chain
                    .iter()
                    .map(|der| CertificateDer::from(der.clone()))
                    .collect();
                attempt.acknowledge().await;
                Ok(issued)
            }
            enrol_response::Step::Pending(pending) => Err(format!("pending {}", pending.node)),
            enrol_response::Step::Refused(refused) => Err(refused.code),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a session and says Hello.
    pub(crate) async fn agent(&self, machine: &Machine) -> Agent {
        let agent = self.stranger(&machine.svid()).await.unwrap();
        agent.send(node_message::Body::Hello(machine.hello())).await;
        agent
    }

    /// A stream without a Hello.
    pub(crate) async fn stranger(&self, svid: &Svid) -> Result<Agent, tonic::Status> {
        let (channel, exporter) = self.connect(Some(svid)).await;
        let (requests, receiver) = mpsc::channel(16);
        let responses = SessionClient::new(channel)
            .attach(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Agent {
            requests,
            responses,
            exporter,
        })
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            tpm: SoftwareTpm::new(),
            boot_key: SoftwareKey::generate().unwrap(),
            chain: Vec::new(),
        }
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
        let data = Transcript {
            trust_domain: &domain(),
            boot_key: self.boot_key.public_key(),
            moment: Moment::EnrolTpm {
                token_id: token,
                nonce: &nonce_of(&challenge.nonce),
                exporter: &Exporter::from_bytes(*exporter),
                ek_digest: &self.tpm.ek_public().digest(),
                ak_name: &self.tpm.ak_public().name(),
                svid_public: &self.tpm.svid_public().to_bytes(),
                secret: &secret,
            },
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
        let quote = self.quote(data.as_bytes(), &selection);
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

impl Attempt {
    pub(crate) async fn begin(&self, begin: v1::EnrolBegin) {
        self.send(enrol_request::Step::Begin(begin)).await;
    }

    pub(crate) async fn prove(&self, proof: v1::EnrolProof) {
        self.send(enrol_request::Step::Proof(proof)).await;
    }

    /// Acknowledges and waits until the cloud is done with it.
    pub(crate) async fn acknowledge(&mut self) {
        let step = enrol_request::Step::Acknowledge(v1::EnrolAcknowledge {});
        self.send(step).await;
        assert!(self.responses.message().await.unwrap().is_none());
    }

    pub(crate) async fn next(&mut self) -> enrol_response::Step {
        self.responses
            .message()
            .await
            .unwrap()
            .unwrap()
            .step
            .unwrap()
    }

    async fn send(&self, step: enrol_request::Step) {
        let _ = self
            .requests
            .send(v1::EnrolRequest { step: Some(step) })
            .await;
    }
}

impl Agent {
    pub(crate) async fn send(&self, body: node_message::Body) {
        let _ = self
            .requests
            .send(v1::NodeMessage { body: Some(body) })
            .await;
    }

    pub(crate) async fn next(&mut self) -> Option<cloud_message::Body> {
        tokio::time::timeout(Duration::from_secs(20), self.responses.message())
            .await
            .expect("the cloud says something")
            .ok()
            .flatten()
            .and_then(|message| message.body)
    }

    /// Skips messages until one is what is wanted. `None`: the stream ended.
    pub(crate) async fn until<T>(
        &mut self,
        wanted: impl Fn(cloud_message::Body) -> Option<T>,
    ) -> Option<T> {
        loop {
            if let Some(found) = wanted(self.next().await?) {
                return Some(found);
            }
        }
    }

    pub(crate) async fn challenge(&mut self) -> v1::AttestChallenge {
        self.until(|body| match body {
            cloud_message::Body::Challenge(challenge) => Some(challenge),
            _ => None,
        })
        .await
        .unwrap()
    }

    pub(crate) async fn outcome(&mut self) -> v1::AttestOutcome {
        self.until(|body| match body {
            cloud_message::Body::Outcome(outcome) => Some(outcome),
            _ => None,
        })
        .await
        .unwrap()
    }

    /// Answers the next challenge well; the outcome.
    pub(crate) async fn pass(&mut self, machine: &mut Machine, name: &str) -> v1::AttestOutcome {
        let challenge = self.challenge().await;
        let answer = machine.answer(&challenge, &self.exporter, name);
        self.send(node_message::Body::Evidence(answer)).await;
        self.outcome().await
    }

    /// The code with which the cloud ended the stream.
    pub(crate) async fn goodbye(&mut self) -> Option<String> {
        self.until(|body| match body {
            cloud_message::Body::Goodbye(goodbye) => Some(goodbye.code),
            _ => None,
        })
        .await
    }
}

pub(crate) fn copy_of(key: &SoftwareKey) -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::from_pkcs8(key.pkcs8().clone()).unwrap())
}

/// Waits until something comes true, five seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    for _ in 0..500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
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

/// Operators' acts, without naming the trait everywhere.
impl Cloud {
    pub(crate) async fn quarantine(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().quarantine(name, &by, "test").await.unwrap();
    }

    pub(crate) async fn release(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().release(name, &by).await.unwrap();
    }

    pub(crate) async fn remove(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().remove(name, &by, "test").await.unwrap();
    }

    pub(crate) async fn approve(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().approve(name, &by).await.unwrap();
    }
}
