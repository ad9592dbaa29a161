//! What the running agent says: `status` and `explain`.

use clap::Args;
use edgeward_identity::{Kind, SpiffeId};

use super::{Failure, Session};
use crate::status::{Asked, ask, check};

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  edgeward-agent explain gw-3 line/status                        by a node's name
  edgeward-agent explain spiffe://plant.example/node/a line/status
  edgeward-agent explain device/plc-17 line3/modbus --do read
  edgeward-agent explain operator/li line3/admin --l7 'GET /status/3' --through gw-3

Each rule of the interface follows with every dimension: what was found, what was wanted, and MISS where that differs.
It needs the agent, not the cloud. Exit code 0: allowed, at every node that offers the interface; 1: not.";

/// `edgeward-agent explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Who wants to reach it: a SPIFFE ID, a node's name, device/NAME or operator/NAME
    pub from: String,
    /// What: service/interface
    pub to: String,
    #[command(flatten)]
    pub what: What,
}

/// What is to be done there.
#[derive(Clone, Debug, Default, Args)]
pub struct What {
    /// One of its actions; if absent, whether a connection may be opened at all
    #[arg(long = "do", value_name = "ACTION")]
    pub action: Option<String>,
    /// One request of its protocol: 'GET /status/3', 'publish line3/a/temp', 'fc:3 addr:10'
    #[arg(long, value_name = "REQUEST")]
    pub l7: Option<String>,
    /// Of an operator: the node that it connects from
    #[arg(long, value_name = "NODE")]
    pub through: Option<String>,
}

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let status = ask(&session.config.enforce.status_socket).await?;
    session.screen.answer(&status, ToString::to_string);
    Ok(())
}

pub(super) async fn explain(session: &Session, arguments: &ExplainArgs) -> Result<(), Failure> {
    let socket = &session.config.enforce.status_socket;
    let through = arguments.what.through.as_deref();
    let asked = Asked {
        from: identity(session, &arguments.from).await?,
        to: arguments.to.clone(),
        action: arguments.what.action.clone(),
        request: arguments.what.l7.clone(),
        through: match through {
            None => None,
            Some(node) => Some(identity(session, node).await?),
        },
    };
    let checked = check(socket, asked).await?;
    session.screen.answer(&checked, |checked| {
        let lines: Vec<String> = checked.iter().map(ToString::to_string).collect();
        lines.join("\n")
    });
    match !checked.is_empty() && checked.iter().all(|checked| checked.allow) {
        true => Ok(()),
        false => Err(Failure::Quiet),
    }
}

/// A SPIFFE ID, or a name of this node's trust domain.
async fn identity(session: &Session, text: &str) -> Result<SpiffeId, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::Usage(format!("{text}: {error}"));
    if text.starts_with("spiffe://") {
        return text.parse().map_err(|error| bad(&error));
    }
    let (kind, name) = match text.split_once('/') {
        None | Some(("node", _)) => (Kind::Node, text.strip_prefix("node/").unwrap_or(text)),
        Some(("device", name)) => (Kind::Device, name),
        Some(("operator", name)) => (Kind::Operator, name),
        Some(_) => {
            return Err(bad(
                &"a node's name, device/NAME, operator/NAME or a SPIFFE ID",
            ));
        }
    };
    let own = ask(&session.config.enforce.status_socket).await?.node;
    SpiffeId::new(own.trust_domain(), kind, name).map_err(|error| bad(&error))
}
