//! `edgeward app export`: what one node needs, on a stick.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use edgeward_apps::chunk;
use edgeward_apps::image::{ImageFloors, PublisherKeys, Refresh};
use edgeward_apps::manifest::Manifest;
use edgeward_apps::{Digest, PublisherName};
use edgeward_identity::{Clock, SignedObject, SystemClock, Timestamp};
use serde::Serialize;

use super::super::ceremony::ROOT;
use super::super::client::{Client, Line, encode};
use super::super::progress::watch;
use super::super::publisher::{asked, metadata};
use super::super::repo::Repo;
use super::super::{Failure, Session};
use super::APPS;
use super::sign::Named;
use crate::api::views::PublishersView;
use crate::when;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app export --app acme/collector@2.3.1 --node gw-3 --to /media/stick
  edgeward-agent apps import /media/stick                 on the node, with the cloud out of reach

The stick carries what the cloud would have given, and nothing that is believed for lying on it. It is good as long as
the shortest of its signatures holds, which is the cloud's own: the time is printed.";

/// `edgeward app export`.
#[derive(Debug, Args)]
pub struct Export {
    /// A release; once for each
    #[arg(long = "app", required = true, value_name = "NAME@VERSION")]
    apps: Vec<Named>,
    /// Whose director's word goes with it
    #[arg(long, value_name = "NAME")]
    node: String,
    /// An empty folder, or one that was exported to before
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Serialize)]
struct Exported {
    folder: String,
    /// Nodes install nothing from it afterwards.
    valid_until: String,
    chunks: u64,
    bytes: u64,
}

pub(super) async fn run(session: &Session, arguments: &Export) -> Result<(), Failure> {
    let client = session.client()?;
    let repo = Repo::new(&arguments.to);
    let view = asked(session, &client).await?;
    let work = exported(&client, &repo, &view, arguments);
    let done = watch(&session.screen, "exporting", work).await?;
    session.screen.answer(&done, |done| {
        format!(
            "{}: {} chunks, {} bytes, good until {}",
            done.folder, done.chunks, done.bytes, done.valid_until
        )
    });
    Ok(())
}

async fn exported(
    client: &Client,
    repo: &Repo,
    view: &PublishersView,
    arguments: &Export,
) -> Result<Exported, Failure> {
    let mut line = Line::new(client);
    let node = encode(&arguments.node);
    let word = line.get(&format!("/api/v1/nodes/{node}/director")).await?;
    let ends = SignedObject::parse(&word)
        .map_err(|why| Failure::Answer(format!("director's word: {why}")))?
        .header()
        .expires;
    repo.write_director(&arguments.node, &word)?;
    let (until, releases) = refreshed(&mut line, repo, view, &arguments.apps).await?;
    let (mut chunks, mut bytes) = (0u64, 0u64);
    for (named, digest, length) in releases {
        let content = line.get(&format!("{APPS}/manifests/{digest}")).await?;
        if content.len() as u64 != length || Digest::of(&content) != digest {
            return Err(not_that(&named.app.target(&named.version)));
        }
        let manifest = Manifest::parse(&content).map_err(|why| Failure::Answer(why.to_string()))?;
        repo.write_manifest(&named.app, &named.version, &content)?;
        for chunk in manifest.chunks() {
            // What an earlier export brought, or was cut off after, is there.
            if repo.chunk(&chunk).is_err() {
                let content = line.get(&format!("{APPS}/chunks/{}", chunk.digest)).await?;
                chunk::check(&chunk, &content).map_err(|why| Failure::Answer(why.to_string()))?;
                repo.write_chunk(&chunk, &content)?;
            }
            chunks = chunks.saturating_add(1);
            bytes = bytes.saturating_add(u64::from(chunk.size));
        }
    }
    Ok(Exported {
        folder: repo.folder().display().to_string(),
        valid_until: when::format(until.min(ends)),
        chunks,
        bytes,
    })
}

/// Fetches metadata as a node does, with a node's own checks: a stick that a node would refuse is not made.
async fn refreshed(
    line: &mut Line<'_>,
    repo: &Repo,
    view: &PublishersView,
    apps: &[Named],
) -> Result<(Timestamp, Vec<(Named, Digest, u64)>), Failure> {
    let newest = view.root.as_ref().map_or(0, |root| root.version);
    if newest == 0 {
        return Err(Failure::Unsound("the cloud has no root yet".to_owned()));
    }
    let mut last = Vec::new();
    for version in 1..=newest {
        let name = format!("{version}.{ROOT}.json");
        last = metadata(line, &name).await?.to_vec();
        repo.write_bytes(&name, &last)?;
    }
    let refused = |why: edgeward_apps::image::ImageRefused| Failure::Unsound(why.to_string());
    let now = SystemClock.now();
    let publishers: BTreeMap<PublisherName, PublisherKeys> = apps
        .iter()
        .map(|named| keys_of(view, named.app.publisher()))
        .collect::<Result<_, _>>()?;
    let publishers = publishers.into_iter().collect();
    let mut refresh =
        Refresh::new(&last, ImageFloors::default(), publishers, now).map_err(refused)?;
    while let Some(wanted) = refresh.wanted().map_err(refused)? {
        if wanted.name.ends_with(".root.json") {
            refresh.give(None).map_err(refused)?;
            continue;
        }
        let bytes = metadata(line, &wanted.name).await?;
        refresh.give(Some(&bytes)).map_err(refused)?;
        repo.write_bytes(&wanted.name, &bytes)?;
    }
    let image = refresh.finish().map_err(refused)?;
    let mut until = None::<Timestamp>;
    let mut releases = Vec::new();
    for named in apps {
        let release = image
            .release(&named.app, &named.version, now)
            .map_err(refused)?;
        let end = image.valid_until(named.app.publisher()).map_err(refused)?;
        until = Some(until.map_or(end, |before| before.min(end)));
        releases.push((named.clone(), release.digest, release.length));
    }
    let until = until.ok_or_else(|| Failure::Usage("nothing to export".to_owned()))?;
    Ok((until, releases))
}

fn keys_of(
    view: &PublishersView,
    publisher: &PublisherName,
) -> Result<(PublisherName, PublisherKeys), Failure> {
    let found = view
        .publishers
        .iter()
        .find(|found| found.publisher == publisher.as_str())
        .ok_or_else(|| Failure::Unsound(format!("the cloud has no publisher {publisher}")))?;
    let keys = found.keys.iter().map(|key| key.parse());
    let keys = keys
        .collect::<Result<_, _>>()
        .map_err(|why| Failure::Answer(format!("{why}")))?;
    let threshold = u16::try_from(found.threshold)
        .map_err(|_| Failure::Answer("a threshold that nobody meets".to_owned()))?;
    Ok((publisher.clone(), PublisherKeys { keys, threshold }))
}

fn not_that(what: &str) -> Failure {
    Failure::Answer(format!("{what}: not the manifest that was signed"))
}
