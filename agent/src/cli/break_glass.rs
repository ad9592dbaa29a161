//! `edgeward-agent break-glass`: what the running agent opens with the cloud gone.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use edgeward_identity::Secret;
use edgeward_wire::break_glass::{MAX_APPROVAL_BYTES, MAX_CODE_TEXT_BYTES, MAX_SEALED_BYTES};

use super::{Failure, Session};
use crate::status::{Act, GlassStatus, act, ask};

/// `edgeward-agent break-glass`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Open a sealed grant: once, and for as long as it says
    #[command(after_help = "\
Examples:
  edgeward-agent break-glass open line3.glass --approval li.approval --approval wu.approval
                                             asks for the code of the envelope
  edgeward-agent break-glass open line3.glass --code-file code --approval li.approval

The approvals come from: edgeward break-glass approve FILE, by enough operators, offline.
Opening is recorded first; when the cloud is back, everybody hears of it.")]
    Open(Open),
    /// Show what is open
    Status,
    /// Close what is open, before its time
    Close {
        /// Only this grant
        #[arg(long, value_name = "NUMBER")]
        number: Option<u64>,
    },
}

/// `edgeward-agent break-glass open`.
#[derive(Clone, Debug, Args)]
pub struct Open {
    /// The sealed file
    file: PathBuf,
    /// The code of the envelope; shows in the list of processes
    #[arg(long)]
    code: Option<String>,
    /// A file with the code; - for standard input
    #[arg(long, conflicts_with = "code", value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// What an operator signed; one for each operator
    #[arg(long = "approval", value_name = "FILE")]
    approvals: Vec<PathBuf>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let socket = &session.config.enforce.status_socket;
    let open = match command {
        Command::Status => ask(socket).await?.glass,
        Command::Close { number } => act(socket, &Act::CloseGlass { number }).await?,
        Command::Open(open) => {
            let sealed = read(&open.file, MAX_SEALED_BYTES)?;
            let code = code(session, &open)?;
            let approvals = open.approvals.iter();
            let approvals = approvals.map(|path| read(path, MAX_APPROVAL_BYTES));
            let approvals = approvals.collect::<Result<Vec<_>, _>>()?;
            act(socket, &Act::open(&sealed, code.expose(), &approvals)).await?
        }
    };
    session.screen.answer(&open, |open| text(open));
    Ok(())
}

fn code(session: &Session, open: &Open) -> Result<Secret<String>, Failure> {
    if let Some(code) = &open.code {
        return Ok(Secret::new(code.clone()));
    }
    let bytes = match &open.code_file {
        Some(path) if path.as_os_str() != "-" => read(path, MAX_CODE_TEXT_BYTES)?,
        other => {
            if other.is_none() {
                session.screen.note("the code of the envelope:");
            }
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|source| Failure::GlassFile {
                path: "standard input".into(),
                source,
            })?;
            line.into_bytes()
        }
    };
    Ok(Secret::new(
        String::from_utf8_lossy(&bytes).trim().to_owned(),
    ))
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::GlassFile {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() <= limit {
        true => Ok(bytes),
        false => Err(Failure::Usage(format!(
            "{} is larger than the limit in bytes: {limit}",
            path.display()
        ))),
    }
}

fn text(open: &[GlassStatus]) -> String {
    if open.is_empty() {
        return "nothing is open".to_owned();
    }
    let lines: Vec<String> = open.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
