//! A compiled policy: finite sets of names and rows, from which every node's slice is cut.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use edgeward_identity::{AttestationState, Kind, SpiffeId, Tier, Timestamp, TrustDomain};

use crate::apps::{GroupApps, Signers};
use crate::ast::LabelSets;
use crate::check::{Report, Summary};
use crate::device::Recognition;
use crate::fleet::Labels;
use crate::l7::L7;
use crate::labels::matches;
use crate::profile::{Profile, ProfileLabel};
use crate::seconds::Seconds;
use crate::slice::{CONNECT, Effect, MESH, Proto, States, Term, Tiers};
use crate::source::Place;
use crate::window::Window;
use crate::workload::{Selectors, Workload};

mod approvals;
mod cut;
mod fleet_index;
mod fresh;
mod routes;

pub use approvals::ApprovalTerms;
pub(crate) use approvals::{Approval, BreakGlass};
pub(crate) use fleet_index::IndexedNode;
use fleet_index::SortedInterfaces;
pub use fleet_index::{FleetIndex, MAX_RELAYS};
pub(crate) use routes::{Behind, EMBEDDING_BITS, Route, Seen, embedded};

/// A policy that passed every check.
#[derive(Debug)]
pub struct CompiledPolicy {
    version: u64,
    hash: [u8; 32],
    pub(crate) report: Report,
    pub(crate) profiles: Vec<Profile>,
    /// As results name them, in the same order.
    pub(crate) labels: Vec<ProfileLabel>,
    pub(crate) groups: Vec<Group>,
    pub(crate) operator_groups: Vec<OperatorGroup>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) windows: Vec<Window>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) workloads: Vec<Registration>,
    pub(crate) break_glass: Vec<BreakGlass>,
    pub(crate) devices: Vec<Device>,
    pub(crate) routes: Vec<Route>,
    /// Groups of nodes that may carry others' ciphertext.
    pub(crate) relays: BTreeSet<usize>,
    /// Groups of nodes that may lead to the internet.
    pub(crate) exits: BTreeSet<usize>,
    pub(crate) invariants: Vec<Invariant>,
    pub(crate) signers: Signers,
    pub(crate) apps: Vec<GroupApps>,
    /// Rules whose target is `any`.
    pub(crate) everywhere: Vec<usize>,
    /// Made when it is first asked for; nothing changes a policy after that.
    sorted: OnceLock<Arc<SortedInterfaces>>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) matches: LabelSets,
    pub(crate) profile: Option<usize>,
    /// A group of devices: the group of nodes that vouch for them. Nodes are never in it.
    pub(crate) via: Option<usize>,
}

/// A thing without an agent.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// Name of the node that it hangs on.
    pub(crate) node: String,
    pub(crate) net: String,
    pub(crate) labels: Labels,
    /// Scope of the file that names it: its node must lie in it, too.
    pub(crate) scope: LabelSets,
    pub(crate) recognised: Recognition,
}

/// What must never be allowed, by indices.
#[derive(Debug)]
pub(crate) struct Invariant {
    pub(crate) name: String,
    pub(crate) at: Place,
    pub(crate) from: From,
    /// Every interface; `targets` is empty then.
    pub(crate) everywhere: bool,
    pub(crate) targets: BTreeSet<usize>,
    /// `None`: every action.
    pub(crate) actions: Option<BTreeSet<String>>,
    /// Only outside this window.
    pub(crate) outside: Option<usize>,
    pub(crate) states: Option<Vec<AttestationState>>,
    pub(crate) tiers: Option<Vec<Tier>>,
}

/// A workload, and the group of nodes that may hold its SVIDs.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) on: usize,
    pub(crate) selectors: Selectors,
    pub(crate) ttl: Seconds,
}

#[derive(Debug)]
pub(crate) struct OperatorGroup {
    pub(crate) name: String,
    /// Names of operators, nested groups flattened.
    pub(crate) members: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) service: String,
    pub(crate) name: String,
    /// The group of nodes that offer it.
    pub(crate) on: usize,
    pub(crate) net: String,
    pub(crate) proto: Proto,
    pub(crate) port: u16,
    pub(crate) to: Option<SocketAddr>,
    /// What it leads to in place of the node; then `net` is the tunnel.
    pub(crate) behind: Option<Behind>,
    pub(crate) l7: Option<L7>,
    /// Rules that name it, in order.
    pub(crate) rows: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: Arc<str>,
    pub(crate) effect: Effect,
    pub(crate) from: From,
    pub(crate) everywhere: bool,
    pub(crate) targets: BTreeSet<usize>,
    /// Names; each interface numbers its own.
    pub(crate) actions: Vec<String>,
    pub(crate) window: Option<usize>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) tiers: Tiers,
    pub(crate) states: States,
    /// Profiles, one of which the subject's result must name. `None`: whatever it names.
    pub(crate) profiles: Option<BTreeSet<usize>>,
    /// What the subject must run, as written.
    pub(crate) runs: Vec<String>,
    pub(crate) approval: Option<Approval>,
    /// Some break-glass opens it: certificates must then outlive a long outage.
    pub(crate) opened_by_glass: bool,
    pub(crate) fresh: Term,
    pub(crate) offline: Term,
    pub(crate) max_offline: Seconds,
}

