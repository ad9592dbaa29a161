//! What a judged answer makes of its node: a pass, a fall, a part to be followed.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::Digest;
use edgeward_evidence::appraise::Mismatch;
use edgeward_evidence::verify::EvidenceRefused;
use edgeward_identity::{SpkiHash, Timestamp};
use edgeward_wire::slice_delta;
use edgeward_wire::v1::{self, cloud_message::Body};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::error::RecvError;

use super::SessionEnded;
use super::challenge::{Judgement, SignedResult, Unsigned};
use super::kept;
use super::live::Live;
use crate::attest::{Judged, Measured, Refusal, Verdict, Weight, explain};
use crate::hub::{Fall, HubFault, Member, with_findings};
use crate::store::evidence::{KeptFinding, Which};
use crate::store::results::AttestationRow;

/// What a pass gives.
pub(super) struct Granted {
    pub(super) signed: SignedResult,
    /// Leaf first; empty where no renewal was asked for.
    pub(super) chain: Vec<Vec<u8>>,
}

impl Live {
    /// An answer was judged.
    pub(super) async fn concluded(
        &mut self,
        judgement: Result<Judgement, RecvError>,
    ) -> Result<(), SessionEnded> {
        let (Some(judging), Ok(judgement)) = (self.challenges.judging.take(), judgement) else {
            return Err(SessionEnded::Shutdown);
        };
        let Some(member) = self.hub.member(&self.name) else {
            return Err(SessionEnded::Unknown);
        };
        if !member.is_active() {
            return Err(SessionEnded::Status(member.row.status));
        }
        let (judged, refusal) = match judgement.verdict {
            Verdict::Partial(partial) => return self.follow(*partial).await,
            Verdict::Passed(judged) => (Some(judged), None),
            Verdict::Mismatched(judged, refusal) => (Some(judged), Some(refusal)),
            Verdict::Refused(refusal) => (None, Some(refusal)),
        };
        let admitted = self.rest();
        let measured = &judging.measured;
        let (judged, refusal) = match (judged, refusal) {
            (Some(judged), None) => {
                let granted = match judgement.signed {
                    Some(Ok(signed)) => Ok(Granted {
                        signed,
                        chain: Vec::new(),
                    }),
                    Some(Err(Unsigned::Refused(refusal))) => Err(Weighed::Refused(refusal)),
                    Some(Err(Unsigned::Fault(fault))) => return Err(fault.into()),
                    None => self.renew(&judged).await,
                };
                match granted {
                    Ok(granted) => {
                        return self
                            .pass(&member, *judged, granted, judging.renew, admitted)
                            .await;
                    }
                    Err(Weighed::Refused(refusal)) => (None, refusal),
                    Err(Weighed::Ended(ended)) => return Err(ended),
                }
            }
            (judged, Some(refusal)) => (judged, refusal),
            (None, None) => (None, Refusal::Stored),
        };
        let judged = judged.map(|judged| (*judged, measured.as_ref(), admitted));
        self.failed(&member, &refusal, judged).await
    }

    async fn pass(
        &mut self,
        member: &Member,
        judged: Judged,
        granted: Granted,
        renewed: bool,
        admitted: Option<OwnedSemaphorePermit>,
    ) -> Result<(), SessionEnded> {
        let hub = self.hub.clone();
        let now = hub.clock.now();
        let state = granted.signed.result.state();
        let before = &member.standing;
        let mut findings = kept::findings(&judged.appraisal, &before.findings, now);
        findings.extend(kept::clock_ahead(&judged, &before.findings, now));
        let changed = before.state != state || before.code.is_some();
        let row = AttestationRow {
            node: self.name.clone(),
            state,
            code: None,
            changed: if changed { now } else { before.changed },
            passed: Some(now),
            result: Some(granted.signed.bytes.clone()),
            boot_key: Some(self.opened.boot_key),
            counters: judged.counters,
            findings: findings.clone(),
        };
        self.passed().await?;
        let first = !std::mem::replace(&mut self.challenges.passed, true);
        let news = first
            || changed
            || renewed
            || judged.rebooted
            || !same_codes(&before.findings, &findings)
            || hub.known(&self.name).is_none_or(|known| {
                judged
                    .known
                    .as_deref()
                    .is_none_or(|now| !now.is_under_the_profiles_of(&known))
            });
        // The key that peers address is that of the leaf the node presents: the new one, once it is back with it.
        hub.passed(row, self.opened.peer.spki_hash(), news);
        if news {
            let event = Event::new(now, Actor::Cloud, EventKind::AttestationPassed)
                .subject(self.id())
                .allowed()
                .detail("state", state)
                .detail("tier", member.row.tier);
            let event = noted(event, judged.rebooted, renewed);
            hub.audit.later(with_findings(event, &findings));
        }
        metrics::counter!("edgeward_attestations_total", "outcome" => "passed").increment(1);
        if findings.iter().any(|finding| finding.monitored) {
            metrics::counter!("edgeward_attestations_would_fail_total").increment(1);
        }
        tracing::debug!(node = %self.id(), %state, "evidence passed");
        let firmware = judged.evidence.tpm().map(|facts| facts.firmware());
        hub.remember(&self.name, judged.known.clone(), firmware);
        self.keep(judged, None, &findings, now, admitted);
        let result_delta = self.against_told(&granted.signed.bytes);
        self.send(Body::Outcome(v1::AttestOutcome {
            result: match result_delta {
                Some(_) => Vec::new(),
                None => granted.signed.bytes,
            },
            svid_chain: granted.chain,
            refused: None,
            findings: kept::to_wire(&findings),
            result_delta,
        }))
    }

