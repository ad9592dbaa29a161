//! Two streams and a machine between them that reads every message before it goes on.
//!
//! Each side is read only while what is still to be written is little, so that a slow reader slows its own sender and
//! memory stays bounded. Both directions move on their own: neither waits for the other to be read.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Broken, Caller};

/// With so many bytes unsent on either side nothing more is read.
pub const HIGH_WATER: usize = 64 * 1024;
/// Read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// A side that takes none of what is sent to it for so long is gone.
pub const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How long the last words of a connection may take.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

/// Reads messages and writes what follows from them. It takes whole messages from the front of what came, and leaves
/// the rest; it bounds what it leaves by refusing messages that are too long.
pub trait Between: Send {
    fn client_sent(
        &mut self,
        bytes: &mut Inbox,
        out: &mut Outboxes,
        now: Instant,
    ) -> Result<(), End>;

    fn server_sent(&mut self, bytes: &mut Inbox, out: &mut Outboxes) -> Result<(), End>;

    /// Whether the client is read now.
    fn takes_more(&self) -> bool {
        true
    }

    /// When [`Between::time_passed`] is to be called.
    fn next_end(&self) -> Option<Instant> {
        None
    }

    fn time_passed(&mut self, _now: Instant, _out: &mut Outboxes) {}

    /// What is still to be said to the server before its connection ends, for whatever reason.
    fn last_words(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// Why it ended.
#[derive(Debug)]
pub enum End {
    ClientClosed,
    ServerClosed,
    /// The client was told that it may not; there is nothing more to say.
    Refused,
    /// The client sent what the protocol does not have. To be recorded. A stable word for what is wrong.
    Malformed(&'static str),
    /// The server sent that.
    ServerMalformed(&'static str),
    /// A side took nothing for too long.
    Stalled,
    /// The client's socket failed.
    Client(io::Error),
    /// The server's socket failed.
    Server(io::Error),
}

impl End {
    /// What it means for the connection; malformed bytes are recorded.
    pub fn told(self, caller: &Caller) -> Result<(), Broken> {
        match self {
            Self::ClientClosed | Self::ServerClosed => Ok(()),
            Self::Refused => Err(Broken::Denied("refused")),
            Self::Malformed(what) => Err(caller.malformed(what)),
            Self::ServerMalformed(what) => Err(Broken::ServiceMalformed(what)),
            Self::Stalled => Err(Broken::Idle),
            Self::Client(error) => Err(Broken::Client(error)),
            Self::Server(error) => Err(Broken::Service(error)),
        }
    }
}

/// What came from one side and was not yet taken.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

/// What goes to both sides.
#[derive(Debug, Default)]
pub struct Outboxes {
    pub to_client: Outbox,
    pub to_server: Outbox,
}

/// What is still to be written to one side.
#[derive(Debug, Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    sent: usize,
    unflushed: bool,
    /// When some of it last went out, or when the first of it was put here.
    moved: Option<Instant>,
}

impl Inbox {
    /// As if these had come; for tests of machines.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            taken: 0,
        }
    }

    pub fn untaken(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub fn take(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes).min(self.bytes.len());
    }

    fn make_room(&mut self) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        // A long message leaves no long buffer behind.
        if self.bytes.is_empty() && self.bytes.capacity() > HIGH_WATER {
            self.bytes = Vec::new();
        }
        self.bytes.reserve(READ_BYTES);
    }
}

impl Outboxes {
    fn is_low(&self) -> bool {
        self.to_client.unsent().len() < HIGH_WATER && self.to_server.unsent().len() < HIGH_WATER
    }

    /// When the side that is stuck longest was last seen to take something.
    fn stuck_since(&self) -> Option<Instant> {
        let both = [&self.to_client, &self.to_server];
        both.into_iter().filter_map(|out| out.moved).min()
    }
}

impl Outbox {
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn wants_out(&self) -> bool {
        self.unflushed || !self.unsent().is_empty()
    }

    fn note(&mut self, now: Instant) {
        match self.wants_out() {
            true => self.moved = self.moved.or(Some(now)),
            false => self.moved = None,
        }
    }

