//! The server of the contract's `Apps`, for whoever has a repository or a copy of one: the cloud, and nodes that serve
//! others nearby.
//!
//! Whoever asks verifies all of it, so nothing here decides what may run. What is kept here is that nobody is served
//! more than his share: each caller has a budget of bytes, a few answers at a time, and waits its turn; who does not
//! read what it asked for is left.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::BootTime;
use parking_lot::Mutex;
use ring::digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

use crate::budget::Budget;
use crate::limits::{MAX_APPS_MESSAGE_BYTES, MAX_APPS_PIECE_BYTES, MAX_CHUNKS_AT_ONCE};
use crate::v1;
use crate::v1::apps_server::{Apps, AppsServer};

/// How long callers wait, and are waited for, unless there is a reason for less.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The shortest wait for what a budget does not give at once.
const MIN_WAIT: Duration = Duration::from_millis(5);
/// Largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Longest name of a file of metadata, in bytes.
const MAX_FILE_NAME_BYTES: usize = 128;
/// What a request costs of the budget, in bytes, whatever comes of it.
const REQUEST_COST: usize = 1024;
/// What looking for content costs of the budget, in bytes, where it is not there.
const LOOK_COST: usize = 256;
/// How much of metadata or of a manifest is kept for an answer while it is sent, in bytes; the rest is read again.
const WINDOW_BYTES: usize = 4 * MAX_APPS_PIECE_BYTES;
/// How many answers may be open for each that is read for at a time. What one holds that nobody takes is bounded by a
/// chunk, or a window and a piece.
const OPEN_FOR_EACH_TURN: usize = 8;

