//! Devices: within the file's scope, in a group that somebody vouches for, and told apart.

use std::collections::{BTreeMap, HashMap};

use super::Resolver;
use crate::ast::{DeviceDef, LabelSets, PolicyFile, Scope};
use crate::compile::Device;
use crate::device::Recognition;
use crate::diagnostic::Code;
use crate::labels::matches;
use crate::slice::MAX_SLICE_DEVICES;
use crate::source::Place;

impl Resolver<'_, '_> {
    pub(super) fn devices(&mut self, files: &[PolicyFile]) {
        let mut places = Vec::new();
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for (file, def) in files
            .iter()
            .flat_map(|file| file.devices.iter().map(move |def| (file, def)))
        {
            let (name, at) = (&def.name.value, def.name.at);
            let index = self.policy.devices.len();
            if !self.device_names.define(name, at, index, self.found) {
                continue;
            }
            let scope = self.device_scope(file, def);
            self.require_group(def);
            let count = on_node.entry(&def.node.value).or_default();
            *count += 1;
            if *count == MAX_SLICE_DEVICES + 1 {
                let message = format!(
                    "more devices on node `{}` than the limit: {MAX_SLICE_DEVICES}",
                    def.node.value
                );
                self.found.error(at, Code::TooMuch, message);
            }
            places.push((at, def.recognised.at));
            self.policy.devices.push(Device {
                name: name.clone(),
                node: def.node.value.clone(),
                net: def.net.clone(),
                labels: def.labels.value.clone(),
                scope,
                recognised: def.recognised.value.clone(),
            });
        }
        self.alike(&places);
    }

    /// The file's scope, which the labels must lie in.
    fn device_scope(&mut self, file: &PolicyFile, def: &DeviceDef) -> LabelSets {
        let Scope::Labels(scope) = &file.scope else {
            return LabelSets::new();
        };
        if !matches(scope, &def.labels.value) {
            let labels = def.labels.value.iter();
            let own = labels.map(|(key, value)| (key.clone(), [value.clone()].into()));
            let what = format!("device `{}`", def.name.value);
            self.require_in_scope(file, &own.collect(), def.labels.at, &what);
        }
        scope.clone()
    }

    /// A device in no group is in no rule's reach.
    fn require_group(&mut self, def: &DeviceDef) {
        let mut groups = self.policy.groups.iter();
        let found =
            groups.any(|group| group.via.is_some() && matches(&group.matches, &def.labels.value));
        if !found && !self.unsure_of_groups {
            self.found.error_with_help(
                def.labels.at,
                Code::MatchesNobody,
                format!("device `{}` is in no group", def.name.value),
                "a group with `via` takes devices in by their labels: [group.plcs] match = { … }, via = \"gateways\"",
            );
        }
    }

    /// Two devices at one network interface that one thing could be both of, and two of one certificate anywhere.
    fn alike(&mut self, places: &[(Place, Place)]) {
        let devices = &self.policy.devices;
        let mut seen: BTreeMap<(&str, &str, Part<'_>), Vec<usize>> = BTreeMap::new();
        let mut clashes = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            for part in parts(&device.recognised) {
                let (node, net) = match part {
                    Part::Certificate(_) => ("", ""),
                    _ => (device.node.as_str(), device.net.as_str()),
                };
                let others = seen.entry((node, net, part)).or_default();
                let clash = others.iter().find(|other| {
                    let other = devices.get(**other).map(|other| &other.recognised);
                    matches!(part, Part::Certificate(_))
                        || other.is_some_and(|other| may_be_both(other, &device.recognised))
                });
                clashes.extend(clash.map(|other| (*other, index)));
                others.push(index);
            }
        }
        clashes.dedup_by_key(|(_, index)| *index);
        for (first, second) in clashes {
            let (Some((first, _)), Some((_, at))) = (places.get(first), places.get(second)) else {
                continue;
            };
            let shown = self.found.show(*first);
            self.found.error_with_help(
                *at,
                Code::DuplicateName,
                format!("the device at {shown} may be recognised by the same"),
                "what is recognised must be one device: name what tells them apart",
            );
        }
    }
}

/// One thing that a device is recognised by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'r> {
    Mac(crate::device::Mac),
    Ip(std::net::IpAddr),
    Certificate(&'r str),
}

fn parts(recognised: &Recognition) -> impl Iterator<Item = Part<'_>> {
    let mac = recognised.mac.map(Part::Mac);
    let ip = recognised.ip.map(Part::Ip);
    let certificate = recognised.certificate.as_deref().map(Part::Certificate);
    [mac, ip, certificate].into_iter().flatten()
}

/// Nothing that both name differs.
fn may_be_both(one: &Recognition, other: &Recognition) -> bool {
    fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    }
    agree(one.mac.as_ref(), other.mac.as_ref())
        && agree(one.ip.as_ref(), other.ip.as_ref())
        && agree(one.certificate.as_ref(), other.certificate.as_ref())
}
