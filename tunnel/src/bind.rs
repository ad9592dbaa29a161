//! The bind: the mutual-TLS exchange between two agents from which a tunnel's keys come.
//!
//! [`machine`] is the core; [`gate`] guards the TPM; [`schedule`] says how the keys come about.

pub mod claims;
pub mod code;
pub mod codec;
pub mod driver;
pub mod ending;
pub mod endpoint;
pub mod gate;
pub mod kem;
pub mod lease;
pub mod machine;
pub mod policy;
pub mod proof;
pub mod schedule;
pub mod table;

#[cfg(test)]
pub(crate) mod testing;

/// Which side of the bind a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Dialled; triggers WireGuard handshakes and turns epochs.
    Initiator,
    /// Was dialled; arms first and never initiates.
    Responder,
}

impl Role {
    /// The other side's role.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    const fn label(self) -> u8 {
        match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        }
    }
}