    /// On a metered link: the result by what is new in it, where the node was told one before.
    fn against_told(&mut self, result: &[u8]) -> Option<v1::SliceDelta> {
        if !self.opened.metered || !self.opened.holds.deltas {
            return None;
        }
        let before = self.told.replace(result.into())?;
        let base = slice_delta::Base {
            digest: *Digest::of(&before).as_bytes(),
            at: 0,
            bytes: &before,
        };
        slice_delta::make(base, result)
    }

    /// An answer that is no good. What takes away comes first; why, for people, after.
    pub(super) async fn failed(
        &mut self,
        member: &Member,
        refusal: &Refusal,
        judged: Option<(Judged, &Measured, Option<OwnedSemaphorePermit>)>,
    ) -> Result<(), SessionEnded> {
        let (code, now) = (refusal.code(), self.hub.clock.now());
        metrics::counter!("edgeward_attestations_total", "outcome" => "failed").increment(1);
        let before = &member.standing.findings;
        let mut findings = match &judged {
            Some((judged, ..)) => kept::findings(&judged.appraisal, before, now),
            None => kept::finding_of(refusal, before, now),
        };
        // A session that is not in force says nothing about the node: the one that is does.
        if !self.is_in_force() {
            let event = Event::new(now, self.id(), EventKind::SessionRefused)
                .subject(self.id())
                .denied(code)
                .detail("reason", refusal);
            self.hub.audit.later(with_findings(event, &findings));
            self.refuse(code, &findings)?;
            return Err(SessionEnded::NotPassed);
        }
        let fall = Fall {
            state: refusal.state(),
            code: code.to_owned(),
            reason: refusal.to_string(),
            quoted: is_quoted(refusal, judged.as_ref().map(|(judged, ..)| judged)),
            findings: findings.clone(),
            received: self.challenges.received,
        };
        self.hub.fell(member, fall).await;
        tracing::warn!(node = %self.id(), code, reason = %refusal, "evidence failed");
        if let Some((judged, measured, admitted)) = judged {
            self.hub.remember(&self.name, judged.known.clone(), None);
            if !same_codes(before, &findings)
                && let Some(better) = self.explain(&judged, measured, &findings, now).await
            {
                findings = better;
                self.hub.explained(&self.name, &findings);
            }
            self.keep(judged, Some(code), &findings, now, admitted);
        }
        self.refuse(code, &findings)
    }

    /// Names the events behind what did not match: with the log that came, and the one that passed last.
    async fn explain(
        &self,
        judged: &Judged,
        measured: &Measured,
        findings: &[KeptFinding],
        now: Timestamp,
    ) -> Option<Vec<KeptFinding>> {
        judged.known.as_ref()?.boot_log()?;
        let log_of = async |which| {
            let row = self.hub.store.evidence(&self.name, which).await;
            row.ok().flatten().and_then(|row| row.boot_log)
        };
        let passed = log_of(Which::Passed).await;
        let came = match &judged.boot_log {
            Some(log) => Some(log.clone()),
            None => log_of(Which::Latest).await,
        };
        let (judged, measured) = (judged.clone(), measured.clone());
        let explained = self.hub.verifiers.submit(Weight::Logs, move || {
            explain(&judged, &measured, came.as_deref(), passed.as_deref())
        });
        let appraisal = explained.await.ok()?.ok()?;
        Some(kept::findings(&appraisal, findings, now))
    }

    fn keep(
        &self,
        judged: Judged,
        code: Option<&str>,
        findings: &[KeptFinding],
        now: Timestamp,
        admitted: Option<OwnedSemaphorePermit>,
    ) {
        if let Some((content, kept)) =
            kept::evidence(&self.name, judged, code, findings, now, admitted)
            && self.hub.is_news(&self.name, content)
        {
            self.hub.keep(kept);
        }
    }

    pub(super) fn unasked(&mut self) -> Result<(), SessionEnded> {
        metrics::counter!("edgeward_attestations_total", "outcome" => "unasked").increment(1);
        let event = Event::new(self.hub.clock.now(), self.id(), EventKind::SvidDenied)
            .subject(self.id())
            .denied("challenge_unknown");
        self.hub.audit.later(event);
        self.refuse("challenge_unknown", &[])?;
        self.misdeed()
    }

    fn refuse(&self, code: &str, findings: &[KeptFinding]) -> Result<(), SessionEnded> {
        self.send(Body::Outcome(v1::AttestOutcome {
            result: Vec::new(),
            svid_chain: Vec::new(),
            refused: Some(v1::Refused {
                code: code.to_owned(),
                retry_seconds: 0,
            }),
            findings: kept::to_wire(findings),
            result_delta: None,
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
pub(super) enum Weighed {
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

/// Whether the node's TPM signed, for our nonce, what it fell by: values that its profile refuses, or a clock that was set
/// back. Whatever did not verify proves nothing about the node.
fn is_quoted(refusal: &Refusal, judged: Option<&Judged>) -> bool {
    match refusal {
        Refusal::Evidence(EvidenceRefused::Clock(_)) => true,
        Refusal::Appraisal(..) => judged.is_some_and(|judged| {
            judged.evidence.tpm().is_some()
                && judged.appraisal.reasons().iter().any(Mismatch::is_quoted)
        }),
        _ => false,
    }
}

fn noted(mut event: Event, rebooted: bool, renewed: bool) -> Event {
    if rebooted {
        event = event.detail("rebooted", true);
    }
    if renewed {
        event = event.detail("renewed", true);
    }
    event
}

fn same_codes(one: &[KeptFinding], other: &[KeptFinding]) -> bool {
    let keys = |findings: &[KeptFinding]| {
        findings
            .iter()
            .map(|finding| (finding.code.clone(), finding.pcr, finding.monitored))
            .collect::<Vec<_>>()
    };
    keys(one) == keys(other)
}
