//! The process that holds the group, so that the death of the watch lets nothing through: what it had not answered is
//! refused, and another takes its place. It starts and ends applications as the agent says, and decides nothing itself.

mod agent;
mod child;
mod output;
mod runs;
mod watching;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::{Cgroup, CgroupError};
use crate::control::{BadLine, Order, Told};
use crate::group::{Group, GroupError};
use crate::level::Level;
use crate::level::kernel::{self, Kernel};
use crate::rights;
use crate::volume::{NotAVolume, Volume};
use agent::Agent;
use runs::Runs;
use watching::{Turned, Watching};

/// Most records kept for an agent that is away; the oldest go first.
const MAX_KEPT_RECORDS: usize = 1024;
const TURN: Duration = Duration::from_millis(50);
/// The same while an application is being ended.
const ENDING_TURN: Duration = Duration::from_millis(5);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    pub volume: PathBuf,
    /// Where the agent connects.
    pub socket: PathBuf,
    /// Group of all applications: it is killed when nobody can answer for them any more.
    pub apps: PathBuf,
    /// The best that is tried.
    pub most: Level,
    /// The watch.
    pub program: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error(transparent)]
    Volume(#[from] NotAVolume),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error(transparent)]
    Rights(#[from] rights::Kept),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs until it is ended.
pub fn run(settings: Settings) -> Result<std::convert::Infallible, SuperviseError> {
    let mut supervisor = Supervisor::new(settings)?;
    loop {
        supervisor.turn();
    }
}

struct Supervisor {
    listener: UnixListener,
    /// None: the kernel cannot be made to ask, and applications are only launched.
    watching: Option<Watching>,
    lacks: Vec<String>,
    runs: Runs,
    looked: Instant,
    agent: Option<Agent>,
    kept: VecDeque<Told>,
}

impl Supervisor {
    fn new(settings: Settings) -> Result<Self, SuperviseError> {
        let apps = Cgroup::of_all(&settings.apps)?;
        let volume = Volume::open(&settings.volume)?;
        match std::fs::remove_file(&settings.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(&settings.socket)?;
        std::fs::set_permissions(&settings.socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let (watching, mut lacks) = match watched(&settings, &volume) {
            Ok(group) => (Some(group), Vec::new()),
            Err(lack) => (None, vec![lack]),
        };
        let kernel = match decided(&settings, &volume, watching.is_some()) {
            Ok(kernel) => Some(kernel),
            Err(lack) => {
                lacks.push(lack);
                None
            }
        };
        rights::of_supervisor()?;
        let start = |group| Watching::start(settings.program.clone(), group, kernel);
        let watching = watching.map(start).transpose()?;
        let runs = Runs::over(settings.program, &volume, apps)?;
        Ok(Self {
            listener,
            watching,
            lacks,
            runs,
            looked: Instant::now(),
            agent: None,
            kept: VecDeque::new(),
        })
    }

    /// Nothing that goes wrong here ends the process: with it the volume would open.
    fn turn(&mut self) {
        self.wait();
        self.accept();
        self.hear_agent();
        self.look_after_watch();
        if self.looked.elapsed() >= self.turn_time() {
            self.looked = Instant::now();
            for told in self.runs.turn() {
                self.tell(told);
            }
        }
    }

    /// How often it is looked what the applications do.
    fn turn_time(&self) -> Duration {
        match self.runs.is_ending() {
            true => ENDING_TURN,
            false => TURN,
        }
    }

    fn wait(&self) {
        let mut polled = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let sockets = [
            self.watching.as_ref().and_then(Watching::socket),
            self.agent.as_ref().map(Agent::socket),
        ];
        polled.extend(
            sockets
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let wait = PollTimeout::try_from(self.turn_time()).unwrap_or(PollTimeout::ZERO);
        if matches!(poll(&mut polled, wait), Err(error) if error != Errno::EINTR) {
            // No memory for the moment: not at full speed.
            std::thread::park_timeout(TURN);
        }
    }

    /// The newest agent counts: the one before has died or been replaced.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(mut agent) = Agent::of(stream) else {
                continue;
            };
            let pid = agent.pid();
            if agent.tell(&self.here()).is_err() {
                continue;
            }
            while let Some(told) = self.kept.pop_front() {
                if agent.tell(&told).is_err() {
                    return;
                }
            }
            self.agent = Some(agent);
            self.keeper(pid);
        }
    }

    fn here(&self) -> Told {
        Told::Here {
            level: match &self.watching {
                Some(watching) => watching.level(),
                None => Level::Launcher,
            },
            lacks: self.lacks.clone(),
            runs: self.runs.list(),
            shut: self.watching.as_ref().is_some_and(Watching::is_shut),
        }
    }

    fn keeper(&mut self, pid: i32) {
        if let Some(watching) = &mut self.watching {
            watching.keeper(pid);
        }
    }

    fn hear_agent(&mut self) {
        let Some(agent) = &mut self.agent else {
            return;
        };
        let (orders, alive) = agent.hear();
        if !alive {
            self.agent = None;
            self.keeper(0);
        }
        for order in orders {
            if let Some(told) = self.follow(order) {
                self.tell(told);
            }
        }
    }

    fn follow(&mut self, order: Order) -> Option<Told> {
        match order {
            Order::Book(book) => match &mut self.watching {
                Some(watching) => {
                    watching.take(book);
                    None
                }
                // Nobody asks, so there is nothing that it could be late for.
                None => Some(Told::Holds(book.version())),
            },
            Order::Make { name } => Some(self.runs.make(&name)),
            Order::Start(start) => Some(
                match self.watching.as_ref().is_some_and(Watching::is_shut) {
                    true => Told::NotStarted {
                        name: start.name,
                        why: "the volume is shut".to_owned(),
                    },
                    false => self.runs.start(*start),
                },
            ),
            Order::End { name } => self.runs.end(&name),
            Order::Keeper(_) => None,
        }
    }

    fn look_after_watch(&mut self) {
        let Some(watching) = &mut self.watching else {
            return;
        };
        let mut told = Vec::new();
        match watching.turn(&mut |said| told.push(said)) {
            Turned::Well => {}
            Turned::Replaced { refused } => told.push(Told::Restarted { refused }),
            Turned::Shut => {
                let ended = self.runs.end_all();
                told.push(Told::Shut { ended });
            }
        }
        for told in told {
            self.tell(told);
        }
    }

    /// Half a line would make all that follow it unreadable, so an agent that takes none is one no more.
    fn tell(&mut self, told: Told) {
        if let Some(agent) = &mut self.agent {
            if agent.tell(&told).is_ok() {
                return;
            }
            self.agent = None;
            self.keeper(0);
        }
        // How applications do, an agent hears when it comes; what they write is for one that is there.
        if !matches!(
            told,
            Told::Saw(_) | Told::Lost(_) | Told::Restarted { .. } | Told::Shut { .. }
        ) {
            return;
        }
        if self.kept.len() >= MAX_KEPT_RECORDS {
            self.kept.pop_front();
        }
        self.kept.push_back(told);
    }
}

/// The group of questions over the volume, or why there is none. That something is no volume is an error elsewhere.
fn watched(settings: &Settings, volume: &Volume) -> Result<Group, String> {
    if settings.most < Level::Fanotify {
        return Err("fanotify: not wanted".to_owned());
    }
    Group::over(volume).map_err(|error| format!("fanotify: {error}"))
}

/// What the kernel decides by, or why it does not. It needs the questions, whose answers it learns.
fn decided(settings: &Settings, volume: &Volume, asks: bool) -> Result<Kernel, String> {
    let decided = match (settings.most < Level::Kernel, asks) {
        (true, _) => Err("not wanted".to_owned()),
        (false, false) => Err("kernel does not ask".to_owned()),
        (false, true) => Kernel::over(volume).map_err(|error| error.to_string()),
    };
    decided.map_err(|lack| {
        // What an earlier guard left would refuse what this one lets through.
        let left = kernel::release(volume).err();
        let stays = left.map_or(String::new(), |error| {
            format!(", and what was there stays: {error}")
        });
        format!("kernel: {lack}{stays}")
    })
}
