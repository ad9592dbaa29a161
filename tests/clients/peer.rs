//! Two applications that know each other by what they are: each asks its node for its own SVID, and they speak mutual TLS
//! with it. `app-peer serve PORT CALLER` lets in who is CALLER and tells it so; `app-peer ask ADDRESS PORT SERVER` asks
//! over and over and leaves what it was told in `/state/note`. Run as applications by `tests/scenarios/apps/identity.rs`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edgeward_identity::SvidLeaf;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use spiffe::{BundleSource, WorkloadApiClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PAUSE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);
const NOTE: &str = "/state/note";

/// What the node says that this process is.
struct Own {
    id: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

/// Takes a server for what its certificate says it is, and for no name.
#[derive(Debug)]
struct Expects {
    id: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port, caller] => serve(port.parse()?, caller).await,
        ["ask", address, port, server] => loop {
            let asked = ask((address, port.parse()?), server);
            let note = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(told)) => told,
                Ok(Err(error)) => format!("no: {error:#}"),
                Err(_) => "no: silence".to_owned(),
            };
            std::fs::write(NOTE, note)?;
            tokio::time::sleep(PAUSE).await;
        },
        _ => anyhow::bail!("app-peer serve PORT CALLER | ask ADDRESS PORT SERVER"),
    }
}

async fn serve(port: u16, caller: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("::", port)).await?;
    println!("listens");
    loop {
        let (stream, _) = listener.accept().await?;
        let answered = tokio::time::timeout(PATIENCE, answer(stream, caller)).await;
        if !matches!(answered, Ok(Ok(()))) {
            println!("refused: {answered:?}");
        }
    }
}

async fn answer(stream: TcpStream, caller: &str) -> anyhow::Result<()> {
    let own = Own::fetch().await?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(own.roots, provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(own.chain, own.key)?;
    let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config))
        .accept(stream)
        .await?;
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let seen = SvidLeaf::parse(leaf.context("no certificate")?)?
        .id
        .to_string();
    anyhow::ensure!(seen == caller, "{seen} is not let in");
    stream
        .write_all(format!("{} sees {seen}", own.id).as_bytes())
        .await?;
    Ok(stream.shutdown().await?)
}

async fn ask(address: (&str, u16), server: &str) -> anyhow::Result<String> {
    let own = Own::fetch().await?;
    let provider = Arc::new(ring::default_provider());
    let expects = Expects {
        id: server.to_owned(),
        roots: own.roots,
        provider: provider.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expects))
        .with_client_auth_cert(own.chain, own.key)?;
    let stream = TcpStream::connect(address).await.context("connect")?;
    let name = ServerName::try_from("nobody-asks-for-names")?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .context("handshake")?;
    let mut told = String::new();
    stream.read_to_string(&mut told).await.context("answer")?;
    Ok(told)
}

impl Own {
    async fn fetch() -> anyhow::Result<Self> {
        let client = WorkloadApiClient::connect_env().await?;
        let context = client.fetch_x509_context().await.context("svid")?;
        let svid = context.default_svid().context("no svid")?;
        let domain = svid.spiffe_id().trust_domain();
        let bundles = client.fetch_x509_bundles().await.context("roots")?;
        let bundle = bundles
            .bundle_for_trust_domain(domain)?
            .context("no roots")?;
        let mut roots = RootCertStore::empty();
        for root in bundle.authorities() {
            roots.add(CertificateDer::from(root.as_bytes().to_vec()))?;
        }
        let chain = svid.cert_chain().iter();
        let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
        Ok(Self {
            id: svid.spiffe_id().to_string(),
            chain: chain
                .map(|cert| CertificateDer::from(cert.as_bytes().to_vec()))
                .collect(),
            key: key.into(),
            roots: Arc::new(roots),
        })
    }
}

impl ServerCertVerifier for Expects {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let unknown =
            || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let seen = SvidLeaf::parse(leaf).map_err(|_| unknown())?;
        match seen.id.to_string() == self.id {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(unknown()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
