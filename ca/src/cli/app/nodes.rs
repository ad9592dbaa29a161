//! `edgeward app nodes`: where an app is, by what nodes say.

use std::collections::BTreeSet;

use edgeward_apps::AppName;
use edgeward_apps::advice::advice;
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::super::progress::watch;
use super::super::screen::or_dash;
use super::super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{NodeAppView, NodeView};
use crate::when::When;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app nodes acme/collector
  edgeward app nodes acme/collector -o json | jq -r '.[] | select(.state == \"refused\") | .node'

It is what nodes say, and shows who has no such app only by leaving it out. `unheard` is a node that was given the app
and has been away since the cloud was started: nobody knows what it runs. What is proven of it is in attestation
results: edgeward node result NODE --decode, edgeward.runs.";

/// The app on one node.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    /// How the node controls what is started: launcher, fanotify, kernel.
    control: Option<String>,
    /// When the node said so last; absent: not since the cloud was started.
    said: Option<When>,
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
        let mut table = Table::new(&[
            "NODE", "VERSION", "STATE", "CODE", "FETCHED", "CONTROL", "SAID",
        ]);
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
                or_dash(row.said.as_ref().map(ToString::to_string)),
            ]);
        }
        table
    });
    if rows.is_empty() {
        session.screen.note(&format!(
            "no node says anything of {name}: edgeward app list shows whether it is published; `install` in [apps.x] of the policy names it for a group"
        ));
    }
    if !session.wants_json() {
        notes(&rows)
            .iter()
            .for_each(|note| session.screen.note(note));
    }
    Ok(())
}

/// What to do about what nodes say, once for each code.
fn notes(rows: &[Row]) -> BTreeSet<String> {
    let codes = rows.iter().filter_map(|row| row.app.code.as_deref());
    let known = |code| Some(format!("{code}: {}", advice(code)?));
    codes.filter_map(known).collect()
}

fn rows(nodes: Vec<NodeView>, name: &str) -> Vec<Row> {
    let of = |node: NodeView| {
        let app = node.apps.into_iter().find(|app| app.app == name)?;
        Some(Row {
            node: node.name,
            control: node.app_control,
            said: node.apps_said,
            app,
        })
    };
    nodes.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str, code: Option<&str>) -> Row {
        let app = NodeAppView {
            app: "acme/collector".to_owned(),
            version: None,
            digest: None,
            state: "failed".to_owned(),
            code: code.map(str::to_owned),
            fetched: 0,
            wanted: 0,
        };
        Row {
            node: node.to_owned(),
            control: None,
            said: None,
            app,
        }
    }

    #[test]
    fn what_to_do_is_said_once_for_each_code_and_never_for_one_that_is_not_known() {
        let rows = [
            row("a", Some("apps-full")),
            row("b", Some("apps-full")),
            row("c", Some("guard-away")),
            row("d", Some("from-tomorrow")),
            row("e", None),
        ];
        let notes: Vec<String> = notes(&rows).into_iter().collect();
        let [full, guard] = notes.as_slice() else {
            panic!("{notes:?}");
        };
        assert!(full.starts_with("apps-full: Make room"), "{full}");
        assert!(guard.starts_with("guard-away: Start the guard"), "{guard}");
    }
}
