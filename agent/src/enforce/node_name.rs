//! The name of another node, as an operator writes it.

use std::str::FromStr;

use edgeward_identity::{Kind, SpiffeId, TrustDomain};
use serde::Deserialize;

/// A name that a node can have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

/// The operator's text names no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a node")]
pub struct BadNodeName;

impl NodeName {
    /// The node of that name in a trust domain.
    pub fn of(&self, domain: &TrustDomain) -> Option<SpiffeId> {
        SpiffeId::new(domain, Kind::Node, &self.0).ok()
    }
}

impl FromStr for NodeName {
    type Err = BadNodeName;

    fn from_str(text: &str) -> Result<Self, BadNodeName> {
        let domain = TrustDomain::new("any.invalid").map_err(|_| BadNodeName)?;
        let sound = SpiffeId::new(&domain, Kind::Node, text).is_ok();
        sound.then(|| Self(text.to_owned())).ok_or(BadNodeName)
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadNodeName;

    fn try_from(text: String) -> Result<Self, BadNodeName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_node_can_be_called_is_refused() {
        for text in ["", "a/b", "spiffe://x/node/a", "a b", "..", "\u{e9}"] {
            assert_eq!(text.parse::<NodeName>(), Err(BadNodeName), "{text:?}");
        }
        let domain = TrustDomain::new("plant.example").unwrap();
        let id = "gw-1".parse::<NodeName>().unwrap().of(&domain).unwrap();
        assert_eq!(id.to_string(), "spiffe://plant.example/node/gw-1");
    }
}
