//! Parts of the space in words, for people and machines.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::{AppName, Version};
use edgeward_identity::{AttestationState, Tier, Timestamp};
use serde::Serialize;

use super::axes::{Atoms, Axes, Axis, TIERS, least, state};
use super::diagram::Outcome;
use super::interface::Pair;
use super::region::{Changed, Offered, Part};
use super::subjects::subjects;
use super::times::Times;
use crate::seconds::Seconds;

pub use super::subjects::Subjects;

/// Which way a verdict goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    AllowToDeny,
    DenyToAllow,
}

/// Part of the space in which the verdict changes in one way. What is absent does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    pub direction: Direction,
    /// `service/interface`.
    pub to: String,
    /// Where only some nodes are meant: those that offer it only before, or only after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered: Option<&'static str>,
    pub who: Subjects,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<AttestationState>>,
    /// Names of tiers, or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<&'static str>>,
    /// What the result says of profiles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// What its evidence says that it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<String>,
    /// Whether the verifier hears from the cloud, and when it did last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Vec<String>>,
    /// Age of the last pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
    pub before: Said,
    pub after: Said,
}

/// What one side says, and by which rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    pub allow: bool,
    /// Every rule that allows, or the one that denies.
    pub rules: Vec<String>,
    /// `allowed`, `rule`, `no-rule` or `unknown-interface`.
    pub because: &'static str,
}

pub(super) fn words(pair: &Pair<'_>, changed: &Changed) -> Vec<Region> {
    let parts = changed.parts.iter();
    parts.map(|part| region(pair, changed, part)).collect()
}

fn region(pair: &Pair<'_>, changed: &Changed, part: &Part) -> Region {
    let axes = &changed.axes;
    let atoms = |axis: Axis| part.atoms.get(&axis);
    let listed = |axis: Axis, word: &dyn Fn(usize) -> Option<String>| {
        atoms(axis).map(|atoms| atoms.iter().filter_map(|atom| word(*atom)).collect())
    };
    Region {
        direction: match part.outcomes.0.is_allow() {
            true => Direction::AllowToDeny,
            false => Direction::DenyToAllow,
        },
        to: format!("{}/{}", changed.service, changed.name),
        offered: match part.offered {
            Offered::Both => None,
            Offered::Before => Some("before"),
            Offered::After => Some("after"),
        },
        who: subjects(pair, changed, &part.who),
        actions: listed(Axis::Action, &|atom| axes.actions.get(atom).cloned()),
        states: atoms(Axis::State)
            .map(|atoms| atoms.iter().filter_map(|atom| state(*atom)).collect()),
        tiers: atoms(Axis::Tier).map(|atoms| {
            let tiers = atoms.iter().filter_map(|atom| TIERS.get(*atom));
            tiers
                .map(|tier| tier.map_or("unknown", Tier::as_str))
                .collect()
        }),
        profiles: profiles(axes, &part.atoms),
        runs: runs(axes, &part.atoms),
        link: atoms(Axis::Link).map(|atoms| link(&axes.links, atoms)),
        age: atoms(Axis::Pass).map(|atoms| ages(&axes.passes, atoms, "unknown")),
        when: atoms(Axis::Time).map(|atoms| when(&axes.times, atoms)),
        approvals: approvals(axes, &part.atoms),
        before: said(&part.outcomes.0),
        after: said(&part.outcomes.1),
    }
}

fn said(outcome: &Outcome) -> Said {
    let (rules, because) = match outcome {
        Outcome::Allow(rules) => (rules.iter().map(ToString::to_string).collect(), "allowed"),
        Outcome::Deny(rule) => (vec![rule.to_string()], "rule"),
        Outcome::Default => (Vec::new(), "no-rule"),
        Outcome::NoInterface => (Vec::new(), "unknown-interface"),
    };
    Said {
        allow: outcome.is_allow(),
        rules,
        because,
    }
}

fn profiles(axes: &Axes, atoms: &BTreeMap<Axis, Atoms>) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(stated) = atoms.get(&Axis::Stated) {
        words.push(match stated.contains(&1) {
            true => "known".to_owned(),
            false => "unknown".to_owned(),
        });
    }
    for (index, (name, versions)) in axes.profiles.iter().enumerate() {
        let Some(atoms) = atoms.get(&Axis::Profile(index)) else {
            continue;
        };
        let word = |atom: &usize| match (atom, versions.get(atom.wrapping_sub(1))) {
            (0, _) => format!("not {name}"),
            (_, Some(version)) => version.to_string(),
            (_, None) => format!("{name} as it was at another time"),
        };
        words.push(atoms.iter().map(word).collect::<Vec<_>>().join(" or "));
    }
    words
}

fn runs(axes: &Axes, atoms: &BTreeMap<Axis, Atoms>) -> Vec<String> {
    let named = axes.running.iter().enumerate();
    named
        .filter_map(|(index, app)| {
            let atoms = atoms.get(&Axis::Running(index))?;
            let words: Vec<String> = atoms.iter().map(|atom| running(app, *atom)).collect();
            Some(words.join(" or "))
        })
        .collect()
}

