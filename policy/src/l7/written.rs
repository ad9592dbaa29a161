//! One request as people write it, in tests and on the command line: `GET /a/b`, `publish a/b`, `subscribe a/#`,
//! `fc:3 addr:10-12 unit:1`.

use super::{BadPattern, L7, L7Request, MAX_PATTERN_BYTES, http, modbus, mqtt};

/// The unit of a Modbus request that names none.
const DEFAULT_UNIT: u8 = 1;

/// A request that owns its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenRequest {
    Http { method: String, path: String },
    Publish { topic: String },
    Subscribe { filter: String },
    Modbus(modbus::Request),
}

impl WrittenRequest {
    /// Reads a request of an interface's protocol.
    ///
    /// # Errors
    /// If no gateway would ever read such a request.
    pub fn parse(l7: &L7, text: &str) -> Result<Self, BadPattern> {
        let bad = |expected| BadPattern {
            found: format!("not a request of {}: {text:?}", l7.proto()),
            expected,
        };
        let sound = text.len() <= MAX_PATTERN_BYTES && !text.chars().any(char::is_control);
        match l7 {
            L7::Http(_) => Some(text)
                .filter(|_| sound)
                .and_then(read_http)
                .ok_or_else(|| bad("write a method and a path: GET /status/3")),
            L7::Mqtt(_) => Some(text)
                .filter(|_| sound)
                .and_then(read_mqtt)
                .ok_or_else(|| {
                    bad("write `publish` and a topic, or `subscribe` and a filter: publish line3/a/temp")
                }),
            L7::Modbus(_) => Some(text)
                .filter(|_| sound)
                .and_then(read_modbus)
                .map(Self::Modbus)
                .ok_or_else(|| {
                    bad("write a function code, and if needed addresses (two ranges for fc:23) and a unit: fc:3 addr:10-12 unit:1")
                }),
        }
    }

    /// As the engine takes it.
    pub fn as_request(&self) -> L7Request<'_> {
        match self {
            Self::Http { method, path } => L7Request::Http(http::Request { method, path }),
            Self::Publish { topic } => L7Request::Mqtt(mqtt::Request::Publish { topic }),
            Self::Subscribe { filter } => L7Request::Mqtt(mqtt::Request::Subscribe { filter }),
            Self::Modbus(request) => L7Request::Modbus(*request),
        }
    }
}

fn read_http(text: &str) -> Option<WrittenRequest> {
    let (method, path) = text.split_once(' ')?;
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let plain = !path.contains(['?', '#', ' ']);
    // As a gateway reads it: with one reading, decoded once.
    let read = http::CanonicalPath::read(path).ok()?;
    (is_method && plain).then(|| WrittenRequest::Http {
        method: method.to_owned(),
        path: read.decoded().to_owned(),
    })
}

fn read_mqtt(text: &str) -> Option<WrittenRequest> {
    let (operation, topic) = text.split_once(' ')?;
    let topic = topic.to_owned();
    match operation {
        "publish" if !topic.is_empty() && !topic.contains(['+', '#']) => {
            Some(WrittenRequest::Publish { topic })
        }
        "subscribe" => {
            mqtt::Pattern::new(mqtt::Operation::Subscribe, &topic).ok()?;
            Some(WrittenRequest::Subscribe { filter: topic })
        }
        _ => None,
    }
}

fn read_modbus(text: &str) -> Option<modbus::Request> {
    let (mut function, mut addresses, mut unit) = (None, None, None);
    for part in text.split(' ') {
        let (key, value) = part.split_once(':')?;
        let again = match key {
            "fc" => {
                let code = plain::<u8>(value).filter(|code| (1..=127).contains(code))?;
                function.replace(code).is_some()
            }
            "addr" => addresses.replace(read_ranges(value)?).is_some(),
            "unit" => unit.replace(plain::<u8>(value)?).is_some(),
            _ => return None,
        };
        if again {
            return None;
        }
    }
    Some(modbus::Request {
        function: function?,
        unit: unit.unwrap_or(DEFAULT_UNIT),
        addresses,
    })
}

/// One closed range, or what is read and what is written.
fn read_ranges(text: &str) -> Option<[(u16, u16); 2]> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (plain(first)?, plain(last)?);
        (first <= last).then_some((first, last))
    };
    let (one, other) = text.split_once(',').unwrap_or((text, text));
    Some([range(one)?, range(other)?])
}

/// A number as it prints.
fn plain<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let number = text.parse::<T>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> L7 {
        L7::Http(Vec::new())
    }

    fn mqtt() -> L7 {
        L7::Mqtt(Vec::new())
    }

    fn modbus() -> L7 {
        L7::Modbus(Vec::new())
    }

    #[test]
    fn what_no_gateway_would_read_is_not_a_request() {
        for (l7, texts) in [
            (
                http(),
                &[
                    "",
                    "GET",
                    "GET a",
                    "get /a",
                    "GET /a//b",
                    "GET /../a",
                    "GET /a?b",
                    "GET /%2e%2e/a",
                    "* /a",
                    "GET /a b",
                ][..],
            ),
            (
                mqtt(),
                &[
                    "",
                    "publish ",
                    "publish a/#",
                    "publish a/+",
                    "subscribe a/#/b",
                    "read a",
                    "subscribe $share/g/a",
                ],
            ),
            (
                modbus(),
                &[
                    "",
                    "fc:0",
                    "fc:128",
                    "fc:03",
                    "fc:3 addr:9-1",
                    "fc:3 addr:1,2,3",
                    "fc:3 fc:4",
                    "addr:1",
                    "fc:3-4",
                    "fc:3 unit:256",
                    "fc:3  addr:1",
                ],
            ),
        ] {
            for text in texts {
                assert!(
                    WrittenRequest::parse(&l7, text).is_err(),
                    "{} {text:?}",
                    l7.proto()
                );
            }
            let long = format!("GET /{}", "a".repeat(MAX_PATTERN_BYTES));
            assert!(WrittenRequest::parse(&l7, &long).is_err());
        }
    }

    #[test]
    fn a_written_request_is_the_one_that_a_gateway_reads() {
        let cases = [
            (
                http(),
                "GET /a/b",
                L7Request::Http(http::Request {
                    method: "GET",
                    path: "/a/b",
                }),
            ),
            (
                http(),
                "GET /%61/",
                L7Request::Http(http::Request {
                    method: "GET",
                    path: "/a/",
                }),
            ),
            (
                mqtt(),
                "publish a/b",
                L7Request::Mqtt(mqtt::Request::Publish { topic: "a/b" }),
            ),
            (
                mqtt(),
                "subscribe a/#",
                L7Request::Mqtt(mqtt::Request::Subscribe { filter: "a/#" }),
            ),
            (
                modbus(),
                "fc:3 addr:10-12 unit:7",
                L7Request::Modbus(modbus::Request {
                    function: 3,
                    unit: 7,
                    addresses: Some([(10, 12), (10, 12)]),
                }),
            ),
            (
                modbus(),
                "fc:23 addr:1-2,5",
                L7Request::Modbus(modbus::Request {
                    function: 23,
                    unit: 1,
                    addresses: Some([(1, 2), (5, 5)]),
                }),
            ),
        ];
        for (l7, text, expected) in cases {
            let written = WrittenRequest::parse(&l7, text).unwrap();
            assert_eq!(written.as_request(), expected, "{text}");
        }
    }
}
