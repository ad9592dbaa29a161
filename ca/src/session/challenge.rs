//! Asking for evidence: what a challenge says, and the answer that is being judged.

use std::sync::Arc;

use edgeward_evidence::result::ResultContext;
use edgeward_evidence::{AttestationResult, Exporter, Nonce};
use edgeward_identity::{SpiffeId, Timestamp};
use edgeward_wire::v1::{self, cloud_message::Body};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::{self, error::RecvError};

use super::SessionEnded;
use super::live::{Live, draw};
use crate::attest::answer::selection_to_wire;
use crate::attest::{
    Answer, Asked, Case, Judged, Known, Measured, Partial, Refusal, Step, Unmeasurable, Verdict,
    Weight, judge,
};
use crate::hub::{Hub, HubFault, Member};

/// Most parts that one answer may come in: a list of the largest size, and a boot in between.
const MAX_PARTS: u32 = 40;

/// The challenges of a session.
#[derive(Default)]
pub(super) struct Challenges {
    /// Those that may be answered: one, or two after a repetition.
    sent: Vec<Sent>,
    pub(super) judging: Option<Judging>,
    /// What has come of an answer in parts.
    partial: Option<Partial>,
    parts: u32,
    /// Held while the node may send whole logs, until they are written.
    pub(super) admitted: Option<OwnedSemaphorePermit>,
    /// Whether an answer passed in this session.
    pub(super) passed: bool,
    /// When the newest answer came.
    pub(super) received: Timestamp,
    /// The newest change of what runs that the node spoke of.
    heeded: u64,
}

struct Sent {
    asked: Asked,
    /// By which the answer is judged, whatever the policy says when it comes.
    measured: Result<Arc<Measured>, Unmeasurable>,
}

/// An answer on its way through the threads that verify.
pub(super) struct Judging {
    pub(super) renew: bool,
    pub(super) measured: Arc<Measured>,
    judgement: oneshot::Receiver<Judgement>,
}

/// What came of it.
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// Made there, too, where nothing stands between a pass and its result.
    pub(super) signed: Option<Result<SignedResult, Unsigned>>,
}

/// A result as it is told to everybody.
pub(super) struct SignedResult {
    pub(super) result: AttestationResult,
    pub(super) bytes: Vec<u8>,
}

pub(super) enum Unsigned {
    Refused(Refusal),
    Fault(HubFault),
}

/// The judgement of the answer that is being judged; waits for ever where none is.
pub(super) async fn concluded(judging: &mut Option<Judging>) -> Result<Judgement, RecvError> {
    match judging {
        Some(judging) => (&mut judging.judgement).await,
        None => std::future::pending().await,
    }
}

/// What is said of evidence that passed.
pub(super) fn sign(hub: &Hub, judged: &Judged, about: &Signing) -> Result<SignedResult, Unsigned> {
    let now = hub.clock.now();
    let context = ResultContext {
        spiffe_id: &about.node,
        issued: now,
        deny_number: hub.deny_number(),
    };
    let result = AttestationResult::new(&judged.evidence, &judged.appraisal, &context)
        .map_err(|refused| Unsigned::Refused(refused.into()))?;
    let bytes = hub
        .sign_result(&result, about.ends.since(now), now)
        .map_err(Unsigned::Fault)?;
    Ok(SignedResult { result, bytes })
}

/// About whom, and until when.
pub(super) struct Signing {
    pub(super) node: SpiffeId,
    pub(super) ends: Timestamp,
}

impl Challenges {
    /// The first challenge comes at once, and covers what the Hello said of what runs.
    pub(super) fn after_hello(hello: &v1::Hello) -> Self {
        Self {
            heeded: hello.apps.as_ref().map_or(0, |apps| apps.measured),
            ..Self::default()
        }
    }

    /// Nothing that was asked may be answered any more.
    pub(super) fn give_up(&mut self) {
        self.sent.clear();
        self.partial = None;
        self.parts = 0;
        self.admitted = None;
    }

    fn take(&mut self, nonce: &[u8]) -> Option<Sent> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter().find(|sent| sent.asked.nonce_is(nonce))
    }
}

impl Live {
    /// Whether the node may be asked now: whoever would have to send whole logs needs a place.
    pub(super) fn may_ask(&mut self) -> bool {
        if self.challenges.admitted.is_some() {
            return true;
        }
        let sent = self.compose(Nonce::from_bytes([0; 32]));
        if !sent.is_some_and(|sent| sent.asked.is_heavy()) {
            return true;
        }
        self.challenges.admitted = self.hub.verifiers.admit_logs();
        self.challenges.admitted.is_some()
    }

    pub(super) fn challenge(&mut self, nonce: Nonce, renew: bool) -> Result<(), SessionEnded> {
        let Some(sent) = self.compose(nonce) else {
            return Err(SessionEnded::Unknown);
        };
        let nothing = Measured::nothing(false);
        let selection = match &sent.measured {
            Ok(measured) => &measured.selection,
            // Judged with the answer: the node then fails with this reason.
            Err(_) => &nothing.selection,
        };
        let challenge = v1::AttestChallenge {
            nonce: nonce.as_bytes().to_vec(),
            pcr_selection: Some(selection_to_wire(selection)),
            renew,
            logs: sent.asked.logs_to_wire(),
            pcrs_known: sent.asked.pcrs_to_wire(),
        };
        if self.challenges.sent.len() > 1 {
            self.challenges.sent.clear();
        }
        self.challenges.sent.push(sent);
        self.send(Body::Challenge(challenge))?;
        self.beat_along()
    }

