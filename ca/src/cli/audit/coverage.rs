//! How complete the record is, as a table.

use edgeward_runtime::screen::Table;

use super::show::short;
use crate::api::views::CoverageReport;

pub(super) fn table(report: &CoverageReport) -> Table {
    let mut table = Table::new(&["NODE", "BOOT", "RECORDS", "UPDATED", "RECORD", "FAULTS"]);
    for journal in &report.items {
        let open: Vec<String> = journal
            .faults
            .iter()
            .filter(|fault| fault.resolved.is_none())
            .map(|fault| format!("{} {}-{}", fault.kind, fault.first_seq, fault.last_seq))
            .collect();
        table.row([
            short(&journal.node),
            journal.boot.clone(),
            format!("0-{}", journal.last_seq),
            journal.updated.to_string(),
            if open.is_empty() {
                "complete"
            } else {
                "faulty"
            }
            .to_owned(),
            if open.is_empty() {
                "-".to_owned()
            } else {
                open.join(", ")
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
            "faulty".to_owned(),
            format!("{} {}-{}", fault.kind, fault.first_seq, fault.last_seq),
        ]);
    }
    table
}
