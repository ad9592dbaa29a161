//! The server: honest, or not in one way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_wire::v1;
use edgeward_wire::v1::apps_server::{Apps, AppsServer};
use futures::{Stream, StreamExt, stream};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use super::Digest;

/// What the server does.
#[derive(Clone)]
pub(super) enum Way {
    /// As it should.
    Honest,
    /// Serves these bytes in the place of the file.
    Instead(BTreeMap<String, Vec<u8>>),
    /// Pieces of so many bytes without end.
    Endless(usize),
    /// One byte after the other, each after this time.
    Drip(Duration),
    Silent,
    /// One piece of so many bytes.
    Long(usize),
    /// These chunks, whatever was asked for.
    Chunks(Vec<v1::AppsChunk>),
    /// Nothing but the beginning of each file, in this share of a thousand.
    Torn(usize),
}

#[derive(Clone)]
pub(super) struct Hostile {
    pub(super) files: Arc<BTreeMap<String, Vec<u8>>>,
    pub(super) manifests: Arc<BTreeMap<Digest, Vec<u8>>>,
    pub(super) chunks: Arc<BTreeMap<Digest, Vec<u8>>>,
    pub(super) way: Way,
    pub(super) sent: Arc<AtomicU64>,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Hostile {
    fn whole(&self, bytes: Vec<u8>) -> Answer<v1::AppsPiece> {
        let sent = self.sent.clone();
        let counted = move |bytes: Vec<u8>| {
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(v1::AppsPiece { bytes })
        };
        match self.way {
            Way::Endless(size) => {
                Box::pin(stream::repeat_with(move || vec![b' '; size]).map(counted))
            }
            Way::Drip(pause) => Box::pin(stream::iter(bytes).then(move |byte| {
                let piece = counted(vec![byte]);
                async move {
                    tokio::time::sleep(pause).await;
                    piece
                }
            })),
            Way::Silent => Box::pin(stream::pending()),
            Way::Long(size) => Box::pin(stream::iter([counted(vec![b' '; size])])),
            Way::Torn(share) => {
                let end = bytes.len() * share / 1000;
                Box::pin(stream::iter([counted(bytes[..end].to_vec())]))
            }
            _ => Box::pin(stream::iter([counted(bytes)])),
        }
    }
}

#[tonic::async_trait]
impl Apps for Hostile {
    type MetadataStream = Answer<v1::AppsPiece>;
    type ManifestStream = Answer<v1::AppsPiece>;
    type ChunksStream = Answer<v1::AppsChunk>;

    async fn metadata(
        &self,
        request: Request<v1::AppsMetadataRequest>,
    ) -> Result<Response<Self::MetadataStream>, Status> {
        let name = request.into_inner().name;
        let instead = match &self.way {
            Way::Instead(files) => files.get(&name),
            _ => None,
        };
        let bytes = instead.or_else(|| self.files.get(&name)).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found("apps_absent"))?;
        Ok(Response::new(self.whole(bytes)))
    }

    async fn manifest(
        &self,
        request: Request<v1::AppsManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let digest = Digest::from_bytes(request.into_inner().sha256.try_into().unwrap());
        let bytes = self.manifests.get(&digest).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found("apps_absent"))?;
        Ok(Response::new(self.whole(bytes)))
    }

    async fn chunks(
        &self,
        request: Request<v1::AppsChunksRequest>,
    ) -> Result<Response<Self::ChunksStream>, Status> {
        let asked = request.into_inner().sha256;
        let honest = asked.into_iter().filter_map(|sha256| {
            let digest = Digest::from_bytes(sha256.clone().try_into().unwrap());
            let content = self.chunks.get(&digest)?.clone();
            Some(v1::AppsChunk { sha256, content })
        });
        let given: Vec<v1::AppsChunk> = match &self.way {
            Way::Silent => return Ok(Response::new(Box::pin(stream::pending()))),
            Way::Chunks(given) => given.clone(),
            _ => honest.collect(),
        };
        Ok(Response::new(Box::pin(stream::iter(
            given.into_iter().map(Ok),
        ))))
    }
}

pub(super) async fn serve(stream: TcpStream, server: Hostile) {
    let server = AppsServer::new(server);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        server.clone().oneshot(request.map(tonic::body::Body::new))
    });
    let connection = http2::Builder::new(TokioExecutor::new());
    let served = connection.serve_connection(TokioIo::new(stream), service);
    drop(served.await);
}
