//! Checking a policy: every name, scope and limit, rules that do nothing, and the tests in the files.

use std::fmt;

use edgeward_identity::Timestamp;
use serde::Serialize;

use crate::compile::CompiledPolicy;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parse::{lists, parse};
use crate::source::{SourceFile, hash_sources};

mod dead;
mod lookup;
mod notes;
mod openings;
mod reach;
mod resolve;
mod terms;
mod trial;
mod tried;

pub use notes::{MAX_NOTES, Note, NoteKind};
pub use openings::{Opening, OpeningKind};
pub use resolve::MAX_NESTING;
pub use terms::{DEFAULT_FRESH, DEFAULT_MAX_OFFLINE, DEFAULT_OFFLINE};
pub use tried::{Tried, run_tests};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Errors, in the order of file, line and column. Empty: the policy may be applied.
    pub diagnostics: Vec<Diagnostic>,
    pub summary: Summary,
    /// Everything that lets in more than named and proven parties.
    pub openings: Vec<Opening>,
    /// What a reader should see besides.
    pub notes: Vec<Note>,
    /// SHA-256 of the sources, hex.
    pub hash: String,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Policy files.
    pub files: usize,
    /// Lists of digests.
    pub lists: usize,
    pub profiles: usize,
    pub groups: usize,
    pub devices: usize,
    pub operator_groups: usize,
    pub services: usize,
    pub interfaces: usize,
    pub windows: usize,
    pub workloads: usize,
    pub rules: usize,
    /// Tests in the files; run only where nothing else is wrong.
    pub tests: usize,
    pub tests_failed: usize,
    pub invariants: usize,
}

/// What is compiled: a policy that somebody wrote, at a time if one counts, or one that was accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    New(Option<Timestamp>),
    Stored,
}

impl Made {
    fn now(self) -> Option<Timestamp> {
        match self {
            Self::New(now) => now,
            Self::Stored => None,
        }
    }
}

/// Checks files without keeping what comes of them.
pub fn check(files: &[SourceFile]) -> Report {
    report(CompiledPolicy::compile(files, 0))
}

/// Checks files at a time: rules that nothing can come of any more are errors, too.
pub fn check_at(files: &[SourceFile], now: Timestamp) -> Report {
    report(CompiledPolicy::compile_at(files, 0, Made::New(Some(now))))
}

fn report(compiled: Result<CompiledPolicy, Box<Report>>) -> Report {
    match compiled {
        Ok(policy) => policy.report().clone(),
        Err(report) => *report,
    }
}

impl Report {
    pub fn is_ok(&self) -> bool {
        self.diagnostics.is_empty()
    }
}

impl CompiledPolicy {
    /// Checks and compiles. `version` is the policy's number: the caller sees to it that it only ever rises.
    /// It looks at no clock: what was once in force compiles for ever.
    pub fn compile(files: &[SourceFile], version: u64) -> Result<Self, Box<Report>> {
        Self::compile_at(files, version, Made::New(None))
    }

    /// The same for one that was in force: a version of this program that accepted it may have asked for less. Only what
    /// would be enforced otherwise than its owner meant it is an error here.
    pub fn compile_stored(files: &[SourceFile], version: u64) -> Result<Self, Box<Report>> {
        Self::compile_at(files, version, Made::Stored)
    }

    fn compile_at(files: &[SourceFile], version: u64, made: Made) -> Result<Self, Box<Report>> {
        let now = made.now();
        let hash = hash_sources(files);
        let mut found = Diagnostics::new(files);
        let parsed = parse(files, &mut found);
        let mut lists = lists::parse(files, &mut found);
        let mut summary = Summary {
            files: files.len() - lists.len(),
            lists: lists.len(),
            ..Summary::default()
        };
        for file in &parsed {
            summary.profiles += file.profiles.len();
            summary.groups += file.groups.len();
            summary.devices += file.devices.len();
            summary.invariants += file.invariants.len();
            summary.operator_groups += file.operator_groups.len();
            summary.services += file.services.len();
            summary.interfaces += file
                .services
                .iter()
                .map(|s| s.interfaces.len())
                .sum::<usize>();
            summary.windows += file.windows.len();
            summary.workloads += file.workloads.len();
            summary.rules += file.rules.len();
            summary.tests += file.tests.len();
        }
        if files.iter().all(SourceFile::is_list) {
            found.error(
                crate::source::Place {
                    file: 0,
                    line: 0,
                    column: 0,
                },
                crate::diagnostic::Code::ChecksNothing,
                "no policy file",
            );
        }
        let openings = openings::list(&parsed, &found);
        let mut policy = resolve::resolve(&parsed, &mut lists, version, hash, made, &mut found);
        if found.is_empty() {
            let tests = parsed.iter().flat_map(|file| &file.tests);
            summary.tests_failed = trial::run(&policy, tests, &mut found);
            crate::space::check_invariants(&policy, now, &mut found);
        }
        let notes = notes::list(&parsed, &policy, &found);
        let report = Report {
            diagnostics: found.finish(),
            summary,
            openings,
            notes,
            hash: hex::encode(hash),
        };
        if !report.is_ok() {
            return Err(Box::new(report));
        }
        policy.report = report;
        Ok(policy)
    }
}

impl fmt::Display for Report {
    /// Every diagnostic, a line or two each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
