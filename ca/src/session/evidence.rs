//! An answer to a challenge: judged, then a result, and a new certificate where one was asked for.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::result::ResultContext;
use edgeward_evidence::{AttestationResult, Exporter, Nonce};
use edgeward_identity::{AttestationState, SpkiHash};
use edgeward_wire::v1::{self, cloud_message::Body};

use super::SessionEnded;
use super::live::Live;
use crate::attest::{Answer, Expected, Judged, Refusal, judge, measured};
use crate::hub::{HubFault, Member};
use crate::issue::{NodeGrant, NodeNotIssued, lifetime};
use crate::store::nodes::SvidRow;
use crate::store::results::AttestationRow;

/// What a pass gives.
struct Granted {
    result: AttestationResult,
    /// Leaf first; empty where no renewal was asked for.
    chain: Vec<Vec<u8>>,
    key: SpkiHash,
}

impl Live {
    pub(super) async fn evidence(
        &mut self,
        message: v1::AttestEvidence,
    ) -> Result<(), SessionEnded> {
        let now = self.hub.clock.boottime();
        let random = self.jitter();
        let Some(renew) = self.schedule.answered(&message.nonce, now, random) else {
            // Late, repeated, or made up: nothing was asked with it, so it says nothing about the node.
            return self.unasked();
        };
        let nonce = self
            .asked
            .iter()
            .find(|nonce| nonce.as_bytes().as_slice() == message.nonce)
            .copied();
        self.asked.clear();
        let (Some(nonce), Some(member)) = (nonce, self.hub.member(&self.name)) else {
            return self.unasked();
        };
        if !member.is_active() {
            return Err(SessionEnded::Status(member.row.status));
        }
        match self.weigh(message, &nonce, &member, renew).await {
            Ok(()) => Ok(()),
            Err(Weighed::Refused(refusal)) => self.failed(&member, &refusal).await,
            Err(Weighed::Ended(ended)) => Err(ended),
        }
    }

    async fn weigh(
        &mut self,
        message: v1::AttestEvidence,
        nonce: &Nonce,
        member: &Member,
        renew: bool,
    ) -> Result<(), Weighed> {
        let policy = self.hub.policy();
        let measured = measured(policy.as_deref(), &member.row.labels).map_err(Refusal::from)?;
        let answer = Answer::from_wire(message)?;
        let id = self.id();
        let judged = judge(
            &answer,
            &Expected {
                trust_domain: &self.hub.config.trust_domain,
                node: &id,
                row: &member.row,
                svid_public: &self.opened.svid.public,
                nonce,
                exporter: &Exporter::from_bytes(self.opened.caller.exporter),
                boot_key: &self.opened.boot_key,
                measured: &measured,
                last: member.standing.counters,
                renew,
            },
        )?;
        let granted = match renew {
            true => self.renew(&judged).await?,
            false => self.result(&judged)?,
        };
        self.pass(member, &judged, granted, renew)
            .await
            .map_err(Weighed::Ended)
    }

    fn result(&self, judged: &Judged) -> Result<Granted, Weighed> {
        let id = self.id();
        let context = ResultContext {
            spiffe_id: &id,
            issued: self.hub.clock.now(),
            deny_number: self.hub.deny_number(),
        };
        let result = AttestationResult::new(&judged.evidence, &judged.appraisal, &context)
            .map_err(Refusal::from)?;
        Ok(Granted {
            key: *result.svid_spki(),
            result,
            chain: Vec::new(),
        })
    }

    /// A new certificate: recorded with its event before the node gets it.
    async fn renew(&mut self, judged: &Judged) -> Result<Granted, Weighed> {
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
            .allowed()
            .detail("serial", &leaf.serial)
            .detail("key", key);
        let mut tx = hub.store.begin("svid.renew").await?;
        if tx.is_denied(&key).await? {
            return Err(Weighed::Ended(SessionEnded::Cancelled));
        }
        tx.insert_svid(&row).await?;
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
        Ok(Granted {
            chain: made
                .issued
                .chain
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            key,
            result: made.result,
        })
    }

