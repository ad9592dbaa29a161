//! Names and versions of apps: `publisher/name`, and numbers with dots between.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a publisher, and of an app within its publisher, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Most numbers in a version.
pub const MAX_VERSION_PARTS: usize = 4;
/// Names that roles of the repository have (TUF 1.0.33, 4.3): no publisher's delegation may be called so.
const RESERVED: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// Who signs releases: a name in lower case, that is also the name of its delegated role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublisherName(String);

/// `publisher/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName {
    publisher: PublisherName,
    name: String,
}

/// `2.3.1`. `2.3` and `2.3.0` are the same release to whoever compares, but each has one text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(Vec<u32>);

/// Why a text is not a name or a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is 1 to {MAX_NAME_BYTES} of a-z 0-9 . _ - and begins with a letter or digit")]
    Name,
    #[error("the name is that of a role of the repository")]
    Reserved,
    #[error("an app is named publisher/name")]
    App,
    #[error(
        "a version is 1 to {MAX_VERSION_PARTS} numbers with dots between, none with a zero in front"
    )]
    Version,
}

impl PublisherName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AppName {
    pub fn new(publisher: &PublisherName, name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self {
            publisher: publisher.clone(),
            name: name.to_owned(),
        })
    }

    pub fn publisher(&self) -> &PublisherName {
        &self.publisher
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the repository has a release's manifest.
    pub fn target(&self, version: &Version) -> String {
        format!("{self}/{version}")
    }
}

impl Version {
    /// The numbers, without the zeros that say nothing.
    fn significant(&self) -> &[u32] {
        let end = self
            .0
            .iter()
            .rposition(|part| *part != 0)
            .map_or(0, |last| last + 1);
        self.0.get(..end).unwrap_or_default()
    }
}

/// `2.3` equals `2.3.0`: otherwise each would be an upgrade or a rollback of the other.
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.significant().cmp(other.significant())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl FromStr for PublisherName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_name(text)?;
        match RESERVED.contains(&text) {
            true => Err(NameError::Reserved),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl FromStr for AppName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (publisher, name) = text.split_once('/').ok_or(NameError::App)?;
        Self::new(&publisher.parse()?, name)
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text.split('.').take(MAX_VERSION_PARTS + 1).map(number);
        let parts = parts
            .collect::<Option<Vec<u32>>>()
            .ok_or(NameError::Version)?;
        match parts.len() <= MAX_VERSION_PARTS {
            true => Ok(Self(parts)),
            false => Err(NameError::Version),
        }
    }
}

/// A number in the one way it is written.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// What is safe in a path, a URL and a pattern of a delegation alike.
fn check_name(text: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        })
        && text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if fits { Ok(()) } else { Err(NameError::Name) }
}

impl fmt::Display for PublisherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {
        $(
            impl TryFrom<String> for $name {
                type Error = NameError;

                fn try_from(text: String) -> Result<Self, NameError> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> Self {
                    value.to_string()
                }
            }
        )*
    };
}

as_text! { PublisherName AppName Version }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_its_folder_or_pass_for_a_role_is_no_name() {
        for wrong in [
            "",
            "/",
            "acme",
            "acme/",
            "/collector",
            "acme/../x",
            "acme/.hidden",
            "Acme/x",
            "acme/x/y",
            "acme/x*",
            "acme/x?",
            "acme/x\0",
            "acme/[x]",
            "root/x",
            "targets/x",
            "timestamp/x",
            "snapshot/x",
            "acme/-x",
        ] {
            assert!(wrong.parse::<AppName>().is_err(), "{wrong:?}");
        }
        assert!(
            format!("acme/{}", "a".repeat(MAX_NAME_BYTES + 1))
                .parse::<AppName>()
                .is_err()
        );
        let app: AppName = "acme/collector".parse().unwrap();
        assert_eq!(app.to_string(), "acme/collector");
        assert_eq!(
            app.target(&"2.3.1".parse().unwrap()),
            "acme/collector/2.3.1"
        );
    }

    #[test]
    fn a_version_has_one_text_and_compares_by_numbers() {
        for wrong in [
            "",
            ".",
            "1.",
            "01",
            "1.02",
            "1.2.3.4.5",
            "1.2-rc1",
            "v1",
            "4294967296",
            "+1",
            " 1",
            "1.2.3.4.",
        ] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("2.10.0") > version("2.9.9"));
        assert!(version("2.3.0.1") > version("2.3"));
        assert_eq!(version("2.3"), version("2.3.0"));
        assert_eq!(version("2.3.0").to_string(), "2.3.0");
        assert_eq!(version("0"), version("0.0"));
    }
}
