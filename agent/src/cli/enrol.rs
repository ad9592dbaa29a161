//! `edgeward-agent enrol`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use edgeward_identity::SpiffeId;
use edgeward_wire::token::BootstrapToken;
use serde::Serialize;

use super::{Failure, Session, token};
use crate::config::Config;
use crate::enrol::{Claim, Enrolment};
use crate::machine;
use crate::root::Root;
use crate::state::{Found, Origin, StateFolder};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward-agent enrol --token-file /run/token
  ssh operator@cloud edgeward token create --name gw-3 | edgeward-agent enrol
  edgeward-agent enrol --token edgeward1... --name gw-4     where the token allows a pattern of names

A token on the command line is seen by whoever may list processes: prefer a file or standard input.";

/// `edgeward-agent enrol`.
#[derive(Clone, Default, Args)]
pub struct Arguments {
    /// The bootstrap token; without it and --token-file it is read from standard input
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// The file that holds the token; - is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The name to ask for, where the token leaves a choice
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub name: String,
    /// How long to wait for an operator's approval, where one is needed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Give up an identity of another trust domain, or a state that does not open with this machine's TPM
    #[arg(long)]
    pub force: bool,
}

#[derive(Serialize)]
struct Enrolled {
    node: SpiffeId,
    root: &'static str,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let screen = session.screen;
    let config = &session.config;
    let token = here(token::read(arguments, screen)?, &config.cloud)?;
    let machine = machine::take(config).await?;
    let root = machine.root.as_ref();
    let (mut folder, held) = match StateFolder::open(&config.state_dir, root).await {
        Err(error) if error.is_foreign() => {
            set_aside(config, root, arguments.force)?;
            let folder = StateFolder::anew(&config.state_dir, root).await?;
            screen
                .note("the state that was here does not open with this tpm; it is kept as *.lost");
            (folder, None)
        }
        opened => {
            let (folder, found) = opened?;
            check_before(&found, &token, arguments.force)?;
            (folder, found.held)
        }
    };
    if let Some(held) = &held {
        screen.note(&format!(
            "this machine is {} already; the token enrols it again (without one: edgeward-agent recover)",
            held.node
        ));
    }
    let enrolment = Enrolment {
        claim: Claim::Token {
            token: &token,
            wanted_name: &arguments.name,
        },
        root,
        boot: &machine.boot,
        clock: machine.clock.clone(),
        slot: held.map(|held| held.slot.other()).unwrap_or_default(),
    };
    let node = tokio::time::timeout(arguments.timeout, enrolment.run(&mut folder, &screen))
        .await
        .map_err(|_| Failure::NotApproved(arguments.timeout))??;
    let enrolled = Enrolled {
        node,
        root: root.name(),
    };
    screen.answer(&enrolled, |enrolled| {
        format!("enrolled as {}", enrolled.node)
    });
    screen.note("next: systemctl enable --now edgeward-agent (or: edgeward-agent run)");
    Ok(())
}

/// The token with the addresses by which this machine's operator wants the cloud to be reached.
fn here(token: BootstrapToken, addresses: &[String]) -> Result<BootstrapToken, Failure> {
    match addresses {
        [] => Ok(token),
        named => Ok(BootstrapToken::new(
            named.to_vec(),
            token.trust_domain().clone(),
            *token.pin(),
            token.id().to_owned(),
            token.secret().clone(),
        )?),
    }
}

/// A state that does not open is given up only by a word that says so, for there may be a way back to it.
fn set_aside(config: &Config, root: &dyn Root, force: bool) -> Result<(), Failure> {
    match Origin::read(&config.state_dir, root) {
        _ if force => Ok(()),
        Ok(origin) => Err(Failure::Cleared(origin.node)),
        Err(error) => Err(Failure::OtherTpm(error)),
    }
}

/// The same trust domain may enrol the machine again: the cloud decides whether it may.
fn check_before(found: &Found, token: &BootstrapToken, force: bool) -> Result<(), Failure> {
    let held = found.held.as_ref().map(|held| held.node.trust_domain());
    match held {
        Some(other) if other != token.trust_domain() && !force => {
            Err(Failure::OtherTrustDomain(other.clone()))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out.
        f.debug_struct("Arguments")
            .field("token_file", &self.token_file)
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("force", &self.force)
            .finish_non_exhaustive()
    }
}
