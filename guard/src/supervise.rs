//! The process that holds the group, so that the death of the watch lets nothing through: what it had not answered is
//! refused, and another takes its place. Decides nothing itself.

mod agent;
mod child;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::book::Book;
use crate::cgroup::{Cgroup, CgroupError};
use crate::control::{BadLine, Order, Told};
use crate::group::{Group, GroupError};
use crate::volume::{NotAVolume, Volume};
use agent::Agent;
use child::Child;

/// How long the watch may say nothing before another takes its place.
const STALLED: Duration = Duration::from_secs(1);
/// Most watches that may die within the window below; one more, and everything is refused for good. One that only stood
/// still does not count: on a busy machine that is nobody's fault.
const MAX_DEATHS: usize = 5;
const DEATH_WINDOW: Duration = Duration::from_secs(60);
/// Most records kept for an agent that is away; the oldest go first.
const MAX_KEPT_RECORDS: usize = 1024;
const TURN: Duration = Duration::from_millis(50);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    pub volume: PathBuf,
    /// Where the agent connects.
    pub socket: PathBuf,
    /// Group of all applications: it is killed when nobody can answer for them any more.
    pub apps: PathBuf,
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
    settings: Settings,
    group: Group,
    apps: Cgroup,
    listener: UnixListener,
    watch: Option<Child>,
    deaths: VecDeque<Instant>,
    agent: Option<Agent>,
    book: Option<Book>,
    kept: VecDeque<Told>,
    shut: bool,
}

/// How the watch does.
#[derive(Clone, Copy, Debug)]
enum Health {
    Answers,
    Stalled,
    Dead,
}

impl Supervisor {
    fn new(settings: Settings) -> Result<Self, SuperviseError> {
        let apps = Cgroup::open(&settings.apps)?;
        let volume = Volume::open(&settings.volume)?;
        match std::fs::remove_file(&settings.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(&settings.socket)?;
        std::fs::set_permissions(&settings.socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let group = Group::over(&volume)?;
        let watch = Child::start(&settings.program, &group)?;
        Ok(Self {
            settings,
            group,
            apps,
            listener,
            watch: Some(watch),
            deaths: VecDeque::new(),
            agent: None,
            book: None,
            kept: VecDeque::new(),
            shut: false,
        })
    }

    /// Nothing that goes wrong here ends the process: with it the volume would open.
    fn turn(&mut self) {
        self.wait();
        self.accept();
        self.hear_agent();
        if self.shut {
            self.refuse_all();
            return;
        }
        match self.hear_watch() {
            Health::Answers => {}
            Health::Stalled => self.replace_watch(),
            Health::Dead => {
                self.deaths.push_back(Instant::now());
                self.replace_watch();
            }
        }
    }

    fn wait(&self) {
        let mut polled = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let sockets = [
            self.watch.as_ref().map(Child::socket),
            self.agent.as_ref().map(Agent::socket),
            self.shut.then(|| self.group.as_fd()),
        ];
        polled.extend(
            sockets
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let wait = PollTimeout::try_from(TURN).unwrap_or(PollTimeout::ZERO);
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
            while let Some(told) = self.kept.pop_front() {
                if agent.tell(&told).is_err() {
                    return;
                }
            }
            self.agent = Some(agent);
            self.order(&Order::Keeper(pid));
        }
    }

    fn hear_agent(&mut self) {
        let Some(agent) = &mut self.agent else {
            return;
        };
        let (books, alive) = agent.hear();
        if !alive {
            self.agent = None;
            self.order(&Order::Keeper(0));
        }
        for book in books {
            self.order(&Order::Book(book.clone()));
            self.book = Some(book);
        }
    }

    /// A watch that cannot be told anything is found dead or stalled at the next turn.
    fn order(&mut self, order: &Order) {
        if let Some(watch) = &mut self.watch {
            watch.order(order);
        }
    }

    fn hear_watch(&mut self) -> Health {
        let Some(watch) = &mut self.watch else {
            return Health::Dead;
        };
        let (told, alive) = watch.hear();
        let stalled = watch.silence() > STALLED;
        for told in told {
            self.tell(told);
        }
        match (alive, stalled) {
            (false, _) => Health::Dead,
            (true, true) => Health::Stalled,
            (true, false) => Health::Answers,
        }
    }

    fn refuse_all(&self) {
        for question in self.group.questions(Duration::ZERO).unwrap_or_default() {
            self.group.answer(&question, false);
        }
    }

    fn replace_watch(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.end();
        }
        let refused = self.group.refuse_abandoned();
        self.deaths.retain(|at| at.elapsed() < DEATH_WINDOW);
        let started = (self.deaths.len() <= MAX_DEATHS)
            .then(|| Child::start(&self.settings.program, &self.group));
        let Some(Ok(watch)) = started else {
            self.shut = true;
            let ended = self.apps.kill().is_ok();
            self.tell(Told::Shut { ended });
            return;
        };
        self.watch = Some(watch);
        if let Some(book) = self.book.clone() {
            self.order(&Order::Book(book));
        }
        if let Some(agent) = &self.agent {
            let pid = agent.pid();
            self.order(&Order::Keeper(pid));
        }
        self.tell(Told::Restarted { refused });
    }

    fn tell(&mut self, told: Told) {
        if let Some(agent) = &mut self.agent
            && agent.tell(&told).is_ok()
        {
            return;
        }
        if self.kept.len() >= MAX_KEPT_RECORDS {
            self.kept.pop_front();
        }
        self.kept.push_back(told);
    }
}
