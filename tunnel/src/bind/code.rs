//! Why a bind ended: a stable code for the peer, the operator and the audit log.

/// What a peer learns when a bind is refused or ends. The reason behind it stays with the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Code {
    /// A code that this version does not know.
    Unspecified = 0,
    /// Both sides started a bind at once, and the other one survives.
    Glare = 1,
    /// A newer bind with the same peer took over.
    Superseded = 2,
    /// Rights were taken away.
    Cut = 3,
    /// The agent stops.
    Shutdown = 4,
    /// The peer broke the protocol.
    Protocol = 5,
    /// Another version of the protocol.
    Version = 6,
    /// The attestation result was not accepted.
    Result = 7,
    /// The boot statement was not accepted.
    BootStatement = 8,
    /// The proof of a key did not verify.
    Proof = 9,
    /// No rule lets these two talk.
    Policy = 10,
    /// The WireGuard key is unusable, or another identity's.
    WireGuardKey = 11,
    /// Too long since the peer proved itself, or a certificate or policy ended.
    Lease = 12,
    /// The peer did not go on in time.
    Timeout = 13,
    /// This side failed.
    Internal = 14,
    /// The peer's certificate is not accepted, or no longer.
    Identity = 15,
    /// Signature budget spent: try later.
    Busy = 16,
    /// The connection was lost. Never sent.
    Lost = 17,
    /// Nothing was sent for a while: the next packet, either way, opens another bind. Nobody's fault, and no cut.
    Idle = 18,
}

impl Code {
    pub const ALL: [Self; 19] = [
        Self::Unspecified,
        Self::Glare,
        Self::Superseded,
        Self::Cut,
        Self::Shutdown,
        Self::Protocol,
        Self::Version,
        Self::Result,
        Self::BootStatement,
        Self::Proof,
        Self::Policy,
        Self::WireGuardKey,
        Self::Lease,
        Self::Timeout,
        Self::Internal,
        Self::Identity,
        Self::Busy,
        Self::Lost,
        Self::Idle,
    ];

    /// Unknown numbers become [`Code::Unspecified`]: a newer peer may know more reasons.
    pub fn from_wire(number: u16) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| code.to_wire() == number)
            .unwrap_or(Self::Unspecified)
    }

    pub const fn to_wire(self) -> u16 {
        self as u16
    }

    /// Stable reason code for logs and the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "bind_unspecified",
            Self::Glare => "bind_glare",
            Self::Superseded => "bind_superseded",
            Self::Cut => "bind_cut",
            Self::Shutdown => "bind_shutdown",
            Self::Protocol => "bind_protocol",
            Self::Version => "bind_version",
            Self::Result => "bind_result",
            Self::BootStatement => "bind_boot_statement",
            Self::Proof => "bind_proof",
            Self::Policy => "bind_policy",
            Self::WireGuardKey => "bind_wireguard_key",
            Self::Lease => "bind_lease",
            Self::Timeout => "bind_timeout",
            Self::Internal => "bind_internal",
            Self::Identity => "bind_identity",
            Self::Busy => "bind_busy",
            Self::Lost => "bind_lost",
            Self::Idle => "bind_idle",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_round_trips_and_unknown_ones_say_so() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code.to_wire()), code);
        }
        assert_eq!(Code::from_wire(19), Code::Unspecified);
        assert_eq!(Code::from_wire(u16::MAX), Code::Unspecified);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Code::ALL.map(Code::as_str).into();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
