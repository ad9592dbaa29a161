//! Policy sources: texts with the path they are known by, and places in them.

use ring::digest::{Context, SHA256};

/// Largest policy file, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Largest list of digests, in bytes: about 100,000 lines.
pub const MAX_LIST_FILE_BYTES: usize = 8 * 1024 * 1024;
/// Largest sum of all lists of digests in one policy, in bytes.
pub const MAX_LISTS_BYTES: usize = 16 * 1024 * 1024;
/// How the name of a list of digests ends.
pub const LIST_ENDINGS: [&str; 2] = [".allow", ".deny"];
/// How the name of a policy file ends.
pub const POLICY_ENDING: &str = ".toml";
/// Most files in one policy.
pub const MAX_FILES: usize = 1_000;
/// Longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 512;
/// Most rules in one policy.
pub const MAX_RULES: usize = 100_000;
/// Most tests in one policy: each builds an engine of its own.
pub const MAX_TESTS: usize = 2_000;
/// Most invariants in one policy: each is proved over the whole space.
pub const MAX_INVARIANTS: usize = 1_000;
/// Most entries of one list in a policy file.
pub const MAX_LIST: usize = 1_000;

/// One file of a policy: rules and profiles, or a list of digests that a profile names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the policy's directory, with `/` between parts. Names the file in errors and scopes `[defaults]`.
    pub path: String,
    pub text: String,
}

/// A place in the sources: index of the file, then line and column (in characters), both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) at: Place,
}

/// Where the lines of a text begin.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Whether it is a list of digests, by its name.
    pub fn is_list(&self) -> bool {
        Self::is_list_path(&self.path)
    }

    pub fn is_list_path(path: &str) -> bool {
        LIST_ENDINGS.iter().any(|ending| path.ends_with(ending))
    }

    /// The directory part of the path; empty for a file at the top.
    pub(crate) fn directory(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
    }
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(index, _)| index + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after_breaks).collect(),
        }
    }

    pub(crate) fn place(&self, file: usize, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        Place {
            file,
            line,
            column: before.chars().count() + 1,
        }
    }
}

/// SHA-256 of the sources in the order of their paths, each path and text led by its length: the same for every order
/// in which files are handed in.
pub fn hash_sources(files: &[SourceFile]) -> [u8; 32] {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|one, other| one.path.cmp(&other.path));
    let mut context = Context::new(&SHA256);
    context.update(b"edgeward-policy/1\0");
    for file in sorted {
        for part in [&file.path, &file.text] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let lines = Lines::new("a\näb = 1\n");
        let place = lines.place(0, "a\nä".len());
        assert_eq!((place.line, place.column), (2, 2));
        let end = lines.place(0, "a\näb = 1\n".len());
        assert_eq!((end.line, end.column), (3, 1));
    }

    #[test]
    fn moving_a_byte_between_path_and_text_changes_the_hash_and_order_does_not() {
        let one = SourceFile::new("a", "bc");
        let other = SourceFile::new("ab", "c");
        assert_ne!(
            hash_sources(std::slice::from_ref(&one)),
            hash_sources(std::slice::from_ref(&other))
        );
        assert_eq!(
            hash_sources(&[one.clone(), other.clone()]),
            hash_sources(&[other, one])
        );
    }
}
