//! How a machine becomes a node: token, evidence, certificate. The server of the contract's `Enrolment`.
//!
//! One stream, one attempt: begin, challenge, proof, issued, acknowledge. Nothing is written before the proof; an
//! attempt is memory within bounds, and so holds back nobody else, whichever token and EK it names.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_evidence::make_credential::{ActivationSecret, draw_secret};
use edgeward_evidence::verify::VerifiedEvidence;
use edgeward_evidence::{EkRoots, Exporter, Nonce, make_credential};
use edgeward_identity::{Kind, SpiffeId, SpkiHash};
use edgeward_wire::limits::MAX_ENROL_MESSAGE_BYTES;
use edgeward_wire::v1::enrolment_server::{Enrolment, EnrolmentServer};
use edgeward_wire::v1::{self, enrol_request, enrol_response};
use futures::Stream;
use ring::rand::SystemRandom;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::guard::actor_of;
use crate::attest::Measured;
use crate::attest::answer::selection_to_wire;
use crate::attest::judge::appraise_enrolment;
use crate::crowd::{Crowd, Place, source_of};
use crate::hub::Hub;
use crate::serve::Caller;

mod admit;
mod claims;
mod grant;
mod proof;
mod recover;
mod refusal;
mod token;
mod unknown;

pub(crate) use grant::overlay_of;
pub use refusal::EnrolRefused;
pub use token::RETRY_FOR;
pub(crate) use unknown::allow_on_approval;

use admit::{Proven, admit};
use claims::{Candidate, Rooted};
use grant::Admitted;
use proof::{Claim, verify};
use recover::{Returned, readmit};

/// Most attempts at a time; the oldest makes room.
pub const MAX_ATTEMPTS: usize = 1024;
/// Most of these from one address (IPv6: from one /64).
pub const MAX_ATTEMPTS_PER_SOURCE: usize = 256;
/// Most of these with one token and one EK: whoever merely names somebody else's EK keeps nobody out.
pub const MAX_RESERVATIONS: usize = 8;

/// The service.
#[derive(Clone)]
pub struct EnrolService {
    hub: Arc<Hub>,
    roots: Arc<ArcSwap<EkRoots>>,
    sources: Crowd<IpAddr>,
    /// By token and root: the two-minute reservation.
    reservations: Crowd<(String, String)>,
}

type Incoming = Streaming<v1::EnrolRequest>;
type Answers = mpsc::Sender<Result<v1::EnrolResponse, Status>>;

/// What one attempt is bound to.
struct Challenge {
    nonce: Nonce,
    secret: ActivationSecret,
    exporter: Exporter,
    measured: Arc<Measured>,
}

impl EnrolService {
    pub fn new(hub: Arc<Hub>, roots: Arc<ArcSwap<EkRoots>>) -> Self {
        Self {
            hub,
            roots,
            sources: Crowd::new(MAX_ATTEMPTS, MAX_ATTEMPTS_PER_SOURCE),
            reservations: Crowd::new(MAX_ATTEMPTS, MAX_RESERVATIONS),
        }
    }

    pub fn into_server(self) -> EnrolmentServer<Self> {
        EnrolmentServer::new(self).max_decoding_message_size(MAX_ENROL_MESSAGE_BYTES)
    }

    /// The whole attempt. The machine is told whatever comes of it.
    async fn attempt(&self, caller: Caller, mut incoming: Incoming, answers: Answers) {
        let place = self.sources.enter(source_of(caller.remote.ip()));
        let mut about = About::default();
        let outcome = tokio::select! {
            done = tokio::time::timeout(
                self.hub.config.enrol_deadline,
                self.converse(&caller, &mut incoming, &answers, &mut about),
            ) => done.unwrap_or(Err(EnrolRefused::Deadline)),
            () = place.evicted() => Err(EnrolRefused::Evicted),
        };
        if let Err(refused) = outcome {
            self.note(&caller, &about, &refused);
            let refused = v1::Refused {
                code: refused.told().to_owned(),
                retry_seconds: refused.retry_seconds(),
            };
            answer(&answers, enrol_response::Step::Refused(refused)).await;
        }
    }

    async fn converse(
        &self,
        caller: &Caller,
        incoming: &mut Incoming,
        answers: &Answers,
        about: &mut About,
    ) -> Result<(), EnrolRefused> {
        let enrol_request::Step::Begin(begin) = next(incoming).await? else {
            return Err(EnrolRefused::Order);
        };
        let admitted = match begin.recover.is_empty() {
            true => {
                self.enrol_with_token(caller, begin, incoming, answers, about)
                    .await?
            }
            false => {
                self.recover(caller, begin, incoming, answers, about)
                    .await?
            }
        };
        match admitted {
            Admitted::Pending(pending) => {
                answer(answers, enrol_response::Step::Pending(pending)).await;
                Ok(())
            }
            Admitted::Issued {
                answer: issued,
                node,
                key,
            } => {
                metrics::counter!("edgeward_enrolments_total").increment(1);
                tracing::info!(%node, "enrolled");
                answer(answers, enrol_response::Step::Issued(*issued)).await;
                self.acknowledged(incoming, &node, &key).await
            }
        }
    }

