//! The applications that run: started by the launcher, each in its own group, ended with all that it started.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

use super::SuperviseError;
use super::output::Output;
use crate::cgroup::{Cgroup, CgroupError};
use crate::control::{BadLine, Ended, MAX_RUN_BYTES, Run, Start, Told, line, plain};
use crate::launch::order::{BadOrder, MAX_ORDER_BYTES};
use crate::volume::{NotAVolume, Volume};

/// Most applications at once.
const MAX_RUNS: usize = 256;
/// Room for a whole order, so that handing it over never waits for the launcher.
const PIPE_BYTES: i32 = 128 * 1024;

pub(super) struct Runs {
    program: PathBuf,
    volume: PathBuf,
    /// The file system there that is watched.
    device: u64,
    apps: Cgroup,
    runs: BTreeMap<String, Running>,
    /// Groups that go as soon as they are empty.
    leaving: BTreeMap<String, Cgroup>,
}

struct Running {
    run: Run,
    group: Cgroup,
    process: Child,
    output: Output,
    ended: Option<Ended>,
    /// Its end was told.
    told: bool,
}

/// Why an application is not started.
#[derive(Debug, thiserror::Error)]
enum NotStarted {
    #[error("runs already")]
    Runs,
    #[error("more applications than the limit: {MAX_RUNS}")]
    TooMany,
    #[error("what it is takes more bytes than the limit: {MAX_RUN_BYTES}")]
    What,
    #[error("leads out of the volume or of the group of all applications: {}", .0.display())]
    Outside(PathBuf),
    #[error(transparent)]
    Volume(#[from] NotAVolume),
    #[error("another file system was mounted where the volume was: {}", .0.display())]
    OtherVolume(PathBuf),
    #[error(transparent)]
    Order(#[from] BadOrder),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("launcher cannot be started: {0}")]
    Io(#[from] io::Error),
}

impl Runs {
    /// Whatever a supervisor before this one left running is ended: nobody knows what it was.
    pub(super) fn over(
        program: PathBuf,
        volume: &Volume,
        apps: Cgroup,
    ) -> Result<Self, SuperviseError> {
        apps.kill()?;
        Ok(Self {
            program,
            volume: volume.path().to_owned(),
            device: volume.device()?,
            apps,
            runs: BTreeMap::new(),
            leaving: BTreeMap::new(),
        })
    }

    pub(super) fn list(&self) -> Vec<Run> {
        let runs = self.runs.values().filter(|run| run.ended.is_none());
        runs.map(|run| run.run.clone()).collect()
    }

    pub(super) fn make(&mut self, name: &str) -> Told {
        let made = self.leave_no_longer(name).and_then(|()| {
            let group = self.apps.child(name)?;
            group.thaw()
        });
        match made {
            Ok(()) => Told::Made {
                name: name.to_owned(),
            },
            Err(error) => not_started(name, &error.into()),
        }
    }

    pub(super) fn start(&mut self, start: Start) -> Told {
        let name = start.name.clone();
        match self.try_start(start) {
            Ok(run) => Told::Started(run),
            Err(error) => not_started(&name, &error),
        }
    }

    /// Writes, and waits for nothing: `turn` tells when all have gone.
    pub(super) fn end(&mut self, name: &str) -> Option<Told> {
        let group = match (self.apps.child(name), self.runs.get(name)) {
            (Ok(group), _) => group,
            // For want of memory, say: the group that it was started in is known.
            (Err(_), Some(running)) => running.group.clone(),
            (Err(error), None) => return Some(not_started(name, &error.into())),
        };
        // Frozen first: while each is being killed, none of the others runs on.
        let _kill_counts = group.freeze_now();
        let killed = group.kill();
        if let Some(running) = self.runs.get_mut(name) {
            // It may be about to enter.
            let _gone_already = running.process.kill();
        }
        self.leaving.insert(name.to_owned(), group);
        killed.err().map(|error| not_started(name, &error.into()))
    }

    pub(super) fn end_all(&mut self) -> bool {
        for running in self.runs.values_mut() {
            let _gone_already = running.process.kill();
        }
        self.apps.kill().is_ok()
    }

    pub(super) fn is_ending(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// What the applications wrote and which have ended.
    pub(super) fn turn(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        for running in self.runs.values_mut() {
            told.extend(running.turn());
        }
        // Not by another look at its group: one that has become empty since would go without a word.
        self.runs.retain(|_, running| !running.told);
        let runs = &self.runs;
        self.leaving.retain(|name, group| {
            let empty = group.holds_nobody() && !runs.contains_key(name);
            if empty {
                // One that does not go has groups below: nobody's but root's, who made them.
                let _gone = group.clone().remove();
                told.push(Told::Gone { name: name.clone() });
            }
            !empty
        });
        told
    }

    fn try_start(&mut self, start: Start) -> Result<Run, NotStarted> {
        let Start { name, what, order } = start;
        if self.runs.contains_key(&name) {
            return Err(NotStarted::Runs);
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(NotStarted::TooMany);
        }
        if what.len() > MAX_RUN_BYTES {
            return Err(NotStarted::What);
        }
        order.clone().check()?;
        self.leave_no_longer(&name)?;
        let group = self.apps.child(&name)?;
        if order.cgroup != group.folder() {
            return Err(NotStarted::Outside(order.cgroup));
        }
        // Opened for the moment only: who ends the guard's work must be able to unmount it.
        let volume = Volume::open(&self.volume)?;
        if volume.device()? != self.device {
            return Err(NotStarted::OtherVolume(self.volume.clone()));
        }
        if !volume.holds(&order.tree) {
            return Err(NotStarted::Outside(order.tree));
        }
        group.thaw()?;
        let lacks = group.limit(&order.limits)?;
        let text = line(&order)?;
        if text.len() > MAX_ORDER_BYTES {
            return Err(BadOrder::TooLong.into());
        }
        let (output, write) = Output::open()?;
        let mut process = Command::new(&self.program)
            .arg("launch")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(write.try_clone()?)
            .stderr(write)
            .spawn()?;
        if let Err(error) = hand_over(&mut process, &text) {
            let _gone_already = process.kill();
            let _reaped = process.wait();
            return Err(error.into());
        }
        let run = Run {
            name: name.clone(),
            what,
            pid: i32::try_from(process.id()).unwrap_or(0),
            lacks: lacks.into_iter().map(ToOwned::to_owned).collect(),
        };
        let running = Running {
            run: run.clone(),
            group,
            process,
            output,
            ended: None,
            told: false,
        };
        self.runs.insert(name, running);
        Ok(run)
    }

    /// A group that was about to go is used again.
    fn leave_no_longer(&mut self, name: &str) -> Result<(), CgroupError> {
        match self.leaving.remove(name) {
            Some(group) if !group.is_empty()? => {
                self.leaving.insert(name.to_owned(), group.clone());
                Err(CgroupError::Busy(group.folder().to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Running {
    fn turn(&mut self) -> Vec<Told> {
        let name = &self.run.name;
        let mut told = self.output.read(name);
        if self.ended.is_none()
            && let Ok(Some(status)) = self.process.try_wait()
        {
            self.ended = Some(Ended {
                code: status.code(),
                signal: status.signal(),
            });
        }
        let Some(how) = self.ended else {
            return told;
        };
        if !self.group.holds_nobody() {
            // What it started goes with it.
            let _again_at_the_next_turn = self.group.kill();
        }
        if self.group.holds_nobody() {
            told.extend(self.output.read(name));
            told.extend(self.output.finish(name));
            let name = name.clone();
            told.push(Told::Ended { name, how });
            self.told = true;
        }
        told
    }
}

fn hand_over(process: &mut Child, order: &[u8]) -> io::Result<()> {
    let Some(mut input) = process.stdin.take() else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
    input.write_all(order)
}

fn not_started(name: &str, error: &NotStarted) -> Told {
    Told::NotStarted {
        name: plain(name, MAX_RUN_BYTES),
        why: plain(&error.to_string(), 2 * MAX_RUN_BYTES),
    }
}
