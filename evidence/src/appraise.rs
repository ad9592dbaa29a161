//! Comparing verified evidence, and logs that were judged against it, with a [`Profile`].

mod events;
pub mod finding;
pub mod mismatch;
pub mod profile;

use edgeward_identity::AttestationState;

use crate::app_log::{AppState, BadLog, Runs};
use crate::boot_log::{BootLog, BootLogRefused, JudgedBoot};
use crate::digest::Digest;
use crate::ima::{IMA_PCR, ImaRefused, ImaVerdict};
use crate::tpm::PcrSelection;
use crate::verify::{TpmFacts, VerifiedEvidence};

pub use finding::Finding;
pub use mismatch::Mismatch;
pub use profile::{
    AppControl, BadProfile, EVIDENCE_PCRS, MAX_DIGESTS_PER_PCR, MAX_PROFILE_NAME_BYTES, Mode,
    Profile, ProfileFields, ProfileRef, STATED_BY_DEFAULT, evidence_selection,
};

/// Reason code of a result that waits for logs.
pub const LOG_PENDING: &str = "log_pending";
/// Most codes of monitoring profiles that an appraisal carries.
pub const MAX_WOULD_FAIL: usize = 8;
/// Most bytes of names and versions of what runs that a result says.
pub const MAX_RUNS_BYTES: usize = 3 * 1024;

/// What there is beside a quote. Nothing of it is believed that was not judged against the quoted values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logs<'a> {
    /// True at enrolment: logs follow at the beginning of the session. What the profile judges by them is left open, and
    /// until then the node is `stale`.
    pub pending: bool,
    /// Absent: none came.
    pub boot: Option<Result<&'a JudgedBoot, &'a BootLogRefused>>,
    /// Absent: none came.
    pub ima: Option<Result<&'a ImaVerdict, &'a ImaRefused>>,
    /// As the agent says.
    pub app_control: Option<AppControl>,
    /// The log of applications, as far as it was followed. Absent: none came.
    pub apps: Option<Result<&'a AppState, &'a BadLog>>,
    /// The boot log itself, to name events for people.
    pub boot_log: Option<&'a BootLog>,
    /// The one of this node that passed last, to name what changed.
    pub boot_log_passed: Option<&'a BootLog>,
    /// The TPM's firmware version in the evidence that passed last.
    pub firmware_before: Option<u64>,
}

/// What comparing one piece of evidence with a profile gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    about: Digest,
    profile: Option<ProfileRef>,
    stated: Option<PcrSelection>,
    pending: bool,
    reasons: Vec<Mismatch>,
    findings: Vec<Finding>,
    notices: Vec<Finding>,
    monitored: Vec<Monitored>,
    compared: Compared,
    runs: Option<Runs>,
}

/// What a profile that only watches would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitored {
    pub profile: ProfileRef,
    pub codes: Vec<&'static str>,
    pub findings: Vec<Finding>,
}

/// Of what kind the things are that were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Firmware's settings, Secure Boot among them.
    pub(crate) configuration: bool,
    /// Code that ran until the operating system did.
    pub(crate) boot: bool,
    /// Code that ran since.
    pub(crate) runtime: bool,
}

/// Compares all that the profile names; every mismatch is a reason.
pub fn appraise(evidence: &VerifiedEvidence, profile: &Profile, logs: &Logs<'_>) -> Appraisal {
    let mut reasons = Vec::new();
    let mut measured = None;
    if !profile.tiers().contains(&evidence.tier()) {
        reasons.push(Mismatch::Tier(evidence.tier()));
    }
    match evidence.tpm() {
        Some(facts) => {
            compare(facts, profile, &mut reasons);
            compare_boot(facts, profile, logs, &mut reasons);
            compare_ima(facts, profile, logs, &mut reasons);
            measured = compare_apps(facts, profile, logs, &mut reasons);
        }
        None => reasons.push(Mismatch::Selection),
    }
    let app_control = controlled(logs, measured);
    if let Some(least) = profile.app_control()
        && !logs.pending
        && app_control < Some(least)
    {
        reasons.push(Mismatch::AppControl {
            found: app_control,
            least,
        });
    }
    let runs = measured.and_then(AppState::runs);
    let is_said = runs.as_ref().is_some_and(is_sayable);
    let mut notices = notices(evidence, logs);
    if let Some(state) = measured.filter(|_| !is_said) {
        notices.push(unsaid(state));
    }
    let findings = reasons
        .iter()
        .map(|reason| reason.finding(profile, logs))
        .collect();
    let compares = |pcrs: &[u8]| pcrs.iter().any(|pcr| profile.pcr().contains_key(pcr));
    Appraisal {
        about: *evidence.qualifying_data(),
        profile: Some(profile.reference()),
        stated: Some(profile.stated().clone()),
        // A profile that only watches keeps nobody waiting.
        pending: logs.pending
            && profile.mode() == Mode::Enforce
            && (profile.wants_logs() || profile.app_control().is_some()),
        reasons,
        findings,
        notices,
        monitored: Vec::new(),
        runs: runs.filter(|_| is_said),
        compared: Compared {
            configuration: (profile.secure_boot().is_some() && !logs.pending)
                || compares(&[1, 3, 5, 7]),
            boot: compares(&[0, 2, 4, 8, 9, 11, 12, 13, 14]),
            runtime: profile.ima().is_some() && !logs.pending,
        },
    }
}

