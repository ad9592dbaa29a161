//! `edgeward policy apply`.

use std::path::Path;
use std::time::Duration;

use edgeward_policy::SourceFile;

use super::PATH;
use super::check::{check, show_report};
use super::history::table;
use crate::api::Items;
use crate::api::views::{PolicyApply, PolicyFile, PolicyStage, PolicyView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

pub(super) async fn run(
    session: &Session,
    dir: &Path,
    stage: &[u8],
    hold: Duration,
) -> Result<(), Failure> {
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
        send(&client, files, &report.hash, (stage, hold)),
    )
    .await?;
    if !stage.is_empty() {
        session
            .screen
            .note("the first stage is in force: `edgeward policy stage status` shows how it goes");
    }
    session
        .screen
        .tabulate(&vec![applied], |policies| table(policies));
    Ok(())
}

async fn send(
    client: &Client,
    files: Vec<SourceFile>,
    hash: &str,
    (percent, hold): (&[u8], Duration),
) -> Result<PolicyView, Failure> {
    let number = next_number(client).await?;
    let stage = match percent.is_empty() {
        true => None,
        false => {
            // Signed beforehand, so that the cloud can go back to what is in force now, and to nothing else.
            let current: PolicyView = client.get(&format!("{PATH}/current")).await?;
            Some(PolicyStage {
                percent: percent.to_vec(),
                hold_seconds: hold.as_secs(),
                return_signature: Some(sign(client, number + 1, &current.hash)?),
            })
        }
    };
    let signature = sign(client, number, hash)?;
    let request = PolicyApply {
        files: files
            .into_iter()
            .map(|file| PolicyFile {
                path: file.path,
                text: file.text,
            })
            .collect(),
        number,
        signature,
        stage,
    };
    client.post(PATH, &request).await
}

/// The number that the next policy gets.
pub(super) async fn next_number(client: &Client) -> Result<u64, Failure> {
    let list: Items<PolicyView> = client.get(PATH).await?;
    Ok(list.items.first().map_or(0, |newest| newest.number) + 1)
}

/// The operator's signature under a policy, hex.
pub(super) fn sign(client: &Client, number: u64, hash: &str) -> Result<String, Failure> {
    let message = PolicyApply::message(client.trust_domain(), number, hash);
    Ok(hex::encode(client.sign(&message)?))
}
