//! `edgeward audit retention` and `archive`.

use edgeward_runtime::screen::Table;

use crate::api::views::{ArchiveView, RetentionView};
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};

const PATH: &str = "/api/v1/audit/log/retention";

pub(super) async fn show(session: &Session) -> Result<(), Failure> {
    let view = ask(session).await?;
    session.screen.tabulate(&view, |view| {
        let mut table = Table::new(&["POLICY", "MINIMUM INDEX", "PRUNED", "NEXT SEGMENT"]);
        table.row([
            view.policy.clone(),
            view.minimum_index.to_string(),
            or_dash(view.pruned.map(|when| when.to_string())),
            view.held_by.clone(),
        ]);
        table
    });
    Ok(())
}

/// An archive that fails is a failure.
pub(super) async fn archive(session: &Session) -> Result<(), Failure> {
    let view = ask(session).await?;
    let Some(archive) = view.archive else {
        return Err(Failure::NoAnswer(
            "no archive is configured ([audit.retention] archive)".to_owned(),
        ));
    };
    session.screen.tabulate(&archive, table);
    match archive.error {
        None => Ok(()),
        Some(_) => Err(Failure::Quiet),
    }
}

async fn ask(session: &Session) -> Result<RetentionView, Failure> {
    let client = session.client()?;
    watch(
        &session.screen,
        "asking for the retention policy",
        client.get(PATH),
    )
    .await
}

fn table(archive: &ArchiveView) -> Table {
    let mut table = Table::new(&["TO", "STATE", "SEGMENTS", "BYTES", "NEXT", "BEHIND", "WHY"]);
    table.row([
        archive.to.clone(),
        archive.state.clone(),
        archive.segments.to_string(),
        archive.bytes.to_string(),
        archive.next_index.to_string(),
        archive.behind.to_string(),
        or_dash(archive.error.clone()),
    ]);
    table
}
