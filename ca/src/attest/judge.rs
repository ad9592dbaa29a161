//! Judging one answer to one challenge: evidence, the logs beside it, then their appraisal. Pure: told the time, run on
//! the threads of [`super::pool`].

use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::app_log::{AppState, BadLog};
use edgeward_evidence::appraise::{
    AppControl, Appraisal, Logs, Mismatch, Profile, appraise, appraise_without_profile,
};
use edgeward_evidence::ima::{ImaRefused, ImaVerdict};
use edgeward_evidence::result::NoResult;
use edgeward_evidence::verify::{
    AttestExpected, AttestationKey, EvidenceRefused, KeyRefused, SoftwareAttestExpected, SvidKey,
    SvidProof, TpmTier, VerifiedEvidence, verify_attestation, verify_software_attestation,
};
use edgeward_evidence::{BootLog, Digest, Exporter};
use edgeward_identity::keys::KeyError;
use edgeward_identity::{AttestationState, PublicKey, SpiffeId, Timestamp, TrustDomain};

use super::Measured;
use super::answer::{Answer, Root};
use super::known::{Asked, Known, KnownBoot, KnownIma};
use super::profile::Unmeasurable;
use crate::store::evidence::ImaTail;
use crate::store::nodes::NodeRow;
use crate::store::results::Counters;

mod logs;

/// How far a node's own clock may run behind the cloud's: such a node would honour what has ended. Evidence may have
/// been under way for [`edgeward_wire::limits::CHALLENGE_DEADLINE`].
pub(crate) const MAX_CLOCK_BEHIND: Duration = Duration::from_secs(60);
/// How far it may run ahead without being mentioned: such a node only takes rights away too early.
pub(crate) const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(600);

/// What the cloud knows about the node, its session and its challenge.
#[derive(Clone, Debug)]
pub struct Case {
    pub trust_domain: TrustDomain,
    pub node: SpiffeId,
    pub row: NodeRow,
    /// As stored with the certificate that the session was opened with.
    pub svid_public: Vec<u8>,
    pub exporter: Exporter,
    pub boot_key: PublicKey,
    pub measured: Arc<Measured>,
    pub last: Counters,
    /// The TPM's firmware version in the evidence that passed last.
    pub firmware_before: Option<u64>,
    /// Whether a renewal was asked for: then the answer must certify the key.
    pub renew: bool,
    pub asked: Asked,
    /// When the answer came.
    pub now: Timestamp,
}

/// What an answer is worth.
#[derive(Debug)]
pub enum Verdict {
    Passed(Box<Judged>),
    /// Authentic, but not as the profile says.
    Mismatched(Box<Judged>, Refusal),
    /// Not authentic, or nothing can be said about it.
    Refused(Refusal),
    /// A part: the rest is to be asked for at once.
    Partial(Box<Partial>),
}

/// What is to be asked for next.
#[derive(Clone, Debug)]
pub struct Partial {
    /// What still counts of what was known.
    pub known: Option<Arc<Known>>,
    pub progress: Option<KnownIma>,
}

/// Authentic evidence, compared.
#[derive(Clone, Debug)]
pub struct Judged {
    pub evidence: VerifiedEvidence,
    pub appraisal: Appraisal,
    /// To be stored after a pass: the next answer is compared with it.
    pub counters: Counters,
    pub rebooted: bool,
    /// `TPMT_PUBLIC`, or point, of the key that the evidence proved.
    pub svid_public: Vec<u8>,
    pub beside: Beside,
    /// What the next answer may leave out. `None` without a TPM.
    pub known: Option<Arc<Known>>,
    /// A boot log that was not known before.
    pub boot_log: Option<Vec<u8>>,
    /// Entries of the IMA list that were not known before.
    pub ima: Option<ImaTail>,
    /// The node's own clock runs ahead by this much.
    pub ahead: Option<Duration>,
}

/// What there was beside the quote, judged.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    pub(super) boot: Option<KnownBoot>,
    pub(super) ima: Option<Result<KnownIma, ImaRefused>>,
    pub(super) app_control: Option<AppControl>,
    pub(super) apps: Option<Result<AppState, BadLog>>,
    /// The TPM's firmware version in the evidence that passed last.
    pub(super) firmware_before: Option<u64>,
}

