//! The agent's side of the local socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::glass::{self, ACT_BEGINS, MAX_ACT_BYTES};
use super::{Answer, MAX_REQUEST_BYTES, Request};
use crate::break_glass::Desk;
use crate::socket::LocalSocket;
use crate::view::NodeView;

/// Most clients at once; further ones wait in the kernel.
const MAX_CLIENTS: usize = 16;
/// One client is served within this time or not at all.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// One that changes something, within this: the TPM takes its time.
const ACT_DEADLINE: Duration = Duration::from_secs(60);
/// Owner and group.
const MODE: u32 = 0o660;

/// Who knows the answers. Must not block.
pub trait Sources: Send + Sync + 'static {
    fn answer(&self, request: Request) -> Answer;

    /// Where the glass is broken; none where nothing may be changed.
    fn glass(&self) -> Option<(Desk, NodeView)> {
        None
    }
}

/// A bound socket, removed when dropped.
#[derive(Debug)]
pub struct Server(LocalSocket);

impl Server {
    /// Binds the socket; takes over a path that nobody listens on any more.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        LocalSocket::bind(path, MODE, "status").map(Self)
    }

    /// Answers until the token is cancelled.
    pub async fn serve(self, sources: Arc<dyn Sources>, token: CancellationToken) {
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Some(client) = self.0.accept(&token).await else {
                return;
            };
            let sources = Arc::clone(&sources);
            tokio::spawn(async move {
                let privileged = glass::may_act(client.peer_cred().ok());
                let deadline = if privileged {
                    ACT_DEADLINE
                } else {
                    CLIENT_DEADLINE
                };
                let served =
                    tokio::time::timeout(deadline, converse(client, &*sources, privileged));
                if let Ok(Err(error)) = served.await {
                    tracing::debug!(%error, "client of the local socket");
                }
                drop(permit);
            });
        }
    }
}

async fn converse(client: UnixStream, sources: &dyn Sources, privileged: bool) -> io::Result<()> {
    let (read, mut write) = client.into_split();
    let limit = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let mut most = MAX_REQUEST_BYTES;
    let mut line = Zeroizing::new(Vec::new());
    let mut reader = BufReader::new(read.take(limit(most) + 1));
    reader.read_until(b'\n', &mut line).await?;
    // Only a file that is to be opened may be long.
    if privileged && line.len() > most && line.starts_with(ACT_BEGINS) {
        most = MAX_ACT_BYTES;
        let more = limit(most) + 1 - limit(line.len());
        reader.get_mut().set_limit(more);
        reader.read_until(b'\n', &mut line).await?;
    }
    let answer = if line.len() > most {
        Answer::Refused {
            reason: format!("request is longer than the limit in bytes: {most}"),
        }
    } else if line.starts_with(ACT_BEGINS) {
        match privileged {
            true => glass::perform(sources.glass(), &line).await,
            false => Answer::NotOpened {
                code: "glass_not_root".to_owned(),
                reason: "only root and the agent's own user may break the glass".to_owned(),
            },
        }
    } else {
        match parse(&line) {
            Ok(request) => sources.answer(request),
            Err(error) => Answer::Refused {
                reason: format!("not a request: {error}"),
            },
        }
    };
    let mut bytes = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    write.shutdown().await
}

/// Reads one request.
pub fn parse(line: &[u8]) -> Result<Request, serde_json::Error> {
    serde_json::from_slice(line)
}
