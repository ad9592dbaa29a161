//! `edgeward`'s command line: every command but `serve` is a client of the REST API.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use edgeward_runtime::exit;
use edgeward_runtime::screen::{Colour, Format, Screen};
use edgeward_runtime::telemetry::LogFormat;

mod apikeys;
mod app;
mod audit;
mod break_glass;
mod ca;
mod ceremony;
mod client;
mod completions;
pub mod context;
mod ekroots;
mod failure;
mod nodes;
mod operators;
mod policy;
mod profile;
mod progress;
mod publisher;
mod repo;
mod results;
mod screen;
mod signing;
mod sources;
mod status;
mod tokens;

#[cfg(test)]
mod tests;

pub use failure::Failure;

use client::Client;

/// Identities worth something only while the machine proves what it runs.
#[derive(Debug, Parser)]
#[command(
    name = "edgeward",
    version,
    about = "Zero-trust security and attestation for cloud-edge fleets",
    after_help = FIRST_STEPS,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  edgeward serve --config /etc/edgeward/edgeward.toml   run the cloud
  edgeward context add /var/lib/edgeward/admin          become its first operator
  edgeward token create --name gw-3                     let a machine enrol
  edgeward node list                                    see who is there, and how they stand
  edgeward policy apply policies/                       say who may reach what
  edgeward audit query --node gw-3 --from -1h           read what happened

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 64 bad configuration.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Which cloud, and as whom: a context's name, or a folder that holds one
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        env = "EDGEWARD_CONTEXT",
        value_name = "NAME|DIR"
    )]
    pub context: Option<String>,
    /// Reach the cloud here instead of where the context says
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        env = "EDGEWARD_CLOUD",
        value_name = "HOST:PORT"
    )]
    pub cloud: Option<String>,
    /// Use the API key in this file instead of the context's certificate
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        env = "EDGEWARD_API_KEY_FILE",
        value_name = "FILE"
    )]
    pub api_key_file: Option<PathBuf>,
    /// How answers look; JSON is as the API gives it, audit events one object a line
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Options of every command",
        value_enum,
        default_value_t,
        env = "EDGEWARD_OUTPUT"
    )]
    pub output: Format,
    /// Colour; automatic means on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_enum,
        default_value_t,
        env = "EDGEWARD_COLOR"
    )]
    pub color: Colour,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cloud: CA, policy engine and audit log
    Serve(ServeArgs),
    /// Show the cloud at a glance
    Status,
    /// Bootstrap tokens: what a new machine enrols with
    #[command(subcommand)]
    Token(tokens::Command),
    /// Machines with an agent
    #[command(subcommand)]
    Node(nodes::Command),
    /// Who may reach what, from files
    #[command(subcommand)]
    Policy(policy::Command),
    /// Rights in envelopes, for the day the cloud is gone
    #[command(subcommand)]
    BreakGlass(break_glass::Command),
    /// What machines must measure: record it, see what changed, propose changes
    #[command(subcommand)]
    Profile(profile::Command),
    /// Who may publish applications: roots and publishers, signed offline by a few of many
    #[command(subcommand)]
    Publisher(publisher::Command),
    /// Signed applications: make releases, publish, see where they run, revoke
    #[command(subcommand)]
    App(app::Command),
    /// What happened, from a log that nobody can quietly edit
    #[command(subcommand)]
    Audit(audit::Command),
    /// People and scripts with a certificate
    #[command(subcommand)]
    Operator(operators::Command),
    /// Keys for scripts that cannot hold a certificate
    #[command(subcommand, name = "apikey")]
    ApiKey(apikeys::Command),
    /// Who signs: roots and issuing authorities, and how they are turned over
    #[command(subcommand)]
    Ca(ca::Command),
    /// Which TPMs are believed: certificates of their makers, and single EKs
    #[command(subcommand, name = "ek-roots")]
    EkRoots(ekroots::Command),
    /// Clouds you operate: add, choose, list
    #[command(subcommand)]
    Context(context::Command),
    /// Print completions for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Arguments),
}

/// `edgeward serve`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  edgeward serve
  edgeward serve --config ./edgeward.toml --check       say what is wrong with it, and exit 64 if something is
  EDGEWARD_LISTEN=127.0.0.1:7443 edgeward serve         every key of the file has a twin")]
pub struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        env = "EDGEWARD_CONFIG",
        default_value = "/etc/edgeward/edgeward.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// Check the configuration and exit
    #[arg(long)]
    pub check: bool,
    /// What to log, as in info,edgeward_ca=debug
    #[arg(
        long,
        env = "EDGEWARD_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "EDGEWARD_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// What a command works with.
struct Session {
    global: Global,
    screen: Screen,
}

/// Runs a command other than `serve`, prints what there is to print, and returns the exit code.
pub async fn run(cli: Cli) -> u8 {
    let session = Session {
        screen: Screen::new(cli.global.output, cli.global.color).with_meaning(screen::meaning),
        global: cli.global,
    };
    match dispatch(&session, cli.command).await {
        Ok(()) => exit::OK,
        Err(Failure::Quiet) => exit::FAILED,
        Err(failure) => {
            screen::complain(&session.screen, &failure);
            failure.exit_code()
        }
    }
}

async fn dispatch(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(_) => Err(Failure::Usage("serve is not a client command".to_owned())),
        Command::Status => status::run(session).await,
        Command::Token(command) => tokens::run(session, command).await,
        Command::Node(command) => nodes::run(session, command).await,
        Command::Policy(command) => policy::run(session, command).await,
        Command::BreakGlass(command) => break_glass::run(session, command).await,
        Command::Profile(command) => profile::run(session, command).await,
        Command::Publisher(command) => publisher::run(session, command).await,
        Command::App(command) => app::run(session, command).await,
        Command::Audit(command) => audit::run(session, command).await,
        Command::Operator(command) => operators::run(session, command).await,
        Command::Ca(command) => ca::run(session, command).await,
        Command::ApiKey(command) => apikeys::run(session, command).await,
        Command::EkRoots(command) => ekroots::run(session, command).await,
        Command::Context(command) => context::run(session, command),
        Command::Completions(arguments) => completions::run(session, &arguments),
    }
}

impl Session {
    fn client(&self) -> Result<Client, Failure> {
        let context = context::load(self.global.context.as_deref())?;
        Client::new(
            context,
            self.global.cloud.as_deref(),
            self.global.api_key_file.as_deref(),
        )
    }

    fn wants_json(&self) -> bool {
        self.global.output == Format::Json
    }
}

impl ValueEnum for crate::access::Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let help = match self {
            Self::Admin => "everything, operators and API keys included",
            Self::Operator => "tokens, nodes and policies; reads everything",
            Self::Auditor => "reads everything, changes nothing",
        };
        Some(clap::builder::PossibleValue::new(self.as_str()).help(help))
    }
}