/// Why an answer did not pass. The fault is the node's unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("evidence is of another root than the node's")]
    OtherRoot,
    #[error("a renewal was asked for and the key is not certified")]
    NotCertified,
    #[error("evidence is incomplete")]
    Incomplete,
    #[error(transparent)]
    Evidence(#[from] EvidenceRefused),
    #[error("key: {0}")]
    Key(#[from] KeyRefused),
    #[error("what was measured is not what the profile says: {0}")]
    Appraisal(String, &'static str),
    #[error("clock of the node is behind by {} s", .0.as_secs())]
    ClockBehind(Duration),
    #[error("result: {0}")]
    Result(#[from] NoResult),
    /// The policy's.
    #[error("policy: {0}")]
    Policy(#[from] Unmeasurable),
    /// Ours.
    #[error("stored keys of the node are unreadable")]
    Stored,
}

impl Refusal {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherRoot => "evidence_other_root",
            Self::NotCertified => "certify_missing",
            Self::Incomplete => "evidence_incomplete",
            Self::Evidence(refused) => refused.code(),
            Self::Key(refused) => refused.code(),
            Self::Appraisal(_, code) => code,
            Self::ClockBehind(_) => "clock_behind",
            Self::Result(refused) => refused.code(),
            Self::Policy(refused) => refused.code(),
            Self::Stored => "internal",
        }
    }

    /// What it makes of the node. A clock that is behind says nothing about what runs there.
    pub fn state(&self) -> AttestationState {
        match self {
            Self::ClockBehind(_) => AttestationState::Stale,
            _ => AttestationState::Failed,
        }
    }

    /// What to do about it, for people.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::ClockBehind(_) => {
                "Set the node's clock (`timedatectl`, NTP); it is trusted again with its next answer."
            }
            Self::Policy(_) => {
                "Correct the profiles of this node's groups: together nothing can pass them."
            }
            Self::Stored | Self::Result(_) => "Look at the cloud's log; restore its database.",
            Self::Evidence(_) | Self::Key(_) | Self::OtherRoot | Self::NotCertified => {
                "If the node was restored, cloned or its TPM cleared, enrol it again; if not, take it out and look at it."
            }
            Self::Incomplete | Self::Appraisal(..) => {
                "Update the agent; if it happens again, take the node out and look at it."
            }
        }
    }
}

impl From<KeyError> for Refusal {
    fn from(_: KeyError) -> Self {
        Self::Stored
    }
}

