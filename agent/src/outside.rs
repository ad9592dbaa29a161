//! Sockets that never ride the tunnel: the session with the cloud, datagrams that the cloud carries, the tunnel's own
//! port. They bear a mark, and rules of [`crate::enforce::steer`] let what bears it go by the machine's own routes alone.
//!
//! All of them always bear it: policy may lead a network into the tunnel at any moment that the cloud's address is in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// The mark, and the bits of a packet's mark that it is in: bits that neither kube-proxy nor the usual network plugins
/// and overlays use.
pub const MARK: u32 = 0x20ed;
pub const MARK_BITS: u32 = 0x30ff;
/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 8;

/// Marks a socket. Where that is not allowed no rule of ours can be made either.
pub fn mark(socket: &impl AsFd) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = setsockopt(socket, sockopt::Mark, &MARK)
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        tracing::debug!(%error, "sockets are not marked");
    }
}

/// Connects to `host:port`: the first of its addresses that answers.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failed = None;
    for to in lookup_host(address).await?.take(MAX_TRIED) {
        match connect_to(to).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")))
}

async fn connect_to(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    mark(&socket);
    socket.connect(to).await
}