/// For groups without a profile: nothing is compared, so nothing can come of it but state `none`.
pub fn appraise_without_profile(evidence: &VerifiedEvidence, logs: &Logs<'_>) -> Appraisal {
    Appraisal {
        about: *evidence.qualifying_data(),
        profile: None,
        stated: None,
        pending: false,
        reasons: Vec::new(),
        findings: Vec::new(),
        notices: notices(evidence, logs),
        monitored: Vec::new(),
        compared: Compared::default(),
        runs: None,
    }
}

impl Appraisal {
    /// Takes along what a monitoring profile made of the same evidence; of other evidence nothing is taken.
    pub fn beside(mut self, monitor: &Self) -> Self {
        if let Some(profile) = &monitor.profile
            && monitor.about == self.about
            && !monitor.matched()
        {
            self.monitored.push(Monitored {
                profile: profile.clone(),
                codes: monitor.reasons.iter().map(Mismatch::code).collect(),
                findings: monitor.findings.clone(),
            });
        }
        self
    }

    /// Whether every comparison held. In mode `monitor` a mismatch has no consequences: see [`Appraisal::state`].
    pub fn matched(&self) -> bool {
        self.reasons.is_empty()
    }

    pub fn reasons(&self) -> &[Mismatch] {
        &self.reasons
    }

    /// The reasons for people, in the same order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What people should know although it fails nothing: a boot log that is no good, firmware that changed, a clock that is
    /// behind.
    pub fn notices(&self) -> &[Finding] {
        &self.notices
    }

    /// What profiles that monitor beside this one would have said.
    pub fn monitored(&self) -> &[Monitored] {
        &self.monitored
    }

    /// Codes of all that monitoring let pass, each once, at most [`MAX_WOULD_FAIL`].
    pub fn would_fail(&self) -> Vec<&'static str> {
        let own = self
            .profile
            .as_ref()
            .filter(|profile| profile.mode == Mode::Monitor)
            .map(|_| self.reasons.iter().map(Mismatch::code));
        let beside = self.monitored.iter().flat_map(|monitor| &monitor.codes);
        let mut codes = Vec::new();
        for code in own.into_iter().flatten().chain(beside.copied()) {
            if codes.len() < MAX_WOULD_FAIL && !codes.contains(&code) {
                codes.push(code);
            }
        }
        codes
    }

    /// What the evidence makes of its node.
    pub fn state(&self) -> AttestationState {
        match &self.profile {
            None => AttestationState::None,
            Some(profile) if profile.mode == Mode::Enforce && !self.matched() => {
                AttestationState::Failed
            }
            Some(_) if self.pending => AttestationState::Stale,
            Some(_) => AttestationState::Trusted,
        }
    }

    /// Whether logs must follow before this is worth anything: code [`LOG_PENDING`].
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    pub fn profile(&self) -> Option<&ProfileRef> {
        self.profile.as_ref()
    }

    /// What a result about this evidence names: see [`Profile::stated`].
    pub(crate) fn stated(&self) -> Option<&PcrSelection> {
        self.stated.as_ref()
    }

    /// What runs on the node, measured; `None` where nothing proves it.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.as_ref()
    }

    pub(crate) fn compared(&self) -> Compared {
        self.compared
    }

    /// The qualifying data of the evidence compared.
    pub(crate) fn about(&self) -> &Digest {
        &self.about
    }
}

fn compare(facts: &TpmFacts, profile: &Profile, reasons: &mut Vec<Mismatch>) {
    if facts.selection().bank() != profile.bank() {
        reasons.push(Mismatch::Selection);
    }
    for (index, accepted) in profile.pcr() {
        match facts.pcr_values().get(index) {
            Some(value) if accepted.contains(value) => {}
            Some(value) => reasons.push(Mismatch::Pcr {
                index: *index,
                value: hex::encode(value),
            }),
            None => reasons.push(Mismatch::NotQuoted(*index)),
        }
    }
    // What a result states must have been signed, compared or not.
    for index in profile.stated().indexes() {
        if !profile.pcr().contains_key(&index) && !facts.selection().contains(index) {
            reasons.push(Mismatch::NotQuoted(index));
        }
    }
    if profile.firmware_deny().contains(&facts.firmware()) {
        reasons.push(Mismatch::Firmware(facts.firmware()));
    }
}