    async fn enrol_with_token(
        &self,
        caller: &Caller,
        begin: v1::EnrolBegin,
        incoming: &mut Incoming,
        answers: &Answers,
        about: &mut About,
    ) -> Result<Admitted, EnrolRefused> {
        let hub = &self.hub;
        about.token.clone_from(&begin.token_id);
        about.name.clone_from(&begin.wanted_name);
        let token =
            hub.store.token(&begin.token_id).await?.ok_or_else(|| {
                EnrolRefused::TokenUnknown(begin.token_id.chars().take(64).collect())
            })?;
        token::check_secret(&token, &begin.token_secret)?;
        let claimed = unknown::Claimed::of(&begin);
        let candidate = match Candidate::parse(begin, &self.roots.load(), hub.clock.now()) {
            Err(refused) if token.approval || hub.config.approval => {
                return claimed.wait(hub, &token, refused, actor_of(caller)).await;
            }
            parsed => parsed?,
        };
        let root = candidate.root_id();
        root.as_str().clone_into(&mut about.root);
        self.precheck(&token, &candidate).await?;
        let measured = self.measured(&token.labels)?;
        if matches!(candidate.rooted, Rooted::Software { .. }) && !measured.software {
            return Err(EnrolRefused::SoftwareTier);
        }
        let challenge = Challenge::draw(caller, measured)?;
        let claim = Claim::Token(&token.id);
        let evidence = self
            .prove(claim, &candidate, &challenge, incoming, answers)
            .await?;
        let appraisal = appraise_enrolment(&evidence, &challenge.measured)?;
        let proven = Proven {
            token_id: &token.id,
            root: &root,
            wanted_name: &candidate.wanted_name,
            evidence: &evidence,
            appraisal: &appraisal,
            actor: actor_of(caller),
            ek_ended: candidate.ek_ended(),
        };
        admit(hub, proven).await
    }

    /// A node comes back. Nothing is said about names before the proof, and little after it.
    async fn recover(
        &self,
        caller: &Caller,
        begin: v1::EnrolBegin,
        incoming: &mut Incoming,
        answers: &Answers,
        about: &mut About,
    ) -> Result<Admitted, EnrolRefused> {
        let hub = &self.hub;
        about.name.clone_from(&begin.recover);
        let node = begin
            .recover
            .parse::<SpiffeId>()
            .ok()
            .filter(|id| id.kind() == Kind::Node && *id.trust_domain() == hub.config.trust_domain)
            .ok_or_else(|| {
                EnrolRefused::RecoverUnknown(begin.recover.chars().take(128).collect())
            })?;
        let candidate = Candidate::parse(begin, &self.roots.load(), hub.clock.now())?;
        let root = candidate.root_id();
        root.as_str().clone_into(&mut about.root);
        if matches!(candidate.rooted, Rooted::Software { .. }) {
            return Err(EnrolRefused::RecoverSoftware);
        }
        let labels = hub
            .member(node.name())
            .filter(|member| member.row.root == root)
            .map(|member| member.row.labels)
            .unwrap_or_default();
        let challenge = Challenge::draw(caller, self.measured(&labels)?)?;
        let claim = Claim::Recover(&node);
        let evidence = self
            .prove(claim, &candidate, &challenge, incoming, answers)
            .await?;
        let appraisal = appraise_enrolment(&evidence, &challenge.measured)?;
        let returned = Returned {
            node: &node,
            root: &root,
            evidence: &evidence,
            appraisal: &appraisal,
            actor: actor_of(caller),
            ek_ended: candidate.ek_ended(),
        };
        readmit(hub, returned).await
    }

    fn measured(&self, labels: &edgeward_policy::Labels) -> Result<Arc<Measured>, EnrolRefused> {
        Ok(self
            .hub
            .measured(labels)
            .map_err(crate::attest::Refusal::from)?)
    }

    /// Challenges the machine and judges its proof. The challenge is spent then: an attempt has no second proof.
    async fn prove(
        &self,
        claim: Claim<'_>,
        candidate: &Candidate,
        challenge: &Challenge,
        incoming: &mut Incoming,
        answers: &Answers,
    ) -> Result<VerifiedEvidence, EnrolRefused> {
        let root = candidate.root_id();
        let reservation = self
            .reservations
            .enter((claim.to_string(), root.as_str().to_owned()));
        let message = challenge.message(candidate)?;
        answer(answers, enrol_response::Step::Challenge(message)).await;
        let proof = proof(incoming, &reservation).await?;
        verify(&self.hub, claim, candidate, challenge, proof)
    }

    /// Refuses before any work what would be refused after the proof anyway. The transaction decides.
    async fn precheck(
        &self,
        token: &crate::store::tokens::TokenRow,
        candidate: &Candidate,
    ) -> Result<(), EnrolRefused> {
        let root = candidate.root_id();
        let used = self.hub.store.token_use(&token.id, root.as_str()).await?;
        let open = used.is_some();
        token::check_use(token, &root, used.as_ref(), open, self.hub.clock.now())?;
        if used.is_none() {
            let domain = &self.hub.config.trust_domain;
            token::choose_name(token, &candidate.wanted_name, domain)?;
        }
        Ok(())
    }

