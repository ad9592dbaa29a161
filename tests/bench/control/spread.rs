//! Percentiles of what was measured.

use std::time::Duration;

/// One line: median, 99th percentile, least, most.
pub fn print(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| {
        let index = (took.len() * share).div_ceil(100).saturating_sub(1);
        took.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, least {:.1} ms, most {:.1} ms, of {}",
        at(50),
        at(99),
        at(0),
        at(100),
        took.len()
    );
}
