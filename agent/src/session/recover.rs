//! A running agent that gets its identity back: when a session ends in a way that says it is lost, or before the first
//! session on a state that was put back.

use edgeward_identity::{Clock, Timestamp};

use super::{Session, SessionEnded};
use crate::enrol::{Attempt, Claim, Enrolment, Known};
use crate::recover::start::{Quiet, is_missing, random};
use crate::recover::{Loss, NotBack, Pace};
use crate::tpm::Priority;

/// Codes with which the cloud ends a session whose certificate it does not take.
const NOT_TAKEN: [&str; 1] = ["svid_unknown"];

/// What a session's end says about the identity. Pure.
pub(super) fn loss_of(ended: &SessionEnded, leaf_ends: Timestamp, now: Timestamp) -> Option<Loss> {
    if now >= leaf_ends {
        return Some(Loss::Ended);
    }
    match ended {
        SessionEnded::Restored => Some(Loss::RolledBack),
        // Quarantined and removed nodes are told the same in TLS: the cloud then refuses the recovery and says why.
        SessionEnded::Rejected => Some(Loss::Rejected),
        SessionEnded::Goodbye(code) if NOT_TAKEN.contains(&code.as_str()) => Some(Loss::Rejected),
        _ => None,
    }
}

impl Session {
    /// Asks for the identity where the session's end says that it is lost and it is time to ask. True: it is back.
    pub(super) async fn come_back(&mut self, ended: &SessionEnded, pace: &mut Pace) -> bool {
        let now = self.clock.boottime();
        let leaf_ends = self.view.svid.borrow().leaf().not_after;
        let Some(loss) = loss_of(ended, leaf_ends, self.clock.now()) else {
            return false;
        };
        if !pace.is_due(now) {
            return false;
        }
        match self.recover(loss).await {
            Ok(()) => {
                pace.succeeded(self.clock.boottime());
                self.restored = false;
                tracing::info!(loss = loss.code(), "this node has its identity back");
                self.holder.tell_recovery(None);
                true
            }
            Err(error) => {
                let now = self.clock.boottime();
                pace.failed(now, std::time::Duration::ZERO, random());
                metrics::counter!("edgeward_recovery_failures_total").increment(1);
                tracing::warn!(loss = loss.code(), %error, hint = error.hint(),
                    again_in_s = pace.wait(now).as_secs(), "this node is not back yet");
                let note = format!("{loss}; asking for it again: {error}");
                self.holder.tell_recovery(Some(note));
                false
            }
        }
    }

    async fn recover(&mut self, loss: Loss) -> Result<(), NotBack> {
        let known = Known {
            node: self.view.node.clone(),
            addresses: self.holder.addresses().to_vec(),
            trust: (**self.view.trust.load()).clone(),
        };
        let enrolment = Enrolment {
            claim: Claim::Recover(&known),
            root: self.root.as_ref(),
            boot: &self.boot,
            clock: self.clock.clone(),
            slot: self.holder.slot().other(),
        };
        match enrolment.once(&Quiet).await? {
            Attempt::Issued(new) => {
                self.holder
                    .recovered(&new.stored, &new.recent, self.root.as_ref(), loss)
                    .await?;
                new.acknowledge().await;
                Ok(())
            }
            Attempt::Pending { .. } => Err(NotBack::Waits(known.node.name().to_owned())),
            Attempt::Later { code, .. } => Err(NotBack::Later(code)),
        }
    }

    /// Whether the TPM lost the key that this session signs with: it was cleared while the agent ran. What was sealed is
    /// lost with it, so the agent begins anew, and comes back at its start.
    pub(super) async fn key_is_gone(&self, ended: &SessionEnded) -> bool {
        let SessionEnded::NotConnected(failed) = ended else {
            return false;
        };
        if failed.tls_error().is_none() {
            return false;
        }
        let signer = self.root.signer(self.holder.slot(), Priority::Session);
        matches!(signer.await, Err(error) if is_missing(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_says_so_is_taken_for_a_loss() {
        let (before, end) = (Timestamp::from_secs(99), Timestamp::from_secs(100));
        for ended in [
            SessionEnded::Closed,
            SessionEnded::Silent,
            SessionEnded::Renewed,
            SessionEnded::Goodbye("node_quarantined".to_owned()),
            SessionEnded::Goodbye("join_behind".to_owned()),
        ] {
            assert_eq!(loss_of(&ended, end, before), None, "{ended}");
            assert_eq!(loss_of(&ended, end, end), Some(Loss::Ended), "{ended}");
        }
        let goodbye = SessionEnded::Goodbye("svid_unknown".to_owned());
        assert_eq!(loss_of(&goodbye, end, before), Some(Loss::Rejected));
        let rejected = SessionEnded::Rejected;
        assert_eq!(loss_of(&rejected, end, before), Some(Loss::Rejected));
        let restored = SessionEnded::Restored;
        assert_eq!(loss_of(&restored, end, before), Some(Loss::RolledBack));
    }
}
