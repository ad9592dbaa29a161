//! What a channel brings back: datagrams that never were on the port and are treated as if they had been.
//!
//! They have a thread of their own, which begins with the first of them: the packet threads wait for nobody, and
//! whoever carries the channel waits for no device.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

use super::demux::{DatagramSink, MAX_QUIC_DATAGRAM_BYTES};
use super::ingress::{Arrivals, Writer};
use super::sorting;
use super::{Shared, Tunnel};

/// Most injected datagrams that wait; a further one is dropped.
const INJECT_DATAGRAMS: usize = 256;
/// Longest injected datagram, in bytes.
const MAX_INJECTED_BYTES: usize = MAX_QUIC_DATAGRAM_BYTES;
/// Most of them opened together.
const BATCH: usize = 32;

/// The way to the thread, once there is one.
#[derive(Debug)]
pub(super) struct Injector {
    quic: DatagramSink,
    queue: Mutex<State>,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum State {
    Idle,
    Running(SyncSender<Injected>),
    Stopped,
}

#[derive(Debug)]
struct Injected {
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Injector {
    pub(super) fn new(quic: DatagramSink) -> Self {
        Self {
            quic,
            queue: Mutex::new(State::Idle),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lets the thread end.
    pub(super) fn stop(&self) {
        *self.queue.lock() = State::Stopped;
    }
}

impl Tunnel {
    /// Takes a datagram that a channel brought, as if it had come from the channel's address. `false` if it was
    /// dropped: the address is no open channel's, it is too long, or too many wait. Never blocks.
    pub fn inject(&self, from: SocketAddr, bytes: &[u8]) -> bool {
        let fits = !bytes.is_empty() && bytes.len() <= MAX_INJECTED_BYTES;
        let taken = fits && self.shared.port.detours().is_channel(from) && {
            let bytes = bytes.to_vec();
            self.injecting()
                .is_some_and(|queue| queue.try_send(Injected { from, bytes }).is_ok())
        };
        if !taken {
            self.inject.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn injecting(&self) -> Option<SyncSender<Injected>> {
        let mut state = self.inject.queue.lock();
        match &*state {
            State::Running(queue) => return Some(queue.clone()),
            State::Stopped => return None,
            State::Idle => {}
        }
        let (queue, waiting) = sync_channel(INJECT_DATAGRAMS);
        let shared = Arc::clone(&self.shared);
        let quic = self.inject.quic.clone();
        let watch = self.watch.try_clone().ok()?;
        let writer = Writer::new(Arc::clone(&shared), watch);
        self.start_thread("tunnel-inject", move || {
            run(&shared, &quic, &waiting, writer);
        })
        .ok()?;
        *state = State::Running(queue.clone());
        Some(queue)
    }
}

/// Runs until nobody can inject any more.
fn run(shared: &Shared, quic: &DatagramSink, waiting: &Receiver<Injected>, mut writer: Writer) {
    let mut arrivals = Arrivals::with_room((BATCH + 1) * MAX_INJECTED_BYTES);
    while let Ok(first) = waiting.recv() {
        let now = shared.clock.boottime();
        let batch = arrivals.begin(now);
        let more = waiting.try_iter().take(BATCH - 1);
        for Injected { from, mut bytes } in std::iter::once(first).chain(more) {
            sorting::sort_injected(shared, quic, from, &mut bytes, now, batch);
        }
        if !batch.is_empty() {
            shared.node.check_sources(batch);
        }
        writer.write(&mut arrivals);
    }
}
