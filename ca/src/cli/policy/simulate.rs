//! `edgeward policy simulate`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use edgeward_identity::{Clock, SystemClock, Timestamp};
use edgeward_policy::Proto;
use edgeward_policy::replay::{Outcome, Place, Recorded, Replay};
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::whole;
use crate::api::views::{EventPage, EventView};
use crate::cli::client::{Client, encode};
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};
use crate::when;

/// Most events that are replayed; what is older is replayed first.
const MAX_EVENTS: usize = 100_000;
/// Most different decisions that are replayed.
const MAX_DECISIONS: usize = 50_000;
const PAGE: u64 = 1_000;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward policy simulate policies/                  what was decided in the last day
  edgeward policy simulate policies/ --since 7d
  edgeward policy simulate policies/ -o json | jq '.changed[] | select(.outcome.closes)'

Asks every decision that nodes recorded again of these files. It shows what happened, not all that could: for that see
`edgeward policy diff`. Nodes count as they are now; evidence as at most two minutes old where a node was trusted; the
deciding node as in touch with the cloud. What a record does not say and would decide is listed as undecidable.";

/// `edgeward policy simulate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The candidate's directory
    dir: PathBuf,
    /// How far back decisions are replayed: a duration, or a time
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "24h",
        value_name = "TIME"
    )]
    since: String,
}

/// The answer, for machines.
#[derive(Debug, Default, Serialize)]
struct Answer {
    since: String,
    /// Reports of decisions that were replayed.
    reports: u64,
    /// What they count: flows, requests or packets.
    decisions: u64,
    same: u64,
    opens: u64,
    closes: u64,
    undecidable: u64,
    /// Reports that name nobody who could be asked about.
    nobody: u64,
    /// Decisions that nodes counted without telling them apart.
    left_out: u64,
    /// The log or the decisions went on beyond the limits.
    cut_short: bool,
    changed: Vec<Changed>,
}

/// Decisions of one kind that would come out otherwise, or may.
#[derive(Debug, Serialize)]
struct Changed {
    subject: String,
    node: String,
    to: String,
    action: Option<String>,
    /// `allow` or `deny`, as it was decided.
    was: &'static str,
    /// The rule by which.
    rule: Option<String>,
    outcome: Outcome,
    /// How many decisions.
    count: u64,
    last: when::When,
}

/// What was read of the log.
#[derive(Default)]
struct Read {
    /// Each decision once, with how often it was and when last.
    decisions: BTreeMap<Recorded, (u64, Timestamp)>,
    answer: Answer,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let candidate = whole::of_directory(session, &arguments.dir)?;
    let client = session.client()?;
    let since = since(&arguments.since, SystemClock.now())?;
    let fleet = whole::fleet(session, &client).await?;
    let read = read(session, &client, since).await?;
    let mut answer = read.answer;
    answer.since = when::format(since);
    let mut replay = Replay::new(&candidate, &fleet);
    for (mut recorded, (count, last)) in read.decisions {
        recorded.at = last;
        let outcome = replay.ask(&recorded);
        let sum = match outcome {
            Outcome::Same => &mut answer.same,
            Outcome::Opens { .. } => &mut answer.opens,
            Outcome::Closes { .. } => &mut answer.closes,
            Outcome::Undecidable { .. } => &mut answer.undecidable,
        };
        *sum += count;
        answer.decisions += count;
        if outcome != Outcome::Same {
            answer.changed.push(changed(recorded, outcome, count));
        }
    }
    answer
        .changed
        .sort_by_key(|changed| (order(&changed.outcome), std::cmp::Reverse(changed.count)));
    match session.wants_json() {
        true => session.screen.json(&answer),
        false => show(session, &answer),
    }
    Ok(())
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    match humantime::parse_duration(text) {
        Ok(duration) => Ok(now.minus(duration)),
        Err(_) => Ok(when::parse(text, now)?),
    }
}

