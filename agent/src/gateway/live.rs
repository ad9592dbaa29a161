//! The right to go on: decided again whenever anything changes that it rests on, and at its own end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{BootTime, Clock, TrustView};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::caller::Caller;
use super::identity::Proof;
use crate::enforce::decide::{Decider, Ruling};

/// Longest time between two looks: timers do not run while a machine sleeps, leases do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the right of one connection rests on.
pub(super) struct Right {
    pub(super) caller: Caller,
    pub(super) proof: Proof,
    pub(super) decider: Arc<Decider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) trust_changed: watch::Receiver<u64>,
}

impl Right {
    /// Whether the connection may be, now: the same caller, by the same proof.
    pub(super) fn now(&self) -> Ruling {
        let denied = |reason| Ruling {
            allow: false,
            rule: None,
            reason,
            until: BootTime::default(),
        };
        if !self
            .proof
            .still_accepted(&self.trust.load(), self.clock.now())
        {
            return denied("certificate");
        }
        if self.proof.who(&self.decider.picture()).as_ref() != Some(self.caller.who()) {
            return denied("not-bound");
        }
        self.caller.admit()
    }

    /// Resolves when the right is lost; gives the stable word for why.
    pub(super) async fn lost(mut self) -> &'static str {
        // Followed before the first look: no change can be missed.
        let mut changes = self.decider.changes();
        loop {
            changes.mark_unchanged();
            self.trust_changed.mark_unchanged();
            let ruling = self.now();
            if !ruling.allow {
                return ruling.reason;
            }
            let left = ruling.until.since(self.clock.boottime()).min(LOOK_EVERY);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return "stopped" },
                changed = self.trust_changed.changed() => if changed.is_err() { return "stopped" },
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// A second handle of a client's socket, to end it without sending what still waits.
pub(super) struct Reset(OwnedFd);

impl Reset {
    pub(super) fn of(stream: &TcpStream) -> std::io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }

    /// From now on the end of the connection is a reset (RFC 9293 3.6.1): nothing that is queued goes out any more.
    pub(super) fn arm(&self) {
        let socket = socket2::SockRef::from(&self.0);
        if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "connection not reset");
        }
    }
}
