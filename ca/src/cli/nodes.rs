//! `edgeward node`.

use clap::Subcommand;
use edgeward_runtime::screen::Table;

use super::client::{Client, encode};
use super::progress::watch;
use super::screen::{or_dash, pairs};
use super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{NodeView, ReasonRequest, ReplacementRequest, TokenCreated};

mod show;

pub(super) use show::finding_lines;

const PATH: &str = "/api/v1/nodes";

/// `edgeward node`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List nodes: an operator's word (status) beside what their evidence says (state)
    #[command(after_help = "\
Examples:
  edgeward node list
  edgeward node list --state stale --label site=suzhou
  edgeward node list -o json")]
    List {
        /// Only nodes of this status: pending, active, quarantined
        #[arg(long)]
        status: Option<String>,
        /// Only nodes in this attestation state: trusted, stale, failed, none
        #[arg(long)]
        state: Option<String>,
        /// Only nodes with this label. May be repeated
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Show one node: how it stands and why, which measurement, what was expected, what to do
    #[command(after_help = "\
Examples:
  edgeward node show gw-3
  edgeward node show gw-3 -o json
  edgeward profile diff gw-3                                     what changed since its last pass, event by event")]
    Show { name: String },
    /// Print a node's newest attestation result: a signed token (EAR) that anybody can verify
    #[command(after_help = "\
The keys that sign results are public: GET /api/v1/results/keys. How to verify one elsewhere: docs/attestation-results.md.

Examples:
  edgeward node result gw-3
  edgeward node result gw-3 --decode                             its claims, once its signature was verified
  edgeward node result gw-3 -o json")]
    Result {
        name: String,
        /// Verify it and print its claims as JSON
        #[arg(long)]
        decode: bool,
    },
    /// Let nodes in that wait for approval: new ones, and ones whose automatic recoveries are used up
    Approve {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Cut nodes off at once: every connected peer drops them, their keys go on the deny-list
    #[command(after_help = "\
Examples:
  edgeward node quarantine gw-3 --reason 'port scan from line 3'
  edgeward node release gw-3                                     back after fresh evidence")]
    Quarantine {
        #[arg(required = true)]
        names: Vec<String>,
        /// For the audit log
        #[arg(long)]
        reason: Option<String>,
    },
    /// Release nodes from quarantine; they have rights again after fresh evidence
    #[command(after_help = "\
A node that is quarantined for `join_behind` has two holders: somebody copied it. Find and switch off the copy first;
whichever comes first after the release is taken for the node, and another one is locked again.

Examples:
  edgeward node release gw-3")]
    Release {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make a token with which another TPM takes over a node's name, address and labels
    #[command(
        name = "replace-tpm",
        after_help = "\
For a machine whose TPM or board was replaced. The token is good for one other TPM and for this name only; the old one's
keys are denied once the new one has enrolled. A TPM that was only cleared needs none of this: its node comes back by itself.

Examples:
  edgeward node replace-tpm gw-3                     then, on the machine: edgeward-agent enrol --force
  edgeward node replace-tpm gw-3 --tier virtual      where the new TPM may be a lesser one, say so
  edgeward node replace-tpm gw-3 --ttl 1h -o json"
    )]
    ReplaceTpm {
        name: String,
        /// The lowest tier that the new TPM may have: hardware, listed, virtual; the node's present one if absent
        #[arg(long)]
        tier: Option<String>,
        /// How long the token may be used, as in 30m, 24h; the cloud's default if absent
        #[arg(long)]
        ttl: Option<String>,
    },
    /// Remove nodes for good; their machines may enrol again with a new token
    Remove {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::List {
            status,
            state,
            labels,
        } => {
            let mut list: Items<NodeView> =
                watch(&session.screen, "listing nodes", client.get(PATH)).await?;
            list.items.retain(|node| {
                status.as_ref().is_none_or(|wanted| node.status == *wanted)
                    && state.as_ref().is_none_or(|wanted| node.state == *wanted)
                    && labels.iter().all(|label| has_label(node, label))
            });
            session.screen.tabulate(&list.items, |nodes| table(nodes));
            Ok(())
        }
        Command::Show { name } => {
            let path = format!("{PATH}/{}", encode(&name));
            let node: NodeView =
                watch(&session.screen, "asking for the node", client.get(&path)).await?;
            match session.wants_json() {
                true => session.screen.json(&node),
                false => show::explain(&session.screen, &node),
            }
            Ok(())
        }
        Command::Result { name, decode } => super::results::show(session, &name, decode).await,
        Command::Approve { names } => each(session, &client, &names, "approve", None).await,
        Command::Quarantine { names, reason } => {
            each(session, &client, &names, "quarantine", reason).await
        }
        Command::Release { names } => each(session, &client, &names, "release", None).await,
        Command::ReplaceTpm { name, tier, ttl } => {
            let request = ReplacementRequest { tier, ttl };
            replace_tpm(session, &client, &name, &request).await
        }
        Command::Remove { names } => remove(session, &client, &names).await,
    }
}

