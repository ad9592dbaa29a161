//! `edgeward audit exports`.

use edgeward_runtime::screen::Table;

use crate::api::Items;
use crate::api::exports::{ExportView, RefusedView};
use crate::cli::client::{Client, encode};
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};

pub(super) async fn list(session: &Session, client: &Client) -> Result<(), Failure> {
    let asked = client.get("/api/v1/audit/exports");
    let exports: Items<ExportView> =
        watch(&session.screen, "asking for the exports", asked).await?;
    session.screen.tabulate(&exports.items, |exports| {
        let mut table = Table::new(&[
            "NAME", "FORMAT", "TO", "STATE", "BEHIND", "SENT", "REFUSED", "WHY",
        ]);
        for export in exports {
            table.row([
                export.name.clone(),
                or_dash(export.format.clone()),
                or_dash(export.to.clone()),
                export.state.clone(),
                export.behind.to_string(),
                export.sent.to_string(),
                export.refused.to_string(),
                or_dash(export.error.clone()),
            ]);
        }
        table
    });
    Ok(())
}

pub(super) async fn refused(session: &Session, client: &Client, name: &str) -> Result<(), Failure> {
    let path = format!("/api/v1/audit/exports/{}/refused", encode(name));
    let asked = client.get(&path);
    let refused: Items<RefusedView> =
        watch(&session.screen, "asking for what was refused", asked).await?;
    session.screen.tabulate(&refused.items, |refused| {
        let mut table = Table::new(&["INDEX", "EVENTS", "NOTICED", "WHY"]);
        for row in refused {
            let index = match row.first == row.last {
                true => row.first.to_string(),
                false => format!("{}-{}", row.first, row.last),
            };
            table.row([
                index,
                row.count.to_string(),
                row.noticed.to_string(),
                row.reason.clone(),
            ]);
        }
        table
    });
    Ok(())
}
