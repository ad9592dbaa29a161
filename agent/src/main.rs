//! `edgeward-agent`: the edge.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::Parser;
use edgeward_agent::cli::{self, Cli};

/// libtss2 prints errors by itself unless told not to, before it is loaded; ours say what happened.
const TSS_LOG: (&str, &str) = ("TSS2_LOG", "all+NONE");

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.uses_tpm() && std::env::var_os(TSS_LOG.0).is_none() {
        begin_again_quietly();
    }
    ExitCode::from(cli::run(cli))
}

/// Replaces this process by itself with the variable set: setting it in a process that may have threads is unsound.
/// Returns only where that fails; then the library is noisy.
fn begin_again_quietly() {
    if let Ok(program) = std::env::current_exe() {
        let _failed = std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(TSS_LOG.0, TSS_LOG.1)
            .exec();
    }
}
