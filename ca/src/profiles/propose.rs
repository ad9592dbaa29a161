//! Values that a group of machines shows and its profiles do not accept yet, as a change to the policy files.
//!
//! A value that one machine alone shows may be that machine's trouble: it is named and not proposed.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_policy::edit::{Addition, EditRefused, accepts, add_pcr_values};
use edgeward_policy::{Profile, SourceFile};
use serde::{Deserialize, Serialize};

use super::kept::EvidenceView;

mod files;

/// A machine of the group, and the profiles that it must match.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    pub name: &'a str,
    pub profiles: Vec<&'a Profile>,
    /// Its newest evidence.
    pub evidence: Option<&'a EvidenceView>,
}

/// What was seen, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Machines whose evidence was counted.
    pub counted: usize,
    /// Machines that were not, each with the reason.
    pub left_out: BTreeMap<String, String>,
    pub values: Vec<SeenValue>,
    /// Files that no allow list has; only where lists were asked for.
    pub files: Vec<SeenFile>,
    /// In unified format, one part for each file; empty: nothing to change.
    pub diff: String,
}

/// One value of one PCR for one profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenValue {
    pub profile: String,
    pub pcr: u8,
    /// `sha256:…`
    pub value: String,
    /// How many machines have it.
    pub nodes: usize,
    /// One of them.
    pub example: Option<String>,
    pub what: Standing,
}

/// One file that ran and that the profile does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFile {
    pub profile: String,
    /// As the list would have it.
    pub line: String,
    pub nodes: usize,
    /// One of them.
    pub example: Option<String>,
    pub what: Standing,
}

/// How a value stands in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Accepted, and in use.
    Accepted,
    /// Accepted, and no machine that was counted has it: it may go once all have been seen.
    Unused,
    /// To be added.
    Proposed,
    /// Not accepted, and on too few machines to be proposed.
    TooFew,
    /// On the deny list: never proposed.
    Denied,
}

/// Counts values and makes the change. `at_least`: how many machines must show a value for it to be proposed.
pub fn propose(
    machines: &[Machine<'_>],
    files: &[SourceFile],
    at_least: usize,
) -> Result<Proposal, EditRefused> {
    let mut left_out = BTreeMap::new();
    let mut counted = Vec::new();
    let mut seen: BTreeMap<(&str, u8, String), BTreeSet<&str>> = BTreeMap::new();
    let mut profiles: BTreeMap<&str, &Profile> = BTreeMap::new();
    for machine in machines {
        for profile in &machine.profiles {
            profiles.insert(profile.name.as_str(), profile);
        }
        let evidence = match usable(machine) {
            Ok(evidence) => evidence,
            Err(why) => {
                left_out.insert(machine.name.to_owned(), why);
                continue;
            }
        };
        counted.push((machine, evidence));
        for profile in &machine.profiles {
            for pcr in profile.pcrs.keys() {
                if let Some(value) = evidence.pcrs.get(pcr) {
                    let key = (profile.name.as_str(), *pcr, value.to_ascii_lowercase());
                    seen.entry(key).or_default().insert(machine.name);
                }
            }
        }
    }
    let values = standings(&profiles, &seen, at_least);
    let mut diff = diff(&values, files)?;
    let (new_files, lists) = files::unlisted(&counted, files, at_least)?;
    diff.push_str(&lists);
    Ok(Proposal {
        counted: counted.len(),
        left_out,
        values,
        files: new_files,
        diff,
    })
}

fn usable<'a>(machine: &Machine<'a>) -> Result<&'a EvidenceView, String> {
    let evidence = machine.evidence.ok_or("it gave no evidence yet")?;
    let compares = |profile: &Profile| !profile.pcrs.is_empty() || profile.ima.is_some();
    if !machine.profiles.iter().any(|profile| compares(profile)) {
        return Err("none of its profiles compares a PCR or files".to_owned());
    }
    let bank = machine
        .profiles
        .iter()
        .map(|profile| profile.bank.as_str())
        .find(|bank| *bank != evidence.bank);
    if let Some(bank) = bank {
        return Err(format!(
            "its values are of bank {}, its profile's of {bank}",
            evidence.bank
        ));
    }
    match evidence.doubt() {
        Some(code) => Err(format!(
            "its evidence was refused for more than its values: {code}"
        )),
        None => Ok(evidence),
    }
}

fn standings(
    profiles: &BTreeMap<&str, &Profile>,
    seen: &BTreeMap<(&str, u8, String), BTreeSet<&str>>,
    at_least: usize,
) -> Vec<SeenValue> {
    let mut values = Vec::new();
    for profile in profiles.values() {
        for (pcr, accepted) in &profile.pcrs {
            let of_this = seen
                .iter()
                .filter(|((name, index, _), _)| *name == profile.name && index == pcr);
            let mut rows: BTreeMap<&str, &BTreeSet<&str>> = of_this
                .map(|((.., value), nodes)| (value.as_str(), nodes))
                .collect();
            let nobody = BTreeSet::new();
            for value in accepted {
                rows.entry(value).or_insert(&nobody);
            }
            values.extend(rows.into_iter().map(|(value, nodes)| {
                let is_accepted = accepted.iter().any(|known| known == value);
                SeenValue {
                    profile: profile.name.clone(),
                    pcr: *pcr,
                    value: format!("{}:{value}", profile.bank.as_str()),
                    nodes: nodes.len(),
                    example: nodes.first().map(|name| (*name).to_owned()),
                    what: match (is_accepted, nodes.len()) {
                        (true, 0) => Standing::Unused,
                        (true, _) => Standing::Accepted,
                        (false, count) if count >= at_least.max(1) => Standing::Proposed,
                        (false, _) => Standing::TooFew,
                    },
                }
            }));
        }
    }
    values
}

fn diff(values: &[SeenValue], files: &[SourceFile]) -> Result<String, EditRefused> {
    let mut additions: BTreeMap<(&str, u8), BTreeSet<String>> = BTreeMap::new();
    for value in values
        .iter()
        .filter(|value| value.what == Standing::Proposed)
    {
        additions
            .entry((value.profile.as_str(), value.pcr))
            .or_default()
            .insert(value.value.clone());
    }
    let mut by_file: BTreeMap<usize, Vec<Addition>> = BTreeMap::new();
    for ((profile, pcr), values) in additions {
        let mut sources = files.iter().filter(|file| !file.is_list());
        let file = sources.position(|file| accepts(&file.text, profile, pcr));
        let addition = Addition {
            profile: profile.to_owned(),
            pcr,
            values,
        };
        match file {
            Some(file) => by_file.entry(file).or_default().push(addition),
            None => {
                return Err(EditRefused::NotHere {
                    profile: addition.profile,
                    pcr,
                });
            }
        }
    }
    let sources: Vec<&SourceFile> = files.iter().filter(|file| !file.is_list()).collect();
    let mut out = String::new();
    for (index, additions) in by_file {
        if let Some(file) = sources.get(index) {
            out.push_str(&add_pcr_values(&file.path, &file.text, &additions)?.diff);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
