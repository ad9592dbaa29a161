//! Answers questions: what is known at once, what must be read first by the readers, and what nobody decided in time.
//!
//! Writes no log and opens no file while somebody waits.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use crate::book::{Asked, Book, Mode, Reason, Verdict};
use crate::cache::Cache;
use crate::control::{Action, Saw};
use crate::digest::{Digest, NoDigest};
use crate::group::{Group, Question};
use crate::identity::{FileIdentity, NoIdentity};
use crate::level::kernel::Kernel;
use crate::verity::{self, Sealed};

/// How long a question may wait for its answer.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// One question with the time by which it is answered.
#[derive(Debug)]
pub struct Case {
    question: Question,
    due: Instant,
    answered: AtomicBool,
}

/// What became of a question at first sight.
#[derive(Debug)]
pub enum Step {
    Answered,
    /// The file must be read.
    Read,
}

/// Decides, with what all threads share.
#[derive(Debug)]
pub struct Court {
    group: Group,
    /// Decides as well, by what is admitted here.
    kernel: Option<Kernel>,
    book: RwLock<Option<Book>>,
    cache: Mutex<Cache>,
    /// The process that installs: it may open what is not listed yet, and never execute it. 0 is nobody.
    keeper: AtomicI32,
    records: SyncSender<Saw>,
    lost: AtomicU64,
    /// Of what the kernel refused by itself, so many were told.
    told_refused: AtomicU64,
}

impl Case {
    pub fn new(question: Question, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            question,
            due: now + DEADLINE,
            answered: AtomicBool::new(false),
        })
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}

impl Court {
    pub fn new(group: Group, kernel: Option<Kernel>, records: SyncSender<Saw>) -> Self {
        let refused = kernel.as_ref().and_then(|kernel| kernel.refused().ok());
        Self {
            group,
            kernel,
            book: RwLock::default(),
            cache: Mutex::default(),
            keeper: AtomicI32::new(0),
            records,
            lost: AtomicU64::new(0),
            told_refused: AtomicU64::new(refused.unwrap_or(0)),
        }
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// From the return on nothing is answered by the book before. Nothing that was let through stays unasked.
    pub fn take(&self, book: Book) -> io::Result<()> {
        let mut held = self.book.write();
        // First the old answers, then the new book: if the first fails, nothing has changed but their speed.
        self.group.heed_all()?;
        if let Some(kernel) = &self.kernel {
            kernel.keep_only(|content| book.lists(content))?;
            kernel.enforce(book.mode() == Mode::Enforce)?;
        }
        *held = Some(book);
        Ok(())
    }

    pub fn set_keeper(&self, pid: i32) {
        self.keeper.store(pid, Ordering::Release);
    }

    /// Refusals without a record since the last call: those that found no room, and the kernel's own.
    pub fn take_lost(&self) -> u64 {
        let refused = self
            .kernel
            .as_ref()
            .and_then(|kernel| kernel.refused().ok());
        let unheard = refused.map_or(0, |refused| {
            refused.saturating_sub(self.told_refused.swap(refused, Ordering::AcqRel))
        });
        self.lost.swap(0, Ordering::AcqRel).saturating_add(unheard)
    }

    /// Never blocks.
    pub fn first_look(&self, case: &Case) -> Step {
        let Some(file) = case.question.file() else {
            return Step::Answered;
        };
        let identity = match FileIdentity::of(file) {
            Ok(identity) => identity,
            Err(error) => {
                self.refuse(case, reason_of_identity(&error));
                return Step::Answered;
            }
        };
        if self.is_keepers(case) {
            self.answer(case, true);
            return Step::Answered;
        }
        let known = self.cache.lock().get(&identity);
        match known {
            Some(digest) => {
                self.judge(case, &identity, &digest, None);
                Step::Answered
            }
            None => Step::Read,
        }
    }

    /// Reads the file and answers. Blocks until the deadline at most.
    pub fn read(&self, case: &Case) {
        let Some(file) = case.question.file() else {
            return;
        };
        if case.is_answered() {
            return;
        }
        let looked = || -> Result<(FileIdentity, Digest, Option<Sealed>), Reason> {
            let before = FileIdentity::of(file).map_err(|error| reason_of_identity(&error))?;
            let known = self.cache.lock().get(&before);
            if let Some(digest) = known {
                return Ok((before, digest, None));
            }
            let sealed = self.sealed(file);
            let digest = Digest::of(file, case.due).map_err(|error| match error {
                NoDigest::TooSlow => Reason::TooSlow,
                NoDigest::Io(_) | NoDigest::TooLarge => Reason::Unreadable,
            })?;
            let after = FileIdentity::of(file).map_err(|error| reason_of_identity(&error))?;
            if after != before {
                return Err(Reason::Changed);
            }
            if before.is_settled(since_1970()) {
                self.cache.lock().put(before, digest);
            }
            Ok((before, digest, sealed))
        };
        match looked() {
            Ok((identity, digest, sealed)) => self.judge(case, &identity, &digest, sealed),
            Err(reason) => self.refuse(case, reason),
        }
    }

    /// Answers what could not be judged.
    pub fn refuse(&self, case: &Case, reason: Reason) {
        let verdict = match self.book.read().as_ref() {
            Some(book) => book.refuse(reason),
            None => Verdict::Deny(Reason::NoBook),
        };
        self.settle(case, verdict, None);
    }

    /// `sealed`: what the file was sealed with before it was read.
    fn judge(&self, case: &Case, identity: &FileIdentity, digest: &Digest, sealed: Option<Sealed>) {
        // Held until the mark is set: a new book waits, and then takes the mark away with all others.
        let book = self.book.read();
        let verdict = match book.as_ref() {
            Some(book) => book.verdict(digest),
            None => Verdict::Deny(Reason::NoBook),
        };
        let verdict = match (verdict, case.question.file()) {
            (Verdict::Allow, Some(file)) => match self.admit(identity, digest, file, sealed) {
                Ok(()) => self.ask_no_more(identity, file),
                Err(reason) => book
                    .as_ref()
                    .map_or(Verdict::Deny(reason), |book| book.refuse(reason)),
            },
            (verdict, _) => verdict,
        };
        self.settle(case, verdict, Some(*digest));
    }

    /// Where the kernel decides as well, it is told what this file is sealed with.
    fn admit(
        &self,
        identity: &FileIdentity,
        digest: &Digest,
        file: BorrowedFd<'_>,
        sealed: Option<Sealed>,
    ) -> Result<(), Reason> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        // One that was sealed only after it was read must be the same file still, by times that tell.
        let later = || {
            let sealed = self.sealed(file)?;
            let same = FileIdentity::of(file).is_ok_and(|now| now == *identity);
            (same && identity.is_settled(since_1970())).then_some(sealed)
        };
        let sealed = sealed.or_else(later).ok_or(Reason::NotSealed)?;
        kernel
            .admit(&sealed, digest)
            .map_err(|_no_room| Reason::Overload)
    }

