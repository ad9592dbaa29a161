//! What is done to an interface, as a gateway sees it: requests of a protocol, and the patterns that sort them into
//! the actions which rules name.
//!
//! A request may fit several actions: it is denied where a rule denies one of them, else allowed where a rule allows
//! one of them, else denied. A request that fits no action is denied. All of it is finite: patterns have no free
//! expressions, so they can be compared, listed and explained.

use serde::{Deserialize, Serialize};

pub mod http;
pub mod modbus;
pub mod mqtt;
pub mod written;

use crate::slice::{ActionId, CONNECT};

/// Most actions of one interface, `connect` not counted.
pub const MAX_ACTIONS: usize = 31;
/// Most patterns of one action.
pub const MAX_PATTERNS: usize = 256;
/// Longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 512;

/// The protocol of an interface, and its actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "proto", content = "actions")]
pub enum L7 {
    /// HTTP/1.1 and HTTP/2, gRPC included: methods and paths.
    Http(Vec<Patterns<http::Pattern>>),
    /// MQTT 3.1.1 and 5: topics to publish to, filters to subscribe to.
    Mqtt(Vec<Patterns<mqtt::Pattern>>),
    /// Modbus/TCP: function codes, addresses, units.
    Modbus(Vec<Patterns<modbus::Pattern>>),
}

/// One action: its name, and the requests that it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patterns<P> {
    pub action: String,
    /// Never empty.
    pub any_of: Vec<P>,
}

/// One request, as a gateway read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L7Request<'a> {
    Http(http::Request<'a>),
    Mqtt(mqtt::Request<'a>),
    Modbus(modbus::Request),
}

/// A set of actions of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ActionSet(u32);

/// Why a text is not a pattern. The author's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found}; {expected}")]
pub struct BadPattern {
    pub found: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

/// Two patterns of one protocol, by the requests that fit them.
pub(crate) trait Compare {
    /// Whether every request that fits the other fits this one.
    fn covers(&self, other: &Self) -> bool;
    /// Whether some request fits both.
    fn meets(&self, other: &Self) -> bool;
}

impl L7 {
    /// `http`, `mqtt` or `modbus`.
    pub fn proto(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Mqtt(_) => "mqtt",
            Self::Modbus(_) => "modbus",
        }
    }

    /// What rules may name, in the order of their [`ActionId`]s: the interface's own actions, and last `connect`. It
    /// lets a connection be opened and no request fits it: for nodes from which operators come, who prove themselves
    /// at the gateway.
    pub fn actions(&self) -> Vec<&str> {
        let mut names = self.names();
        names.push(CONNECT);
        names
    }

    /// Names of its own actions.
    pub fn names(&self) -> Vec<&str> {
        fn of<P>(actions: &[Patterns<P>]) -> Vec<&str> {
            actions
                .iter()
                .map(|action| action.action.as_str())
                .collect()
        }
        match self {
            Self::Http(actions) => of(actions),
            Self::Mqtt(actions) => of(actions),
            Self::Modbus(actions) => of(actions),
        }
    }

    /// How many actions there are.
    pub fn action_count(&self) -> usize {
        match self {
            Self::Http(actions) => actions.len(),
            Self::Mqtt(actions) => actions.len(),
            Self::Modbus(actions) => actions.len(),
        }
    }

    /// The actions that a request fits. Empty for a request of another protocol.
    pub fn actions_of(&self, request: &L7Request<'_>) -> ActionSet {
        fn of<P>(actions: &[Patterns<P>], fits: impl Fn(&P) -> bool) -> ActionSet {
            (0_u8..)
                .map(ActionId)
                .zip(actions)
                .filter(|(_, action)| action.any_of.iter().any(&fits))
                .map(|(id, _)| id)
                .collect()
        }
        match (self, request) {
            (Self::Http(actions), L7Request::Http(request)) => of(actions, |p| p.fits(request)),
            (Self::Mqtt(actions), L7Request::Mqtt(request)) => of(actions, |p| p.fits(request)),
            (Self::Modbus(actions), L7Request::Modbus(request)) => of(actions, |p| p.fits(request)),
            _ => ActionSet::default(),
        }
    }

    /// Number of patterns of the action that has most of them.
    pub(crate) fn most_patterns(&self) -> usize {
        fn of<P>(actions: &[Patterns<P>]) -> (usize, usize) {
            let counts = actions.iter().map(|action| action.any_of.len());
            (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0))
        }
        let (least, most) = match self {
            Self::Http(actions) => of(actions),
            Self::Mqtt(actions) => of(actions),
            Self::Modbus(actions) => of(actions),
        };
        if least == 0 { 0 } else { most }
    }
}

impl ActionSet {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, action: ActionId) -> bool {
        1_u32
            .checked_shl(u32::from(action.0))
            .is_some_and(|bit| self.0 & bit != 0)
    }

    pub fn iter(self) -> impl Iterator<Item = ActionId> {
        (0_u8..32)
            .map(ActionId)
            .filter(move |action| self.contains(*action))
    }
}

impl FromIterator<ActionId> for ActionSet {
    fn from_iter<I: IntoIterator<Item = ActionId>>(actions: I) -> Self {
        let bits = actions
            .into_iter()
            .filter_map(|action| 1_u32.checked_shl(u32::from(action.0)));
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

/// Patterns travel and are written as text.
macro_rules! as_text {
    ($pattern:ty) => {
        impl serde::Serialize for $pattern {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $pattern {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

#[cfg(test)]
mod tests;
