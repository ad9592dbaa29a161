//! `edgeward-agent`'s command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use edgeward_runtime::config::BadConfig;
use edgeward_runtime::screen::{Colour, Format, Screen};
use edgeward_runtime::telemetry::LogFormat;
use edgeward_runtime::{exit, telemetry};
use tokio::runtime::Builder;

use crate::config::{Config, DEFAULT_PATH};
use crate::enforce::handover::FORMAT;
use crate::run;
use crate::upgrade::Left;

mod apps;
mod break_glass;
mod check;
mod enrol;
mod failure;
mod quote;
mod recover;
mod screen;
mod status;
mod token;
mod tpm_key;

pub use failure::Failure;

/// What the service logs unless told otherwise; the other commands only warn.
const SERVICE_LOG: &str = "info";
const COMMAND_LOG: &str = "warn";
/// The TPM library's wrapper calls errors what we expect, such as a key that is not there yet; ours say what matters.
const QUIET: &str = "tss_esapi=off";

/// The edge of Edgeward: attested identity, tunnels, access per interface.
#[derive(Debug, Parser)]
#[command(
    name = "edgeward-agent",
    version,
    about = "The edge of Edgeward: attested identity, tunnels, access per interface",
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
  edgeward-agent check                         is this machine ready?
  edgeward-agent enrol --token-file token      become a node (the token: edgeward token create)
  systemctl enable --now edgeward-agent        run the agent
  edgeward-agent status                        see how it stands

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 64 bad configuration.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The configuration file; where there is none at the default place, the defaults
    #[arg(
        long,
        global = true,
        env = "EDGEWARD_AGENT_CONFIG",
        default_value = DEFAULT_PATH,
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// How answers look
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "EDGEWARD_AGENT_OUTPUT"
    )]
    pub output: Format,
    /// Colour; automatic means on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "EDGEWARD_AGENT_COLOR"
    )]
    pub color: Colour,
    /// What to log, as in info,edgeward_agent=debug; run: info, others: warn
    #[arg(long, global = true, env = "EDGEWARD_AGENT_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(
        long,
        global = true,
        env = "EDGEWARD_AGENT_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Become a node of the cloud that made the token
    #[command(after_help = enrol::EXAMPLES)]
    Enrol(enrol::Arguments),
    /// Get this node's identity back by its TPM, without a token
    #[command(after_help = recover::EXAMPLES)]
    Recover(recover::Arguments),
    /// Show what the running agent is and does
    Status,
    /// Ask the running agent whether a node may reach an interface now, and why
    #[command(after_help = status::EXPLAIN_EXAMPLES)]
    Explain(status::ExplainArgs),
    /// Open what was sealed for the day the cloud is gone, see it, close it
    #[command(subcommand)]
    BreakGlass(break_glass::Command),
    /// Show what applications this node has, import them from a folder, verify what is installed
    #[command(subcommand)]
    Apps(apps::Command),
    /// Check what a node needs on this machine: TPM, device, nftables, cloud; with --from and --to: who may reach what
    #[command(after_help = check::EXAMPLES)]
    Check(check::Arguments),
    /// Show this machine's PCRs, quoted by its TPM
    #[command(after_help = quote::EXAMPLES)]
    Quote(quote::Arguments),
    /// Signing keys in this machine's TPM, for a publisher or an operator
    #[command(subcommand, after_help = tpm_key::EXAMPLES)]
    TpmKey(tpm_key::Command),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  edgeward-agent run
  edgeward-agent run --config ./agent.toml --check     say what is wrong with it, and exit 64 if something is
  EDGEWARD_AGENT_MTU=1380 edgeward-agent run           every key of the file has a twin";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  edgeward-agent completions bash > /etc/bash_completion.d/edgeward-agent
  edgeward-agent completions zsh  > \"${fpath[1]}/_edgeward-agent\"
  edgeward-agent completions fish > ~/.config/fish/completions/edgeward-agent.fish";

