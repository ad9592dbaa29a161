//! Orders about what runs: revoke a release everywhere, or lead an app one version back.

use std::time::{Duration, Instant};

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

/// How often nodes are asked after.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Most nodes that are named.
const MAX_SHOWN: usize = 8;

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
    /// How many seconds to wait for connected nodes to say that it has ended there
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=3600))]
    wait: u16,
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
    let mut revoked: AppRevoked = match arguments.what.strip_prefix("sha256:") {
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
    let due = Instant::now() + Duration::from_secs(arguments.wait.into());
    let path = format!("{APPS}/revoked/{}", revoked.digest);
    while revoked.nodes.told > 0 && Instant::now() < due {
        tokio::time::sleep(ASK_EVERY).await;
        revoked = watch(
            &session.screen,
            "waiting for nodes to say that it has ended",
            client.get(&path),
        )
        .await?;
    }
    session.screen.answer(&revoked, told);
    Ok(())
}

/// What is known, and what is not.
fn told(revoked: &AppRevoked) -> String {
    let nodes = &revoked.nodes;
    let what = match revoked.app.is_empty() {
        true => format!("sha256:{}", revoked.digest),
        false => release_name(&revoked.app, &revoked.version),
    };
    let mut text = format!(
        "{what} is revoked; it has ended on {} of {} that had it",
        nodes.ended,
        count(nodes.ended + nodes.told + nodes.away)
    );
    let mut more = |number: u64, what: &str, names: &[String]| {
        if number > 0 {
            let most = names.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>();
            let dots = if number > most.len() as u64 {
                ", …"
            } else {
                ""
            };
            text.push_str(&format!(
                "\n{} {what}: {}{dots}",
                count(number),
                most.join(", ")
            ));
        }
    };
    more(
        nodes.told,
        "connected, and not said so yet",
        &nodes.waited_for,
    );
    more(
        nodes.away,
        "away: at first contact, or when the word that they have ends",
        &nodes.out_of_reach,
    );
    text
}

fn count(number: u64) -> String {
    match number {
        1 => "1 node".to_owned(),
        many => format!("{many} nodes"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::RevokedNodes;

    #[test]
    fn what_is_not_known_to_have_ended_is_said_to_be_so() {
        let mut revoked = AppRevoked {
            digest: "ab".repeat(32),
            app: "acme/x".to_owned(),
            version: "1.0".to_owned(),
            reason: "stolen".to_owned(),
            nodes: RevokedNodes {
                ended: 2,
                ..RevokedNodes::default()
            },
        };
        let all = "acme/x@1.0 is revoked; it has ended on 2 of 2 nodes that had it";
        assert_eq!(told(&revoked), all);
        revoked.nodes.told = 1;
        revoked.nodes.waited_for = vec!["gw-1".to_owned()];
        revoked.nodes.away = 9;
        revoked.nodes.out_of_reach = (0..9).map(|number| format!("s{number}")).collect();
        let text = told(&revoked);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("on 2 of 12 nodes that had it"), "{text}");
        assert_eq!(lines[1], "1 node connected, and not said so yet: gw-1");
        assert!(
            lines[2].starts_with("9 nodes away: ") && lines[2].ends_with("s6, s7, …"),
            "{text}"
        );
    }
}
