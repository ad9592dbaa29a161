//! The thread that sleeps until something is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::sending::send_all;
use super::stop::Watch;

/// How often expired flows are looked for.
const FILTER_SWEEP: Duration = Duration::from_secs(10);

/// Wakes the timer thread.
#[derive(Default)]
pub(super) struct Alarm {
    /// Until when the thread sleeps, in nanoseconds since boot; zero while it is awake.
    asleep_until: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    stopped: bool,
}

impl Alarm {
    /// Wakes the thread if it sleeps past `due`. One atomic load in the usual case.
    pub(super) fn ring_for(&self, due: Option<BootTime>) {
        if due.is_some_and(|due| nanos(due) < self.asleep_until.load(Ordering::Acquire)) {
            self.state.lock().rung = true;
            self.changed.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Sleeps until `until`, or a ring. `false` when it is time to end.
    fn sleep(&self, now: BootTime, until: BootTime, due: impl Fn() -> Option<BootTime>) -> bool {
        let mut state = self.state.lock();
        self.asleep_until.store(nanos(until), Ordering::Release);
        // Looked at once more: what became due before the store found nobody asleep.
        let earlier = due().is_some_and(|due| due < until);
        if !state.stopped && !state.rung && !earlier {
            self.changed.wait_for(&mut state, until.since(now));
        }
        state.rung = false;
        self.asleep_until.store(0, Ordering::Release);
        !state.stopped
    }
}

/// Runs until the shell stops.
pub(super) fn run(shared: &Arc<Shared>, watch: &Watch) {
    let mut outgoing = Vec::new();
    let mut sweep = shared.clock.boottime().plus(FILTER_SWEEP);
    loop {
        let now = shared.clock.boottime();
        let until = shared
            .node
            .poll_timeout()
            .map_or(sweep, |due| due.min(sweep));
        if now < until
            && !shared
                .alarm
                .sleep(now, until, || shared.node.poll_timeout())
        {
            return;
        }
        let now = shared.clock.boottime();
        shared.node.handle_timeout(now, &mut outgoing);
        send_all(&shared.port, watch, &mut outgoing);
        if now >= sweep {
            shared.filter.expire(now);
            sweep = now.plus(FILTER_SWEEP);
        }
        if shared.alarm.state.lock().stopped {
            return;
        }
    }
}

fn nanos(time: BootTime) -> u64 {
    u64::try_from(time.as_duration().as_nanos()).unwrap_or(u64::MAX)
}
