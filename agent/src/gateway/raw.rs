//! TCP that nobody reads: bytes go both ways as they come, each half closed on its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::caller::{Broken, Caller};

/// A connection on which nothing moves for so long ends.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(2 * 3600);
/// Read at once in each direction, in bytes.
const BUFFER: usize = 32 * 1024;

/// Carries one connection.
pub(super) async fn carry<S>(stream: S, caller: Caller) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut service = caller.connect().await?;
    let (mut client, moved) = Watched::new(stream);
    let copying = copy_bidirectional_with_sizes(&mut client, &mut service, BUFFER, BUFFER);
    tokio::select! {
        copied = copying => copied.map(|_| ()).map_err(Broken::Client),
        () = idle(&moved, IDLE_LIMIT) => Err(Broken::Idle),
    }
}

/// Resolves when nothing moved during the whole of some `limit`.
pub(super) async fn idle(moved: &AtomicBool, limit: Duration) {
    while moved.swap(false, Ordering::Relaxed) {
        tokio::time::sleep(limit).await;
    }
}

/// Notes whenever bytes move, in either direction.
pub(super) struct Watched<S> {
    inner: S,
    moved: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<AtomicBool>) {
        let moved = Arc::new(AtomicBool::new(true));
        let watched = Self {
            inner,
            moved: Arc::clone(&moved),
        };
        (watched, moved)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if read.is_ready() {
            self.moved.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if written.is_ready() {
            self.moved.store(true, Ordering::Relaxed);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        if written.is_ready() {
            self.moved.store(true, Ordering::Relaxed);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