/// Judges an answer; nothing else changes.
pub fn judge(case: &Case, answer: Answer) -> Verdict {
    match weigh(case, answer) {
        Ok(verdict) => verdict,
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// Compares an enrolment's evidence with what the node must measure. What logs decide is left open.
pub(crate) fn appraise_enrolment(
    evidence: &VerifiedEvidence,
    measured: &Measured,
) -> Result<Appraisal, Refusal> {
    let appraisal = Beside::default().appraise(evidence, measured, true, (None, None))?;
    match mismatch(&appraisal) {
        Some(refusal) => Err(refusal),
        None => Ok(appraisal),
    }
}

/// Appraises once more with the boot logs themselves, so that what did not match is named for people.
pub fn explain(
    judged: &Judged,
    measured: &Measured,
    boot_log: Option<&[u8]>,
    passed: Option<&[u8]>,
) -> Result<Appraisal, Refusal> {
    let parse = |bytes: Option<&[u8]>| bytes.and_then(|bytes| BootLog::parse(bytes).ok());
    let (boot_log, passed) = (parse(boot_log), parse(passed));
    let logs = (boot_log.as_ref(), passed.as_ref());
    judged
        .beside
        .appraise(&judged.evidence, measured, false, logs)
}

fn weigh(case: &Case, answer: Answer) -> Result<Verdict, Refusal> {
    let evidence = verify(case, &answer.root)?;
    let ahead = check_clock(answer.time, case.now)?;
    let app_control = AppControl::from_word(&answer.app_control);
    let (looked, facts) = match evidence.tpm() {
        None => (logs::Looked::default(), None),
        Some(facts) => match logs::look(case, facts, answer.logs) {
            Ok(looked) => (looked, Some(facts)),
            Err(partial) => return Ok(Verdict::Partial(partial)),
        },
    };
    let beside = Beside {
        boot: looked.boot,
        ima: looked.ima,
        apps: looked.apps,
        app_control,
        firmware_before: case.firmware_before,
    };
    let appraisal = beside.appraise(&evidence, &case.measured, false, (None, None))?;
    let known = facts.map(|facts| Arc::new(Known::after(case, facts, &beside)));
    let (counters, rebooted, svid_public) = match facts {
        Some(facts) => (
            Counters::from(facts.clock()),
            facts.rebooted(),
            facts.svid().public_bytes().to_vec(),
        ),
        None => (
            Counters::default(),
            false,
            evidence.svid_key().point().to_vec(),
        ),
    };
    let refusal = mismatch(&appraisal);
    let judged = Box::new(Judged {
        counters,
        rebooted,
        svid_public,
        known,
        boot_log: looked.boot_log,
        ima: looked.tail,
        ahead,
        beside,
        appraisal,
        evidence,
    });
    Ok(match refusal {
        None => Verdict::Passed(judged),
        Some(refusal) => Verdict::Mismatched(judged, refusal),
    })
}

impl Beside {
    /// The node's profile, and what those that monitor would have said.
    fn appraise(
        &self,
        evidence: &VerifiedEvidence,
        measured: &Measured,
        pending: bool,
        (boot_log, boot_log_passed): (Option<&BootLog>, Option<&BootLog>),
    ) -> Result<Appraisal, Refusal> {
        let logs = Logs {
            pending,
            boot: self.boot.as_ref().map(KnownBoot::judged),
            ima: None,
            app_control: self.app_control,
            apps: self.apps.as_ref().map(Result::as_ref),
            boot_log,
            boot_log_passed,
            firmware_before: self.firmware_before,
        };
        let Some(profile) = &measured.profile else {
            return Ok(appraise_without_profile(evidence, &logs));
        };
        if evidence.tpm().is_none() {
            // A machine without a TPM is where its profiles allow that; there is nothing to compare.
            return match measured.software {
                true => Ok(appraise_without_profile(evidence, &logs)),
                false => Err(Refusal::Appraisal(
                    "tier software".to_owned(),
                    "tier_software",
                )),
            };
        }
        let of = |profile: &Profile| {
            let logs = Logs {
                ima: self.ima_for(profile),
                ..logs
            };
            appraise(evidence, profile, &logs)
        };
        let monitors = measured.monitors.iter().map(of);
        Ok(monitors.fold(of(profile), |appraisal, monitor| appraisal.beside(&monitor)))
    }

    fn ima_for(&self, profile: &Profile) -> Option<Result<&ImaVerdict, &ImaRefused>> {
        let policy = profile.ima()?.hash();
        match self.ima.as_ref()? {
            Err(refused) => Some(Err(refused)),
            Ok(known) => known.verdict_by(&policy).map(Ok),
        }
    }
}

/// Why an appraisal fails its node, if it does.
fn mismatch(appraisal: &Appraisal) -> Option<Refusal> {
    if appraisal.state() != AttestationState::Failed {
        return None;
    }
    let reasons: Vec<String> = appraisal
        .reasons()
        .iter()
        .map(ToString::to_string)
        .collect();
    let code = appraisal
        .reasons()
        .first()
        .map_or("profile_mismatch", Mismatch::code);
    Some(Refusal::Appraisal(reasons.join("; "), code))
}

/// A node whose clock is behind would honour what has ended. `Some`: it is ahead by so much.
fn check_clock(theirs: Timestamp, ours: Timestamp) -> Result<Option<Duration>, Refusal> {
    let behind = ours.since(theirs);
    if behind > MAX_CLOCK_BEHIND {
        return Err(Refusal::ClockBehind(behind));
    }
    let ahead = theirs.since(ours);
    Ok((ahead > MAX_CLOCK_AHEAD).then_some(ahead))
}

fn verify(case: &Case, root: &Root) -> Result<VerifiedEvidence, Refusal> {
    match (root, case.row.root.ek(), TpmTier::new(case.row.tier)) {
        (Root::Tpm(evidence), Some(ek), Some(tier)) => {
            if case.renew && evidence.svid == SvidProof::Current {
                return Err(Refusal::NotCertified);
            }
            let ek_digest: Digest = ek.parse().map_err(|_| Refusal::Stored)?;
            let ak = AttestationKey::from_public(&case.row.ak).map_err(|_| Refusal::Stored)?;
            let svid = SvidKey::from_public(&case.svid_public).map_err(|_| Refusal::Stored)?;
            let known = case.asked.known.as_ref();
            Ok(verify_attestation(
                evidence,
                &AttestExpected {
                    trust_domain: &case.trust_domain,
                    node: &case.node,
                    nonce: &case.asked.nonce,
                    exporter: &case.exporter,
                    boot_key: &case.boot_key,
                    ek_digest: &ek_digest,
                    tier,
                    ak: &ak,
                    svid: &svid,
                    selection: &case.measured.selection,
                    known_pcrs: known.map(|known| &known.pcr_values),
                    last: case.last.into(),
                },
            )?)
        }
        (Root::Software(signature), None, None) => {
            let svid_key = PublicKey::from_point(&case.svid_public)?;
            Ok(verify_software_attestation(
                signature,
                &SoftwareAttestExpected {
                    trust_domain: &case.trust_domain,
                    node: &case.node,
                    nonce: &case.asked.nonce,
                    exporter: &case.exporter,
                    boot_key: &case.boot_key,
                    svid_key: &svid_key,
                },
            )?)
        }
        _ => Err(Refusal::OtherRoot),
    }
}