    fn compose(&self, nonce: Nonce) -> Option<Sent> {
        let member = self.hub.member(&self.name)?;
        let measured = self.hub.measured_by(&self.name, &member.row.labels);
        let nothing = Measured::nothing(false);
        let wanted = measured.as_deref().unwrap_or(&nothing);
        let holds = |known: &Arc<Known>| known.holds(wanted, &self.opened.boot_key);
        let (known, progress) = match &self.challenges.partial {
            Some(partial) => (partial.known.clone(), partial.progress.clone()),
            None => (self.hub.known(&self.name), None),
        };
        let tpm = member.row.root.ek().is_some();
        let asked = Asked::new(nonce, wanted, known.filter(holds), progress, tpm);
        Some(Sent { asked, measured })
    }

    /// The node says which of its records changed last what runs. Where the evidence in hand does not reach it, newer
    /// evidence is asked for at once. No trust rests on it: who says nothing is asked at the usual time.
    pub(super) fn heed(&mut self, newest: u64) {
        if std::mem::replace(&mut self.challenges.heeded, newest) == newest {
            return;
        }
        // Each boot counts its records from the beginning: how far those of another one went says nothing.
        let known = self.hub.known(&self.name);
        let known = known.filter(|known| known.is_bound_to(&self.opened.boot_key));
        if known.map_or(0, |known| known.app_records()) < newest {
            self.schedule.heed(self.hub.clock.boottime());
        }
    }

    /// Takes an answer and has it judged.
    pub(super) async fn evidence(
        &mut self,
        message: v1::AttestEvidence,
    ) -> Result<(), SessionEnded> {
        self.challenges.received = self.hub.clock.now();
        let now = self.hub.clock.boottime();
        let Some(renew) = self.schedule.answered(&message.nonce, now) else {
            // Late, repeated, or made up: nothing was asked with it, so it says nothing about the node.
            return self.unasked();
        };
        let (Some(sent), Some(member)) = (
            self.challenges.take(&message.nonce),
            self.hub.member(&self.name),
        ) else {
            self.schedule.judged(now, self.jitter());
            return self.unasked();
        };
        if !member.is_active() {
            return Err(SessionEnded::Status(member.row.status));
        }
        let ready = sent
            .measured
            .map_err(Refusal::from)
            .and_then(|measured| Ok((measured, Answer::from_wire(message)?)));
        let (measured, answer) = match ready {
            Ok(ready) => ready,
            Err(refusal) => {
                self.rest();
                return self.failed(&member, &refusal, None).await;
            }
        };
        let case = self.case(member, sent.asked, measured, renew);
        self.challenges.judging = Some(self.submit(case, answer));
        Ok(())
    }

    fn case(&self, member: Member, asked: Asked, measured: Arc<Measured>, renew: bool) -> Case {
        Case {
            trust_domain: self.hub.config.trust_domain.clone(),
            node: self.id(),
            row: member.row,
            svid_public: self.opened.svid.public.clone(),
            exporter: Exporter::from_bytes(self.opened.caller.exporter),
            boot_key: self.opened.boot_key,
            measured,
            last: member.standing.counters,
            firmware_before: self.hub.firmware_before(&self.name),
            renew,
            asked,
            now: self.challenges.received,
        }
    }

    fn submit(&self, case: Case, answer: Answer) -> Judging {
        let weight = match case.asked.is_heavy() {
            true => Weight::Logs,
            false => Weight::Quote,
        };
        let (hub, renew, measured) = (self.hub.clone(), case.renew, case.measured.clone());
        let signing = Signing {
            node: self.id(),
            ends: self.opened.svid.not_after,
        };
        let judgement = self.hub.verifiers.submit(weight, move || {
            let verdict = judge(&case, answer);
            let signed = match &verdict {
                Verdict::Passed(judged) if !case.renew => Some(sign(&hub, judged, &signing)),
                _ => None,
            };
            Judgement { verdict, signed }
        });
        Judging {
            renew,
            measured,
            judgement,
        }
    }

    /// Asks for the rest of an answer that came in parts.
    pub(super) async fn follow(&mut self, partial: Partial) -> Result<(), SessionEnded> {
        self.challenges.parts += 1;
        if self.challenges.parts > MAX_PARTS {
            self.rest();
            return match self.hub.member(&self.name) {
                Some(member) => self.failed(&member, &Refusal::Incomplete, None).await,
                None => Err(SessionEnded::Unknown),
            };
        }
        self.challenges.partial = Some(partial);
        let now = self.hub.clock.boottime();
        match self.schedule.follow(now, draw()?.nonce) {
            Step::Challenge { nonce, renew } => self.challenge(nonce, renew),
            Step::Wait(_) | Step::Stale => Ok(()),
        }
    }

    /// The answer is judged to its end; the next challenge comes at its time. What admitted its logs is returned.
    pub(super) fn rest(&mut self) -> Option<OwnedSemaphorePermit> {
        let admitted = self.challenges.admitted.take();
        self.challenges.give_up();
        let random = self.jitter();
        self.schedule.judged(self.hub.clock.boottime(), random);
        admitted
    }
}
