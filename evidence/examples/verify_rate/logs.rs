//! Evidence with logs of the size that others publish figures for: a UEFI log of 100 kB, an IMA list of 130 kB.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgeward_evidence::Profile;
use edgeward_evidence::appraise::{Logs, Mode, ProfileFields, appraise};
use edgeward_evidence::boot_log::{BootLog, EventType, JudgedBoot, judge};
use edgeward_evidence::ima::{ImaPolicy, ImaVerdict, ListedFile, Violations, parse_binary};
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::testing::{BootLogBuilder, SoftwareTpm};
use edgeward_evidence::tpm::{HashAlg, PcrBank};
use edgeward_evidence::verify::{TpmFacts, VerifiedEvidence};
use edgeward_identity::{AttestationState, Tier};

/// Bytes of the firmware's event log.
pub(crate) const BOOT_LOG_BYTES: usize = 100_000;
/// Bytes of the IMA list.
pub(crate) const IMA_LIST_BYTES: usize = 130_000;
/// Files on the allow list: some that ran and many that did not.
const ALLOWED_FILES: usize = 100_000;
/// Entries that a node measured since the last time.
const NEW_ENTRIES: usize = 10;

/// A machine's logs, the policy that allows what they hold, and what was judged before.
pub(crate) struct Logged {
    boot: Vec<u8>,
    list: ImaList,
    /// Where the entries begin that are new, and the value of PCR 10 before them.
    known: usize,
    known_pcr: [u8; 32],
    policy: Arc<ImaPolicy>,
    profile: Profile,
    judged: Option<JudgedBoot>,
    verdict: Option<ImaVerdict>,
}

impl Logged {
    /// Sets the TPM's PCRs to what the logs give.
    pub(crate) fn new(tpm: &mut SoftwareTpm) -> Self {
        let builder = boot_log();
        for (pcr, value) in tpm.pcrs.iter_mut().zip(builder.pcrs(HashAlg::Sha256)) {
            pcr.copy_from_slice(&value);
        }
        let mut list = ImaList::new();
        let mut files = 0;
        while list.bytes.len() < IMA_LIST_BYTES {
            list.add(path(files), HashAlg::Sha256, &digest(files));
            files += 1;
        }
        let (known, known_pcr) = (list.bytes.len(), list.pcr);
        for _ in 0..NEW_ENTRIES {
            list.add(path(files), HashAlg::Sha256, &digest(files));
            files += 1;
        }
        tpm.pcrs[10] = list.pcr;
        let digests: Vec<[u8; 32]> = (0..ALLOWED_FILES).map(digest).collect();
        let allow = digests.iter().map(|digest| ListedFile {
            hash: HashAlg::Sha256,
            digest,
            path: None,
        });
        let policy = ImaPolicy::new(allow, [], Violations::Fail).expect("it allows files");
        let policy = Arc::new(policy);
        let value = |pcr: u8| BTreeSet::from([hex::encode(tpm.pcrs[usize::from(pcr)])]);
        let profile = Profile::new(ProfileFields {
            name: "gateway".to_owned(),
            tiers: BTreeSet::from([Tier::Virtual]),
            bank: PcrBank::Sha256,
            pcr: [0, 4, 7].into_iter().map(|pcr| (pcr, value(pcr))).collect(),
            firmware_deny: BTreeSet::new(),
            secure_boot: Some(true),
            ima: Some(policy.clone()),
            app_control: None,
            apps_pcr: None,
            mode: Mode::Enforce,
        });
        Self {
            boot: builder.build(),
            list,
            known,
            known_pcr,
            policy,
            profile: profile.expect("it compares something"),
            judged: None,
            verdict: None,
        }
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.boot.len(), self.known)
    }

    /// As after a pass: both logs were judged, but for the newest entries.
    pub(crate) fn judge_before(&mut self, evidence: &VerifiedEvidence) {
        self.judged = Some(self.boot(facts(evidence)));
        let (old, _) = self.list.bytes.split_at(self.known);
        let entries = parse_binary(old).expect("a good list");
        let begun = ImaVerdict::new(PcrBank::Sha256, &self.policy);
        let verdict = begun.follow(0, &entries, &self.known_pcr, &self.policy);
        self.verdict = Some(verdict.expect("a good list"));
    }

    /// The boot log alone, parsed and judged.
    pub(crate) fn boot(&self, facts: &TpmFacts) -> JudgedBoot {
        let log = BootLog::parse(&self.boot).expect("a good log");
        judge(&log, PcrBank::Sha256, facts.pcr_values()).expect("a log of these values")
    }

    /// Both logs, whole: after a boot.
    pub(crate) fn first(&self, evidence: &VerifiedEvidence) {
        let judged = self.boot(facts(evidence));
        let begun = ImaVerdict::new(PcrBank::Sha256, &self.policy);
        let verdict = self.follow(&begun, &self.list.bytes, evidence);
        self.passes(evidence, &judged, &verdict);
    }

    /// Only entries that are new.
    pub(crate) fn incremental(&self, evidence: &VerifiedEvidence) {
        let (Some(judged), Some(before)) = (&self.judged, &self.verdict) else {
            return;
        };
        let (_, new) = self.list.bytes.split_at(self.known);
        let verdict = self.follow(before, new, evidence);
        self.passes(evidence, judged, &verdict);
    }

    fn follow(&self, before: &ImaVerdict, bytes: &[u8], evidence: &VerifiedEvidence) -> ImaVerdict {
        let entries = parse_binary(bytes).expect("a good list");
        let quoted = &facts(evidence).pcr_values()[&10];
        before
            .follow(before.known(), &entries, quoted, &self.policy)
            .expect("a list that goes on")
    }

    fn passes(&self, evidence: &VerifiedEvidence, judged: &JudgedBoot, verdict: &ImaVerdict) {
        let logs = Logs {
            boot: Some(Ok(judged)),
            ima: Some(Ok(verdict)),
            ..Logs::default()
        };
        let appraisal = appraise(evidence, &self.profile, &logs);
        assert_eq!(
            appraisal.state(),
            AttestationState::Trusted,
            "{:?}",
            appraisal.findings()
        );
    }
}