async fn read(session: &Session, client: &Client, since: Timestamp) -> Result<Read, Failure> {
    let base = format!(
        "/api/v1/audit/events?type=flow.*&from={}&limit={PAGE}",
        encode(&when::format(since))
    );
    let mut read = Read::default();
    let (mut cursor, mut events): (Option<String>, usize) = (None, 0);
    loop {
        let path = match &cursor {
            None => base.clone(),
            Some(cursor) => format!("{base}&cursor={}", encode(cursor)),
        };
        let asked = watch(
            &session.screen,
            "reading recorded decisions",
            client.get(&path),
        );
        let page: EventPage = asked.await?;
        events += page.items.len();
        page.items.iter().for_each(|event| read.take(event));
        cursor = page.cursor;
        if !page.more || cursor.is_none() {
            return Ok(read);
        }
        if events >= MAX_EVENTS {
            read.answer.cut_short = true;
            return Ok(read);
        }
    }
}

impl Read {
    fn take(&mut self, event: &EventView) {
        if let Some(left_out) = event.detail.get("left_out") {
            self.answer.left_out += left_out.parse().unwrap_or(1);
            return;
        }
        let allowed = event.verdict == "allow";
        // What a node let out is decided where it goes in.
        if allowed
            && event
                .detail
                .get("direction")
                .is_some_and(|direction| direction == "out")
        {
            return;
        }
        let Some(recorded) = recorded(event, allowed) else {
            self.answer.nobody += 1;
            return;
        };
        self.answer.reports += 1;
        let count = ["verdicts", "requests", "packets"]
            .iter()
            .find_map(|unit| event.detail.get(*unit)?.parse().ok())
            .unwrap_or(1);
        let full = self.decisions.len() >= MAX_DECISIONS;
        if full && !self.decisions.contains_key(&recorded) {
            self.answer.cut_short = true;
            return;
        }
        let (sum, last) = self.decisions.entry(recorded).or_default();
        *sum += count;
        *last = (*last).max(event.time.0);
    }
}

fn recorded(event: &EventView, allowed: bool) -> Option<Recorded> {
    let detail = |key: &str| event.detail.get(key).filter(|value| *value != "-");
    let place = match detail("interface").and_then(|name| name.split_once('/')) {
        Some((service, name)) => Place::Interface {
            service: service.to_owned(),
            name: name.to_owned(),
        },
        None => {
            let named = detail("protocol")?;
            let proto = [Proto::Tcp, Proto::Udp]
                .into_iter()
                .find(|proto| proto.as_str() == named)?;
            Place::Port(proto, detail("port")?.parse().ok()?)
        }
    };
    Some(Recorded {
        subject: event.actor.parse().ok()?,
        node: event.subject.as_deref()?.parse().ok()?,
        place,
        action: detail("action").cloned(),
        state: detail("state").and_then(|state| state.parse().ok()),
        tier: detail("tier").and_then(|tier| tier.parse().ok()),
        allowed,
        rule: event.rule.clone(),
        // Decisions of one kind are asked about once, as of the last.
        at: Timestamp::default(),
    })
}

fn changed(recorded: Recorded, outcome: Outcome, count: u64) -> Changed {
    Changed {
        to: match &recorded.place {
            Place::Interface { service, name } => format!("{service}/{name}"),
            Place::Port(proto, port) => format!("{}/{port}", proto.as_str()),
        },
        subject: recorded.subject.to_string(),
        node: recorded.node.name().to_owned(),
        action: recorded.action,
        was: match recorded.allowed {
            true => "allow",
            false => "deny",
        },
        rule: recorded.rule,
        outcome,
        count,
        last: recorded.at.into(),
    }
}

fn order(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Closes { .. } => 0,
        Outcome::Opens { .. } => 1,
        Outcome::Undecidable { .. } => 2,
        Outcome::Same => 3,
    }
}

