//! Enrolment: how this machine becomes a node, or the node again that it was. The client of the contract's `Enrolment`.
//!
//! The token names the cloud's addresses and pins its root; a node that comes back holds both already. The machine
//! believes nobody else: a valid path to that root and an identity of kind `cloud`, checked by TLS before anything is
//! said. Everything is stored and flushed before the cloud is told so; until then a retry replaces it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::tls::{PeerVerifier, PinnedVerifier, anonymous_client, keyless_client};
use edgeward_identity::{
    Clock, Kind, SpiffeId, Svid, Timestamp, TrustBundle, TrustDomain, TrustView,
};
use edgeward_wire::limits::{ALPN_H2, ENROL_DEADLINE, MAX_ENROL_MESSAGE_BYTES, MAX_MESSAGE_BYTES};
use edgeward_wire::token::BootstrapToken;
use edgeward_wire::v1::enrolment_client::EnrolmentClient;
use edgeward_wire::v1::{self, enrol_request, enrol_response};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::accept::{self, NotAccepted};
use crate::boot::Boot;
use crate::connect::{Connected, NotConnected, connect};
use crate::root::{Conversation, EnrolClaim, Root, RootError, nonce_of};
use crate::state::{Blob, Recent, StateError, StateFolder, Stored};
use crate::tpm::{Priority, SvidSlot};
use crate::view::{CutFloors, Directory};

mod hint;

pub use hint::hint;

/// Longest wait that the cloud may ask for between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(300);
/// Longest reason code that is shown.
const MAX_CODE_CHARS: usize = 64;

/// Told what happens, for people who watch.
pub trait Progress: Send + Sync {
    fn step(&self, line: &str);
}

/// By what the machine asks.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    Token {
        token: &'a BootstrapToken,
        /// Name to ask for, where the token leaves a choice; may be empty.
        wanted_name: &'a str,
    },
    /// The EK of the node that it was.
    Recover(&'a Known),
}

/// What a node that comes back knows: nothing of it is taken from the cloud that answers.
#[derive(Clone, Debug)]
pub struct Known {
    pub node: SpiffeId,
    /// Addresses of the cloud, `host:port`, tried in order.
    pub addresses: Vec<String>,
    pub trust: TrustView,
}

/// What an enrolment needs.
pub struct Enrolment<'a> {
    pub claim: Claim<'a>,
    pub root: &'a dyn Root,
    pub boot: &'a Boot,
    pub clock: Arc<dyn Clock>,
    /// The slot that no SVID in use lives in.
    pub slot: SvidSlot,
}

