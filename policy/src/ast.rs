//! Policy files as written: names not yet looked up, every part with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use edgeward_apps::admit::{self, Allow, Deny};
use edgeward_apps::{Digest, PublisherKeys, PublisherName};
use edgeward_identity::{AttestationState, Tier, Timestamp};
use ipnet::IpNet;

use crate::apps::Install;
use crate::compile::Seen;
use crate::decision::{Reason, Verdict};
use crate::device::Recognition;
use crate::fleet::Labels;
use crate::l7::L7;
use crate::profile::{Profile, Violations};
use crate::seconds::Seconds;
use crate::slice::{Effect, Proto};
use crate::source::{Place, Placed};
use crate::window::Window;
use crate::workload::Selectors;

/// A conjunction of `key in {values}`; never empty, nor any of its sets.
pub(crate) type LabelSets = BTreeMap<String, BTreeSet<String>>;

/// One file. What could not be read is left out; the diagnostics then keep the policy from being compiled.
pub(crate) struct PolicyFile {
    pub(crate) file: usize,
    pub(crate) directory: String,
    pub(crate) scope: Scope,
    pub(crate) defaults: Option<Defaults>,
    pub(crate) profiles: Vec<ProfileDef>,
    pub(crate) groups: Vec<GroupDef>,
    pub(crate) devices: Vec<DeviceDef>,
    pub(crate) operator_groups: Vec<OperatorGroupDef>,
    pub(crate) services: Vec<ServiceDef>,
    pub(crate) windows: Vec<WindowDef>,
    pub(crate) rules: Vec<RuleDef>,
    pub(crate) tests: Vec<TestDef>,
    pub(crate) invariants: Vec<InvariantDef>,
    pub(crate) workloads: Vec<WorkloadDef>,
    pub(crate) routes: Vec<RouteDef>,
    pub(crate) role: Option<RoleDef>,
    pub(crate) publishers: Vec<PublisherDef>,
    pub(crate) apps: Vec<AppsDef>,
    /// SHA-256 of the first root of the image repository.
    pub(crate) apps_root: Option<Placed<Digest>>,
    pub(crate) break_glass: Vec<BreakGlassDef>,
    /// Names that stand in the file though their definition could not be read: (kind, name).
    pub(crate) unreadable: BTreeSet<(&'static str, String)>,
}

pub(crate) enum Scope {
    /// The whole trust domain, said in so many words.
    Any(Place),
    Labels(LabelSets),
    /// Could not be read; an error stands already.
    Unreadable,
}

#[derive(Default)]
pub(crate) struct Defaults {
    pub(crate) fresh: Option<Placed<Seconds>>,
    pub(crate) offline: Option<Placed<Seconds>>,
    pub(crate) tier: Option<Placed<Vec<Tier>>>,
    pub(crate) max_offline: Option<Placed<Seconds>>,
}

pub(crate) struct ProfileDef {
    pub(crate) at: Place,
    pub(crate) offline_at: Option<Place>,
    pub(crate) mode_at: Option<Place>,
    pub(crate) ima: Option<ImaDef>,
    /// Without what `ima` asks for: its lists are looked up later.
    pub(crate) profile: Profile,
}

pub(crate) struct ImaDef {
    /// Path of a list.
    pub(crate) allow: Placed<String>,
    pub(crate) deny: Option<Placed<String>>,
    pub(crate) violations: Violations,
    pub(crate) violations_at: Place,
}

pub(crate) struct GroupDef {
    pub(crate) name: Placed<String>,
    pub(crate) matches: LabelSets,
    pub(crate) profile: Option<Placed<String>>,
    /// A group of devices: the group of nodes that vouch for its members.
    pub(crate) via: Option<Placed<String>>,
}

pub(crate) struct DeviceDef {
    pub(crate) name: Placed<String>,
    /// Name of the node that it hangs on.
    pub(crate) node: Placed<String>,
    /// Network interface of that node.
    pub(crate) net: String,
    pub(crate) labels: Placed<Labels>,
    pub(crate) recognised: Placed<Recognition>,
}

pub(crate) struct OperatorGroupDef {
    pub(crate) name: Placed<String>,
    pub(crate) members: Vec<Placed<Member>>,
}

pub(crate) enum Member {
    Operator(String),
    Group(String),
}

pub(crate) struct ServiceDef {
    pub(crate) name: Placed<String>,
    pub(crate) on: Placed<String>,
    pub(crate) interfaces: Vec<InterfaceDef>,
}

pub(crate) struct InterfaceDef {
    pub(crate) name: Placed<String>,
    pub(crate) net: String,
    pub(crate) proto: Proto,
    pub(crate) port: u16,
    pub(crate) to: Option<SocketAddr>,
    pub(crate) behind: Option<BehindDef>,
    pub(crate) l7: Option<L7>,
    /// Patterns of two actions that some request fits both.
    pub(crate) overlaps: Vec<Overlap>,
}

/// What an interface leads to in place of the node.
pub(crate) enum BehindDef {
    Route(Placed<String>),
    Device(Placed<String>),
}

/// A network behind nodes.
pub(crate) struct RouteDef {
    pub(crate) name: Placed<String>,
    /// The group of nodes that lead there.
    pub(crate) on: Placed<String>,
    /// Network interface of those nodes.
    pub(crate) net: String,
    pub(crate) prefix: Placed<IpNet>,
    pub(crate) seen: Placed<Seen>,
}

/// What nodes do for others: names of groups.
pub(crate) struct RoleDef {
    pub(crate) relay: Vec<Placed<String>>,
    pub(crate) exit: Vec<Placed<String>>,
}

/// Who may sign what runs.
pub(crate) struct PublisherDef {
    pub(crate) name: Placed<PublisherName>,
    pub(crate) keys: PublisherKeys,
    /// Who must have signed the image that an app was made from.
    pub(crate) cosign: Option<PublisherKeys>,
}

/// What may run on a group of nodes.
pub(crate) struct AppsDef {
    /// The group's.
    pub(crate) name: Placed<String>,
    pub(crate) allow: Vec<Placed<Allow>>,
    pub(crate) deny: Vec<Placed<Deny>>,
    pub(crate) install: Vec<Placed<Install>>,
    pub(crate) mode: admit::Mode,
    /// Where it says that nothing is enforced.
    pub(crate) observed_at: Option<Place>,
}

/// A request may be two actions at once: denied where either is.
pub(crate) struct Overlap {
    pub(crate) at: Place,
    /// The later action and its pattern, then the earlier.
    pub(crate) action: String,
    pub(crate) pattern: String,
    pub(crate) other_action: String,
    pub(crate) other_pattern: String,
}

pub(crate) struct WorkloadDef {
    pub(crate) name: Placed<String>,
    pub(crate) on: Placed<String>,
    pub(crate) selectors: Placed<Selectors>,
    pub(crate) ttl: Seconds,
}

pub(crate) struct WindowDef {
    pub(crate) at: Place,
    pub(crate) window: Window,
}

pub(crate) struct RuleDef {
    pub(crate) id: Placed<String>,
    pub(crate) effect: Effect,
    pub(crate) from: Vec<Placed<Source>>,
    pub(crate) to: Vec<Placed<TargetName>>,
    pub(crate) actions: Vec<Placed<String>>,
    pub(crate) window: Option<Placed<String>>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) fresh: Option<Placed<Seconds>>,
    pub(crate) offline: Option<Placed<Seconds>>,
    pub(crate) tier: Option<Placed<Vec<Tier>>>,
    pub(crate) state: Option<Placed<Vec<AttestationState>>>,
    pub(crate) unless_state: Option<Placed<Vec<AttestationState>>>,
    /// Names of profiles, never empty.
    pub(crate) profiles: Option<Vec<Placed<String>>>,
    /// As written: `publisher/name` or `publisher/name>=version`.
    pub(crate) runs: Vec<Placed<String>>,
    pub(crate) approval: Option<ApprovalDef>,
}

