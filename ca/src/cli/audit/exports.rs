//! `edgeward audit exports`.

use clap::{Args, Subcommand};
use edgeward_runtime::screen::Table;

use crate::api::Items;
use crate::api::exports::{ExportView, RefusedView, RetryRequest, RetryView};
use crate::cli::client::{Client, encode};
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};

/// `edgeward audit exports`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Show what this export's receiver refused
    name: Option<String>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have what a receiver refused given to it once more
    Retry {
        name: String,
        /// Only what was put aside with this event
        #[arg(long)]
        index: Option<u64>,
    },
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let client = session.client()?;
    match (&arguments.action, &arguments.name) {
        (Some(Action::Retry { name, index }), _) => retry(session, &client, name, *index).await,
        (None, Some(name)) => refused(session, &client, name).await,
        (None, None) => list(session, &client).await,
    }
}

async fn list(session: &Session, client: &Client) -> Result<(), Failure> {
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

async fn refused(session: &Session, client: &Client, name: &str) -> Result<(), Failure> {
    let path = format!("/api/v1/audit/exports/{}/refused", encode(name));
    let asked = client.get(&path);
    let refused: Items<RefusedView> =
        watch(&session.screen, "asking for what was refused", asked).await?;
    session.screen.tabulate(&refused.items, |refused| {
        let mut table = Table::new(&["INDEX", "EVENTS", "NOTICED", "AGAIN", "WHY"]);
        for row in refused {
            let index = match row.first == row.last {
                true => row.first.to_string(),
                false => format!("{}-{}", row.first, row.last),
            };
            table.row([
                index,
                row.count.to_string(),
                row.noticed.to_string(),
                or_dash(row.retry.as_ref().map(|_| "waits".to_owned())),
                row.reason.clone(),
            ]);
        }
        table
    });
    Ok(())
}

async fn retry(
    session: &Session,
    client: &Client,
    name: &str,
    index: Option<u64>,
) -> Result<(), Failure> {
    let path = format!("/api/v1/audit/exports/{}/retry", encode(name));
    let asked: RetryView = client.post(&path, &RetryRequest { index }).await?;
    session.screen.note(&format!(
        "{} of what {name} refused will be given to it again",
        asked.count
    ));
    Ok(())
}
