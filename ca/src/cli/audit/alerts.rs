//! `edgeward audit alerts`.

use std::path::PathBuf;

use clap::Subcommand;
use edgeward_identity::{Clock, SystemClock};
use edgeward_runtime::screen::Table;

use super::show::short;
use crate::alerts::{Rules, Severity, load_file};
use crate::api::Items;
use crate::api::views::{
    AlertRulesView, AlertTestRequest, AlertTestView, AlertView, SilenceRequest, SilenceView,
};
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};
use crate::when;

mod dry_run;

const PATH: &str = "/api/v1/audit/alerts";

/// `edgeward audit alerts`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List alerts, newest first
    #[command(after_help = "\
Examples:
  edgeward audit alerts list
  edgeward audit alerts list --all -o json | jq '.items[] | select(.severity == \"critical\")'")]
    List {
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// Most alerts to print
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Say that you have seen an alert: nobody is told of it again until it is over
    Ack {
        #[arg(value_name = "NUMBER", required = true)]
        numbers: Vec<u64>,
    },
    /// Tell nobody of some alerts for a while; they are kept all the same
    #[command(after_help = "\
Examples:
  edgeward audit alerts silence --rule denial-spike --about gw-3 --for 2h --reason 'load test'
  edgeward audit alerts silence --most minor --for 30m --reason 'maintenance'
  edgeward audit alerts silence --lift 17")]
    Silence {
        /// Only alerts of this rule
        #[arg(long)]
        rule: Option<String>,
        /// Only alerts that are about something with this text in it
        #[arg(long, value_name = "TEXT")]
        about: Option<String>,
        /// Up to this severity: notice, minor, critical
        #[arg(long, value_name = "SEVERITY")]
        most: Option<String>,
        /// For how long: 30m, 2h, at most 30d
        #[arg(long = "for", value_name = "TIME", required_unless_present = "lift")]
        lasts: Option<String>,
        /// Why: whoever looks for the alert finds it
        #[arg(long, required_unless_present = "lift")]
        reason: Option<String>,
        /// Take the silence of this number back
        #[arg(long, value_name = "NUMBER", conflicts_with_all = ["rule", "about", "most", "lasts", "reason"])]
        lift: Option<u64>,
    },
    /// List silences
    Silences,
    /// List the rules in force and how whoever is told stands
    Rules,
    /// Say something to the sinks, to see whether they take it; or see, without a cloud, what rules would have found in an export
    #[command(after_help = "\
Examples:
  edgeward audit alerts test
  edgeward audit alerts test --sink chat
  edgeward audit export --from -30d --out november.jsonl
  edgeward audit alerts test my.toml november.jsonl

An export does not say when the cloud stored an event: the clocks of those who recorded decide, in the log's order.")]
    Test {
        /// This sink only
        #[arg(long, conflicts_with = "rules")]
        sink: Option<String>,
        /// A file of rules: say nothing, but try them
        #[arg(value_name = "RULES", requires = "export")]
        rules: Option<PathBuf>,
        /// Over this export (`edgeward audit export`); - for standard input
        #[arg(value_name = "EXPORT")]
        export: Option<PathBuf>,
    },
    /// Check files of rules, without a cloud
    Check {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    if let Command::Check { files } = command {
        return check(session, &files);
    }
    if let Command::Test {
        rules: Some(rules),
        export: Some(export),
        ..
    } = &command
    {
        return dry_run::run(session, rules, export);
    }
    let client = session.client()?;
    match command {
        Command::List { all, limit } => {
            let state = if all { "&state=all" } else { "" };
            let path = format!("{PATH}?limit={limit}{state}");
            let found: Items<AlertView> =
                watch(&session.screen, "reading alerts", client.get(&path)).await?;
            session.screen.tabulate(&found, alerts);
        }
        Command::Ack { numbers } => {
            for number in numbers {
                let path = format!("{PATH}/{number}/acknowledge");
                let alert: AlertView = client.post(&path, &()).await?;
                session
                    .screen
                    .note(&format!("alert {number} ({}) is acknowledged", alert.rule));
            }
        }
        Command::Silence {
            lift: Some(number), ..
        } => {
            client.delete(&format!("{PATH}/silences/{number}")).await?;
            session
                .screen
                .note(&format!("silence {number} is taken back"));
        }
        Command::Silence {
            rule,
            about,
            most,
            lasts,
            reason,
            lift: None,
        } => {
            let lasts = lasts.unwrap_or_default();
            let until = when::parse(&format!("+{lasts}"), SystemClock.now())?;
            let request = SilenceRequest {
                rule,
                about,
                most: most.as_deref().map(severity).transpose()?,
                until: until.into(),
                reason: reason.unwrap_or_default(),
            };
            let silence: SilenceView = client.post(&format!("{PATH}/silences"), &request).await?;
            session.screen.tabulate(&silence, |silence| {
                silences(&Items {
                    items: vec![silence.clone()],
                })
            });
        }
        Command::Silences => {
            let found: Items<SilenceView> = client.get(&format!("{PATH}/silences")).await?;
            session.screen.tabulate(&found, silences);
        }
        Command::Rules => {
            let found: AlertRulesView = client.get(&format!("{PATH}/rules")).await?;
            session.screen.tabulate(&found, rules);
        }
        Command::Test { sink, .. } => {
            let request = AlertTestRequest { sink };
            let path = format!("{PATH}/test");
            let tried: Items<AlertTestView> = watch(
                &session.screen,
                "trying the sinks",
                client.post(&path, &request),
            )
            .await?;
            session.screen.tabulate(&tried, tests);
            if tried.items.iter().any(|test| !test.taken) {
                return Err(Failure::Quiet);
            }
        }
        Command::Check { .. } => {}
    }
    Ok(())
}

fn check(session: &Session, files: &[PathBuf]) -> Result<(), Failure> {
    let mut rules = Rules::default();
    for file in files {
        load_file(&mut rules, file).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    session
        .screen
        .note(&format!("{} rules are in order", rules.len()));
    Ok(())
}

fn severity(text: &str) -> Result<Severity, Failure> {
    text.parse().map_err(|()| {
        Failure::Usage(format!(
            "not a severity (notice, minor, critical): {text:?}"
        ))
    })
}

fn alerts(found: &Items<AlertView>) -> Table {
    let mut table = Table::new(&[
        "NUMBER",
        "SEVERITY",
        "STATE",
        "RULE",
        "ABOUT",
        "HITS",
        "LAST",
        "WHAT",
        "QUARANTINE",
    ]);
    for alert in &found.items {
        let about: Vec<String> = alert.about.split(' ').map(short).collect();
        table.row([
            alert.number.to_string(),
            alert.severity.to_string(),
            match alert.silenced {
                true => format!("{} (silenced)", alert.state.as_str()),
                false => alert.state.as_str().to_owned(),
            },
            alert.rule.clone(),
            or_dash(Some(about.join(" ")).filter(|about| !about.is_empty())),
            alert.hits.to_string(),
            alert.last.to_string(),
            alert.what.clone(),
            or_dash(alert.quarantine.clone()),
        ]);
    }
    table
}

fn silences(found: &Items<SilenceView>) -> Table {
    let mut table = Table::new(&["NUMBER", "RULE", "ABOUT", "UP TO", "UNTIL", "BY", "REASON"]);
    for silence in &found.items {
        table.row([
            silence.number.to_string(),
            or_dash(silence.rule.clone()),
            or_dash(silence.about.clone()),
            silence.most.to_string(),
            silence.until.to_string(),
            short(&silence.by),
            silence.reason.clone(),
        ]);
    }
    table
}

fn rules(found: &AlertRulesView) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "SEVERITY", "TEST", "STANDING", "SUMMARY"]);
    for rule in &found.rules {
        table.row([
            "rule".to_owned(),
            rule.name.clone(),
            rule.severity.to_string(),
            rule.test.clone(),
            if rule.quarantine && found.quarantine {
                "quarantines"
            } else {
                "-"
            }
            .to_owned(),
            rule.summary.clone(),
        ]);
    }
    for sink in &found.sinks {
        table.row([
            "sink".to_owned(),
            sink.name.clone(),
            format!("{} on", sink.least),
            "-".to_owned(),
            format!("{} waiting, {} given up", sink.waiting, sink.dead),
            match sink.error.is_empty() {
                true => sink.to.clone(),
                false => format!("{}: {}", sink.to, sink.error),
            },
        ]);
    }
    table
}

fn tests(tried: &Items<AlertTestView>) -> Table {
    let mut table = Table::new(&["SINK", "TAKEN", "ERROR"]);
    for test in &tried.items {
        table.row([
            test.sink.clone(),
            if test.taken { "yes" } else { "no" }.to_owned(),
            or_dash(Some(test.error.clone()).filter(|error| !error.is_empty())),
        ]);
    }
    table
}
