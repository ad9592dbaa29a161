//! How complete the record is, as a table; and taking note of what is lost.

use edgeward_runtime::screen::Table;

use super::show::short;
use crate::api::views::{CoverageReport, FaultView, LossRequest};
use crate::cli::client::{Client, encode};
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

const PATH: &str = "/api/v1/audit/coverage";

/// Asks page by page, and shows all of it.
pub(super) async fn show(
    session: &Session,
    client: &Client,
    node: Option<&str>,
) -> Result<(), Failure> {
    let asked = all(client, node);
    let report = watch(&session.screen, "asking how complete the record is", asked).await?;
    session.screen.tabulate(&report, table);
    Ok(())
}

async fn all(client: &Client, node: Option<&str>) -> Result<CoverageReport, Failure> {
    let node = node.map(|node| format!("node={}", encode(node)));
    let mut report: Option<CoverageReport> = None;
    loop {
        let cursor = report.as_ref().and_then(|report| report.cursor.as_ref());
        let cursor = cursor.map(|cursor| format!("cursor={}", encode(cursor)));
        let asked: Vec<String> = node.iter().cloned().chain(cursor).collect();
        let page: CoverageReport = client.get(&format!("{PATH}?{}", asked.join("&"))).await?;
        let whole = match report.take() {
            None => page,
            Some(mut before) => {
                before.items.extend(page.items);
                CoverageReport {
                    items: before.items,
                    unknown_boots: before.unknown_boots,
                    ..page
                }
            }
        };
        if !whole.more || whole.cursor.is_none() {
            return Ok(whole);
        }
        report = Some(whole);
    }
}

/// Takes note of a lost range.
pub(super) async fn acknowledge(
    session: &Session,
    client: &Client,
    request: LossRequest,
) -> Result<(), Failure> {
    let noted: FaultView = client
        .post(&format!("{PATH}/acknowledge"), &request)
        .await?;
    session.screen.note(&format!(
        "noted: records {}-{} of {}, boot {}, are lost",
        noted.first_seq, noted.last_seq, request.node, noted.boot
    ));
    Ok(())
}

fn table(report: &CoverageReport) -> Table {
    let mut table = Table::new(&["NODE", "BOOT", "RECORDS", "UPDATED", "RECORD", "FAULTS"]);
    for journal in &report.items {
        let standing: Vec<&FaultView> = journal
            .faults
            .iter()
            .filter(|fault| fault.resolved.is_none())
            .collect();
        let told: Vec<String> = standing.iter().map(|fault| told(fault)).collect();
        table.row([
            short(&journal.node),
            journal.boot.clone(),
            format!("0-{}", journal.last_seq),
            journal.updated.to_string(),
            state(&standing).to_owned(),
            match told.is_empty() {
                true => "-".to_owned(),
                false => told.join(", "),
            },
        ]);
    }
    for fault in report
        .unknown_boots
        .iter()
        .filter(|fault| fault.resolved.is_none())
    {
        table.row([
            "-".to_owned(),
            fault.boot.clone(),
            "-".to_owned(),
            fault.noticed.to_string(),
            state(&[fault]).to_owned(),
            told(fault),
        ]);
    }
    table
}

/// The worst of it: what may still change, what is lost, what somebody took note of.
fn state(standing: &[&FaultView]) -> &'static str {
    match standing {
        [] => "complete",
        all if all.iter().any(|fault| fault.lost.is_none()) => "faulty",
        all if all.iter().any(|fault| fault.acknowledged.is_none()) => "lost",
        _ => "lost, noted",
    }
}

fn told(fault: &FaultView) -> String {
    let range = format!("{}-{}", fault.first_seq, fault.last_seq);
    match (&fault.lost, &fault.acknowledged) {
        (_, Some(note)) => format!("lost {range} (noted by {})", short(&note.by)),
        (Some(_), None) => format!("lost {range}"),
        (None, None) => format!("{} {range}", fault.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::LossView;
    use crate::when::When;
    use edgeward_identity::Timestamp;

    #[test]
    fn what_is_lost_is_told_apart_from_what_is_open_and_from_what_was_noted() {
        let at = || When::from(Timestamp::from_secs(1_800_000_000));
        let open = FaultView {
            boot: String::new(),
            kind: "missing".to_owned(),
            first_seq: 3,
            last_seq: 4,
            noticed: at(),
            resolved: None,
            lost: None,
            acknowledged: None,
        };
        let lost = FaultView {
            lost: Some(at()),
            ..open.clone()
        };
        let noted = FaultView {
            acknowledged: Some(LossView {
                at: at(),
                by: "spiffe://plant.example/operator/li".to_owned(),
                reason: "the disk broke".to_owned(),
            }),
            ..lost.clone()
        };
        assert_eq!(state(&[&noted, &lost, &open]), "faulty");
        assert_eq!(state(&[&noted, &lost]), "lost");
        assert_eq!(state(&[&noted]), "lost, noted");
        assert_eq!(state(&[]), "complete");
        assert_eq!(told(&open), "missing 3-4");
        assert_eq!(told(&lost), "lost 3-4");
        assert!(told(&noted).starts_with("lost 3-4 (noted by "));
    }
}
