//! `edgeward app nodes`: where an app is, by what nodes say.

use edgeward_apps::AppName;
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::super::progress::watch;
use super::super::screen::or_dash;
use super::super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{NodeAppView, NodeView};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app nodes acme/collector
  edgeward app nodes acme/collector -o json | jq -r '.[] | select(.state == \"refused\") | .node'

It is what nodes say, and shows who has no such app only by leaving it out. What is proven of it is in attestation
results: edgeward node result NODE --decode, edgeward.runs.";

/// The app on one node.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    /// How the node controls what is started: launcher, fanotify, kernel.
    control: Option<String>,
    #[serde(flatten)]
    app: NodeAppView,
}

pub(super) async fn run(session: &Session, name: &AppName) -> Result<(), Failure> {
    let client = session.client()?;
    let nodes: Items<NodeView> = watch(
        &session.screen,
        "asking for nodes",
        client.get("/api/v1/nodes"),
    )
    .await?;
    let rows = rows(nodes.items, &name.to_string());
    session.screen.tabulate(&rows, |rows| {
        let mut table = Table::new(&["NODE", "VERSION", "STATE", "CODE", "FETCHED", "CONTROL"]);
        for row in rows {
            let app = &row.app;
            let fetched = match app.wanted {
                0 => "-".to_owned(),
                wanted => format!("{} of {wanted}", app.fetched),
            };
            table.row([
                row.node.clone(),
                or_dash(app.version.clone()),
                app.state.clone(),
                or_dash(app.code.clone()),
                fetched,
                or_dash(row.control.clone().filter(|level| !level.is_empty())),
            ]);
        }
        table
    });
    Ok(())
}

fn rows(nodes: Vec<NodeView>, name: &str) -> Vec<Row> {
    let of = |node: NodeView| {
        let app = node.apps.into_iter().find(|app| app.app == name)?;
        Some(Row {
            node: node.name,
            control: node.app_control,
            app,
        })
    };
    nodes.into_iter().filter_map(of).collect()
}
