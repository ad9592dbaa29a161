//! Which names a bootstrap token may give.

use std::fmt;
use std::str::FromStr;

use edgeward_identity::spiffe_id::MAX_NAME_BYTES;

/// A node name, or a pattern in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// The text is neither a node name nor a pattern of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . - _ and *")]
pub struct BadPattern;

impl NamePattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name it gives, if it has no `*`.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(self.0.as_str())
    }

    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*');
        let relative = text == "." || text == "..";
        if text.is_empty() || text.len() > MAX_NAME_BYTES || relative || !text.bytes().all(good) {
            return Err(BadPattern);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_node_can_be_called_is_no_pattern() {
        for text in ["", ".", "..", "a/b", "a b", "ü", &"a".repeat(64)] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names_only() {
        for (pattern, name, matches) in [
            ("gw-1", "gw-1", true),
            ("gw-1", "gw-12", false),
            ("gw-1", "xgw-1", false),
            ("gw-*", "gw-12", true),
            ("gw-*", "gw-", true),
            ("gw-*", "sw-1", false),
            ("*-suzhou", "gw-suzhou", true),
            ("*-suzhou", "gw-suzhou-2", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ab", false),
            ("a*bc*bc", "abc", false),
            ("*", "anything", true),
        ] {
            let pattern: NamePattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(name), matches, "{pattern} {name}");
        }
    }
}
