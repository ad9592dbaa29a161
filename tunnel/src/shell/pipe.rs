//! Batches from the first thread of a direction to the second, in order, in a fixed number of buffers.
//!
//! While the second has nothing to do, the first may do its work on small batches itself ([`Pipe::is_idle`]): one
//! packet alone is not worth waking anybody.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

pub(super) struct Pipe<B> {
    state: Mutex<State<B>>,
    filled: Condvar,
    emptied: Condvar,
}

struct State<B> {
    queue: VecDeque<B>,
    free: Vec<B>,
    /// The second thread works on a batch.
    working: bool,
    closed: bool,
}

/// Closes the pipe when its thread ends, however it ends.
pub(super) struct Closing<'a, B>(pub(super) &'a Pipe<B>);

impl<B> Pipe<B> {
    pub(super) fn new(batches: Vec<B>) -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::with_capacity(batches.len()),
                free: batches,
                working: false,
                closed: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// An empty batch for the first thread; `None` once the pipe is closed.
    pub(super) fn take_free(&self) -> Option<B> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(batch) = state.free.pop() {
                return Some(batch);
            }
            self.emptied.wait(&mut state);
        }
    }

    /// Whether the second thread has nothing to do. Only the first thread can change that.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.queue.is_empty() && !state.working
    }

    /// Hands a filled batch to the second thread.
    pub(super) fn hand_over(&self, batch: B) {
        self.state.lock().queue.push_back(batch);
        self.filled.notify_one();
    }

    /// The next filled batch, for the second thread; `None` once the pipe is closed and everything that was handed over
    /// is done: nobody else has it any more. Give it back.
    pub(super) fn take_filled(&self) -> Option<B> {
        let mut state = self.state.lock();
        loop {
            if let Some(batch) = state.queue.pop_front() {
                state.working = true;
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
    }

    /// Gives back a batch whose work is done.
    pub(super) fn give_back(&self, batch: B) {
        let mut state = self.state.lock();
        state.working = false;
        state.free.push(batch);
        drop(state);
        self.emptied.notify_one();
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

impl<B> Drop for Closing<'_, B> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_out_in_the_order_they_went_in_and_none_is_lost() {
        let pipe = Pipe::new(vec![0u32; 3]);
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=10_000 {
                    let mut batch = pipe.take_free().unwrap();
                    batch = batch.wrapping_mul(0).wrapping_add(number);
                    pipe.hand_over(batch);
                }
            });
            while seen.len() < 10_000 {
                let batch = pipe.take_filled().unwrap();
                seen.push(batch);
                pipe.give_back(batch);
            }
        });
        assert!(seen.into_iter().eq(1..=10_000));
        assert!(pipe.is_idle());
    }

    #[test]
    fn a_batch_under_way_is_not_idle() {
        let pipe = Pipe::new(vec![1, 2]);
        let first = pipe.take_free().unwrap();
        assert!(pipe.is_idle());
        pipe.hand_over(first);
        assert!(!pipe.is_idle(), "waits");
        let taken = pipe.take_filled().unwrap();
        assert!(!pipe.is_idle(), "is worked on");
        pipe.give_back(taken);
        assert!(pipe.is_idle());
    }

    #[test]
    fn what_was_handed_over_before_the_end_is_still_done() {
        let pipe = Pipe::new(vec![1, 2]);
        let first = pipe.take_free().unwrap();
        pipe.hand_over(first);
        drop(Closing(&pipe));
        assert_eq!(pipe.take_filled(), Some(first));
        assert_eq!(pipe.take_filled(), None);
    }

    #[test]
    fn whoever_ends_ends_the_other() {
        let pipe = Pipe::new(vec![1]);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| pipe.take_filled());
            drop(Closing(&pipe));
            assert!(reader.join().unwrap().is_none());
        });
        assert!(pipe.take_free().is_none());
    }
}
