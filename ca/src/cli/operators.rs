//! `edgeward operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edgeward_identity::{Kind, Signer, SoftwareKey, SpiffeId};
use edgeward_runtime::screen::Table;

use super::client::{Client, encode};
use super::context::{self, NewContext};
use super::progress::watch;
use super::{Failure, Session};
use crate::access::Role;
use crate::api::Items;
use crate::api::views::{CredentialStatus, OperatorIssued, OperatorRequest, OperatorView};

const PATH: &str = "/api/v1/operators";

/// `edgeward operator`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an operator: makes a key here, gets a certificate for it, writes both as a context folder
    #[command(after_help = "\
Examples:
  edgeward operator add li --role operator              writes ./li-edgeward; hand it over safely
  edgeward operator add ci --role auditor --ttl 30d --out /root/ci
  edgeward operator add li --role operator --renew      a new key; the old certificate is refused from then on

Li then runs: edgeward context add ./li-edgeward")]
    Add(Add),
    /// List operators, revoked ones too
    List,
    /// Revoke an operator: refused from the next request on
    Revoke { name: String },
}

/// `edgeward operator add`.
#[derive(Debug, Args)]
pub struct Add {
    /// spiffe://<trust domain>/operator/<NAME>; a name is never used twice
    name: String,
    /// What the operator may do
    #[arg(long, value_enum)]
    role: Role,
    /// Lifetime of the certificate, as in 90d (the default); at most a year
    #[arg(long)]
    ttl: Option<String>,
    /// Give an operator that exists a new key and certificate
    #[arg(long)]
    renew: bool,
    /// Where to write the context; ./<NAME>-edgeward if absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Add(add) => self::add(session, &client, add).await,
        Command::List => {
            let list: Items<OperatorView> =
                watch(&session.screen, "listing operators", client.get(PATH)).await?;
            session
                .screen
                .tabulate(&list.items, |operators| table(operators));
            Ok(())
        }
        Command::Revoke { name } => {
            let path = format!("{PATH}/{}", encode(&name));
            watch(
                &session.screen,
                "revoking the operator",
                client.delete(&path),
            )
            .await?;
            session.screen.note(&format!("operator {name} is revoked"));
            Ok(())
        }
    }
}

async fn add(session: &Session, client: &Client, add: Add) -> Result<(), Failure> {
    let domain = client.trust_domain().clone();
    SpiffeId::new(&domain, Kind::Operator, &add.name)
        .map_err(|error| Failure::Usage(format!("operator's name: {error}")))?;
    let folder = add
        .out
        .unwrap_or_else(|| PathBuf::from(format!("{}-edgeward", add.name)));
    if folder.exists() && !add.renew {
        return Err(Failure::Usage(format!(
            "{} exists: choose another folder with --out",
            folder.display()
        )));
    }
    let key = SoftwareKey::generate()?;
    let request = OperatorRequest {
        public_key: hex::encode(key.public_key().point()),
        proof: hex::encode(key.sign(&OperatorRequest::message(&domain, &add.name))?),
        name: add.name,
        role: add.role,
        ttl: add.ttl,
        renew: add.renew,
    };
    let issued: OperatorIssued = watch(
        &session.screen,
        "adding the operator",
        client.post(PATH, &request),
    )
    .await?;
    let bundle =
        serde_json::to_vec(&issued.bundle).map_err(|error| Failure::Answer(error.to_string()))?;
    let new = NewContext {
        addresses: &issued.addresses,
        trust_domain: &domain,
        bundle: &bundle,
        certificates: &issued.certificates,
        key: &key,
    };
    context::write(&folder, &new)?;
    if session.wants_json() {
        session.screen.json(&issued);
    } else {
        session.screen.line(&folder.display().to_string());
        session.screen.note(&format!(
            "{} is {} until {}; the folder holds its private key",
            issued.spiffe_id, issued.role, issued.expires
        ));
    }
    Ok(())
}

pub(super) fn status_word(status: CredentialStatus) -> String {
    match status {
        CredentialStatus::Active => "active",
        CredentialStatus::Expired => "expired",
        CredentialStatus::Revoked => "revoked",
    }
    .to_owned()
}

fn table(operators: &[OperatorView]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "STATUS", "EXPIRES", "ADDED", "BY"]);
    for operator in operators {
        table.row([
            operator.name.clone(),
            operator.role.to_string(),
            status_word(operator.status),
            operator.expires.to_string(),
            operator.added.to_string(),
            operator.added_by.clone(),
        ]);
    }
    table
}
