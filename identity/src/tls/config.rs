//! rustls configurations: the only place that builds them.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::credentials::Credentials;
use super::verifier::{PeerVerifier, PinnedVerifier};

/// Label under which both ends export keying material to bind evidence to their connection (RFC 8446 7.5).
pub const EVIDENCE_EXPORTER_LABEL: &[u8] = b"EXPORTER-edgeward-evidence-v1";
/// Bytes of exported keying material.
pub const EXPORTER_BYTES: usize = 32;

/// ring with its TLS 1.3 suites. Passed explicitly everywhere; no process default is ever installed.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// A server that presents `credentials`; the verifier says whether and which client certificates it takes.
pub fn server(
    credentials: Arc<Credentials>,
    verifier: Arc<dyn ClientCertVerifier>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has tls 1.3 cipher suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// A client that presents `credentials`.
pub fn client(
    credentials: Arc<Credentials>,
    verifier: Arc<PeerVerifier>,
    alpn: &[&[u8]],
) -> ClientConfig {
    let config = client_builder()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(credentials);
    finish_client(config, alpn)
}

/// A client without a certificate that trusts one pinned root: enrolment.
pub fn anonymous_client(verifier: Arc<PinnedVerifier>, alpn: &[&[u8]]) -> ClientConfig {
    let config = client_builder()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    finish_client(config, alpn)
}

/// A client without a certificate that trusts a bundle: an operator with an API key.
pub fn keyless_client(verifier: Arc<PeerVerifier>, alpn: &[&[u8]]) -> ClientConfig {
    let config = client_builder()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    finish_client(config, alpn)
}

/// A client of a server that is none of ours (a receiver of exports or alerts), known by `roots` and its name; with a
/// certificate of the operator's where the server asks for one.
pub fn outside_client(
    roots: rustls::RootCertStore,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let config = match certificate {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    let mut config = finish_client(config, alpn);
    // Its name is no secret of ours, and servers of several names need it.
    config.enable_sni = true;
    Ok(config)
}

fn client_builder() -> rustls::client::danger::DangerousClientConfigBuilder {
    ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has tls 1.3 cipher suites")
        .dangerous()
}

fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}
