//! Orders about what runs: revoke a release everywhere, or lead an app one version back.

use clap::Args;
use edgeward_apps::{AppName, Digest};
use edgeward_runtime::screen::Table;

use super::super::client::encode;
use super::super::progress::watch;
use super::super::{Failure, Session};
use super::look::path_of;
use super::sign::Named;
use super::{APPS, release_name};
use crate::api::views::{AppRevoked, BackRequest, BackView, RevokeDigest, RevokeRequest};

pub(super) const REVOKE_EXAMPLES: &str = "\
Examples:
  edgeward app revoke acme/collector@2.3.1 --reason 'CVE-2026-1234'
  edgeward app revoke sha256:3fa8…  --reason 'stolen build'         a manifest, or a file in whichever app has it

Connected nodes have the word within a second: network identity goes first, then the processes are frozen and killed.
Nodes that are away act at first contact, or when the word that they have ends.";

pub(super) const BACK_EXAMPLES: &str = "\
Examples:
  edgeward app back acme/collector --group gateways --reason 'memory leak in 2.3.1'
  edgeward app back acme/collector --node gw-3 --reason 'only here'

To the version before, where policy still allows that one, and no further: nodes take no other way down.";

/// `edgeward app revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// A release, or the digest of a manifest or of a file
    #[arg(value_name = "NAME@VERSION|sha256:DIGEST")]
    what: String,
    /// For the record
    #[arg(long)]
    reason: String,
}

/// `edgeward app back`.
#[derive(Debug, Args)]
pub struct Back {
    /// The app
    name: AppName,
    /// On the nodes of this group of the policy
    #[arg(long, value_name = "NAME", required_unless_present = "node")]
    group: Option<String>,
    /// On this node
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    node: Option<String>,
    /// For the record
    #[arg(long)]
    reason: String,
}

pub(super) async fn revoke(session: &Session, arguments: &Revoke) -> Result<(), Failure> {
    let reason = arguments.reason.clone();
    let client = session.client()?;
    let revoked: AppRevoked = match arguments.what.strip_prefix("sha256:") {
        Some(digest) => {
            let digest: Digest = digest
                .parse()
                .map_err(|why| Failure::Usage(format!("{}: {why}", arguments.what)))?;
            let digest = digest.to_string();
            let (path, body) = (format!("{APPS}/revoke"), RevokeDigest { digest, reason });
            watch(&session.screen, "revoking", client.post(&path, &body)).await?
        }
        None => {
            let named: Named = arguments.what.parse().map_err(Failure::Usage)?;
            let (path, body) = (
                format!("{}/revoke", path_of(&named)),
                RevokeRequest { reason },
            );
            watch(&session.screen, "revoking", client.post(&path, &body)).await?
        }
    };
    session.screen.answer(&revoked, |revoked| {
        format!("sha256:{} runs nowhere any more", revoked.digest)
    });
    Ok(())
}

pub(super) async fn back(session: &Session, arguments: &Back) -> Result<(), Failure> {
    let name = &arguments.name;
    let publisher = encode(name.publisher().as_str());
    let path = format!("{APPS}/{publisher}/{}/back", encode(name.name()));
    let body = BackRequest {
        node: arguments.node.clone(),
        group: arguments.group.clone(),
        reason: arguments.reason.clone(),
    };
    let client = session.client()?;
    let went: BackView = watch(
        &session.screen,
        "ordering the way back",
        client.post(&path, &body),
    )
    .await?;
    session.screen.tabulate(&went, |went| {
        let mut table = Table::new(&["NODE", "FROM", "TO"]);
        for node in &went.nodes {
            let release = |version: &str| release_name(&name.to_string(), version);
            table.row([node.node.clone(), release(&node.from), release(&node.to)]);
        }
        table
    });
    Ok(())
}
