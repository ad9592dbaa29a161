//! A profile written from one machine's evidence, as a policy file with comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use edgeward_evidence::BootLog;
use edgeward_evidence::ima::{BOOT_AGGREGATE, ImaRefused, parse_binary};
use edgeward_evidence::tpm::HashAlg;
use edgeward_policy::source::MAX_LIST_FILE_BYTES;
use edgeward_policy::{FileHash, ListedDigest, PcrBank};

use super::kept::EvidenceView;
use super::meaning::of_pcr;

/// Most boot events told in comments.
const MAX_TOLD: usize = 24;
/// Longest line of a comment, in characters.
const MAX_COMMENT_CHARS: usize = 160;

/// What to write down, and under which name.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub node: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub profile: &'a str,
    pub owner: &'a str,
    pub pcrs: &'a BTreeSet<u8>,
    /// Name of the list of files to write beside it.
    pub list: Option<&'a str>,
}

/// A profile as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub policy: String,
    pub list: Option<String>,
    /// What its reader should know.
    pub notes: Vec<String>,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    #[error("policies compare sha256 and sha384, and the evidence is of bank {0}")]
    Bank(String),
    #[error("pcr can be reset at will, changes all the time, or is none: {0}")]
    Pcr(u8),
    #[error("pcr was not quoted: {0}")]
    NotQuoted(u8),
    #[error("nothing to compare: name a pcr")]
    Nothing,
    #[error(
        "no IMA list is kept of this node: no profile asks for one yet, or it is longer than 2 MiB"
    )]
    NoList,
    #[error("IMA list: {0}")]
    Ima(#[from] ImaRefused),
    #[error("the node measures files with SHA-1: boot it with ima_hash=sha256")]
    Sha1,
    #[error("the list would be larger than the limit in bytes: {MAX_LIST_FILE_BYTES}")]
    TooLarge,
}

/// Writes the profile of one machine, as it was.
pub fn record(wanted: &Wanted<'_>, evidence: &EvidenceView) -> Result<Recorded, NotRecorded> {
    let bank = PcrBank::ALL
        .into_iter()
        .find(|bank| bank.as_str() == evidence.bank)
        .ok_or_else(|| NotRecorded::Bank(evidence.bank.clone()))?;
    let secure_boot = evidence.secure_boot == Some(true);
    if wanted.pcrs.is_empty() && !secure_boot && wanted.list.is_none() {
        return Err(NotRecorded::Nothing);
    }
    let mut notes = Vec::new();
    if let Some(code) = evidence.doubt() {
        notes.push(format!(
            "this evidence was refused ({code}): make sure of the machine before you trust what it measured"
        ));
    }
    let list = match wanted.list {
        None => None,
        Some(_) => Some(files(wanted.node, evidence, &mut notes)?),
    };
    let log = match evidence.parsed_boot_log() {
        Some(Ok(log)) => Some(log),
        Some(Err(refused)) => {
            notes.push(format!("the boot log cannot be read: {refused}"));
            None
        }
        None => None,
    };
    let mut out = String::new();
    head(&mut out, wanted, evidence);
    terms(&mut out, wanted, evidence, bank);
    values(&mut out, wanted, evidence, bank)?;
    if let Some(log) = &log {
        told(&mut out, log);
    }
    Ok(Recorded {
        policy: out,
        list,
        notes,
    })
}

fn head(out: &mut String, wanted: &Wanted<'_>, evidence: &EvidenceView) {
    let node = wanted.node;
    let _ = writeln!(
        out,
        "# What {node} measured, as its TPM signed it on {} (tier {}, TPM firmware {}).",
        evidence.taken, evidence.tier, evidence.firmware
    );
    out.push_str("# Whoever applies it says that this is right: read it first.\n");
    out.push_str("schema = \"edgeward-policy/1\"\n");
    let _ = writeln!(out, "owner = \"{}\"", wanted.owner);
    let scope: Vec<String> = wanted
        .labels
        .iter()
        .map(|(key, value)| format!("\"{key}\" = [\"{value}\"]"))
        .collect();
    match scope.is_empty() {
        true => out.push_str("scope = \"any\"   # the node has no labels to narrow it by\n"),
        false => {
            let _ = writeln!(out, "scope = {{ {} }}", scope.join(", "));
        }
    }
}

fn terms(out: &mut String, wanted: &Wanted<'_>, evidence: &EvidenceView, bank: PcrBank) {
    let _ = writeln!(out, "\n[profile.\"{}\"]", wanted.profile);
    let _ = writeln!(out, "tier = [\"{}\"]", evidence.tier);
    let _ = writeln!(out, "pcr_bank = \"{}\"", bank.as_str());
    out.push_str(match evidence.secure_boot {
        Some(true) => "secure_boot = true   # judged from the boot log, which replays to PCR 7\n",
        Some(false) => {
            "# Secure Boot is off on this machine; `secure_boot = true` would refuse it.\n"
        }
        None => "# Secure Boot is not known: no boot log came with the evidence.\n",
    });
    if let Some(list) = wanted.list {
        let _ = writeln!(out, "ima = {{ allow = \"{list}\", violations = \"fail\" }}");
    }
    let _ = writeln!(
        out,
        "# firmware_deny = [\"{}\"]   # TPM firmware to refuse; this is the one in use",
        evidence.firmware
    );
    out.push_str(
        "# mode = \"monitor\"   # verdicts recorded, nothing enforced: a good first week\n",
    );
}

