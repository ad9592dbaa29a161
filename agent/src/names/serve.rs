//! Takes questions by datagram and by stream, and answers them from the book or has others answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::Clock;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answer::{Carrier, MAX_QUESTION_BYTES, Reply, Whose, answer};
use super::book::Book;
use super::pace::Pace;
use super::report::Shown;
use super::upstream;

/// Most questions that wait for another server at a time.
const MAX_WAITING: usize = 128;
/// Most streams at a time.
const MAX_STREAMS: usize = 32;
/// Most questions on one stream.
const MAX_STREAM_QUESTIONS: usize = 64;
/// A stream on which nothing comes for this long ends.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// How soon a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What every question is answered from.
pub(super) struct Desk {
    pub(super) book: ArcSwap<Book>,
    /// Whom to ask for what is not ours.
    pub(super) upstream: ArcSwap<Vec<SocketAddr>>,
    /// Whether questions of other zones are sent on. The cloud's own names always are.
    pub(super) forwards: bool,
    /// This node's own addresses in the mesh: nobody but this machine asks from them.
    pub(super) own: Vec<IpAddr>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pace: Mutex<Pace>,
    pub(super) waiting: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) shown: Arc<Shown>,
}

impl Desk {
    pub(super) fn new(
        book: Book,
        forwards: bool,
        own: Vec<IpAddr>,
        clock: Arc<dyn Clock>,
        shown: Arc<Shown>,
    ) -> Self {
        Self {
            book: ArcSwap::from_pointee(book),
            upstream: ArcSwap::default(),
            forwards,
            own,
            pace: Mutex::new(Pace::new(clock.boottime())),
            clock,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            shown,
        }
    }

    /// Whether a question comes from this machine: no name is told to peers.
    fn is_from_here(&self, source: IpAddr) -> bool {
        source.is_loopback() || self.own.contains(&source)
    }

    fn may_answer(&self) -> bool {
        let may = self.pace.lock().take(self.clock.boottime());
        if !may {
            count("limited");
        }
        may
    }

    /// Answers or says whom to ask.
    fn look(&self, question: &[u8], carrier: Carrier) -> Looked {
        match answer(question, &self.book.load(), carrier, self.forwards) {
            Reply::Silence => {
                count("silence");
                Looked::Silence
            }
            Reply::Answer(outcome, bytes) => {
                count(outcome.as_str());
                Looked::Answer(bytes)
            }
            Reply::Elsewhere { whose, refusal } => {
                let servers = self.upstream.load_full();
                let forwards = self.forwards || whose == Whose::Cloud;
                if forwards && !servers.is_empty() {
                    return Looked::Ask(servers, refusal);
                }
                count("refused");
                Looked::Answer(refusal)
            }
        }
    }

    /// What another server says; the refusal if none does.
    async fn have_answered(
        &self,
        servers: &[SocketAddr],
        question: &[u8],
        carrier: Carrier,
        refusal: Vec<u8>,
    ) -> Vec<u8> {
        let Ok(_place) = self.waiting.try_acquire() else {
            count("limited");
            return refusal;
        };
        match upstream::ask(servers, question, carrier).await {
            Some(answer) => {
                count("forwarded");
                answer
            }
            None => {
                count("unanswered");
                refusal
            }
        }
    }
}

enum Looked {
    Silence,
    Answer(Vec<u8>),
    Ask(Arc<Vec<SocketAddr>>, Vec<u8>),
}

fn count(outcome: &'static str) {
    metrics::counter!("edgeward_names_questions_total", "outcome" => outcome).increment(1);
}

/// Answers at one address until the token is cancelled; a port that cannot be had is tried again.
pub(super) async fn serve(desk: Arc<Desk>, address: SocketAddr, token: CancellationToken) {
    let mut complained = None;
    loop {
        let ended = tokio::select! {
            () = token.cancelled() => return,
            ended = serve_once(&desk, address) => ended,
        };
        if let Err(error) = ended {
            let reason = error.to_string();
            if complained.as_ref() != Some(&reason) {
                tracing::warn!(%address, %error, "names cannot be asked for here");
                complained = Some(reason.clone());
            }
            desk.shown.closed(address, reason);
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn serve_once(desk: &Arc<Desk>, address: SocketAddr) -> io::Result<()> {
    let datagrams = Arc::new(UdpSocket::bind(address).await?);
    let streams = TcpListener::bind(address).await?;
    desk.shown.open(address);
    tokio::select! {
        ended = serve_datagrams(desk, datagrams) => ended,
        ended = serve_streams(desk, streams) => ended,
    }
}

async fn serve_datagrams(desk: &Arc<Desk>, socket: Arc<UdpSocket>) -> io::Result<()> {
    let mut room = vec![0; MAX_QUESTION_BYTES];
    loop {
        let (length, from) = match socket.recv_from(&mut room).await {
            Ok(received) => received,
            // What came back to an answer of ours.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        if !desk.is_from_here(from.ip()) {
            count("stranger");
            continue;
        }
        if !desk.may_answer() {
            continue;
        }
        let question = room.get(..length).unwrap_or_default();
        match desk.look(question, Carrier::Datagram) {
            Looked::Silence => {}
            Looked::Answer(answer) => send(&socket, &answer, from).await,
            Looked::Ask(servers, refusal) => {
                let (desk, socket, question) =
                    (Arc::clone(desk), Arc::clone(&socket), question.to_vec());
                tokio::spawn(async move {
                    let answer = desk
                        .have_answered(&servers, &question, Carrier::Datagram, refusal)
                        .await;
                    send(&socket, &answer, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%to, %error, "answer not sent");
    }
}

async fn serve_streams(desk: &Arc<Desk>, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        if !desk.is_from_here(from.ip()) {
            count("stranger");
            continue;
        }
        let Ok(place) = Arc::clone(&desk.streams).try_acquire_owned() else {
            count("limited");
            continue;
        };
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            if let Err(error) = converse(&desk, stream).await {
                tracing::debug!(%error, "stream of questions");
            }
            drop(place);
        });
    }
}

async fn converse(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    let mut question = Vec::new();
    for _ in 0..MAX_STREAM_QUESTIONS {
        let reading = async {
            let length = usize::from(stream.read_u16().await?);
            if length > MAX_QUESTION_BYTES {
                return Err(io::Error::other("question is longer than the limit"));
            }
            question.resize(length, 0);
            stream.read_exact(&mut question).await
        };
        match tokio::time::timeout(STREAM_IDLE, reading).await {
            Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(read) => read.map(|_| ())?,
        }
        if !desk.may_answer() {
            return Ok(());
        }
        let answer = match desk.look(&question, Carrier::Stream) {
            Looked::Silence => return Ok(()),
            Looked::Answer(answer) => answer,
            Looked::Ask(servers, refusal) => {
                desk.have_answered(&servers, &question, Carrier::Stream, refusal)
                    .await
            }
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(STREAM_IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
