//! How much somebody should care, on one scale, and what that is on the scales of others.

use crate::event::{Effect, Event, Verdict};

/// From "tells" to "look now".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Notice,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
    ];

    /// By what happened; where the event says nothing else, by what it did to rights.
    pub fn of(event: &Event) -> Self {
        match event.kind.name() {
            "audit.halted" | "audit.damaged" | "witness.disputed" | "break-glass.opened"
            | "node.cloned" | "journal.forked" | "authority.tainted" | "app.guard_shut" => {
                Self::Critical
            }
            "attestation.failed" | "journal.lost" | "journal.gap" | "journal.silent"
            | "gateway.down" | "agent.held" => Self::Error,
            "attestation.stale" | "node.quarantined" | "node.waits" | "session.displaced" => {
                Self::Warning
            }
            // An alert says itself how loud it is.
            _ if event.kind.family() == "alert" => match event.detail.get("severity") {
                Some("critical") => Self::Critical,
                Some("minor") => Self::Error,
                _ => Self::Notice,
            },
            _ if event.verdict == Verdict::Deny => Self::Warning,
            _ if event.kind.effect() == Effect::TakesAway => Self::Notice,
            _ => Self::Info,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// RFC 5424, 6.2.1.
    pub const fn syslog(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Notice => 5,
            Self::Warning => 4,
            Self::Error => 3,
            Self::Critical => 2,
        }
    }

    /// 0 to 10: low to 3, medium to 6, high to 8, very high.
    pub const fn cef(self) -> u8 {
        match self {
            Self::Info => 2,
            Self::Notice => 4,
            Self::Warning => 6,
            Self::Error => 8,
            Self::Critical => 10,
        }
    }

    /// `severity_id` and `severity` of OCSF.
    pub const fn ocsf(self) -> (u8, &'static str) {
        match self {
            Self::Info => (1, "Informational"),
            Self::Notice => (2, "Low"),
            Self::Warning => (3, "Medium"),
            Self::Error => (4, "High"),
            Self::Critical => (5, "Critical"),
        }
    }

    /// `SeverityNumber` of OpenTelemetry, by its own table for syslog's severities.
    pub const fn otlp(self) -> i32 {
        match self {
            Self::Info => 9,
            Self::Notice => 10,
            Self::Warning => 13,
            Self::Error => 17,
            Self::Critical => 18,
        }
    }
}
