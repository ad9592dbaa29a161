//! What the running agent says: `status` and `explain`.

use clap::Args;
use edgeward_identity::{Kind, SpiffeId};

use super::{Failure, Session};
use crate::status::{ask, check};

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  edgeward-agent explain gw-3 line/status                        by a node's name
  edgeward-agent explain spiffe://plant.example/node/a line/status

Exit code 0: allowed, at every node that offers the interface; 1: not.";

/// `edgeward-agent explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Who wants to reach it: a SPIFFE ID, or a node's name
    pub from: String,
    /// What: service/interface
    pub to: String,
}

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let status = ask(&session.config.enforce.status_socket).await?;
    session.screen.answer(&status, ToString::to_string);
    Ok(())
}

pub(super) async fn explain(session: &Session, arguments: &ExplainArgs) -> Result<(), Failure> {
    let socket = &session.config.enforce.status_socket;
    let from = match arguments.from.starts_with("spiffe://") {
        true => arguments.from.parse(),
        false => {
            let own = ask(socket).await?.node;
            SpiffeId::new(own.trust_domain(), Kind::Node, &arguments.from)
        }
    }
    .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.from)))?;
    let checked = check(socket, from, arguments.to.clone()).await?;
    session.screen.answer(&checked, |checked| {
        let lines: Vec<String> = checked.iter().map(ToString::to_string).collect();
        lines.join("\n")
    });
    match !checked.is_empty() && checked.iter().all(|checked| checked.allow) {
        true => Ok(()),
        false => Err(Failure::Quiet),
    }
}
