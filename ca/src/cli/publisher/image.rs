//! The image role: which publishers there are, with which keys.

use std::collections::BTreeMap;
use std::path::Path;

use edgeward_apps::PublisherName;
use edgeward_apps::author::{Envelope, Signers};
use edgeward_apps::image::{KeyText, MAX_PUBLISHERS};
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::super::ceremony::{IMAGE, unsound};
use super::super::repo::Repo;
use super::super::{Failure, Session};
use super::root::{checked, signers};
use super::{Change, Place, draft, end_after, put, repo_of};

/// What becomes of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Add,
    Rotate,
}

#[derive(Serialize)]
struct Row {
    publisher: PublisherName,
    threshold: usize,
    keys: Vec<KeyText>,
}

pub(super) fn change(session: &Session, change: &Change, way: Way) -> Result<(), Failure> {
    let name = &change.name;
    let new = signers(&change.keys, change.threshold)?;
    checked(name.as_str(), &new)?;
    revise(session, &change.place, |publishers| {
        match (way, publishers.contains_key(name)) {
            (Way::Add, true) => {
                return Err(Failure::Usage(format!(
                    "{name} publishes already: edgeward publisher rotate gives it other keys"
                )));
            }
            (Way::Rotate, false) => return Err(unknown(name)),
            _ => {}
        }
        publishers.insert(name.clone(), new);
        Ok(())
    })
}

pub(super) fn remove(
    session: &Session,
    name: &PublisherName,
    place: &Place,
) -> Result<(), Failure> {
    revise(session, place, |publishers| match publishers.remove(name) {
        Some(_) => Ok(()),
        None => Err(unknown(name)),
    })
}

/// Where there is one: a first image role names somebody.
pub(super) fn renew(session: &Session, place: &Place) -> Result<(), Failure> {
    let repo = repo_of(&place.folder.repo);
    if repo.newest(IMAGE)?.is_none() {
        return Err(none_there(&repo));
    }
    revise(session, place, |_| Ok(()))
}

pub(super) fn list(session: &Session, folder: &Path) -> Result<(), Failure> {
    let repo = repo_of(folder);
    let Some((_, image)) = repo.newest(IMAGE)? else {
        return Err(none_there(&repo));
    };
    let rows: Vec<Row> = image
        .publishers()
        .map_err(unsound)?
        .into_iter()
        .map(|(publisher, signers)| Row {
            publisher,
            threshold: signers.threshold,
            keys: signers.keys.iter().map(|key| key.text().clone()).collect(),
        })
        .collect();
    session.screen.tabulate(&rows, |rows| {
        let mut table = Table::new(&["PUBLISHER", "NEEDS", "KEYS"]);
        for row in rows {
            let keys: Vec<String> = row.keys.iter().map(KeyText::to_string).collect();
            let needs = format!("{} of {}", row.threshold, row.keys.len());
            table.row([row.publisher.to_string(), needs, keys.join(" ")]);
        }
        table
    });
    Ok(())
}

/// The image role that follows, with what `change` makes of it. The first one is made of nothing.
fn revise(
    session: &Session,
    place: &Place,
    change: impl FnOnce(&mut BTreeMap<PublisherName, Signers>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let repo = repo_of(&place.folder.repo);
    let (version, newest) = draft(&repo, IMAGE)?;
    let mut publishers = match newest {
        Some(newest) => newest.publishers().map_err(unsound)?,
        None => BTreeMap::new(),
    };
    change(&mut publishers)?;
    // A node takes up no more; an image role that names more would be of no use to any.
    if publishers.len() > MAX_PUBLISHERS {
        return Err(Failure::Usage(format!(
            "more publishers than the limit: {MAX_PUBLISHERS}"
        )));
    }
    let envelope =
        Envelope::image(version, end_after(place.expires), &publishers).map_err(unsound)?;
    put(session, &repo, IMAGE, &envelope).map(drop)
}

fn none_there(repo: &Repo) -> Failure {
    let folder = repo.metadata_folder();
    Failure::Unsound(format!(
        "{}: no image role there: edgeward publisher add, or edgeward publisher fetch",
        folder.display()
    ))
}

fn unknown(name: &PublisherName) -> Failure {
    Failure::Usage(format!("the image role names no publisher {name}"))
}
