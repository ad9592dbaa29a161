//! Threads that verify: as many as there are processors, beside the threads that serve sessions, so that heartbeats and
//! cuts never wait behind signatures and logs, and many answers are judged at the same time.
//!
//! A session hands in one answer at a time, so no more wait than there are sessions; answers with logs are admitted
//! ([`Verifiers::admit_logs`]) before they are asked for, so that not too many bytes wait either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Most answers that a thread takes in one go.
const BATCH: usize = 16;
/// Most nodes that may be sending logs at the same time. At the limits of one answer that is 768 MiB, with usual logs 60.
const MAX_SENDING_LOGS: usize = 256;

type Work = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped and everything handed in is done.
pub struct Verifiers {
    shared: Arc<Shared>,
    sending: Arc<Semaphore>,
    threads: usize,
}

/// How much an answer costs: quotes alone never wait behind many logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Quote,
    Logs,
}

struct Shared {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    quotes: VecDeque<Work>,
    logs: VecDeque<Work>,
    closed: bool,
}

/// Why there are no threads. The machine's.
#[derive(Debug, thiserror::Error)]
#[error("a thread that verifies cannot be started: {0}")]
pub struct NoThread(#[from] std::io::Error);

impl Verifiers {
    pub fn start() -> Result<Self, NoThread> {
        let threads = available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            ready: Condvar::new(),
        });
        let verifiers = Self {
            shared: shared.clone(),
            sending: Arc::new(Semaphore::new(MAX_SENDING_LOGS)),
            threads,
        };
        for number in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("verify-{number}"))
                .spawn(move || shared.work(threads))?;
        }
        Ok(verifiers)
    }

    /// Has something computed. The receiver gets nothing only if the process is ending.
    pub fn submit<T: Send + 'static>(
        &self,
        weight: Weight,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Nobody waits for an answer whose session has ended.
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        let mut waiting = self.shared.waiting.lock();
        match weight {
            Weight::Quote => waiting.quotes.push_back(work),
            Weight::Logs => waiting.logs.push_back(work),
        }
        drop(waiting);
        self.shared.ready.notify_one();
        receiver
    }

    /// A node may be asked for logs while this is held. `None`: too many are sending theirs.
    pub fn admit_logs(&self) -> Option<OwnedSemaphorePermit> {
        self.sending.clone().try_acquire_owned().ok()
    }

    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Drop for Verifiers {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    fn work(&self, threads: usize) {
        let mut batch = Vec::with_capacity(BATCH + 1);
        while self.take(&mut batch, threads) {
            for work in batch.drain(..) {
                work();
            }
        }
    }

    /// Waits for work, and takes a fair share of the quotes and one answer with logs. False: there will be none.
    fn take(&self, batch: &mut Vec<Work>, threads: usize) -> bool {
        let mut waiting = self.waiting.lock();
        loop {
            let share = waiting.quotes.len().div_ceil(threads).min(BATCH);
            batch.extend(waiting.quotes.drain(..share));
            batch.extend(waiting.logs.pop_front());
            if !batch.is_empty() {
                return true;
            }
            if waiting.closed {
                return false;
            }
            self.ready.wait(&mut waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_computed() {
        let verifiers = Verifiers::start().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let blocks: Vec<_> = (0..verifiers.threads())
            .map(|_| {
                let held = held.clone();
                verifiers.submit(Weight::Quote, move || {
                    let _ = held.lock().recv_timeout(Duration::from_secs(20));
                })
            })
            .collect();
        let (says, heard) = mpsc::channel();
        drop(verifiers.submit(Weight::Quote, move || says.send(())));
        drop(release);
        for block in blocks {
            block.await.unwrap();
        }
        assert_eq!(verifiers.submit(Weight::Quote, || 7).await, Ok(7));
        assert!(heard.recv_timeout(Duration::from_secs(20)).is_err());
    }

    #[tokio::test]
    async fn everything_handed_in_is_computed_also_after_the_end() {
        let verifiers = Verifiers::start().unwrap();
        let answers: Vec<_> = (0..1000_u32)
            .map(|number| {
                let weight = match number % 2 {
                    0 => Weight::Quote,
                    _ => Weight::Logs,
                };
                verifiers.submit(weight, move || number)
            })
            .collect();
        drop(verifiers);
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(answer.await, Ok(number));
        }
    }

    #[test]
    fn only_so_many_nodes_send_their_logs_at_the_same_time() {
        let verifiers = Verifiers::start().unwrap();
        let permits: Vec<_> = (0..MAX_SENDING_LOGS)
            .map(|_| verifiers.admit_logs().unwrap())
            .collect();
        assert!(verifiers.admit_logs().is_none());
        drop(permits);
        assert!(verifiers.admit_logs().is_some());
    }
}
