//! The node's clock: never behind what the cloud signed or what was saved, whatever the machine's clock says.
//!
//! Cheap boards wake up in 1970 and wall clocks can be set. `CLOCK_BOOTTIME` cannot, so time goes on from the best
//! known moment at its pace: `max(wall clock, anchor + time since the anchor)`.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Clock, Timestamp};
use parking_lot::Mutex;

/// Furthest that the wall clock may be ahead of the best known time and still be stored: a long stay on a shelf.
const MAX_LEAP: Duration = Duration::from_secs(90 * 86_400);

/// A moment that is known on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub time: Timestamp,
    pub at: BootTime,
}

/// The machine's clock with a floor beneath it.
pub struct NodeClock {
    machine: Arc<dyn Clock>,
    known: Mutex<Known>,
}

struct Known {
    /// The best known moment.
    anchor: Anchor,
    /// The newest that rests on nothing but the cloud's word; none before it has spoken.
    signed: Option<Anchor>,
}

impl NodeClock {
    /// Starts from an anchor of the stored state.
    pub fn new(machine: Arc<dyn Clock>, anchor: Anchor) -> Self {
        Self {
            machine,
            known: Mutex::new(Known {
                anchor,
                signed: None,
            }),
        }
    }

    /// The cloud signed this time, and it arrived now. Time never falls: an earlier one changes nothing.
    pub fn raise(&self, time: Timestamp) {
        let now = self.machine.boottime();
        let told = Anchor { time, at: now };
        let mut known = self.known.lock();
        if time > reached(known.anchor, now) {
            known.anchor = told;
        }
        if known
            .signed
            .is_none_or(|signed| time > reached(signed, now))
        {
            known.signed = Some(told);
        }
    }

    /// The time it is now by the cloud's word and `CLOCK_BOOTTIME` alone; none before the cloud has spoken.
    pub fn signed(&self) -> Option<Timestamp> {
        let now = self.machine.boottime();
        self.known.lock().signed.map(|signed| reached(signed, now))
    }

    /// The machine's wall clock, right or wrong: what the cloud is told, so that it sees one that was turned.
    pub fn wall(&self) -> Timestamp {
        self.machine.now()
    }

    /// What to store as floor: the time it is now, unless the wall clock has leapt ahead of all that is known. A clock
    /// that was wrong once must not keep the node out for years.
    pub fn floor(&self) -> Timestamp {
        let known = reached(self.known.lock().anchor, self.machine.boottime());
        let wall = self.machine.now();
        if wall <= known.plus(MAX_LEAP) {
            wall.max(known)
        } else {
            known
        }
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let floor = reached(self.known.lock().anchor, self.machine.boottime());
        self.machine.now().max(floor)
    }

    fn boottime(&self) -> BootTime {
        self.machine.boottime()
    }
}

fn reached(anchor: Anchor, now: BootTime) -> Timestamp {
    anchor.time.plus(now.since(anchor.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Wrong {
        wall: AtomicU64,
        boot: AtomicU64,
    }

    impl Clock for Wrong {
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(self.wall.load(Ordering::Relaxed))
        }

        fn boottime(&self) -> BootTime {
            BootTime::from_duration(Duration::from_secs(self.boot.load(Ordering::Relaxed)))
        }
    }

    #[test]
    fn what_the_cloud_signed_is_told_apart_from_what_the_wall_clock_said() {
        let machine = Arc::new(Wrong::default());
        let anchor = Anchor {
            time: Timestamp::from_secs(2000),
            at: machine.boottime(),
        };
        let clock = NodeClock::new(machine.clone(), anchor);
        assert_eq!(clock.signed(), None);
        clock.raise(Timestamp::from_secs(1000));
        machine.boot.store(10, Ordering::Relaxed);
        assert_eq!(clock.signed(), Some(Timestamp::from_secs(1010)));
        clock.raise(Timestamp::from_secs(1005));
        assert_eq!(clock.signed(), Some(Timestamp::from_secs(1010)));
        clock.raise(Timestamp::from_secs(1500));
        assert_eq!(clock.signed(), Some(Timestamp::from_secs(1500)));
        assert_eq!(clock.now(), Timestamp::from_secs(2010));
        assert_eq!(clock.wall(), Timestamp::from_secs(0));
    }

    #[test]
    fn a_clock_that_stands_in_1970_goes_on_from_the_floor() {
        let machine = Arc::new(Wrong::default());
        let floor = Timestamp::from_secs(1_800_000_000);
        let anchor = Anchor {
            time: floor,
            at: machine.boottime(),
        };
        let clock = NodeClock::new(machine.clone(), anchor);
        assert_eq!(clock.now(), floor);
        machine.boot.store(10, Ordering::Relaxed);
        assert_eq!(clock.now(), floor.plus(Duration::from_secs(10)));
        clock.raise(floor);
        assert_eq!(clock.now(), floor.plus(Duration::from_secs(10)));
        clock.raise(floor.plus(Duration::from_secs(60)));
        machine.wall.store(5, Ordering::Relaxed);
        assert_eq!(clock.now(), floor.plus(Duration::from_secs(60)));
        machine.wall.store(1_900_000_000, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp::from_secs(1_900_000_000));
        assert_eq!(clock.floor(), floor.plus(Duration::from_secs(60)));
        machine.wall.store(1_800_000_100, Ordering::Relaxed);
        assert_eq!(clock.floor(), Timestamp::from_secs(1_800_000_100));
    }
}