fn show(session: &Session, answer: &Answer) {
    let screen = &session.screen;
    if !answer.changed.is_empty() {
        let columns = [
            "WAS", "WOULD BE", "COUNT", "SUBJECT", "TO", "NODE", "ACTION", "BY", "WHY",
        ];
        let mut table = Table::new(&columns);
        for changed in &answer.changed {
            let or_dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
            let (would, why) = words(&changed.outcome);
            table.row([
                changed.was.to_owned(),
                would.to_owned(),
                changed.count.to_string(),
                changed.subject.clone(),
                changed.to.clone(),
                changed.node.clone(),
                or_dash(changed.action.as_ref()),
                or_dash(changed.rule.as_ref()),
                why,
            ]);
        }
        screen.table(&table);
    }
    screen.line(&format!(
        "{} decisions since {}: {} the same, {} would close, {} would open, {} undecidable",
        answer.decisions,
        answer.since,
        answer.same,
        answer.closes,
        answer.opens,
        answer.undecidable
    ));
    if answer.nobody > 0 {
        screen.note(&format!(
            "{} reports are about nobody known or no port of a policy: not replayed",
            answer.nobody
        ));
    }
    if answer.left_out > 0 {
        screen.note(&format!(
            "{} decisions were counted by nodes without telling them apart: not replayed",
            answer.left_out
        ));
    }
    if answer.cut_short {
        screen.note("there is more than is replayed at once: choose a later --since");
    }
}

fn words(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Same => ("same", String::new()),
        Outcome::Opens { rule } => ("allow", format!("by {rule}")),
        Outcome::Closes { because, rule } => {
            let rule = rule.as_ref().map(|rule| format!(" ({rule})"));
            ("deny", format!("{because}{}", rule.unwrap_or_default()))
        }
        Outcome::Undecidable { missing } => {
            ("unknown", format!("not recorded: {}", missing.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn event(verdict: &str, detail: &[(&str, &str)]) -> EventView {
        EventView {
            index: 0,
            time: AT.into(),
            kind: "flow.allowed".to_owned(),
            actor: "spiffe://plant.example/node/scada".to_owned(),
            subject: Some("spiffe://plant.example/node/press".to_owned()),
            verdict: verdict.to_owned(),
            rule: None,
            code: None,
            detail: detail
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            node: "spiffe://plant.example/node/press".to_owned(),
            boot: String::new(),
            seq: 0,
            hash: String::new(),
            received: AT.into(),
            claimed: false,
            record: None,
            truncated: None,
        }
    }

    #[test]
    fn what_names_nobody_or_no_place_is_counted_and_not_replayed() {
        let mut read = Read::default();
        read.take(&EventView {
            actor: "anonymous:192.0.2.1".to_owned(),
            ..event("deny", &[("interface", "line/ssh")])
        });
        read.take(&event("deny", &[("interface", "-"), ("protocol", "1")]));
        read.take(&event("deny", &[("left_out", "7")]));
        assert!(read.decisions.is_empty());
        assert_eq!((read.answer.nobody, read.answer.left_out), (2, 7));
    }

    #[test]
    fn what_a_node_let_out_counts_where_it_goes_in_and_what_it_did_not_counts() {
        let mut read = Read::default();
        let out = [("interface", "line/ssh"), ("direction", "out")];
        read.take(&event("allow", &out));
        assert!(read.decisions.is_empty());
        read.take(&event("deny", &out));
        assert_eq!(read.decisions.len(), 1);
    }

    #[test]
    fn reports_of_one_decision_add_up_by_their_units() {
        let mut read = Read::default();
        let common = [("interface", "line/ssh"), ("state", "trusted")];
        for unit in ["verdicts", "requests", "packets"] {
            let detail = [common.as_slice(), &[(unit, "5")]].concat();
            read.take(&event("allow", &detail));
        }
        let (recorded, (count, last)) = read.decisions.into_iter().next().unwrap();
        assert_eq!((count, last), (15, AT));
        assert_eq!(
            recorded.state,
            Some(edgeward_identity::AttestationState::Trusted)
        );
    }

    #[test]
    fn how_far_back_is_a_duration_or_a_time() {
        let hour = AT.minus(std::time::Duration::from_secs(3600));
        assert_eq!(since("1h", AT).unwrap(), hour);
        assert_eq!(since("-1h", AT).unwrap(), hour);
        assert!(since("yesterday", AT).is_err());
    }
}