    fn sealed(&self, file: BorrowedFd<'_>) -> Option<Sealed> {
        self.kernel.as_ref()?;
        verity::measure(file).ok().flatten()
    }

    /// A write before the mark shows in the file's times, one after it takes the mark away.
    fn ask_no_more(&self, identity: &FileIdentity, file: BorrowedFd<'_>) -> Verdict {
        if !identity.is_settled(since_1970()) || self.group.ignore(file).is_err() {
            return Verdict::Allow;
        }
        if FileIdentity::of(file).is_ok_and(|now| now == *identity) {
            return Verdict::Allow;
        }
        // Whether or not the mark goes, this one is refused; a mark that stays would let the next one through.
        match self.group.heed(file).or_else(|_| self.group.heed_all()) {
            Ok(()) => Verdict::Deny(Reason::Changed),
            // The kernel no longer does as told: whoever watches over us must begin anew.
            Err(_) => std::process::abort(),
        }
    }

    fn settle(&self, case: &Case, verdict: Verdict, digest: Option<Digest>) {
        let (allow, told) = match verdict {
            Verdict::Allow => (true, None),
            Verdict::Observe(reason) => (true, Some((Action::WouldDeny, reason))),
            Verdict::Deny(reason) => (false, Some((Action::Denied, reason))),
        };
        // Looked up before the answer: afterwards whoever asked may have gone.
        let saw = told.map(|(action, reason)| Saw::of(&case.question, action, reason, digest));
        if !self.answer(case, allow) {
            return;
        }
        let Some(saw) = saw else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.records.try_send(saw)
        {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether this was the first answer; only that one counts.
    fn answer(&self, case: &Case, allow: bool) -> bool {
        let first = !case.answered.swap(true, Ordering::AcqRel);
        if first {
            self.group.answer(&case.question, allow);
        }
        first
    }

    fn is_keepers(&self, case: &Case) -> bool {
        let keeper = self.keeper.load(Ordering::Acquire);
        keeper > 0 && case.question.pid() == keeper && case.question.asked() == Asked::Open
    }
}

fn reason_of_identity(error: &NoIdentity) -> Reason {
    match error {
        NoIdentity::Kernel(_) => Reason::Unreadable,
        NoIdentity::NotRegular => Reason::NotRegular,
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}
