//! `edgeward app publish`: what a publisher signed, with its content. What the cloud has already does not travel again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use edgeward_apps::author::{Envelope, MAX_METADATA_BYTES};
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{AppName, Digest, Manifest, PublisherName, Version};
use edgeward_runtime::screen::Table;

use super::super::ceremony::{Authorities, IMAGE, ROOT, unsound};
use super::super::client::{Line, encode};
use super::super::progress::watch;
use super::super::repo::{Repo, read_bounded};
use super::super::{Failure, Session};
use super::{APPS, release_name};
use crate::api::Items;
use crate::api::views::{AppView, MissingRequest, MissingView, PublishedView};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app publish --repo repo
  edgeward app publish --repo repo --publisher acme -o json

Chunks that the cloud has are not sent again; what is cut off goes on where it was with the same command. The cloud
takes releases only once all of their content is there and as many keys signed as image role and policy ask for.";

/// Chunks that are asked for at once. Their digests stay well below the cloud's limit of a request's body.
const ASKED: usize = 8_192;

/// `edgeward app publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The folder of the repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// Whose releases; may be left out where the folder holds those of one publisher
    #[arg(long, value_name = "NAME")]
    publisher: Option<PublisherName>,
}

/// A release that the cloud lacks.
struct Lacking {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
}

pub(super) async fn run(session: &Session, arguments: &Publish) -> Result<(), Failure> {
    let repo = Repo::new(&arguments.repo);
    let publisher = match &arguments.publisher {
        Some(publisher) => publisher.clone(),
        None => only_publisher(&repo)?,
    };
    let (version, envelope) = newest(session, &repo, &publisher)?;
    let client = session.client()?;
    let mut line = Line::new(&client);
    let known: Items<AppView> =
        watch(&session.screen, "asking for releases", line.get_json(APPS)).await?;
    let lacking = lacking(&repo, &envelope, &known.items)?;
    let sent = send(session, &repo, &publisher, &lacking, &mut line).await?;
    let path = repo.metadata_path(publisher.as_str(), version);
    let body = read_bounded(&path, MAX_METADATA_BYTES)?;
    let query = format!("{APPS}?publisher={}", encode(publisher.as_str()));
    let answer = line.post(&query, body.into());
    let published: PublishedView = watch(&session.screen, "publishing", answer).await?;
    session.screen.tabulate(&published, table);
    session.screen.note(&format!(
        "{publisher}: version {}; {} chunks and {} bytes travelled",
        published.version, sent.0, sent.1
    ));
    Ok(())
}

/// Signed to its end and not past it, or nothing is sent.
fn newest(
    session: &Session,
    repo: &Repo,
    publisher: &PublisherName,
) -> Result<(u64, Envelope), Failure> {
    let role = publisher.as_str();
    let (version, envelope) = repo.newest(role)?.ok_or_else(|| {
        Failure::Unsound(format!(
            "{}: {role} signed nothing there: edgeward app sign",
            repo.metadata_folder().display()
        ))
    })?;
    let path = repo.metadata_path(role, version);
    Authorities::of(repo, role, version, &envelope)?.demand(
        session,
        (repo, role),
        &envelope,
        &path,
    )?;
    Ok((version, envelope))
}

fn only_publisher(repo: &Repo) -> Result<PublisherName, Failure> {
    let mut found: BTreeSet<String> = repo.roles()?;
    found.retain(|role| ![ROOT, IMAGE, "snapshot"].contains(&role.as_str()));
    match (found.pop_first(), found.is_empty()) {
        (Some(one), true) => one
            .parse()
            .map_err(|why| Failure::Unsound(format!("{one}: {why}"))),
        (None, _) => Err(Failure::Unsound(format!(
            "{}: no publisher signed anything there",
            repo.metadata_folder().display()
        ))),
        (Some(_), false) => Err(Failure::Usage(
            "the folder holds releases of several publishers: name one with --publisher".to_owned(),
        )),
    }
}

fn lacking(repo: &Repo, envelope: &Envelope, known: &[AppView]) -> Result<Vec<Lacking>, Failure> {
    let known: BTreeSet<&str> = known
        .iter()
        .flat_map(|app| &app.versions)
        .map(|release| release.digest.as_str())
        .collect();
    let mut lacking = Vec::new();
    for (path, (_, digest)) in envelope.manifests().map_err(unsound)? {
        if known.contains(digest.to_string().as_str()) {
            continue;
        }
        let (app, version) = named(&path)?;
        let (bytes, manifest) = repo.manifest(&app, &version, digest)?;
        lacking.push(Lacking {
            digest,
            bytes,
            manifest,
        });
    }
    Ok(lacking)
}

/// `publisher/name/version`.
fn named(path: &str) -> Result<(AppName, Version), Failure> {
    let parts = path.rsplit_once('/');
    let parts = parts.and_then(|(app, version)| Some((app.parse().ok()?, version.parse().ok()?)));
    parts.ok_or_else(|| Failure::Unsound(format!("not a release's name: {path:?}")))
}

/// Chunks first, then the manifests that need them. Says how many chunks and bytes went.
async fn send(
    session: &Session,
    repo: &Repo,
    publisher: &PublisherName,
    lacking: &[Lacking],
    line: &mut Line<'_>,
) -> Result<(u64, u64), Failure> {
    let chunks: BTreeMap<Digest, Chunk> = lacking
        .iter()
        .flat_map(|release| release.manifest.chunks())
        .map(|chunk| (chunk.digest, chunk))
        .collect();
    let whose = encode(publisher.as_str());
    let digests: Vec<String> = chunks.keys().map(Digest::to_string).collect();
    let (mut count, mut bytes) = (0u64, 0u64);
    for part in digests.chunks(ASKED) {
        let asked = MissingRequest {
            chunks: part.to_vec(),
        };
        let path = format!("{APPS}/missing");
        let answer: MissingView = watch(
            &session.screen,
            "asking for chunks",
            line.post_json(&path, &asked),
        )
        .await?;
        let send = async {
            for text in &answer.missing {
                let chunk = text.parse().ok().and_then(|digest| chunks.get(&digest));
                let chunk = chunk.ok_or_else(|| {
                    Failure::Answer("the cloud asks for a chunk that it was not offered".to_owned())
                })?;
                let path = format!("{APPS}/chunks/{text}?publisher={whose}");
                line.put(&path, repo.chunk(chunk)?.into()).await?;
                count = count.saturating_add(1);
                bytes = bytes.saturating_add(u64::from(chunk.size));
            }
            Ok::<(), Failure>(())
        };
        watch(&session.screen, "sending content", send).await?;
    }
    for release in lacking {
        let path = format!("{APPS}/manifests/{}?publisher={whose}", release.digest);
        let sent = line.put(&path, release.bytes.clone().into());
        watch(&session.screen, "sending manifests", sent).await?;
    }
    Ok((count, bytes))
}

fn table(view: &PublishedView) -> Table {
    let mut table = Table::new(&["RELEASE", "STATE", "SHA256"]);
    let both = [
        ("published", &view.published),
        ("withdrawn", &view.withdrawn),
    ];
    for (state, releases) in both {
        for release in releases {
            let name = release_name(&release.app, &release.version);
            table.row([name, state.to_owned(), release.digest.clone()]);
        }
    }
    table
}
