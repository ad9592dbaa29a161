//! `edgeward profile propose`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use edgeward_policy::CompiledPolicy;
use edgeward_runtime::screen::Table;

use super::super::client::encode;
use super::super::nodes::has_label;
use super::super::progress::watch;
use super::super::{Failure, Session, sources};
use super::{NODES, evidence_of, newest};
use crate::api::Items;
use crate::api::views::NodeView;
use crate::profiles::changes::line_of;
use crate::profiles::propose::{Machine, SeenValue, Standing};
use crate::profiles::{EvidenceView, NodeEvidence, Proposal, changes, propose};

/// Most files told.
const MAX_FILES: usize = 100;
/// Most changes told of one value.
const MAX_TOLD: usize = 6;
/// Most values for which the events behind them are looked up.
const MAX_LOOKED_UP: usize = 8;

/// Whose values to turn into a change.
#[derive(Debug, Args)]
#[group(id = "whose", required = true, multiple = true, args = ["group", "labels"])]
pub struct Propose {
    /// The policy's directory
    dir: PathBuf,
    /// Only nodes of this group of the policy
    #[arg(long)]
    group: Option<String>,
    /// Only nodes with this label. May be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How many nodes must show a value for it to be proposed
    #[arg(long, value_name = "NODES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    at_least: u32,
    /// Look at the files that ran as well, and add new ones to the allow lists: asks for each node's IMA list
    #[arg(long)]
    files: bool,
}

pub(super) async fn run(session: &Session, what: &Propose) -> Result<(), Failure> {
    let files = sources::read(&what.dir)?;
    let policy = CompiledPolicy::compile(&files, 0).map_err(|report| {
        for line in report.to_string().lines() {
            session.screen.note(line);
        }
        Failure::Quiet
    })?;
    let client = session.client()?;
    let screen = &session.screen;
    let mut nodes: Items<NodeView> = watch(screen, "listing nodes", client.get(NODES)).await?;
    nodes.items.retain(|node| is_meant(&policy, what, node));
    if nodes.items.is_empty() {
        return Err(Failure::Usage(
            "no node is in this group with these labels".to_owned(),
        ));
    }
    let mut evidence: BTreeMap<String, EvidenceView> = BTreeMap::new();
    for node in &nodes.items {
        let path = format!(
            "{NODES}/{}/evidence?logs={}",
            encode(&node.name),
            what.files
        );
        let found: NodeEvidence = watch(screen, &node.name, client.get(&path)).await?;
        evidence.extend(newest(found).map(|newest| (node.name.clone(), newest)));
    }
    let machines: Vec<Machine<'_>> = nodes
        .items
        .iter()
        .map(|node| Machine {
            name: &node.name,
            profiles: policy.profiles_for(&node.labels),
            evidence: evidence.get(&node.name),
        })
        .collect();
    let at_least = usize::try_from(what.at_least).unwrap_or(usize::MAX);
    let proposal = propose(&machines, &files, at_least)
        .map_err(|refused| Failure::Usage(refused.to_string()))?;
    if session.wants_json() {
        screen.json(&proposal);
        return Ok(());
    }
    tell(session, &proposal);
    explain(session, &client, &proposal).await?;
    match proposal.diff.is_empty() {
        true => screen.note("nothing to change"),
        false => screen.line(proposal.diff.trim_end_matches('\n')),
    }
    Ok(())
}

fn is_meant(policy: &CompiledPolicy, what: &Propose, node: &NodeView) -> bool {
    what.group
        .as_ref()
        .is_none_or(|group| policy.groups_of(&node.labels).contains(&group.as_str()))
        && what.labels.iter().all(|label| has_label(node, label))
}

/// What is no part of the change goes where a pipe does not take it.
fn tell(session: &Session, proposal: &Proposal) {
    let screen = &session.screen;
    let mut table = Table::new(&["PROFILE", "PCR", "VALUE", "NODES", ""]);
    for value in &proposal.values {
        table.row([
            value.profile.clone(),
            value.pcr.to_string(),
            value.value.clone(),
            format!("{} of {}", value.nodes, proposal.counted),
            word(value.what).to_owned(),
        ]);
    }
    for line in table.lines() {
        screen.note(&line);
    }
    for file in proposal.files.iter().take(MAX_FILES) {
        let count = format!("{} of {}", file.nodes, proposal.counted);
        let what = word(file.what);
        screen.note(&format!("{} {} ({count}): {what}", file.profile, file.line));
    }
    if let Some(more) = proposal.files.len().checked_sub(MAX_FILES + 1) {
        screen.note(&format!("{} more files: see -o json", more + 1));
    }
    for (node, why) in &proposal.left_out {
        screen.note(&format!("{node} is not counted: {why}"));
    }
}

fn word(what: Standing) -> &'static str {
    match what {
        Standing::Accepted => "accepted",
        Standing::Unused => "accepted, not seen: may go once every node is counted",
        Standing::Proposed => "proposed",
        Standing::Denied => "on the deny list: never proposed",
        Standing::TooFew => "on too few nodes to propose (--at-least)",
    }
}

/// What changed in the boot of one node that has a proposed value.
async fn explain(
    session: &Session,
    client: &super::Client,
    proposal: &Proposal,
) -> Result<(), Failure> {
    let mut known: BTreeMap<&str, NodeEvidence> = BTreeMap::new();
    let proposed = proposal
        .values
        .iter()
        .filter(|value| value.what == Standing::Proposed);
    for value in proposed.take(MAX_LOOKED_UP) {
        let Some(node) = value.example.as_deref() else {
            continue;
        };
        if !known.contains_key(node) {
            let evidence = evidence_of(session, client, node, true).await?;
            known.insert(node, evidence);
        }
        if let Some(evidence) = known.get(node) {
            for line in behind(value, node, evidence) {
                session.screen.note(&line);
            }
        }
    }
    Ok(())
}

fn behind(value: &SeenValue, node: &str, evidence: &NodeEvidence) -> Vec<String> {
    let Some(changes) = changes(evidence) else {
        return Vec::new();
    };
    let events = changes.events.iter().filter(|event| event.pcr == value.pcr);
    let mut lines: Vec<String> = events
        .take(MAX_TOLD)
        .map(|event| format!("  {}", line_of(event)))
        .collect();
    if !lines.is_empty() {
        lines.insert(
            0,
            format!("PCR {} on {node}, since its last pass:", value.pcr),
        );
    }
    lines
}
