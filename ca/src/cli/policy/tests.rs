//! `edgeward policy test`.

use std::path::Path;

use edgeward_policy::check::{Tried, run_tests};
use edgeward_runtime::screen::Table;

use super::check::{count, show_report};
use crate::api::views::PolicyReport;
use crate::cli::{Failure, Session, sources};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward policy test policies/
  edgeward policy test policies/ -o json | jq '.[] | select(.passed | not)'

Exit codes: 0 every test passed, 1 one failed or the policy is not sound, 2 wrong usage. A policy without a test passes.";

pub(super) fn run(session: &Session, dir: &Path) -> Result<(), Failure> {
    let files = sources::read(dir)?;
    let tried = match run_tests(&files) {
        Ok(tried) => tried,
        Err(report) => {
            show_report(session, &PolicyReport::of(&report));
            return Err(Failure::Quiet);
        }
    };
    session.screen.tabulate(&tried, |tried| table(tried));
    let failed = tried.iter().filter(|test| !test.passed).count();
    let all = u64::try_from(tried.len()).unwrap_or(u64::MAX);
    let verdict = match failed {
        0 => format!("{} passed", count(all, "test", "tests")),
        failed => format!("{failed} of {} failed", count(all, "test", "tests")),
    };
    session.screen.note(&verdict);
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Quiet),
    }
}

fn table(tried: &[Tried]) -> Table {
    let mut table = Table::new(&["TEST", "RESULT", "AT", "WHY"]);
    for test in tried {
        table.row([
            test.name.clone(),
            if test.passed { "pass" } else { "fail" }.to_owned(),
            test.at.clone(),
            test.why.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}
