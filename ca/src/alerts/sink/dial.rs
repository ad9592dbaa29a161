//! A connection to a receiver of alerts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use edgeward_identity::tls::outside_client;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::NotTaken;
use crate::config::alerts::Server;

/// Largest file of certificates, or of a secret, in bytes.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;

/// With TLS or without.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects. Certificates are read each time, so that renewed ones count without a restart.
pub(super) async fn connect(server: &Server, alpn: &[&[u8]]) -> Result<Box<dyn Wire>, NotTaken> {
    let to = server.authority();
    let failed = |error: io::Error| NotTaken::Now(format!("{to}: {error}"));
    let tls = match &server.roots {
        Some(roots) => Some(client(roots, alpn)?),
        None => None,
    };
    let stream = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(failed)?;
    let Some(connector) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| NotTaken::Now(format!("not a name that a certificate has: {to}")))?;
    let stream = connector.connect(name, stream).await.map_err(failed)?;
    Ok(Box::new(stream))
}

fn client(roots: &Path, alpn: &[&[u8]]) -> Result<TlsConnector, NotTaken> {
    let bad = |error: String| NotTaken::Now(format!("{}: {error}", roots.display()));
    let pem = read(roots)?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| bad("not certificates in pem".to_owned()))?;
        // Systems' lists hold some that nobody can use.
        let _ = store.add(certificate);
    }
    if store.is_empty() {
        return Err(bad("no certificate of an authority".to_owned()));
    }
    outside_client(store, None, alpn)
        .map(|config| TlsConnector::from(Arc::new(config)))
        .map_err(|error| bad(error.to_string()))
}

/// A small file, wiped when it is dropped.
pub(super) fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, NotTaken> {
    let unreadable = |error: String| NotTaken::Now(format!("{}: {error}", path.display()));
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable("larger than 2 MB".to_owned()));
    }
    std::fs::read(path)
        .map(Into::into)
        .map_err(|error| unreadable(error.to_string()))
}