#[derive(Debug, Default)]
pub(crate) struct From {
    pub(crate) any: bool,
    pub(crate) groups: BTreeSet<usize>,
    pub(crate) operator_groups: BTreeSet<usize>,
}

impl Group {
    /// Whether a node with these labels is a member.
    pub(crate) fn has_node(&self, labels: &Labels) -> bool {
        self.via.is_none() && matches(&self.matches, labels)
    }
}

impl Interface {
    /// Whether a device may come there from another node: through the tunnel, to the node itself.
    pub(crate) fn is_open_to_guests(&self) -> bool {
        self.net == MESH && self.behind.is_none()
    }

    /// Names of its actions, in the order in which slices number them.
    pub(crate) fn actions(&self) -> Vec<&str> {
        self.l7.as_ref().map_or_else(|| vec![CONNECT], L7::actions)
    }
}

impl CompiledPolicy {
    pub(crate) fn empty(version: u64, hash: [u8; 32]) -> Self {
        Self {
            version,
            hash,
            report: Report {
                diagnostics: Vec::new(),
                summary: Summary::default(),
                openings: Vec::new(),
                notes: Vec::new(),
                hash: hex::encode(hash),
            },
            profiles: Vec::new(),
            labels: Vec::new(),
            groups: Vec::new(),
            operator_groups: Vec::new(),
            interfaces: Vec::new(),
            windows: Vec::new(),
            rules: Vec::new(),
            workloads: Vec::new(),
            break_glass: Vec::new(),
            devices: Vec::new(),
            routes: Vec::new(),
            relays: BTreeSet::new(),
            exits: BTreeSet::new(),
            invariants: Vec::new(),
            signers: Signers::default(),
            apps: Vec::new(),
            everywhere: Vec::new(),
            sorted: OnceLock::new(),
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the sources.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Counts and openings; no diagnostics, or there would be no policy.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Names of the groups that a node with these labels is in.
    pub fn groups_of(&self, labels: &Labels) -> Vec<&str> {
        self.matching(labels)
            .map(|group| group.name.as_str())
            .collect()
    }

    /// Every profile that a node with these labels must pass, each once, by name. None: nothing makes it `trusted`.
    pub fn profiles_for(&self, labels: &Labels) -> Vec<&Profile> {
        let indices: BTreeSet<usize> = self
            .matching(labels)
            .filter_map(|group| group.profile)
            .collect();
        let mut profiles: Vec<_> = indices
            .iter()
            .filter_map(|index| self.profiles.get(*index))
            .collect();
        profiles.sort_by(|one, other| one.name.cmp(&other.name));
        profiles
    }

    /// Whether a node with these labels may enrol without a TPM: all its profiles accept tier `software`, and there is one.
    pub fn accepts_software(&self, labels: &Labels) -> bool {
        accept_software(&self.profiles_for(labels))
    }

    /// The workloads that a node with these labels may hold SVIDs for, by name: what its slice says of them.
    pub fn workloads_for(&self, domain: &TrustDomain, labels: &Labels) -> Vec<Workload> {
        self.workloads_on(domain, |on| {
            let group = self.groups.get(on);
            group.is_some_and(|group| group.has_node(labels))
        })
    }

    pub(crate) fn workloads_on(
        &self,
        domain: &TrustDomain,
        on: impl Fn(usize) -> bool,
    ) -> Vec<Workload> {
        let mut found: Vec<Workload> = self
            .workloads
            .iter()
            .filter(|workload| on(workload.on))
            .filter_map(|workload| {
                Some(Workload {
                    id: SpiffeId::new(domain, Kind::Workload, &workload.name).ok()?,
                    selectors: workload.selectors.clone(),
                    ttl: workload.ttl,
                })
            })
            .collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found
    }

    fn matching(&self, labels: &Labels) -> impl Iterator<Item = &Group> {
        self.groups
            .iter()
            .filter(move |group| group.has_node(labels))
    }

    pub(crate) fn sources_without_members(&self, from: &From) -> bool {
        !from.any
            && from.groups.is_empty()
            && !from.operator_groups.is_empty()
            && from.operator_groups.iter().all(|group| {
                self.operator_groups
                    .get(*group)
                    .is_none_or(|group| group.members.is_empty())
            })
    }
}

pub(crate) fn accept_software(profiles: &[&Profile]) -> bool {
    !profiles.is_empty()
        && profiles
            .iter()
            .all(|profile| profile.tiers.contains(&Tier::Software))
}
