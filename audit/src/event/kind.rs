//! Every kind of event, with its stable name, its class and what it does to rights.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod keepers;

pub use keepers::Keepers;

/// How hard a journal works to keep an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Left out first when space runs low.
    May,
    /// Written in groups; left out, counted and reported when space runs low.
    Should,
    /// On disk before the call returns, or the operation is refused.
    Must,
}

/// What the recorded act does to somebody's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The record precedes the act: if it cannot be written, nothing is granted.
    Grants,
    /// The act happens first; its record has reserved space.
    TakesAway,
    Neutral,
}

/// Not the name of a kind of event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type of event")]
pub struct UnknownKind;

macro_rules! event_kinds {
    ($($variant:ident $name:literal $class:ident $effect:ident: $meaning:literal;)*) => {
        /// What happened. The name (`node.quarantined`) is stable: filters, exports and alerts rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum EventKind {
            $(#[doc = concat!("`", $name, "`: ", $meaning)] $variant,)*
        }

        impl EventKind {
            /// All kinds, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            pub const fn effect(self) -> Effect {
                match self { $(Self::$variant => Effect::$effect,)* }
            }

            /// One line for help texts and documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }

        impl FromStr for EventKind {
            type Err = UnknownKind;

            fn from_str(text: &str) -> Result<Self, UnknownKind> {
                match text { $($name => Ok(Self::$variant),)* _ => Err(UnknownKind) }
            }
        }
    };
}

