//! Where a page of coverage ended.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use edgeward_identity::SpiffeId;

use super::CursorError;
use crate::record::BootId;

/// Longest cursor of coverage, in bytes: more than the longest name of a keeper makes.
pub const MAX_COVERAGE_CURSOR_BYTES: usize = 4096;

/// The last journal of a page. Its text is opaque for whoever gets it, and no secret: it names what the page showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoverageCursor {
    pub node: SpiffeId,
    pub boot: BootId,
}

impl fmt::Display for CoverageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{} {}", self.boot, self.node);
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(place))
    }
}

impl FromStr for CoverageCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let place = match text.len() <= MAX_COVERAGE_CURSOR_BYTES {
            true => BASE64_URL_SAFE_NO_PAD.decode(text).ok(),
            false => None,
        };
        let place = place.and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = place.as_deref().and_then(|place| place.split_once(' '));
        let (boot, node) = parts.ok_or(CursorError::Malformed)?;
        Ok(Self {
            boot: boot.parse().map_err(|_| CursorError::Malformed)?,
            node: node.parse().map_err(|_| CursorError::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_was_not_given_out_is_refused_and_one_that_was_comes_back() {
        let whole = CoverageCursor {
            node: "spiffe://plant.example/node/gw-3".parse().unwrap(),
            boot: BootId::from_bytes([7; 16]),
        };
        let text = whole.to_string();
        assert_eq!(text.parse(), Ok(whole.clone()));
        let longest = "a".repeat(2048 - "spiffe://plant.example/workload/".len());
        let longest = CoverageCursor {
            node: format!("spiffe://plant.example/workload/{longest}")
                .parse()
                .unwrap(),
            ..whole
        };
        assert_eq!(longest.to_string().parse(), Ok(longest));
        let of = |place: &str| BASE64_URL_SAFE_NO_PAD.encode(place);
        let boot = "07".repeat(16);
        for wrong in [
            String::new(),
            format!("{text}="),
            text.replacen('M', "+", 1),
            text.get(..text.len() - 4).unwrap().to_owned() + "____",
            of(&boot),
            of(&format!("{boot} gw-3")),
            of(&format!(
                "{} spiffe://plant.example/node/gw-3",
                boot.get(2..).unwrap()
            )),
            of(&format!("{boot}  spiffe://plant.example/node/gw-3")),
            "A".repeat(MAX_COVERAGE_CURSOR_BYTES + 4),
        ] {
            assert_eq!(
                wrong.parse::<CoverageCursor>(),
                Err(CursorError::Malformed),
                "{wrong}"
            );
        }
    }
}
