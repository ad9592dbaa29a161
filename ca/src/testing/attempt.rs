//! Enrolment as a machine goes through it.

use edgeward_wire::v1::enrolment_client::EnrolmentClient;
use edgeward_wire::v1::{self, enrol_request, enrol_response};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Cloud, Machine};

/// One attempt to enrol.
pub(crate) struct Attempt {
    requests: mpsc::Sender<v1::EnrolRequest>,
    responses: Streaming<v1::EnrolResponse>,
    pub(crate) exporter: [u8; 32],
}

impl Cloud {
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
            enrol_response::Step::Pending(pending) => {
                return Err(format!("pending {}", pending.node));
            }
            other => panic!("{other:?}"),
        };
        let proof = machine.prove(&challenge, &attempt.exporter, token);
        attempt.prove(proof).await;
        attempt.conclude(machine).await
    }

    /// The whole of a recovery, with a new SVID key; the code where it is refused.
    pub(crate) async fn recover(
        &self,
        machine: &mut Machine,
        name: &str,
    ) -> Result<v1::EnrolIssued, String> {
        machine.tpm.svid = edgeward_identity::SoftwareKey::generate().unwrap();
        let mut attempt = self.attempt().await;
        attempt.begin(machine.begin_recovery(name)).await;
        let challenge = match attempt.next().await {
            enrol_response::Step::Challenge(challenge) => challenge,
            enrol_response::Step::Refused(refused) => return Err(refused.code),
            other => panic!("{other:?}"),
        };
        let proof = machine.prove_recovery(&challenge, &attempt.exporter, name);
        attempt.prove(proof).await;
        attempt.conclude(machine).await
    }
}

impl Attempt {
    /// Takes what came of the proof, and acknowledges it.
    async fn conclude(mut self, machine: &mut Machine) -> Result<v1::EnrolIssued, String> {
        let attempt = &mut self;
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
