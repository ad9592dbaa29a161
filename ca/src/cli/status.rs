//! `edgeward status` and `edgeward ek-roots`.

use std::collections::BTreeMap;

use clap::Subcommand;
use edgeward_runtime::screen::Table;

use super::progress::watch;
use super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{EkRootView, StatusView};

/// `edgeward ek-roots`.
#[derive(Debug, Subcommand)]
pub enum EkRootsCommand {
    /// List the roots and the tier that each proves
    List,
}

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let status: StatusView = watch(
        &session.screen,
        "asking the cloud",
        client.get("/api/v1/status"),
    )
    .await?;
    session.screen.tabulate(&status, table);
    Ok(())
}

pub(super) async fn ek_roots(session: &Session, command: &EkRootsCommand) -> Result<(), Failure> {
    let EkRootsCommand::List = command;
    let client = session.client()?;
    let list: Items<EkRootView> = watch(
        &session.screen,
        "listing roots",
        client.get("/api/v1/ek-roots"),
    )
    .await?;
    session.screen.tabulate(&list.items, |roots| {
        let mut table = Table::new(&["NAME", "TIER", "EXPIRES", "SHA-256"]);
        for root in roots {
            table.row([
                root.name.clone(),
                root.tier.clone(),
                root.expires.to_string(),
                root.fingerprint.clone(),
            ]);
        }
        table
    });
    Ok(())
}

fn table(status: &StatusView) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (field, value) in [
        ("trust domain", status.trust_domain.clone()),
        ("cloud", status.cloud.clone()),
        ("version", status.version.clone()),
        ("time", status.time.to_string()),
        ("root pin", status.root_pin.clone()),
        (
            "issuing certificate ends",
            status.issuing_expires.to_string(),
        ),
        ("nodes", counts(&status.nodes)),
        ("attestation", counts(&status.states)),
        ("sessions", status.sessions.to_string()),
        ("policy", status.policy.to_string()),
        ("deny-list", status.deny_list.to_string()),
        ("audit records", status.audit_records.to_string()),
    ] {
        table.row([field.to_owned(), value]);
    }
    table
}

fn counts(map: &BTreeMap<String, u64>) -> String {
    match map.is_empty() {
        true => "-".to_owned(),
        false => map
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}
