//! SVIDs for processes on nodes: the server of the contract's `Workloads`.
//!
//! The agent attests the process, the cloud the node: what is issued costs a [`Permit`], which is given only for a node
//! that is active and trusted at this moment, and only for workloads that the policy names on it. Every SVID is
//! recorded with its serial number before the node gets it. Nobody denies a workload's key: it ends by its lifetime,
//! which is at most a day and never beyond the node's own certificate.

use std::sync::Arc;

use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_identity::jwt::{JwtClaims, check_audiences};
use edgeward_identity::{PublicKey, SpiffeId, Timestamp, VerifiedPeer};
use edgeward_wire::v1::workloads_server::{Workloads, WorkloadsServer};
use edgeward_wire::v1::{self};
use edgeward_wire::workload::{MAX_JWT_LIFETIME, possession};
use parking_lot::Mutex;
use tonic::{Code, Request, Response, Status};

use crate::allowance::Allowances;
use crate::hub::Hub;
use crate::issue::IssueFault;
use crate::serve::Caller;

mod permit;

pub use permit::Permit;

/// SVIDs that a node may ask for at once: one that starts asks for all its workloads.
pub const BURST: u64 = 256;
/// Requests a second after that.
pub const PER_SECOND: u64 = 8;
/// Largest request, in bytes: audiences are the most of it.
const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// Bytes of a token's serial number.
const SERIAL_BYTES: usize = 16;

/// The service.
#[derive(Clone)]
pub struct WorkloadService {
    hub: Arc<Hub>,
    allowances: Arc<Mutex<Allowances>>,
}

/// Why a node gets no SVID for a workload. The agent learns the code.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadRefused {
    /// The node's.
    #[error("not the spiffe id of a workload of this trust domain")]
    Identity,
    #[error("public key or its signature is malformed")]
    Key,
    #[error("the key's holder did not sign for this workload")]
    Possession,
    #[error("audience is missing or too long")]
    Audience,
    #[error("no such node")]
    Unknown,
    #[error("node is not active")]
    Status,
    #[error("certificate is not one that the cloud knows")]
    Certificate,
    #[error("node is not trusted now")]
    NotTrusted,
    #[error("policy names no such workload on this node")]
    NotRegistered,
    #[error("more requests than {BURST} at once and {PER_SECOND} a second")]
    TooMany,
    /// Ours.
    #[error("there is no key for jwt-svids: it is made at a start with the root key")]
    NoJwtKey,
    #[error("certificate cannot be made: {0}")]
    Issue(#[from] IssueFault),
    #[error("token cannot be signed: {0}")]
    Sign(#[from] edgeward_identity::SignError),
    #[error("the random source failed")]
    Random,
    #[error("cannot be recorded: {0}")]
    Record(#[from] crate::audit::RecordFault),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl WorkloadRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity => "workload_identity",
            Self::Key => "workload_key",
            Self::Possession => "workload_possession",
            Self::Audience => "workload_audience",
            Self::Unknown => "node_unknown",
            Self::Status => "node_status",
            Self::Certificate => "svid_unknown",
            Self::NotTrusted => "node_not_trusted",
            Self::NotRegistered => "workload_not_registered",
            Self::TooMany => "workload_rate",
            Self::NoJwtKey => "jwt_key_missing",
            Self::Issue(_) | Self::Sign(_) | Self::Random | Self::Record(_) | Self::Store(_) => {
                "unavailable"
            }
        }
    }

    fn status(&self) -> Status {
        let code = match self {
            Self::Identity | Self::Key | Self::Possession | Self::Audience => Code::InvalidArgument,
            Self::Unknown
            | Self::Status
            | Self::Certificate
            | Self::NotTrusted
            | Self::NotRegistered => Code::PermissionDenied,
            Self::TooMany => Code::ResourceExhausted,
            Self::NoJwtKey => Code::FailedPrecondition,
            Self::Issue(_) | Self::Sign(_) | Self::Random | Self::Record(_) | Self::Store(_) => {
                Code::Unavailable
            }
        };
        Status::new(code, self.code())
    }
}

