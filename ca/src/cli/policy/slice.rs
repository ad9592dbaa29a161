//! `edgeward policy slice`.

use std::path::PathBuf;

use clap::Args;
use edgeward_identity::{Kind, SpiffeId, Tier, Timestamp, TrustDomain};
use edgeward_policy::slice::{Egress, Row, Sources};
use edgeward_policy::{Effect, Fleet, FleetNode, Slice};
use edgeward_runtime::screen::Table;

use super::explain::tier;
use super::whole::{self, label_map, labels};
use crate::cli::{Failure, Session};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward policy slice --node gw-3 policies/                                    among the nodes that the cloud knows
  edgeward policy slice --node gw-3 --labels site=suzhou,role=gateway policies/  alone; needs no cloud
  edgeward policy slice --node gw-3 -o json                                      of the policy in force, whole

The cloud's own slices end some time after they are made and carry approvals; one that is printed here never ends and
carries none. Exit codes: 0 printed, 1 the policy is not sound or there is no such node, 2 wrong usage.";

/// `edgeward policy slice`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The policy's directory; the policy in force if absent
    dir: Option<PathBuf>,
    /// Whose slice
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Its labels: then it is cut as if there were no other node; the cloud's fleet if absent
    #[arg(long, value_delimiter = ',', value_parser = labels, value_name = "KEY=VALUE,...")]
    labels: Vec<(String, String)>,
    /// With --labels: how its identity is rooted
    #[arg(long, default_value = "hardware", value_parser = tier, requires = "labels")]
    tier: Tier,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let fleet = match arguments.labels.is_empty() {
        true => whole::fleet(session, &session.client()?).await?,
        false => alone(arguments)?,
    };
    let policy = match &arguments.dir {
        Some(dir) => whole::of_directory(session, dir)?,
        None => whole::in_force(session, &session.client()?).await?,
    };
    let named = fleet
        .nodes
        .iter()
        .find(|node| node.id.name() == arguments.node);
    let node = named.ok_or_else(|| {
        let text = format!(
            "no active node of that name: {}; give its --labels",
            arguments.node
        );
        Failure::NoAnswer(text)
    })?;
    let slice = policy
        .slice(&node.id, &fleet, Timestamp::from_millis(u64::MAX))
        .map_err(|error| Failure::NoAnswer(error.to_string()))?;
    session.screen.tabulate(&slice, rows);
    if !session.wants_json() {
        session.screen.note(&format!(
            "{} interfaces, {} peers, {} operators, {} devices, {} interfaces of others to reach",
            slice.interfaces.len(),
            slice.peers.len(),
            slice.operators.len(),
            slice.devices.len(),
            slice.egress.len()
        ));
    }
    Ok(())
}

fn alone(arguments: &Arguments) -> Result<Fleet, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::Usage(format!("--node: {error}"));
    let domain = TrustDomain::new("offline.invalid").map_err(|error| bad(&error))?;
    let id = SpiffeId::new(&domain, Kind::Node, &arguments.node).map_err(|error| bad(&error))?;
    Ok(Fleet {
        nodes: vec![FleetNode {
            id,
            labels: label_map(&arguments.labels),
            tier: arguments.tier,
            v4: None,
        }],
    })
}

fn rows(slice: &Slice) -> Table {
    let mut table = Table::new(&["INTERFACE", "NET", "L4", "RULE", "EFFECT", "FROM", "DO"]);
    for interface in &slice.interfaces {
        let name = format!("{}/{}", interface.service, interface.name);
        let l4 = format!("{}/{}", interface.proto.as_str(), interface.port);
        let names = interface.actions();
        for row in &interface.rows {
            let actions: Vec<&str> = row
                .actions
                .iter()
                .filter_map(|action| names.get(usize::from(action.0)).copied())
                .collect();
            let effect = match row.effect {
                Effect::Allow => "allow",
                Effect::Deny => "deny",
            };
            table.row([
                name.clone(),
                interface.net.clone(),
                l4.clone(),
                row.rule.to_string(),
                effect.to_owned(),
                sources(slice, row),
                actions.join(","),
            ]);
        }
    }
    for egress in &slice.egress {
        let peer = slice.peers.get(egress.peer.0 as usize);
        for row in &egress.rows {
            table.row([
                format!("{}/{}", egress.service, egress.interface),
                peer.map_or("-".to_owned(), |peer| format!("out to {}", peer.id.name())),
                format!("{}/{}", egress.proto.as_str(), egress.port),
                row.rule.to_string(),
                "allow".to_owned(),
                who_goes(slice, egress),
                "-".to_owned(),
            ]);
        }
    }
    table
}

fn who_goes(slice: &Slice, egress: &Egress) -> String {
    let devices = egress.devices.iter();
    let devices = devices.filter_map(|index| slice.devices.get(index.0 as usize));
    let names: Vec<String> = devices
        .map(|known| format!("device/{}", known.id.name()))
        .collect();
    match names.is_empty() {
        true => "this node".to_owned(),
        false => names.join(","),
    }
}

fn sources(slice: &Slice, row: &Row) -> String {
    match &row.from {
        Sources::Any => "any".to_owned(),
        Sources::Groups(groups) => {
            let names: Vec<&str> = groups
                .iter()
                .filter_map(|group| slice.groups.get(group.0 as usize))
                .map(String::as_str)
                .collect();
            names.join(",")
        }
    }
}
