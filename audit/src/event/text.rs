//! Bounded texts and the bounded detail map.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Most details of one event.
pub const MAX_DETAIL_ENTRIES: usize = 12;
/// Longest key of a detail, in bytes.
pub const MAX_DETAIL_KEY_BYTES: usize = 32;
/// Longest value of a detail, in bytes.
pub const MAX_DETAIL_VALUE_BYTES: usize = 400;

/// Ends a text that was cut to its limit.
const CUT_MARK: &str = "…";
/// The key that says that details were left out.
const LEFT_OUT_KEY: &str = "left_out";

/// A text of 1 to `MAX` bytes without control and direction-override characters, so that no peer's text can steer the
/// terminal of whoever reads the log.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MAX: usize>(String);

/// Up to [`MAX_DETAIL_ENTRIES`] named details, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "DetailMap", into = "DetailMap")]
pub struct Detail(DetailMap);

type DetailMap = BTreeMap<Text<MAX_DETAIL_KEY_BYTES>, Text<MAX_DETAIL_VALUE_BYTES>>;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("text is empty")]
    Empty,
    #[error("text is longer than the limit in bytes: {0}")]
    TooLong(usize),
    #[error("text holds a control or direction character: {0:?}")]
    Character(char),
}

/// Too many details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more details than the limit: {MAX_DETAIL_ENTRIES}")]
pub struct DetailError;

impl<const MAX: usize> Text<MAX> {
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        if text.len() > MAX {
            return Err(TextError::TooLong(MAX));
        }
        match text.chars().find(|c| deceives(*c)) {
            Some(c) => Err(TextError::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Makes a text of anything: cuts at the limit and marks the cut, replaces what [`Text::new`] refuses.
    pub fn lossy(text: &str) -> Self {
        if text.is_empty() {
            return Self("-".to_owned());
        }
        let mut kept = String::with_capacity(text.len().min(MAX));
        // The end of the last prefix that leaves room for the cut mark.
        let mut markable = 0;
        for c in text.chars().map(|c| {
            if deceives(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        }) {
            if kept.len() + c.len_utf8() > MAX {
                kept.truncate(markable);
                kept.push_str(CUT_MARK);
                break;
            }
            kept.push(c);
            if kept.len() + CUT_MARK.len() <= MAX {
                markable = kept.len();
            }
        }
        Self(kept)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Detail {
    /// Adds or replaces a detail, as [`Text::lossy`] does; when full, says so under `left_out`.
    pub fn put(&mut self, key: &str, value: &str) {
        let key = Text::lossy(key);
        if self.0.contains_key(&key) || self.0.len() + 1 < MAX_DETAIL_ENTRIES {
            self.0.insert(key, Text::lossy(value));
        } else {
            self.0
                .insert(Text::lossy(LEFT_OUT_KEY), Text::lossy("true"));
        }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        Self::new(&text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl TryFrom<DetailMap> for Detail {
    type Error = DetailError;

    fn try_from(map: DetailMap) -> Result<Self, DetailError> {
        if map.len() > MAX_DETAIL_ENTRIES {
            return Err(DetailError);
        }
        Ok(Self(map))
    }
}

impl From<Detail> for DetailMap {
    fn from(detail: Detail) -> Self {
        detail.0
    }
}

/// Control characters, and those that change the direction of the text around them (Unicode TR 36).
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
