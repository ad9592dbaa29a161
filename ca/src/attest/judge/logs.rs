//! Logs beside a quote: what came, what is known already, what must be asked for again.

use std::sync::Arc;

use edgeward_evidence::app_log::{AppState, BadLog, PcrValue};
use edgeward_evidence::boot_log::{MAX_BOOT_LOG_BYTES, judge};
use edgeward_evidence::ima::{
    IMA_PCR, ImaEntry, ImaPolicy, ImaRefused, ImaVerdict, MAX_IMA_LIST_BYTES, parse_binary,
};
use edgeward_evidence::verify::TpmFacts;
use edgeward_evidence::{BootLog, Digest};
use edgeward_wire::v1;

use super::super::known::{Known, KnownBoot, KnownIma};
use super::{Case, Partial};
use crate::store::evidence::{ImaTail, MAX_IMA_KEPT};

/// Bytes of an entry in the kernel's binary form beside its template's name and its data: PCR, SHA-1, two lengths.
const AROUND_ENTRY: usize = 4 + 20 + 4 + 4;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) boot: Option<KnownBoot>,
    /// A log that was not known before.
    pub(super) boot_log: Option<Vec<u8>>,
    pub(super) ima: Option<Result<KnownIma, ImaRefused>>,
    pub(super) tail: Option<ImaTail>,
    pub(super) apps: Option<Result<AppState, BadLog>>,
}

/// Judges the logs of an answer against its quote. `Err`: more must be asked for first.
pub(super) fn look(case: &Case, facts: &TpmFacts, logs: v1::Logs) -> Result<Looked, Box<Partial>> {
    let asked = &case.asked;
    let same_boot = asked
        .known
        .as_ref()
        .filter(|known| known.is_of_boot(facts.clock()));
    if asked.known.is_some() && same_boot.is_none() {
        // What the challenge named as known was of the boot before: all of it is needed.
        return Err(Box::new(Partial {
            known: None,
            progress: None,
        }));
    }
    let known = same_boot.map(AsRef::as_ref);
    let (boot, boot_log) = match asked.boot {
        false => (None, None),
        true => boot(known, facts, logs.boot, case)?,
    };
    let (ima, tail) = match asked.ima {
        false => (None, None),
        true => ima(case, facts, logs.ima.unwrap_or_default())?,
    };
    let apps = asked
        .apps
        .and_then(|pcr| apps(pcr, known, facts, boot.as_ref(), logs.apps?));
    Ok(Looked {
        boot,
        boot_log,
        ima,
        tail,
        apps,
    })
}

/// Goes on with the log of applications from where it is known, or from what the boot left in its PCR.
fn apps(
    pcr: u8,
    known: Option<&Known>,
    facts: &TpmFacts,
    boot: Option<&KnownBoot>,
    came: v1::AppsPart,
) -> Option<Result<AppState, BadLog>> {
    let quoted = facts.pcr_values().get(&pcr)?;
    let followed = known.and_then(|known| known.apps.clone());
    let begun = followed
        .filter(|apps| apps.pcr() == u32::from(pcr))
        .unwrap_or_else(|| AppState::new(u32::from(pcr), left(boot, pcr)));
    Some(begun.follow(came.first, &came.records, quoted))
}

/// Where no log tells, nothing was extended: if that is not so, no records lead to the quoted value.
fn left(boot: Option<&KnownBoot>, pcr: u8) -> PcrValue {
    let judged = boot.and_then(|boot| boot.judged().ok());
    let left = judged.and_then(|judged| judged.left(pcr));
    left.and_then(|left| left.try_into().ok())
        .unwrap_or_default()
}

type Booted = (Option<KnownBoot>, Option<Vec<u8>>);