/// What is served, and to whom.
#[tonic::async_trait]
pub trait Stock: Clone + Send + Sync + 'static {
    /// Under which name its budget is kept; an error: it is served nothing.
    fn caller(&self, asks: &Extensions) -> Result<String, Status>;

    fn now(&self) -> BootTime;

    /// A file of metadata by its name, which is anything of at most 128 bytes.
    async fn metadata(&self, name: String) -> Result<Option<Vec<u8>>, Status>;

    async fn manifest(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status>;

    async fn chunk(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status>;

    /// Bytes of `metadata`, `manifest` or `chunk` went out.
    fn served(&self, _kind: &'static str, _bytes: usize) {}
}

/// How much is served.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To one caller, in bytes; ten seconds' worth at once.
    pub bytes_per_second: u64,
    /// Most answers that something is read for at a time: a chunk, a manifest, or a file of metadata. Eight times as many
    /// may be open: waiting for their budget, or for whoever asked to take what was read.
    pub answers: usize,
    /// Most open ones to one caller.
    pub answers_to_one: u32,
    /// Most callers that are remembered.
    pub callers: usize,
    /// How long a caller waits for its turn, and for what its budget does not give at once; and after how long one that
    /// takes nothing is left.
    pub patience: Duration,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Serving<S> {
    stock: S,
    bounds: Bounds,
    /// For reading, and handing on what was read.
    turns: Arc<Semaphore>,
    /// For being open.
    places: Arc<Semaphore>,
    callers: Arc<Mutex<BTreeMap<String, Caller>>>,
}

#[derive(Debug)]
struct Caller {
    budget: Budget,
    open: u32,
}

/// An answer that is being sent. Gives its place back at its end.
struct Open<S: Stock> {
    serving: Serving<S>,
    caller: String,
    place: Option<OwnedSemaphorePermit>,
}

/// What is sent in pieces.
#[derive(Clone, Debug)]
enum File {
    Metadata(String),
    Manifest([u8; 32]),
}

/// A part of a file, and what the whole is known by.
#[derive(Debug)]
struct Window {
    bytes: Vec<u8>,
    end: usize,
    whole: digest::Digest,
    length: usize,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<S: Stock> Serving<S> {
    pub fn new(stock: S, bounds: Bounds) -> Self {
        Self {
            stock,
            bounds,
            turns: Arc::new(Semaphore::new(bounds.answers)),
            places: Arc::new(Semaphore::new(bounds.answers * OPEN_FOR_EACH_TURN)),
            callers: Arc::default(),
        }
    }

    pub fn into_server(self) -> AppsServer<Self> {
        AppsServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_APPS_MESSAGE_BYTES)
    }

    /// Who asks, and a place for the answer.
    async fn enter(&self, asks: &Extensions) -> Result<Open<S>, Status> {
        let caller = self.stock.caller(asks)?;
        self.count(&caller)?;
        let mut open = Open {
            serving: self.clone(),
            caller,
            place: None,
        };
        if !open.pay(REQUEST_COST).await {
            return Err(budget());
        }
        let place = self.places.clone().acquire_owned();
        match tokio::time::timeout(self.bounds.patience, place).await {
            Ok(Ok(place)) => open.place = Some(place),
            _ => return Err(budget()),
        }
        Ok(open)
    }

    fn count(&self, caller: &str) -> Result<(), Status> {
        let now = self.stock.now();
        let mut callers = self.callers.lock();
        if callers.len() >= self.bounds.callers && !callers.contains_key(caller) {
            // Forgetting one that has used something would give it back.
            callers.retain(|_, known| known.open > 0 || !known.budget.is_whole(now));
            if callers.len() >= self.bounds.callers {
                return Err(budget());
            }
        }
        let known = callers.entry(caller.to_owned()).or_insert_with(|| Caller {
            budget: Budget::new(self.bounds.bytes_per_second, now),
            open: 0,
        });
        if known.open >= self.bounds.answers_to_one {
            return Err(budget());
        }
        known.open += 1;
        Ok(())
    }
}

impl<S: Stock> Open<S> {
    /// Held while something is read and handed on, never while waiting for the caller or its budget.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let turn = self.serving.turns.acquire();
        match tokio::time::timeout(self.serving.bounds.patience, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(budget()),
        }
    }

    /// Reads what follows `from`; an error where it is another file than `before`.
    async fn window(
        &self,
        file: &File,
        from: usize,
        before: Option<&Window>,
    ) -> Result<Window, Status> {
        let _turn = self.turn().await?;
        let stock = &self.serving.stock;
        let whole = match file {
            File::Metadata(name) => stock.metadata(name.clone()).await?,
            File::Manifest(sha256) => stock.manifest(*sha256).await?,
        };
        let bytes = whole.ok_or_else(absent)?;
        let whole = digest::digest(&digest::SHA256, &bytes);
        if before.is_some_and(|before| before.whole.as_ref() != whole.as_ref()) {
            return Err(Status::unavailable("unavailable"));
        }
        let length = bytes.len();
        let end = from.saturating_add(WINDOW_BYTES).min(length);
        let bytes = bytes.get(from..end).unwrap_or_default().to_vec();
        Ok(Window {
            bytes,
            end,
            whole,
            length,
        })
    }

    /// Sends a file in pieces, from `offset` on.
    async fn pieces(
        self,
        kind: &'static str,
        file: File,
        offset: u64,
    ) -> Result<Answer<v1::AppsPiece>, Status> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut window = self.window(&file, from, None).await?;
        let (out, answer) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                for piece in window.bytes.chunks(MAX_APPS_PIECE_BYTES) {
                    let message = v1::AppsPiece {
                        bytes: piece.to_vec(),
                    };
                    if !self.send(&out, kind, piece.len(), message).await {
                        return;
                    }
                }
                if window.end >= window.length {
                    return;
                }
                window = match self.window(&file, window.end, Some(&window)).await {
                    Ok(next) => next,
                    Err(status) => return self.refuse(&out, status).await,
                };
            }
        });
        Ok(Box::pin(ReceiverStream::new(answer)))
    }

    /// Sends what is here of these.
    fn chunks(self, wanted: Vec<[u8; 32]>) -> Answer<v1::AppsChunk> {
        let (out, answer) = mpsc::channel(1);
        tokio::spawn(async move {
            for sha256 in wanted {
                // Nothing is read for who does not take what was read before.
                let room = tokio::time::timeout(self.serving.bounds.patience, out.reserve());
                let Ok(Ok(room)) = room.await else {
                    return;
                };
                match self.chunk(sha256).await {
                    Ok(Some(chunk)) => room.send(Ok(chunk)),
                    // Somebody else may have it.
                    Ok(None) => {}
                    Err(status) => return room.send(Err(status)),
                }
            }
        });
        Box::pin(ReceiverStream::new(answer))
    }

    /// One that is paid for. It is not kept while its price is waited for, but read again.
    async fn chunk(&self, sha256: [u8; 32]) -> Result<Option<v1::AppsChunk>, Status> {
        let mut paid = 0;
        loop {
            let turn = self.turn().await?;
            let content = self.serving.stock.chunk(sha256).await?;
            let price = content.as_ref().map_or(LOOK_COST, Vec::len);
            if paid >= price || self.take(price).is_ok() {
                let chunk = content.map(|content| v1::AppsChunk {
                    sha256: sha256.to_vec(),
                    content,
                });
                if chunk.is_some() {
                    self.serving.stock.served("chunk", price);
                }
                return Ok(chunk);
            }
            drop((turn, content));
            if !self.pay(price).await {
                return Err(budget());
            }
            paid = price;
        }
    }

    /// Sends one message within the caller's budget. `false`: the answer ends here.
    async fn send<T>(
        &self,
        out: &mpsc::Sender<Result<T, Status>>,
        kind: &'static str,
        bytes: usize,
        message: T,
    ) -> bool {
        if !self.pay(bytes).await {
            self.refuse(out, budget()).await;
            return false;
        }
        let sent = out.send_timeout(Ok(message), self.serving.bounds.patience);
        let sent = sent.await.is_ok();
        if sent {
            self.serving.stock.served(kind, bytes);
        }
        sent
    }

    async fn refuse<T>(&self, out: &mpsc::Sender<Result<T, Status>>, status: Status) {
        // Who does not take it does not hear it.
        let _ = out
            .send_timeout(Err(status), self.serving.bounds.patience)
            .await;
    }

    /// Takes bytes from the budget, or says how long it takes until there are so many; nothing: never.
    fn take(&self, bytes: usize) -> Result<(), Option<Duration>> {
        let mut callers = self.serving.callers.lock();
        let known = callers.get_mut(&self.caller).ok_or(None)?;
        match known.budget.take(bytes, self.serving.stock.now()) {
            true => Ok(()),
            false => Err(Some(known.budget.wait(bytes))),
        }
    }

    /// Takes bytes from the budget, or waits until there are so many.
    async fn pay(&self, bytes: usize) -> bool {
        let mut patience = self.serving.bounds.patience;
        loop {
            let wait = match self.take(bytes) {
                Ok(()) => return true,
                Err(Some(wait)) => wait.max(MIN_WAIT),
                Err(None) => return false,
            };
            match patience.checked_sub(wait) {
                Some(rest) => patience = rest,
                None => return false,
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl<S: Stock> Drop for Open<S> {
    fn drop(&mut self) {
        if let Some(known) = self.serving.callers.lock().get_mut(&self.caller) {
            known.open = known.open.saturating_sub(1);
        }
    }
}

#[tonic::async_trait]
impl<S: Stock> Apps for Serving<S> {
    type MetadataStream = Answer<v1::AppsPiece>;
    type ManifestStream = Answer<v1::AppsPiece>;
    type ChunksStream = Answer<v1::AppsChunk>;

    async fn metadata(
        &self,
        request: Request<v1::AppsMetadataRequest>,
    ) -> Result<Response<Self::MetadataStream>, Status> {
        let open = self.enter(request.extensions()).await?;
        let name = request.into_inner().name;
        if name.len() > MAX_FILE_NAME_BYTES {
            return Err(malformed());
        }
        let pieces = open.pieces("metadata", File::Metadata(name), 0);
        Ok(Response::new(pieces.await?))
    }

    async fn manifest(
        &self,
        request: Request<v1::AppsManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let open = self.enter(request.extensions()).await?;
        let request = request.into_inner();
        let sha256 = sha256_of(&request.sha256)?;
        let pieces = open.pieces("manifest", File::Manifest(sha256), request.offset);
        Ok(Response::new(pieces.await?))
    }

    async fn chunks(
        &self,
        request: Request<v1::AppsChunksRequest>,
    ) -> Result<Response<Self::ChunksStream>, Status> {
        let open = self.enter(request.extensions()).await?;
        let wanted = request.into_inner().sha256;
        if wanted.len() > MAX_CHUNKS_AT_ONCE {
            return Err(malformed());
        }
        let wanted = wanted.iter().map(|bytes| sha256_of(bytes));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        Ok(Response::new(open.chunks(wanted)))
    }
}

fn sha256_of(bytes: &[u8]) -> Result<[u8; 32], Status> {
    bytes.try_into().map_err(|_| malformed())
}

fn malformed() -> Status {
    Status::invalid_argument("apps_malformed")
}

fn absent() -> Status {
    Status::not_found("apps_absent")
}

fn budget() -> Status {
    Status::resource_exhausted("apps_budget")
}

#[cfg(test)]
mod tests;
