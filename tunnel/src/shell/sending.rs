//! Sealed messages on their way to the port: runs of equal length to one place leave in one send.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use edgeward_identity::BootTime;

use super::Shared;
use super::demux::Transmit;
use super::stop::Watch;
use super::udp::{MAX_SEGMENTS, MAX_SEND_BYTES, Sent, UdpPort};
use crate::node::{Endpoint, Outgoing, PeerHandle};

/// How long a full socket buffer is waited for before a run is dropped.
const FULL_BUFFER_WAIT: Duration = Duration::from_millis(20);

/// Messages of one batch.
pub(super) struct SendBatch {
    bytes: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
}

/// Messages of equal length, the last may be shorter.
struct Run {
    peer: PeerHandle,
    to: Endpoint,
    start: usize,
    end: usize,
    segment: usize,
    count: usize,
    closed: bool,
}

impl SendBatch {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            used: 0,
            runs: Vec::new(),
        }
    }

    /// Where the next message is to be written.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Takes over the message of `length` bytes that was written to [`Self::room`].
    pub(super) fn push(&mut self, peer: &PeerHandle, to: Endpoint, length: usize) {
        let (start, end) = (self.used, self.used + length);
        self.used = end;
        if let Some(run) = self.runs.last_mut()
            && !run.closed
            && run.to == to
            && run.peer.is_same(peer)
            && length <= run.segment
            && run.count < MAX_SEGMENTS
            && end - run.start <= MAX_SEND_BYTES
        {
            run.end = end;
            run.count += 1;
            run.closed = length < run.segment;
            return;
        }
        self.runs.push(Run {
            peer: peer.clone(),
            to,
            start,
            end,
            segment: length,
            count: 1,
            closed: false,
        });
    }

    /// Sends everything, except what belongs to a peer that was cut meanwhile. No lock may be held.
    pub(super) fn flush(&mut self, shared: &Shared, watch: &Watch, now: BootTime) {
        for run in self.runs.drain(..) {
            if run.peer.is_cut() {
                continue;
            }
            let Some(bytes) = self.bytes.get(run.start..run.end) else {
                continue;
            };
            let transmit = Transmit {
                to: run.to.remote,
                local_ip: run.to.local_ip,
                ecn: None,
                segment_size: Some(run.segment),
                bytes,
            };
            // Known to be refused as a whole: the system fragments what is too long.
            let narrow = run.segment > run.peer.largest_datagram(now);
            if let Some(mtu) = send(&shared.port, watch, &transmit, !narrow) {
                run.peer.learn_path_mtu(mtu, run.to.remote, now);
            }
        }
        self.used = 0;
    }

    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity() + self.runs.capacity() * size_of::<Run>()
    }
}

/// Sends answers, handshakes and keepalives.
pub(super) fn send_all(port: &UdpPort, watch: &Watch, outgoing: &mut Vec<Outgoing>) {
    for datagram in outgoing.drain(..) {
        let transmit = Transmit {
            to: datagram.to.remote,
            local_ip: datagram.to.local_ip,
            ecn: None,
            segment_size: None,
            bytes: &datagram.bytes,
        };
        send(port, watch, &transmit, false);
    }
}

/// The path's MTU, if the datagrams were too long for it.
fn send(port: &UdpPort, watch: &Watch, transmit: &Transmit<'_>, together: bool) -> Option<u16> {
    let mut result = port.send(transmit, together);
    if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        && watch.wait_writable(port.as_fd(), FULL_BUFFER_WAIT).is_ok()
    {
        result = port.send(transmit, together);
    }
    match result {
        Ok(Sent::Whole) => None,
        Ok(Sent::TooLong { mtu }) => Some(mtu),
        Err(error) => {
            // The address we were spoken to at may be gone: let the kernel choose one.
            let again = transmit.local_ip.is_some()
                && port
                    .try_send(&Transmit {
                        local_ip: None,
                        ..*transmit
                    })
                    .is_ok();
            if !again {
                tracing::debug!(%error, to = %transmit.to, "datagram not sent");
            }
            None
        }
    }
}
