//! Which files may be opened on the volume, and what is answered. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most files of one book.
pub const MAX_FILES: usize = 65_536;
/// Longest name of an application, in bytes.
pub const MAX_APP_NAME_BYTES: usize = 128;

/// What the agent last said may run, from manifests that it verified. `T` of the wire form is this type's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Book {
    version: u64,
    mode: Mode,
    files: BTreeMap<Digest, String>,
}

/// What happens to a file that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is recorded and let through.
    Observe,
    /// It is refused.
    Enforce,
}

/// What somebody wants to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    Open,
    Exec,
}

/// Why a file is not let through. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It changed while it was read.
    Changed,
    /// There is no book yet.
    NoBook,
    NotListed,
    NotRegular,
    /// The kernel decides by itself, and the file system does not hold this file to its content.
    NotSealed,
    /// Too many files wait for being read.
    Overload,
    TooSlow,
    Unreadable,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Let through, and recorded as what would be refused.
    Observe(Reason),
    Deny(Reason),
}

/// A book that is not taken; the last one stays.
#[derive(Debug, thiserror::Error)]
pub enum BadBook {
    #[error("book lists more files than the limit: {MAX_FILES}")]
    TooManyFiles,
    #[error(
        "name of an application is empty or longer than the limit in bytes: {MAX_APP_NAME_BYTES}"
    )]
    AppName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    mode: Mode,
    files: BTreeMap<Digest, String>,
}

impl Book {
    /// `files` are all files of all installed applications, data and libraries too, each with its application's name.
    pub fn new(version: u64, mode: Mode, files: BTreeMap<Digest, String>) -> Result<Self, BadBook> {
        if files.len() > MAX_FILES {
            return Err(BadBook::TooManyFiles);
        }
        let good = |name: &String| (1..=MAX_APP_NAME_BYTES).contains(&name.len());
        if !files.values().all(good) {
            return Err(BadBook::AppName);
        }
        Ok(Self {
            version,
            mode,
            files,
        })
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is answered for a file that was read.
    pub fn verdict(&self, digest: &Digest) -> Verdict {
        if self.lists(digest) {
            Verdict::Allow
        } else {
            self.refuse(Reason::NotListed)
        }
    }

    pub fn lists(&self, digest: &Digest) -> bool {
        self.files.contains_key(digest)
    }

    /// What is answered for a file that could not be judged.
    pub fn refuse(&self, reason: Reason) -> Verdict {
        match self.mode {
            Mode::Observe => Verdict::Observe(reason),
            Mode::Enforce => Verdict::Deny(reason),
        }
    }
}

impl TryFrom<Written> for Book {
    type Error = BadBook;

    fn try_from(written: Written) -> Result<Self, BadBook> {
        Self::new(written.version, written.mode, written.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: usize) -> BTreeMap<Digest, String> {
        (0..count)
            .map(|n| {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
                (Digest::new(bytes), "acme/collector".to_owned())
            })
            .collect()
    }

    #[test]
    fn a_file_that_is_not_listed_is_refused_and_in_observe_mode_recorded() {
        let listed = Digest::new([0; 32]);
        let other = Digest::new([7; 32]);
        let book = Book::new(1, Mode::Enforce, files(1)).unwrap();
        assert_eq!(book.verdict(&other), Verdict::Deny(Reason::NotListed));
        assert_eq!(book.verdict(&listed), Verdict::Allow);
        let book = Book::new(1, Mode::Observe, files(1)).unwrap();
        assert_eq!(book.verdict(&other), Verdict::Observe(Reason::NotListed));
        assert_eq!(book.verdict(&listed), Verdict::Allow);
    }

    #[test]
    fn an_empty_book_lists_nothing() {
        let book = Book::new(1, Mode::Enforce, BTreeMap::new()).unwrap();
        let refused = book.verdict(&Digest::new([0; 32]));
        assert_eq!(refused, Verdict::Deny(Reason::NotListed));
    }

    #[test]
    fn a_book_has_its_limits_in_its_written_form_too() {
        let many = Book::new(1, Mode::Enforce, files(MAX_FILES + 1));
        assert!(matches!(many, Err(BadBook::TooManyFiles)));
        assert!(Book::new(1, Mode::Enforce, files(MAX_FILES)).is_ok());
        let digest = Digest::new([1; 32]);
        for (name, good) in [
            (String::new(), false),
            ("a".repeat(129), false),
            ("a".repeat(128), true),
        ] {
            let text =
                format!(r#"{{"version":1,"mode":"enforce","files":{{"{digest}":"{name}"}}}}"#);
            assert_eq!(serde_json::from_str::<Book>(&text).is_ok(), good, "{name}");
        }
        for bad in [
            r#"{"version":1,"mode":"enforce"}"#,
            r#"{"version":1,"mode":"off","files":{}}"#,
            r#"{"version":1,"mode":"enforce","files":{},"more":1}"#,
        ] {
            assert!(serde_json::from_str::<Book>(bad).is_err(), "{bad}");
        }
    }
}
