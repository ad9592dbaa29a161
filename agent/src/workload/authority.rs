//! Where SVIDs come from: the cloud, over the session's connection.

use async_trait::async_trait;
use edgeward_identity::svid::SvidError;
use edgeward_identity::{PublicKey, SignError, Signer, SoftwareKey, SpiffeId, SvidLeaf, Timestamp};
use edgeward_wire::v1;
use edgeward_wire::v1::workloads_client::WorkloadsClient;
use edgeward_wire::workload::possession;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::transport::Channel;

/// How long the cloud may take.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Issues for workloads of this node.
#[async_trait]
pub trait Authority: Send + Sync {
    /// A certificate for a key that is held here, leaf first.
    async fn x509(
        &self,
        id: &SpiffeId,
        key: &SoftwareKey,
    ) -> Result<Vec<CertificateDer<'static>>, NotIssued>;

    /// A token.
    async fn jwt(&self, id: &SpiffeId, audience: &[String]) -> Result<String, NotIssued>;
}

/// Nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    #[error("there is no session with the cloud")]
    Offline,
    #[error("the cloud did not answer within {} s", DEADLINE.as_secs())]
    Silent,
    /// Its reason code.
    #[error("the cloud refuses: {0}")]
    Refused(String),
    #[error("what the cloud issued is not what was asked for: {0}")]
    Wrong(String),
    #[error("key cannot be made or used: {0}")]
    Key(String),
}

impl NotIssued {
    /// Stable reason code; the cloud's own where it refused.
    pub fn code(&self) -> &str {
        match self {
            Self::Offline => "cloud_unreachable",
            Self::Silent => "cloud_silent",
            Self::Refused(code) => code,
            Self::Wrong(_) => "svid_wrong",
            Self::Key(_) => "workload_key",
        }
    }
}

impl From<SignError> for NotIssued {
    fn from(error: SignError) -> Self {
        Self::Key(error.to_string())
    }
}

/// The cloud, while there is a session with it.
#[derive(Clone, Debug)]
pub struct Cloud(pub watch::Receiver<Option<Channel>>);

#[async_trait]
impl Authority for Cloud {
    async fn x509(
        &self,
        id: &SpiffeId,
        key: &SoftwareKey,
    ) -> Result<Vec<CertificateDer<'static>>, NotIssued> {
        let public = key.public_key();
        let request = v1::WorkloadX509Request {
            spiffe_id: id.to_string(),
            public_key: public.point().to_vec(),
            possession: key.sign(&possession(id, public))?,
        };
        let mut client = self.client()?;
        let answer = within(client.issue_x509(request)).await?;
        let chain = answer.svid_chain.into_iter().map(CertificateDer::from);
        Ok(chain.collect())
    }

    async fn jwt(&self, id: &SpiffeId, audience: &[String]) -> Result<String, NotIssued> {
        let request = v1::WorkloadJwtRequest {
            spiffe_id: id.to_string(),
            audience: audience.to_vec(),
        };
        let mut client = self.client()?;
        Ok(within(client.issue_jwt(request)).await?.token)
    }
}

impl Cloud {
    fn client(&self) -> Result<WorkloadsClient<Channel>, NotIssued> {
        let channel = self.0.borrow().clone();
        channel.map(WorkloadsClient::new).ok_or(NotIssued::Offline)
    }
}

/// What was issued must be for this workload and this key, and hold now.
pub(super) fn check_leaf(
    chain: &[CertificateDer<'static>],
    id: &SpiffeId,
    key: &PublicKey,
    now: Timestamp,
) -> Result<SvidLeaf, NotIssued> {
    let wrong = |why: &str| NotIssued::Wrong(why.to_owned());
    let first = chain.first().ok_or_else(|| wrong("no certificate"))?;
    let leaf = SvidLeaf::parse(first).map_err(|error: SvidError| wrong(&error.to_string()))?;
    if leaf.id != *id {
        return Err(wrong("another identity"));
    }
    if leaf.key != *key {
        return Err(wrong("another key"));
    }
    if leaf.not_after <= now {
        return Err(wrong("it has ended"));
    }
    Ok(leaf)
}

async fn within<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, NotIssued> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Err(_) => Err(NotIssued::Silent),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if is_reason(status.message()) => {
            Err(NotIssued::Refused(status.message().to_owned()))
        }
        // Whatever a broken connection says is no reason code.
        Ok(Err(status)) => {
            tracing::debug!(%status, "the cloud was not reached");
            Err(NotIssued::Offline)
        }
    }
}

fn is_reason(message: &str) -> bool {
    (1..=64).contains(&message.len())
        && message
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
