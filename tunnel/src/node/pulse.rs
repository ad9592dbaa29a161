//! What every batch of packets says about a peer, without a lock: when it was spoken to and heard, and how much.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;

use super::timers::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};

/// A time that may be none. Sequentially consistent: whoever sets one and then finds the peer not registered early
/// enough registers it anew, and of two threads at least one sees what the other did.
pub(super) struct Moment(AtomicU64);

/// The marks that both directions leave.
#[derive(Default)]
pub(super) struct Pulse {
    pub(super) last_sent: Moment,
    /// When data passed last, either way.
    pub(super) last_data: Moment,
    /// When an unanswered packet becomes a dead link.
    pub(super) dead_at: Moment,
    /// When received data must have been answered by something.
    pub(super) keepalive_at: Moment,
    /// Time under which the peer stands in the schedule.
    pub(super) registered: Moment,
    /// The current session is old: replace it at its next use.
    pub(super) rekey_on_use: AtomicBool,
    /// Nothing came yet in the current session, the first of its epoch.
    pub(super) unheard: AtomicBool,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Default for Moment {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Moment {
    pub(super) fn at(time: BootTime) -> Self {
        Self(AtomicU64::new(nanos(time)))
    }

    pub(super) fn get(&self) -> Option<BootTime> {
        match self.0.load(Ordering::SeqCst) {
            u64::MAX => None,
            nanos => Some(BootTime::from_duration(Duration::from_nanos(nanos))),
        }
    }

    pub(super) fn set(&self, time: Option<BootTime>) {
        self.0.store(time.map_or(u64::MAX, nanos), Ordering::SeqCst);
    }

    /// Whether it is there and not later than `now`.
    pub(super) fn is_due(&self, now: BootTime) -> bool {
        self.get().is_some_and(|at| at <= now)
    }
}

impl Pulse {
    /// After a batch was sealed; when the peer has to be looked at because of it.
    pub(super) fn sent(&self, bytes: u64, now: BootTime) -> Option<BootTime> {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_sent.set(Some(now));
        self.last_data.set(Some(now));
        self.keepalive_at.set(None);
        let dead_at = self.dead_at.get().is_none();
        dead_at.then(|| {
            let at = now.plus(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
            self.dead_at.set(Some(at));
            at
        })
    }

    /// After a batch was opened; when the peer has to be looked at because of it. No data: keepalives only.
    pub(super) fn received(&self, bytes: u64, now: BootTime) -> Option<BootTime> {
        self.dead_at.set(None);
        if bytes == 0 {
            return None;
        }
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_data.set(Some(now));
        let answer = self.keepalive_at.get().is_none();
        answer.then(|| {
            let at = now.plus(KEEPALIVE_TIMEOUT);
            self.keepalive_at.set(Some(at));
            at
        })
    }

    /// Inner bytes so far: received, sent.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (
            self.received_bytes.load(Ordering::Relaxed),
            self.sent_bytes.load(Ordering::Relaxed),
        )
    }
}

fn nanos(time: BootTime) -> u64 {
    // The largest number means none.
    u64::try_from(time.as_duration().as_nanos())
        .map_or(u64::MAX - 1, |nanos| nanos.min(u64::MAX - 1))
}
