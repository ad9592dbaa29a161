//! `edgeward break-glass`: grants in envelopes, for the day the cloud is gone.

use std::path::PathBuf;

use clap::Subcommand;
use edgeward_runtime::screen::Table;

use super::progress::watch;
use super::screen::or_dash;
use super::{Failure, Session};
use crate::api::Items;
use crate::api::views::GlassView;

mod approve;
mod file;
mod issue;

const PATH: &str = "/api/v1/break-glass";

/// `edgeward break-glass`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign a grant for one node, seal it, and print the code that opens it, once
    #[command(after_help = "\
Examples:
  edgeward break-glass issue line3 --node gw-3 --out gw-3.glass
  edgeward break-glass issue line3 --node gw-3 --valid 30d --out gw-3.glass

Put the file on a stick and the code into an envelope, in different places. A flow between two nodes needs one for each:
what is opened on one side opens nothing on the other.")]
    Issue(issue::Issue),
    /// List grants, and what became of them
    List,
    /// Revoke a grant: connected nodes hear of it within a second
    Revoke {
        /// Its number
        number: u64,
    },
    /// Say that you have seen that a grant was opened: status is quiet about it again
    Acknowledge {
        /// Its number
        number: u64,
    },
    /// Let a sealed grant be opened: offline, with your key
    #[command(after_help = "\
Examples:
  edgeward break-glass approve gw-3.glass               asks for the code; writes gw-3.glass.<you>.approval
  edgeward break-glass approve gw-3.glass --code-file code --out li.approval --yes

Needs no cloud: the grant is checked under the roots of your context. An approval counts for a day, for this grant only.
On the node: edgeward-agent break-glass open gw-3.glass --approval li.approval --approval wu.approval")]
    Approve(approve::Approve),
}

/// How the code of an envelope is given.
#[derive(Debug, clap::Args)]
pub(super) struct CodeArgs {
    /// The code of the envelope; shows in the list of processes
    #[arg(long)]
    code: Option<String>,
    /// A file with the code; asked for if neither is given
    #[arg(long, conflicts_with = "code", value_name = "FILE")]
    code_file: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Issue(issue) => issue::run(session, issue).await,
        Command::Approve(approve) => approve::run(session, &approve),
        Command::List => {
            let client = session.client()?;
            let list: Items<GlassView> =
                watch(&session.screen, "listing grants", client.get(PATH)).await?;
            session.screen.tabulate(&list.items, |grants| table(grants));
            Ok(())
        }
        Command::Revoke { number } => {
            let client = session.client()?;
            let path = format!("{PATH}/{number}");
            watch(&session.screen, "revoking the grant", client.delete(&path)).await?;
            let note = format!("grant {number} is revoked");
            session.screen.note(&note);
            Ok(())
        }
        Command::Acknowledge { number } => {
            let client = session.client()?;
            let path = format!("{PATH}/{number}/acknowledge");
            let (): () = watch(&session.screen, "acknowledging", client.post(&path, &())).await?;
            let note = format!("grant {number} is acknowledged");
            session.screen.note(&note);
            Ok(())
        }
    }
}

fn table(grants: &[GlassView]) -> Table {
    let mut table = Table::new(&[
        "NUMBER", "NAME", "NODE", "RULES", "QUORUM", "STATUS", "ENDS", "OPENED", "BY", "CLOSED",
    ]);
    for grant in grants {
        table.row([
            grant.number.to_string(),
            grant.name.clone(),
            grant.node.clone(),
            grant.rules.join(" "),
            format!("{} of {}", grant.quorum, grant.approvers.len()),
            grant.status.clone(),
            grant.ends.to_string(),
            or_dash(grant.opened),
            grant.opened_by.clone().unwrap_or_else(|| "-".to_owned()),
            or_dash(grant.closed),
        ]);
    }
    table
}
