//! A TOML table read key by key: unknown keys and keys of a later version refused, every value typed and placed.

use std::str::FromStr;

use edgeward_identity::Timestamp;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::seconds::Seconds;
use crate::source::{Lines, MAX_LIST, Place, Placed};

/// Longest name or label, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 63;

/// What reading one file needs at hand.
pub(crate) struct Reader<'r, 's> {
    pub(crate) file: usize,
    pub(crate) lines: &'r Lines<'s>,
    pub(crate) found: &'r mut Diagnostics<'s>,
}

/// One table, its keys already checked.
pub(crate) struct Fields<'t> {
    table: &'t DeTable<'t>,
    pub(crate) at: Place,
    what: String,
}

/// The keys of one kind of table.
pub(crate) struct Keys {
    pub(crate) accepted: &'static [&'static str],
    /// In the format, but nothing enforces them yet.
    pub(crate) not_enforced: &'static [&'static str],
}

impl Reader<'_, '_> {
    pub(crate) fn place(&self, offset: usize) -> Place {
        self.lines.place(self.file, offset)
    }

    pub(crate) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, what: &str, wanted: &str) {
        let at = self.place(value.span().start);
        let got = value.get_ref().type_str();
        self.found.error_with_help(
            at,
            Code::WrongType,
            format!("{what} is of type {got}"),
            format!("write {wanted}"),
        );
    }

    pub(crate) fn bad(&mut self, at: Place, message: impl Into<String>, help: impl Into<String>) {
        self.found
            .error_with_help(at, Code::BadValue, message, help);
    }

    /// For what is right and yet promises what nothing keeps.
    pub(crate) fn not_enforced(&mut self, at: Place, what: &str) {
        self.found.error_with_help(
            at,
            Code::NotEnforced,
            format!("{what} is not enforced by this version"),
            "take it out, or the policy would promise what nothing keeps",
        );
    }

    /// Opens a table and refuses the keys it must not have.
    pub(crate) fn table<'t>(
        &mut self,
        value: &'t Spanned<DeValue<'t>>,
        what: &str,
        keys: &Keys,
    ) -> Option<Fields<'t>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, what, "a table");
            return None;
        };
        let at = self.place(value.span().start);
        Some(self.fields(table, at, what, keys))
    }

    pub(crate) fn fields<'t>(
        &mut self,
        table: &'t DeTable<'t>,
        at: Place,
        what: &str,
        keys: &Keys,
    ) -> Fields<'t> {
        for key in table.keys() {
            let word = key.get_ref().as_ref();
            if keys.accepted.contains(&word) {
                continue;
            }
            let at = self.place(key.span().start);
            if keys.not_enforced.contains(&word) {
                self.found.error_with_help(
                    at,
                    Code::NotEnforced,
                    format!("`{word}` in {what} is not enforced by this version"),
                    "take it out, or the policy would promise what nothing keeps",
                );
            } else {
                self.found.error_with_help(
                    at,
                    Code::UnknownKey,
                    format!("unknown key `{word}` in {what}"),
                    suggest(word, keys.accepted.iter().copied()),
                );
            }
        }
        Fields {
            table,
            at,
            what: what.to_owned(),
        }
    }

    /// A table of tables by name: `[group.x]`. Bad names are refused, the rest is handed on.
    pub(crate) fn named<'t>(
        &mut self,
        value: &'t Spanned<DeValue<'t>>,
        kind: &str,
    ) -> Vec<(Placed<String>, &'t Spanned<DeValue<'t>>)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, &format!("`{kind}`"), &format!("[{kind}.name]"));
            return Vec::new();
        };
        let mut named = Vec::new();
        for (key, value) in table {
            let at = self.place(key.span().start);
            let name = Placed {
                value: key.get_ref().to_string(),
                at,
            };
            if self.is_name(&name, &format!("name of the {kind}")) {
                named.push((name, value));
            }
        }
        named
    }

    pub(crate) fn is_name(&mut self, name: &Placed<String>, what: &str) -> bool {
        self.is_word(name, what, "-_.")
    }

    /// A key or value of a label.
    pub(crate) fn is_label(&mut self, word: &Placed<String>, what: &str) -> bool {
        self.is_word(word, what, "-_./")
    }

    fn is_word(&mut self, word: &Placed<String>, what: &str, marks: &str) -> bool {
        let fits = !word.value.is_empty()
            && word.value.len() <= MAX_NAME_BYTES
            && word
                .value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || marks.contains(c));
        if !fits {
            let marks: Vec<String> = marks.chars().map(String::from).collect();
            self.bad(
                word.at,
                format!("{what} does not fit: {:?}", word.value),
                format!("1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 {}", marks.join(" ")),
            );
        }
        fits
    }

    pub(crate) fn string(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        what: &str,
    ) -> Option<Placed<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Placed {
                value: text.to_string(),
                at: self.place(value.span().start),
            }),
            _ => {
                self.wrong_type(value, what, "a string in quotes");
                None
            }
        }
    }

    /// A list of strings with at least one entry.
    pub(crate) fn strings(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        what: &str,
    ) -> Option<Vec<Placed<String>>> {
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(value, what, "a list of strings: [\"…\"]");
            return None;
        };
        let at = self.place(value.span().start);
        if array.is_empty() {
            self.bad(
                at,
                format!("{what} is empty"),
                "name at least one, or leave the key out",
            );
            return None;
        }
        if array.len() > MAX_LIST {
            self.found.error(
                at,
                Code::TooMuch,
                format!("{what} has more entries than the limit: {MAX_LIST}"),
            );
            return None;
        }
        let strings: Vec<_> = array
            .iter()
            .filter_map(|item| self.string(item, what))
            .collect();
        (strings.len() == array.len()).then_some(strings)
    }

    pub(crate) fn boolean(&mut self, value: &Spanned<DeValue<'_>>, what: &str) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(answer) => Some(*answer),
            _ => {
                self.wrong_type(value, what, "true or false");
                None
            }
        }
    }

    /// One of a fixed set of words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        text: &Placed<String>,
        what: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            self.bad(
                text.at,
                format!("{what} is unknown: {:?}", text.value),
                suggest(&text.value, words.iter().map(|(word, _)| *word)),
            );
        }
        found.map(|(_, value)| *value)
    }
}

