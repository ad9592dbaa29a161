//! `edgeward audit self-check`.

use std::time::Duration;

use edgeward_runtime::screen::Table;
use serde_json::json;

use crate::api::views::{SelfCheckAsked, SelfCheckView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

const PATH: &str = "/api/v1/audit/log/self-check";
/// How often the cloud is asked whether it is done.
const ASK: Duration = Duration::from_millis(500);

/// Waits for the check, however long the log is. A log that is not what was signed is a failure.
pub(super) async fn run(session: &Session, client: &Client) -> Result<(), Failure> {
    let asked: SelfCheckAsked = client.post(PATH, &json!({})).await?;
    let done = watch(&session.screen, "checking the log", wait(client, &asked)).await?;
    session.screen.tabulate(&done, table);
    match done.fault {
        None => Ok(()),
        Some(_) => Err(Failure::Quiet),
    }
}

async fn wait(client: &Client, asked: &SelfCheckAsked) -> Result<SelfCheckView, Failure> {
    loop {
        match client.get::<SelfCheckView>(PATH).await {
            Ok(view) if view.answers >= asked.request => return Ok(view),
            Err(Failure::Refused(problem)) if problem.code != "not_checked" => {
                return Err(Failure::Refused(problem));
            }
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(ASK).await;
    }
}

fn table(view: &SelfCheckView) -> Table {
    let mut table = Table::new(&["EVENTS", "CHECKPOINTS", "TOOK", "RESULT"]);
    table.row([
        view.size.to_string(),
        view.checkpoints.to_string(),
        format!("{} ms", view.took_ms),
        view.fault
            .clone()
            .unwrap_or_else(|| "as it was signed".to_owned()),
    ]);
    table
}
