//! Times and memory.

use std::time::{Duration, Instant};

/// Each call's time, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(count: usize, mut call: impl FnMut(usize)) -> Self {
        let mut times = Vec::with_capacity(count);
        for index in 0..count {
            let start = Instant::now();
            call(index);
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Self(times)
    }

    pub fn at(&self, percent: usize) -> String {
        let place = (self.0.len() * percent / 100).min(self.0.len() - 1);
        micros(self.0[place])
    }
}

/// The mean of many calls, for what is faster than the clock.
pub fn mean(count: u32, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    start.elapsed() / count
}

pub fn micros(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..10.0 => format!("{micros:.2} us"),
        ..10_000.0 => format!("{micros:.0} us"),
        ..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Resident memory of this process in MiB.
pub fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = text
        .split(' ')
        .nth(1)
        .expect("two numbers")
        .parse()
        .expect("a number");
    pages * 4096.0 / 1024.0 / 1024.0
}
