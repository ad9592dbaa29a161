//! `edgeward policy`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::{Failure, Session};

mod apply;
mod approvals;
mod check;
mod diff;
mod explain;
mod history;
mod rollback;
mod schema;
mod simulate;
mod slice;
mod stage;
mod tests;
mod whole;

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
parties get in. Notes tell of interfaces that nobody reaches and of requests that are two actions at once.")]
    Check {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
    },
    /// Print the JSON Schema of policy files, for editors and other tools; needs no cloud
    #[command(after_help = "\
Examples:
  edgeward policy schema > policy.schema.json

It describes form only: names, scopes, rules that do nothing and tests are for `edgeward policy check`.")]
    Schema,
    /// Run the tests in policy files, each by its name; needs no cloud
    #[command(after_help = tests::EXAMPLES)]
    Test {
        /// The directory
        dir: PathBuf,
    },
    /// Say exactly whose verdicts change from one policy to another, and why
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::Arguments),
    /// Ask whether somebody may do something, and why: the deciding rule, or what came nearest
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Arguments),
    /// Print what one node is given of a policy
    #[command(after_help = slice::EXAMPLES)]
    Slice(slice::Arguments),
    /// Ask recorded decisions again: what would have come out otherwise
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::Arguments),
    /// Check, sign with your key, and put into force: everywhere at once, or by stages
    #[command(after_help = "\
Examples:
  edgeward policy apply policies/
  edgeward policy apply policies/ --stage 10,50,100 --hold 5m     on a tenth of the nodes first, then on half of them

The cloud checks again and runs the tests; one that fails refuses the whole. Connected nodes have their new slice within
a second; flows that the new policy does not allow end there and then. A stage is held, then the next one begins by
itself. Denials that rise on its nodes stop it, or take the policy back where that opens nothing that it closed.")]
    Apply {
        /// The directory; every *.toml below it is part of the policy, with the *.allow and *.deny lists they name
        dir: PathBuf,
        /// Shares of the nodes in percent, rising to 100
        #[arg(long, value_delimiter = ',', value_name = "PERCENT,...,100")]
        stage: Vec<u8>,
        /// How long each stage is held
        #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, requires = "stage")]
        hold: Duration,
    },
    /// The policy that is being staged: look, stop, go on, give up
    #[command(subcommand)]
    Stage(stage::Command),
    /// Apply an earlier policy's sources again, as a new policy that you sign
    #[command(after_help = "\
Examples:
  edgeward policy rollback            to what was in force before the one that is now
  edgeward policy rollback 12

Numbers only rise: policy 12 comes back under the next number, checked again. Nodes never take an older number.")]
    Rollback {
        /// Its number; the one before the policy in force if absent
        number: Option<u64>,
    },
    /// List applied policies: when, by whom, by which stages, gone back to which, with which hash
    History,
    /// Let a rule that asks for an approval count for one subject, for a while
    Approve(approvals::Approve),
    /// Who approved what
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Print the sources of an applied policy
    Show {
        /// Its number; the one in force if absent
        number: Option<u64>,
    },
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { dir } => check::run(session, &dir),
        Command::Schema => schema::run(session),
        Command::Test { dir } => tests::run(session, &dir),
        Command::Diff(arguments) => diff::run(session, &arguments).await,
        Command::Explain(arguments) => explain::run(session, &arguments).await,
        Command::Slice(arguments) => slice::run(session, &arguments).await,
        Command::Simulate(arguments) => simulate::run(session, &arguments).await,
        Command::Apply { dir, stage, hold } => apply::run(session, &dir, &stage, hold).await,
        Command::Stage(command) => stage::run(session, command).await,
        Command::Rollback { number } => rollback::run(session, number).await,
        Command::Approve(approve) => approvals::approve(session, approve).await,
        Command::Approvals(command) => approvals::run(session, command).await,
        Command::History => history::run(session).await,
        Command::Show { number } => history::show(session, number).await,
    }
}