// Whatever a stranger can cause at will is at most `Should`: no stranger orders disk flushes.
event_kinds! {
    TokenCreated "token.created" Must Grants: "a bootstrap token was created";
    TokenRevoked "token.revoked" Must TakesAway: "a bootstrap token was revoked";
    TokenUsed "token.used" Must Grants: "one use of a bootstrap token was consumed by an enrolment";
    TokenRefused "token.refused" Should Neutral: "a bootstrap token was refused";
    EnrolmentBegun "enrolment.begun" May Neutral: "an enrolment reserved its token";
    EnrolmentRefused "enrolment.refused" Should Neutral: "an enrolment was refused";
    EnrolmentIssued "enrolment.issued" Must Grants: "an enrolment passed and its SVID was issued";
    EnrolmentAcknowledged "enrolment.acknowledged" Must Neutral: "the node acknowledged its first SVID";
    EkRootTrusted "ekroot.trusted" Must Grants: "a TPM maker's certificate was imported";
    EkRootRemoved "ekroot.removed" Must TakesAway: "a TPM maker's certificate was removed";
    EkListed "ek.listed" Must Grants: "an EK or EK certificate was put on a list";
    EkUnlisted "ek.unlisted" Must TakesAway: "an EK or EK certificate was taken off a list";
    NodeApproved "node.approved" Must Grants: "a pending node was approved";
    NodeQuarantined "node.quarantined" Must TakesAway: "a node was quarantined";
    NodeRecovered "node.recovered" Must Grants: "a node came back by its EK, without a token";
    NodeWaits "node.waits" Must TakesAway: "a node used up its automatic recoveries and waits for approval";
    NodeCloned "node.cloned" Must TakesAway: "an identity has two holders: both are locked";
    NodeReplaced "node.replaced" Must Grants: "another TPM took over a node's name";
    NodeReleased "node.released" Must Grants: "a node was released from quarantine";
    NodeRemoved "node.removed" Must TakesAway: "a node was removed";
    SvidIssued "svid.issued" Must Grants: "an SVID was issued";
    SvidRenewed "svid.renewed" Must Grants: "an SVID was renewed";
    SvidDenied "svid.denied" Must Neutral: "an SVID was refused to an enrolled identity";
    SvidExpiring "svid.expiring" Should Neutral: "a certificate ends soon, and its holder has no newer one";
    AuthorityPrepared "authority.prepared" Must Neutral: "keys and certificate of a new signing authority were made";
    AuthorityPublished "authority.published" Must Grants: "a new root was signed by one that is trusted and sent to the nodes";
    AuthorityActivated "authority.activated" Must Grants: "a signing authority signs from now on";
    AuthorityTainted "authority.tainted" Must TakesAway: "whatever a signing authority signed is to be renewed at once";
    AuthorityRetired "authority.retired" Must TakesAway: "a signing authority is trusted no longer";
    AuthorityExpiring "authority.expiring" Should Neutral: "the certificate of a signing authority in use ends soon";
    RootsChanged "roots.changed" Must Grants: "a node trusts another set of roots, signed by one it trusted";
    DenyListRaised "denylist.raised" Must TakesAway: "the deny-list got a higher number";
    SessionOpened "session.opened" Should Grants: "a node's session was opened";
    SessionClosed "session.closed" Should Neutral: "a node's session ended";
    SessionRefused "session.refused" Should Neutral: "a session was refused";
    SessionDisplaced "session.displaced" Must TakesAway: "a session lost to another one of the same node";
    RelayClosed "relay.closed" Should Neutral: "the cloud carried datagrams of a node, and no longer does";
    AttestationPassed "attestation.passed" Should Grants: "evidence passed and a result was signed";
    AttestationFailed "attestation.failed" Must TakesAway: "evidence failed";
    AttestationStale "attestation.stale" Must TakesAway: "evidence was not given in time";
    PolicyApplied "policy.applied" Must Grants: "a policy was applied in the cloud";
    PolicyStaged "policy.staged" Must Grants: "a policy is tried on a part of the nodes";
    PolicyPaused "policy.paused" Must Neutral: "the stages of a policy stopped: somebody must look";
    PolicyResumed "policy.resumed" Must Grants: "the stages of a policy go on";
    PolicyReturned "policy.returned" Must Grants: "what was in force before a staged policy is in force again, under a new number";
    PolicyRefused "policy.refused" Should Neutral: "a policy or slice was refused";
    PolicyDelivered "policy.delivered" Should Neutral: "a slice of the policy was sent to a node";
    PolicyActivated "policy.activated" Must Grants: "a node put its slice of the policy into force";
    ApprovalGiven "approval.given" Must Grants: "an operator approved a rule for one subject";
    ApprovalRevoked "approval.revoked" Must TakesAway: "an approval was revoked";
    ApprovalRefused "approval.refused" Should Neutral: "an approval was refused";
    GlassIssued "break-glass.issued" Must Grants: "a break-glass grant for one node was signed and sealed";
    GlassRevoked "break-glass.revoked" Must TakesAway: "a break-glass grant was revoked";
    GlassOpened "break-glass.opened" Must Grants: "CRITICAL: the glass was broken on a node: rules count without window, end, approval and age";
    GlassClosed "break-glass.closed" Must TakesAway: "what break-glass opened on a node is closed";
    GlassRefused "break-glass.refused" Should Neutral: "a node refused to open a break-glass grant";
    GlassAcknowledged "break-glass.acknowledged" Must Neutral: "an operator has seen that the glass was broken";
    BindOpened "bind.opened" Must Grants: "two nodes bound and a tunnel may be used";
    BindRefused "bind.refused" Should Neutral: "a bind was refused";
    BindClosed "bind.closed" Should TakesAway: "a bind ended";
    PathChanged "path.changed" Should Neutral: "a bound peer is reached another way (counts over a time)";
    FlowAllowed "flow.allowed" Should Neutral: "flows were allowed (counts over a time)";
    FlowDenied "flow.denied" Should Neutral: "flows were denied (counts over a time)";
    GatewayUp "gateway.up" Should Neutral: "the gateway listens for an interface";
    GatewayDown "gateway.down" Should TakesAway: "the gateway cannot listen for an interface: nobody is let in";
    CutOrdered "cut.ordered" Must TakesAway: "a cut was ordered";
    CutEffected "cut.effected" Must TakesAway: "a cut took effect";
    OperatorAdded "operator.added" Must Grants: "an operator was added";
    OperatorRevoked "operator.revoked" Must TakesAway: "an operator was revoked";
    ApiKeyCreated "apikey.created" Must Grants: "an API key was created";
    ApiKeyRevoked "apikey.revoked" Must TakesAway: "an API key was revoked";
    ApiRefused "api.refused" Should Neutral: "a call of the API was refused";
    AuditRead "audit.read" Must Neutral: "the audit log was read";
    AuditHalted "audit.halted" Must Neutral: "CRITICAL: no checkpoint of the audit log is signed any more: the database does not continue what was signed";
    AuditDamaged "audit.damaged" Must Neutral: "CRITICAL: a self-check found that stored events or tiles are not what was signed";
    AuditResumed "audit.resumed" Must Neutral: "checkpoints of the audit log are signed again";
    AuditContradicted "audit.contradicted" Must Neutral: "CRITICAL: the cloud showed a node a log that does not continue what it showed it before, or asks it for what the log proved to have";
    AuditBehind "audit.behind" Must Neutral: "CRITICAL: a node has seen more of the log than this cloud has: it went back";
    AuditErased "audit.erased" Must TakesAway: "the keys that seal the events of a site are destroyed: nobody reads these events any more";
    AuditPruned "audit.pruned" Must TakesAway: "events below a minimum index are deleted under the stated policy";
    ArchiveStalled "archive.stalled" Should Neutral: "segments of the audit log cannot be archived";
    ArchiveResumed "archive.resumed" Should Neutral: "segments of the audit log are archived again";
    AlertRaised "alert.raised" Should Neutral: "a rule over the log holds";
    AlertEnded "alert.ended" Should Neutral: "a rule over the log holds no more";
    AlertAcknowledged "alert.acknowledged" Must Neutral: "an operator has seen an alert";
    AlertSilenced "alert.silenced" Must Neutral: "an operator silenced alerts for a while";
    AlertUnsilenced "alert.unsilenced" Must Neutral: "an operator took a silence back";
    AlertTested "alert.tested" Must Neutral: "an operator had the sinks of alerts tried";
    ExportStalled "export.stalled" Should Neutral: "a receiver of the audit log takes nothing";
    ExportResumed "export.resumed" Should Neutral: "a receiver of the audit log takes events again";
    ExportRefused "export.refused" Should Neutral: "a receiver of the audit log refuses events for what they are; they were put aside";
    ExportRetried "export.retried" Must Neutral: "an operator has what a receiver of the audit log refused given to it again";
    WitnessRefused "witness.refused" Should Neutral: "as a witness, the cloud refused a signed checkpoint of another's log that was not shown to continue it";
    WitnessDisputed "witness.disputed" Must Neutral: "CRITICAL: a witness does not find that the own log continues what it cosigned";
    WitnessSilent "witness.silent" Should Neutral: "a witness has cosigned nothing of the own log for long";
    WitnessResumed "witness.resumed" Should Neutral: "a witness cosigns the own log again";
    JournalOpened "journal.opened" Must Neutral: "the journal of a boot begins";
    JournalRecovered "journal.recovered" Must Neutral: "a torn end was cut off the journal";
    JournalLost "journal.lost" Must TakesAway: "events were left out for want of space";
    JournalGap "journal.gap" Must Neutral: "records of a node are missing";
    JournalForked "journal.forked" Must Neutral: "a node gave two different records for one sequence number";
    JournalRefused "journal.refused" Should Neutral: "a batch of records was refused";
    JournalAcknowledged "journal.acknowledged" Must Neutral: "an operator has taken note that records of a node are lost";
    JournalSilent "journal.silent" Must Neutral: "a node with a session does not say any more where its journal ends";
    JournalSealed "journal.sealed" Must Neutral: "the journal's key vouched for the next one and for every record before, and is gone";
    EventUnknown "event.unknown" May Neutral: "an event that this version cannot read, kept as it came; its type is in the detail";
    CloudInitialised "cloud.initialised" Must Neutral: "the trust domain was made";
    CloudStarted "cloud.started" Must Neutral: "the cloud started";
    CloudStopped "cloud.stopped" Must Neutral: "the cloud stopped";
    AgentStarted "agent.started" Must Neutral: "the agent started";
    AgentStopped "agent.stopped" Must Neutral: "the agent stopped";
    AgentHeld "agent.held" Must TakesAway: "the agent grants nothing until the cloud answers";
    AgentUpgraded "agent.upgraded" Must Grants: "another program took the agent's place, with its tunnels";
    AgentRecovered "agent.recovered" Must Grants: "the agent got its identity back from the cloud by its EK";
    WorkloadIssued "workload.issued" Must Grants: "an SVID was issued for a process on a node";
    WorkloadServed "workload.served" Should Neutral: "a process on a node was handed an SVID";
    WorkloadRefused "workload.refused" Should Neutral: "an SVID for a process on a node was refused";
    BootStated "boot.stated" Must Grants: "a node stated that a new boot key continues its attested state";
    PublisherChanged "publisher.changed" Must Grants: "the root or the image role of the applications' repository was replaced: publishers, their keys, their thresholds";
    AppPublished "app.published" Must Grants: "a publisher's release was taken into the repository";
    AppAssigned "app.assigned" Should Neutral: "the director's word for a node changed";
    AppReturned "app.returned" Must Grants: "an operator ordered the way back to the release before";
    AppRevoked "app.revoked" Must TakesAway: "a release, or a file in releases, runs nowhere any more";
    AppInstalling "app.installing" Must Grants: "a release was verified and is being put in place on a node";
    AppInstalled "app.installed" Must Neutral: "a release is in place on a node: the receipt";
    AppRefused "app.refused" Should Neutral: "a node refused a release, or what was to prove it";
    AppRemoved "app.removed" Must TakesAway: "a release is on a node no longer";
    AppStarted "app.started" Must Grants: "an app was started";
    AppEnded "app.ended" Should TakesAway: "an app's processes ended, or were ended";
    AppDenied "app.denied" Should Neutral: "files were kept from being opened or executed (counts over a time)";
    AppWouldDeny "app.would_deny" Should Neutral: "in observe mode: what would have been denied (counts over a time)";
    AppLevelChanged "app.level_changed" Must Neutral: "applications are controlled at another level than before";
    AppGuardRestarted "app.guard_restarted" Should Neutral: "the guard's watch was replaced";
    AppGuardShut "app.guard_shut" Must TakesAway: "the guard refuses everything on its volume until an operator looks";
}

impl EventKind {
    /// What precedes the dot: `node` in `node.quarantined`.
    pub fn family(self) -> &'static str {
        self.name()
            .split_once('.')
            .map_or(self.name(), |(family, _)| family)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for EventKind {
    type Error = UnknownKind;

    fn try_from(text: String) -> Result<Self, UnknownKind> {
        text.parse()
    }
}

impl From<EventKind> for &'static str {
    fn from(kind: EventKind) -> Self {
        kind.name()
    }
}