/// Acts on every node, also after one was refused; fails if one was.
async fn each(
    session: &Session,
    client: &Client,
    names: &[String],
    act: &str,
    reason: Option<String>,
) -> Result<(), Failure> {
    let request = ReasonRequest { reason };
    let mut done = Vec::new();
    let mut failed = false;
    for name in names {
        let path = format!("{PATH}/{}/{act}", encode(name));
        match watch(
            &session.screen,
            act,
            client.post::<NodeView>(&path, &request),
        )
        .await
        {
            Ok(node) => done.push(node),
            Err(failure) => {
                failed = true;
                session.screen.note(&format!("{name}: {failure}"));
            }
        }
    }
    session.screen.tabulate(&done, |nodes| table(nodes));
    if failed { Err(Failure::Quiet) } else { Ok(()) }
}

async fn replace_tpm(
    session: &Session,
    client: &Client,
    name: &str,
    request: &ReplacementRequest,
) -> Result<(), Failure> {
    let path = format!("{PATH}/{}/replace-tpm", encode(name));
    let created: TokenCreated = watch(
        &session.screen,
        "creating a token",
        client.post(&path, request),
    )
    .await?;
    if session.wants_json() {
        session.screen.json(&created);
    } else {
        session.screen.line(&created.token);
        session.screen.note(&format!(
            "token {} for one other tpm under the name {name} until {}; it is not shown again. On the machine: \
             edgeward-agent enrol --force",
            created.id, created.expires
        ));
    }
    Ok(())
}

async fn remove(session: &Session, client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut failed = false;
    for name in names {
        let path = format!("{PATH}/{}", encode(name));
        match watch(&session.screen, "remove", client.delete(&path)).await {
            Ok(()) => session.screen.note(&format!("{name} is removed")),
            Err(failure) => {
                failed = true;
                session.screen.note(&format!("{name}: {failure}"));
            }
        }
    }
    if failed { Err(Failure::Quiet) } else { Ok(()) }
}

pub(super) fn has_label(node: &NodeView, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => node.labels.get(key).is_some_and(|found| found == value),
        None => node.labels.contains_key(label),
    }
}

fn table(nodes: &[NodeView]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "STATUS",
        "STATE",
        "TIER",
        "SESSION",
        "IPV4",
        "LAST PASS",
        "REASON",
        "LABELS",
    ]);
    for node in nodes {
        table.row([
            node.name.clone(),
            node.status.clone(),
            node.state.clone(),
            node.tier.clone(),
            session_of(node).to_owned(),
            or_dash(node.ipv4.clone()),
            or_dash(node.attested),
            or_dash(why(node)),
            pairs(&node.labels),
        ]);
    }
    table
}

/// Why it is refused, or would be.
fn why(node: &NodeView) -> Option<String> {
    let monitored = node.would_fail.as_ref();
    let monitored = monitored.map(|code| format!("{code} (monitor)"));
    node.reason.clone().or(monitored)
}

fn session_of(node: &NodeView) -> &'static str {
    if node.connected { "open" } else { "-" }
}