/// Why this machine is not a node. Nothing that was held before has changed.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    #[error("cloud cannot be reached: {0}")]
    Connect(#[from] NotConnected),
    #[error("the cloud refused: {code}")]
    Refused { code: String },
    #[error("stream to the cloud failed: {0}")]
    Stream(#[from] Box<tonic::Status>),
    #[error("cloud ended the enrolment")]
    Ended,
    #[error("cloud took longer than {} s", ENROL_DEADLINE.as_secs())]
    Deadline,
    #[error("cloud sent a message out of order")]
    Order,
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("what the cloud issued is not usable: {0}")]
    Issued(String),
    #[error("what the cloud issued is not usable: {0}")]
    NotAccepted(#[from] NotAccepted),
    #[error(transparent)]
    State(#[from] StateError),
}

/// How one attempt ended, short of an error.
pub enum Attempt {
    Issued(Box<NewNode>),
    Pending {
        node: String,
        retry: Duration,
    },
    /// The fault is the cloud's and may pass.
    Later {
        code: String,
        retry: Duration,
    },
}

/// What is to be stored before the cloud is told.
pub struct NewNode {
    pub stored: Stored,
    pub recent: Recent,
    talk: Talk,
}

/// An open stream.
struct Talk {
    up: mpsc::Sender<v1::EnrolRequest>,
    down: Streaming<v1::EnrolResponse>,
}

impl Enrolment<'_> {
    /// Enrols and stores. Waits for as long as an operator's approval takes, or a fault of the cloud lasts.
    pub async fn run(
        &self,
        folder: &mut StateFolder,
        progress: &dyn Progress,
    ) -> Result<SpiffeId, NotEnrolled> {
        loop {
            match self.once(progress).await? {
                Attempt::Issued(new) => {
                    folder
                        .write_new_epoch(self.root, &new.stored, &new.recent)
                        .await?;
                    progress.step("stored; telling the cloud");
                    let node = new.stored.node.clone();
                    new.acknowledge().await;
                    return Ok(node);
                }
                Attempt::Pending { node, retry } => {
                    let wait = retry.min(MAX_RETRY);
                    progress.step(&format!(
                        "{node} waits for an operator's approval (edgeward node approve); asking again in {} s",
                        wait.as_secs()
                    ));
                    tokio::time::sleep(wait).await;
                }
                Attempt::Later { code, retry } => {
                    let wait = retry.min(MAX_RETRY);
                    progress.step(&format!(
                        "the cloud cannot enrol this machine now ({code}); asking again in {} s",
                        wait.as_secs()
                    ));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// One attempt. What it gives is not stored yet, and the cloud not told.
    pub async fn once(&self, progress: &dyn Progress) -> Result<Attempt, NotEnrolled> {
        tokio::time::timeout(ENROL_DEADLINE, self.attempt(progress))
            .await
            .map_err(|_| NotEnrolled::Deadline)?
    }

    async fn attempt(&self, progress: &dyn Progress) -> Result<Attempt, NotEnrolled> {
        let trust_domain = self.claim.trust_domain();
        let config = Arc::new(self.claim.tls(self.clock.clone()));
        let connected = connect(self.claim.addresses(), config).await?;
        progress.step(&format!(
            "cloud of {trust_domain} at {} has the pinned root",
            connected.address
        ));
        progress.step(&format!("making the keys ({})", self.root.name()));
        let claims = self.root.begin_enrolment(self.slot).await?;
        let talk = Conversation {
            trust_domain: trust_domain.clone(),
            exporter: connected.exporter,
            nonce: edgeward_evidence::Nonce::from_bytes([0; 32]),
            boot_key: *self.boot.public_key(),
        };
        let mut stream = Talk::open(connected).await?;
        stream
            .send(enrol_request::Step::Begin(self.begin(claims)))
            .await?;
        let challenge = match stream.next().await? {
            enrol_response::Step::Challenge(challenge) => challenge,
            enrol_response::Step::Pending(pending) => return Ok(waits(pending)),
            enrol_response::Step::Refused(refused) => return refusal(refused),
            enrol_response::Step::Issued(_) => return Err(NotEnrolled::Order),
        };
        progress.step("proving the keys and what this machine booted");
        let talk = Conversation {
            nonce: nonce_of(&challenge.nonce)?,
            ..talk
        };
        let proof = self
            .root
            .prove_enrolment(self.slot, self.claim.for_root(), &talk, &challenge)
            .await?;
        stream.send(enrol_request::Step::Proof(proof)).await?;
        match stream.next().await? {
            enrol_response::Step::Issued(issued) => {
                let (stored, recent) = self.check(issued).await?;
                progress.step(&format!("issued: {}", stored.node));
                Ok(Attempt::Issued(Box::new(NewNode {
                    stored,
                    recent,
                    talk: stream,
                })))
            }
            enrol_response::Step::Pending(pending) => Ok(waits(pending)),
            enrol_response::Step::Refused(refused) => refusal(refused),
            enrol_response::Step::Challenge(_) => Err(NotEnrolled::Order),
        }
    }

    fn begin(&self, root: v1::enrol_begin::Root) -> v1::EnrolBegin {
        let begin = v1::EnrolBegin {
            root: Some(root),
            boot_key: self.boot.public_key().point().to_vec(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::EnrolBegin::default()
        };
        match self.claim {
            Claim::Token { token, wanted_name } => v1::EnrolBegin {
                token_id: token.id().to_owned(),
                token_secret: token.secret().expose().to_vec(),
                wanted_name: wanted_name.to_owned(),
                ..begin
            },
            Claim::Recover(known) => v1::EnrolBegin {
                recover: known.node.to_string(),
                ..begin
            },
        }
    }

    /// Believes nothing of what was issued before all of it fits together under the pinned root.
    async fn check(&self, issued: v1::EnrolIssued) -> Result<(Stored, Recent), NotEnrolled> {
        let wrong = |what: &str| NotEnrolled::Issued(what.to_owned());
        let trust_domain = self.claim.trust_domain();
        let now = self.clock.now();
        let bundle = self.claim.roots(&issued, now)?;
        let keys = accept::key_set(&issued.key_set, &bundle, 0, now)?;
        accept::deny_list(&issued.deny_list, &keys, trust_domain, 0, now)?;
        let chain = issued
            .svid_chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let signer = self.root.signer(self.slot, Priority::Session).await?;
        let svid =
            Svid::new(chain, signer).map_err(|error| NotEnrolled::Issued(error.to_string()))?;
        let node: SpiffeId = issued
            .spiffe_id
            .parse()
            .map_err(|_| wrong("the identity is malformed"))?;
        if *svid.id() != node || node.trust_domain() != trust_domain {
            return Err(wrong("the certificate is of another identity"));
        }
        if matches!(self.claim, Claim::Recover(known) if known.node != node) {
            return Err(wrong(
                "the certificate is of another node than this one was",
            ));
        }
        if !issued.slice.is_empty() {
            accept::slice(&issued.slice, &keys, &node, 0, now)?;
        }
        let expect = ResultExpect {
            trust_domain,
            spiffe_id: &node,
            svid_spki: &svid.leaf().key.spki_hash(),
            least_number: 0,
            now,
        };
        let result = check_result(&issued.result, &keys, &expect)
            .map_err(|error| NotEnrolled::Issued(error.to_string()))?;
        if result.result().boot_key() != self.boot.public_key() {
            return Err(wrong("the attestation result is about another boot"));
        }
        let v4 = match issued.overlay.as_ref().map(|overlay| overlay.ipv4.as_str()) {
            None | Some("") => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| wrong("the overlay address is malformed"))?,
            ),
        };
        let stored = Stored {
            node,
            addresses: self.claim.addresses().to_vec(),
            slot: self.slot,
            svid_chain: issued.svid_chain.into_iter().map(Blob).collect(),
            trust_bundle: bundle.to_spiffe_json().into(),
            key_set: issued.key_set.into(),
            deny_list: issued.deny_list.into(),
            slice: issued.slice.into(),
            v4,
            peers: Directory::default().to_stored(),
            cuts: CutFloors::default(),
            join: 0,
            glass: Default::default(),
            apps: Default::default(),
        };
        let mut recent = Recent::at(now, self.boot.kernel(), self.clock.boottime());
        recent.result_number = result.number();
        // Enrolment is hearing the cloud too: an outage counts from here.
        recent.last_heartbeat = result.result().issued();
        recent.result = issued.result;
        Ok((stored, recent))
    }
}

impl Claim<'_> {
    fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Token { token, .. } => token.trust_domain(),
            Self::Recover(known) => known.node.trust_domain(),
        }
    }

    fn addresses(&self) -> &[String] {
        match self {
            Self::Token { token, .. } => token.addresses(),
            Self::Recover(known) => &known.addresses,
        }
    }

    fn tls(&self, clock: Arc<dyn Clock>) -> rustls::ClientConfig {
        match self {
            Self::Token { token, .. } => {
                let domain = token.trust_domain().clone();
                let verifier = PinnedVerifier::new(*token.pin(), domain, clock);
                anonymous_client(verifier, &[ALPN_H2])
            }
            Self::Recover(known) => {
                let trust = Arc::new(ArcSwap::from_pointee(known.trust.clone()));
                let verifier = PeerVerifier::mandatory(trust, clock, &[Kind::Cloud]);
                keyless_client(verifier, &[ALPN_H2])
            }
        }
    }

    fn for_root(&self) -> EnrolClaim<'_> {
        match self {
            Self::Token { token, .. } => EnrolClaim::Token(token.id()),
            Self::Recover(known) => EnrolClaim::Recover(&known.node),
        }
    }

    /// The roots to go on with. A token names one that must be among those the cloud sends; a node that comes back goes
    /// from its own to the newest by the signed steps between them.
    fn roots(&self, issued: &v1::EnrolIssued, now: Timestamp) -> Result<TrustBundle, NotEnrolled> {
        match self {
            Self::Token { token, .. } => {
                let domain = token.trust_domain().clone();
                let bundle = TrustBundle::from_spiffe_json(domain, &issued.trust_bundle)
                    .map_err(|error| NotEnrolled::Issued(error.to_string()))?;
                match bundle.root_with_spki(token.pin()) {
                    Some(_) => Ok(bundle),
                    None => Err(NotEnrolled::Issued(
                        "the trust bundle lacks the pinned root".to_owned(),
                    )),
                }
            }
            Self::Recover(known) => Ok(accept::authorities(
                &issued.authorities,
                &known.trust.bundle,
                now,
            )?),
        }
    }
}

