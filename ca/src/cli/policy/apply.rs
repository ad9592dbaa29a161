//! `edgeward policy apply`.

use std::path::Path;

use edgeward_policy::SourceFile;

use super::PATH;
use super::check::{check, show_report};
use super::history::table;
use crate::api::Items;
use crate::api::views::{PolicyApply, PolicyFile, PolicyView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

pub(super) async fn run(session: &Session, dir: &Path) -> Result<(), Failure> {
    let (files, report) = check(dir)?;
    if !report.ok {
        show_report(session, &report);
        return Err(Failure::Quiet);
    }
    for opening in &report.openings {
        session.screen.note(opening);
    }
    let client = session.client()?;
    let applied = watch(
        &session.screen,
        "applying the policy",
        send(&client, files, &report.hash),
    )
    .await?;
    session
        .screen
        .tabulate(&vec![applied], |policies| table(policies));
    Ok(())
}

async fn send(client: &Client, files: Vec<SourceFile>, hash: &str) -> Result<PolicyView, Failure> {
    let list: Items<PolicyView> = client.get(PATH).await?;
    let number = list.items.first().map_or(0, |newest| newest.number) + 1;
    let signature = client.sign(&PolicyApply::message(client.trust_domain(), number, hash))?;
    let request = PolicyApply {
        files: files
            .into_iter()
            .map(|file| PolicyFile {
                path: file.path,
                text: file.text,
            })
            .collect(),
        number,
        signature: hex::encode(signature),
    };
    client.post(PATH, &request).await
}
