//! Over the watch: it is replaced when it dies or stands still, and what it had not answered is refused.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::SuperviseError;
use super::child::Child;
use crate::book::Book;
use crate::control::{Order, Told};
use crate::group::Group;
use crate::level::Level;
use crate::level::kernel::Kernel;

/// How long the watch may say nothing before another takes its place.
const STALLED: Duration = Duration::from_secs(1);
/// Most watches that may die within the window below; one more, and everything is refused for good. One that only stood
/// still does not count: on a busy machine that is nobody's fault.
const MAX_DEATHS: usize = 5;
const DEATH_WINDOW: Duration = Duration::from_secs(60);

pub(super) struct Watching {
    program: PathBuf,
    group: Group,
    kernel: Option<Kernel>,
    watch: Option<Child>,
    deaths: VecDeque<Instant>,
    book: Option<Book>,
    keeper: i32,
    shut: bool,
}

/// What became of the watch in one turn.
pub(super) enum Turned {
    Well,
    Replaced {
        refused: usize,
    },
    /// It cannot be kept alive.
    Shut,
}

/// How the watch does.
#[derive(Clone, Copy, Debug)]
enum Health {
    Answers,
    Stalled,
    Dead,
}

impl Watching {
    pub(super) fn start(
        program: PathBuf,
        group: Group,
        kernel: Option<Kernel>,
    ) -> Result<Self, SuperviseError> {
        let mut watching = Self {
            program,
            group,
            kernel,
            watch: None,
            deaths: VecDeque::new(),
            book: None,
            keeper: 0,
            shut: false,
        };
        watching.start_watch()?;
        Ok(watching)
    }

    pub(super) fn level(&self) -> Level {
        match self.kernel {
            Some(_) => Level::Kernel,
            None => Level::Fanotify,
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// What to wait for.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self.shut {
            true => Some(self.group.as_fd()),
            false => self.watch.as_ref().map(Child::socket),
        }
    }

    pub(super) fn take(&mut self, book: Book) {
        self.order(&Order::Book(book.clone()));
        self.book = Some(book);
    }

    pub(super) fn keeper(&mut self, pid: i32) {
        self.keeper = pid;
        self.order(&Order::Keeper(pid));
        // If it fails, what is not admitted yet is not read either.
        let _nobody_reads = self.tell_readers();
    }

    /// Hears the watch and sees to it that there is one.
    pub(super) fn turn(&mut self, tell: &mut dyn FnMut(Told)) -> Turned {
        if self.shut {
            self.refuse_all();
            return Turned::Well;
        }
        match self.hear(tell) {
            Health::Answers => Turned::Well,
            Health::Stalled => self.replace(),
            Health::Dead => {
                self.deaths.push_back(Instant::now());
                self.replace()
            }
        }
    }

    /// A watch that cannot be told anything is found dead or stalled at the next turn.
    fn order(&mut self, order: &Order) {
        if let Some(watch) = &mut self.watch {
            watch.order(order);
        }
    }

    fn hear(&mut self, tell: &mut dyn FnMut(Told)) -> Health {
        let Some(watch) = &mut self.watch else {
            return Health::Dead;
        };
        let (told, alive) = watch.hear();
        let stalled = watch.silence() > STALLED;
        told.into_iter().for_each(tell);
        match (alive, stalled) {
            (false, _) => Health::Dead,
            (true, true) => Health::Stalled,
            (true, false) => Health::Answers,
        }
    }

    /// The kernel lets the watch read before it asks for anything.
    fn start_watch(&mut self) -> std::io::Result<()> {
        let folder = self.kernel.as_ref().map(Kernel::folder);
        let watch = Child::start(&self.program, &self.group, folder)?;
        self.watch = Some(watch);
        self.tell_readers()
    }

    fn tell_readers(&self) -> std::io::Result<()> {
        match &self.kernel {
            Some(kernel) => {
                kernel.set_readers(self.keeper, self.watch.as_ref().map_or(0, Child::pid))
            }
            None => Ok(()),
        }
    }

    fn refuse_all(&self) {
        for question in self.group.questions(Duration::ZERO).unwrap_or_default() {
            self.group.answer(&question, false);
        }
    }

    fn replace(&mut self) -> Turned {
        if let Some(watch) = self.watch.take() {
            watch.end();
        }
        let refused = self.group.refuse_abandoned();
        self.deaths.retain(|at| at.elapsed() < DEATH_WINDOW);
        let too_often = self.deaths.len() > MAX_DEATHS;
        if too_often || self.start_watch().is_err() {
            if let Some(watch) = self.watch.take() {
                watch.end();
            }
            self.shut = true;
            return Turned::Shut;
        }
        if let Some(book) = self.book.clone() {
            self.order(&Order::Book(book));
        }
        self.order(&Order::Keeper(self.keeper));
        Turned::Replaced { refused }
    }
}
