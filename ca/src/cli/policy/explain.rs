//! `edgeward policy explain`.

use std::path::PathBuf;

use clap::Args;
use edgeward_identity::{AttestationState, Clock, SystemClock, Tier};
use edgeward_policy::Seconds;
use edgeward_policy::space::{self, Ask, Asker};

use super::whole::{self, label_map, labels};
use crate::cli::{Failure, Session};
use crate::when;

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward policy explain policies/ --from group:scada --to line3/modbus --do read
  edgeward policy explain policies/ --from operator-group:vendor --to line3/admin --do write --at 2026-11-22T02:30:00+08:00
  edgeward policy explain policies/ --from node/gw-3 --labels site=suzhou,role=gateway --to line3/admin --do read --state stale
  edgeward policy explain --from node/gw-3 --to line3/modbus --l7 'fc:3 addr:10'       the policy in force, labels by the cloud

--from is group:NAME (several: in all of them), operator-group:NAME, operator/NAME, node/NAME or device/NAME. What is not
said is as a rule that says nothing asks for: state trusted, a pass just now, heard from the cloud, time now.
Exit codes: 0 answered, allowed or not, 1 the policy is not sound or has no such thing, 2 wrong usage.";

/// `edgeward policy explain`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The policy's directory; the policy in force if absent
    dir: Option<PathBuf>,
    /// Who asks: group:NAME, operator-group:NAME, operator/NAME, node/NAME, device/NAME
    #[arg(long, required = true, value_name = "WHO")]
    from: Vec<String>,
    /// What is to be reached
    #[arg(long, value_name = "SERVICE/INTERFACE")]
    to: String,
    /// What is to be done there; connect where the interface has no protocol
    #[arg(long = "do", value_name = "ACTION")]
    action: Option<String>,
    /// One request instead: 'GET /status/3', 'publish line3/a/temp', 'fc:3 addr:10'
    #[arg(long, value_name = "REQUEST")]
    l7: Option<String>,
    /// When: RFC 3339, or relative to now
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "now",
        value_name = "TIME"
    )]
    at: String,
    /// Its attestation state: trusted, stale, failed, vouched, none
    #[arg(long, value_parser = state)]
    state: Option<AttestationState>,
    /// How its identity is rooted: hardware, listed, virtual, software
    #[arg(long, value_parser = tier)]
    tier: Option<Tier>,
    /// How long ago its last evidence passed
    #[arg(long, default_value = "0s", value_parser = seconds, value_name = "TIME")]
    age: Seconds,
    /// The node that decides has not heard from the cloud for so long
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    offline: Option<Seconds>,
    /// Profiles that its result names; those of its groups if absent
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Option<Vec<String>>,
    /// What its evidence says that it runs; unknown if absent
    #[arg(long, value_name = "PUBLISHER/NAME@VERSION")]
    runs: Option<Vec<String>>,
    /// It has every approval that a rule asks for
    #[arg(long)]
    approved: bool,
    /// Labels of node/NAME; the cloud's if absent
    #[arg(long, value_delimiter = ',', value_parser = labels, value_name = "KEY=VALUE,...")]
    labels: Vec<(String, String)>,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let at = when::parse(&arguments.at, SystemClock.now())?;
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let (service, interface) = arguments
        .to
        .split_once('/')
        .ok_or_else(|| usage("--to is a service and one of its interfaces: line3/modbus"))?;
    let action = match (&arguments.action, &arguments.l7) {
        (None, None) => Some(edgeward_policy::slice::CONNECT.to_owned()),
        (action, _) => action.clone(),
    };
    let mut tier = arguments.tier;
    let from = asker(session, arguments, &mut tier).await?;
    let policy = match &arguments.dir {
        Some(dir) => whole::of_directory(session, dir)?,
        None => whole::in_force(session, &session.client()?).await?,
    };
    let ask = Ask {
        from,
        service: service.to_owned(),
        interface: interface.to_owned(),
        action,
        request: arguments.l7.clone(),
        at,
        state: arguments.state,
        tier,
        age: arguments.age,
        offline: arguments.offline,
        profiles: arguments.profiles.clone(),
        runs: arguments.runs.clone(),
        approved: arguments.approved,
    };
    let explained =
        space::ask(&policy, &ask).map_err(|error| Failure::NoAnswer(error.to_string()))?;
    match session.wants_json() {
        true => session.screen.json(&explained),
        false => {
            let text = explained.to_string();
            text.lines().for_each(|line| session.screen.told(line));
        }
    }
    Ok(())
}

/// Who asks; a node without labels is looked up in the cloud.
async fn asker(
    session: &Session,
    arguments: &Arguments,
    tier: &mut Option<Tier>,
) -> Result<Asker, Failure> {
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let all = |prefix: &str| -> Option<Vec<String>> {
        let names = arguments.from.iter();
        names
            .map(|name| name.strip_prefix(prefix).map(str::to_owned))
            .collect()
    };
    if let Some(groups) = all("group:") {
        return Ok(Asker::Groups(groups));
    }
    if let Some(groups) = all("operator-group:") {
        return Ok(Asker::OperatorGroups(groups));
    }
    let [one] = arguments.from.as_slice() else {
        return Err(usage(
            "several --from are groups of one kind: somebody in all of them",
        ));
    };
    match one.split_once('/') {
        Some(("operator", name)) => Ok(Asker::Operator(name.to_owned())),
        Some(("device", name)) => Ok(Asker::Device(name.to_owned())),
        Some(("node", name)) if !arguments.labels.is_empty() => Ok(Asker::Node {
            name: name.to_owned(),
            labels: label_map(&arguments.labels),
        }),
        Some(("node", name)) => {
            let fleet = whole::fleet(session, &session.client()?).await?;
            let node = fleet.nodes.into_iter().find(|node| node.id.name() == name);
            let node = node.ok_or_else(|| {
                Failure::NoAnswer(format!(
                    "no active node of that name: {name}; give its --labels"
                ))
            })?;
            tier.get_or_insert(node.tier);
            Ok(Asker::Node {
                name: name.to_owned(),
                labels: node.labels,
            })
        }
        _ => Err(usage(
            "--from is group:NAME, operator-group:NAME, operator/NAME, node/NAME or device/NAME",
        )),
    }
}

fn state(text: &str) -> Result<AttestationState, String> {
    let known = AttestationState::ALL
        .into_iter()
        .find(|state| state.as_str() == text);
    known.ok_or_else(|| "trusted, stale, failed, vouched or none".to_owned())
}

pub(super) fn tier(text: &str) -> Result<Tier, String> {
    let known = Tier::ALL.into_iter().find(|tier| tier.as_str() == text);
    known.ok_or_else(|| "hardware, listed, virtual or software".to_owned())
}

fn seconds(text: &str) -> Result<Seconds, String> {
    text.parse()
        .map_err(|error| format!("{error}: 30s, 10m, 72h, 7d"))
}
