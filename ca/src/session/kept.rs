//! What is kept of evidence for people: findings with their age, and the evidence itself.

use std::collections::BTreeMap;

use edgeward_evidence::Digest;
use edgeward_evidence::appraise::{Appraisal, Finding, Mode};
use edgeward_identity::Timestamp;
use edgeward_wire::v1;
use tokio::sync::OwnedSemaphorePermit;

use crate::attest::{Judged, Refusal};
use crate::hub::Kept;
use crate::store::evidence::{EvidenceRow, KeptFinding, MAX_FINDINGS, Which};

/// What did not match, with consequences or without. Known since it was first seen: `before` is what was kept last.
pub(super) fn findings(
    appraisal: &Appraisal,
    before: &[KeptFinding],
    now: Timestamp,
) -> Vec<KeptFinding> {
    let watching = appraisal
        .profile()
        .is_some_and(|profile| profile.mode == Mode::Monitor);
    let own = appraisal.findings().iter().map(|found| (found, watching));
    let beside = appraisal
        .monitored()
        .iter()
        .flat_map(|monitor| &monitor.findings)
        .chain(appraisal.notices())
        .map(|found| (found, true));
    let mut kept: Vec<KeptFinding> = Vec::new();
    for (found, monitored) in own.chain(beside) {
        let found = with_age(found, monitored, before, now);
        let twice = kept.iter().any(|known| same(known, &found));
        if kept.len() < MAX_FINDINGS && !twice {
            kept.push(found);
        }
    }
    kept
}

/// The one finding of an answer that got no further.
pub(super) fn finding_of(
    refusal: &Refusal,
    before: &[KeptFinding],
    now: Timestamp,
) -> Vec<KeptFinding> {
    let found = Finding {
        code: refusal.code().to_owned(),
        pcr: None,
        event: String::new(),
        found: refusal.to_string(),
        expected: Vec::new(),
        advice: refusal.advice().to_owned(),
    };
    let mut found = with_age(&found, false, before, now);
    // How far behind a clock is, and the like, changes with every answer.
    if let Some(known) = before.iter().find(|known| known.code == found.code) {
        found.since = known.since;
    }
    vec![found]
}

/// A clock that runs ahead takes rights away from its own node only: people should know, nothing more.
pub(super) fn clock_ahead(
    judged: &Judged,
    before: &[KeptFinding],
    now: Timestamp,
) -> Option<KeptFinding> {
    let ahead = judged.ahead?;
    let code = "clock_ahead";
    Some(KeptFinding {
        code: code.to_owned(),
        pcr: None,
        event: String::new(),
        found: format!("{} s ahead of the cloud", ahead.as_secs()),
        expected: Vec::new(),
        advice: "Set the node's clock (`timedatectl`, NTP): it refuses others too early."
            .to_owned(),
        since: before
            .iter()
            .find(|known| known.code == code)
            .map_or(now, |known| known.since),
        monitored: true,
    })
}

pub(super) fn to_wire(findings: &[KeptFinding]) -> Vec<v1::Finding> {
    findings
        .iter()
        .map(|finding| v1::Finding {
            code: finding.code.clone(),
            pcr_plus_one: finding.pcr.map_or(0, |pcr| u32::from(pcr) + 1),
            event: finding.event.clone(),
            found: finding.found.clone(),
            expected: finding.expected.clone(),
            advice: finding.advice.clone(),
            since: finding.since.millis(),
            monitored: finding.monitored,
        })
        .collect()
}

/// Evidence to be written, and what tells whether it says anything new. `None` without a TPM.
pub(super) fn evidence(
    node: &str,
    judged: Judged,
    code: Option<&str>,
    findings: &[KeptFinding],
    now: Timestamp,
    admitted: Option<OwnedSemaphorePermit>,
) -> Option<(Digest, Kept)> {
    let facts = judged.evidence.tpm()?;
    let known = judged.known.as_deref()?;
    let pcrs: BTreeMap<u8, String> = facts
        .pcr_values()
        .iter()
        .map(|(index, value)| (*index, hex::encode(value)))
        .collect();
    let (boot_log, ima) = (known.boot_log(), known.ima_bytes());
    let codes: Vec<(&str, bool)> = findings
        .iter()
        .map(|finding| (finding.code.as_str(), finding.monitored))
        .collect();
    let tier = judged.evidence.tier();
    let content = serde_json::json!([code, pcrs, facts.firmware(), tier, boot_log, ima, codes]);
    let row = EvidenceRow {
        node: node.to_owned(),
        which: Which::Latest,
        taken: now,
        code: code.map(str::to_owned),
        bank: facts.selection().bank(),
        pcrs,
        firmware: facts.firmware(),
        tier,
        secure_boot: known.secure_boot(),
        boot_log: judged.boot_log,
        ima: None,
        findings: findings.to_vec(),
    };
    let kept = Kept {
        row,
        boot_log,
        ima,
        tail: judged.ima,
        admitted,
    };
    Some((Digest::of(content.to_string().as_bytes()), kept))
}

fn with_age(
    found: &Finding,
    monitored: bool,
    before: &[KeptFinding],
    now: Timestamp,
) -> KeptFinding {
    let mut kept = KeptFinding {
        code: found.code.clone(),
        pcr: found.pcr,
        event: found.event.clone(),
        found: found.found.clone(),
        expected: found.expected.clone(),
        advice: found.advice.clone(),
        since: now,
        monitored,
    };
    if let Some(known) = before.iter().find(|known| same(known, &kept)) {
        kept.since = known.since;
        if kept.event.is_empty() {
            kept.event.clone_from(&known.event);
        }
    }
    kept
}

fn same(one: &KeptFinding, other: &KeptFinding) -> bool {
    (&one.code, one.pcr, &one.found, one.monitored)
        == (&other.code, other.pcr, &other.found, other.monitored)
}
