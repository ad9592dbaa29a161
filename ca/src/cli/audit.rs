//! `edgeward audit`.

use clap::{Args, Subcommand};
use edgeward_identity::{Clock, SystemClock};
use edgeward_runtime::screen::Table;

use super::client::{Client, encode};
use super::progress::watch;
use super::screen::{or_dash, pairs};
use super::{Failure, Session};
use crate::api::views::{CoverageReport, EventPage, EventView};
use crate::when;

mod alerts;
mod tail;

use tail::tail;

const PATH: &str = "/api/v1/audit/events";
/// Events asked for in one page.
const PAGE: u64 = 500;
/// Hex of at least this many characters is cut to so many in tables.
const LONG_HEX: usize = 40;
const SHOWN_HEX: usize = 12;
/// `edgeward audit`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find events, oldest first
    #[command(after_help = "\
Examples:
  edgeward audit query --node gw-3 --from -1h
  edgeward audit query --verdict deny --type 'flow.*' --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z
  edgeward audit query --rule scada-reads -o json | jq .actor

Times are RFC 3339, or relative to now: -1h, -7d. The query itself becomes an event.")]
    Query {
        #[command(flatten)]
        filter: Filter,
        /// Not before this time
        #[arg(
            long,
            allow_hyphen_values = true,
            default_value = "-24h",
            value_name = "TIME"
        )]
        from: String,
        /// Before this time
        #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
        to: Option<String>,
        /// Most events to print
        #[arg(long, default_value_t = 1000)]
        limit: u64,
        /// Go on where an earlier query with the same filters ended
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Print events as they come; Ctrl-C ends it
    #[command(after_help = "\
Examples:
  edgeward audit tail
  edgeward audit tail --verdict deny --from -10m
  edgeward audit tail -o json | jq -c 'select(.type == \"node.quarantined\")'")]
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// Print first what exists since this time; only what comes if absent
        #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
        from: Option<String>,
    },
    /// Ask whether the record is complete: per boot of each node the range without gaps, and what is wrong
    Coverage {
        /// Only this node
        #[arg(long)]
        node: Option<String>,
    },
    /// What rules over the log found: see it, acknowledge, silence, try who is told
    #[command(subcommand)]
    Alerts(alerts::Command),
}

/// Which events; all that are given must hold.
#[derive(Clone, Debug, Args)]
pub struct Filter {
    /// Recorded by this node, or about it
    #[arg(long)]
    node: Option<String>,
    /// Who did it: spiffe://…, apikey:<name>, cloud, anonymous
    #[arg(long)]
    actor: Option<String>,
    /// node.quarantined, or 'node.*' for a family
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// allow, deny or none
    #[arg(long)]
    verdict: Option<String>,
    /// Id of the policy rule that decided
    #[arg(long)]
    rule: Option<String>,
    /// Serial number of a certificate, lower-case hex: who got it, from which authority, until when
    #[arg(long)]
    serial: Option<String>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    if let Command::Alerts(command) = command {
        return alerts::run(session, command).await;
    }
    let client = session.client()?;
    match command {
        Command::Query {
            filter,
            from,
            to,
            limit,
            cursor,
        } => {
            let base = path_of(&filter, Some(&from), to.as_deref())?;
            query(session, &client, &base, limit, cursor).await
        }
        Command::Tail { filter, from } => {
            let path = format!("{}&follow=true", path_of(&filter, from.as_deref(), None)?);
            tail(session, &client, &path).await
        }
        Command::Coverage { node } => {
            let path = match node {
                Some(node) => format!("/api/v1/audit/coverage?node={}", encode(&node)),
                None => "/api/v1/audit/coverage".to_owned(),
            };
            let report: CoverageReport =
                watch(&session.screen, "asking for coverage", client.get(&path)).await?;
            session.screen.tabulate(&report, coverage);
            Ok(())
        }
        Command::Alerts(_) => Ok(()),
    }
}

