//! Whether this node may grant anything at all.

use std::fmt;

/// Asked before every grant (bind, flow, lease). Taking away never asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What the leases allow may be granted.
    Granting,
    /// Nothing is granted until the cloud answers.
    Held(Held),
}

/// Why nothing is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    #[error("the clock is behind the time floor")]
    ClockBehindFloor,
    #[error("the stored state is older than the tpm's epoch")]
    StateRolledBack,
    #[error("the time floor could not be read")]
    NoFloor,
    #[error(
        "the journal is not the one that the stored state knows: cut short, or another in its place"
    )]
    JournalRolledBack,
}

impl Standing {
    /// The only question there is.
    pub fn may_grant(self) -> Result<(), Held> {
        match self {
            Self::Granting => Ok(()),
            Self::Held(held) => Err(held),
        }
    }
}

impl Held {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::ClockBehindFloor => "held_clock",
            Self::StateRolledBack => "held_rollback",
            Self::NoFloor => "held_no_floor",
            Self::JournalRolledBack => "held_journal",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granting => f.write_str("granting"),
            Self::Held(held) => write!(f, "held: {held}"),
        }
    }
}
