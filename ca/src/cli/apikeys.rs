//! `edgeward apikey`.

use clap::Subcommand;
use edgeward_runtime::screen::Table;

use super::client::encode;
use super::operators::status_word;
use super::progress::watch;
use super::{Failure, Session};
use crate::access::Role;
use crate::api::Items;
use crate::api::views::{ApiKeyCreated, ApiKeyRequest, ApiKeyView};

const PATH: &str = "/api/v1/apikeys";

/// `edgeward apikey`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key and print it; it is shown this once
    #[command(after_help = "\
Examples:
  edgeward apikey create grafana --role auditor > grafana.key
  edgeward --api-key-file grafana.key audit query --from -1h
  curl --cacert root.pem -H \"Authorization: Bearer $(cat grafana.key)\" https://cloud:7443/api/v1/nodes

A policy is applied with an operator's certificate only: it is signed.")]
    Create {
        /// What audit events call it; a name is never used twice
        name: String,
        /// What the key may do
        #[arg(long, value_enum)]
        role: Role,
        /// How long it holds, as in 90d (the default); at most a year
        #[arg(long)]
        ttl: Option<String>,
    },
    /// List keys, revoked ones too
    List,
    /// Revoke a key: refused from the next request on
    Revoke { name: String },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Create { name, role, ttl } => {
            let request = ApiKeyRequest { name, role, ttl };
            let created: ApiKeyCreated = watch(
                &session.screen,
                "creating a key",
                client.post(PATH, &request),
            )
            .await?;
            if session.wants_json() {
                session.screen.json(&created);
            } else {
                session.screen.line(&created.key);
                session.screen.note(&format!(
                    "API key {} is {} until {}; it is not shown again",
                    created.name, created.role, created.expires
                ));
            }
        }
        Command::List => {
            let list: Items<ApiKeyView> =
                watch(&session.screen, "listing keys", client.get(PATH)).await?;
            session.screen.tabulate(&list.items, |keys| table(keys));
        }
        Command::Revoke { name } => {
            let path = format!("{PATH}/{}", encode(&name));
            watch(&session.screen, "revoking the key", client.delete(&path)).await?;
            session.screen.note(&format!("API key {name} is revoked"));
        }
    }
    Ok(())
}

fn table(keys: &[ApiKeyView]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "STATUS", "EXPIRES", "CREATED", "BY"]);
    for key in keys {
        table.row([
            key.name.clone(),
            key.role.to_string(),
            status_word(key.status),
            key.expires.to_string(),
            key.created.to_string(),
            key.created_by.clone(),
        ]);
    }
    table
}
