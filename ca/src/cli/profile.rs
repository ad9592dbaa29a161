//! `edgeward profile`: what machines measured, as files for people to read, change and apply.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use edgeward_policy::source::{LIST_ENDINGS, POLICY_ENDING};

use super::client::{Client, encode};
use super::progress::watch;
use super::{Failure, Session};
use crate::api::views::NodeView;
use crate::profiles::changes::line_of;
use crate::profiles::meaning::RECORDED;
use crate::profiles::{Changes, EvidenceView, NodeEvidence, Recorded, Wanted, changes, record};

mod propose;

const NODES: &str = "/api/v1/nodes";

/// `edgeward profile`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a profile from a node's newest evidence
    #[command(after_help = "\
Examples:
  edgeward profile record gw-3                                              print it
  edgeward profile record gw-3 --name gateway-2026 --out policies/gateway-2026.toml
  edgeward profile record gw-3 --pcr 0,4,7,9 --out policies/gateway.toml --ima

The file says what each PCR measures, with values that are not compared as comments. With --ima a list of the files that
ran is written beside it. Nothing is applied: read it, give a group the profile, then `edgeward policy apply`.")]
    Record(Record),
    /// Show what changed on a node since its last pass, event by event, and what does not match its profile
    #[command(after_help = "\
Examples:
  edgeward profile diff gw-3
  edgeward profile diff gw-3 -o json

A + is an event that came, a - one that went, a ~ one with another digest.")]
    Diff {
        /// The node's name
        node: String,
    },
    /// Turn values seen across a group into a change of its policy files, old and new side by side
    #[command(after_help = "\
Examples:
  edgeward profile propose policies/ --group gateways
  edgeward profile propose policies/ --label site=suzhou --at-least 5
  edgeward profile propose policies/ --group gateways --files         new files for the allow lists as well
  edgeward profile propose policies/ --group gateways > new.diff; patch -p1 -d policies < new.diff

Nothing is applied. Values that fewer nodes show are named and left out: one machine alone may be in trouble.")]
    Propose(propose::Propose),
}

/// What to write down.
#[derive(Debug, Args)]
pub struct Record {
    /// The node's name
    node: String,
    /// The profile's name; the node's name if absent
    #[arg(long)]
    name: Option<String>,
    /// PCRs to compare, with commas between them
    #[arg(long, value_name = "PCRS", value_delimiter = ',', default_values_t = RECORDED)]
    pcr: Vec<u8>,
    /// Write the list of the files that ran as well, beside the file
    #[arg(long, requires = "out")]
    ima: bool,
    /// The last evidence that passed, in place of the newest
    #[arg(long)]
    passed: bool,
    /// Who answers for the file: its `owner`
    #[arg(long, default_value = "operators")]
    owner: String,
    /// Write here (a .toml that is not there yet) in place of printing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Record(what) => write_down(session, &what).await,
        Command::Diff { node } => diff(session, &node).await,
        Command::Propose(what) => propose::run(session, &what).await,
    }
}

async fn write_down(session: &Session, what: &Record) -> Result<(), Failure> {
    let client = session.client()?;
    let path = format!("{NODES}/{}", encode(&what.node));
    let screen = &session.screen;
    let node: NodeView = watch(screen, "asking for the node", client.get(&path)).await?;
    let evidence = evidence_of(session, &client, &what.node, true).await?;
    let chosen = match what.passed {
        true => evidence.passed,
        false => evidence.latest.or(evidence.passed),
    };
    let chosen = chosen.ok_or_else(|| none_given(&what.node))?;
    let name = what.name.as_deref().unwrap_or(&what.node);
    let list = match what.ima {
        true => Some(format!(
            "{name}{}",
            LIST_ENDINGS.first().unwrap_or(&".allow")
        )),
        false => None,
    };
    let pcrs: BTreeSet<u8> = what.pcr.iter().copied().collect();
    let wanted = Wanted {
        node: &what.node,
        labels: &node.labels,
        profile: name,
        owner: &what.owner,
        pcrs: &pcrs,
        list: list.as_deref(),
    };
    let recorded = record(&wanted, &chosen).map_err(|why| Failure::Usage(why.to_string()))?;
    let checked = checked(&recorded, list.as_deref())?;
    match &what.out {
        None => screen.line(recorded.policy.trim_end()),
        Some(out) => {
            store(out, &recorded, list.as_deref())?;
            screen.note(&format!("{} is written; nothing is applied", out.display()));
        }
    }
    for note in recorded.notes.iter().chain(&checked) {
        screen.note(note);
    }
    Ok(())
}

