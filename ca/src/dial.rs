//! Connections to servers that are none of ours: receivers of exports and alerts, witnesses, archives.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
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
use zeroize::Zeroizing;

mod endpoint;

#[cfg(test)]
mod tests;

pub use endpoint::{BadAddress, Endpoint, Roots, Trust};

/// Largest file of certificates, of a key, or of a secret, in bytes.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Where systems keep the authorities of the web: Debian and Alpine, Fedora, the others.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Ours: what the configuration names.
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("not a name that a certificate has: {0}")]
    Name(String),
    #[error("tls cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
    /// Theirs, or the way's.
    #[error("no connection to {0} in time")]
    Late(String),
    #[error("cannot connect to {to}: {error}")]
    Connect { to: String, error: io::Error },
    #[error("no tls with {to}: {error}")]
    Handshake { to: String, error: io::Error },
}

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
) -> Result<Wire, DialError> {
    tokio::time::timeout(timeout, connect_at_leisure(endpoint, timeout, alpn))
        .await
        .map_err(|_| DialError::Late(endpoint.authority()))?
}

async fn connect_at_leisure(
    endpoint: &Endpoint,
    timeout: Duration,
    alpn: &[&[u8]],
) -> Result<Wire, DialError> {
    let to = endpoint.authority();
    let tls = match &endpoint.tls {
        Some(trust) => Some(client(trust, alpn)?),
        None => None,
    };
    let failed = |error: io::Error| DialError::Connect {
        to: to.clone(),
        error,
    };
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(failed)?;
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, millis)
        .map_err(|error| failed(error.into()))?;
    let Some(connector) = tls else {
        return Ok(Wire::Clear(stream));
    };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| DialError::Name(endpoint.host.clone()))?;
    connector
        .connect(name, stream)
        .await
        .map(|stream| Wire::Tls(Box::new(stream)))
        .map_err(|error| DialError::Handshake { to, error })
}

fn client(trust: &Trust, alpn: &[&[u8]]) -> Result<TlsConnector, DialError> {
    let client = match &trust.client {
        Some((certificate, key)) => {
            let pem = read(key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| unusable(key, "no private key in pem"))?;
            Some((certificates(certificate)?, key))
        }
        None => None,
    };
    outside_client(roots(&trust.roots)?, client, alpn)
        .map(|config| TlsConnector::from(Arc::new(config)))
        .map_err(DialError::Setup)
}

/// Of a file that an operator named every certificate must be usable: one that is left out is one that somebody relies
/// on. Systems' lists hold some that nobody can use.
fn roots(from: &Roots) -> Result<RootCertStore, DialError> {
    let mut store = RootCertStore::empty();
    match from {
        Roots::File(path) => {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|error| unusable(path, error))?;
            }
        }
        Roots::System => {
            let is_there = |path: &&Path| path.is_file();
            let lists = || SYSTEM_ROOTS.iter().map(Path::new);
            let list = lists().find(is_there).or(lists().next());
            let path = list.unwrap_or(Path::new("/etc/ssl"));
            store.add_parsable_certificates(certificates(path)?);
            if store.is_empty() {
                return Err(unusable(path, "no usable certificate"));
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(path, "not certificates in pem"))?;
    match certificates.is_empty() {
        true => Err(unusable(path, "no certificate")),
        false => Ok(certificates),
    }
}

/// A small file; wiped when it is dropped, for it may hold a key.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DialError> {
    let file = std::fs::File::open(path).map_err(|error| unusable(path, error))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable(path, error))?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE_BYTES) {
        true => Ok(bytes),
        false => Err(unusable(path, "larger than 2 MB")),
    }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> DialError {
    DialError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
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