/// What runs, by an atom of [`Axis::Running`].
pub(super) fn running((app, versions): &(AppName, Vec<Version>), atom: usize) -> String {
    let from = atom.checked_sub(3).and_then(|place| versions.get(place));
    let below = atom.checked_sub(2).and_then(|place| versions.get(place));
    match (atom, from, below) {
        (0, ..) => format!("unknown whether it runs {app}"),
        (1, ..) => format!("does not run {app}"),
        (_, None, None) => format!("runs {app}"),
        (_, None, Some(below)) => format!("runs {app} below {below}"),
        (_, Some(from), None) => format!("runs {app}>={from}"),
        (_, Some(from), Some(below)) => format!("runs {app}>={from} below {below}"),
    }
}

fn approvals(axes: &Axes, atoms: &BTreeMap<Axis, Atoms>) -> Vec<String> {
    let named = axes.approvals.iter().enumerate();
    named
        .filter_map(|(index, rule)| {
            let (rule, _) = rule;
            let atoms = atoms.get(&Axis::Approval(index))?;
            let word = if atoms.contains(&1) {
                "approved"
            } else {
                "not approved"
            };
            Some(format!("{rule} {word}"))
        })
        .collect()
}

fn link(limits: &[u64], atoms: &Atoms) -> Vec<String> {
    let mut words = Vec::new();
    let mut cut_off = atoms.clone();
    if cut_off.remove(&0) {
        words.push("online".to_owned());
    }
    if cut_off.len() == limits.len() + 1 {
        words.push("cut off".to_owned());
    } else {
        let ages = ages(limits, &cut_off, "");
        words.extend(ages.into_iter().map(|age| format!("cut off for {age}")));
    }
    words
}

/// Classes of ages as ranges.
fn ages(limits: &[u64], atoms: &Atoms, unknown: &str) -> Vec<String> {
    let mut words = Vec::new();
    if atoms.contains(&0) {
        words.push(unknown.to_owned());
    }
    let mut classes = atoms.iter().copied().filter(|atom| *atom > 0).peekable();
    while let Some(first) = classes.next() {
        let mut last = first;
        while let Some(next) = classes.next_if_eq(&(last + 1)) {
            last = next;
        }
        let from = Seconds::new(least(limits, first));
        let to = limits.get(last - 1).map(|limit| Seconds::new(*limit));
        words.push(match (first, to) {
            (1, None) => "any age".to_owned(),
            (1, Some(to)) => format!("under {to}"),
            (_, None) => format!("{from} or more"),
            (_, Some(to)) => format!("{from} to under {to}"),
        });
    }
    words
}

/// Atoms of time as stretches, each with what windows must be.
pub(super) fn when(times: &Times, atoms: &Atoms) -> Vec<String> {
    let mut phrases: Vec<Option<String>> = Vec::new();
    for stretch in 0..=times.ends.len() {
        let all: BTreeSet<&[bool]> = times
            .atoms
            .iter()
            .filter(|atom| atom.stretch == stretch)
            .map(|atom| atom.open.as_slice())
            .collect();
        let chosen: BTreeSet<&[bool]> = atoms
            .iter()
            .filter_map(|atom| times.atoms.get(*atom))
            .filter(|atom| atom.stretch == stretch)
            .map(|atom| atom.open.as_slice())
            .collect();
        phrases.push(windows(times, &all, &chosen));
    }
    let mut words = Vec::new();
    let mut stretches = phrases.iter().enumerate().peekable();
    while let Some((first, phrase)) = stretches.next() {
        let mut last = first;
        while let Some((next, _)) = stretches.next_if(|(_, next)| *next == phrase) {
            last = next;
        }
        let Some(phrase) = phrase else { continue };
        let from = first.checked_sub(1).and_then(|index| times.ends.get(index));
        let mut parts = Vec::new();
        parts.extend(Some(phrase.clone()).filter(|phrase| !phrase.is_empty()));
        parts.extend(from.map(|from| format!("from {}", written(*from))));
        parts.extend(
            times
                .ends
                .get(last)
                .map(|to| format!("until {}", written(*to))),
        );
        words.push(match parts.is_empty() {
            true => "always".to_owned(),
            false => parts.join(" "),
        });
    }
    words
}

/// `None`: never.
fn windows(times: &Times, all: &BTreeSet<&[bool]>, chosen: &BTreeSet<&[bool]>) -> Option<String> {
    if chosen.is_empty() {
        return None;
    }
    if chosen == all {
        return Some(String::new());
    }
    for (place, (_, window)) in times.windows.iter().enumerate() {
        let is_open = |combination: &&&[bool]| combination.get(place) == Some(&true);
        let open: BTreeSet<&[bool]> = all.iter().filter(is_open).copied().collect();
        if *chosen == open {
            return Some(format!("in window {}", window.name));
        }
        if *chosen == all.difference(&open).copied().collect() {
            return Some(format!("outside window {}", window.name));
        }
    }
    let combinations = chosen.iter().map(|combination| {
        let windows = times.windows.iter().zip(*combination);
        let words = windows.map(|((_, window), open)| match open {
            true => format!("in {}", window.name),
            false => format!("outside {}", window.name),
        });
        words.collect::<Vec<_>>().join(" and ")
    });
    Some(combinations.collect::<Vec<_>>().join("; or "))
}

/// RFC 3339 in UTC.
pub(super) fn written(time: Timestamp) -> String {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis);
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}
