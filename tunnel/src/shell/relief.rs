//! One thread for both directions while little happens, two while much does.
//!
//! A packet that is answered at once then costs one wake-up instead of two, which on a small machine is most of its
//! latency. Under load both ways, a second thread takes over what comes from the device until it has become light again.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A batch of at least so many bytes counts as load.
const HEAVY_BYTES: usize = 16 << 10;
/// After so many wake-ups in a row with load both ways the second thread is asked for.
const HEAVY_WAKES: u32 = 8;
/// After so many batches in a row without load it gives back.
const LIGHT_BATCHES: u32 = 256;
/// And after so long without any.
pub(super) const QUIET: Duration = Duration::from_millis(10);

/// Between the two threads: who has the device.
pub(super) struct Relief {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable for the first thread once the device is its again.
    bell: UnixStream,
    ring: UnixStream,
}

#[derive(Default)]
struct State {
    wanted: bool,
    ended: bool,
}

/// Tells the second thread that the first has ended, however it did.
pub(super) struct Ending<'a>(pub(super) &'a Relief);

/// Load of the first thread, wake-up by wake-up.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    wakes: u32,
}

/// Load of the second thread, batch by batch.
#[derive(Debug, Default)]
pub(super) struct Ease {
    batches: u32,
}

impl Relief {
    pub(super) fn new() -> io::Result<Self> {
        let (bell, ring) = UnixStream::pair()?;
        Ok(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            bell,
            ring,
        })
    }

    /// What the first thread waits for instead of the device while the second has it.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The first thread hands the device over.
    pub(super) fn ask(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_one();
    }

    /// The first thread has heard the bell.
    pub(super) fn take_back(&self) -> io::Result<()> {
        (&self.bell).read_exact(&mut [0])
    }

    /// The second thread waits for work; `false` when there will be none.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.wanted && !state.ended {
            self.changed.wait(&mut state);
        }
        !state.ended
    }

    /// The second thread gives the device back.
    pub(super) fn give_back(&self) -> io::Result<()> {
        self.state.lock().wanted = false;
        (&self.ring).write_all(&[1])
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl Pressure {
    /// Takes what one wake-up moved; whether help is due.
    pub(super) fn is_due(&mut self, out_bytes: usize, into_bytes: usize) -> bool {
        let heavy = out_bytes >= HEAVY_BYTES && into_bytes >= HEAVY_BYTES;
        self.wakes = if heavy { self.wakes + 1 } else { 0 };
        let due = self.wakes >= HEAVY_WAKES;
        if due {
            self.wakes = 0;
        }
        due
    }
}

impl Ease {
    /// Takes what one batch moved; whether help is needed no more.
    pub(super) fn is_over(&mut self, bytes: usize) -> bool {
        self.batches = if bytes >= HEAVY_BYTES {
            0
        } else {
            self.batches + 1
        };
        self.batches >= LIGHT_BATCHES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_heavy_direction_asks_for_nobody() {
        let mut pressure = Pressure::default();
        for _ in 0..10_000 {
            assert!(!pressure.is_due(HEAVY_BYTES, HEAVY_BYTES - 1));
            assert!(!pressure.is_due(HEAVY_BYTES - 1, HEAVY_BYTES));
        }
    }

    #[test]
    fn help_comes_after_a_run_of_heavy_wakes_and_goes_after_a_run_of_light_batches() {
        let mut pressure = Pressure::default();
        for _ in 1..HEAVY_WAKES {
            assert!(!pressure.is_due(HEAVY_BYTES, HEAVY_BYTES));
        }
        assert!(!pressure.is_due(0, 0), "a light one in between");
        for _ in 1..HEAVY_WAKES {
            assert!(!pressure.is_due(HEAVY_BYTES, HEAVY_BYTES));
        }
        assert!(pressure.is_due(HEAVY_BYTES, HEAVY_BYTES));
        assert!(!pressure.is_due(HEAVY_BYTES, HEAVY_BYTES), "counted anew");
        let mut ease = Ease::default();
        for _ in 1..LIGHT_BATCHES {
            assert!(!ease.is_over(1));
        }
        assert!(!ease.is_over(HEAVY_BYTES));
        for _ in 1..LIGHT_BATCHES {
            assert!(!ease.is_over(1));
        }
        assert!(ease.is_over(1));
    }

    #[test]
    fn the_device_goes_over_and_comes_back() {
        let relief = Relief::new().unwrap();
        std::thread::scope(|scope| {
            let helper = scope.spawn(|| {
                let mut turns = 0;
                while relief.wait() {
                    turns += 1;
                    relief.give_back().unwrap();
                }
                turns
            });
            let ending = Ending(&relief);
            for _ in 0..100 {
                relief.ask();
                relief.take_back().unwrap();
            }
            drop(ending);
            assert_eq!(helper.join().unwrap(), 100);
        });
    }
}
