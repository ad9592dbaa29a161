//! What people and scripts see: answers on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;

/// How answers look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// JSON as the API gives it; one object a line for audit events
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

/// Rows of text under headings.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

/// SGR codes: the meaning of a word, beside the word itself.
#[derive(Clone, Copy)]
enum Paint {
    Good,
    Bad,
    Warn,
    Dim,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(clean).collect());
    }
}

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

    /// An answer: as JSON, or as what `table` makes of it.
    pub(super) fn answer<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> Table) {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.table(&table(value)),
        }
    }

    pub(super) fn json<T: Serialize>(&self, value: &T) {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.line(&text);
    }

    /// One JSON object on one line.
    pub(super) fn json_line<T: Serialize>(&self, value: &T) {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.line(&text);
    }

    pub(super) fn table(&self, table: &Table) {
        self.line(render(table, self.colour).trim_end_matches('\n'));
    }

    /// A line on standard output. A reader that went away (`| head`) is no error.
    pub(super) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            std::process::exit(i32::from(edgeward_runtime::exit::OK));
        }
    }

    /// A line for people on standard error; scripts do not see it.
    pub(super) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{}", clean(text.to_owned()));
    }

    pub(super) fn error(&self, failure: &Failure) {
        let mut error = std::io::stderr().lock();
        let head = paint("error:", Paint::Bad, self.error_colour);
        let _ = writeln!(error, "{head} {}", clean(failure.to_string()));
        for line in failure.more() {
            for part in line.lines() {
                let _ = writeln!(error, "  {}", clean(part.to_owned()));
            }
        }
    }

    /// Whether somebody watches standard error.
    pub(super) fn is_watched(&self) -> bool {
        std::io::stderr().is_terminal()
    }
}

/// Aligned columns, two spaces apart; the last one is as long as it is.
fn render(table: &Table, colour: bool) -> String {
    let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in table.rows.iter().enumerate() {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let shown = match meaning(cell) {
                _ if index == 0 => paint(cell, Paint::Dim, colour),
                Some(meaning) => paint(cell, meaning, colour),
                None => cell.clone(),
            };
            text.push_str(&shown);
            if column < last {
                let pad = widths.get(column).copied().unwrap_or(0) + 2;
                text.extend(std::iter::repeat_n(
                    ' ',
                    pad.saturating_sub(cell.chars().count()),
                ));
            }
        }
        let end = text.trim_end_matches(' ').len();
        text.truncate(end);
        text.push('\n');
    }
    text
}

/// Words of the domain that mean well or ill.
fn meaning(cell: &str) -> Option<Paint> {
    match cell {
        "trusted" | "active" | "allow" | "usable" | "vouched" | "complete" => Some(Paint::Good),
        "failed" | "quarantined" | "deny" | "revoked" | "forked" | "rolled_back" => {
            Some(Paint::Bad)
        }
        "stale" | "pending" | "expired" | "missing" | "restarted" | "removed" => Some(Paint::Warn),
        "-" | "none" | "used" => Some(Paint::Dim),
        _ => None,
    }
}

fn paint(text: &str, paint: Paint, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Warn => "33",
        Paint::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Text from elsewhere must not steer the terminal.
fn clean(text: String) -> String {
    match text.chars().any(char::is_control) {
        true => text
            .chars()
            .map(|c| {
                if c.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect(),
        false => text,
    }
}

/// An absent value.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `key=value` pairs on one line.
pub(super) fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    match map.is_empty() {
        true => "-".to_owned(),
        false => map
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn columns_line_up_by_characters_and_lines_have_no_tail() {
        let text = render(&sample(), false);
        assert_eq!(
            text,
            "NAME  STATE    LABELS\ngw-3  trusted  role=gateway\né     stale\n"
        );
    }

    #[test]
    fn colour_changes_no_column() {
        let plain = render(&sample(), false);
        let coloured = render(&sample(), true);
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

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let mut table = Table::new(&["X"]);
        table.row(["a\u{1b}[2Jb\nc".to_owned()]);
        let text = render(&table, false);
        assert_eq!(text, "X\na\u{fffd}[2Jb\u{fffd}c\n");
    }
}
