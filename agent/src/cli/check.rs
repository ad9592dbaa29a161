//! `edgeward-agent check`: what a node needs on this machine, one line each.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::TcpStream;

use super::screen::verdict;
use super::status::{ExplainArgs, What, explain};
use super::{Failure, Session};
use crate::config::{Config, TpmConfig};
use crate::machine::open_tpm;
use crate::root::{Root, RootError, SoftwareRoot, TpmRoot};
use crate::state::{FolderLock, LockError, StateFolder};
use crate::status::ask;
use crate::tpm::health::health;
use crate::tpm::{Priority, TpmError};

/// How long an address of the cloud may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
const TUN: &str = "/dev/net/tun";

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    good: bool,
    detail: String,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward-agent check                                                          is this machine ready?
  edgeward-agent check --from device/plc-17 --to line3/modbus --do read         may it, and why? as explain does
  edgeward-agent check --from gw-3 --to line3/admin --l7 'GET /status/3'

With --from and --to it asks the running agent, not the cloud. Exit codes: 0 all is well or allowed, 1 not, 2 wrong usage.";

/// `edgeward-agent check`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Who wants to reach something: a SPIFFE ID, a node's name, device/NAME or operator/NAME
    #[arg(long, value_name = "WHO", requires = "to")]
    pub from: Option<String>,
    /// What is to be reached
    #[arg(long, value_name = "SERVICE/INTERFACE", requires = "from")]
    pub to: Option<String>,
    #[command(flatten)]
    pub what: What,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    if let (Some(from), Some(to)) = (&arguments.from, &arguments.to) {
        let asked = ExplainArgs {
            from: from.clone(),
            to: to.clone(),
            what: arguments.what.clone(),
        };
        return explain(session, &asked).await;
    }
    let what = &arguments.what;
    if what.action.is_some() || what.l7.is_some() || what.through.is_some() {
        let wanted = "--do, --l7 and --through go with --from and --to";
        return Err(Failure::Usage(wanted.to_owned()));
    }
    let config = &session.config;
    let mut findings = Vec::new();
    match tpm(config, &mut findings).await {
        Ok(root) => node(config, root.as_ref(), &mut findings).await,
        Err(finding) => findings.push(finding),
    }
    if agent_runs(config) {
        findings.push(agent(config).await);
    }
    findings.push(tun());
    if config.enforce.kernel_leases {
        findings.push(nftables().await);
    }
    let all_good = findings.iter().all(|finding| finding.good);
    session.screen.answer(&findings, |findings| {
        let lines: Vec<String> = findings
            .iter()
            .map(|finding| {
                let verdict = verdict(session.screen, finding.good);
                format!("{verdict}  {:<12} {}", finding.what, finding.detail)
            })
            .collect();
        lines.join("\n")
    });
    match all_good {
        true => Ok(()),
        false => Err(Failure::Quiet),
    }
}

/// A TPM for a look at it, beside an agent that may be running.
pub(super) async fn borrow_tpm(config: &Config, tpm: &TpmConfig) -> Result<TpmRoot, Failure> {
    free_tpm(config, tpm)?;
    Ok(open_tpm(tpm, false).await?)
}

/// Whether another client than the agent may come.
pub(super) fn free_tpm(config: &Config, tpm: &TpmConfig) -> Result<(), Failure> {
    match tpm.place.shows_strangers_objects() && agent_runs(config) {
        true => Err(Failure::TpmInUse),
        false => Ok(()),
    }
}

async fn tpm(config: &Config, findings: &mut Vec<Finding>) -> Result<Box<dyn Root>, Finding> {
    let Some(tpm) = &config.tpm else {
        findings.push(good(
            "tpm",
            "none: tier software, which the policy must allow",
        ));
        return Ok(Box::new(SoftwareRoot::new(&config.state_dir)));
    };
    let failed = |error: Failure| bad("tpm", error);
    let root = match borrow_tpm(config, tpm).await {
        Ok(root) => root,
        Err(Failure::TpmInUse) => return Err(good("tpm", Failure::TpmInUse)),
        Err(error) => return Err(failed(error)),
    };
    let health = root
        .tpm()
        .call(Priority::Session, health)
        .await
        .map_err(|error: TpmError| failed(RootError::from(error).into()))?;
    findings.push(Finding {
        what: "tpm",
        good: health.lockout_counter < health.lockout_limit,
        detail: format!(
            "{} at {}, failed authorizations {} of {}",
            health.manufacturer, tpm.place.tcti, health.lockout_counter, health.lockout_limit
        ),
    });
    let ek = root.endorsement();
    let certificates = match ek.certificates.len() {
        0 => "no certificate: the cloud must list it".to_owned(),
        1 => "with its certificate".to_owned(),
        many => format!("with its certificate and a chain of {}", many - 1),
    };
    findings.push(good(
        "ek",
        format!("{}, {certificates}; sha-256 {}", ek.kind, root.ek_digest()),
    ));
    Ok(Box::new(root))
}

/// Who this machine is, and whether its cloud answers.
async fn node(config: &Config, root: &dyn Root, findings: &mut Vec<Finding>) {
    if !StateFolder::is_there(&config.state_dir) {
        findings.push(good("node", "not enrolled: edgeward-agent enrol"));
        return;
    }
    let found = match StateFolder::open(&config.state_dir, root).await {
        Ok((_, found)) => found,
        Err(error) => {
            findings.push(bad("node", error));
            return;
        }
    };
    let Some(held) = found.held else {
        return;
    };
    findings.push(match found.rolled_back {
        true => bad(
            "node",
            format!("{}; an older state was put back", held.node),
        ),
        false => good("node", &held.node),
    });
    let addresses = match config.cloud.is_empty() {
        true => &held.addresses,
        false => &config.cloud,
    };
    for address in addresses {
        findings.push(reach(address).await);
    }
}

/// What the running agent says of itself.
async fn agent(config: &Config) -> Finding {
    match ask(&config.enforce.status_socket).await {
        Ok(status) => Finding {
            what: "agent",
            good: status.connected,
            detail: format!(
                "runs as {}, session {}",
                status.node,
                if status.connected { "up" } else { "down" }
            ),
        },
        Err(error) => bad("agent", error),
    }
}

async fn reach(address: &str) -> Finding {
    match tokio::time::timeout(ANSWER_DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => good("cloud", format!("{address} answers")),
        Ok(Err(error)) => bad("cloud", format!("{address}: {error}")),
        Err(_) => {
            let limit = ANSWER_DEADLINE.as_secs();
            bad("cloud", format!("{address}: no answer within {limit} s"))
        }
    }
}

fn tun() -> Finding {
    match std::fs::OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => good("tunnel", TUN),
        Err(error) => bad("tunnel", format!("{TUN}: {error}")),
    }
}

async fn nftables() -> Finding {
    match tokio::process::Command::new("nft")
        .arg("--version")
        .output()
        .await
    {
        Ok(output) if output.status.success() => {
            good("nftables", String::from_utf8_lossy(&output.stdout).trim())
        }
        Ok(output) => bad("nftables", output.status),
        Err(error) => bad("nftables", format!("nft: {error}")),
    }
}

fn agent_runs(config: &Config) -> bool {
    config.state_dir.exists()
        && matches!(
            FolderLock::take(&config.state_dir),
            Err(LockError::Taken(_))
        )
}

fn good(what: &'static str, detail: impl ToString) -> Finding {
    Finding {
        what,
        good: true,
        detail: detail.to_string(),
    }
}

fn bad(what: &'static str, detail: impl ToString) -> Finding {
    Finding {
        good: false,
        ..good(what, detail)
    }
}
