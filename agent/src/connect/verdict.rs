//! What the other end's TLS said last, kept beside the connection.
//!
//! In TLS 1.3 a server's verdict on our certificate arrives as an alert after our side of the handshake is done. HTTP/2 in
//! between turns it into text, or loses it with the connection; so it is taken down here, where it comes in.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first TLS error of a connection; none while there was none.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<OnceLock<rustls::Error>>);

/// A stream whose TLS errors are taken down.
#[derive(Debug)]
pub(super) struct Heard<S> {
    stream: S,
    verdict: Verdict,
}

impl Verdict {
    pub fn get(&self) -> Option<&rustls::Error> {
        self.0.get()
    }

    /// As if this had come in.
    #[cfg(test)]
    pub(crate) fn of(error: rustls::Error) -> Self {
        Self(Arc::new(OnceLock::from(error)))
    }

    fn note(&self, error: &io::Error) {
        if let Some(error) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            // The first one counts.
            let _ = self.0.set(error.clone());
        }
    }
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, verdict: Verdict) -> Self {
        Self { stream, verdict }
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.verdict.note(error);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.noted(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.noted(polled)
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Fails as a TLS stream does.
    struct Refusing;

    impl AsyncRead for Refusing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)))
        }
    }

    #[tokio::test]
    async fn an_alert_is_taken_down_and_still_an_error() {
        let verdict = Verdict::default();
        let mut heard = Heard::new(Refusing, verdict.clone());
        assert!(verdict.get().is_none());
        assert!(heard.read_u8().await.is_err());
        assert_eq!(
            verdict.get(),
            Some(&rustls::Error::AlertReceived(
                AlertDescription::CertificateRevoked
            ))
        );
    }
}
