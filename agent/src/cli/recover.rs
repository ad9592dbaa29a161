//! `edgeward-agent recover`.

use std::time::Duration;

use clap::Args;
use edgeward_identity::SpiffeId;
use serde::Serialize;

use super::{Failure, Session};
use crate::machine;
use crate::recover::start::{Parts, insist, look, random, svid_ends};
use crate::recover::{NotBack, Pace};

pub(super) const EXAMPLES: &str = "\
Examples:
  systemctl stop edgeward-agent && edgeward-agent recover && systemctl start edgeward-agent
  edgeward-agent recover --timeout 5m      give up after five minutes
  edgeward-agent recover --force           even though the certificate is good

A running agent does this by itself: after an outage that outlasted its certificate, after tpm2_clear, and on a disk that
was put back. The TPM's endorsement key speaks for the node, so no token is needed; the cloud counts each time, and asks
an operator when there were too many (edgeward node approve NAME).";

/// `edgeward-agent recover`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How long to try, an operator's approval included
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Recover although the certificate is good and its key is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Serialize)]
struct Recovered {
    node: SpiffeId,
    /// Why it had to; stable code.
    loss: &'static str,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let screen = session.screen;
    let config = &session.config;
    let machine = machine::take(config).await?;
    let parts = Parts {
        state_dir: &config.state_dir,
        cloud: &config.cloud,
        root: machine.root.as_ref(),
        boot: &machine.boot,
        clock: &machine.clock,
    };
    let lost = match look(parts).await? {
        Some(lost) => lost,
        None => {
            let ends = svid_ends(parts)
                .await
                .filter(|ends| *ends > machine.clock.now() && !arguments.force);
            if let Some(ends) = ends {
                return Err(Failure::NothingLost(ends.to_string()));
            }
            insist(parts).await?
        }
    };
    screen.note(&format!("{}: {}", lost.known.node, lost.loss));
    let tries = async {
        let mut pace = Pace::new(machine.clock.boottime());
        loop {
            let error = match lost.once(parts, &screen).await {
                Ok(()) => return Ok(()),
                Err(error @ (NotBack::Waits(_) | NotBack::Later(_))) => error,
                Err(error) => return Err(error),
            };
            let now = machine.clock.boottime();
            pace.failed(now, Duration::ZERO, random());
            let wait = pace.wait(now);
            screen.note(&format!("{error}; asking again in {} s", wait.as_secs()));
            tokio::time::sleep(wait).await;
        }
    };
    tokio::time::timeout(arguments.timeout, tries)
        .await
        .map_err(|_| Failure::NotBackInTime(arguments.timeout))??;
    let recovered = Recovered {
        node: lost.known.node.clone(),
        loss: lost.loss.code(),
    };
    screen.answer(&recovered, |recovered| {
        format!("recovered: {}", recovered.node)
    });
    Ok(())
}