/// `edgeward-agent run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Check the configuration and exit
    #[arg(long)]
    pub check: bool,
    /// What the program before this one left open (docs/upgrade.md)
    #[arg(long, hide = true)]
    pub take_over: Option<Left>,
    /// With --check: whether tunnels are taken over in this form
    #[arg(long, hide = true, requires = "check")]
    pub takes_over: Option<u32>,
}

/// `edgeward-agent completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// What a command works with.
struct Session {
    config: Config,
    screen: Screen,
}

impl Command {
    /// Whether the command may talk to a TPM.
    pub fn uses_tpm(&self) -> bool {
        match self {
            Self::Run(arguments) => !arguments.check,
            Self::Check(arguments) => arguments.from.is_none(),
            Self::Enrol(_) | Self::Recover(_) | Self::Quote(_) | Self::TpmKey(_) => true,
            Self::Apps(_) => false,
            Self::Status | Self::BreakGlass(_) | Self::Explain(_) | Self::Completions(_) => false,
        }
    }
}

/// Runs a command, prints what there is to print, and returns the exit code.
pub fn run(cli: Cli) -> u8 {
    let screen = Screen::new(cli.global.output, cli.global.color);
    match perform(cli, screen) {
        Ok(()) => exit::OK,
        Err(failure) => {
            screen::complain(screen, &failure);
            failure.exit_code()
        }
    }
}

fn perform(cli: Cli, screen: Screen) -> Result<(), Failure> {
    if let Command::Completions(arguments) = &cli.command {
        completions(screen, arguments);
        return Ok(());
    }
    let config = load(&cli)?;
    let log = match cli.command {
        Command::Run(_) => SERVICE_LOG,
        _ => COMMAND_LOG,
    };
    let log = format!("{QUIET},{}", cli.global.log.as_deref().unwrap_or(log));
    telemetry::init(&log, cli.global.log_format)?;
    if let Command::Run(arguments) = &cli.command
        && arguments.check
    {
        return match arguments.takes_over {
            Some(form) if form != FORMAT => Err(Failure::Usage(format!(
                "tunnels are taken over in another form: {FORMAT}"
            ))),
            _ => Ok(()),
        };
    }
    // More than one thread: what waits for the TPM or the disk must not hold up the rest.
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Service(error.into()))?;
    runtime.block_on(dispatch(cli.command, Session { config, screen }))
}

async fn dispatch(command: Command, session: Session) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::run(session.config, arguments.take_over)
            .await
            .map_err(Failure::Service),
        Command::Enrol(arguments) => enrol::run(&session, &arguments).await,
        Command::Recover(arguments) => recover::run(&session, &arguments).await,
        Command::Status => status::run(&session).await,
        Command::Explain(arguments) => status::explain(&session, &arguments).await,
        Command::BreakGlass(command) => break_glass::run(&session, command).await,
        Command::Apps(command) => apps::run(&session, command).await,
        Command::Check(arguments) => check::run(&session, &arguments).await,
        Command::Quote(arguments) => quote::run(&session, &arguments).await,
        Command::TpmKey(command) => tpm_key::run(&session, command).await,
        Command::Completions(arguments) => {
            completions(session.screen, &arguments);
            Ok(())
        }
    }
}

/// An absent file is a good one at the default place only: whoever names a file means it.
fn load(cli: &Cli) -> Result<Config, BadConfig> {
    let path = &cli.global.config;
    let absent = path.as_os_str() == DEFAULT_PATH && !path.exists();
    let path = match absent {
        true => std::path::Path::new("/dev/null"),
        false => path,
    };
    Config::load(path)
}

fn completions(screen: Screen, arguments: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "edgeward-agent",
        &mut script,
    );
    screen.line(String::from_utf8_lossy(&script).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_sources_of_a_token_are_refused() {
        let arguments = [
            "edgeward-agent",
            "enrol",
            "--token",
            "x",
            "--token-file",
            "y",
        ];
        assert!(Cli::try_parse_from(arguments).is_err());
    }

    #[test]
    fn the_configuration_may_be_named_before_or_after_the_command() {
        for arguments in [
            ["edgeward-agent", "--config", "x", "status"],
            ["edgeward-agent", "status", "--config", "x"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.global.config, PathBuf::from("x"));
        }
    }
}
