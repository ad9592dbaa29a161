//! What a node needs to run apps: a volume of its own, a control group of its own, and the guard's supervisor.
//!
//! Namespaces of networks hide the kernel's control groups, so every process of such a node begins by mounting them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::agent::Node;
use crate::bin_dir;
use crate::eventually::eventually;
use crate::netns::Host;
use crate::process::{Process, run};

/// Mounts the control groups of version 2, then becomes what follows.
const WITH_GROUPS: &str = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
/// How long apps may take to end when a node goes.
const END: Duration = Duration::from_secs(10);

/// What the volume is.
#[derive(Clone, Copy, Debug)]
pub enum Volume {
    /// In memory, of so many MiB.
    Memory(u32),
    /// ext4 in a file, of so many MiB.
    Disk(u32),
}

/// A node's ground for apps. Volume and state outlive the guard, and go with the node.
#[derive(Debug)]
pub struct Ground {
    host: Host,
    folder: PathBuf,
    supervisor: Option<Process>,
}

impl Node {
    /// Makes the ground for apps and configures the agent for it; `more` are further lines of its table. Before the
    /// agent starts.
    pub fn ready_for_apps(&mut self, volume: Volume, more: &str) -> anyhow::Result<()> {
        let ground = Ground::new(self.host(), self.folder(), volume)?;
        let text = format!(
            "[apps]\nvolume = \"{}\"\nguard_socket = \"{}\"\ncgroup = \"{}\"\nstate = \"{}\"\n{more}",
            ground.volume().display(),
            ground.socket().display(),
            ground.cgroup().display(),
            ground.state().display(),
        );
        self.configure_tables(&text)?;
        self.take_ground(ground);
        self.ground()?.start()
    }
}

impl Ground {
    fn new(host: &Host, folder: &Path, volume: Volume) -> anyhow::Result<Self> {
        let ground = Self {
            host: host.clone(),
            folder: folder.to_owned(),
            supervisor: None,
        };
        for part in [ground.volume(), ground.state()] {
            std::fs::create_dir_all(part)?;
        }
        let at = ground.volume();
        match volume {
            Volume::Memory(mib) => run(Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={mib}m,mode=755,nodev,nosuid"))
                .arg("apps")
                .arg(&at))?,
            Volume::Disk(mib) => {
                let image = folder.join("apps.img");
                std::fs::File::create(&image)?.set_len(u64::from(mib) << 20)?;
                run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
                run(Command::new("mount")
                    .args(["-o", "loop,nodev,nosuid"])
                    .args([&image, &at]))?
            }
        };
        Ok(ground)
    }

    /// The volume that apps are installed on.
    pub fn volume(&self) -> PathBuf {
        self.folder.join("apps")
    }

    /// What apps write.
    pub fn state(&self) -> PathBuf {
        self.folder.join("apps-state")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("guard.sock")
    }

    /// Of all apps, as processes of this node see it.
    pub fn cgroup(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(format!("{}-apps", self.host.namespace()))
    }

    /// Starts the supervisor and waits until it listens.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(&self.program()?);
        command
            .arg("supervise")
            .args([self.volume(), self.socket(), self.cgroup()]);
        let log = self.folder.join("guard-log");
        let mut process = Process::start("edgeward-guard", command, &log)?;
        let socket = self.socket();
        eventually("the guard listens", Duration::from_secs(20), || {
            process.check()?;
            anyhow::ensure!(socket.exists(), "no socket yet");
            Ok(())
        })?;
        self.supervisor = Some(process);
        Ok(())
    }

    pub fn supervisor(&mut self) -> anyhow::Result<&mut Process> {
        self.supervisor.as_mut().context("the guard is not running")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.join("guard-log")).unwrap_or_default()
    }

    /// A power cut: the supervisor, its watch and all apps are gone.
    pub fn cut(&mut self) -> anyhow::Result<()> {
        let watch = match &self.supervisor {
            Some(process) => children(process.pid()),
            None => Vec::new(),
        };
        if let Some(mut process) = self.supervisor.take() {
            process.kill()?;
        }
        for pid in watch {
            // It may have ended with its supervisor.
            let _gone = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        match std::fs::remove_file(self.socket()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.end_apps()
    }

    /// What processes run in the group of an app or below; of all apps for an empty name.
    pub fn processes(&self, app: &str) -> anyhow::Result<Vec<i32>> {
        let script = "cd \"$0\" 2>/dev/null || exit 0; find . -name cgroup.procs -path \"*$1*\" -exec cat {} +";
        let text = self.shell(script, &[app])?;
        Ok(text
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }

    /// A command on the host, with control groups where they belong.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.host.command("sh");
        command.args(["-c", WITH_GROUPS, "sh"]).arg(program);
        command
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        Ok(bin_dir()?.join("edgeward-guard"))
    }

    fn end_apps(&self) -> anyhow::Result<()> {
        let script = "cd \"$0\" 2>/dev/null || exit 0; echo 1 >cgroup.kill; \
             find . -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null; cd ..; rmdir \"$0\"";
        eventually("the control groups of apps go", END, || {
            self.shell(script, &[])
        })
        .map(|_| ())
    }

    /// A script whose `$0` is the group of all apps.
    fn shell(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(Path::new("sh"));
        run(command
            .args(["-c", script])
            .arg(self.cgroup())
            .args(arguments))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = self.cut() {
            eprintln!("apps do not end: {error:#}");
        }
        let mut unmount = Command::new("umount");
        if let Err(error) = run(unmount.arg("-l").arg(self.volume())) {
            eprintln!("the volume stays: {error:#}");
        }
    }
}

/// Whether a process may still do something. One that has died and was not reaped yet may not: whose orphans are reaped
/// by a first process that takes its time are dead long before they are gone.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

/// Children of a process now.
fn children(pid: u32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
