//! A client of the REST API: HTTP/1.1 over TLS 1.3, the cloud recognised by its SPIFFE ID under the context's roots.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgeward_identity::tls::{Credentials, PeerVerifier, client, keyless_client};
use edgeward_identity::{DenyList, Kind, Secret, Signer, SystemClock, TrustDomain, TrustView};
use edgeward_wire::limits::ALPN_HTTP1;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::context::{Context, Credential, read_api_key};
use crate::api::views::ProblemView;

mod line;

pub(super) use line::Line;

/// How long a connection to one address may take, handshake included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Speaks to one cloud as one caller.
pub(super) struct Client {
    addresses: Vec<String>,
    trust_domain: TrustDomain,
    tls: Arc<rustls::ClientConfig>,
    signer: Option<Arc<dyn Signer>>,
    bearer: Option<Secret<String>>,
}

impl Client {
    pub(super) fn new(
        context: Context,
        cloud: Option<&str>,
        api_key_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        let trust_domain = context.bundle.trust_domain().clone();
        // The deny-list is the cloud's to enforce; a client has none.
        let trust = Arc::new(ArcSwap::from_pointee(TrustView {
            bundle: context.bundle,
            deny: DenyList::default(),
        }));
        let verifier = PeerVerifier::mandatory(trust, Arc::new(SystemClock), &[Kind::Cloud]);
        let credential = match api_key_file {
            Some(path) => Credential::ApiKey(read_api_key(path)?),
            None => context.credential,
        };
        let alpn = &[ALPN_HTTP1];
        let (tls, signer, bearer) = match credential {
            Credential::Certificate(svid) => (
                client(Credentials::new(&svid), verifier, alpn),
                Some(svid.signer().clone()),
                None,
            ),
            Credential::ApiKey(key) => (keyless_client(verifier, alpn), None, Some(key)),
        };
        Ok(Self {
            addresses: match cloud {
                Some(address) => vec![address.to_owned()],
                None => context.addresses,
            },
            trust_domain,
            tls: Arc::new(tls),
            signer,
            bearer,
        })
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs with the key of the context's certificate.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signer = self.signer.as_ref().ok_or_else(|| {
            Failure::Usage(
                "this is signed, so it needs an operator certificate, not an API key".to_owned(),
            )
        })?;
        Ok(signer.sign(message)?)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    /// Opens an answer that stays open. `last` resumes after that event.
    pub(super) async fn follow(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = self.request(Method::GET, path, Bytes::new())?;
        if let Some(value) = last.and_then(|last| last.parse().ok()) {
            request.headers_mut().insert("last-event-id", value);
        }
        let response = self.send(request).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(problem(read(response).await?)),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let body = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|error| Failure::Usage(error.to_string()))?
                .into(),
            None => Bytes::new(),
        };
        let request = self.request(method, path, body)?;
        let response = tokio::time::timeout(ANSWER_DEADLINE, self.send(request))
            .await
            .map_err(|_| Failure::Unreachable("no answer in time".to_owned()))??;
        let status = response.status();
        let answer = read(response).await?;
        if !status.is_success() {
            return Err(problem(answer));
        }
        let json: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(json).map_err(|error| Failure::Answer(error.to_string()))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "edgeward")
            .header(
                header::USER_AGENT,
                concat!("edgeward/", env!("CARGO_PKG_VERSION")),
            );
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &self.bearer {
            let mut value: header::HeaderValue =
                format!("Bearer {}", key.expose()).parse().map_err(|_| {
                    Failure::Usage("the API key file does not hold an API key".to_owned())
                })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request
            .body(Full::new(body))
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let mut sender = self.open().await?;
        sender
            .send_request(request)
            .await
            .map_err(|error| lost(&error))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = self.connect().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let mut last = String::new();
        for address in &self.addresses {
            match tokio::time::timeout(CONNECT_DEADLINE, self.connect_to(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no connection in time"),
            }
        }
        Err(Failure::Unreachable(last))
    }

    async fn connect_to(
        &self,
        address: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // The verifier knows the cloud by its SPIFFE ID; the name is a formality.
        let name = ServerName::try_from("edgeward").map_err(std::io::Error::other)?;
        TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
    }
}

/// A path's segment or a query's value, percent-encoded (RFC 3986 2.1).
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let collected = tokio::time::timeout(ANSWER_DEADLINE, body.collect())
        .await
        .map_err(|_| Failure::Unreachable("the answer did not end in time".to_owned()))?;
    Ok(collected
        .map_err(|error| Failure::Answer(error.to_string()))?
        .to_bytes())
}

fn problem(answer: Bytes) -> Failure {
    match serde_json::from_slice::<ProblemView>(&answer) {
        Ok(problem) => Failure::Refused(Box::new(problem)),
        Err(_) => Failure::Answer("neither an answer nor a problem document".to_owned()),
    }
}

/// A TLS 1.3 client learns only here, from an alert, that its own certificate was refused.
fn lost(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match text.split_once("received fatal alert: ") {
        Some((_, alert)) => Failure::Certificate(alert.to_owned()),
        None => Failure::Unreachable(text),
    }
}
