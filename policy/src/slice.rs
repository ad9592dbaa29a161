//! A slice: the part of the policy one node needs, and nothing about anybody else.
//!
//! The cloud makes it ([`crate::CompiledPolicy::slice`]), signs its JSON, and the node builds its [`crate::Engine`]
//! from it. Unknown fields are refused: an agent never skips a condition that it does not know.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use edgeward_apps::AppRules;
use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::device::SliceDevice;
use crate::l7::L7;
use crate::profile::{Mode, Profile, ProfileLabel};
use crate::seconds::Seconds;
use crate::window::Window;
use crate::workload::Workload;

pub mod beyond;
mod bounds;

pub use beyond::{Beyond, Roles, SeenDevice, SliceRoute};
pub use bounds::{
    MAX_PEER_ROUTES, MAX_SLICE_APPROVALS, MAX_SLICE_BYTES, MAX_SLICE_DEVICES, MAX_SLICE_GROUPS,
    MAX_SLICE_INTERFACES, MAX_SLICE_PEERS, MAX_SLICE_ROUTES, MAX_SLICE_ROWS, SliceError,
};

/// The `schema` of a slice.
pub const SLICE_SCHEMA: &str = "edgeward-slice/5";
/// Shortest SVID lifetime, whatever the rules say.
pub const MIN_SVID_LIFETIME: Seconds = Seconds::from_hours(24);

/// Index into [`Slice::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u32);

/// Index into [`Slice::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerIndex(pub u32);

/// Index into [`Slice::interfaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfaceIndex(pub u32);

/// Index into [`Slice::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceIndex(pub u32);

/// What one node needs of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// [`SLICE_SCHEMA`].
    pub schema: String,
    /// The policy's number: only ever rises.
    pub version: u64,
    /// SHA-256 of the policy's sources, hex.
    pub policy_hash: String,
    pub node: SpiffeId,
    /// What it does for others.
    pub roles: Roles,
    /// Networks behind it, to which it leads.
    pub routes: Vec<SliceRoute>,
    /// Past this nothing is allowed.
    pub expires: Timestamp,
    /// Names of the groups that rows and peers refer to by index.
    pub groups: Vec<String>,
    pub windows: Vec<Window>,
    /// The node's own interfaces: what others may reach here.
    pub interfaces: Vec<SliceInterface>,
    /// Nodes it may meet, in either direction.
    pub peers: Vec<SlicePeer>,
    /// Operators that its rows may name.
    pub operators: Vec<SliceOperator>,
    /// Interfaces of peers that this node may reach.
    pub egress: Vec<Egress>,
    /// What this node itself must measure.
    pub profiles: Vec<Profile>,
    pub lifetimes: Lifetimes,
    /// Processes on this node that may have an identity of their own.
    pub workloads: Vec<Workload>,
    /// Things without an agent that hang on this node.
    pub devices: Vec<SliceDevice>,
    /// Approvals in force for rules that ask for one.
    pub approvals: Vec<SliceApproval>,
    /// What may be opened here with the cloud gone.
    pub break_glass: Vec<SliceBreakGlass>,
    /// Applications that may run on this node, and who may sign them.
    pub apps: AppRules,
}

/// A rule that asks for an approval has one, for one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceApproval {
    pub rule: Arc<str>,
    pub subject: SpiffeId,
    pub until: Timestamp,
}

/// `[break-glass.x]` as it bears on one node: what a grant that was sealed beforehand opens here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceBreakGlass {
    pub name: String,
    /// Allow rules, never empty. Opening waives their window, end, approval and age; who, what, state, tier,
    /// profile and every deny stay.
    pub rules: Vec<Arc<str>>,
    /// Who may open it: operators, groups flattened, sorted.
    pub by: Vec<SpiffeId>,
    /// How many of them it takes, at least one.
    pub quorum: u16,
    /// How long it stays open.
    pub ttl: Seconds,
    /// Numbers of grants for this node that were issued, have not ended, and open nothing any more; sorted.
    pub revoked: Vec<u64>,
}

