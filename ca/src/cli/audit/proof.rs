//! The proof of one event, in a file.

use std::path::PathBuf;

use clap::Args;
use edgeward_audit::log_proof::LogProof;

use super::super::client::Line;
use super::super::progress::watch;
use super::super::{Failure, Session};
use super::EVENTS;

/// `edgeward audit proof`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The event's place in the log
    #[arg(value_name = "INDEX")]
    index: u64,
    /// Write it to this file; to standard output if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let client = session.client()?;
    let mut line = Line::new(&client);
    let path = format!("{EVENTS}/{}/proof", arguments.index);
    let bytes = watch(&session.screen, "asking for the proof", line.get(&path)).await?;
    let proof = LogProof::parse(&bytes).map_err(|error| Failure::Answer(error.to_string()))?;
    if proof.index != arguments.index {
        return Err(Failure::Answer("the proof is of another event".to_owned()));
    }
    match &arguments.out {
        Some(path) => std::fs::write(path, bytes).map_err(Failure::file(path)),
        None => {
            session.screen.line(proof.to_string().trim_end());
            Ok(())
        }
    }
}
