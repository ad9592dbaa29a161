//! `edgeward policy check`.

use std::collections::BTreeMap;
use std::path::Path;

use edgeward_identity::{Clock, SystemClock};
use edgeward_policy::SourceFile;
use edgeward_runtime::screen::Screen;

use crate::api::views::PolicyReport;
use crate::cli::{Failure, Session, sources};

pub(super) fn run(session: &Session, dir: &Path) -> Result<(), Failure> {
    let (_, report) = check(dir)?;
    show_report(session, &report);
    if report.ok {
        Ok(())
    } else {
        Err(Failure::Quiet)
    }
}

/// Reads a directory and checks it as of now, its tests included.
pub(super) fn check(dir: &Path) -> Result<(Vec<SourceFile>, PolicyReport), Failure> {
    let files = sources::read(dir)?;
    let report = PolicyReport::of(&edgeward_policy::check_at(&files, SystemClock.now()));
    Ok((files, report))
}

pub(super) fn show_report(session: &Session, report: &PolicyReport) {
    if session.wants_json() {
        session.screen.json(report);
        return;
    }
    show_lines(&session.screen, &report.errors);
    show_lines(&session.screen, &report.openings);
    show_lines(&session.screen, &report.notes);
    let verdict = match report.ok {
        true => "ok".to_owned(),
        false => count(
            u64::try_from(report.errors.len()).unwrap_or(u64::MAX),
            "error",
            "errors",
        ),
    };
    session
        .screen
        .line(&format!("{verdict}: {}", in_words(&report.summary)));
}

/// What there is, in the order in which a policy is read; what there is none of is left out.
fn in_words(summary: &BTreeMap<String, u64>) -> String {
    const WORDS: [(&str, &str, &str); 12] = [
        ("files", "file", "files"),
        ("lists", "list of digests", "lists of digests"),
        ("profiles", "profile", "profiles"),
        ("groups", "group", "groups"),
        ("devices", "device", "devices"),
        ("operator_groups", "operator group", "operator groups"),
        ("services", "service", "services"),
        ("interfaces", "interface", "interfaces"),
        ("windows", "window", "windows"),
        ("rules", "rule", "rules"),
        ("tests", "test", "tests"),
        ("invariants", "invariant", "invariants"),
    ];
    let of = |key: &str| summary.get(key).copied().unwrap_or(0);
    let mut words: Vec<String> = WORDS
        .iter()
        .filter(|(key, ..)| of(key) > 0)
        .map(|(key, one, many)| count(of(key), one, many))
        .collect();
    if of("tests_failed") > 0 {
        words.push(format!("{} failed", of("tests_failed")));
    }
    words.join(", ")
}

pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn show_lines(screen: &Screen, lines: &[String]) {
    for line in lines.iter().flat_map(|text| text.lines()) {
        screen.line(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_none_of_is_left_out_and_one_is_not_many() {
        let summary = [
            ("files", 2),
            ("rules", 1),
            ("windows", 0),
            ("operator_groups", 3),
            ("tests", 5),
            ("tests_failed", 0),
        ]
        .map(|(key, number)| (key.to_owned(), number));
        assert_eq!(
            in_words(&summary.into()),
            "2 files, 3 operator groups, 1 rule, 5 tests"
        );
    }
}
