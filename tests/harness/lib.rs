//! Real parts for scenarios: network namespaces, software TPMs, a cloud and agents as processes.
//!
//! Everything a lab makes lives in namespaces and folders of its own and is removed when the lab is dropped.
//! Scenarios need root; without it [`require_root`] fails the test rather than letting it look green.

#![allow(
    clippy::disallowed_methods,
    reason = "the harness waits for other processes: it has no clock to turn"
)]

pub mod agent;
pub mod apps;
pub mod clock;
pub mod cloud;
pub mod eventually;
pub mod impair;
pub mod lab;
pub mod measured;
pub mod nat;
pub mod netns;
pub mod plant;
pub mod postgres;
pub mod process;
pub mod publisher;
pub mod secrets;
pub mod swtpm;

pub use lab::Lab;

use std::path::PathBuf;

/// Where the built commands are: `EDGEWARD_TEST_BIN_DIR`, else beside this test's own executable.
pub fn bin_dir() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("EDGEWARD_TEST_BIN_DIR") {
        return Ok(folder.into());
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .nth(2)
        .map(PathBuf::from)
        .ok_or_else(|| anyhow::anyhow!("no target folder above {}", own.display()))
}

/// Fails where namespaces cannot be made: a scenario that did not run must not look green.
pub fn require_root() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"));
    anyhow::ensure!(
        root,
        "scenarios need root for network namespaces: run ./tests/run scenarios"
    );
    Ok(())
}
