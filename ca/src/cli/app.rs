//! `edgeward app`: releases of applications, from a publisher's folder to every node's running process.

use clap::Subcommand;
use edgeward_apps::AppName;

use super::{Failure, Session};

mod export;
mod input;
mod look;
mod nodes;
mod observed;
mod orders;
mod publish;
mod sign;
mod spool;

const APPS: &str = "/api/v1/apps";

/// `edgeward app`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a release of a folder, an archive or an OCI image layout, and sign it; needs no cloud
    #[command(after_help = sign::EXAMPLES)]
    Sign(Box<sign::Sign>),
    /// Give the cloud what a publisher signed, with its content
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::Publish),
    /// List apps and their releases
    List {
        /// Only this one: publisher/name, or a publisher
        name: Option<String>,
    },
    /// Show a release: what it starts, how large it is, what it asks for
    Show {
        #[arg(value_name = "NAME@VERSION")]
        release: sign::Named,
    },
    /// Show on which nodes an app is, and how it stands there
    #[command(after_help = nodes::EXAMPLES)]
    Nodes { name: AppName },
    /// Stop a release on every node, for good
    #[command(after_help = orders::REVOKE_EXAMPLES)]
    Revoke(orders::Revoke),
    /// Lead an app back to the version before
    #[command(after_help = orders::BACK_EXAMPLES)]
    Back(orders::Back),
    /// Write what a node needs to a folder or stick, for where the cloud is out of reach
    #[command(after_help = export::EXAMPLES)]
    Export(export::Export),
    /// What a node in observe mode would have denied, and the policy that would allow it
    #[command(after_help = observed::EXAMPLES)]
    Observed(observed::Observed),
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Sign(arguments) => sign::run(session, &arguments),
        Command::Publish(arguments) => publish::run(session, &arguments).await,
        Command::List { name } => look::list(session, name.as_deref()).await,
        Command::Show { release } => look::show(session, &release).await,
        Command::Nodes { name } => nodes::run(session, &name).await,
        Command::Revoke(arguments) => orders::revoke(session, &arguments).await,
        Command::Back(arguments) => orders::back(session, &arguments).await,
        Command::Export(arguments) => export::run(session, &arguments).await,
        Command::Observed(arguments) => observed::run(session, &arguments).await,
    }
}

fn release_name(app: &str, version: &str) -> String {
    format!("{app}@{version}")
}
