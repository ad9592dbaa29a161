//! What agent, supervisor and watch say to each other: one JSON object a line, bounded.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::book::{Asked, Book, Reason};
use crate::digest::Digest;
use crate::group::Question;
use crate::launch::order::Written;
use crate::level::Level;

/// Longest line, in bytes: a full book.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Longest path or name of a program that is told, in bytes.
const MAX_TOLD_BYTES: usize = 512;

/// Longest name of an application's group, and of what it was started from, in bytes.
pub const MAX_RUN_BYTES: usize = 256;
/// Longest line that an application writes, in bytes; what is longer is cut.
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// From the agent to the supervisor, and what concerns answers on to the watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    Book(Book),
    /// Process that installs; only the supervisor says so, of whom it has a connection.
    Keeper(i32),
    /// Makes the group of an application, so that rules may name it before there is a process in it.
    Make {
        name: String,
    },
    Start(Box<Start>),
    /// Stops every process of this application and kills it.
    End {
        name: String,
    },
}

/// An application to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Name of its group below that of all.
    pub name: String,
    /// What it is, for whoever asks later what runs.
    pub what: String,
    pub order: Written,
}

/// An application that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub name: String,
    pub what: String,
    pub pid: i32,
    /// Limits that nothing holds here.
    pub lacks: Vec<String>,
}

/// How an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// From the watch, through the supervisor, to the agent; and from the supervisor itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The watch answers questions still. Not passed on.
    Beat,
    /// This book counts from now on.
    Holds(u64),
    /// That many records found no room.
    Lost(u64),
    /// The watch died and another took over; so many questions were refused with it.
    Restarted {
        refused: usize,
    },
    Saw(Saw),
    /// First of all that an agent hears: how well execution is enforced, why not better, and what runs.
    Here {
        level: Level,
        lacks: Vec<String>,
        runs: Vec<Run>,
        shut: bool,
    },
    Made {
        name: String,
    },
    Started(Run),
    NotStarted {
        name: String,
        why: String,
    },
    Ended {
        name: String,
        how: Ended,
    },
    /// Ended by order: its group has gone, too.
    Gone {
        name: String,
    },
    /// A line that an application wrote.
    Wrote {
        name: String,
        text: String,
    },
    /// So many lines of an application were not passed on.
    Dropped {
        name: String,
        lines: u64,
    },
    /// The watch cannot be kept alive: everything is refused from now on. Whether the applications were ended, too.
    Shut {
        ended: bool,
    },
}

/// Something that is not listed was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saw {
    pub action: Action,
    pub asked: Asked,
    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// As the watch sees it; for people, nothing is decided by it.
    pub path: String,
    pub pid: i32,
    pub program: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Denied,
    WouldDeny,
}

/// A line that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    #[error("line is longer than the limit in bytes: {MAX_LINE_BYTES}")]
    TooLong,
    #[error("line says nothing known: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
    whole: VecDeque<Vec<u8>>,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BadLine> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if self.open.len() + text.len() > MAX_LINE_BYTES {
                return Err(BadLine::TooLong);
            }
            self.open.extend_from_slice(text);
            if ends {
                self.whole.push_back(std::mem::take(&mut self.open));
            }
        }
        Ok(())
    }

    pub fn take_line<T: DeserializeOwned>(&mut self) -> Option<Result<T, BadLine>> {
        let line = self.whole.pop_front()?;
        Some(serde_json::from_slice(&line).map_err(BadLine::Malformed))
    }
}

/// One line, with its end.
pub fn line(said: &impl Serialize) -> Result<Vec<u8>, BadLine> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    Ok(line)
}

impl Saw {
    /// Reads links below `/proc` only, which no one watches.
    pub fn of(question: &Question, action: Action, reason: Reason, digest: Option<Digest>) -> Self {
        let path = question
            .file()
            .map(|file| link(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        Self {
            action,
            asked: question.asked(),
            reason,
            digest,
            path: path.unwrap_or_default(),
            pid: question.pid(),
            program: link(&format!("/proc/{}/exe", question.pid())),
        }
    }
}

fn link(path: &str) -> String {
    let target = std::fs::read_link(path).unwrap_or_default();
    plain(&target.to_string_lossy(), MAX_TOLD_BYTES)
}

/// Text that neither moves a cursor nor is longer than so many bytes.
pub fn plain(text: &str, limit: usize) -> String {
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= limit).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in_however_they_were_cut() {
        let said = [Told::Beat, Told::Holds(7), Told::Restarted { refused: 2 }];
        let bytes: Vec<u8> = said.iter().flat_map(|told| line(told).unwrap()).collect();
        for size in 1..bytes.len() {
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            for chunk in bytes.chunks(size) {
                lines.push(chunk).unwrap();
                while let Some(told) = lines.take_line::<Told>() {
                    heard.push(told.unwrap());
                }
            }
            assert_eq!(heard, said);
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_refused_at_its_limit() {
        let mut lines = Lines::default();
        lines.push(&vec![b' '; MAX_LINE_BYTES]).unwrap();
        assert!(matches!(lines.push(b" "), Err(BadLine::TooLong)));
    }

    #[test]
    fn what_is_unknown_is_an_error_and_not_silence() {
        for bad in [
            "",
            "{}",
            "\"beats\"",
            "{\"keeper\":\"1\"}",
            "{\"book\":{}}",
            "{\"start\":{\"name\":\"a\",\"what\":\"b\"}}",
            "{\"end\":{}}",
            "\u{7f}",
        ] {
            let mut lines = Lines::default();
            lines.push(format!("{bad}\n").as_bytes()).unwrap();
            assert!(lines.take_line::<Order>().unwrap().is_err(), "{bad}");
        }
    }
}