async fn query(
    session: &Session,
    client: &Client,
    base: &str,
    limit: u64,
    mut cursor: Option<String>,
) -> Result<(), Failure> {
    let mut left = limit;
    let mut table = Table::new(&HEADINGS);
    let more = loop {
        let mut path = format!("{base}&limit={}", left.clamp(1, PAGE));
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", encode(cursor)));
        }
        let page: EventPage = watch(&session.screen, "reading the log", client.get(&path)).await?;
        left = left.saturating_sub(u64::try_from(page.items.len()).unwrap_or(u64::MAX));
        for event in &page.items {
            match session.wants_json() {
                true => session.screen.json_line(event),
                false => table.row(row(event)),
            }
        }
        cursor = page.cursor.or(cursor);
        if !page.more || left == 0 || page.items.is_empty() {
            break page.more;
        }
    };
    if !session.wants_json() {
        session.screen.table(&table);
    }
    if more && let Some(cursor) = cursor {
        session
            .screen
            .note(&format!("there are more: go on with --cursor {cursor}"));
    }
    Ok(())
}

fn path_of(filter: &Filter, from: Option<&str>, to: Option<&str>) -> Result<String, Failure> {
    let now = SystemClock.now();
    let time = |text: &str| when::parse(text, now).map(when::format);
    let from = from.map(time).transpose()?;
    let to = to.map(time).transpose()?;
    let given = [
        ("from", from.as_ref()),
        ("to", to.as_ref()),
        ("node", filter.node.as_ref()),
        ("actor", filter.actor.as_ref()),
        ("type", filter.kind.as_ref()),
        ("verdict", filter.verdict.as_ref()),
        ("rule", filter.rule.as_ref()),
        ("serial", filter.serial.as_ref()),
    ];
    let query: Vec<String> = given
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", encode(value))))
        .collect();
    Ok(format!("{PATH}?{}", query.join("&")))
}

const HEADINGS: [&str; 7] = [
    "TIME",
    "TYPE",
    "VERDICT",
    "ACTOR",
    "SUBJECT",
    "RULE/CODE",
    "DETAIL",
];

fn row(event: &EventView) -> [String; 7] {
    [
        event.time.to_string(),
        event.kind.clone(),
        event.verdict.clone(),
        short(&event.actor),
        event
            .subject
            .as_deref()
            .map_or_else(|| "-".to_owned(), short),
        or_dash(event.rule.clone().or_else(|| event.code.clone())),
        details(event),
    ]
}

/// Details for a line: hashes, keys and signatures only as far as people compare them. JSON has them whole.
fn details(event: &EventView) -> String {
    let shown = event
        .detail
        .iter()
        .map(|(key, value)| (key.clone(), abbreviate(value)))
        .collect();
    pairs(&shown)
}

fn abbreviate(value: &str) -> String {
    let is_hex = value.len() >= LONG_HEX && value.bytes().all(|b| b.is_ascii_hexdigit());
    match value.get(..SHOWN_HEX) {
        Some(start) if is_hex => format!("{start}…"),
        _ => value.to_owned(),
    }
}

/// `node/gw-3` instead of `spiffe://plant.example/node/gw-3`: a table is of one trust domain. JSON has it whole.
fn short(id: &str) -> String {
    id.strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .map_or(id, |(_, path)| path)
        .to_owned()
}

fn show(session: &Session, event: &EventView) {
    if session.wants_json() {
        session.screen.json_line(event);
        return;
    }
    // Columns cannot be measured ahead: one line of fields instead.
    let line: Vec<String> = row(event).into_iter().filter(|cell| cell != "-").collect();
    session.screen.line(&line.join("  "));
}

fn coverage(report: &CoverageReport) -> Table {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_hex_is_cut() {
        assert_eq!(abbreviate(&"ab".repeat(32)), "abababababab…");
        assert_eq!(abbreviate("7cdd47eda97e"), "7cdd47eda97e");
        let text = "a long reason in words that an operator gave for it";
        assert_eq!(abbreviate(text), text);
    }

    #[test]
    fn filters_are_encoded_and_times_made_absolute() {
        let filter = Filter {
            node: None,
            actor: Some("apikey:a&b".to_owned()),
            kind: Some("node.*".to_owned()),
            verdict: None,
            rule: None,
            serial: None,
        };
        let path = path_of(&filter, Some("2026-01-01T00:00:00Z"), None).unwrap();
        assert_eq!(
            path,
            "/api/v1/audit/events?from=2026-01-01T00%3A00%3A00Z&actor=apikey%3Aa%26b&type=node.%2A"
        );
        assert!(path_of(&filter, Some("soon"), None).is_err());
    }
}