/// Who must have said yes before an allow counts.
pub(crate) struct ApprovalDef {
    pub(crate) at: Place,
    /// Names of operator groups, never empty.
    pub(crate) by: Vec<Placed<String>>,
    pub(crate) quorum: Placed<u16>,
    pub(crate) ttl: Placed<Seconds>,
}

pub(crate) struct BreakGlassDef {
    pub(crate) name: Placed<String>,
    /// Ids of rules, never empty.
    pub(crate) grants: Vec<Placed<String>>,
    /// Names of operator groups, never empty.
    pub(crate) by: Vec<Placed<String>>,
    pub(crate) quorum: Placed<u16>,
    pub(crate) ttl: Placed<Seconds>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Any,
    Group(String),
    OperatorGroup(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetName {
    Any,
    /// The internet, through any node that leads there.
    Exit,
    Interface {
        service: String,
        interface: String,
    },
}

pub(crate) struct TestDef {
    pub(crate) at: Place,
    pub(crate) name: String,
    pub(crate) groups: Vec<Placed<String>>,
    pub(crate) operator_groups: Vec<Placed<String>>,
    /// `None`: `trusted`, for devices `vouched`.
    pub(crate) state: Option<AttestationState>,
    pub(crate) tier: Option<Tier>,
    pub(crate) age: Seconds,
    /// `None`: those of its groups.
    pub(crate) profiles: Option<Vec<Placed<String>>>,
    /// What its evidence says that it runs, by app and version. `None`: that is not known.
    pub(crate) runs: Option<BTreeMap<String, String>>,
    pub(crate) to: Placed<TargetName>,
    /// `None`: whatever actions the request fits.
    pub(crate) action: Option<Placed<String>>,
    /// One request of the interface's protocol, as text.
    pub(crate) l7: Option<Placed<String>>,
    pub(crate) expect: Verdict,
    pub(crate) by: Option<Placed<String>>,
    pub(crate) because: Option<Reason>,
    pub(crate) when: Option<Timestamp>,
    /// Whether the subject has every approval that a rule asks for.
    pub(crate) approved: bool,
}

/// What must never be allowed, to be proved of every subject, time and standing.
pub(crate) struct InvariantDef {
    pub(crate) name: Placed<String>,
    /// Never empty.
    pub(crate) from: Vec<Placed<Source>>,
    /// Never empty.
    pub(crate) to: Vec<Placed<TargetName>>,
    /// `None`: every action.
    pub(crate) actions: Option<Vec<Placed<String>>>,
    /// Only outside this window; `None`: at any time.
    pub(crate) outside: Option<Placed<String>>,
    /// Only in these states; `None`: in any.
    pub(crate) state: Option<Placed<Vec<AttestationState>>>,
    /// Only in these tiers; `None`: in any.
    pub(crate) tier: Option<Placed<Vec<Tier>>>,
}
