//! Adding to policy files without touching the rest of them: comments, order and layout stay as their owner wrote them.
//! What comes of it is a proposal for people to read; nothing here applies anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::source::{Lines, MAX_FILE_BYTES, MAX_LIST_FILE_BYTES, SourceFile};

/// Lines of context around a change, as `diff -u` has them.
const CONTEXT: usize = 3;
/// Most values that are added at a time.
const MAX_ADDED: usize = 1_000;
/// Most lines that are added at a time to a list of digests.
const MAX_ADDED_LINES: usize = 10_000;

/// Why nothing was added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    #[error("file is, or would be, larger than a policy file or list may be")]
    TooLarge,
    #[error("file is not TOML: {0}")]
    Syntax(String),
    #[error("file does not say which values of pcr {pcr} profile `{profile}` accepts")]
    NotHere { profile: String, pcr: u8 },
    #[error("more values or lines than the limit of {MAX_ADDED} or {MAX_ADDED_LINES}")]
    TooMany,
}

/// A file with values added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// In unified format, with `a/` and `b/` before the path; empty where nothing changed.
    pub diff: String,
}

/// Values that one profile is to accept of one PCR as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    pub profile: String,
    pub pcr: u8,
    /// As a policy file has them: `sha256:…`.
    pub values: BTreeSet<String>,
}

/// Whether a file says which values of a PCR a profile accepts.
pub fn accepts(text: &str, profile: &str, pcr: u8) -> bool {
    text.len() <= MAX_FILE_BYTES
        && DeTable::parse(text).is_ok_and(|document| {
            set_of(document.get_ref(), profile, pcr).is_some_and(|set| !set.is_empty())
        })
}

/// Adds values to the sets that profiles accept, each beside those that are there.
pub fn add_pcr_values(
    path: &str,
    text: &str,
    additions: &[Addition],
) -> Result<Edited, EditRefused> {
    if text.len() > MAX_FILE_BYTES {
        return Err(EditRefused::TooLarge);
    }
    let count: usize = additions.iter().map(|addition| addition.values.len()).sum();
    if count > MAX_ADDED {
        return Err(EditRefused::TooMany);
    }
    let document = DeTable::parse(text).map_err(|error| EditRefused::Syntax(error.to_string()))?;
    let mut insertions = BTreeMap::new();
    for Addition {
        profile,
        pcr,
        values,
    } in additions
    {
        let not_here = || EditRefused::NotHere {
            profile: profile.clone(),
            pcr: *pcr,
        };
        let array = set_of(document.get_ref(), profile, *pcr).ok_or_else(not_here)?;
        let last = array.last().ok_or_else(not_here)?.span();
        let new: Vec<&String> = values
            .iter()
            .filter(|value| !array.iter().any(|item| is(item, value)))
            .collect();
        if !new.is_empty() {
            insertions.extend(after(text, last, &new));
        }
    }
    Ok(insert(path, text, &insertions))
}

/// Adds lines to the end of a list of digests.
pub fn add_lines(path: &str, text: &str, lines: &BTreeSet<String>) -> Result<Edited, EditRefused> {
    if lines.len() > MAX_ADDED_LINES {
        return Err(EditRefused::TooMany);
    }
    let added: String = lines.iter().map(|line| format!("\n{line}")).collect();
    if text.len() + added.len() > MAX_LIST_FILE_BYTES {
        return Err(EditRefused::TooLarge);
    }
    let end = text.trim_end_matches('\n').len();
    let insertions = match added.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(end, added)]),
    };
    Ok(insert(path, text, &insertions))
}

/// The list of what a profile allows, by its definition in these files.
pub fn allow_list<'f>(files: &'f [SourceFile], profile: &str) -> Option<&'f SourceFile> {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    files
        .iter()
        .filter(|file| !file.is_list())
        .find_map(|file| {
            let document = DeTable::parse(&file.text).ok()?;
            let profile = table(table(document.get_ref(), "profile")?, profile)?;
            let DeValue::String(name) = table(profile, "ima")?.get("allow")?.get_ref() else {
                return None;
            };
            let near = match file.directory() {
                "" => name.to_string(),
                directory => format!("{directory}/{name}"),
            };
            find(&near).or_else(|| find(name))
        })
}

/// `profile.<name>.pcr.<index>`, which is never empty.
fn set_of<'t>(
    document: &'t DeTable<'t>,
    profile: &str,
    pcr: u8,
) -> Option<&'t [Spanned<DeValue<'t>>]> {
    let pcrs = table(table(table(document, "profile")?, profile)?, "pcr")?;
    match pcrs.get(pcr.to_string().as_str())?.get_ref() {
        DeValue::Array(array) => Some(array.as_ref()),
        _ => None,
    }
}

fn table<'t>(table: &'t DeTable<'t>, key: &str) -> Option<&'t DeTable<'t>> {
    match table.get(key)?.get_ref() {
        DeValue::Table(inner) => Some(inner),
        _ => None,
    }
}

