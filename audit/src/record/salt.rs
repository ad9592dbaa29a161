//! Salts: what makes a record's hash a commitment that nobody can guess their way back from.

use std::fmt;
use std::str::FromStr;

use edgeward_identity::Secret;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, NotADigest};

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

const SALT_LABEL: &[u8] = b"edgeward record salt v1\n";
const TURN_LABEL: &[u8] = b"edgeward record salt turn v1\n";

/// 16 random bytes of one record, in lower-case hex. Erased together with the record's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt([u8; SALT_BYTES]);

/// Makes salts, one for each record. What it holds tells nothing of the salts it has given, so a look into the memory
/// of a keeper does not bring back what was erased before.
#[derive(Debug)]
pub struct Salts(Secret<[u8; 32]>);

/// The random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct NoRandom;

impl Salt {
    pub const fn from_bytes(bytes: [u8; SALT_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }
}

impl Salts {
    /// From 32 random bytes, never used for anything else.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Secret::new(seed))
    }

    /// From a random source.
    pub fn draw_from(random: &dyn SecureRandom) -> Result<Self, NoRandom> {
        let mut seed = [0; 32];
        random.fill(&mut seed).map_err(|_| NoRandom)?;
        Ok(Self::from_seed(seed))
    }

    pub fn draw(&mut self) -> Salt {
        let digest = Digest::of(&[SALT_LABEL, self.0.expose()]);
        let turned = Digest::of(&[TURN_LABEL, self.0.expose()]);
        self.0 = Secret::new(*turned.as_bytes());
        let mut salt = [0; SALT_BYTES];
        for (to, from) in salt.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Salt(salt)
    }
}

impl FromStr for Salt {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; SALT_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Salt {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> Self {
        salt.to_string()
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_salts_are_equal_and_two_seeds_share_none() {
        let (mut one, mut two) = (Salts::from_seed([1; 32]), Salts::from_seed([2; 32]));
        let drawn: BTreeSet<String> = (0..100)
            .flat_map(|_| [one.draw().to_string(), two.draw().to_string()])
            .collect();
        assert_eq!(drawn.len(), 200);
    }

    #[test]
    fn what_is_not_32_lower_case_digits_is_no_salt() {
        let good = Salt::from_bytes([0xab; SALT_BYTES]).to_string();
        assert_eq!(good.parse(), Ok(Salt::from_bytes([0xab; SALT_BYTES])));
        for bad in ["", "ab", good.get(1..).unwrap(), &format!("{good}ab"), "zz"] {
            assert!(bad.parse::<Salt>().is_err(), "{bad}");
        }
    }
}