impl WorkloadService {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            allowances: Arc::new(Mutex::new(Allowances::new(BURST, PER_SECOND))),
        }
    }

    pub fn into_server(self) -> WorkloadsServer<Self> {
        WorkloadsServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Who asks, for which workload, and whether that may be.
    fn permit(&self, peer: &VerifiedPeer, id: &str) -> Result<Permit, WorkloadRefused> {
        let hub = &self.hub;
        let id: SpiffeId = id.parse().map_err(|_| WorkloadRefused::Identity)?;
        let name = peer.id().name();
        let member = hub.member(name).ok_or(WorkloadRefused::Unknown)?;
        let now = hub.clock.boottime();
        if !self.allowances.lock().take(name, now) {
            return Err(WorkloadRefused::TooMany);
        }
        let policy = hub.policy_of(name);
        Permit::give(&member, peer, policy.as_deref(), id, hub.clock.now())
    }

    async fn x509(
        &self,
        peer: &VerifiedPeer,
        request: &v1::WorkloadX509Request,
    ) -> Result<v1::WorkloadX509, WorkloadRefused> {
        let permit = self.permit(peer, &request.spiffe_id)?;
        let key = PublicKey::from_point(&request.public_key).map_err(|_| WorkloadRefused::Key)?;
        key.verify(&possession(permit.id(), &key), &request.possession)
            .map_err(|_| WorkloadRefused::Possession)?;
        let hub = &self.hub;
        let now = hub.clock.now();
        let issued = hub.keys.issuer().issue_workload(&permit, &key, now)?;
        let event = issued_event(peer, &permit, now).detail("form", "x509");
        let mut tx = hub.store.begin("workload.issue").await?;
        tx.note_issued(&issued, now).await?;
        hub.audit
            .record_in(&mut tx, issued.recorded_in(event))
            .await?;
        tx.commit().await?;
        count("x509", "issued");
        Ok(v1::WorkloadX509 {
            svid_chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
        })
    }

    async fn jwt(
        &self,
        peer: &VerifiedPeer,
        request: v1::WorkloadJwtRequest,
    ) -> Result<v1::WorkloadJwt, WorkloadRefused> {
        check_audiences(request.audience.iter().map(String::as_str))
            .map_err(|_| WorkloadRefused::Audience)?;
        let permit = self.permit(peer, &request.spiffe_id)?;
        let hub = &self.hub;
        let now = hub.clock.now();
        let signer = hub.keys.jwt_signer(now).ok_or(WorkloadRefused::NoJwtKey)?;
        let mut serial = [0; SERIAL_BYTES];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut serial)
            .map_err(|_| WorkloadRefused::Random)?;
        let claims = JwtClaims {
            subject: permit.id().clone(),
            audience: request.audience,
            issued: now,
            expires: now.plus(permit.lifetime(now).min(MAX_JWT_LIFETIME)),
            serial: hex::encode(serial),
        };
        let token = claims.sign(signer)?;
        let event = issued_event(peer, &permit, now)
            .detail("form", "jwt")
            .detail("serial", &claims.serial)
            .detail("audience", claims.audience.join(" "))
            .detail("not_after", claims.expires);
        hub.audit.record(event).await?;
        count("jwt", "issued");
        Ok(v1::WorkloadJwt { token })
    }

    /// A refusal is an event; what floods is only counted.
    fn refused(
        &self,
        peer: &VerifiedPeer,
        form: &'static str,
        id: &str,
        why: &WorkloadRefused,
    ) -> Status {
        count(form, why.code());
        tracing::info!(node = %peer.id(), workload = id, form, code = why.code(), reason = %why, "no svid for a workload");
        if !matches!(why, WorkloadRefused::TooMany) {
            let now = self.hub.clock.now();
            let event = Event::new(now, peer.id().clone(), EventKind::WorkloadRefused)
                .denied(why.code())
                .detail("form", form)
                .detail("reason", why);
            let event = match id.parse::<SpiffeId>() {
                Ok(id) => event.subject(id),
                Err(_) => event.subject(peer.id().clone()),
            };
            self.hub.audit.later(event);
        }
        why.status()
    }
}

#[tonic::async_trait]
impl Workloads for WorkloadService {
    async fn issue_x509(
        &self,
        request: Request<v1::WorkloadX509Request>,
    ) -> Result<Response<v1::WorkloadX509>, Status> {
        let peer = Caller::of_node(&request)?.1;
        let request = request.into_inner();
        match self.x509(&peer, &request).await {
            Ok(issued) => Ok(Response::new(issued)),
            Err(why) => Err(self.refused(&peer, "x509", &request.spiffe_id, &why)),
        }
    }

    async fn issue_jwt(
        &self,
        request: Request<v1::WorkloadJwtRequest>,
    ) -> Result<Response<v1::WorkloadJwt>, Status> {
        let peer = Caller::of_node(&request)?.1;
        let request = request.into_inner();
        let id = request.spiffe_id.clone();
        match self.jwt(&peer, request).await {
            Ok(issued) => Ok(Response::new(issued)),
            Err(why) => Err(self.refused(&peer, "jwt", &id, &why)),
        }
    }
}

fn issued_event(peer: &VerifiedPeer, permit: &Permit, now: Timestamp) -> Event {
    Event::new(now, peer.id().clone(), EventKind::WorkloadIssued)
        .subject(permit.id().clone())
        .allowed()
}

fn count(form: &'static str, outcome: &'static str) {
    metrics::counter!("edgeward_workload_svids_total", "form" => form, "outcome" => outcome)
        .increment(1);
}

#[cfg(test)]
mod tests;
