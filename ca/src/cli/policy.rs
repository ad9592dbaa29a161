//! `edgeward policy`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, Session};

mod apply;
mod check;
mod history;

const PATH: &str = "/api/v1/policies";

/// `edgeward policy`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policy files and run the tests in them; needs no cloud
    #[command(after_help = "\
Examples:
  edgeward policy check policies/
  edgeward policy check policies/ -o json

Errors name file, line and column. Openings are not errors: they show a reader where more than named and proven
parties get in.")]
    Check {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
    },
    /// Check, sign with your key, and put into force everywhere
    #[command(after_help = "\
Examples:
  edgeward policy apply policies/

The cloud checks again and runs the tests; one that fails refuses the whole. Connected nodes have their new slice within
a second; flows that the new policy does not allow end there and then.")]
    Apply {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
    },
    /// List applied policies: when, by whom, with which hash
    History,
    /// Print the sources of an applied policy
    Show {
        /// Its number; the one in force if absent
        number: Option<u64>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { dir } => check::run(session, &dir),
        Command::Apply { dir } => apply::run(session, &dir).await,
        Command::History => history::run(session).await,
        Command::Show { number } => history::show(session, number).await,
    }
}
