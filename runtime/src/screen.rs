//! What people and scripts see: answers on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit;

/// Between two columns of a table, in characters.
const COLUMN_GAP: usize = 2;

/// How answers look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text, for people
    #[default]
    Table,
    /// JSON, for scripts
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

/// What a colour says, beside the word that says it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Good,
    Bad,
    Warn,
    Dim,
}

/// Which words mean well or ill.
pub type Meaning = fn(&str) -> Option<Paint>;

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    format: Format,
    colour: bool,
    error_colour: bool,
    meaning: Meaning,
}

/// Rows of text under headings.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Screen {
    /// Automatic colour means on a terminal, unless `NO_COLOR` is set to something.
    pub fn new(format: Format, colour: Colour) -> Self {
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
            meaning: |_| None,
        }
    }

    /// The same, with words that tables colour.
    #[must_use]
    pub fn with_meaning(self, meaning: Meaning) -> Self {
        Self { meaning, ..self }
    }

    /// An answer: as JSON, or as what `text` makes of it.
    pub fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.line(text(value).trim_end()),
        }
    }

    /// An answer: as JSON, or as what `table` makes of it.
    pub fn tabulate<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> Table) {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.table(&table(value)),
        }
    }

    /// JSON on as many lines as people like.
    pub fn json<T: Serialize>(&self, value: &T) {
        self.line(&serde_json::to_string_pretty(value).unwrap_or_default());
    }

    /// JSON on one line.
    pub fn json_line<T: Serialize>(&self, value: &T) {
        self.line(&serde_json::to_string(value).unwrap_or_default());
    }

    pub fn table(&self, table: &Table) {
        let text = table.render(self.colour, self.meaning);
        self.line(text.trim_end_matches('\n'));
    }

    /// Lines on standard output, as they are. A reader that went away (`| head`) is no error.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            std::process::exit(i32::from(exit::OK));
        }
    }

    /// A line on standard output with text from elsewhere in it.
    pub fn told(&self, text: &str) {
        self.line(&clean(text));
    }

    /// A line for people on standard error; scripts do not see it.
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{}", clean(text));
    }

    /// What went wrong, on standard error.
    pub fn error(&self, text: &str) {
        self.headed("error:", Paint::Bad, text);
    }

    /// What to do about it, on standard error.
    pub fn hint(&self, text: &str) {
        self.headed("hint:", Paint::Warn, text);
    }

    /// A text for standard output, in its colour if there is to be colour.
    pub fn painted(&self, text: &str, as_what: Paint) -> String {
        paint(text, as_what, self.colour)
    }

    /// Whether somebody watches standard error, where a line can be written over. A serial line that a log is made of is a
    /// terminal, too, but of no kind that is named.
    pub fn is_watched(&self) -> bool {
        let kind = std::env::var_os("TERM").unwrap_or_default();
        std::io::stderr().is_terminal() && !kind.is_empty() && kind != "dumb"
    }

    fn headed(&self, head: &str, as_what: Paint, text: &str) {
        let head = paint(head, as_what, self.error_colour);
        let _ = writeln!(std::io::stderr().lock(), "{head} {}", clean(text));
    }
}

impl Table {
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| (*heading).to_owned());
        Self {
            rows: vec![headings.collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// As lines without colour.
    pub fn lines(&self) -> Vec<String> {
        let text = self.render(false, |_| None);
        text.lines().map(str::to_owned).collect()
    }

    /// Aligned columns; the last one is as long as it is.
    fn render(&self, colour: bool, meaning: Meaning) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let last = row.len().saturating_sub(1);
            for (column, cell) in row.iter().enumerate() {
                let shown = match meaning(cell) {
                    _ if index == 0 => paint(cell, Paint::Dim, colour),
                    Some(meaning) => paint(cell, meaning, colour),
                    None => cell.clone(),
                };
                text.push_str(&shown);
                if column < last {
                    let pad = widths.get(column).copied().unwrap_or(0) + COLUMN_GAP;
                    let pad = pad.saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', pad));
                }
            }
            let end = text.trim_end_matches(' ').len();
            text.truncate(end);
            text.push('\n');
        }
        text
    }

    /// Of each column, in characters.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

fn paint(text: &str, as_what: Paint, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    // SGR codes.
    let code = match as_what {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Warn => "33",
        Paint::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
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

    fn meaning(word: &str) -> Option<Paint> {
        match word {
            "trusted" => Some(Paint::Good),
            "failed" => Some(Paint::Bad),
            "stale" => Some(Paint::Warn),
            _ => None,
        }
    }

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "LABELS"]);
        table.row([
            "gw-3".to_owned(),
            "trusted".to_owned(),
            "role=gateway".to_owned(),
        ]);
        table.row(["é".to_owned(), "stale".to_owned(), String::new()]);
        table
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        let mut table = Table::new(&["X"]);
        table.row(["a\u{1b}[2Jb\nc".to_owned()]);
        let text = table.render(false, meaning);
        assert_eq!(text, "X\na\u{fffd}[2Jb\u{fffd}c\n");
    }

    #[test]
    fn without_colour_there_is_none() {
        assert_eq!(paint("ok", Paint::Good, false), "ok");
    }

    #[test]
    fn columns_line_up_by_characters_and_lines_have_no_tail() {
        let text = sample().render(false, meaning);
        assert_eq!(
            text,
            "NAME  STATE    LABELS\ngw-3  trusted  role=gateway\né     stale\n"
        );
    }

    #[test]
    fn colour_changes_no_column() {
        let plain = sample().render(false, meaning);
        let coloured = sample().render(true, meaning);
        let mut stripped = coloured.clone();
        for code in [
            "\u{1b}[32m",
            "\u{1b}[31m",
            "\u{1b}[33m",
            "\u{1b}[2m",
            "\u{1b}[0m",
        ] {
            stripped = stripped.replace(code, "");
        }
        assert_ne!(coloured, plain);
        assert_eq!(stripped, plain);
    }
}
