//! The replay window of one session: which message counters were taken (RFC 6479, a ring of words).

use super::Refused;

/// How far a message may be behind the newest one, in messages.
pub const WINDOW_MESSAGES: u64 = 8192;
const WORD_BITS: u64 = 64;
/// One word more than the window is long: the newest word is shared by the window's two ends.
pub(super) const WORDS: usize = (WINDOW_MESSAGES / WORD_BITS + 1) as usize;

/// One bit for each counter of the window.
#[derive(Clone)]
pub(super) struct Window {
    /// One more than the newest counter taken; zero before the first.
    next: u64,
    words: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            next: 0,
            words: [0; WORDS],
        }
    }
}

impl Window {
    /// Whether a message with this counter may be taken. Cheap; asked before it is opened.
    pub(super) fn check(&self, counter: u64) -> Result<(), Refused> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > WINDOW_MESSAGES || self.word(counter) & bit(counter) != 0 {
            return Err(Refused::Replayed);
        }
        Ok(())
    }

    /// Takes the counter of an authentic message, once.
    pub(super) fn take(&mut self, counter: u64) -> Result<(), Refused> {
        self.check(counter)?;
        if counter >= self.next {
            self.advance(counter);
        }
        if let Some(word) = self.words.get_mut(place(counter)) {
            *word |= bit(counter);
        }
        Ok(())
    }

    /// Takes nothing any more.
    pub(super) fn close(&mut self) {
        self.next = u64::MAX;
        self.words = [u64::MAX; WORDS];
    }

    pub(super) fn parts(&self) -> (u64, &[u64; WORDS]) {
        (self.next, &self.words)
    }

    pub(super) fn from_parts(next: u64, words: [u64; WORDS]) -> Self {
        Self { next, words }
    }

    fn word(&self, counter: u64) -> u64 {
        self.words.get(place(counter)).copied().unwrap_or(u64::MAX)
    }

    /// Makes `counter` the newest, and clears the words that the ring comes round to.
    fn advance(&mut self, counter: u64) {
        let newest = counter / WORD_BITS;
        let cleared = match self.next.checked_sub(1) {
            Some(last) => (newest - last / WORD_BITS).min(WORDS as u64),
            None => 0,
        };
        for number in 0..cleared {
            if let Some(word) = self.words.get_mut(ring(newest - number)) {
                *word = 0;
            }
        }
        self.next = counter.saturating_add(1);
    }
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

fn place(counter: u64) -> usize {
    ring(counter / WORD_BITS)
}

fn ring(word: u64) -> usize {
    // Below `WORDS`, so nothing is cut off.
    (word % WORDS as u64) as usize
}

#[cfg(test)]
mod tests;
