//! A machine's clocks as a test wants them: its wall clock turned, its kernel booted anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/turned_clock.c");
const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the agents of one node see instead of the machine's own.
#[derive(Debug)]
pub struct MachineClock {
    library: PathBuf,
    seconds: PathBuf,
    boot_id: PathBuf,
    boots: u32,
}

impl MachineClock {
    /// Right, and in its first boot. Needs a C compiler.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut clock = Self {
            library: folder.join("turned_clock.so"),
            seconds: folder.join("turned_clock"),
            boot_id: folder.join("boot_id"),
            boots: 0,
        };
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&clock.library)
            .arg(SOURCE))?;
        clock.turn(0)?;
        clock.boot()?;
        Ok(clock)
    }

    /// From now on the wall clock is off by so many seconds, for processes that run too.
    pub fn turn(&self, seconds: i64) -> anyhow::Result<()> {
        let staged = self.seconds.with_extension("new");
        std::fs::write(&staged, seconds.to_string())?;
        std::fs::rename(staged, &self.seconds)?;
        Ok(())
    }

    /// Processes that start from now on see another boot of the kernel.
    pub fn boot(&mut self) -> anyhow::Result<()> {
        self.boots += 1;
        let id = format!("00000000-0000-4000-8000-{:012x}\n", self.boots);
        std::fs::write(&self.boot_id, id)?;
        Ok(())
    }

    /// What stands before a program and its arguments.
    pub fn before(&self) -> Vec<String> {
        let script = format!(
            "mount --bind {} {KERNEL_BOOT_ID} && LD_PRELOAD={} TURNED_CLOCK={} exec \"$@\"",
            self.boot_id.display(),
            self.library.display(),
            self.seconds.display(),
        );
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }
}
