//! What a process has used: processor seconds and memory, as the kernel counts them.

use anyhow::Context;

/// `USER_HZ` of every Linux port in use: the unit of `/proc/<pid>/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds (user and system) of all threads of a process so far. The kernel counts in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; behind it are fields 3 and following (proc(5)).
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory of a process in MiB.
pub fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("status without VmRSS")?
        .parse()?;
    Ok(kib / 1024.0)
}

/// The machine's load average over the last minute.
pub fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
