//! `edgeward app observed`: what nodes in observe mode would have denied, and the policy that would allow it.

use std::collections::BTreeMap;

use clap::Args;
use edgeward_apps::AppName;
use edgeward_identity::{Clock, SystemClock};
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::super::client::{Line, encode};
use super::super::progress::watch;
use super::super::screen::or_dash;
use super::super::{Failure, Session};
use crate::api::views::{EventPage, EventView};
use crate::when;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app observed gw-3
  edgeward app observed gw-3 --from -7d --policy --group gateways > policies/observed.toml

Under mode = \"observe\" nodes let run what they would deny, and tell. --policy prints rules that would allow what a
publisher signed; files that nobody signed stay comments: they can be allowed by nobody, only signed.";

/// Events asked for in one page.
const PAGE: u64 = 500;
/// Most events that are looked at.
const MAX_EVENTS: u64 = 100_000;

/// `edgeward app observed`.
#[derive(Debug, Args)]
pub struct Observed {
    node: String,
    /// Since when
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "-24h",
        value_name = "TIME"
    )]
    from: String,
    /// Print rules for the policy instead of what was seen
    #[arg(long, requires = "group")]
    policy: bool,
    /// The group of the policy that the node is in
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

/// What would have been denied for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct What {
    /// `publisher/name`, where it is an app.
    app: Option<String>,
    version: Option<String>,
    digest: Option<String>,
    path: Option<String>,
    /// Code of the refusal.
    reason: String,
}

#[derive(Debug, Serialize)]
struct Seen {
    #[serde(flatten)]
    what: What,
    count: u64,
}

pub(super) async fn run(session: &Session, arguments: &Observed) -> Result<(), Failure> {
    let events = events(session, arguments).await?;
    let seen = summed(&events);
    if seen.is_empty() {
        session.screen.note(&format!(
            "nothing of {} since {}: is it the node's name, and has a group of it mode = \"observe\"?",
            arguments.node, arguments.from
        ));
    }
    match (arguments.policy, &arguments.group) {
        (true, Some(group)) => session
            .screen
            .line(policy(&seen, group, &arguments.node)?.trim_end()),
        _ => session.screen.tabulate(&seen, |seen| table(seen)),
    }
    Ok(())
}

async fn events(session: &Session, arguments: &Observed) -> Result<Vec<EventView>, Failure> {
    let from = when::format(when::parse(&arguments.from, SystemClock.now())?);
    let base = format!(
        "/api/v1/audit/events?type=app.would_deny&node={}&from={}&limit={PAGE}",
        encode(&arguments.node),
        encode(&from)
    );
    let client = session.client()?;
    let mut line = Line::new(&client);
    let (mut events, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let path = match &cursor {
            Some(cursor) => format!("{base}&cursor={}", encode(cursor)),
            None => base.clone(),
        };
        let page: EventPage =
            watch(&session.screen, "reading the log", line.get_json(&path)).await?;
        let ended = !page.more || page.cursor.is_none();
        events.extend(page.items);
        cursor = page.cursor;
        if events.len() as u64 >= MAX_EVENTS && !ended {
            session.screen.note(&format!(
                "only the first {MAX_EVENTS} events were looked at: begin later with --from"
            ));
            return Ok(events);
        }
        if ended {
            return Ok(events);
        }
    }
}

fn summed(events: &[EventView]) -> Vec<Seen> {
    let mut sums: BTreeMap<What, u64> = BTreeMap::new();
    for event in events {
        let detail = |key: &str| event.detail.get(key).cloned();
        let app = event
            .subject
            .as_ref()
            .filter(|app| app.parse::<AppName>().is_ok());
        let what = What {
            app: app.cloned(),
            version: detail("version"),
            digest: detail("digest"),
            path: detail("path"),
            reason: event.code.clone().unwrap_or_default(),
        };
        let count = detail("count").and_then(|count| count.parse().ok());
        let sum = sums.entry(what).or_default();
        *sum = sum.saturating_add(count.unwrap_or(1));
    }
    sums.into_iter()
        .map(|(what, count)| Seen { what, count })
        .collect()
}

fn table(seen: &[Seen]) -> Table {
    let mut table = Table::new(&["APP", "VERSION", "PATH", "REASON", "COUNT", "SHA256"]);
    for Seen { what, count } in seen {
        table.row([
            or_dash(what.app.clone()),
            or_dash(what.version.clone()),
            or_dash(what.path.clone()),
            what.reason.clone(),
            count.to_string(),
            or_dash(what.digest.clone()),
        ]);
    }
    table
}

/// Text from nodes stands in comments and quotes only: no line of it may become a rule.
fn policy(seen: &[Seen], group: &str, node: &str) -> Result<String, Failure> {
    let named = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if !named(group) {
        return Err(Failure::Usage(format!("not a group's name: {group:?}")));
    }
    let mut apps: BTreeMap<AppName, u64> = BTreeMap::new();
    let mut rest = Vec::new();
    for Seen { what, count } in seen {
        match what
            .app
            .as_ref()
            .and_then(|app| app.parse::<AppName>().ok())
        {
            Some(app) => {
                let sum = apps.entry(app).or_default();
                *sum = sum.saturating_add(*count);
            }
            None => rest.push((what, count)),
        }
    }
    let mut text = format!(
        "# What {} would have denied. Look at each before it is allowed.\n[apps.{group}]\nmode = \"observe\"\nallow = [\n",
        plain(node)
    );
    for (app, count) in &apps {
        let (publisher, name) = (app.publisher(), app.name());
        text.push_str(&format!(
            "    {{ publisher = \"{publisher}\", name = \"{name}\" }},  # {count} times\n"
        ));
    }
    text.push_str("]\n");
    for (what, count) in rest {
        let shown = |part: &Option<String>| plain(part.as_deref().unwrap_or("-"));
        text.push_str(&format!(
            "# signed by nobody: {} {} sha256:{} {count} times\n",
            shown(&what.path),
            plain(&what.reason),
            shown(&what.digest)
        ));
    }
    Ok(text)
}

fn plain(text: &str) -> String {
    let plain = |char: char| match char.is_control() {
        true => '?',
        false => char,
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(app: Option<&str>, path: &str) -> Seen {
        let what = What {
            app: app.map(str::to_owned),
            version: None,
            digest: Some("aa".to_owned()),
            path: Some(path.to_owned()),
            reason: "unlisted".to_owned(),
        };
        Seen { what, count: 3 }
    }

    #[test]
    fn what_a_node_tells_becomes_no_rule_but_that_of_a_signed_app() {
        let told = [
            seen(None, "/apps/x\nallow = [{ publisher = \"evil\" }]"),
            seen(Some("acme/collector"), "/x"),
            seen(Some("acme/collector"), "/y"),
        ];
        let text = policy(&told, "gateways", "gw\n[evil]").unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table.len(), 1);
        let group = &table["apps"]["gateways"];
        assert_eq!(group["mode"].as_str(), Some("observe"));
        let allow = group["allow"].as_array().unwrap();
        assert_eq!(allow.len(), 1);
        assert_eq!(allow[0]["name"].as_str(), Some("collector"));
        assert!(text.contains("# 6 times"), "{text}");
        assert!(policy(&told, "a]\n[b", "gw").is_err());
    }
}
