//! `edgeward`: the cloud.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use edgeward_ca::config::Config;
use edgeward_runtime::exit;
use edgeward_runtime::telemetry::{self, LogFormat};

/// Edgeward: certification authority, policy engine and audit log of one trust domain.
#[derive(Parser)]
#[command(name = "edgeward", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cloud
    Serve {
        /// Configuration file
        #[arg(long, env = "EDGEWARD_CONFIG", default_value = "/etc/edgeward/edgeward.toml")]
        config: PathBuf,
        /// Check the configuration and exit
        #[arg(long)]
        check: bool,
        /// What to log
        #[arg(long, env = "EDGEWARD_LOG", default_value = "info")]
        log: String,
        #[arg(long, env = "EDGEWARD_LOG_FORMAT", value_enum, default_value = "text")]
        log_format: LogFormat,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Serve { config, check, log, log_format } = Arguments::parse().command;
    if let Err(error) = telemetry::init(&log, log_format) {
        tracing::error!(%error, "cannot log");
        return ExitCode::from(exit::USAGE);
    }
    let config = match Config::load(&config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(exit::BAD_CONFIG);
        }
    };
    if check {
        return ExitCode::from(exit::OK);
    }
    match edgeward_ca::run::run(config).await {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit::FAILED)
        }
    }
}