fn values(
    out: &mut String,
    wanted: &Wanted<'_>,
    evidence: &EvidenceView,
    bank: PcrBank,
) -> Result<(), NotRecorded> {
    for pcr in wanted.pcrs {
        if *pcr > 23 || [10, 16, 23].contains(pcr) {
            return Err(NotRecorded::Pcr(*pcr));
        }
        if !evidence.pcrs.contains_key(pcr) {
            return Err(NotRecorded::NotQuoted(*pcr));
        }
    }
    let line = |pcr: u8, value: &str| {
        format!(
            "{pcr} = [\"{}:{value}\"]   # {}",
            bank.as_str(),
            of_pcr(pcr)
        )
    };
    if !wanted.pcrs.is_empty() {
        let _ = writeln!(out, "\n[profile.\"{}\".pcr]", wanted.profile);
        for (pcr, value) in evidence
            .pcrs
            .iter()
            .filter(|(pcr, _)| wanted.pcrs.contains(*pcr))
        {
            let _ = writeln!(out, "{}", line(*pcr, value));
        }
    }
    let others = evidence
        .pcrs
        .iter()
        .filter(|(pcr, _)| !wanted.pcrs.contains(*pcr) && **pcr != 10);
    let others: Vec<String> = others.map(|(pcr, value)| line(*pcr, value)).collect();
    if !others.is_empty() {
        out.push_str("# Quoted as well, and not compared:\n");
        for line in others {
            let _ = writeln!(out, "# {line}");
        }
    }
    Ok(())
}

/// What was booted, for the reader; nothing compares comments.
fn told(out: &mut String, log: &BootLog) {
    let events = log.describe();
    let booted = events
        .iter()
        .filter(|event| matches!(event.pcr, Some(4 | 7)) && !event.text.is_empty());
    out.push_str("\n# From the boot log:\n");
    for event in booted.take(MAX_TOLD) {
        let pcr = event.pcr.unwrap_or_default();
        let text = format!(
            "# PCR {pcr} event {}: {} {}",
            event.index, event.kind, event.text
        );
        let _ = writeln!(out, "{}", line_of(&text));
    }
}

/// One line of printable characters.
fn line_of(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_COMMENT_CHARS)
        .collect()
}

/// Every file that ran, once, sorted by path.
fn files(
    node: &str,
    evidence: &EvidenceView,
    notes: &mut Vec<String>,
) -> Result<String, NotRecorded> {
    let bytes = evidence.ima_bytes().ok_or(NotRecorded::NoList)?;
    let mut lines = BTreeSet::new();
    let mut violations = 0_usize;
    let mut nameless = 0_usize;
    for entry in parse_binary(&bytes)? {
        if entry.is_violation() {
            violations += 1;
            continue;
        }
        if entry.path() == BOOT_AGGREGATE {
            continue;
        }
        let file = entry.file();
        let hash = match file.hash {
            HashAlg::Sha1 => return Err(NotRecorded::Sha1),
            HashAlg::Sha256 => FileHash::Sha256,
            HashAlg::Sha384 => FileHash::Sha384,
            HashAlg::Sha512 => FileHash::Sha512,
        };
        let path = std::str::from_utf8(entry.path()).ok();
        let path = path.filter(|path| path.trim() == *path && !path.chars().any(char::is_control));
        nameless += usize::from(path.is_none());
        let path: Option<Box<str>> = path.map(Box::from);
        let listed = ListedDigest {
            hash,
            digest: file.digest.into(),
            path: path.clone(),
        };
        lines.insert((path, listed.to_string()));
    }
    if lines.is_empty() {
        return Err(NotRecorded::Nothing);
    }
    if violations > 0 {
        notes.push(format!(
            "{violations} files changed while they were measured: `violations = \"fail\"` refuses this machine until it reboots without"
        ));
    }
    if nameless > 0 {
        notes.push(format!(
            "{nameless} files have names that no list can hold: they are allowed wherever they lie"
        ));
    }
    let mut out = format!(
        "# Files that ran on {node} until {}: {} of them.\n",
        evidence.taken,
        lines.len()
    );
    for (_, line) in &lines {
        let _ = writeln!(out, "{line}");
    }
    match out.len() <= MAX_LIST_FILE_BYTES {
        true => Ok(out),
        false => Err(NotRecorded::TooLarge),
    }
}

#[cfg(test)]
mod tests;
