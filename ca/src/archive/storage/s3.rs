//! An archive in S3-style storage. rusty-s3 signs the requests (AWS Signature Version 4, in the query); the requests
//! themselves are ours. Files of credentials are read at each, so that renewed ones count without a restart.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use edgeward_audit::event::Text;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::NotArchived;
use crate::config::retention::S3;
use crate::dial::{connect, read};

/// Spoken over TLS.
const ALPN: &[&[u8]] = &[b"http/1.1"];
/// For how long a signature is good: the clocks of both sides may differ by a part of it.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// Held by the server to what it receives, and part of what is signed.
const CHECKSUM: &str = "x-amz-checksum-sha256";
/// Longest answer that is read of one that is an error, in bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(in crate::archive) struct Storage {
    s3: S3,
}

/// What a server said.
struct Answer {
    status: StatusCode,
    /// As it says itself: of one to `HEAD` there is no more to see.
    length: Option<u64>,
    body: Bytes,
}

impl Storage {
    pub(super) fn new(s3: S3) -> Self {
        Self { s3 }
    }

    pub(super) async fn put(&self, name: &str, segment: Bytes) -> Result<(), NotArchived> {
        let sum = BASE64_STANDARD.encode(digest(&SHA256, &segment));
        let sent = self
            .ask(Method::PUT, name, Some(&sum), segment.clone(), 0)
            .await?;
        judge(sent.status, &sent.body)?;
        let back = self
            .ask(Method::GET, name, None, Bytes::new(), segment.len())
            .await?;
        judge(back.status, &back.body)?;
        match back.body == segment {
            true => Ok(()),
            false => Err(NotArchived::Changed(name.to_owned())),
        }
    }

    pub(super) async fn length_of(&self, name: &str) -> Result<Option<u64>, NotArchived> {
        let found = self.ask(Method::HEAD, name, None, Bytes::new(), 0).await?;
        // Its answer has no body that would say why.
        if found.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        judge(found.status, &found.body)?;
        let length = found.length.ok_or_else(|| {
            NotArchived::Down(format!("{name}: the answer does not say how long it is"))
        })?;
        Ok(Some(length))
    }

    /// One request on a connection of its own: there are few.
    async fn ask(
        &self,
        method: Method,
        name: &str,
        sum: Option<&str>,
        body: Bytes,
        most: usize,
    ) -> Result<Answer, NotArchived> {
        let request = self.request(method, name, sum, body)?;
        let to = self.s3.endpoint.authority();
        let lost = |error: hyper::Error| NotArchived::Down(format!("{to}: {error}"));
        let asked = async {
            let wire = connect(&self.s3.endpoint, self.s3.timeout, ALPN).await;
            let wire = wire.map_err(|error| NotArchived::Down(error.to_string()))?;
            let (mut open, connection) = handshake(TokioIo::new(wire)).await.map_err(lost)?;
            let running = tokio::spawn(connection);
            let response = open.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let length = response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            let most = match status.is_success() {
                true => most,
                false => MAX_ERROR_BYTES,
            };
            let body = bounded(response.into_body(), most).await?;
            running.abort();
            Ok(Answer {
                status,
                length,
                body,
            })
        };
        tokio::time::timeout(self.s3.timeout, asked)
            .await
            .map_err(|_| NotArchived::Down(format!("{to}: no answer in time")))?
    }

    fn request(
        &self,
        method: Method,
        name: &str,
        sum: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, NotArchived> {
        let s3 = &self.s3;
        let scheme = if s3.endpoint.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let bad = |error: &dyn std::fmt::Display| NotArchived::Refused(error.to_string());
        let base = format!("{scheme}://{}", s3.endpoint.authority());
        let base = base.parse().map_err(|error| bad(&error))?;
        let bucket = Bucket::new(base, UrlStyle::Path, s3.bucket.clone(), s3.region.clone())
            .map_err(|error| bad(&error))?;
        let credentials = self.credentials()?;
        let object = format!("{}{name}", s3.prefix);
        let now = jiff::Timestamp::now();
        let url = if method == Method::PUT {
            let mut put = bucket.put_object(Some(&credentials), &object);
            if let Some(sum) = sum {
                put.headers_mut().insert(CHECKSUM, sum);
            }
            put.sign_with_time(GOOD_FOR, &now)
        } else if method == Method::HEAD {
            bucket
                .head_object(Some(&credentials), &object)
                .sign_with_time(GOOD_FOR, &now)
        } else {
            bucket
                .get_object(Some(&credentials), &object)
                .sign_with_time(GOOD_FOR, &now)
        };
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        // The signature covers the host without a port that goes without saying.
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("edgeward/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(sum) = sum {
            request = request.header(CHECKSUM, sum);
        }
        request.body(Full::new(body)).map_err(|error| bad(&error))
    }

    fn credentials(&self) -> Result<Credentials, NotArchived> {
        let key = word(&self.s3.key_file)?;
        let secret = word(&self.s3.secret_file)?;
        Ok(match &self.s3.token_file {
            Some(path) => Credentials::new_with_token(key, secret, word(path)?),
            None => Credentials::new(key, secret),
        })
    }
}

/// What a file holds, without the line's end.
fn word(path: &Path) -> Result<String, NotArchived> {
    let bytes = read(path).map_err(|error| NotArchived::Refused(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err(NotArchived::Refused(format!(
            "{}: not one word",
            path.display()
        ))),
        false => Ok(text.to_owned()),
    }
}

fn judge(status: StatusCode, body: &[u8]) -> Result<(), NotArchived> {
    if status.is_success() {
        return Ok(());
    }
    let said = Text::<200>::lossy(&String::from_utf8_lossy(body)).to_string();
    let why = format!("{status}: {said}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            Err(NotArchived::Refused(why))
        }
        _ => Err(NotArchived::Down(why)),
    }
}

async fn bounded(mut body: Incoming, most: usize) -> Result<Bytes, NotArchived> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NotArchived::Down(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > most.max(MAX_ERROR_BYTES) {
                return Err(NotArchived::Down("the answer is too long".to_owned()));
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}
