//! `edgeward audit witness`.

use clap::Subcommand;
use edgeward_runtime::screen::Table;
use serde_json::json;

use crate::api::witness::WitnessView;
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};

const PATH: &str = "/api/v1/audit/witness";

/// `edgeward audit witness`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the witnesses of the log have cosigned, and what this cloud has cosigned for others
    Status,
    /// Print the key with which this cloud cosigns logs of others: give it to those who rely on that
    Key,
    /// Print the key that signs this cloud's own log: give it to those who are to witness it
    LogKey,
}

pub(super) async fn run(session: &Session, command: &Command) -> Result<(), Failure> {
    let client = session.client()?;
    let asked = client.get(PATH);
    let view: WitnessView = watch(&session.screen, "asking for witnesses", asked).await?;
    match command {
        Command::Status => session.screen.tabulate(&view, table),
        Command::LogKey => {
            let answer = json!({ "log_key": view.log_key });
            session.screen.answer(&answer, |_| view.log_key.clone());
        }
        Command::Key => {
            let key = view.key.ok_or_else(|| {
                let why = "this cloud witnesses no log of others ([[witness.log]] names them)";
                Failure::NoAnswer(why.to_owned())
            })?;
            session.screen.answer(
                &json!({ "key": key, "submissions": view.submissions }),
                |_| key.clone(),
            );
        }
    }
    Ok(())
}

fn table(view: &WitnessView) -> Table {
    let mut table = Table::new(&["SIDE", "NAME", "STATE", "SIZE", "COSIGNED", "BEHIND", "WHY"]);
    for asked in &view.asked {
        let name = asked.key.split('+').next().unwrap_or_default();
        table.row([
            "witness".to_owned(),
            name.to_owned(),
            asked.state.clone(),
            or_dash(asked.size.map(|size| size.to_string())),
            or_dash(asked.cosigned.as_ref().map(ToString::to_string)),
            asked.behind.to_string(),
            or_dash(asked.error.clone()),
        ]);
    }
    for log in &view.logs {
        let (state, why) = match (&log.forked, &view.stopped, log.size) {
            (Some(time), ..) => ("forked", format!("signed twice, noticed {time}")),
            (None, Some(code), _) => ("stopped", code.clone()),
            (None, None, Some(_)) => ("cosigned", "-".to_owned()),
            (None, None, None) => ("waiting", "-".to_owned()),
        };
        table.row([
            "log".to_owned(),
            log.origin.clone(),
            state.to_owned(),
            or_dash(log.size.map(|size| size.to_string())),
            or_dash(log.cosigned.as_ref().map(ToString::to_string)),
            "-".to_owned(),
            why,
        ]);
    }
    table
}