/// One way to reach this node, and who may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceInterface {
    pub service: String,
    pub name: String,
    /// Network interface on the node; [`MESH`] is the tunnel.
    pub net: String,
    pub proto: Proto,
    /// Zero, which is every port, for [`Beyond::Internet`] and for nothing else.
    pub port: u16,
    /// Where the node forwards it, if not to itself.
    pub to: Option<SocketAddr>,
    /// What it leads to in place of the node itself. Then `net` is [`MESH`], and neither `to` nor `l7` is there.
    pub beyond: Option<Beyond>,
    /// What is told apart within it. `None`: one action, `connect`.
    pub l7: Option<L7>,
    pub rows: Vec<Row>,
}

/// The name of the tunnel among network interfaces.
pub const MESH: &str = "mesh";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Allow,
    Deny,
}

/// What is done to an interface: index into [`SliceInterface::actions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u8);

/// The name of the one action that an interface without `l7` has.
pub const CONNECT: &str = "connect";

/// One rule as it bears on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub rule: Arc<str>,
    pub effect: Effect,
    pub from: Sources,
    /// Never empty.
    pub actions: Vec<ActionId>,
    /// Index into [`Slice::windows`].
    pub window: Option<u32>,
    pub until: Option<Timestamp>,
    pub tiers: Tiers,
    pub states: States,
    pub profiles: Profiles,
    /// What the subject's evidence must say that it runs, as the rule has it; all of these.
    pub runs: Vec<String>,
    /// Whether the subject must have an approval ([`Slice::approvals`]).
    pub approval: bool,
    pub fresh: Term,
    pub offline: Term,
}

/// Who a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sources {
    /// Every node of the fleet, every operator that some operator group names, and every device of the node. A deny is
    /// about devices behind other nodes, too; an allow lets those in by their groups only.
    Any,
    /// Members of one of these, never empty.
    Groups(Vec<GroupId>),
}

/// Which tiers a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tiers {
    /// Every tier but `software`: an allow that names no tier.
    Rooted,
    /// Every tier, known or not: a deny that names no tier.
    Every,
    /// One of these, never empty.
    These(Vec<Tier>),
}

/// Which attestation states a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum States {
    /// `trusted`; for devices `vouched`: an allow that names no state.
    Proven,
    /// Every state: a deny that excepts none.
    Every,
    /// One of these, never empty.
    These(Vec<AttestationState>),
    /// All but these: a deny with `unless_state`.
    Unless(Vec<AttestationState>),
}

/// Which results a row is about, by the profiles that they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profiles {
    /// Every result, and none.
    Every,
    /// Those that name one of these, as it is now; never empty.
    These(Vec<ProfileLabel>),
}

/// How old a pass may be: what the rule says, or the default beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The rule's own word.
    pub own: Option<Seconds>,
    /// The directory's default, or the built-in one.
    pub default: Seconds,
    /// The most it may come to: the directory's `max_offline`.
    pub most: Option<Seconds>,
}

/// A node this one may meet. Its AllowedIPs are its addresses and `routes`, and those of the internet where it is this
/// node's exit; never what it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlicePeer {
    pub id: SpiffeId,
    pub groups: Vec<GroupId>,
    pub v6: Ipv6Addr,
    pub v4: Option<Ipv4Addr>,
    /// The strictest `fresh` of its profiles.
    pub fresh: Option<Seconds>,
    /// The strictest `offline` of its profiles.
    pub offline: Option<Seconds>,
    /// Whether one of its groups names tier `software`.
    pub software: bool,
    /// Whether it may carry this node's ciphertext to others.
    pub relay: bool,
    /// Whether some rule lets this node to the internet through it.
    pub exit: bool,
    /// What of the networks behind it this node may reach, as the overlay knows them; sorted, none inside another.
    pub routes: Vec<IpNet>,
    /// The devices behind it whose addresses policy names, by ID: those that lie in `routes`, and those that may come here.
    pub devices: Vec<SeenDevice>,
}

