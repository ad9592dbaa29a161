//! Submissions over HTTP/1.1: one connection to a witness, opened again where it ended.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use edgeward_audit::witness::MAX_SUBMISSION_BYTES;
use edgeward_identity::tls::{PeerVerifier, keyless_client};
use edgeward_identity::{DenyList, Kind, SystemClock, TrustBundle, TrustDomain, TrustView};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::witness::Asked;
use crate::dial::{Wire, connect, read};

/// How long a witness may take, its connection included.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Speaks to one witness.
pub(super) struct Post {
    asked: Asked,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Post {
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked, open: None }
    }

    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Sends a submission and reads the answer, which is bounded as what is sent is.
    pub(super) async fn submit(&mut self, body: String) -> Result<(StatusCode, Bytes), String> {
        let to = self.asked.endpoint.authority();
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(body.into())).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if answer.is_err() {
            self.open = None;
        }
        answer.map_err(|why| format!("{to}: {why}"))
    }

    async fn exchange(&mut self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::post(&self.asked.path)
            .header(header::HOST, self.asked.endpoint.authority())
            .header(
                header::USER_AGENT,
                concat!("edgeward/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        // One that the server has ended meanwhile is seen before it is used.
        let kept = match self.open.take() {
            Some(mut open) => open.ready().await.is_ok().then_some(open),
            None => None,
        };
        let mut open = match kept {
            Some(open) => open,
            None => self.connect().await?,
        };
        let response = open.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let mut body = response.into_body();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            if let Ok(data) = frame.into_data() {
                if read.len() + data.len() > MAX_SUBMISSION_BYTES {
                    return Err("the answer is longer than 64 KiB".to_owned());
                }
                read.extend_from_slice(&data);
            }
        }
        self.open = Some(open);
        Ok((status, read.freeze()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let wire = match &self.asked.cloud {
            None => connect(&self.asked.endpoint, TIMEOUT, ALPN)
                .await
                .map_err(|error| error.to_string())?,
            Some((domain, bundle)) => self.connect_to_cloud(domain, bundle).await?,
        };
        let (open, connection) = handshake(TokioIo::new(wire))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(open)
    }

    /// A cloud like this one: its certificate has a SPIFFE ID and no name. The bundle is read at each call, so that a
    /// newer one counts without a restart.
    async fn connect_to_cloud(
        &self,
        domain: &TrustDomain,
        bundle: &std::path::Path,
    ) -> Result<Wire, String> {
        let json = read(bundle).map_err(|error| error.to_string())?;
        let bundle = TrustBundle::from_spiffe_json(domain.clone(), &json)
            .map_err(|error| format!("{}: {error}", bundle.display()))?;
        let trust = TrustView {
            bundle,
            deny: DenyList::default(),
        };
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let verifier = PeerVerifier::mandatory(trust, Arc::new(SystemClock), &[Kind::Cloud]);
        let connector = TlsConnector::from(Arc::new(keyless_client(verifier, ALPN)));
        let (host, port) = (self.asked.endpoint.host.as_str(), self.asked.endpoint.port);
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        // The verifier knows the cloud by its SPIFFE ID; the name is a formality.
        let name = ServerName::try_from("edgeward").map_err(|error| error.to_string())?;
        connector
            .connect(name, stream)
            .await
            .map(|stream| Wire::Tls(Box::new(stream)))
            .map_err(|error| format!("no tls: {error}"))
    }
}
