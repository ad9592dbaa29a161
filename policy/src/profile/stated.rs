//! How an attestation result names the profiles that were compared, and how a rule asks for one of them.
//!
//! A name alone would not do: a result made before a profile changed says nothing about what it asks for now. So each
//! profile is named with a piece of its hash, `gateway-2026@1f3c9a0b8e2d4c6f`, and several with `+` between them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::Profile;

/// Most profiles that one result names.
pub const MAX_STATED: usize = 8;
/// Longest name of a profile, in bytes: as long as the parser of policy files lets it be.
const MAX_NAME_BYTES: usize = 63;
/// Hex digits of the hash in a label.
const HASH_DIGITS: usize = 16;

/// A profile as results and rules name it: its name, `@`, and the first 16 hex digits of its hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileLabel {
    text: Arc<str>,
    id: Id,
}

/// Which profiles a result names; it may be none. Small and without memory of its own, since every decision carries one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedProfiles {
    ids: [Option<Id>; MAX_STATED],
}

/// Why a text is no label. The fault is whoever's made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a profile with its hash: name@{HASH_DIGITS} hex digits")]
pub struct NotALabel;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    /// Of the name: names are unique in a policy.
    name: u64,
    /// Of all that the profile says.
    content: u64,
}

impl Profile {
    pub fn label(&self) -> ProfileLabel {
        let hash = hex::encode(self.hash());
        let digits: String = hash.chars().take(HASH_DIGITS).collect();
        let text = format!("{}@{digits}", self.name);
        ProfileLabel {
            id: Id {
                name: first_of_hash(self.name.as_bytes()),
                content: u64::from_str_radix(&digits, 16).unwrap_or_default(),
            },
            text: text.into(),
        }
    }
}

impl ProfileLabel {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The profile's name alone.
    pub fn name(&self) -> &str {
        self.text.split_once('@').map_or("", |(name, _)| name)
    }
}

impl StatedProfiles {
    /// A result that names no profile.
    pub const NONE: Self = Self {
        ids: [None; MAX_STATED],
    };

    /// What a result says: labels with `+` between them. `None`: not to be understood, so it is unknown what was compared.
    pub fn parse(text: &str) -> Option<Self> {
        let mut stated = Self::NONE;
        let mut labels = text.split('+');
        for (place, label) in stated.ids.iter_mut().zip(&mut labels) {
            *place = Some(label.parse::<ProfileLabel>().ok()?.id);
        }
        labels.next().is_none().then_some(stated)
    }

    /// What a result says, where it says anything about profiles.
    pub fn of_result(profile: Option<&str>) -> Option<Self> {
        profile.map_or(Some(Self::NONE), Self::parse)
    }

    /// As one result names these together. `None`: more than a result may name.
    pub fn text<'l>(labels: impl IntoIterator<Item = &'l ProfileLabel>) -> Option<String> {
        let labels: Vec<&str> = labels.into_iter().map(ProfileLabel::as_str).collect();
        (labels.len() <= MAX_STATED).then(|| labels.join("+"))
    }

    /// Whether this profile was compared, as it is now. `None`: one of its name was, but as it was at another time.
    pub(crate) fn names(&self, label: &ProfileLabel) -> Option<bool> {
        let mut same_name = self
            .ids
            .iter()
            .flatten()
            .filter(|id| id.name == label.id.name);
        match same_name.next() {
            None => Some(false),
            Some(id) if id.content == label.id.content => Some(true),
            Some(_) => None,
        }
    }
}

impl From<&ProfileLabel> for StatedProfiles {
    fn from(label: &ProfileLabel) -> Self {
        let mut stated = Self::NONE;
        if let Some(first) = stated.ids.first_mut() {
            *first = Some(label.id);
        }
        stated
    }
}

/// The names in what a result says, without their hashes: for people.
pub fn shown(text: &str) -> String {
    let names: Vec<&str> = text
        .split('+')
        .map(|label| label.split_once('@').map_or(label, |(name, _)| name))
        .collect();
    names.join("+")
}

impl FromStr for ProfileLabel {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let (name, digits) = text.split_once('@').ok_or(NotALabel)?;
        let name_fits = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let digits_fit = digits.len() == HASH_DIGITS
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !name_fits || !digits_fit {
            return Err(NotALabel);
        }
        Ok(Self {
            id: Id {
                name: first_of_hash(name.as_bytes()),
                content: u64::from_str_radix(digits, 16).map_err(|_| NotALabel)?,
            },
            text: text.into(),
        })
    }
}

impl TryFrom<String> for ProfileLabel {
    type Error = NotALabel;

    fn try_from(text: String) -> Result<Self, NotALabel> {
        text.parse()
    }
}

impl From<ProfileLabel> for String {
    fn from(label: ProfileLabel) -> Self {
        label.text.as_ref().to_owned()
    }
}

impl fmt::Display for ProfileLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn first_of_hash(bytes: &[u8]) -> u64 {
    let hash = digest(&SHA256, bytes);
    let first = hash.as_ref().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> ProfileLabel {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_label_is_unknown_and_never_none() {
        let long = format!("{}@0123456789abcdef", "x".repeat(MAX_NAME_BYTES + 1));
        let many = ["a@0123456789abcdef"; MAX_STATED + 1].join("+");
        for text in [
            "",
            "gateway",
            "@0123456789abcdef",
            "gateway@",
            "gateway@0123456789ABCDEF",
            "gateway@0123456789abcde",
            "gateway@0123456789abcdef0",
            "gate way@0123456789abcdef",
            "a@0123456789abcdef+",
            "+a@0123456789abcdef",
            "a@0123456789abcdef+b",
            &long,
            &many,
        ] {
            assert_eq!(StatedProfiles::parse(text), None, "{text}");
        }
        assert_eq!(StatedProfiles::of_result(None), Some(StatedProfiles::NONE));
        assert_eq!(StatedProfiles::of_result(Some("")), None);
    }

    #[test]
    fn another_name_is_not_named_and_the_same_name_of_another_time_is_unknown() {
        let stated = StatedProfiles::parse("a@0000000000000001+b@0000000000000002").unwrap();
        for (text, named) in [
            ("a@0000000000000001", Some(true)),
            ("b@0000000000000002", Some(true)),
            ("a@0000000000000002", None),
            ("c@0000000000000001", Some(false)),
        ] {
            assert_eq!(stated.names(&label(text)), named, "{text}");
        }
        assert_eq!(
            StatedProfiles::NONE.names(&label("a@0000000000000001")),
            Some(false)
        );
    }

    #[test]
    fn labels_are_written_and_read_as_one_text() {
        let labels = [label("a@0000000000000001"), label("b@0000000000000002")];
        let text = StatedProfiles::text(&labels).unwrap();
        assert_eq!(text, "a@0000000000000001+b@0000000000000002");
        assert_eq!(shown(&text), "a+b");
        assert_eq!(
            (labels[0].name(), labels[0].to_string().as_str()),
            ("a", "a@0000000000000001")
        );
        let stated = StatedProfiles::parse(&text).unwrap();
        assert_eq!(stated.names(&labels[1]), Some(true));
        assert_eq!(
            StatedProfiles::text(&vec![labels[0].clone(); MAX_STATED + 1]),
            None
        );
        let json = serde_json::to_string(&labels[0]).unwrap();
        assert_eq!(
            serde_json::from_str::<ProfileLabel>(&json).unwrap(),
            labels[0]
        );
        assert!(serde_json::from_str::<ProfileLabel>("\"a\"").is_err());
    }
}
