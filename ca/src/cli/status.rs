//! `edgeward status`.

use std::collections::BTreeMap;

use edgeward_runtime::screen::Table;

use super::progress::watch;
use super::{Failure, Session};
use crate::api::views::StatusView;

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
    for grant in &status.break_glass {
        table.row([
            "BREAK-GLASS".to_owned(),
            format!(
                "grant {} was opened on {} by {}: edgeward break-glass acknowledge {}",
                grant.number,
                grant.node,
                grant.opened_by.as_deref().unwrap_or("-"),
                grant.number
            ),
        ]);
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