impl<'t> Fields<'t> {
    pub(crate) fn what(&self, key: &str) -> String {
        format!("`{key}` in {}", self.what)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// The value of a key that must be there.
    pub(crate) fn required(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        let value = self.get(key);
        if value.is_none() {
            reader.found.error(
                self.at,
                Code::MissingKey,
                format!("{} lacks `{key}`", self.what),
            );
        }
        value
    }

    pub(crate) fn required_string(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
    ) -> Option<Placed<String>> {
        let value = self.required(reader, key)?;
        reader.string(value, &self.what(key))
    }

    pub(crate) fn optional_string(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
    ) -> Result<Option<Placed<String>>, Unreadable> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => Ok(Some(
                reader.string(value, &self.what(key)).ok_or(Unreadable)?,
            )),
        }
    }

    pub(crate) fn seconds(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
    ) -> Result<Option<Placed<Seconds>>, Unreadable> {
        let Some(text) = self.optional_string(reader, key)? else {
            return Ok(None);
        };
        match Seconds::from_str(&text.value) {
            Ok(value) => Ok(Some(Placed { value, at: text.at })),
            Err(error) => {
                reader.bad(
                    text.at,
                    format!(
                        "{} is not a length of time: {error}: {:?}",
                        self.what(key),
                        text.value
                    ),
                    "write it as \"30s\", \"10m\", \"72h\" or \"7d\"",
                );
                Err(Unreadable)
            }
        }
    }

    /// One word or a list of words, each once.
    pub(crate) fn words<T: Copy + PartialEq>(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Result<Option<Placed<Vec<T>>>, Unreadable> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let what = self.what(key);
        let at = reader.place(value.span().start);
        let texts = match value.get_ref() {
            DeValue::String(_) => reader.string(value, &what).map(|text| vec![text]),
            _ => reader.strings(value, &what),
        };
        let texts = texts.ok_or(Unreadable)?;
        let mut values = Vec::new();
        for text in &texts {
            let word = reader.word(text, &what, words).ok_or(Unreadable)?;
            if values.contains(&word) {
                reader.bad(
                    text.at,
                    format!("{what} names twice: {:?}", text.value),
                    "name it once",
                );
                return Err(Unreadable);
            }
            values.push(word);
        }
        Ok(Some(Placed { value: values, at }))
    }

    /// A point in time with its offset from UTC.
    pub(crate) fn timestamp(
        &self,
        reader: &mut Reader<'_, '_>,
        key: &str,
    ) -> Result<Option<Timestamp>, Unreadable> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wanted = "a time with its offset, without quotes: 2027-01-31T00:00:00Z";
        let DeValue::Datetime(time) = value.get_ref() else {
            reader.wrong_type(value, &self.what(key), wanted);
            return Err(Unreadable);
        };
        let parsed = time
            .offset
            .and_then(|_| jiff::Timestamp::from_str(&time.to_string()).ok())
            .and_then(|time| u64::try_from(time.as_millisecond()).ok());
        match parsed {
            Some(millis) => Ok(Some(Timestamp::from_millis(millis))),
            None => {
                let at = reader.place(value.span().start);
                reader.bad(
                    at,
                    format!("{} is not a point in time: {time}", self.what(key)),
                    format!("write {wanted}"),
                );
                Err(Unreadable)
            }
        }
    }
}

/// A value stands there and cannot be read; its error is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreadable;
