//! Renewal: a new certificate for a key that a pass certified.

use edgeward_audit::Event;
use edgeward_audit::event::EventKind;

use super::SessionEnded;
use super::challenge::SignedResult;
use super::evidence::{Granted, Weighed};
use super::live::Live;
use crate::attest::{Judged, Refusal};
use crate::hub::HubFault;
use crate::issue::{NodeGrant, NodeNotIssued, lifetime};
use crate::store::nodes::SvidRow;

impl Live {
    /// A new certificate: recorded with its event before the node gets it.
    pub(super) async fn renew(&mut self, judged: &Judged) -> Result<Granted, Weighed> {
        let hub = self.hub.clone();
        let lifetime = lifetime(
            hub.lifetimes(self.opened.peer.id()).await,
            hub.config.svid_max_lifetime,
        );
        // A quarantine that comes now waits, and then sees this certificate's key.
        let _changes = hub.changes.lock().await;
        if !hub
            .member(&self.name)
            .is_some_and(|member| member.is_active())
        {
            return Err(Weighed::Ended(SessionEnded::Cancelled));
        }
        let now = hub.clock.now();
        let grant = NodeGrant::renewal(self.id(), lifetime);
        let made = hub
            .keys
            .issuer()
            .issue_node(
                &judged.evidence,
                &judged.appraisal,
                &grant,
                hub.deny_number(),
                now,
            )
            .map_err(|error| match error {
                NodeNotIssued::Result(refused) => Weighed::Refused(refused.into()),
                other => {
                    tracing::error!(node = %self.id(), error = %other, "no certificate made");
                    Weighed::Refused(Refusal::Stored)
                }
            })?;
        let leaf = &made.issued.leaf;
        let key = leaf.key.spki_hash();
        let row = SvidRow {
            serial: leaf.serial.clone(),
            node: self.name.clone(),
            key_hash: key,
            public: judged.svid_public.clone(),
            issued: now,
            not_after: leaf.not_after,
            acknowledged: false,
        };
        let event = Event::new(now, self.id(), EventKind::SvidRenewed)
            .subject(self.id())
            .allowed();
        let event = made.issued.recorded_in(event);
        let mut tx = hub.store.begin("svid.renew").await?;
        if tx.is_denied(&key).await? {
            return Err(Weighed::Ended(SessionEnded::Cancelled));
        }
        tx.insert_svid(&row).await?;
        tx.note_issued(&made.issued, now).await?;
        hub.audit
            .record_in(&mut tx, event)
            .await
            .map_err(HubFault::from)?;
        tx.commit().await?;
        hub.update_member(&self.name, |member| {
            member.keys.retain(|(known, _)| *known != key);
            member.keys.insert(0, (key, row.not_after));
        });
        // Only the first answer of a session renews: the agent comes back with the new certificate.
        self.opened.svid.issued = row.issued;
        self.opened.svid.not_after = row.not_after;
        let bytes = hub.sign_result(&made.result, row.not_after.since(now), now)?;
        Ok(Granted {
            chain: made
                .issued
                .chain
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            signed: SignedResult {
                result: made.result,
                bytes,
            },
        })
    }
}
