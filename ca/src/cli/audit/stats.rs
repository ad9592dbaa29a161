//! Counts of events, as a table or for a chart.

use clap::Args;
use edgeward_runtime::screen::Table;

use super::super::client::encode;
use super::super::progress::watch;
use super::super::{Failure, Session};
use super::show::short;
use super::{Filter, path_of};
use crate::api::views::StatsView;

const PATH: &str = "/api/v1/audit/stats";

/// `edgeward audit stats`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// type, family, verdict, node, actor, subject or rule
    #[arg(long, default_value = "type", value_name = "FIELD")]
    by: String,
    /// How many values are counted by themselves: those with most events
    #[arg(long, value_name = "N")]
    top: Option<u32>,
    /// Count by pieces of time, too: 5m, 1h, 1d
    #[arg(long, value_name = "DURATION")]
    bucket: Option<String>,
    /// Not before this time
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "-24h",
        value_name = "TIME"
    )]
    from: String,
    /// Before this time
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "now",
        value_name = "TIME"
    )]
    to: String,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let mut path = path_of(
        PATH,
        &arguments.filter,
        Some(&arguments.from),
        Some(&arguments.to),
    )?;
    path.push_str(&format!("&by={}", encode(&arguments.by)));
    if let Some(top) = arguments.top {
        path.push_str(&format!("&top={top}"));
    }
    if let Some(bucket) = &arguments.bucket {
        path.push_str(&format!("&bucket={}", encode(bucket)));
    }
    let client = session.client()?;
    let stats: StatsView = watch(&session.screen, "counting", client.get(&path)).await?;
    session.screen.tabulate(&stats, table);
    Ok(())
}

fn table(stats: &StatsView) -> Table {
    let by = stats.by.as_deref().unwrap_or("all").to_uppercase();
    if stats.bucket_seconds.is_none() {
        let mut table = Table::new(&[by.as_str(), "EVENTS"]);
        for value in &stats.values {
            table.row([named(&value.value), value.count.to_string()]);
        }
        if stats.others > 0 {
            table.row(["(others)".to_owned(), stats.others.to_string()]);
        }
        table.row(["(all)".to_owned(), stats.total.to_string()]);
        return table;
    }
    let mut headings = vec!["TIME".to_owned()];
    headings.extend(stats.values.iter().map(|value| named(&value.value)));
    headings.extend(["(others)", "(all)"].map(str::to_owned));
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings);
    for bucket in &stats.buckets {
        let counts: Vec<u64> = stats
            .values
            .iter()
            .map(|value| bucket.values.get(&value.value).copied().unwrap_or(0))
            .collect();
        let others = bucket.total.saturating_sub(counts.iter().sum());
        let cells = counts.into_iter().chain([others, bucket.total]);
        table.row(std::iter::once(bucket.time.to_string()).chain(cells.map(|n| n.to_string())));
    }
    table
}

fn named(value: &str) -> String {
    match value {
        "" => "-".to_owned(),
        value => short(value),
    }
}
