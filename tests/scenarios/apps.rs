//! Signed applications on real parts: publishers with keys of their own, a cloud, nodes with TPMs, volumes and guards,
//! and programs of Debian packages.

use edgeward_tests::agent::Node;
pub(crate) use edgeward_tests::plant::{
    APP, Plant, SOON, assigned, await_note, await_nothing_runs, collector, note,
};
use edgeward_tests::process::output;

mod artefacts;
mod downloads;
mod enforce;
mod identity;
mod install;
mod neighbours;
mod network;
mod online_keys;
mod operators;
mod publish;
mod refusals;
mod revoke;
mod runs;

/// `edgeward-agent apps …`.
pub(crate) fn apps(node: &Node, words: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut command = node.command("apps");
    output(command.args(words))
}

pub(crate) fn told(output: &std::process::Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{stdout}{}", String::from_utf8_lossy(&output.stderr))
}

/// Kinds of events of a node that concern apps, oldest first.
pub(crate) fn kinds(plant: &Plant, node: &str) -> anyhow::Result<Vec<String>> {
    let events = plant.lab.cloud.events(&["--node", node])?;
    Ok(events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .filter(|kind| kind.starts_with("app."))
        .map(str::to_owned)
        .collect())
}
