//! `edgeward token`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use edgeward_runtime::screen::Table;

use super::client::encode;
use super::progress::watch;
use super::screen::{or_dash, pairs};
use super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{TokenCreated, TokenRequest, TokenStatus, TokenView};

const PATH: &str = "/api/v1/tokens";

/// `edgeward token`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and print it; it is shown this once
    #[command(after_help = "\
Examples:
  edgeward token create --name gw-3 --label role=gateway --label site=suzhou --ttl 1h
  edgeward token create --name 'shop-*' --uses 500 --ttl 7d --approval
  ssh gw-3 edgeward-agent enrol --token \"$(edgeward token create --name gw-3)\"")]
    Create(Create),
    /// List tokens, newest first
    List,
    /// Revoke a token; nodes that enrolled with it stay
    Revoke {
        /// Its id, as list shows it
        id: String,
    },
}

/// `edgeward token create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The node's name, or a pattern with one `*`; absent: the machine chooses
    #[arg(long)]
    name: Option<String>,
    /// A label of the node; policies select by labels. May be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long it may be used, as in 30m, 24h, 7d; the cloud's default if absent
    #[arg(long)]
    ttl: Option<String>,
    /// How many machines may use it; the cloud's default if absent
    #[arg(long)]
    uses: Option<u32>,
    /// Only the machine whose EK public key has this SHA-256 may use it
    #[arg(long, value_name = "SHA-256")]
    ek: Option<String>,
    /// Nodes wait for `edgeward node approve`
    #[arg(long, conflicts_with = "no_approval")]
    approval: bool,
    /// Nodes do not wait, even if the cloud's default says so
    #[arg(long)]
    no_approval: bool,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Create(create) => {
            let request = request(create);
            let created: TokenCreated = watch(
                &session.screen,
                "creating a token",
                client.post(PATH, &request),
            )
            .await?;
            if session.wants_json() {
                session.screen.json(&created);
            } else {
                session.screen.line(&created.token);
                session.screen.note(&format!(
                    "token {} for {} machine(s) until {}; it is not shown again",
                    created.id, created.uses, created.expires
                ));
            }
        }
        Command::List => {
            let list: Items<TokenView> =
                watch(&session.screen, "listing tokens", client.get(PATH)).await?;
            session.screen.tabulate(&list.items, |tokens| table(tokens));
        }
        Command::Revoke { id } => {
            let path = format!("{PATH}/{}", encode(&id));
            watch(&session.screen, "revoking the token", client.delete(&path)).await?;
            session.screen.note(&format!("token {id} is revoked"));
        }
    }
    Ok(())
}

fn request(create: Create) -> TokenRequest {
    let approval = match (create.approval, create.no_approval) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        (false, false) => None,
    };
    TokenRequest {
        ttl: create.ttl,
        uses: create.uses,
        labels: create.labels.into_iter().collect::<BTreeMap<_, _>>(),
        name: create.name,
        ek: create.ek,
        approval,
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("not KEY=VALUE".to_owned()),
    }
}

fn table(tokens: &[TokenView]) -> Table {
    let mut table = Table::new(&["ID", "STATUS", "USED", "NAME", "EXPIRES", "LABELS", "BY"]);
    for token in tokens {
        let status = match token.status {
            TokenStatus::Usable => "usable",
            TokenStatus::Used => "used",
            TokenStatus::Expired => "expired",
            TokenStatus::Revoked => "revoked",
        };
        table.row([
            token.id.clone(),
            status.to_owned(),
            format!("{}/{}", token.used, token.uses),
            or_dash(token.name.clone()),
            token.expires.to_string(),
            pairs(&token.labels),
            token.created_by.clone(),
        ]);
    }
    table
}
