//! What people and scripts see: answers on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;
use crate::enrol::Progress;

/// How answers look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text, for people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    format: Format,
    colour: bool,
    error_colour: bool,
}

/// SGR codes.
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Screen {
    pub(super) fn new(format: Format, colour: Colour) -> Self {
        let wanted = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self {
            format,
            colour: wanted(std::io::stdout().is_terminal()),
            error_colour: wanted(std::io::stderr().is_terminal()),
        }
    }

    /// An answer: as JSON, or as what `text` makes of it.
    pub(super) fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        match self.format {
            Format::Json => self.line(&serde_json::to_string_pretty(value).unwrap_or_default()),
            Format::Table => self.line(text(value).trim_end()),
        }
    }

    /// `ok` or `bad` in its colour.
    pub(super) fn verdict(&self, good: bool) -> String {
        match good {
            true => paint("ok ", GREEN, self.colour),
            false => paint("bad", RED, self.colour),
        }
    }

    /// Lines on standard output. A reader that went away (`| head`) is no error.
    pub(super) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            std::process::exit(i32::from(edgeward_runtime::exit::OK));
        }
    }

    /// A line for people on standard error; scripts do not see it.
    pub(super) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{}", clean(text));
    }

    pub(super) fn error(&self, failure: &Failure) {
        if matches!(failure, Failure::Quiet) {
            return;
        }
        let head = paint("error:", RED, self.error_colour);
        let mut error = std::io::stderr().lock();
        let _ = writeln!(error, "{head} {}", clean(&failure.to_string()));
        if let Some(hint) = failure.hint() {
            let head = paint("hint:", YELLOW, self.error_colour);
            let _ = writeln!(error, "{head} {}", clean(&hint));
        }
    }
}

impl Progress for Screen {
    fn step(&self, line: &str) {
        self.note(line);
    }
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    match colour {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}

/// Text from elsewhere must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }

    #[test]
    fn without_colour_there_is_none() {
        assert_eq!(paint("ok", GREEN, false), "ok");
    }
}
