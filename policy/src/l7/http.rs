//! HTTP: `METHOD /path`, where `*` stands for one segment and a last `**` for any number of them (none included).

use std::fmt;
use std::str::FromStr;

use super::{BadPattern, MAX_PATTERN_BYTES};

mod path;

pub use path::{BadPath, CanonicalPath, MAX_PATH_BYTES};

const EXPECTED: &str = "write a method or *, and a path: `GET /status/**`, `* /api/*/state`, `POST /pkg.Service/Method`";

/// Which requests: a method and a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// `None`: every method.
    method: Option<String>,
    segments: Vec<Segment>,
    /// Ends with `**`.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Any,
    Exactly(String),
}

/// One request. The path is the one that the service will act on: absolute, percent-decoded once, without query,
/// without `.` or `..` segments, and with no empty one but the last ([`CanonicalPath`]). Who cannot say it so denies
/// the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
}

impl Pattern {
    pub fn fits(&self, request: &Request<'_>) -> bool {
        if self
            .method
            .as_deref()
            .is_some_and(|method| method != request.method)
        {
            return false;
        }
        let Some(path) = request.path.strip_prefix('/') else {
            return false;
        };
        let mut given = path.split('/').filter(|_| !path.is_empty());
        for segment in &self.segments {
            match (segment, given.next()) {
                (_, None) => return false,
                (Segment::Any, Some("")) => return false,
                (Segment::Exactly(wanted), Some(given)) if wanted != given => return false,
                _ => {}
            }
        }
        self.open || given.next().is_none()
    }
}

impl super::Compare for Pattern {
    fn covers(&self, other: &Self) -> bool {
        let method = self.method.is_none() || self.method == other.method;
        let mut given = other.segments.iter();
        let begin = self.segments.iter().all(|segment| match given.next() {
            None => false,
            Some(given) => *segment == Segment::Any || segment == given,
        });
        method && begin && (self.open || (!other.open && given.next().is_none()))
    }

    fn meets(&self, other: &Self) -> bool {
        let methods = match (&self.method, &other.method) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let mut pairs = self.segments.iter().zip(&other.segments);
        let begin = pairs
            .all(|(one, other)| *one == Segment::Any || *other == Segment::Any || one == other);
        let (own, others) = (self.segments.len(), other.segments.len());
        methods && begin && (own >= others || self.open) && (others >= own || other.open)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = |why: &str| BadPattern {
            found: format!("{why}: {text:?}"),
            expected: EXPECTED,
        };
        if text.len() > MAX_PATTERN_BYTES {
            return Err(bad("pattern is too long"));
        }
        let (method, path) = text.split_once(' ').ok_or_else(|| bad("no path"))?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if method != "*" && !is_method {
            return Err(bad("not a method"));
        }
        let path = path
            .strip_prefix('/')
            .ok_or_else(|| bad("path does not begin with /"))?;
        let mut parts: Vec<&str> = match path {
            "" => Vec::new(),
            path => path.split('/').collect(),
        };
        let open = parts.last() == Some(&"**");
        if open {
            parts.pop();
        }
        let segments = parts
            .iter()
            .map(|part| match *part {
                "*" => Ok(Segment::Any),
                "" | "." | ".." => Err(bad("path has an empty or dotted segment")),
                part if part.contains(['*', '?', '#', '%', '\\', ' ']) => {
                    Err(bad("path has a character that it may not have"))
                }
                part if part.chars().any(char::is_control) => {
                    Err(bad("path has a control character"))
                }
                part => Ok(Segment::Exactly(part.to_owned())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            method: (method != "*").then(|| method.to_owned()),
            segments,
            open,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method.as_deref().unwrap_or("*"))?;
        for segment in &self.segments {
            match segment {
                Segment::Any => f.write_str("/*")?,
                Segment::Exactly(text) => write!(f, "/{text}")?,
            }
        }
        match (self.open, self.segments.is_empty()) {
            (true, _) => f.write_str("/**"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

super::as_text!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_its_method_and_segments_and_nothing_else() {
        let cases = [
            ("GET /status/**", "GET", "/status", true),
            ("GET /status/**", "GET", "/status/a/b", true),
            ("GET /status/**", "POST", "/status/a", false),
            ("GET /status/**", "GET", "/statusx", false),
            ("GET /a/*/c", "GET", "/a/b/c", true),
            ("GET /a/*/c", "GET", "/a//c", false),
            ("GET /a/*/c", "GET", "/a/b/c/d", false),
            ("* /", "PUT", "/", true),
            ("* /", "PUT", "/a", false),
            ("GET /a", "GET", "/a/", false),
            ("GET /**", "GET", "*", false),
        ];
        for (pattern, method, path, fits) in cases {
            let pattern: Pattern = pattern.parse().unwrap();
            let request = Request { method, path };
            assert_eq!(pattern.fits(&request), fits, "{pattern} {method} {path}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_not_a_pattern() {
        for text in [
            "/a",
            "get /a",
            "GET a",
            "GET /a//b",
            "GET /../a",
            "GET /**/a",
            "GET /a*",
            "GET /%61",
            "GET  /a",
            "GET /a?b",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_reads_as_it_was_written() {
        for text in [
            "GET /status/**",
            "* /",
            "POST /pkg.Service/Method",
            "GET /a/*/c",
            "* /**",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }
}