fn is(item: &Spanned<DeValue<'_>>, value: &str) -> bool {
    matches!(item.get_ref(), DeValue::String(text) if text.eq_ignore_ascii_case(value))
}

/// Where values go that follow the last one: beside it, or on lines of their own where that one has its own. Then its
/// comment stays with it.
fn after(text: &str, last: Range<usize>, new: &[&String]) -> Vec<(usize, String)> {
    let before = text.get(..last.start).unwrap_or("");
    let indentation = before.rsplit('\n').next().unwrap_or("");
    let line = text.get(last.end..).unwrap_or("").split('\n').next();
    let line = line.unwrap_or("").trim_end_matches('\r');
    let rest = line.trim_start();
    let (comma, rest) = match rest.strip_prefix(',') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, rest),
    };
    let own_line = indentation.trim().is_empty() && (rest.is_empty() || rest.starts_with('#'));
    if !own_line {
        let added = new.iter().map(|value| format!(", \"{value}\"")).collect();
        return vec![(last.end, added)];
    }
    let lines: Vec<String> = new
        .iter()
        .map(|value| format!("\n{indentation}\"{value}\""))
        .collect();
    let end = last.end + line.len();
    match (comma, end == last.end) {
        (true, _) => vec![(end, format!("{},", lines.join(",")))],
        (false, true) => vec![(end, format!(",{}", lines.join(",")))],
        (false, false) => vec![(last.end, ",".to_owned()), (end, lines.join(","))],
    }
}

fn insert(path: &str, text: &str, insertions: &BTreeMap<usize, String>) -> Edited {
    let lines = Lines::new(text);
    let mut changed = text.to_owned();
    let mut by_line: BTreeMap<usize, Vec<(usize, &str)>> = BTreeMap::new();
    for (offset, added) in insertions.iter().rev() {
        changed.insert_str(*offset, added);
        let line = lines.place(0, *offset).line;
        by_line.entry(line).or_default().push((*offset, added));
    }
    let replaced = by_line
        .into_iter()
        .map(|(line, added)| (line, replaced_line(text, added)))
        .collect();
    Edited {
        diff: unified(path, text, &replaced),
        text: changed,
    }
}

/// The lines that stand in place of one, with all that was inserted into it. `added` goes from its end to its beginning.
fn replaced_line(text: &str, added: Vec<(usize, &str)>) -> Vec<String> {
    let offset = added.first().map_or(0, |(offset, _)| *offset);
    let start = text.get(..offset).and_then(|text| text.rfind('\n'));
    let start = start.map_or(0, |at| at + 1);
    let rest = text.get(start..).unwrap_or("");
    let mut line = rest.split('\n').next().unwrap_or("").to_owned();
    for (offset, added) in added {
        line.insert_str(offset - start, added);
    }
    line.split('\n').map(str::to_owned).collect()
}

/// Line numbers from 1, each with the lines that come in its place.
fn unified(path: &str, text: &str, replaced: &BTreeMap<usize, Vec<String>>) -> String {
    if replaced.is_empty() {
        return String::new();
    }
    let old: Vec<&str> = text.split('\n').collect();
    // What follows the last line break is no line.
    let count = old.len() - usize::from(old.last() == Some(&""));
    let mut out = format!("--- a/{path}\n+++ b/{path}\n");
    let mut grown = 0;
    for hunk in hunks(replaced.keys().copied(), count) {
        let mut body = String::new();
        let (mut before, mut after) = (0, 0);
        for number in hunk.clone() {
            let line = old.get(number - 1).copied().unwrap_or("");
            match replaced.get(&number) {
                None => body.push_str(&format!(" {line}\n")),
                Some(new) => {
                    body.push_str(&format!("-{line}\n"));
                    body.push_str(&last_without_break(number, count, text));
                    for line in new {
                        body.push_str(&format!("+{line}\n"));
                    }
                    body.push_str(&last_without_break(number, count, text));
                }
            }
            before += 1;
            after += replaced.get(&number).map_or(1, Vec::len);
        }
        let (from, to) = (hunk.start, hunk.start + grown);
        out.push_str(&format!("@@ -{from},{before} +{to},{after} @@\n{body}"));
        grown += after - before;
    }
    out
}

fn last_without_break(number: usize, count: usize, text: &str) -> String {
    match number == count && !text.ends_with('\n') {
        true => "\\ No newline at end of file\n".to_owned(),
        false => String::new(),
    }
}

/// Ranges of lines around the changed ones, merged where they touch.
fn hunks(changed: impl Iterator<Item = usize>, count: usize) -> Vec<Range<usize>> {
    let mut hunks: Vec<Range<usize>> = Vec::new();
    for number in changed {
        let start = number.saturating_sub(CONTEXT).max(1);
        let end = (number + CONTEXT).min(count) + 1;
        match hunks.last_mut() {
            Some(last) if start <= last.end => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

#[cfg(test)]
mod tests;
