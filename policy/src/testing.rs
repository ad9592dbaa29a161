//! A compiled policy laid open, for who decides by it without slices, rows and engine: other crates' tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_identity::Timestamp;

use crate::compile::CompiledPolicy;
use crate::fleet::Labels;
use crate::profile::{Profile, ProfileLabel};
use crate::slice::{Effect, States, Term, Tiers};
use crate::window::Window;

/// Publishers `acme` and `evil`, of whom everything may run on the nodes of a group.
pub fn publishers_on(group: &str) -> String {
    let publisher = |name: &str, byte: &str| {
        let key = byte.repeat(32);
        format!("[publisher.{name}]\nkeys = [\"ed25519:{key}\"]\nthreshold = 1\n")
    };
    format!(
        "{}{}[apps.{group}]\nallow = [{{ publisher = \"acme\" }}, {{ publisher = \"evil\" }}]\n",
        publisher("acme", "ab"),
        publisher("evil", "cd"),
    )
}

/// Everything that decisions follow from. Parts refer to each other by their places in these lists.
pub struct Whole<'p> {
    pub profiles: &'p [Profile],
    /// As results name the profiles, in the same order.
    pub labels: &'p [ProfileLabel],
    pub groups: Vec<WholeGroup<'p>>,
    /// Names of the operators in each group, nested groups flattened.
    pub operator_groups: Vec<&'p BTreeSet<String>>,
    pub interfaces: Vec<WholeInterface<'p>>,
    pub windows: &'p [Window],
    pub devices: Vec<WholeDevice<'p>>,
    pub rules: Vec<WholeRule<'p>>,
}

pub struct WholeGroup<'p> {
    pub matches: &'p BTreeMap<String, BTreeSet<String>>,
    pub profile: Option<usize>,
    /// A group of devices: the group of nodes that vouch for them. Nodes are never in it.
    pub via: Option<usize>,
}

pub struct WholeInterface<'p> {
    pub service: &'p str,
    pub name: &'p str,
    /// The group of nodes that offer it.
    pub on: usize,
    pub actions: Vec<&'p str>,
}

pub struct WholeDevice<'p> {
    pub name: &'p str,
    /// Name of the node that it hangs on.
    pub node: &'p str,
    pub net: &'p str,
    pub labels: &'p Labels,
    /// Its node must lie in this.
    pub scope: &'p BTreeMap<String, BTreeSet<String>>,
}

pub struct WholeRule<'p> {
    pub id: &'p Arc<str>,
    pub effect: Effect,
    pub any: bool,
    pub groups: &'p BTreeSet<usize>,
    pub operator_groups: &'p BTreeSet<usize>,
    /// Its target is `any`; `targets` is empty then.
    pub everywhere: bool,
    pub targets: &'p BTreeSet<usize>,
    pub actions: &'p [String],
    pub window: Option<usize>,
    pub until: Option<Timestamp>,
    pub tiers: &'p Tiers,
    pub states: &'p States,
    pub profiles: Option<&'p BTreeSet<usize>>,
    pub runs: &'p [String],
    pub approval: bool,
    pub fresh: Term,
    pub offline: Term,
}

impl CompiledPolicy {
    /// All of it.
    pub fn whole(&self) -> Whole<'_> {
        let groups = self.groups.iter().map(|group| WholeGroup {
            matches: &group.matches,
            profile: group.profile,
            via: group.via,
        });
        let interfaces = self.interfaces.iter().map(|interface| WholeInterface {
            service: &interface.service,
            name: &interface.name,
            on: interface.on,
            actions: interface.actions(),
        });
        let devices = self.devices.iter().map(|device| WholeDevice {
            name: &device.name,
            node: &device.node,
            net: &device.net,
            labels: &device.labels,
            scope: &device.scope,
        });
        let rules = self.rules.iter().map(|rule| WholeRule {
            id: &rule.id,
            effect: rule.effect,
            any: rule.from.any,
            groups: &rule.from.groups,
            operator_groups: &rule.from.operator_groups,
            everywhere: rule.everywhere,
            targets: &rule.targets,
            actions: &rule.actions,
            window: rule.window,
            until: rule.until,
            tiers: &rule.tiers,
            states: &rule.states,
            profiles: rule.profiles.as_ref(),
            runs: &rule.runs,
            approval: rule.approval.is_some(),
            fresh: rule.fresh,
            offline: rule.offline,
        });
        let members = self.operator_groups.iter().map(|group| &group.members);
        Whole {
            profiles: &self.profiles,
            labels: &self.labels,
            groups: groups.collect(),
            operator_groups: members.collect(),
            interfaces: interfaces.collect(),
            windows: &self.windows,
            devices: devices.collect(),
            rules: rules.collect(),
        }
    }
}
