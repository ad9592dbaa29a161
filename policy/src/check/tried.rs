//! The tests in policy files, each by its name: for those who write them.

use serde::Serialize;

use super::{Made, Report, lists, parse, report, resolve, trial};
use crate::compile::CompiledPolicy;
use crate::diagnostic::{Code, Diagnostics};
use crate::source::{SourceFile, hash_sources};

/// One test, and how it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// `file:line:column`.
    pub at: String,
    pub name: String,
    pub passed: bool,
    /// What came instead; `None` for one that passed.
    pub why: Option<String>,
}

/// Runs the tests in some files, in the order in which they stand there.
///
/// # Errors
/// Where something else is wrong, so that tests would mean nothing.
pub fn run_tests(files: &[SourceFile]) -> Result<Vec<Tried>, Box<Report>> {
    let whole = report(CompiledPolicy::compile(files, 0));
    let about_tests = [
        Code::TestFailed,
        Code::TestInvalid,
        Code::UnknownName,
        Code::UnknownAction,
    ];
    let mut found = Diagnostics::new(files);
    let parsed = parse(files, &mut found);
    let mut lists = lists::parse(files, &mut found);
    let hash = hash_sources(files);
    let made = Made::New(None);
    let policy = resolve::resolve(&parsed, &mut lists, 0, hash, made, &mut found);
    if !found.is_empty() {
        return Err(Box::new(whole));
    }
    let tests = parsed.iter().flat_map(|file| &file.tests);
    let tried = tests.map(|test| {
        let mut found = Diagnostics::new(files);
        let failed = trial::run(&policy, [test].into_iter(), &mut found);
        let at = found.show(test.at);
        let diagnostics = found.finish();
        let said = diagnostics
            .first()
            .filter(|said| about_tests.contains(&said.code));
        Tried {
            at,
            name: test.name.clone(),
            passed: failed == 0,
            why: said.map(|said| match &said.help {
                None => said.message.clone(),
                Some(help) => format!("{}; {help}", said.message),
            }),
        }
    });
    Ok(tried.collect())
}
