//! Waiting for something within a bound, instead of sleeping and hoping.

use std::time::{Duration, Instant};

/// How often the condition is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// Repeats `attempt` until it succeeds; fails with its last error after `deadline`.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > deadline => {
                return Err(error.context(format!("{what}: not within {} s", deadline.as_secs())));
            }
            Err(_) => std::thread::sleep(EVERY),
        }
    }
}