impl NewNode {
    /// Tells the cloud that everything is stored.
    pub async fn acknowledge(self) {
        let acknowledge = v1::EnrolAcknowledge {};
        // A session with the new SVID acknowledges it just as well.
        let _ = self
            .talk
            .send(enrol_request::Step::Acknowledge(acknowledge))
            .await;
        self.talk.finish().await;
    }
}

impl Talk {
    async fn open(connected: Connected) -> Result<Self, NotEnrolled> {
        let (up, requests) = mpsc::channel(2);
        let mut client = EnrolmentClient::new(connected.channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ENROL_MESSAGE_BYTES);
        let down = client
            .enrol(ReceiverStream::new(requests))
            .await
            .map_err(Box::new)?
            .into_inner();
        Ok(Self { up, down })
    }

    async fn send(&self, step: enrol_request::Step) -> Result<(), NotEnrolled> {
        let message = v1::EnrolRequest { step: Some(step) };
        self.up.send(message).await.map_err(|_| NotEnrolled::Ended)
    }

    async fn next(&mut self) -> Result<enrol_response::Step, NotEnrolled> {
        let message = self.down.message().await.map_err(Box::new)?;
        message
            .ok_or(NotEnrolled::Ended)?
            .step
            .ok_or(NotEnrolled::Order)
    }

    /// Lets the last message out and waits for the cloud to end the stream.
    async fn finish(mut self) {
        drop(self.up);
        let drained = async { while let Ok(Some(_)) = self.down.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), drained).await;
    }
}

fn waits(pending: v1::EnrolPending) -> Attempt {
    Attempt::Pending {
        node: pending.node,
        retry: Duration::from_secs(u64::from(pending.retry_seconds.max(1))),
    }
}

fn refusal(refused: v1::Refused) -> Result<Attempt, NotEnrolled> {
    // A code goes to terminals and logs: nothing else may come with it.
    let code: String = refused
        .code
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(MAX_CODE_CHARS)
        .collect();
    match refused.retry_seconds {
        0 => Err(NotEnrolled::Refused { code }),
        seconds => Ok(Attempt::Later {
            code,
            retry: Duration::from_secs(u64::from(seconds)),
        }),
    }
}

#[cfg(test)]
mod tests;
