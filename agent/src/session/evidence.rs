//! Answers to challenges, made beside the session so that nothing waits for the TPM.

use std::sync::Arc;

use edgeward_evidence::Exporter;
use edgeward_identity::SpiffeId;
use edgeward_wire::v1;
use tokio::task::JoinSet;

use crate::boot::Boot;
use crate::root::{Conversation, Root, RootError, nonce_of};
use crate::tpm::SvidSlot;

/// Most answers under way: a challenge and its repetition.
const MAX_ANSWERS: usize = 2;

/// The answers under way on one connection.
pub(super) struct Answers {
    root: Arc<dyn Root>,
    boot: Arc<Boot>,
    node: SpiffeId,
    exporter: Exporter,
    under_way: JoinSet<Result<v1::AttestEvidence, RootError>>,
}

impl Answers {
    pub(super) fn new(
        root: Arc<dyn Root>,
        boot: Arc<Boot>,
        node: SpiffeId,
        exporter: Exporter,
    ) -> Self {
        Self {
            root,
            boot,
            node,
            exporter,
            under_way: JoinSet::new(),
        }
    }

    /// Begins an answer.
    pub(super) fn challenge(&mut self, slot: SvidSlot, challenge: v1::AttestChallenge) {
        if self.under_way.len() >= MAX_ANSWERS {
            tracing::warn!("a challenge is left out: earlier ones are still being answered");
            return;
        }
        let (root, node) = (self.root.clone(), self.node.clone());
        let boot_key = *self.boot.public_key();
        let exporter = self.exporter;
        self.under_way.spawn(async move {
            let talk = Conversation {
                trust_domain: node.trust_domain().clone(),
                exporter,
                nonce: nonce_of(&challenge.nonce)?,
                boot_key,
            };
            let evidence = root.attest(slot, &node, &talk, &challenge).await?;
            Ok(v1::AttestEvidence {
                nonce: challenge.nonce,
                root: Some(evidence),
                logs: None,
                app_control: String::new(),
                time: 0,
            })
        });
    }

    /// The next answer that is ready; waits for ever while none is under way.
    pub(super) async fn next(&mut self) -> Result<v1::AttestEvidence, RootError> {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => tracing::error!(%error, "answering a challenge ended early"),
                None => std::future::pending().await,
            }
        }
    }
}
