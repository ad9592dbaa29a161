//! What the cloud has of roots and publishers.

use std::path::{Path, PathBuf};

use edgeward_runtime::screen::Table;

use super::super::ceremony::{Authorities, IMAGE, ROOT};
use super::super::client::{Client, Line, encode};
use super::super::progress::watch;
use super::super::repo::{Repo, read_bounded};
use super::super::{Failure, Session};
use super::repo_of;
use crate::api::views::{OnlineKeyView, PublisherView, PublishersView, RoleTaken, RoleView};

const PATH: &str = "/api/v1/publishers";
/// Metadata as nodes have it.
pub(in crate::cli) const METADATA: &str = "/api/v1/apps/metadata";

pub(super) async fn list(session: &Session) -> Result<(), Failure> {
    let view = asked(session, &session.client()?).await?;
    session.screen.tabulate(&view, table);
    if session.wants_json() {
        return Ok(());
    }
    for (role, found) in [(ROOT, &view.root), ("image role", &view.image)] {
        let note = match found {
            Some(found) => format!("{role}: version {}, until {}", found.version, found.expires),
            None => format!("{role}: none yet"),
        };
        session.screen.note(&note);
    }
    for ending in &view.ending {
        session.screen.note(&format!(
            "{}: ends {}; nodes install nothing afterwards that rests on it: sign it anew",
            ending.role, ending.expires
        ));
    }
    Ok(())
}

pub(super) async fn online_key(session: &Session, next: bool) -> Result<(), Failure> {
    let client = session.client()?;
    if !next {
        let view = asked(session, &client).await?;
        session.screen.answer(&view.online_key, String::clone);
        if let (Some(next), false) = (&view.next_online_key, session.wants_json()) {
            let note = format!("the next one, once a root names it: {next}");
            session.screen.note(&note);
        }
        return Ok(());
    }
    let path = format!("{PATH}/online-key");
    let made = client.post(&path, &());
    let view: OnlineKeyView = watch(&session.screen, "making the next key", made).await?;
    session.screen.answer(&view.key, String::clone);
    Ok(())
}

/// Each is held against its signatures before the first goes anywhere: the cloud would take the first half of a list
/// whose second half it refuses.
pub(super) async fn submit(session: &Session, files: &[PathBuf]) -> Result<(), Failure> {
    let mut ready = Vec::new();
    for file in files {
        let (repo, role, version) = Repo::of_file(file)?;
        if ![ROOT, IMAGE].contains(&role.as_str()) {
            return Err(Failure::Usage(format!(
                "{}: what a publisher signed goes with its content: edgeward app publish",
                file.display()
            )));
        }
        let envelope = repo.read(&role, version)?;
        let authorities = Authorities::of(&repo, &role, version, &envelope)?;
        authorities.demand(session, (&repo, &role), &envelope, file)?;
        let limit = edgeward_apps::author::MAX_METADATA_BYTES;
        ready.push((role, read_bounded(file, limit)?));
    }
    let client = session.client()?;
    let mut line = Line::new(&client);
    let mut taken: Vec<RoleTaken> = Vec::new();
    for (role, bytes) in ready {
        let path = format!("{PATH}/metadata?role={role}");
        let answer = line.put_for(&path, bytes.into());
        taken.push(watch(&session.screen, "submitting", answer).await?);
    }
    session.screen.tabulate(&taken, |taken| {
        let mut table = Table::new(&["ROLE", "VERSION", "EXPIRES"]);
        for one in taken {
            table.row([
                one.role.clone(),
                one.version.to_string(),
                one.expires.to_string(),
            ]);
        }
        table
    });
    for publisher in taken.iter().flat_map(|taken| &taken.no_longer_hold) {
        session.screen.note(&format!(
            "{publisher}: its releases do not hold any more: edgeward app sign --renew {publisher}"
        ));
    }
    Ok(())
}

/// The chain of roots, the image role and what publishers signed. Nothing is believed: whoever builds upon it checks
/// the signatures, and the keys are on the signers' own paper.
pub(super) async fn fetch(session: &Session, folder: &Path) -> Result<(), Failure> {
    let client = session.client()?;
    let view = asked(session, &client).await?;
    let repo = repo_of(folder);
    let mut line = Line::new(&client);
    let mut names = Vec::new();
    if let Some(root) = &view.root {
        names.extend((1..=root.version).map(|version| (ROOT.to_owned(), version)));
    }
    names.extend(
        view.image
            .iter()
            .map(|image| (IMAGE.to_owned(), image.version)),
    );
    names.extend(view.publishers.iter().filter_map(|publisher| {
        let signed = publisher.signed.as_ref()?;
        Some((publisher.publisher.clone(), signed.version))
    }));
    let mut fetched = Vec::new();
    for (role, version) in names {
        let name = format!("{version}.{role}.json");
        let path = repo.metadata_path(&role, version);
        let bytes = watch(&session.screen, "fetching", metadata(&mut line, &name)).await?;
        if path.exists() && read_bounded(&path, edgeward_apps::author::MAX_METADATA_BYTES)? != bytes
        {
            return Err(Failure::Unsound(format!(
                "{}: the cloud has another under this name; move one of them away",
                path.display()
            )));
        }
        repo.write_bytes(&name, &bytes)?;
        fetched.push(path.display().to_string());
    }
    session
        .screen
        .answer(&fetched, |fetched| fetched.join("\n"));
    Ok(())
}

pub(in crate::cli) async fn metadata(
    line: &mut Line<'_>,
    name: &str,
) -> Result<bytes::Bytes, Failure> {
    line.get(&format!("{METADATA}/{}", encode(name))).await
}

pub(in crate::cli) async fn asked(
    session: &Session,
    client: &Client,
) -> Result<PublishersView, Failure> {
    watch(&session.screen, "asking for publishers", client.get(PATH)).await
}

fn table(view: &PublishersView) -> Table {
    let mut table = Table::new(&[
        "PUBLISHER",
        "NEEDS",
        "RELEASES",
        "SIGNED",
        "EXPIRES",
        "KEYS",
    ]);
    for publisher in &view.publishers {
        table.row(row(publisher));
    }
    table
}

fn row(publisher: &PublisherView) -> [String; 6] {
    let said = |of: fn(&RoleView) -> String| {
        let signed = publisher.signed.as_ref().map(of);
        signed.unwrap_or_else(|| "-".to_owned())
    };
    [
        publisher.publisher.clone(),
        format!("{} of {}", publisher.threshold, publisher.keys.len()),
        publisher.releases.to_string(),
        said(|signed| signed.version.to_string()),
        said(|signed| signed.expires.to_string()),
        publisher.keys.join(" "),
    ]
}
