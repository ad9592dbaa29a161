//! MQTT: topic filters (MQTT 5, section 4.7). An action is `publish` or `subscribe`; what is published must match a
//! filter, what is subscribed to must lie within one.

use std::fmt;
use std::str::FromStr;

use super::{BadPattern, MAX_PATTERN_BYTES};

const EXPECTED: &str = "write `publish` or `subscribe` and a topic filter: `publish line3/+/temp`, `subscribe cmd/line3/#`";

/// Which topics, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    operation: Operation,
    levels: Vec<Level>,
    /// Ends with `#`.
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Publish,
    Subscribe,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Level {
    Any,
    Exactly(String),
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To a topic name: no wildcards.
    Publish { topic: &'a str },
    /// A topic filter, without a `$share/<group>/` in front.
    Subscribe { filter: &'a str },
}

impl Pattern {
    /// # Errors
    /// If the text is not a topic filter.
    pub fn new(operation: Operation, filter: &str) -> Result<Self, BadPattern> {
        let bad = |why: &str| BadPattern {
            found: format!("{why}: {filter:?}"),
            expected: EXPECTED,
        };
        if filter.is_empty() || filter.len() > MAX_PATTERN_BYTES {
            return Err(bad("topic filter is empty or too long"));
        }
        if filter.starts_with("$share/") {
            return Err(bad("a shared subscription is no topic filter"));
        }
        if filter.chars().any(char::is_control) {
            return Err(bad("topic filter has a control character"));
        }
        let mut parts: Vec<&str> = filter.split('/').collect();
        let open = parts.last() == Some(&"#");
        if open {
            parts.pop();
        }
        let levels = parts
            .iter()
            .map(|part| match *part {
                "+" => Ok(Level::Any),
                part if part.contains(['+', '#']) => Err(bad(
                    "a wildcard must stand alone in its level, # in the last",
                )),
                part => Ok(Level::Exactly(part.to_owned())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            operation,
            levels,
            open,
        })
    }

    pub fn operation(&self) -> Operation {
        self.operation
    }

    pub fn fits(&self, request: &Request<'_>) -> bool {
        match (self.operation, request) {
            (Operation::Publish, Request::Publish { topic }) => {
                !topic.contains(['+', '#']) && self.covers(topic)
            }
            (Operation::Subscribe, Request::Subscribe { filter }) => self.covers(filter),
            _ => false,
        }
    }

    /// Whether every topic that the other filter (or topic name) means is meant by this one.
    fn covers(&self, other: &str) -> bool {
        if other.is_empty() {
            return false;
        }
        // Wildcards in front never mean topics of the server (MQTT 5, section 4.7.2).
        let leads_with_wildcard =
            matches!(self.levels.first(), Some(Level::Any)) || self.levels.is_empty();
        if leads_with_wildcard && other.starts_with('$') {
            return false;
        }
        let mut given = other.split('/');
        for level in &self.levels {
            match (level, given.next()) {
                (_, None) => return false,
                (_, Some("#")) => return false,
                (Level::Exactly(wanted), Some(given)) if wanted != given => return false,
                _ => {}
            }
        }
        self.open || given.next().is_none()
    }
}

impl super::Compare for Pattern {
    fn covers(&self, other: &Self) -> bool {
        let text = other.to_string();
        let filter = text.split_once(' ').map_or("", |(_, filter)| filter);
        self.operation == other.operation && Self::covers(self, filter)
    }

    /// Never told of two actions: they are publish and subscribe, which have no request in common.
    fn meets(&self, other: &Self) -> bool {
        self.operation == other.operation
    }
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (operation, filter) = text.split_once(' ').unwrap_or((text, ""));
        let operation = match operation {
            "publish" => Operation::Publish,
            "subscribe" => Operation::Subscribe,
            _ => {
                return Err(BadPattern {
                    found: format!("neither publish nor subscribe: {text:?}"),
                    expected: EXPECTED,
                });
            }
        };
        Self::new(operation, filter)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.operation.as_str())?;
        let mut before = "";
        for level in &self.levels {
            match level {
                Level::Any => write!(f, "{before}+")?,
                Level::Exactly(text) => write!(f, "{before}{text}")?,
            }
            before = "/";
        }
        if self.open {
            write!(f, "{before}#")?;
        }
        Ok(())
    }
}

super::as_text!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_lies_within_it_and_nothing_else() {
        let cases = [
            ("line3/+/temp", "line3/a/temp", true),
            ("line3/+/temp", "line3/+/temp", true),
            ("line3/+/temp", "line3/#", false),
            ("line3/+/temp", "line3/a/b/temp", false),
            ("cmd/line3/#", "cmd/line3", true),
            ("cmd/line3/#", "cmd/line3/a/#", true),
            ("cmd/line3/#", "cmd/+/a", false),
            ("cmd/line3/#", "cmd/#", false),
            ("#", "$SYS/broker", false),
            ("+/broker", "$SYS/broker", false),
            ("$SYS/#", "$SYS/broker", true),
            ("#", "a", true),
            ("a/b", "a", false),
            ("a", "", false),
        ];
        for (filter, given, covers) in cases {
            let pattern = Pattern::new(Operation::Subscribe, filter).unwrap();
            let request = Request::Subscribe { filter: given };
            assert_eq!(pattern.fits(&request), covers, "{filter} {given}");
        }
    }

    #[test]
    fn a_topic_with_wildcards_is_not_published_to() {
        let pattern = Pattern::new(Operation::Publish, "a/#").unwrap();
        assert!(pattern.fits(&Request::Publish { topic: "a/b" }));
        assert!(!pattern.fits(&Request::Publish { topic: "a/+" }));
        assert!(!pattern.fits(&Request::Subscribe { filter: "a/b" }));
    }

    #[test]
    fn wildcards_out_of_place_are_not_a_pattern() {
        for text in [
            "publish a/#/b",
            "publish a+",
            "subscribe $share/g/a",
            "subscribe ",
            "read a",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        for text in ["publish line3/+/temp", "subscribe #", "subscribe a//b/#"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }
}
