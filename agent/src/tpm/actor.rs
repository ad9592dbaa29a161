//! The thread that owns the TPM. Requests wait in bounded queues, attestation first.
//!
//! A TPM does one thing at a time and takes 1 to 600 ms for it. Whoever asks gets an answer, an error or
//! [`TpmError::Timeout`]; nobody else ever blocks on the device.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::TpmError;
use super::device::{Device, Place};

/// Most requests waiting at one priority.
pub const QUEUE_LIMIT: usize = 64;
/// How long a caller waits for its answer, queueing included.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// Who is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Evidence: late evidence makes the node stale.
    Attest,
    /// The session with the cloud, and enrolment.
    Session,
    /// Binds with peers: strangers can cause them.
    Bind,
}

/// A handle to the thread. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct Tpm {
    shared: Arc<Shared>,
    _thread: Arc<Thread>,
    place: Place,
}

type Job = Box<dyn FnOnce(&mut Device) + Send>;

#[derive(Default)]
struct Queues {
    waiting: [VecDeque<Job>; 3],
    closed: bool,
}

#[derive(Default)]
pub(super) struct Shared {
    queues: Mutex<Queues>,
    wake: Condvar,
}

struct Thread {
    shared: Arc<Shared>,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl Tpm {
    /// Starts the thread and opens the device in it. Blocks until the device has answered.
    pub fn open(place: Place) -> Result<Self, TpmError> {
        let shared = Arc::new(Shared::default());
        let (opened, open) = sync_channel(1);
        let (theirs, at) = (shared.clone(), place.clone());
        let join = std::thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || match Device::open(at, theirs.clone()) {
                Ok(mut device) => {
                    let _ = opened.send(Ok(()));
                    serve(&theirs, &mut device);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            })
            .map_err(|error| TpmError::Unreachable {
                place: place.tcti.clone(),
                detail: format!("no thread: {error}"),
            })?;
        open.recv().map_err(|_| TpmError::Ended)??;
        let thread = Thread {
            shared: shared.clone(),
            join: Mutex::new(Some(join)),
        };
        Ok(Self {
            shared,
            _thread: Arc::new(thread),
            place,
        })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Asks from async code.
    pub async fn call<T: Send + 'static>(
        &self,
        priority: Priority,
        request: impl FnOnce(&mut Device) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.push(
            priority,
            Box::new(move |device| {
                let _ = reply.send(request(device));
            }),
        )?;
        match tokio::time::timeout(REPLY_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TpmError::Ended),
            Err(_) => Err(TpmError::Timeout),
        }
    }

    /// Asks from a thread that may block. Never from an async task: it would hold up others.
    pub fn call_blocking<T: Send + 'static>(
        &self,
        priority: Priority,
        request: impl FnOnce(&mut Device) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = sync_channel(1);
        self.push(
            priority,
            Box::new(move |device| {
                let _ = reply.send(request(device));
            }),
        )?;
        wait_for(&answer)
    }

    /// How many requests wait at each priority.
    pub fn waiting(&self) -> [usize; 3] {
        let queues = self.shared.queues.lock();
        queues.waiting.each_ref().map(VecDeque::len)
    }

    fn push(&self, priority: Priority, job: Job) -> Result<(), TpmError> {
        let mut queues = self.shared.queues.lock();
        if queues.closed {
            return Err(TpmError::Ended);
        }
        let queue = queues.at(priority);
        if queue.len() >= QUEUE_LIMIT {
            return Err(TpmError::Busy);
        }
        queue.push_back(job);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Queues {
    fn at(&mut self, priority: Priority) -> &mut VecDeque<Job> {
        let [attest, session, bind] = &mut self.waiting;
        match priority {
            Priority::Attest => attest,
            Priority::Session => session,
            Priority::Bind => bind,
        }
    }

    fn next(&mut self) -> Option<Job> {
        self.waiting.iter_mut().find_map(VecDeque::pop_front)
    }
}

impl Shared {
    /// Waits before a retry; returns false if the thread is to end instead.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let mut queues = self.queues.lock();
        let until = std::time::Instant::now() + duration;
        while !queues.closed {
            if self.wake.wait_until(&mut queues, until).timed_out() {
                return true;
            }
        }
        false
    }

    fn take(&self) -> Option<Job> {
        let mut queues = self.queues.lock();
        loop {
            if let Some(job) = queues.next() {
                return Some(job);
            }
            if queues.closed {
                return None;
            }
            self.wake.wait(&mut queues);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.queues.lock().closed = true;
        self.shared.wake.notify_all();
        // Waits for the command under way: leaving it would leave its session in the TPM.
        if let Some(join) = self.join.lock().take() {
            let _ = join.join();
        }
    }
}

impl std::fmt::Debug for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tpm")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn serve(shared: &Shared, device: &mut Device) {
    while let Some(job) = shared.take() {
        job(device);
    }
}

fn wait_for<T>(answer: &Receiver<Result<T, TpmError>>) -> Result<T, TpmError> {
    match answer.recv_timeout(REPLY_DEADLINE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(TpmError::Timeout),
        Err(RecvTimeoutError::Disconnected) => Err(TpmError::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestation_is_served_before_sessions_and_those_before_binds() {
        let mut queues = Queues::default();
        for priority in [Priority::Bind, Priority::Session, Priority::Attest] {
            queues.at(priority).push_back(Box::new(|_| {}));
        }
        for left in [[0, 1, 1], [0, 0, 1], [0, 0, 0]] {
            assert!(queues.next().is_some());
            assert_eq!(queues.waiting.each_ref().map(VecDeque::len), left);
        }
        assert!(queues.next().is_none());
    }

    #[test]
    fn a_pause_ends_early_when_the_thread_is_to_end() {
        let shared = Shared::default();
        assert!(shared.pause(Duration::from_millis(1)));
        shared.queues.lock().closed = true;
        assert!(!shared.pause(Duration::from_secs(3600)));
    }

    #[test]
    fn no_tpm_is_an_error_and_not_a_hang() {
        let place = Place::parse("swtpm:host=127.0.0.1,port=1", 0x8101_0200, 0x0180_0e01).unwrap();
        assert!(matches!(
            Tpm::open(place),
            Err(TpmError::Unreachable { .. })
        ));
    }
}