fn facts(evidence: &VerifiedEvidence) -> &TpmFacts {
    evidence.tpm().expect("evidence of a TPM")
}

/// A boot with a deny-list of its time and many commands of a boot loader: together [`BOOT_LOG_BYTES`].
fn boot_log() -> BootLogBuilder {
    use edgeward_evidence::boot_log::signature_list::CERT_SHA256;
    use edgeward_evidence::boot_log::variable::Guid;
    use edgeward_evidence::testing::boot_log::{signature_list, variable_data};
    let mut builder = BootLogBuilder::typical(true);
    let hashes: Vec<[u8; 32]> = (0..430).map(digest).collect();
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_slice()).collect();
    let dbx = variable_data(
        Guid::IMAGE_SECURITY,
        "dbx",
        &signature_list(CERT_SHA256, &hashes),
    );
    let events = builder.events_mut();
    if let Some(event) = events
        .iter_mut()
        .rfind(|event| event.kind == EventType::EFI_VARIABLE_DRIVER_CONFIG)
    {
        event.data.clone_from(&dbx);
        event.measured = dbx;
    }
    let exit = events.len().saturating_sub(2);
    let mut tail = events.split_off(exit);
    let mut number = 0;
    while builder.build().len() < BOOT_LOG_BYTES {
        let command = format!(
            "menuentry 'System {number}' --class os $menuentry_id_option 'gnulinux-{number}' {{"
        );
        builder = builder.grub_command(&command);
        number += 1;
    }
    builder.events_mut().append(&mut tail);
    builder
}

fn path(index: usize) -> String {
    format!("/usr/lib/x86_64-linux-gnu/lib{index}.so")
}

fn digest(index: usize) -> [u8; 32] {
    let digest = HashAlg::Sha256.digest(&[&index.to_le_bytes()]);
    digest.try_into().expect("a SHA-256 digest")
}
