//! Routes, roles, and interfaces that lead beyond their nodes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Resolver;
use crate::ast::{BehindDef, InterfaceDef, PolicyFile, RouteDef};
use crate::compile::{Behind, Interface, Route};
use crate::diagnostic::Code;
use crate::labels::may_meet;
use crate::parse::EXIT;
use crate::slice::{MAX_SLICE_ROUTES, MESH, Proto};
use crate::source::{Place, Placed};

impl Resolver<'_, '_> {
    pub(super) fn routes(&mut self, files: &[PolicyFile]) {
        let mut places: Vec<Place> = Vec::new();
        let defs = files
            .iter()
            .flat_map(|file| file.routes.iter().map(move |def| (file, def)));
        for (file, def) in defs {
            let index = self.policy.routes.len();
            let name = &def.name;
            if !self
                .route_names
                .define(&name.value, name.at, index, self.found)
            {
                continue;
            }
            let Some(on) = self.group_in_scope(file, &def.on, "route") else {
                continue;
            };
            self.apart(def, on, &places);
            let same = self.policy.routes.iter().filter(|route| route.on == on);
            if same.count() >= MAX_SLICE_ROUTES {
                self.found.error(
                    name.at,
                    Code::TooMuch,
                    format!("more routes on one group than the limit: {MAX_SLICE_ROUTES}"),
                );
            }
            places.push(def.seen.at);
            self.policy.routes.push(Route {
                name: name.value.clone(),
                on,
                net: def.net.clone(),
                prefix: def.prefix.value,
                seen: def.seen.value,
            });
        }
    }

    /// The overlay has one place for each address, and so has each node.
    fn apart(&mut self, def: &RouteDef, on: usize, places: &[Place]) {
        self.apart_on_nodes(def, on, places);
        let route = Route {
            name: String::new(),
            on,
            net: String::new(),
            prefix: def.prefix.value,
            seen: def.seen.value,
        };
        let Some(seen) = route.seen() else {
            return;
        };
        let overlaps = |other: IpNet| other.contains(&seen) || seen.contains(&other);
        let mut earlier = self.policy.routes.iter().zip(places);
        let clash = earlier.find(|(route, _)| route.seen().is_some_and(overlaps));
        if let Some((_, at)) = clash {
            let shown = self.found.show(*at);
            self.found.error_with_help(
                def.seen.at,
                Code::RouteClash,
                format!("the overlay knows addresses of the route at {shown} the same way"),
                "give one of them another network by `as`; \"per-node\" gives every node its own",
            );
        }
    }

    /// A node that leads to two networks of the same addresses could not tell whose answers come back.
    fn apart_on_nodes(&mut self, def: &RouteDef, on: usize, places: &[Place]) {
        let prefix = def.prefix.value;
        let matches = |group: usize| self.policy.groups.get(group).map(|group| &group.matches);
        let clash = self.policy.routes.iter().zip(places).find(|(route, _)| {
            let overlaps = route.prefix.contains(&prefix) || prefix.contains(&route.prefix);
            let both = matches(route.on).zip(matches(on));
            overlaps && both.is_some_and(|(one, other)| may_meet(one, other))
        });
        if let Some((_, at)) = clash {
            let shown = self.found.show(*at);
            self.found.error_with_help(
                def.prefix.at,
                Code::RouteClash,
                format!("a node may lead to these addresses by the route at {shown}, too"),
                "name groups that no node can be in at once",
            );
        }
    }

    /// What an interface on a group leads to; `None` where that is wrong.
    pub(super) fn behind(&mut self, def: &InterfaceDef, on: usize) -> Option<Option<Behind>> {
        match &def.behind {
            None => Some(None),
            Some(BehindDef::Route(name)) => {
                let index = self.route_names.require_placed(name, self.found)?;
                let led = self.policy.routes.get(index).map(|route| route.on);
                if led != Some(on) {
                    self.found.error_with_help(
                        name.at,
                        Code::MatchesNobody,
                        format!("route `{}` is on another group than the service", name.value),
                        "the nodes that offer an interface are those that lead there: the same group in both",
                    );
                    return None;
                }
                Some(Some(Behind::Route(index)))
            }
            Some(BehindDef::Device(name)) => {
                let index = self.device_names.require_placed(name, self.found)?;
                self.device_behind(name, index, on)?;
                Some(Some(Behind::Device(index)))
            }
        }
    }

