//! Structured logs on standard error.
//!
//! Levels: ERROR wakes somebody up; WARN is looked at in the morning; INFO tells the life of the process;
//! DEBUG and TRACE are for developers and may name addresses. No payload, token or key at any level.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// The filter is not understood.
#[derive(Debug, thiserror::Error)]
#[error("log filter: {0}")]
pub struct BadFilter(String);

/// Starts logging; `filter` as in `info,edgeward_tunnel=debug`. May be called once per process.
pub fn init(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|error| BadFilter(error.to_string()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| BadFilter(error.to_string()))
}
