//! Completions for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, Session};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward completions bash > /etc/bash_completion.d/edgeward
  edgeward completions zsh  > \"${fpath[1]}/_edgeward\"
  edgeward completions fish > ~/.config/fish/completions/edgeward.fish";

/// `edgeward completions`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "edgeward",
        &mut script,
    );
    session
        .screen
        .line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
