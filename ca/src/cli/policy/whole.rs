//! A whole policy, from a directory or from the cloud, and the fleet that it is for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use edgeward_identity::{SpiffeId, Tier};
use edgeward_policy::{CompiledPolicy, Fleet, FleetNode, SourceFile};

use super::PATH;
use super::check::show_report;
use crate::api::Items;
use crate::api::views::{NodeView, PolicyReport, PolicyView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session, sources};

/// Reads and compiles a directory; what is wrong with it is shown.
pub(super) fn of_directory(session: &Session, dir: &Path) -> Result<CompiledPolicy, Failure> {
    compile(session, &sources::read(dir)?, 0)
}

/// The policy in force.
pub(super) async fn in_force(
    session: &Session,
    client: &Client,
) -> Result<CompiledPolicy, Failure> {
    let path = format!("{PATH}/current");
    let asked = watch(
        &session.screen,
        "asking for the policy in force",
        client.get(&path),
    );
    let policy: PolicyView = asked.await?;
    let files: Vec<SourceFile> = policy
        .files
        .unwrap_or_default()
        .into_iter()
        .map(|file| SourceFile::new(file.path, file.text))
        .collect();
    compile(session, &files, policy.number)
}

/// The nodes that others may meet.
pub(super) async fn fleet(session: &Session, client: &Client) -> Result<Fleet, Failure> {
    let asked = watch(
        &session.screen,
        "listing nodes",
        client.get("/api/v1/nodes"),
    );
    let list: Items<NodeView> = asked.await?;
    let active = list
        .items
        .into_iter()
        .filter(|node| node.status == "active");
    let nodes = active.map(|node| {
        let id: SpiffeId = node
            .spiffe_id
            .parse()
            .map_err(|_| Failure::Answer(format!("not an identity: {}", node.spiffe_id)))?;
        let tier = Tier::ALL
            .into_iter()
            .find(|tier| tier.as_str() == node.tier);
        let v4: Option<Ipv4Addr> = node.ipv4.as_deref().and_then(|text| text.parse().ok());
        Ok(FleetNode {
            id,
            labels: node.labels,
            tier: tier.ok_or_else(|| Failure::Answer(format!("not a tier: {}", node.tier)))?,
            v4,
        })
    });
    Ok(Fleet {
        nodes: nodes.collect::<Result<_, Failure>>()?,
    })
}

/// `key=value,...` as on the command line.
pub(super) fn labels(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(
            "write key=value, several with a comma between them: site=suzhou,role=gateway"
                .to_owned(),
        ),
    }
}

pub(super) fn label_map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

fn compile(
    session: &Session,
    files: &[SourceFile],
    number: u64,
) -> Result<CompiledPolicy, Failure> {
    CompiledPolicy::compile(files, number).map_err(|report| {
        show_report(session, &PolicyReport::of(&report));
        Failure::Quiet
    })
}