    /// The device lies in a route of the group.
    fn device_behind(&mut self, name: &Placed<String>, index: usize, on: usize) -> Option<()> {
        let device = self.policy.devices.get(index)?;
        let address = device.recognised.ip;
        let mut routes = self.policy.routes.iter();
        let led = address.is_some_and(|address| {
            routes.any(|route| {
                route.on == on && route.net == device.net && route.prefix.contains(&address)
            })
        });
        if !led {
            self.found.error_with_help(
                name.at,
                Code::MatchesNobody,
                format!("no route of the service's group leads to device `{}`", name.value),
                "the device needs an `ip` inside the prefix of a [route.x] on that group and at its network interface",
            );
        }
        led.then_some(())
    }

    /// Who carries for others, and who leads to the internet: the latter with ways in of its own.
    pub(super) fn roles(&mut self, files: &[PolicyFile]) {
        let roles = files
            .iter()
            .filter_map(|file| Some((file, file.role.as_ref()?)));
        for (file, def) in roles {
            for name in &def.relay {
                let group = self.group_in_scope(file, name, "role relay");
                self.policy.relays.extend(group);
            }
            for name in &def.exit {
                let Some(group) = self.group_in_scope(file, name, "role exit") else {
                    continue;
                };
                if self.policy.exits.insert(group) {
                    self.exit_through(group, name);
                }
            }
        }
    }

    fn exit_through(&mut self, on: usize, group: &Placed<String>) {
        for proto in [Proto::Tcp, Proto::Udp] {
            let name = format!("{}.{}", group.value, proto.as_str());
            let index = self.policy.interfaces.len();
            let full_name = format!("{EXIT}/{name}");
            if self
                .interface_names
                .define(&full_name, group.at, index, self.found)
            {
                self.interface_places.push(group.at);
                self.policy.interfaces.push(Interface {
                    service: EXIT.to_owned(),
                    name,
                    on,
                    net: MESH.to_owned(),
                    proto,
                    port: 0,
                    to: None,
                    behind: Some(Behind::Internet),
                    l7: None,
                    rows: Vec::new(),
                });
            }
        }
    }

    /// Every way to the internet, each within the file's scope.
    pub(super) fn exit_targets(
        &mut self,
        file: &PolicyFile,
        at: Place,
        rule: &str,
    ) -> BTreeSet<usize> {
        let found = self.exit_interfaces(at);
        let groups: BTreeSet<usize> = found
            .iter()
            .filter_map(|index| Some(self.policy.interfaces.get(*index)?.on))
            .collect();
        for group in groups {
            let group = self.policy.groups.get(group);
            let Some((name, matches)) =
                group.map(|group| (group.name.clone(), group.matches.clone()))
            else {
                continue;
            };
            let what = format!("target `{EXIT}` of rule `{rule}` through group `{name}`");
            self.require_in_scope(file, &matches, at, &what);
        }
        found
    }

    pub(super) fn exit_interfaces(&mut self, at: Place) -> BTreeSet<usize> {
        let interfaces = self.policy.interfaces.iter().enumerate();
        let exits = interfaces.filter(|(_, known)| known.behind == Some(Behind::Internet));
        let found: BTreeSet<usize> = exits.map(|(index, _)| index).collect();
        if found.is_empty() {
            self.found.error_with_help(
                at,
                Code::MatchesNobody,
                "no node leads to the internet",
                "name the groups that may: [role] exit = [\"gateways\"]",
            );
        }
        found
    }
}