    async fn pass(
        &mut self,
        member: &Member,
        judged: &Judged,
        granted: Granted,
        renewed: bool,
    ) -> Result<(), SessionEnded> {
        let hub = self.hub.clone();
        let now = hub.clock.now();
        let until = self.opened.svid.not_after.since(now);
        let signed = hub.sign_result(&granted.result, until, now)?;
        let state = granted.result.state();
        let row = AttestationRow {
            node: self.name.clone(),
            state,
            code: None,
            changed: now,
            passed: Some(now),
            result: Some(signed.clone()),
            boot_key: Some(self.opened.boot_key),
            counters: judged.counters,
            findings: Vec::new(),
        };
        self.passed().await?;
        // The key that peers address is that of the leaf the node presents: the new one, once it is back with it.
        hub.passed(row, self.opened.peer.spki_hash());
        let mut event = Event::new(now, Actor::Cloud, EventKind::AttestationPassed)
            .subject(self.id())
            .allowed()
            .detail("state", state)
            .detail("tier", member.row.tier);
        if judged.rebooted {
            event = event.detail("rebooted", true);
        }
        if renewed {
            event = event.detail("renewed", true);
        }
        for code in granted.result.would_fail().iter().take(4) {
            event = event.detail("would_fail", code);
        }
        hub.audit.later(event);
        metrics::counter!("edgeward_attestations_total", "outcome" => "passed").increment(1);
        tracing::debug!(node = %self.id(), %state, key = %granted.key, "evidence passed");
        self.send(Body::Outcome(v1::AttestOutcome {
            result: signed,
            svid_chain: granted.chain,
            refused: None,
            findings: Vec::new(),
        }))
    }

    async fn failed(&mut self, member: &Member, refusal: &Refusal) -> Result<(), SessionEnded> {
        let code = refusal.code();
        metrics::counter!("edgeward_attestations_total", "outcome" => "failed").increment(1);
        tracing::warn!(node = %self.id(), code, reason = %refusal, "evidence failed");
        // A session that is not in force says nothing about the node: the one that is does.
        if self.is_in_force() {
            self.hub
                .fell(member, AttestationState::Failed, code, refusal.to_string())
                .await;
        } else {
            let event = Event::new(self.hub.clock.now(), self.id(), EventKind::SessionRefused)
                .subject(self.id())
                .denied(code)
                .detail("reason", refusal);
            self.hub.audit.later(event);
        }
        self.refuse(code)?;
        match self.is_in_force() {
            true => Ok(()),
            false => Err(SessionEnded::NotPassed),
        }
    }

    fn unasked(&mut self) -> Result<(), SessionEnded> {
        metrics::counter!("edgeward_attestations_total", "outcome" => "unasked").increment(1);
        let event = Event::new(self.hub.clock.now(), self.id(), EventKind::SvidDenied)
            .subject(self.id())
            .denied("challenge_unknown");
        self.hub.audit.later(event);
        self.refuse("challenge_unknown")?;
        self.misdeed()
    }

    fn refuse(&self, code: &str) -> Result<(), SessionEnded> {
        self.send(Body::Outcome(v1::AttestOutcome {
            result: Vec::new(),
            svid_chain: Vec::new(),
            refused: Some(v1::Refused {
                code: code.to_owned(),
                retry_seconds: 0,
            }),
            findings: Vec::new(),
        }))
    }

    /// The node holds its renewed certificate; the one before may go when it ends.
    pub(super) async fn stored(&mut self, key: &[u8]) -> Result<(), SessionEnded> {
        let key: [u8; 32] = key
            .try_into()
            .map_err(|_| SessionEnded::Hello("spki hash"))?;
        let mut tx = self.hub.store.begin("svid.acknowledge").await?;
        tx.acknowledge_svid(&self.name, &SpkiHash::from_bytes(key))
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Why an answer gave nothing.
enum Weighed {
    Refused(Refusal),
    Ended(SessionEnded),
}

impl From<Refusal> for Weighed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<crate::store::StoreError> for Weighed {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Ended(error.into())
    }
}

impl From<HubFault> for Weighed {
    fn from(fault: HubFault) -> Self {
        Self::Ended(fault.into())
    }
}