fn boot(
    known: Option<&Known>,
    facts: &TpmFacts,
    came: Option<v1::BootLog>,
    case: &Case,
) -> Result<Booted, Box<Partial>> {
    let log = came.map(|came| came.log).unwrap_or_default();
    if log.is_empty() {
        let Some((known, boot)) = known.and_then(|known| Some((known, known.boot.as_ref()?)))
        else {
            return Ok((None, None));
        };
        if boot.judged.is_err() && !known.same_firmware_values(facts.pcr_values()) {
            // It might be right now.
            return Err(Box::new(Partial {
                known: Some(Arc::new(Known {
                    boot: None,
                    ..known.clone()
                })),
                progress: case.asked.progress.clone(),
            }));
        }
        return Ok((Some(boot.clone()), None));
    }
    let judged = BootLog::parse(&log)
        .and_then(|log| judge(&log, facts.selection().bank(), facts.pcr_values()));
    let boot = KnownBoot {
        hash: Digest::of(&log),
        judged: judged.map(Arc::new),
    };
    let keep = log.len() <= MAX_BOOT_LOG_BYTES;
    Ok((Some(boot), keep.then_some(log)))
}

type Followed = (Option<Result<KnownIma, ImaRefused>>, Option<ImaTail>);

fn ima(case: &Case, facts: &TpmFacts, came: v1::ImaPart) -> Result<Followed, Box<Partial>> {
    let asked = &case.asked;
    let before = asked
        .progress
        .as_ref()
        .or_else(|| asked.known.as_ref()?.ima.as_ref());
    let begun = match before {
        Some(before) => before.clone(),
        // Nothing came, and nothing is known.
        None if came.entries.is_empty() => return Ok((None, None)),
        None => KnownIma::begin(case),
    };
    let (Some(quoted), policies) = (facts.pcr_values().get(&IMA_PCR), case.measured.ima()) else {
        return Ok((None, None));
    };
    let followed = match follow(&begun, &came, quoted, &policies) {
        Ok(followed) => followed,
        Err(refused) => return Ok((Some(Err(refused)), None)),
    };
    if came.more && !followed.known.reached(facts.pcr_values()) {
        return match followed.progressed {
            // A part that says nothing brings nothing nearer.
            false => Ok((Some(Ok(followed.known)), None)),
            true => Err(Box::new(Partial {
                known: asked.known.clone(),
                progress: Some(followed.known),
            })),
        };
    }
    let tail = (!followed.known.unkept.is_empty() || begun.bytes == 0).then(|| ImaTail {
        after: followed.known.bytes - followed.known.unkept.len(),
        entries: followed.known.unkept.clone(),
    });
    let known = KnownIma {
        unkept: Vec::new(),
        ..followed.known
    };
    Ok((Some(Ok(known)), tail))
}

struct Step {
    known: KnownIma,
    progressed: bool,
}

fn follow(
    before: &KnownIma,
    came: &v1::ImaPart,
    quoted: &[u8],
    policies: &[&Arc<ImaPolicy>],
) -> Result<Step, ImaRefused> {
    let entries = parse_binary(&came.entries)?;
    let mut verdicts = Vec::with_capacity(policies.len());
    for policy in policies {
        let begun = before
            .verdict_by(&policy.hash())
            .ok_or(ImaRefused::OtherPolicy)?;
        verdicts.push(begun.follow(came.first, &entries, quoted, policy)?);
    }
    let mut known = KnownIma {
        verdicts,
        bytes: before.bytes,
        unkept: before.unkept.clone(),
    };
    let count = known.entries().saturating_sub(before.entries());
    let length = length_of(&entries, count);
    known.bytes = known.bytes.saturating_add(length);
    if u64::try_from(known.bytes).is_ok_and(|bytes| bytes > MAX_IMA_LIST_BYTES) {
        return Err(ImaRefused::ListTooLarge);
    }
    // What is too long to be kept is judged all the same.
    if known.bytes <= MAX_IMA_KEPT {
        known
            .unkept
            .extend_from_slice(came.entries.get(..length).unwrap_or(&came.entries));
    } else {
        known.unkept.clear();
    }
    Ok(Step {
        known,
        progressed: count > 0,
    })
}

/// Length of the first `count` entries in the kernel's binary form.
fn length_of(entries: &[ImaEntry<'_>], count: u64) -> usize {
    entries
        .iter()
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .map(|entry| AROUND_ENTRY + entry.template().as_str().len() + entry.data().len())
        .sum()
}

impl KnownIma {
    fn begin(case: &Case) -> Self {
        let bank = case.measured.selection.bank();
        Self {
            verdicts: case
                .measured
                .ima()
                .into_iter()
                .map(|policy| ImaVerdict::new(bank, policy))
                .collect(),
            bytes: 0,
            unkept: Vec::new(),
        }
    }
}
