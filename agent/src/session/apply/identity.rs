//! Who this node is, as the cloud counts and renews it: the join counter, and an identity that came back.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::EventKind;
use edgeward_identity::Clock;
use edgeward_wire::v1;
use rustls_pki_types::CertificateDer;

use super::Holder;
use crate::enrol::NotEnrolled;
use crate::recover::{Loss, NotBack};
use crate::root::Root;
use crate::state::{Recent, Stored};
use crate::tpm::Priority;

/// How often a join raises the epoch at most: a link that flaps must not wear the TPM's memory out. Until it is raised, a
/// disk that is put back could not be told from a copy.
const JOIN_EPOCH_EVERY: Duration = Duration::from_secs(600);

impl Holder {
    /// The join counter that may be said: it lies on disk.
    pub fn join(&self) -> u64 {
        self.keeper.stored.join
    }

    /// Stores the number that the cloud offers. False: it may not be said, for it is not on disk.
    pub async fn keep_join(&mut self, offered: u64) -> bool {
        let before = self.keeper.stored.join;
        if offered <= before {
            return false;
        }
        self.keeper.stored.join = offered;
        let now = self.keeper.clock.boottime();
        let due = |at| now.since(at) >= JOIN_EPOCH_EVERY;
        match self.join_raised.is_none_or(due) {
            true => {
                self.join_raised = Some(now);
                self.raise().await;
            }
            false => {
                self.joined = true;
                self.keeper.dirty = true;
                self.keeper.store();
            }
        }
        if self.keeper.dirty {
            // It may be there all the same; what is said is never above what is there.
            self.keeper.stored.join = before;
            return false;
        }
        true
    }

    /// What `status` says about a way back that is not done yet.
    pub fn tell_recovery(&self, note: Option<String>) {
        self.publisher.recovery.send_replace(note.map(Arc::from));
    }

    /// An identity that came back: recorded, stored as a new epoch, and only then in force.
    pub async fn recovered(
        &mut self,
        stored: &Stored,
        recent: &Recent,
        root: &dyn Root,
        loss: Loss,
    ) -> Result<(), NotBack> {
        let slot = stored.slot;
        let signer = |priority| async move {
            root.signer(slot, priority)
                .await
                .map_err(|error| NotBack::NotEnrolled(NotEnrolled::Root(error)))
        };
        let (session_key, bind_key) = (
            signer(Priority::Session).await?,
            signer(Priority::Bind).await?,
        );
        let event = self
            .event(EventKind::AgentRecovered)
            .allowed()
            .code(loss.code())
            .detail("reason", loss);
        self.recorder
            .record(event)
            .await
            .map_err(|error| NotBack::Record(error.to_string()))?;
        let mut next = stored.clone();
        next.keep_of(&self.keeper.stored);
        let before = std::mem::replace(&mut self.keeper.stored, next);
        let recent_before = std::mem::replace(&mut self.keeper.recent, recent.clone());
        self.raise().await;
        if self.keeper.dirty {
            (self.keeper.stored, self.keeper.recent) = (before, recent_before);
            return Err(NotBack::Record("the state cannot be written".to_owned()));
        }
        let chain = stored
            .svid_chain
            .iter()
            .map(|der| CertificateDer::from(der.0.clone()))
            .collect();
        self.publisher
            .set_identity(chain, session_key, bind_key)
            .map_err(|error| NotBack::Unusable(error.into()))?;
        self.trust(v1::TrustUpdate {
            key_set: stored.key_set.0.clone(),
            deny_list: stored.deny_list.0.clone(),
            ..v1::TrustUpdate::default()
        })
        .await;
        if !stored.slice.0.is_empty() {
            self.slice(&stored.slice.0);
        }
        self.result(&recent.result);
        Ok(())
    }
}
