//! Tells nodes where their UDP port is seen from: a STUN Binding server. It keeps nothing of whom it answered, and
//! sends nobody more bytes than came in that name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Clock};
use edgeward_wire::stun::{MAX_MESSAGE_BYTES, MIN_REQUEST_BYTES, Message, success};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::crowd::source_of;

/// Requests of one source at once: many nodes may be behind one address.
pub const BURST: u32 = 256;
/// Requests of one source a second after that.
pub const PER_SECOND: u32 = 32;
/// Most sources whose requests are counted at a time.
const MAX_SOURCES: usize = 65_536;
/// How often room is made among them at the most.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Thousandths of a request.
const WHOLE: u32 = 1_000;
/// How long the loop rests when the socket fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a datagram gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    /// Not a Binding request, or one that is shorter than its answer.
    NotForUs,
    TooOften,
}

/// Who was answered how often. Told the time.
#[derive(Debug, Default)]
struct Limits {
    sources: HashMap<IpAddr, Left>,
    swept: BootTime,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    thousandths: u32,
    at: BootTime,
}

/// Answers until `stop` is cancelled.
pub async fn run(
    socket: UdpSocket,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut limits = Limits::default();
    // One byte more than is read: what is longer is seen to be.
    let mut buffer = [0; MAX_MESSAGE_BYTES + 1];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "stun: nothing received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let outcome = match answer(&mut limits, bytes, from, clock.boottime()) {
            Ok(answer) => match socket.try_send_to(&answer, from) {
                Ok(_) => "answered",
                Err(_) => "not_sent",
            },
            Err(Unanswered::NotForUs) => "malformed",
            Err(Unanswered::TooOften) => "rate",
        };
        metrics::counter!("edgeward_stun_requests_total", "outcome" => outcome).increment(1);
    }
}

fn answer(
    limits: &mut Limits,
    bytes: &[u8],
    from: SocketAddr,
    now: BootTime,
) -> Result<Vec<u8>, Unanswered> {
    if bytes.len() < MIN_REQUEST_BYTES {
        return Err(Unanswered::NotForUs);
    }
    let Ok(Message::Request(id)) = Message::parse(bytes) else {
        return Err(Unanswered::NotForUs);
    };
    match limits.take(source_of(from.ip()), now) {
        true => Ok(success(&id, from)),
        false => Err(Unanswered::TooOften),
    }
}

impl Limits {
    fn take(&mut self, source: IpAddr, now: BootTime) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            if now.since(self.swept) < SWEEP_EVERY {
                return false;
            }
            self.swept = now;
            self.sources.retain(|_, left| left.now(now) < BURST * WHOLE);
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let left = self.sources.entry(source).or_insert(Left {
            thousandths: BURST * WHOLE,
            at: now,
        });
        let available = left.now(now);
        left.at = now;
        left.thousandths = available.saturating_sub(WHOLE);
        available >= WHOLE
    }
}

impl Left {
    fn now(&self, now: BootTime) -> u32 {
        let passed = u32::try_from(now.since(self.at).as_millis()).unwrap_or(u32::MAX);
        self.thousandths
            .saturating_add(passed.saturating_mul(PER_SECOND))
            .min(BURST * WHOLE)
    }
}

#[cfg(test)]
mod tests;
