//! Connections to servers that are none of ours: receivers of exports and alerts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use edgeward_identity::tls::outside_client;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::exports::{Endpoint, Trust};

/// Largest file of certificates or keys, in bytes.
const MAX_PEM_BYTES: u64 = 2 * 1024 * 1024;

/// An open connection.
pub(crate) enum Wire {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects within `timeout`. What the other side has not acknowledged for so long ends the connection later, too. Files
/// of certificates are read at each call, so that renewed ones count without a restart.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    timeout: Duration,
    alpn: &[&[u8]],
) -> Result<Wire, String> {
    tokio::time::timeout(timeout, connect_at_leisure(endpoint, timeout, alpn))
        .await
        .map_err(|_| format!("no connection to {} in time", endpoint.authority()))?
}

async fn connect_at_leisure(
    endpoint: &Endpoint,
    timeout: Duration,
    alpn: &[&[u8]],
) -> Result<Wire, String> {
    let to = endpoint.authority();
    let tls = match &endpoint.tls {
        Some(trust) => Some(client(trust, alpn)?),
        None => None,
    };
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| format!("cannot connect to {to}: {error}"))?;
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, millis)
        .map_err(|error| format!("cannot set up the connection to {to}: {error}"))?;
    let Some(connector) = tls else {
        return Ok(Wire::Clear(stream));
    };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| format!("not a name that a certificate has: {}", endpoint.host))?;
    connector
        .connect(name, stream)
        .await
        .map(|stream| Wire::Tls(Box::new(stream)))
        .map_err(|error| format!("no tls with {to}: {error}"))
}

fn client(trust: &Trust, alpn: &[&[u8]]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&trust.ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", trust.ca.display()))?;
    }
    let client = match &trust.client {
        Some((certificate, key)) => {
            let pem = read(key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| format!("{}: no private key", key.display()))?;
            Some((certificates(certificate)?, key))
        }
        None => None,
    };
    outside_client(roots, client, alpn)
        .map(|config| TlsConnector::from(Arc::new(config)))
        .map_err(|error| format!("tls cannot be set up: {error}"))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{}: not certificates in pem", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate", path.display()));
    }
    Ok(certificates)
}

/// A small file; wiped when it is dropped, for it may hold a key.
pub(super) fn read(path: &std::path::Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_PEM_BYTES {
        return Err(format!("{}: larger than 2 MB", path.display()));
    }
    std::fs::read(path).map(Into::into).map_err(unreadable)
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
