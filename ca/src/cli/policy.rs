//! `edgeward policy`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use edgeward_policy::SourceFile;
use edgeward_runtime::screen::{Screen, Table};

use super::client::Client;
use super::progress::watch;
use super::{Failure, Session, sources};
use crate::api::Items;
use crate::api::views::{PolicyApply, PolicyFile, PolicyReport, PolicyView};

const PATH: &str = "/api/v1/policies";

/// `edgeward policy`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policy files and run the tests in them; needs no cloud
    #[command(after_help = "\
Examples:
  edgeward policy check policies/
  edgeward policy check policies/ -o json

Errors name file, line and column. Openings are not errors: they show a reader where more than named and proven
parties get in.")]
    Check {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
    },
    /// Check, sign with your key, and put into force everywhere
    #[command(after_help = "\
Examples:
  edgeward policy apply policies/

The cloud checks again and runs the tests; one that fails refuses the whole. Connected nodes have their new slice within
a second; flows that the new policy does not allow end there and then.")]
    Apply {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
    },
    /// List applied policies: when, by whom, with which hash
    History,
    /// Print the sources of an applied policy
    Show {
        /// Its number; the one in force if absent
        number: Option<u64>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { dir } => {
            let (_, report) = check(&dir)?;
            show_report(session, &report);
            if report.ok {
                Ok(())
            } else {
                Err(Failure::Quiet)
            }
        }
        Command::Apply { dir } => apply(session, &dir).await,
        Command::History => {
            let list: Items<PolicyView> = watch(
                &session.screen,
                "listing policies",
                session.client()?.get(PATH),
            )
            .await?;
            session
                .screen
                .tabulate(&list.items, |policies| table(policies));
            Ok(())
        }
        Command::Show { number } => show(session, number).await,
    }
}

fn check(dir: &Path) -> Result<(Vec<SourceFile>, PolicyReport), Failure> {
    let files = sources::read(dir)?;
    let report = PolicyReport::of(&edgeward_policy::check(&files));
    Ok((files, report))
}

async fn apply(session: &Session, dir: &Path) -> Result<(), Failure> {
    let (files, report) = check(dir)?;
    if !report.ok {
        show_report(session, &report);
        return Err(Failure::Quiet);
    }
    for opening in &report.openings {
        session.screen.note(opening);
    }
    let client = session.client()?;
    let applied = watch(
        &session.screen,
        "applying the policy",
        send(&client, files, &report.hash),
    )
    .await?;
    session
        .screen
        .tabulate(&vec![applied], |policies| table(policies));
    Ok(())
}

async fn send(client: &Client, files: Vec<SourceFile>, hash: &str) -> Result<PolicyView, Failure> {
    let list: Items<PolicyView> = client.get(PATH).await?;
    let number = list.items.first().map_or(0, |newest| newest.number) + 1;
    let signature = client.sign(&PolicyApply::message(client.trust_domain(), number, hash))?;
    let request = PolicyApply {
        files: files
            .into_iter()
            .map(|file| PolicyFile {
                path: file.path,
                text: file.text,
            })
            .collect(),
        number,
        signature: hex::encode(signature),
    };
    client.post(PATH, &request).await
}

async fn show(session: &Session, number: Option<u64>) -> Result<(), Failure> {
    let path = match number {
        Some(number) => format!("{PATH}/{number}"),
        None => format!("{PATH}/current"),
    };
    let policy: PolicyView = watch(
        &session.screen,
        "asking for the policy",
        session.client()?.get(&path),
    )
    .await?;
    if session.wants_json() {
        session.screen.json(&policy);
        return Ok(());
    }
    session.screen.line(&format!(
        "# policy {} applied {} by {}",
        policy.number, policy.applied, policy.applied_by
    ));
    for file in policy.files.unwrap_or_default() {
        session.screen.line(&format!("\n# --- {}", file.path));
        file.text.lines().for_each(|line| session.screen.line(line));
    }
    Ok(())
}

fn show_report(session: &Session, report: &PolicyReport) {
    if session.wants_json() {
        session.screen.json(report);
        return;
    }
    show_lines(&session.screen, &report.errors);
    show_lines(&session.screen, &report.openings);
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
    const WORDS: [(&str, &str, &str); 10] = [
        ("files", "file", "files"),
        ("lists", "list of digests", "lists of digests"),
        ("profiles", "profile", "profiles"),
        ("groups", "group", "groups"),
        ("operator_groups", "operator group", "operator groups"),
        ("services", "service", "services"),
        ("interfaces", "interface", "interfaces"),
        ("windows", "window", "windows"),
        ("rules", "rule", "rules"),
        ("tests", "test", "tests"),
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

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn show_lines(screen: &Screen, lines: &[String]) {
    for line in lines.iter().flat_map(|text| text.lines()) {
        screen.line(line);
    }
}

fn table(policies: &[PolicyView]) -> Table {
    let mut table = Table::new(&["NUMBER", "APPLIED", "BY", "RULES", "HASH"]);
    for policy in policies {
        table.row([
            policy.number.to_string(),
            policy.applied.to_string(),
            policy.applied_by.clone(),
            policy
                .summary
                .get("rules")
                .copied()
                .unwrap_or(0)
                .to_string(),
            policy.hash.clone(),
        ]);
    }
    table
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
