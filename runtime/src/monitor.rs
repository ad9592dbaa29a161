//! `/metrics` (Prometheus text), `/healthz` and `/readyz` on a loopback port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

/// A scraper must send its request within this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// How often histograms are folded and idle series looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("metrics recorder: {0}")]
pub struct NoRecorder(String);

/// Installs the process's metrics recorder. May be called once per process.
pub fn install() -> Result<PrometheusHandle, NoRecorder> {
    PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| NoRecorder(error.to_string()))
}

/// Serves until the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    readiness: Readiness,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        let (stream, _) = tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = upkeep.tick() => {
                handle.run_upkeep();
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "metrics port cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (handle, readiness) = (handle.clone(), readiness.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &handle, &readiness);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_DEADLINE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if tokio::time::timeout(REQUEST_DEADLINE * 2, served)
                .await
                .is_err()
            {
                tracing::debug!("a scraper took too long");
            }
        });
    }
}

/// Binds the port; refuses an address that is not loopback.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    anyhow::ensure!(
        address.ip().is_loopback(),
        "metrics listen on loopback only: {address}"
    );
    TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("metrics cannot listen on {address}: {error}"))
}

fn answer(
    request: &Request<Incoming>,
    handle: &PrometheusHandle,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, handle.render()),
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(readiness),
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let waiting = readiness.waiting_for();
    if waiting.is_empty() {
        text(StatusCode::OK, "ready\n".to_owned())
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}\n", waiting.join(", ")),
        )
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response
}
