//! A session as an agent holds it.

use std::time::Duration;

use edgeward_identity::Svid;
use edgeward_wire::v1::session_client::SessionClient;
use edgeward_wire::v1::{self, cloud_message, node_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Cloud, Machine};

/// A session as an agent sees it.
pub(crate) struct Agent {
    requests: mpsc::Sender<v1::NodeMessage>,
    responses: Streaming<v1::CloudMessage>,
    pub(crate) exporter: [u8; 32],
}

impl Cloud {
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
