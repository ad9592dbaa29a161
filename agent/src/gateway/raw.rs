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
    let moved = Arc::new(AtomicBool::new(true));
    let mut client = Watched {
        inner: stream,
        moved: Arc::clone(&moved),
    };
    let copying = copy_bidirectional_with_sizes(&mut client, &mut service, BUFFER, BUFFER);
    tokio::select! {
        copied = copying => copied.map(|_| ()).map_err(Broken::Client),
        () = idle(&moved) => Err(Broken::Idle),
    }
}

/// Resolves when nothing moved during a whole [`IDLE_LIMIT`].
async fn idle(moved: &AtomicBool) {
    while moved.swap(false, Ordering::Relaxed) {
        tokio::time::sleep(IDLE_LIMIT).await;
    }
}

/// Notes whenever bytes move, in either direction.
struct Watched<S> {
    inner: S,
    moved: Arc<AtomicBool>,
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
