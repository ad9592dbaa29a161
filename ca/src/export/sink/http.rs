//! Batches over HTTP: OTLP as messages of its own, everything else by lines.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgeward_audit::event::Text;
use edgeward_audit::export::{Exported, otlp};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::{Given, NotGiven, line};
use crate::config::exports::{Export, Format};
use crate::dial::{Endpoint, connect, read};

/// Longest pause that a receiver may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Spoken over TLS.
const ALPN: &[&[u8]] = &[b"http/1.1"];

pub(crate) struct HttpSink {
    endpoint: Endpoint,
    path: String,
    token_file: Option<PathBuf>,
    timeout: Duration,
    cloud: String,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl HttpSink {
    pub(crate) fn new(
        endpoint: Endpoint,
        path: String,
        token_file: Option<PathBuf>,
        timeout: Duration,
        cloud: String,
    ) -> Self {
        Self {
            endpoint,
            path,
            token_file,
            timeout,
            cloud,
            open: None,
        }
    }

    pub(super) async fn give(
        &mut self,
        export: &Export,
        events: &[Exported<'_>],
    ) -> Result<Given, NotGiven> {
        let (kind, body) = match export.format {
            Format::Otlp => (otlp::CONTENT_TYPE, otlp::request(events, &self.cloud)),
            format => {
                let mut body = Vec::new();
                for event in events {
                    body.extend_from_slice(line(export, event).as_bytes());
                    body.push(b'\n');
                }
                match format {
                    Format::Json | Format::Ocsf => ("application/x-ndjson", body),
                    _ => ("text/plain; charset=utf-8", body),
                }
            }
        };
        let answer = tokio::time::timeout(self.timeout, self.post(kind, body.into())).await;
        match answer {
            Ok(Ok((status, pause, body))) => judge(export.format, status, pause, &body),
            Ok(Err(why)) => {
                self.open = None;
                Err(NotGiven::down(why))
            }
            Err(_) => {
                self.open = None;
                Err(NotGiven::down(format!(
                    "{}: no answer in time",
                    self.endpoint.authority()
                )))
            }
        }
    }

    async fn post(
        &mut self,
        kind: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Option<Duration>, Bytes), String> {
        let request = self.request(kind, body)?;
        let to = self.endpoint.authority();
        let lost = |error: hyper::Error| format!("{to}: {error}");
        // One that the server has ended meanwhile is seen before it is used.
        let kept = match self.open.take() {
            Some(mut open) => open.ready().await.is_ok().then_some(open),
            None => None,
        };
        let mut open = match kept {
            Some(open) => open,
            None => {
                let wire = connect(&self.endpoint, self.timeout, ALPN).await;
                let wire = wire.map_err(|error| error.to_string())?;
                let (open, connection) = handshake(TokioIo::new(wire)).await.map_err(lost)?;
                tokio::spawn(connection);
                open
            }
        };
        let response = open.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let pause = pause(&response);
        let body = read_bounded(response).await?;
        self.open = Some(open);
        Ok((status, pause, body))
    }

    fn request(&self, kind: &str, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::post(&self.path)
            .header(header::HOST, self.endpoint.authority())
            .header(
                header::USER_AGENT,
                concat!("edgeward/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, kind);
        if let Some(path) = &self.token_file {
            let bytes = read(path).map_err(|error| error.to_string())?;
            let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
            let mut value: header::HeaderValue = format!("Bearer {token}")
                .parse()
                .map_err(|_| format!("{}: no token", path.display()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request
            .body(Full::new(body))
            .map_err(|error| error.to_string())
    }
}

/// What an answer means.
fn judge(
    format: Format,
    status: StatusCode,
    pause: Option<Duration>,
    body: &[u8],
) -> Result<Given, NotGiven> {
    let said = || Text::<200>::lossy(&String::from_utf8_lossy(body)).to_string();
    if status.is_success() {
        if format != Format::Otlp {
            return Ok(Given::Kept);
        }
        return match otlp::answer(body) {
            Ok(taken) if taken.rejected == 0 => Ok(Given::Kept),
            Ok(taken) => Ok(Given::But {
                rejected: taken.rejected,
                reason: taken.reason,
            }),
            Err(error) => Err(NotGiven::down(format!(
                "{error} (is this a collector's address?)"
            ))),
        };
    }
    match status {
        // What no later time changes about these very bytes.
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(NotGiven::Refused {
            why: format!("{status}: {}", said()),
        }),
        other => Err(NotGiven::Down {
            why: format!("{other}: {}", said()),
            after: pause.and_then(|pause| u64::try_from(pause.as_millis()).ok()),
        }),
    }
}

/// `Retry-After` in seconds; as a date it is not read.
fn pause(response: &Response<Incoming>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_PAUSE))
}

async fn read_bounded(response: Response<Incoming>) -> Result<Bytes, String> {
    let mut body = response.into_body();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > otlp::MAX_ANSWER_BYTES {
                return Err("the answer is longer than 64 KiB".to_owned());
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}

impl std::fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSink")
            .field("endpoint", &self.endpoint)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_time_changes_is_a_refusal() {
        for status in [400, 413, 422] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(
                judge(Format::Json, status, None, b"bad\x1bthing"),
                Err(NotGiven::Refused { why }) if why.ends_with("bad\u{fffd}thing")
            ));
        }
        for status in [301, 401, 403, 404, 408, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = judge(Format::Json, status, Some(Duration::from_secs(7)), b"");
            assert!(matches!(
                answer,
                Err(NotGiven::Down {
                    after: Some(7000),
                    ..
                })
            ));
        }
    }

    #[test]
    fn a_collector_says_how_many_it_did_not_take() {
        assert_eq!(
            judge(Format::Otlp, StatusCode::OK, None, b""),
            Ok(Given::Kept)
        );
        assert!(matches!(
            judge(Format::Otlp, StatusCode::OK, None, b"\x0a\x02\x08\x03"),
            Ok(Given::But { rejected: 3, .. })
        ));
        // A page of some other server.
        assert!(matches!(
            judge(Format::Otlp, StatusCode::OK, None, b"<html>"),
            Err(NotGiven::Down { .. })
        ));
        assert_eq!(
            judge(Format::Json, StatusCode::NO_CONTENT, None, b"<html>"),
            Ok(Given::Kept)
        );
    }
}
