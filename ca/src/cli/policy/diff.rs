//! `edgeward policy diff`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use edgeward_identity::{Clock, SystemClock};
use edgeward_policy::space::{self, Change, Closing, Diff, Flow, Region, Said};
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::whole;
use crate::api::views::{EventPage, EventView};
use crate::cli::client::{Client, encode};
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};
use crate::when;

/// Most events that are read for the flows that would close.
const MAX_EVENTS: usize = 20_000;
const PAGE: u64 = 1_000;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward policy diff old/ new/                          two directories; needs no cloud
  edgeward policy diff --live new/                        against the policy in force, and the flows that would end
  edgeward policy diff old/ new/ -o json | jq .change     same, narrower, wider or mixed

Every line is a part of the decision space in which each verdict changes; the lines together are all of it. A column
that says - does not matter there. MOVED and BESIDE are what changes without a verdict: ports, patterns, profiles.
Exit codes: 0 compared, 1 a policy is not sound or the cloud refused, 2 wrong usage.";

/// `edgeward policy diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The policy before and the one after; with --live only the one after
    #[arg(required = true, num_args = 1..=2, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Compare with the policy in force, and list the recorded flows that would end
    #[arg(long)]
    live: bool,
    /// How far back flows count as live; a relative or RFC 3339 time
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "-24h",
        requires = "live",
        value_name = "TIME"
    )]
    since: String,
    /// Compare from this time on; rules that ended before make no difference
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "now",
        value_name = "TIME"
    )]
    at: String,
}

/// The answer, for machines.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    diff: Diff,
    /// Recorded flows that would end; absent where the cloud was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<Vec<Closing>>,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let at = when::parse(&arguments.at, SystemClock.now())?;
    let (before, after, client) = match (arguments.live, arguments.dirs.as_slice()) {
        (false, [before, after]) => (
            whole::of_directory(session, before)?,
            whole::of_directory(session, after)?,
            None,
        ),
        (true, [after]) => {
            let after = whole::of_directory(session, after)?;
            let client = session.client()?;
            (
                whole::in_force(session, &client).await?,
                after,
                Some(client),
            )
        }
        (false, _) => {
            let wanted =
                "two directories are compared, or one with the policy in force: --live DIR";
            return Err(Failure::Usage(wanted.to_owned()));
        }
        (true, _) => {
            let wanted = "--live compares one directory with the policy in force";
            return Err(Failure::Usage(wanted.to_owned()));
        }
    };
    let diff = space::diff(&before, &after, at)
        .map_err(|error| Failure::Answer(format!("the policies cannot be compared: {error}")))?;
    let closing = match &client {
        None => None,
        Some(client) => {
            let flows = flows(session, client, &arguments.since).await?;
            let fleet = whole::fleet(session, client).await?;
            Some(space::closing(&flows, &after, &fleet, at))
        }
    };
    let answer = Answer { diff, closing };
    match session.wants_json() {
        true => session.screen.json(&answer),
        false => show(session, &answer),
    }
    Ok(())
}

/// Flows that nodes recorded as allowed, each once.
async fn flows(session: &Session, client: &Client, since: &str) -> Result<Vec<Flow>, Failure> {
    let since = when::format(when::parse(since, SystemClock.now())?);
    let base = format!(
        "/api/v1/audit/events?type=flow.allowed&from={}&limit={PAGE}",
        encode(&since)
    );
    let mut found = BTreeSet::new();
    let mut cursor: Option<String> = None;
    let mut read = 0;
    loop {
        let path = match &cursor {
            None => base.clone(),
            Some(cursor) => format!("{base}&cursor={}", encode(cursor)),
        };
        let asked = watch(&session.screen, "reading recorded flows", client.get(&path));
        let page: EventPage = asked.await?;
        read += page.items.len();
        found.extend(page.items.iter().filter_map(flow));
        cursor = page.cursor;
        if !page.more || cursor.is_none() {
            break;
        }
        if read >= MAX_EVENTS {
            session.screen.note(&format!(
                "only the first {read} flow events since {since} were read: later flows may end, too"
            ));
            break;
        }
    }
    Ok(found.into_iter().collect())
}

/// As the node recorded it that let the flow in.
fn flow(event: &EventView) -> Option<Flow> {
    let node = event.subject.as_deref()?;
    // What a node let out is decided where it goes in.
    if node != event.node {
        return None;
    }
    let (service, interface) = event.detail.get("interface")?.split_once('/')?;
    let action = event.detail.get("action").filter(|action| *action != "-");
    Some(Flow {
        subject: event.actor.parse().ok()?,
        node: node.parse().ok()?,
        service: service.to_owned(),
        interface: interface.to_owned(),
        action: action.cloned(),
        rule: event.rule.clone(),
    })
}