/// An operator that the rows of this slice may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceOperator {
    pub id: SpiffeId,
    pub groups: Vec<GroupId>,
}

/// One interface of a peer that this node may reach. The peer decides; this side opens its own filter no wider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    pub peer: PeerIndex,
    pub service: String,
    pub interface: String,
    pub proto: Proto,
    /// Zero, which is every port, for [`Beyond::Internet`] and for nothing else.
    pub port: u16,
    /// What it leads to in place of the peer itself.
    pub beyond: Option<Beyond>,
    /// The devices of this node that it is for, sorted; none: it is for this node itself.
    pub devices: Vec<DeviceIndex>,
    /// The allows that name this node, or these devices; never empty.
    pub rows: Vec<EgressRow>,
}

/// One allow that names this node, or a device of it, as its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRow {
    pub rule: Arc<str>,
    pub window: Option<u32>,
    pub until: Option<Timestamp>,
    /// Whether who comes must have an approval ([`Slice::approvals`]).
    pub approval: bool,
    pub fresh: Term,
    pub offline: Term,
}

/// What the lifetime of the node's SVID follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// The largest `offline` among the rules that touch the node.
    pub largest_offline: Seconds,
    pub max_offline: Seconds,
}

impl Proto {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl ActionId {
    /// The only action of an interface without `l7`.
    pub const CONNECT: Self = Self(0);
}

impl SliceInterface {
    /// Names of its actions, in the order of their [`ActionId`]s.
    pub fn actions(&self) -> Vec<&str> {
        self.l7.as_ref().map_or_else(|| vec![CONNECT], L7::actions)
    }

    /// How many actions it has, `connect` among them.
    pub fn action_count(&self) -> usize {
        1 + self.l7.as_ref().map_or(0, L7::action_count)
    }

    pub fn action(&self, name: &str) -> Option<ActionId> {
        let position = self.actions().iter().position(|known| *known == name)?;
        u8::try_from(position).ok().map(ActionId)
    }

    /// Whether a device may come there from another node: through the tunnel, to this node itself.
    pub fn is_open_to_guests(&self) -> bool {
        self.net == MESH && self.beyond.is_none()
    }

    /// Whether the agent itself answers here and forwards: for what it has to read, and for what lies elsewhere.
    pub fn is_forwarded(&self) -> bool {
        self.l7.is_some() || self.to.is_some()
    }
}

impl Term {
    /// The term for a subject whose profiles say `profile`. A rule may be stricter than a profile, never laxer.
    pub fn for_profile(self, profile: Option<Seconds>) -> Seconds {
        let term = match (self.own, profile) {
            (Some(own), Some(profile)) => own.min(profile),
            (Some(own), None) => own,
            (None, Some(profile)) => profile,
            (None, None) => self.default,
        };
        self.most.map_or(term, |most| term.min(most))
    }
}

impl Slice {
    /// Every profile that a row asks for.
    pub fn profiles_asked_for(&self) -> BTreeSet<&ProfileLabel> {
        let rows = self.interfaces.iter().flat_map(|interface| &interface.rows);
        rows.filter_map(|row| match &row.profiles {
            Profiles::Every => None,
            Profiles::These(these) => Some(these),
        })
        .flatten()
        .collect()
    }
}

impl Slice {
    /// The PCR that this node measures into what it installs and runs: that of its profiles that are enforced, else of
    /// those that are not yet. Where two differ the cloud compares neither.
    pub fn apps_pcr(&self) -> Option<u8> {
        let of = |mode: Mode| {
            let mut profiles = self.profiles.iter().filter(move |one| one.mode == mode);
            profiles.find_map(|profile| profile.apps_pcr)
        };
        of(Mode::Enforce).or_else(|| of(Mode::Monitor))
    }
}

impl Lifetimes {
    /// Twice the largest `offline`, at least 24 h, at most twice `max_offline`.
    pub fn svid_lifetime(self) -> Seconds {
        self.largest_offline
            .doubled()
            .max(MIN_SVID_LIFETIME)
            .min(self.max_offline.doubled())
    }
}
