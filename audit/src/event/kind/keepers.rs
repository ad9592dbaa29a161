//! Whose word a kind of event is.
//!
//! A node's journal is the node's own word. It may say what the node saw and did; that the cloud quarantined somebody,
//! or that an operator was added, is not its to say. Such a record is stored, since it is evidence of what the node
//! says, but it is marked `claimed`, and nothing that acts on events takes it for the fact.

use edgeward_identity::Kind;

use super::EventKind;

/// Who may record a kind of event as a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keepers {
    Node,
    Cloud,
    Either,
    /// Nobody: it stands for what cannot be read.
    Nobody,
}

impl EventKind {
    /// Whose word this kind is. A kind that is not named here is the cloud's alone.
    pub const fn keepers(self) -> Keepers {
        match self {
            Self::EventUnknown => Keepers::Nobody,
            Self::JournalOpened
            | Self::AppRevoked
            | Self::DenyListRaised
            | Self::PolicyRefused
            | Self::SvidRenewed
            | Self::WorkloadRefused => Keepers::Either,
            Self::JournalRecovered
            | Self::JournalLost
            | Self::JournalSealed
            | Self::AuditContradicted
            | Self::AgentStarted
            | Self::AgentStopped
            | Self::AgentHeld
            | Self::AgentUpgraded
            | Self::AgentRecovered
            | Self::AppInstalling
            | Self::AppInstalled
            | Self::AppRefused
            | Self::AppRemoved
            | Self::AppStarted
            | Self::AppEnded
            | Self::AppDenied
            | Self::AppWouldDeny
            | Self::AppLevelChanged
            | Self::AppGuardRestarted
            | Self::AppGuardShut
            | Self::BindOpened
            | Self::BindRefused
            | Self::BindClosed
            | Self::BootStated
            | Self::CutEffected
            | Self::FlowAllowed
            | Self::FlowDenied
            | Self::GatewayUp
            | Self::GatewayDown
            | Self::GlassOpened
            | Self::GlassClosed
            | Self::GlassRefused
            | Self::PathChanged
            | Self::PolicyActivated
            | Self::RootsChanged
            | Self::WorkloadServed => Keepers::Node,
            _ => Keepers::Cloud,
        }
    }
}

impl Keepers {
    /// Whether a keeper of this kind of identity may record it as a fact.
    pub const fn include(self, keeper: Kind) -> bool {
        match self {
            Self::Node => matches!(keeper, Kind::Node),
            Self::Cloud => matches!(keeper, Kind::Cloud),
            Self::Either => matches!(keeper, Kind::Node | Kind::Cloud),
            Self::Nobody => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_cannot_say_what_only_the_cloud_decides() {
        for kind in [
            EventKind::NodeQuarantined,
            EventKind::NodeCloned,
            EventKind::AttestationFailed,
            EventKind::OperatorAdded,
            EventKind::AuthorityActivated,
            EventKind::JournalForked,
            EventKind::CutOrdered,
            EventKind::AuditRead,
            EventKind::EventUnknown,
        ] {
            assert!(!kind.keepers().include(Kind::Node), "{kind}");
        }
    }

    #[test]
    fn the_cloud_cannot_say_what_only_a_node_sees() {
        for kind in [
            EventKind::BindOpened,
            EventKind::GlassOpened,
            EventKind::AppStarted,
            EventKind::JournalLost,
            EventKind::EventUnknown,
        ] {
            assert!(!kind.keepers().include(Kind::Cloud), "{kind}");
        }
    }

    #[test]
    fn nobody_but_nodes_and_clouds_keeps_anything() {
        for kind in EventKind::ALL {
            for keeper in [Kind::Device, Kind::Operator, Kind::Workload] {
                assert!(!kind.keepers().include(keeper), "{kind}");
            }
        }
    }
}