/// What was written must be read back as a policy; what its own reader would object to is our fault or a wrong name.
fn checked(recorded: &Recorded, list: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut files = vec![edgeward_policy::SourceFile::new(
        "recorded.toml",
        recorded.policy.as_str(),
    )];
    if let (Some(name), Some(text)) = (list, &recorded.list) {
        files.push(edgeward_policy::SourceFile::new(name, text.as_str()));
    }
    let report = edgeward_policy::check(&files);
    match report.diagnostics.first() {
        None => Ok(Vec::new()),
        Some(first) => Err(Failure::Usage(format!("this would be no policy: {first}"))),
    }
}

fn store(out: &Path, recorded: &Recorded, list: Option<&str>) -> Result<(), Failure> {
    let is_policy = out
        .to_str()
        .is_some_and(|path| path.ends_with(POLICY_ENDING));
    if !is_policy {
        return Err(Failure::Usage(format!(
            "{}: a policy file ends in {POLICY_ENDING}",
            out.display()
        )));
    }
    if let (Some(name), Some(text)) = (list, &recorded.list) {
        put_new(&out.with_file_name(name), text)?;
    }
    put_new(out, &recorded.policy)
}

/// Never over what is there: somebody may have changed it.
fn put_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(Failure::file(path))?;
    file.write_all(text.as_bytes()).map_err(Failure::file(path))
}

async fn diff(session: &Session, node: &str) -> Result<(), Failure> {
    let client = session.client()?;
    let evidence = evidence_of(session, &client, node, true).await?;
    let changes = changes(&evidence).ok_or_else(|| none_given(node))?;
    if session.wants_json() {
        session.screen.json(&changes);
        return Ok(());
    }
    for line in told(&changes) {
        session.screen.told(&line);
    }
    for note in &changes.notes {
        session.screen.note(note);
    }
    Ok(())
}

fn told(changes: &Changes) -> Vec<String> {
    let mut lines = Vec::new();
    let after = changes.after;
    match changes.before {
        Some(before) if changes.is_empty() => {
            lines.push(format!("nothing changed since the last pass ({before})"));
        }
        Some(before) => lines.push(format!("{before} (passed) -> {after}")),
        None => {}
    }
    for change in &changes.pcrs {
        lines.push(format!("PCR {} ({})", change.pcr, change.meaning));
        for (mark, value) in [('-', &change.before), ('+', &change.after)] {
            lines.push(format!(
                "  {mark} {}",
                value.as_deref().unwrap_or("not quoted")
            ));
        }
        let events = changes.events.iter();
        lines.extend(
            events
                .filter(|event| event.pcr == change.pcr)
                .map(|event| format!("    {}", line_of(event))),
        );
    }
    lines.extend(changes.others.iter().cloned());
    if changes.files.count > 0 {
        lines.push(format!("{} new files ran:", changes.files.count));
        lines.extend(changes.files.first.iter().map(|line| format!("  + {line}")));
    }
    if !changes.against_profile.is_empty() {
        lines.push("against the profile:".to_owned());
        lines.extend(
            changes
                .against_profile
                .iter()
                .flat_map(super::nodes::finding_lines),
        );
    }
    lines
}

async fn evidence_of(
    session: &Session,
    client: &Client,
    node: &str,
    logs: bool,
) -> Result<NodeEvidence, Failure> {
    let path = format!("{NODES}/{}/evidence?logs={logs}", encode(node));
    watch(&session.screen, "asking for evidence", client.get(&path)).await
}

fn none_given(node: &str) -> Failure {
    Failure::Usage(format!("{node} gave no evidence yet, or has no TPM"))
}

/// The newest evidence, else the last that passed.
fn newest(evidence: NodeEvidence) -> Option<EvidenceView> {
    evidence.latest.or(evidence.passed)
}
