//! `edgeward policy approve` and `edgeward policy approvals`.

use std::time::Duration;

use clap::{Args, Subcommand};
use edgeward_identity::{Clock, Kind, SpiffeId, SystemClock, TrustDomain};
use edgeward_runtime::screen::Table;

use crate::api::Items;
use crate::api::views::{ApprovalRequest, ApprovalTermsView, ApprovalView};
use crate::approvals::message;
use crate::cli::client::encode;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

const PATH: &str = "/api/v1/approvals";

/// `edgeward policy approve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgeward policy approve vendor-maintenance --for operator/acme
  edgeward policy approve vendor-maintenance --for spiffe://plant.example/operator/acme --for-time 30m

Signed with your key, for this very text of the rule. It counts once as many of those whom the rule names have approved
of the same; nodes hear of it within a second.")]
pub struct Approve {
    /// Id of a rule that asks for an approval
    rule: String,
    /// For whom it shall count: a SPIFFE ID, or node/NAME, operator/NAME, device/NAME
    #[arg(long = "for", value_name = "SUBJECT")]
    subject: String,
    /// For how long; as long as the rule lets it if absent
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    for_time: Option<Duration>,
}

/// `edgeward policy approvals`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List approvals that have not ended
    List,
    /// Revoke an approval: what it let happen ends within a second
    Revoke {
        /// Its number
        number: u64,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::List => {
            let list: Items<ApprovalView> =
                watch(&session.screen, "listing approvals", client.get(PATH)).await?;
            session.screen.tabulate(&list.items, |items| table(items));
        }
        Command::Revoke { number } => {
            let path = format!("{PATH}/{number}");
            watch(
                &session.screen,
                "revoking the approval",
                client.delete(&path),
            )
            .await?;
            let note = format!("approval {number} is revoked");
            session.screen.note(&note);
        }
    }
    Ok(())
}

pub(super) async fn approve(session: &Session, approve: Approve) -> Result<(), Failure> {
    let client = session.client()?;
    let domain = client.trust_domain().clone();
    let subject = subject_of(&approve.subject, &domain)?;
    let path = format!("{PATH}/rules/{}", encode(&approve.rule));
    let terms: ApprovalTermsView = client.get(&path).await?;
    let longest = Duration::from_secs(terms.ttl_seconds);
    let until = SystemClock.now().plus(match approve.for_time {
        Some(time) => time,
        // The clocks of two machines differ by some seconds.
        None => longest.saturating_sub(Duration::from_secs(5).min(longest / 10)),
    });
    let signed = message(&domain, &approve.rule, &terms.digest, &subject, until);
    let request = ApprovalRequest {
        signature: hex::encode(client.sign(&signed)?),
        rule: approve.rule,
        digest: terms.digest,
        subject: subject.to_string(),
        until: until.millis(),
    };
    let given: ApprovalView =
        watch(&session.screen, "approving", client.post(PATH, &request)).await?;
    if !given.in_force {
        let quorum = given.quorum.unwrap_or_default();
        let note = format!(
            "{} of {quorum} operators have approved: it does not count yet",
            given.have
        );
        session.screen.note(&note);
    }
    session.screen.tabulate(&vec![given], |items| table(items));
    Ok(())
}

fn subject_of(text: &str, domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{text}: write a SPIFFE ID, or node/NAME, operator/NAME, device/NAME"
        ))
    };
    if text.starts_with("spiffe://") {
        return text.parse().map_err(|_| wrong());
    }
    let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
    let kind = match kind {
        "node" => Kind::Node,
        "operator" => Kind::Operator,
        "device" => Kind::Device,
        _ => return Err(wrong()),
    };
    SpiffeId::new(domain, kind, name).map_err(|_| wrong())
}

fn table(approvals: &[ApprovalView]) -> Table {
    let mut table = Table::new(&[
        "NUMBER", "RULE", "FOR", "BY", "UNTIL", "STATUS", "HAVE", "IN FORCE",
    ]);
    for one in approvals {
        let quorum = one
            .quorum
            .map_or_else(|| "-".to_owned(), |quorum| quorum.to_string());
        table.row([
            one.number.to_string(),
            one.rule.clone(),
            one.subject.clone(),
            one.approver.clone(),
            one.until.to_string(),
            one.status.clone(),
            format!("{} of {quorum}", one.have),
            if one.in_force { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}
