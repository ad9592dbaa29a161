//! What is wrong in a policy: where, what, and what would have been accepted.

use std::fmt;

use serde::Serialize;

use crate::source::{Place, SourceFile};

/// Most diagnostics of one check; the last one then says that there are more.
pub const MAX_DIAGNOSTICS: usize = 1_000;

/// One error. Its display is `file:line:column: error[code]: message`, then `help: …` on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0 where it is about the whole file or policy.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub code: Code,
    pub message: String,
    pub help: Option<String>,
}

/// What kind of error. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not TOML.
    Syntax,
    /// A limit on files, rules, lists or rows.
    TooMuch,
    MissingKey,
    WrongType,
    UnknownKey,
    /// Part of the format, but this version would not enforce it.
    NotEnforced,
    BadValue,
    DuplicateName,
    UnknownName,
    /// Defines or grants outside the file's scope.
    OutsideScope,
    Nesting,
    MatchesNobody,
    Shadowed,
    /// Nothing can come of it any more.
    Dead,
    /// A file that nothing names.
    Unused,
    ChecksNothing,
    OfflineAboveMax,
    /// A condition on a rule of the other effect.
    MisplacedCondition,
    UnknownAction,
    /// Two interfaces of one node at the same network interface and port.
    InterfaceClash,
    /// Two networks behind nodes that the overlay would know by the same addresses.
    RouteClash,
    TestInvalid,
    TestFailed,
    /// What must never be allowed is allowed at some point of the decision space.
    InvariantViolated,
}

/// Collects diagnostics up to the limit.
pub(crate) struct Diagnostics<'s> {
    files: &'s [SourceFile],
    found: Vec<Diagnostic>,
    dropped: usize,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::TooMuch => "too-much",
            Self::MissingKey => "missing-key",
            Self::WrongType => "wrong-type",
            Self::UnknownKey => "unknown-key",
            Self::NotEnforced => "not-enforced",
            Self::BadValue => "bad-value",
            Self::DuplicateName => "duplicate-name",
            Self::UnknownName => "unknown-name",
            Self::OutsideScope => "outside-scope",
            Self::Nesting => "nesting",
            Self::MatchesNobody => "matches-nobody",
            Self::Shadowed => "shadowed",
            Self::Dead => "dead",
            Self::Unused => "unused",
            Self::ChecksNothing => "checks-nothing",
            Self::OfflineAboveMax => "offline-above-max",
            Self::MisplacedCondition => "misplaced-condition",
            Self::UnknownAction => "unknown-action",
            Self::InterfaceClash => "interface-clash",
            Self::RouteClash => "route-clash",
            Self::TestInvalid => "test-invalid",
            Self::TestFailed => "test-failed",
            Self::InvariantViolated => "invariant-violated",
        }
    }
}

impl<'s> Diagnostics<'s> {
    pub(crate) fn new(files: &'s [SourceFile]) -> Self {
        Self {
            files,
            found: Vec::new(),
            dropped: 0,
        }
    }

    pub(crate) fn error(&mut self, at: Place, code: Code, message: impl Into<String>) {
        self.push(at, code, message.into(), None);
    }

    pub(crate) fn error_with_help(
        &mut self,
        at: Place,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(at, code, message.into(), Some(help.into()));
    }

    /// Whether further errors are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_DIAGNOSTICS
    }

    /// How many errors, shown or not.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.dropped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How a place reads in a message.
    pub(crate) fn show(&self, at: Place) -> String {
        let path = self.files.get(at.file).map_or("", |file| &file.path);
        format!("{path}:{}:{}", at.line, at.column)
    }

    /// In the order of file, line and column.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|one, other| {
            (&one.file, one.line, one.column, one.code).cmp(&(
                &other.file,
                other.line,
                other.column,
                other.code,
            ))
        });
        if self.dropped > 0 {
            self.found.push(Diagnostic {
                file: String::new(),
                line: 0,
                column: 0,
                code: Code::TooMuch,
                message: format!("{} more errors are not shown", self.dropped),
                help: None,
            });
        }
        self.found
    }

    fn push(&mut self, at: Place, code: Code, message: String, help: Option<String>) {
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        self.found.push(Diagnostic {
            file: self
                .files
                .get(at.file)
                .map_or_else(String::new, |file| file.path.clone()),
            line: at.line,
            column: at.column,
            code,
            message,
            help,
        });
    }
}

/// What a reader may have meant: the nearest of the accepted words, and all of them where they are few.
pub(crate) fn suggest<'w>(word: &str, accepted: impl IntoIterator<Item = &'w str>) -> String {
    /// Most words listed; a longer list helps nobody.
    const MAX_LISTED: usize = 24;
    /// Most words compared.
    const MAX_COMPARED: usize = 2_000;
    let mut accepted: Vec<&str> = accepted.into_iter().collect();
    accepted.sort_unstable();
    accepted.dedup();
    let limit = (word.chars().count() / 3).max(1);
    let nearest = accepted
        .iter()
        .filter(|_| accepted.len() <= MAX_COMPARED)
        .map(|other| (edits(word, other), *other))
        .filter(|(edits, _)| *edits <= limit)
        .min();
    let listed = match accepted.len() {
        0 => "there is none".to_owned(),
        1..=MAX_LISTED => format!("accepted: {}", accepted.join(", ")),
        more => format!("{more} names are defined"),
    };
    match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`? {listed}"),
        None => listed,
    }
}

/// Levenshtein distance.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, c) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row, vec![index + 1]);
        for ((d, above), o) in diagonal.iter().zip(diagonal.iter().skip(1)).zip(&other) {
            let left = row.last().copied().unwrap_or(index + 1);
            let replace = d + usize::from(c != *o);
            row.push(replace.min(above + 1).min(left + 1));
        }
        diagonal.clear();
    }
    row.last().copied().unwrap_or(0)
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        let gap = if self.file.is_empty() { "" } else { " " };
        write!(f, "{gap}error[{}]: {}", self.code, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(
            suggest("efect", ["effect", "from"]),
            "did you mean `effect`? accepted: effect, from"
        );
        assert_eq!(suggest("zzz", ["effect", "from"]), "accepted: effect, from");
        assert_eq!(suggest("zzz", []), "there is none");
    }

    #[test]
    fn edits_are_counted() {
        for (one, other, expected) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("a", "a", 0),
        ] {
            assert_eq!(edits(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_diagnostic_reads_file_line_column_code_message_help() {
        let files = [SourceFile::new("a.toml", "")];
        let mut found = Diagnostics::new(&files);
        let at = Place {
            file: 0,
            line: 3,
            column: 7,
        };
        found.error_with_help(at, Code::UnknownKey, "unknown key", "look again");
        let text = found.finish()[0].to_string();
        assert_eq!(
            text,
            "a.toml:3:7: error[unknown-key]: unknown key\n  help: look again"
        );
    }

    #[test]
    fn past_the_limit_errors_are_counted_only() {
        let mut found = Diagnostics::new(&[]);
        for _ in 0..MAX_DIAGNOSTICS + 5 {
            found.error(
                Place {
                    file: 0,
                    line: 1,
                    column: 1,
                },
                Code::Syntax,
                "x",
            );
        }
        let found = found.finish();
        assert_eq!(found.len(), MAX_DIAGNOSTICS + 1);
        assert_eq!(found.last().unwrap().message, "5 more errors are not shown");
    }
}
