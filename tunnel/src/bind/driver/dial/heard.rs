//! From which of the addresses under way anything came back: looked at on the socket, before any key is used.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;

use crate::bind::driver::connection::canonical;

/// The addresses that dials wait to hear from.
#[derive(Debug, Default)]
pub(in crate::bind::driver) struct Heard {
    waiting: Mutex<HashMap<SocketAddr, Vec<Arc<Notify>>>>,
    /// How many: with none, nobody is looked up.
    count: AtomicUsize,
}

/// Listens for one address until dropped.
pub(super) struct Ear {
    heard: Arc<Heard>,
    address: SocketAddr,
    notify: Arc<Notify>,
}

/// The endpoint's socket, with an ear on it.
#[derive(Debug)]
struct Listening {
    socket: Arc<dyn AsyncUdpSocket>,
    heard: Arc<Heard>,
}

impl Heard {
    /// The socket through which everything is heard.
    pub(in crate::bind::driver) fn on(
        self: &Arc<Self>,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Arc<dyn AsyncUdpSocket> {
        let heard = Arc::clone(self);
        Arc::new(Listening { socket, heard })
    }

    pub(super) fn listen(self: &Arc<Self>, address: SocketAddr) -> Ear {
        let (address, notify) = (canonical(address), Arc::new(Notify::new()));
        let mut waiting = self.waiting.lock();
        waiting
            .entry(address)
            .or_default()
            .push(Arc::clone(&notify));
        self.count.fetch_add(1, Ordering::Relaxed);
        Ear {
            heard: Arc::clone(self),
            address,
            notify,
        }
    }

    fn note(&self, from: SocketAddr) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(ears) = self.waiting.lock().get(&canonical(from)) {
            for ear in ears {
                ear.notify_one();
            }
        }
    }
}

impl Ear {
    /// Something came from there since the ear was made.
    pub(super) async fn heard(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut waiting = self.heard.waiting.lock();
        if let Some(ears) = waiting.get_mut(&self.address) {
            ears.retain(|ear| !Arc::ptr_eq(ear, &self.notify));
            if ears.is_empty() {
                waiting.remove(&self.address);
            }
        }
        self.heard.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncUdpSocket for Listening {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(received)) = &polled {
            for meta in meta.iter().take(*received) {
                self.heard.note(meta.addr);
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
