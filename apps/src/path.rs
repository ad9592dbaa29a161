//! Paths inside an app: relative, plain, bounded.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest path inside an app, in bytes: with the folder of apps in front it stays below Linux's `PATH_MAX`.
pub const MAX_PATH_BYTES: usize = 1_024;
/// Longest part of a path, in bytes (Linux `NAME_MAX`).
pub const MAX_PART_BYTES: usize = 255;
/// Deepest nesting, in parts.
pub const MAX_PARTS: usize = 32;

/// A path below the app's own folder. It has no `.`, no `..`, no empty part, nothing that a terminal would obey.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppPath(String);

/// Why a text is no path inside an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path is empty")]
    Empty,
    #[error("a path is longer than the limit in bytes: {MAX_PATH_BYTES}")]
    TooLong,
    #[error("a part of a path is longer than the limit in bytes: {MAX_PART_BYTES}")]
    PartTooLong,
    #[error("a path is deeper than the limit in parts: {MAX_PARTS}")]
    TooDeep,
    #[error("a path is absolute")]
    Absolute,
    #[error("a path has a part that is empty, . or ..")]
    Part,
    #[error(
        "a path has a character that no path of an app has: control characters, backslash, not UTF-8"
    )]
    Character,
    #[error("a link leads out of the app")]
    Outside,
}

impl AppPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The folders above it, from the top.
    pub fn above(&self) -> impl Iterator<Item = &str> {
        self.0
            .match_indices('/')
            .filter_map(|(at, _)| self.0.get(..at))
    }

    /// Where a symbolic link at this path leads, if it stays inside the app. Links to links are followed by nobody
    /// here: each is judged by its own text, so that none may climb above the app's folder even for a moment.
    pub fn link(&self, target: &str) -> Result<Self, PathError> {
        if target.starts_with('/') {
            return Err(PathError::Outside);
        }
        check_characters(target)?;
        let mut at: Vec<&str> = self.parts().collect();
        at.pop();
        for part in target.split('/').take(MAX_PARTS + 1) {
            match part {
                "" => return Err(PathError::Part),
                "." => {}
                ".." => {
                    at.pop().ok_or(PathError::Outside)?;
                }
                part => at.push(part),
            }
        }
        at.join("/").parse()
    }
}

impl FromStr for AppPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match text {
            "" => return Err(PathError::Empty),
            text if text.starts_with('/') => return Err(PathError::Absolute),
            text if text.len() > MAX_PATH_BYTES => return Err(PathError::TooLong),
            _ => {}
        }
        check_characters(text)?;
        let mut depth = 0;
        for part in text.split('/') {
            depth += 1;
            match part {
                "" | "." | ".." => return Err(PathError::Part),
                part if part.len() > MAX_PART_BYTES => return Err(PathError::PartTooLong),
                _ if depth > MAX_PARTS => return Err(PathError::TooDeep),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_characters(text: &str) -> Result<(), PathError> {
    if text.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    match text.chars().any(|char| char.is_control() || char == '\\') {
        true => Err(PathError::Character),
        false => Ok(()),
    }
}

impl TryFrom<String> for AppPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<AppPath> for String {
    fn from(path: AppPath) -> Self {
        path.0
    }
}

/// Compares and hashes as its text does, so maps by path can be asked by text.
impl Borrow<str> for AppPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_folder() {
        for (wrong, why) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("../x", PathError::Part),
            ("a/../../x", PathError::Part),
            ("a/./b", PathError::Part),
            ("a//b", PathError::Part),
            ("a/", PathError::Part),
            ("a\\..\\b", PathError::Character),
            ("a\0b", PathError::Character),
            ("a\x1b[2Jb", PathError::Character),
        ] {
            assert_eq!(wrong.parse::<AppPath>(), Err(why), "{wrong:?}");
        }
        assert_eq!(
            "a".repeat(MAX_PART_BYTES + 1).parse::<AppPath>(),
            Err(PathError::PartTooLong)
        );
        assert_eq!(
            vec!["a"; MAX_PARTS + 1].join("/").parse::<AppPath>(),
            Err(PathError::TooDeep)
        );
        assert_eq!(
            vec!["a".repeat(200); 6].join("/").parse::<AppPath>(),
            Err(PathError::TooLong)
        );
        assert!("usr/lib/lib…so.6".parse::<AppPath>().is_ok());
    }

    #[test]
    fn a_link_is_judged_by_its_own_text() {
        let at: AppPath = "usr/lib/libc.so".parse().unwrap();
        assert_eq!(at.link("libc.so.6").unwrap().as_str(), "usr/lib/libc.so.6");
        assert_eq!(at.link("../../bin/sh").unwrap().as_str(), "bin/sh");
        assert_eq!(at.link("../../../bin/sh"), Err(PathError::Outside));
        assert_eq!(
            at.link("../../../x/usr/lib/a"),
            Err(PathError::Outside),
            "not even for a moment"
        );
        assert_eq!(at.link("/lib/libc.so.6"), Err(PathError::Outside));
        assert_eq!(at.link(""), Err(PathError::Part));
        assert_eq!(at.link("../.."), Err(PathError::Empty), "the folder itself");
        let top: AppPath = "a".parse().unwrap();
        assert_eq!(top.link(".."), Err(PathError::Outside));
    }

    #[test]
    fn the_folders_above_are_told_from_the_top() {
        let path: AppPath = "a/b/c".parse().unwrap();
        assert_eq!(path.above().collect::<Vec<_>>(), ["a", "a/b"]);
    }
}