fn show(session: &Session, answer: &Answer) {
    let screen = &session.screen;
    let diff = &answer.diff;
    if !diff.regions.is_empty() {
        screen.table(&regions(&diff.regions));
    }
    if !diff.moved.is_empty() {
        let mut table = Table::new(&["MOVED", "WHAT", "BEFORE", "AFTER", "CHANGE"]);
        for moved in &diff.moved {
            table.row([
                moved.to.clone(),
                moved.what.to_owned(),
                moved.before.clone(),
                moved.after.clone(),
                moved.change.as_str().to_owned(),
            ]);
        }
        screen.table(&table);
    }
    if !diff.beside.is_empty() {
        let mut table = Table::new(&["BESIDE", "NAME", "WHAT"]);
        for beside in &diff.beside {
            table.row([
                beside.kind.to_owned(),
                beside.name.clone(),
                beside.what.to_owned(),
            ]);
        }
        screen.table(&table);
    }
    if let Some(closing) = &answer.closing {
        if !closing.is_empty() {
            screen.table(&flows_table(closing));
        }
        screen.line(&format!("{} recorded flows would end", closing.len()));
    }
    screen.line(&verdict(diff.change));
}

fn verdict(change: Change) -> String {
    let words = match change {
        Change::Same => "no verdict changes",
        Change::Narrower => "what changes becomes a denial",
        Change::Wider => "what changes becomes an allow",
        Change::Mixed => "some verdicts may become denials, others allows",
    };
    format!("{}: {words}", change.as_str())
}

fn regions(regions: &[Region]) -> Table {
    let mut table = Table::new(&[
        "CHANGE", "TO", "WHO", "DO", "STATE", "TIER", "WHEN", "BEFORE", "AFTER", "FURTHER",
    ]);
    let mut rows: Vec<([String; 9], Vec<String>)> = Vec::new();
    for region in regions {
        let joined = |words: Option<Vec<String>>| words.map_or("-".to_owned(), |w| w.join(","));
        let change = match region.direction {
            space::Direction::AllowToDeny => "closes",
            space::Direction::DenyToAllow => "opens",
        };
        let states = region.states.as_ref();
        let states = states.map(|all| all.iter().map(ToString::to_string).collect());
        let tiers = region.tiers.as_ref();
        let tiers = tiers.map(|all| all.iter().map(|tier| (*tier).to_owned()).collect());
        let row = [
            change.to_owned(),
            region.to.clone(),
            region.who.names.join(", "),
            joined(region.actions.clone()),
            joined(states),
            joined(tiers),
            region
                .when
                .as_ref()
                .map_or("-".to_owned(), |when| when.join("; ")),
            said(&region.before),
            said(&region.after),
        ];
        match rows.iter_mut().find(|(known, _)| *known == row) {
            Some((_, all)) => all.push(further(region)),
            None => rows.push((row, vec![further(region)])),
        }
    }
    for (row, further) in rows {
        table.row(row.into_iter().chain([further.join(" | ")]));
    }
    table
}

/// The dimensions that seldom matter.
fn further(region: &Region) -> String {
    let mut words = Vec::new();
    words.extend(
        region
            .offered
            .map(|which| format!("on nodes that offer it only {which}")),
    );
    words.extend(
        region
            .profiles
            .iter()
            .map(|profile| format!("profile {profile}")),
    );
    words.extend(region.link.as_ref().map(|link| link.join(" or ")));
    words.extend(
        region
            .age
            .as_ref()
            .map(|age| format!("pass {}", age.join(" or "))),
    );
    words.extend(region.approvals.iter().cloned());
    match words.is_empty() {
        true => "-".to_owned(),
        false => words.join("; "),
    }
}

fn said(said: &Said) -> String {
    let word = if said.allow { "allow" } else { "deny" };
    match said.rules.as_slice() {
        [] => format!("{word} ({})", said.because),
        rules => format!("{word} by {}", rules.join(", ")),
    }
}

fn flows_table(closing: &[Closing]) -> Table {
    let mut table = Table::new(&["ENDS", "AT", "TO", "DO", "ALLOWED BY", "BECAUSE", "RULE"]);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let short = |id: &edgeward_identity::SpiffeId| format!("{}/{}", id.kind().as_str(), id.name());
    for one in closing {
        table.row([
            short(&one.flow.subject),
            short(&one.flow.node),
            format!("{}/{}", one.flow.service, one.flow.interface),
            or_dash(&one.flow.action),
            or_dash(&one.flow.rule),
            one.because.clone(),
            or_dash(&one.rule),
        ]);
    }
    table
}