    /// Writes some, or flushes. May be cancelled.
    async fn push(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.unsent().is_empty() {
            writer.flush().await?;
            self.unflushed = false;
        } else {
            let sent = writer.write(self.unsent()).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += sent;
            self.unflushed = true;
            if self.unsent().is_empty() {
                self.bytes.clear();
                self.bytes.shrink_to(HIGH_WATER);
                self.sent = 0;
            }
        }
        self.moved = None;
        Ok(())
    }
}

/// Carries until either side ends or must end. Dropping the future ends it at once: nothing more goes to the client,
/// and the server still hears the last words.
pub async fn relay<C, S, B>(client: &mut C, server: S, between: B) -> End
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Between,
{
    relay_with(client, server, between, STALLED_AFTER).await
}

async fn relay_with<C, S, B>(client: &mut C, server: S, between: B, patience: Duration) -> End
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Between,
{
    let mut way = Way {
        server: Some(server),
        between,
        out: Outboxes::default(),
        well: false,
    };
    let end = match run(client, &mut way, patience).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    way.well = true;
    if matches!(end, End::ServerClosed) {
        way.server = None;
    }
    // What was said before the end is heard, if it is heard soon.
    say(client, way.out.to_client.unsent()).await;
    end
}

/// The way to the server, which is told the last words however it ends.
struct Way<S: AsyncWrite + Unpin + Send + 'static, B: Between> {
    server: Option<S>,
    between: B,
    out: Outboxes,
    /// It came to its end, rather than being dropped for a right that is lost.
    well: bool,
}

impl<S: AsyncWrite + Unpin + Send + 'static, B: Between> Drop for Way<S, B> {
    fn drop(&mut self) {
        let (Some(mut server), Ok(runtime)) =
            (self.server.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // A message that is half out is finished, or the server would not understand what follows.
        let to_server = &self.out.to_server;
        let begun = self.well || to_server.sent > 0;
        let rest = if begun { to_server.unsent() } else { &[] };
        let words = [rest, &self.between.last_words()].concat();
        runtime.spawn(async move { say(&mut server, &words).await });
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), words: &[u8]) {
    let said = async {
        stream.write_all(words).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(LAST_WORDS_WITHIN, said).await;
}

async fn run<C, S, B>(
    client: &mut C,
    way: &mut Way<S, B>,
    patience: Duration,
) -> Result<std::convert::Infallible, End>
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Between,
{
    let Way {
        server: Some(server),
        between,
        out,
        ..
    } = way
    else {
        return Err(End::ServerClosed);
    };
    let (mut from_client, mut client_out) = tokio::io::split(client);
    let (mut from_server, mut server_out) = tokio::io::split(server);
    let (mut client_in, mut server_in) = (Inbox::default(), Inbox::default());
    loop {
        let now = Instant::now();
        out.to_client.note(now);
        out.to_server.note(now);
        let low = out.is_low();
        let stalled_at = out.stuck_since().map(|since| since + patience);
        let wake = [between.next_end(), stalled_at].into_iter().flatten().min();
        client_in.make_room();
        server_in.make_room();
        let Outboxes {
            to_client,
            to_server,
        } = out;
        tokio::select! {
            pushed = to_client.push(&mut client_out), if to_client.wants_out() => pushed.map_err(End::Client)?,
            pushed = to_server.push(&mut server_out), if to_server.wants_out() => pushed.map_err(End::Server)?,
            read = from_server.read_buf(&mut server_in.bytes), if low => {
                if read.map_err(End::Server)? == 0 {
                    return Err(End::ServerClosed);
                }
                between.server_sent(&mut server_in, out)?;
                // Answers may have made room for what the client sent before.
                between.client_sent(&mut client_in, out, now)?;
            }
            read = from_client.read_buf(&mut client_in.bytes), if low && between.takes_more() => {
                if read.map_err(End::Client)? == 0 {
                    return Err(End::ClientClosed);
                }
                between.client_sent(&mut client_in, out, now)?;
            }
            () = sleep_until(wake), if wake.is_some() => {
                let now = Instant::now();
                if stalled_at.is_some_and(|end| end <= now) {
                    return Err(End::Stalled);
                }
                between.time_passed(now, out);
                between.client_sent(&mut client_in, out, now)?;
            }
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
