//! `edgeward audit`.

use clap::{Args, Subcommand};
use edgeward_identity::{Clock, SystemClock};

use super::client::encode;
use super::{Failure, Session};
use crate::api::views::LossRequest;
use crate::when;

mod alerts;
mod coverage;
mod export;
mod exports;
mod proof;
mod query;
mod retention;
mod segment;
mod self_check;
mod show;
mod sites;
mod stats;
mod tail;
mod verify;
mod witness;

const EVENTS: &str = "/api/v1/audit/events";

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
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Count events by time and by one of their fields
    #[command(after_help = "\
Examples:
  edgeward audit stats --by type --from -7d
  edgeward audit stats --by node --verdict deny --bucket 1h
  edgeward audit stats --by family --bucket 5m --from -6h -o json     for a chart")]
    Stats(#[command(flatten)] stats::Arguments),
    /// Let the cloud check its whole log against what it signed: records, tiles, every kept checkpoint
    #[command(name = "self-check")]
    SelfCheck,
    /// Ask whether the record is complete: per boot of each node the range without gaps, and what is wrong
    Coverage {
        /// Only this node
        #[arg(long)]
        node: Option<String>,
    },
    /// Take note that records are lost for good, with a reason: coverage tells them apart from then on
    #[command(after_help = "\
Examples:
  edgeward audit acknowledge gw-3 5b6e0f0c2a9d4e7c8f1a3b5d7e9f0a1c 412 --reason 'disk failed, ticket 8812'

Node, boot and first number as `edgeward audit coverage` shows them.")]
    Acknowledge {
        node: String,
        boot: String,
        #[arg(value_name = "FIRST")]
        first_seq: u64,
        /// Why: it stands beside the loss, and in the log
        #[arg(long)]
        reason: String,
    },
    /// What rules over the log found: see it, acknowledge, silence, try who is told
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Write events with proofs to a file that anybody can check offline
    #[command(after_help = "\
Examples:
  edgeward audit export --from -30d --out november.jsonl
  edgeward audit export --node gw-3 --from -1d | gzip > gw-3.jsonl.gz

Lines of JSON: the log's key and signed checkpoint, then each record with its proof. `edgeward audit verify` checks them.")]
    Export(#[command(flatten)] export::Arguments),
    /// Write the proof of one event, with its record in it (a .tlog-proof, C2SP)
    #[command(after_help = "\
Examples:
  edgeward audit proof 73894 --out 73894.tlog-proof")]
    Proof(#[command(flatten)] proof::Arguments),
    /// Check an export, a proof or an archived segment offline: needs no cloud, only the log's key
    #[command(after_help = "\
Examples:
  edgeward audit verify november.jsonl --log-key plant.example/audit+1a2b3c4d+AZ…
  edgeward audit verify 73894.tlog-proof --log-key log.key
  edgeward audit verify november.jsonl --log-key log.key --checkpoint seen-elsewhere.txt
  edgeward audit verify 73894.tlog-proof --policy plant.policy

A policy (C2SP tlog-policy) names logs, witnesses and how many of these must have cosigned.
Without --log-key the file's own key is used: then everything hangs on whether that is the log's.")]
    Verify(#[command(flatten)] verify::Arguments),
    /// Whose logs this cloud cosigns as a witness, and who cosigns its own
    #[command(subcommand)]
    Witness(witness::Command),
    /// List the sites whose events are sealed by keys of their own, and what was erased
    Sites,
    /// Erase the events of a site for good: its keys are destroyed, proofs stay (admins)
    #[command(after_help = "\
Examples:
  edgeward audit sites
  edgeward audit erase --site berlin

Asks for the site's name once more; --yes does not. Exports that were sent already are not erased.")]
    Erase {
        /// The value of the nodes' label `site`; default: everything else
        #[arg(long)]
        site: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show for how long events are kept, the smallest index that is, and what keeps the next segment
    Retention,
    /// Show how far the archive of segments is
    Archive {
        /// The only word there is
        #[arg(value_parser = ["status"], default_value = "status", hide = true)]
        what: String,
    },
    /// Read archived segments of the log, offline
    #[command(subcommand)]
    Segment(segment::Command),
    /// Ask how far each receiver of the log has come, and what it refused
    #[command(after_help = "\
Examples:
  edgeward audit exports
  edgeward audit exports siem
  edgeward audit exports retry siem --index 4711

Receivers are named in [[audit.exports]] of the cloud's configuration.")]
    Exports(#[command(flatten)] exports::Arguments),
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
    match command {
        Command::Query {
            filter,
            from,
            to,
            limit,
            cursor,
        } => {
            let base = path_of(EVENTS, &filter, Some(&from), to.as_deref())?;
            query::query(session, &session.client()?, &base, limit, cursor).await
        }
        Command::Tail { filter, from } => {
            let path = path_of(EVENTS, &filter, from.as_deref(), None)?;
            let path = format!("{path}&follow=true");
            tail::tail(session, &session.client()?, &path).await
        }
        Command::Stats(arguments) => stats::run(session, &arguments).await,
        Command::Exports(arguments) => exports::run(session, &arguments).await,
        Command::Sites => sites::list(session).await,
        Command::Erase { site, yes } => sites::erase(session, &site, yes).await,
        Command::Retention => retention::show(session).await,
        Command::Archive { what: _ } => retention::archive(session).await,
        Command::Segment(command) => segment::run(session, &command),
        Command::SelfCheck => self_check::run(session, &session.client()?).await,
        Command::Coverage { node } => {
            coverage::show(session, &session.client()?, node.as_deref()).await
        }
        Command::Acknowledge {
            node,
            boot,
            first_seq,
            reason,
        } => {
            let request = LossRequest {
                node,
                boot,
                first_seq,
                reason,
            };
            coverage::acknowledge(session, &session.client()?, request).await
        }
        Command::Alerts(command) => alerts::run(session, command).await,
        Command::Export(arguments) => export::run(session, &arguments).await,
        Command::Proof(arguments) => proof::run(session, &arguments).await,
        Command::Verify(arguments) => verify::run(session, &arguments),
        Command::Witness(command) => witness::run(session, &command).await,
    }
}

fn path_of(
    path: &str,
    filter: &Filter,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<String, Failure> {
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
    Ok(format!("{path}?{}", query.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let path = path_of(EVENTS, &filter, Some("2026-01-01T00:00:00Z"), None).unwrap();
        assert_eq!(
            path,
            "/api/v1/audit/events?from=2026-01-01T00%3A00%3A00Z&actor=apikey%3Aa%26b&type=node.%2A"
        );
        assert!(path_of(EVENTS, &filter, Some("soon"), None).is_err());
    }
}