    async fn acknowledged(
        &self,
        incoming: &mut Incoming,
        node: &SpiffeId,
        key: &SpkiHash,
    ) -> Result<(), EnrolRefused> {
        // Silence is no refusal: the certificate is out, and a session acknowledges it as well.
        let Ok(enrol_request::Step::Acknowledge(_)) = next(incoming).await else {
            return Ok(());
        };
        let hub = &self.hub;
        let mut tx = hub.store.begin("enrol.acknowledge").await?;
        tx.acknowledge_svid(node.name(), key).await?;
        let event = Event::new(
            hub.clock.now(),
            node.clone(),
            EventKind::EnrolmentAcknowledged,
        )
        .subject(node.clone());
        hub.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The full reason goes to the log and the audit log; nothing else has changed.
    fn note(&self, caller: &Caller, about: &About, refused: &EnrolRefused) {
        let code = refused.code();
        metrics::counter!("edgeward_enrolments_refused_total", "code" => code).increment(1);
        match refused.alerts() {
            true => {
                tracing::error!(remote = %caller.remote, code, reason = %refused, "somebody takes over a name or a machine")
            }
            false => {
                tracing::info!(remote = %caller.remote, code, reason = %refused, "enrolment refused")
            }
        }
        let kind = match refused.is_about_token() {
            true => EventKind::TokenRefused,
            false => EventKind::EnrolmentRefused,
        };
        let mut event = Event::new(self.hub.clock.now(), actor_of(caller), kind)
            .denied(code)
            .detail("reason", refused)
            .detail("token", about.token.chars().take(64).collect::<String>());
        if !about.name.is_empty() {
            event = event.detail("name", about.name.chars().take(128).collect::<String>());
        }
        if !about.root.is_empty() {
            event = event.detail("root", &about.root);
        }
        if refused.alerts() {
            event = event.detail("alert", "takeover");
        }
        self.hub.audit.later(event);
    }
}

/// What an attempt is known by while nothing is proven.
#[derive(Default)]
struct About {
    token: String,
    name: String,
    root: String,
}

impl Challenge {
    fn draw(caller: &Caller, measured: Arc<Measured>) -> Result<Self, EnrolRefused> {
        let random = SystemRandom::new();
        Ok(Self {
            nonce: Nonce::draw(&random)?,
            secret: draw_secret(&random)?,
            exporter: Exporter::from_bytes(caller.exporter),
            measured,
        })
    }

    fn message(&self, candidate: &Candidate) -> Result<v1::EnrolChallenge, EnrolRefused> {
        let (credential_blob, encrypted_secret) = match &candidate.rooted {
            Rooted::Tpm(claims) => {
                let credential = make_credential(
                    claims.ek.public(),
                    claims.ak.name(),
                    &self.secret,
                    &SystemRandom::new(),
                )?;
                (credential.id_object, credential.encrypted_secret)
            }
            Rooted::Software { .. } => (Vec::new(), Vec::new()),
        };
        Ok(v1::EnrolChallenge {
            nonce: self.nonce.as_bytes().to_vec(),
            credential_blob,
            encrypted_secret,
            pcr_selection: Some(selection_to_wire(&self.measured.selection)),
        })
    }
}

async fn proof(
    incoming: &mut Incoming,
    reservation: &Place<(String, String)>,
) -> Result<v1::enrol_proof::Proof, EnrolRefused> {
    let step = tokio::select! {
        step = next(incoming) => step?,
        () = reservation.evicted() => return Err(EnrolRefused::Evicted),
    };
    match step {
        enrol_request::Step::Proof(proof) => proof.proof.ok_or(EnrolRefused::Incomplete("proof")),
        _ => Err(EnrolRefused::Order),
    }
}

async fn next(incoming: &mut Incoming) -> Result<enrol_request::Step, EnrolRefused> {
    match incoming.message().await {
        Ok(Some(message)) => message.step.ok_or(EnrolRefused::Order),
        Ok(None) | Err(_) => Err(EnrolRefused::Order),
    }
}

async fn answer(answers: &Answers, step: enrol_response::Step) {
    // A machine that went away learns nothing; the audit log does.
    let _ = answers
        .send(Ok(v1::EnrolResponse { step: Some(step) }))
        .await;
}

#[tonic::async_trait]
impl Enrolment for EnrolService {
    type EnrolStream = Pin<Box<dyn Stream<Item = Result<v1::EnrolResponse, Status>> + Send>>;

    async fn enrol(
        &self,
        request: Request<Streaming<v1::EnrolRequest>>,
    ) -> Result<Response<Self::EnrolStream>, Status> {
        let caller = request
            .extensions()
            .get::<Caller>()
            .cloned()
            .ok_or_else(|| Status::internal("caller_unknown"))?;
        let (answers, receiver) = mpsc::channel(2);
        let service = self.clone();
        tokio::spawn(async move {
            service.attempt(caller, request.into_inner(), answers).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[cfg(test)]
mod tests;
