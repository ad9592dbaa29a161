//! One connection: its handshake becomes a channel, its stream becomes frames, and the other way round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::{FAREWELL, Remote};
use crate::bind::Role;
use crate::bind::codec::{LENGTH_BYTES, Malformed, parse_length};
use crate::bind::endpoint::Identity;
use crate::bind::machine::{BIND_TIMEOUT, Channel};
use crate::bind::table::BindId;
use edgeward_identity::{SpiffeId, SpkiHash};
use std::net::SocketAddr;

/// Most frames of one peer that wait for the loop; then its stream waits.
pub(super) const MAX_FRAMES_WAITING: usize = 256;
/// Most frames for one peer that wait for its stream; then the connection is given up.
pub(super) const MAX_FRAMES_TO_SEND: usize = 32;
/// Most frames that a peer may send in one [`FRAME_PERIOD`]: each can cost a signature check.
const MAX_FRAMES_PER_PERIOD: u32 = 60;
const FRAME_PERIOD: Duration = Duration::from_secs(60);

/// What the tasks of connections tell the loop.
pub(super) enum FromConnection {
    Handshaken(Box<Handshaken>),
    Frame {
        bind: BindId,
        body: Vec<u8>,
    },
    /// The connection can carry no more.
    Gone {
        bind: BindId,
        reason: String,
    },
    DialFailed {
        peer: SpiffeId,
        reason: String,
    },
    Stranger {
        from: SocketAddr,
        claimed: SpkiHash,
        reason: String,
    },
}

/// A finished handshake and the way to its peer.
pub(super) struct Handshaken {
    pub(super) bind: BindId,
    pub(super) channel: Channel,
    /// What this node presented.
    pub(super) identity: Arc<Identity>,
    pub(super) remote: Remote,
    /// Frames with their length. Dropping it says goodbye.
    pub(super) frames: mpsc::Sender<Vec<u8>>,
}

/// What every connection's task needs.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) to_hub: mpsc::Sender<FromConnection>,
    pub(super) next_bind: Arc<AtomicU64>,
}

impl Tasks {
    pub(super) async fn tell(&self, message: FromConnection) {
        // The loop is gone only at the end, when nobody is interested any more.
        let _stopping = self.to_hub.send(message).await;
    }

    /// Hands a finished handshake over and carries its frames until one side has enough.
    pub(super) async fn carry(
        self,
        connection: Connection,
        channel: Channel,
        identity: Arc<Identity>,
    ) {
        let bind = BindId(self.next_bind.fetch_add(1, Ordering::Relaxed));
        let role = channel.role;
        let (frames, outgoing) = mpsc::channel(MAX_FRAMES_TO_SEND);
        let handshaken = Handshaken {
            bind,
            channel,
            identity,
            remote: remote_of(&connection),
            frames,
        };
        self.tell(FromConnection::Handshaken(Box::new(handshaken)))
            .await;
        let stream = match role {
            Role::Initiator => connection.open_bi().await,
            Role::Responder => {
                match tokio::time::timeout(BIND_TIMEOUT, connection.accept_bi()).await {
                    Ok(stream) => stream,
                    Err(_) => Err(quinn::ConnectionError::TimedOut),
                }
            }
        };
        let reason = match stream {
            Ok((sender, receiver)) => {
                let reading = tokio::spawn(self.clone().read(bind, receiver));
                let reason = write(sender, outgoing).await;
                reading.abort();
                reason
            }
            Err(error) => error.to_string(),
        };
        connection.close(0_u32.into(), b"");
        self.tell(FromConnection::Gone { bind, reason }).await;
    }

    /// Reads frames until the stream ends; what ends it is told.
    async fn read(self, bind: BindId, mut stream: RecvStream) {
        let mut period = (Instant::now(), 0_u32);
        loop {
            let body = match read_frame(&mut stream).await {
                Ok(body) => body,
                // The machine refuses an empty body for what it is: a breach of the protocol.
                Err(NoFrame::Length(malformed)) => {
                    tracing::debug!(bind = bind.0, %malformed, "bind frame refused");
                    Vec::new()
                }
                Err(NoFrame::Stream(reason)) => {
                    return self.tell(FromConnection::Gone { bind, reason }).await;
                }
            };
            let broken = body.is_empty();
            if period.0.elapsed() >= FRAME_PERIOD {
                period = (Instant::now(), 0);
            }
            period.1 += 1;
            if period.1 > MAX_FRAMES_PER_PERIOD {
                let reason = "peer sends too many frames".to_owned();
                return self.tell(FromConnection::Gone { bind, reason }).await;
            }
            self.tell(FromConnection::Frame { bind, body }).await;
            if broken {
                return;
            }
        }
    }
}

pub(super) fn remote_of(connection: &Connection) -> Remote {
    Remote {
        address: canonical(connection.remote_address()),
        local_ip: connection.local_ip().map(|ip| ip.to_canonical()),
    }
}

/// An IPv4 address in its plain form.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why there is no frame.
enum NoFrame {
    Length(Malformed),
    Stream(String),
}

async fn read_frame(stream: &mut RecvStream) -> Result<Vec<u8>, NoFrame> {
    let lost = |error: quinn::ReadExactError| NoFrame::Stream(error.to_string());
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(lost)?;
    let length = parse_length(length).map_err(NoFrame::Length)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(lost)?;
    Ok(body)
}

/// Writes frames until there are no more to come, then waits a moment for the peer to have them.
async fn write(mut stream: SendStream, mut frames: mpsc::Receiver<Vec<u8>>) -> String {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = stream.write_all(&frame).await {
            return error.to_string();
        }
    }
    if stream.finish().is_ok() {
        // The peer may be gone; then there is nobody to wait for.
        let _acknowledged = tokio::time::timeout(FAREWELL, stream.stopped()).await;
    }
    "closed".to_owned()
}