fn compare_boot(facts: &TpmFacts, profile: &Profile, logs: &Logs<'_>, reasons: &mut Vec<Mismatch>) {
    let Some(wanted) = profile.secure_boot() else {
        return;
    };
    let judged = match logs.boot {
        Some(Ok(judged)) => judged,
        Some(Err(refused)) => return reasons.push(Mismatch::BootLog(refused.clone())),
        None if logs.pending => return,
        None => return reasons.push(Mismatch::BootLogMissing),
    };
    if !judged.is_of(profile.bank(), facts.pcr_values()) {
        return reasons.push(Mismatch::BootLogOther);
    }
    match judged.secure_boot() {
        Ok(found) if found.is_on() == wanted => {}
        Ok(found) => reasons.push(Mismatch::SecureBoot(found.is_on())),
        Err(refused) => reasons.push(Mismatch::SecureBootUnknown(refused.clone())),
    }
}

fn compare_ima(facts: &TpmFacts, profile: &Profile, logs: &Logs<'_>, reasons: &mut Vec<Mismatch>) {
    let Some(policy) = profile.ima() else {
        return;
    };
    let verdict = match logs.ima {
        Some(Ok(verdict)) => verdict,
        Some(Err(refused)) => return reasons.push(Mismatch::Ima(refused.clone())),
        None if logs.pending => return,
        None => return reasons.push(Mismatch::ImaLogMissing),
    };
    if *verdict.policy() != policy.hash() {
        return reasons.push(Mismatch::ImaOtherPolicy);
    }
    match facts.pcr_values().get(&IMA_PCR) {
        None => reasons.push(Mismatch::NotQuoted(IMA_PCR)),
        // An empty list is none, even where PCR 10 was never extended: a kernel that measures begins with its aggregate.
        Some(quoted) if verdict.known() == 0 || !verdict.reached(quoted) => {
            reasons.push(Mismatch::ImaReplay(verdict.known()));
        }
        Some(_) => reasons.extend(verdict.files().iter().cloned().map(Mismatch::ImaFile)),
    }
}

/// The log of applications, if it leads to the quoted value.
fn compare_apps<'a>(
    facts: &TpmFacts,
    profile: &Profile,
    logs: &Logs<'a>,
    reasons: &mut Vec<Mismatch>,
) -> Option<&'a AppState> {
    let pcr = profile.apps_pcr()?;
    let Some(quoted) = facts.pcr_values().get(&pcr) else {
        reasons.push(Mismatch::NotQuoted(pcr));
        return None;
    };
    let state = match logs.apps {
        Some(Ok(state)) if state.pcr() == u32::from(pcr) => state,
        Some(Err(refused)) => {
            reasons.push(Mismatch::Apps(refused.clone()));
            return None;
        }
        None if logs.pending => return None,
        // That of another PCR says nothing about this one.
        Some(Ok(_)) | None => {
            reasons.push(Mismatch::AppsLogMissing(pcr));
            return None;
        }
    };
    if !state.reached(quoted) {
        reasons.push(Mismatch::AppsReplay(pcr, state.records()));
        return None;
    }
    Some(state)
}

/// What the agent says, but not more than what was measured last.
fn controlled(logs: &Logs<'_>, measured: Option<&AppState>) -> Option<AppControl> {
    match measured.and_then(AppState::level) {
        Some(level) => logs.app_control.min(AppControl::from_word(level)),
        None => logs.app_control,
    }
}

fn is_sayable(runs: &Runs) -> bool {
    let bytes = |(name, version): (&String, &String)| name.len() + version.len();
    runs.iter().map(bytes).sum::<usize>() <= MAX_RUNS_BYTES
}

fn unsaid(state: &AppState) -> Finding {
    match state.runs() {
        None => Finding::new(
            "apps_log_full",
            format!("{} records", state.records()),
            "Reboot the node: more happened to its applications since its boot than is measured, so nothing proves what runs.",
        ),
        Some(runs) => Finding::new(
            "runs_too_many",
            format!("{} applications", runs.len()),
            "Run fewer applications on this node, or such with shorter names: rules that ask what runs cannot be met.",
        ),
    }
}

fn notices(evidence: &VerifiedEvidence, logs: &Logs<'_>) -> Vec<Finding> {
    let mut notices = Vec::new();
    if let Some(Err(refused)) = logs.boot {
        notices.push(Finding::new(
            refused.code(),
            refused.to_string(),
            "The boot log cannot be used; if its firmware is not known for that, look at the node.",
        ));
    }
    let Some(facts) = evidence.tpm() else {
        return notices;
    };
    if let Some(before) = logs.firmware_before
        && before != facts.firmware()
    {
        notices.push(
            Finding::new(
                "firmware_changed",
                format!("{:#x}", facts.firmware()),
                "If nobody updated the TPM's firmware, take the node out and look at it; if a version must not run, add it to `firmware_deny`.",
            )
            .expected([format!("{before:#x}")]),
        );
    }
    if !facts.clock().safe {
        notices.push(Finding::new(
            "clock_unsafe",
            "the TPM lost time in a power cut",
            "Nothing, if the node lost power: its TPM catches up within minutes, and until then its clock is no time floor.",
        ));
    }
    notices
}

#[cfg(test)]
pub(crate) mod tests;
