//! Asking the agent that runs here.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::CheckedRelease;
use super::{Act, Answer, Asked, Checked, GlassStatus, MAX_ANSWER_BYTES, Request, Status};

use crate::apps::report::AppsReport;

/// The agent must answer within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where something changes: the TPM takes its time.
const ACT_DEADLINE: Duration = Duration::from_secs(70);

/// No answer. The operator's to mend, or the agent's refusal.
#[derive(Debug, thiserror::Error)]
pub enum AskFailed {
    #[error("no agent answers on {path}: {source}")]
    Connect {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the agent broke off")]
    BrokeOff(#[source] std::io::Error),
    #[error("the agent did not answer within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("the answer is longer than the limit in bytes: {MAX_ANSWER_BYTES}")]
    TooLong,
    #[error("the answer is not one of this version")]
    Form(#[source] serde_json::Error),
    #[error("not opened [{code}]: {reason}")]
    NotOpened { code: String, reason: String },
    #[error("refused: {0}")]
    Refused(String),
    #[error("the agent answered something else")]
    OtherAnswer,
}

/// What the agent is and does now.
pub async fn ask(socket: &Path) -> Result<Status, AskFailed> {
    match exchange(socket, &Request::Status).await? {
        Answer::Status(status) => Ok(*status),
        Answer::Refused { reason } => Err(AskFailed::Refused(reason)),
        _ => Err(AskFailed::OtherAnswer),
    }
}

/// Whether something may be, by the agent's policy and what it knows of the other node.
pub async fn check(socket: &Path, asked: Asked) -> Result<Vec<Checked>, AskFailed> {
    match exchange(socket, &Request::Check(asked)).await? {
        Answer::Check { checked } => Ok(checked),
        Answer::Refused { reason } => Err(AskFailed::Refused(reason)),
        _ => Err(AskFailed::OtherAnswer),
    }
}

/// Breaks the glass, or closes it; returns what is open afterwards.
pub async fn act(socket: &Path, act: &Act) -> Result<Vec<GlassStatus>, AskFailed> {
    match acted(socket, act).await? {
        Answer::Glass { open } => Ok(open),
        Answer::NotOpened { code, reason } => Err(AskFailed::NotOpened { code, reason }),
        Answer::Refused { reason } => Err(AskFailed::Refused(reason)),
        _ => Err(AskFailed::OtherAnswer),
    }
}

/// Has a folder looked into for applications; returns how they stand afterwards.
pub async fn import_apps(socket: &Path, folder: &Path) -> Result<AppsReport, AskFailed> {
    let folder = folder.to_owned();
    match acted(socket, &Act::ImportApps { folder }).await? {
        Answer::Apps { report } => Ok(report),
        Answer::Refused { reason } => Err(AskFailed::Refused(reason)),
        Answer::NotOpened { reason, .. } => Err(AskFailed::Refused(reason)),
        _ => Err(AskFailed::OtherAnswer),
    }
}

/// Has everything that is installed read, file by file.
pub async fn verify_apps(socket: &Path) -> Result<Vec<CheckedRelease>, AskFailed> {
    match acted(socket, &Act::VerifyApps).await? {
        Answer::Verified { releases } => Ok(releases),
        Answer::Refused { reason } => Err(AskFailed::Refused(reason)),
        Answer::NotOpened { reason, .. } => Err(AskFailed::Refused(reason)),
        _ => Err(AskFailed::OtherAnswer),
    }
}

async fn acted(socket: &Path, act: &Act) -> Result<Answer, AskFailed> {
    let line = serde_json::to_vec(act).map_err(AskFailed::Form)?;
    tokio::time::timeout(ACT_DEADLINE, send(socket, line))
        .await
        .map_err(|_| AskFailed::Deadline)?
}

async fn exchange(socket: &Path, request: &Request) -> Result<Answer, AskFailed> {
    tokio::time::timeout(DEADLINE, converse(socket, request))
        .await
        .map_err(|_| AskFailed::Deadline)?
}

async fn converse(socket: &Path, request: &Request) -> Result<Answer, AskFailed> {
    send(
        socket,
        serde_json::to_vec(request).map_err(AskFailed::Form)?,
    )
    .await
}

async fn send(socket: &Path, mut line: Vec<u8>) -> Result<Answer, AskFailed> {
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskFailed::Connect {
            path: socket.display().to_string(),
            source,
        })?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(AskFailed::BrokeOff)?;
    let mut answer = Vec::new();
    let limit = u64::try_from(MAX_ANSWER_BYTES).unwrap_or(u64::MAX);
    stream
        .take(limit + 1)
        .read_to_end(&mut answer)
        .await
        .map_err(AskFailed::BrokeOff)?;
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(AskFailed::TooLong);
    }
    serde_json::from_slice(&answer).map_err(AskFailed::Form)
}
