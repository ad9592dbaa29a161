//! What an application writes to its output: lines, so many and so long at most.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::control::{MAX_OUTPUT_BYTES, Told, plain};

/// Most bytes that are taken in one turn; an application that writes faster waits.
const MAX_TURN_BYTES: usize = 64 * 1024;
/// Most lines that are passed on at once, and in each second from then on.
const MAX_LINES: u32 = 200;
const LINES_PER_SECOND: u32 = 100;

pub(super) struct Output {
    pipe: PipeReader,
    lines: Lines,
}

/// Lines in the making.
struct Lines {
    open: Vec<u8>,
    /// Of the open line more came than is kept.
    cut: bool,
    dropped: u64,
    left: u32,
    filled: Instant,
}

impl Output {
    /// With the end that the application writes to.
    pub(super) fn open() -> io::Result<(Self, PipeWriter)> {
        let (pipe, write) = std::io::pipe()?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let lines = Lines::new(Instant::now());
        Ok((Self { pipe, lines }, write))
    }

    pub(super) fn read(&mut self, name: &str) -> Vec<Told> {
        let mut chunk = vec![0; MAX_TURN_BYTES];
        let count = self.pipe.read(&mut chunk).unwrap_or(0);
        let bytes = chunk.get(..count).unwrap_or_default();
        self.lines.take(name, bytes, Instant::now())
    }

    /// The last line need not end.
    pub(super) fn finish(&mut self, name: &str) -> Vec<Told> {
        let end: &[u8] = if self.lines.open.is_empty() {
            b""
        } else {
            b"\n"
        };
        let mut told = self.lines.take(name, end, Instant::now());
        told.extend(self.lines.take_dropped(name));
        told
    }
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self {
            open: Vec::new(),
            cut: false,
            dropped: 0,
            left: MAX_LINES,
            filled: now,
        }
    }

    fn take(&mut self, name: &str, bytes: &[u8], now: Instant) -> Vec<Told> {
        let mut told = self.refill(name, now);
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = MAX_OUTPUT_BYTES - self.open.len().min(MAX_OUTPUT_BYTES);
            self.open.extend(text.iter().take(room));
            self.cut |= text.len() > room;
            if ends {
                told.extend(self.end_line(name));
            }
        }
        told
    }

    fn end_line(&mut self, name: &str) -> Option<Told> {
        let line = std::mem::take(&mut self.open);
        let cut = std::mem::take(&mut self.cut);
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        let mut text = plain(&String::from_utf8_lossy(&line), MAX_OUTPUT_BYTES);
        if cut {
            text.push('…');
        }
        let name = name.to_owned();
        Some(Told::Wrote { name, text })
    }

    /// In each second some more lines; what found no room until then is told first.
    fn refill(&mut self, name: &str, now: Instant) -> Vec<Told> {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds == 0 {
            return Vec::new();
        }
        self.filled = now;
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let more = seconds.saturating_mul(LINES_PER_SECOND);
        self.left = self.left.saturating_add(more).min(MAX_LINES);
        self.take_dropped(name).into_iter().collect()
    }

    fn take_dropped(&mut self, name: &str) -> Option<Told> {
        let lines = std::mem::take(&mut self.dropped);
        let name = name.to_owned();
        (lines > 0).then_some(Told::Dropped { name, lines })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn texts(told: &[Told]) -> Vec<&str> {
        let wrote = told.iter().filter_map(|told| match told {
            Told::Wrote { text, .. } => Some(text.as_str()),
            _ => None,
        });
        wrote.collect()
    }

    #[test]
    fn an_application_that_writes_without_end_is_told_in_bounds_and_the_rest_counted() {
        let begun = Instant::now();
        let mut lines = Lines::new(begun);
        let told = lines.take("a", "x\n".repeat(1000).as_bytes(), begun);
        assert_eq!(told.len(), 200);
        let told = lines.take("a", b"y\n", begun + Duration::from_secs(1));
        assert_eq!(
            told.first(),
            Some(&Told::Dropped {
                name: "a".to_owned(),
                lines: 800
            })
        );
        assert_eq!(texts(&told), ["y"]);
    }

    #[test]
    fn a_line_that_does_not_end_is_cut_and_takes_no_more_room() {
        let begun = Instant::now();
        let mut lines = Lines::new(begun);
        for _ in 0..100 {
            assert!(lines.take("a", &[b'x'; 1000], begun).is_empty());
        }
        assert_eq!(lines.open.len(), MAX_OUTPUT_BYTES);
        let told = lines.take("a", b"\nnext\n", begun);
        let texts = texts(&told);
        assert!(texts[0].ends_with("x…") && texts[1] == "next", "{texts:?}");
    }

    #[test]
    fn a_line_moves_no_cursor_and_begins_no_other_record() {
        let begun = Instant::now();
        let mut lines = Lines::new(begun);
        let told = lines.take("a", b"a\x1b[2J\rb\tc\0\xff\n", begun);
        assert_eq!(texts(&told), ["a[2Jb c\u{fffd}"]);
    }
}
