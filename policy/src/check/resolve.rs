//! Names to indices, scopes kept, conditions where they belong: files become a [`CompiledPolicy`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lookup::Names;
use super::reach;
use super::terms::{Directories, DirectoryTerms, offline_within};
use crate::ast::{
    LabelSets, Member, OperatorGroupDef, PolicyFile, RuleDef, Scope, Source, TargetName,
};
use crate::compile::{CompiledPolicy, From, Group, Interface, OperatorGroup, Rule};
use crate::diagnostic::{Code, Diagnostics};
use crate::labels::{is_within, may_meet};
use crate::slice::{Action, Effect, MAX_SLICE_ROWS, States, Term, Tiers};
use crate::source::Place;

/// Deepest nesting of operator groups.
pub const MAX_NESTING: usize = 16;

/// What is being put together, with the names that lead to it.
struct Resolver<'r, 's> {
    found: &'r mut Diagnostics<'s>,
    policy: CompiledPolicy,
    group_names: Names,
    operator_group_names: Names,
    service_names: Names,
    interface_names: Names,
    window_names: Names,
    /// `None` for a rule that names something unknown: nothing further is said about it.
    rule_places: Vec<Option<Place>>,
}

pub(super) fn resolve(
    files: &[PolicyFile],
    version: u64,
    hash: [u8; 32],
    found: &mut Diagnostics<'_>,
) -> CompiledPolicy {
    let unreadable = |kind: &'static str| {
        let of_kind = files.iter().flat_map(|file| &file.unreadable);
        of_kind
            .filter(|(k, _)| *k == kind)
            .map(|(_, name)| name.clone())
            .collect()
    };
    let directories = Directories::gather(files, found);
    let mut resolver = Resolver {
        found,
        policy: CompiledPolicy::empty(version, hash),
        group_names: Names::new("group", unreadable("group")),
        operator_group_names: Names::new("operator group", unreadable("operator-group")),
        service_names: Names::new("service", unreadable("service")),
        interface_names: Names::new("interface", unreadable("interface")),
        window_names: Names::new("window", unreadable("window")),
        rule_places: Vec::new(),
    };
    resolver.groups(files, &directories, unreadable("profile"));
    resolver.operator_groups(files);
    resolver.windows(files);
    resolver.services(files);
    resolver.rules(files, &directories);
    reach::check(&resolver.policy, &resolver.rule_places, resolver.found);
    resolver.policy
}

impl Resolver<'_, '_> {
    fn groups(
        &mut self,
        files: &[PolicyFile],
        directories: &Directories,
        unreadable_profiles: BTreeSet<String>,
    ) {
        let mut profile_names = Names::new("profile", unreadable_profiles);
        for (file, def) in files
            .iter()
            .flat_map(|file| file.profiles.iter().map(move |def| (file, def)))
        {
            let terms = directories.terms(&file.directory);
            if let (Some(offline), Some(at)) = (def.profile.offline, def.offline_at) {
                offline_within(offline, terms.max_offline, at, self.found);
            }
            let index = self.policy.profiles.len();
            if profile_names.define(&def.profile.name, def.at, index, self.found) {
                self.policy.profiles.push(def.profile.clone());
            }
        }
        for (file, def) in files
            .iter()
            .flat_map(|file| file.groups.iter().map(move |def| (file, def)))
        {
            self.require_in_scope(
                file,
                &def.matches,
                def.name.at,
                &format!("group `{}`", def.name.value),
            );
            let profile = def
                .profile
                .as_ref()
                .and_then(|profile| profile_names.require_placed(profile, self.found));
            let index = self.policy.groups.len();
            if self
                .group_names
                .define(&def.name.value, def.name.at, index, self.found)
            {
                self.policy.groups.push(Group {
                    name: def.name.value.clone(),
                    matches: def.matches.clone(),
                    profile,
                });
            }
        }
    }

    fn operator_groups(&mut self, files: &[PolicyFile]) {
        let mut defs: Vec<&OperatorGroupDef> = Vec::new();
        for def in files.iter().flat_map(|file| &file.operator_groups) {
            let index = defs.len();
            if self
                .operator_group_names
                .define(&def.name.value, def.name.at, index, self.found)
            {
                defs.push(def);
            }
        }
        for def in &defs {
            for member in &def.members {
                if let Member::Group(name) = &member.value {
                    self.operator_group_names
                        .require(name, member.at, self.found);
                }
            }
        }
        let mut flat: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let mut depths: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, def) in defs.iter().enumerate() {
            let mut path = Vec::new();
            let depth = self.flatten(index, &defs, &mut path, &mut flat, &mut depths);
            if depth.is_none_or(|depth| depth > MAX_NESTING) {
                self.found.error(
                    def.name.at,
                    Code::Nesting,
                    format!(
                        "operator group `{}` is nested in itself, or deeper than {MAX_NESTING}",
                        def.name.value
                    ),
                );
            }
        }
        for (index, def) in defs.iter().enumerate() {
            self.policy.operator_groups.push(OperatorGroup {
                name: def.name.value.clone(),
                members: flat.get(&index).cloned().unwrap_or_default(),
            });
        }
    }

    /// The depth of a group, `None` for a cycle or beyond the limit.
    fn flatten(
        &self,
        index: usize,
        defs: &[&OperatorGroupDef],
        path: &mut Vec<usize>,
        flat: &mut BTreeMap<usize, BTreeSet<String>>,
        depths: &mut BTreeMap<usize, usize>,
    ) -> Option<usize> {
        if let Some(depth) = depths.get(&index) {
            return Some(*depth);
        }
        if path.contains(&index) || path.len() > MAX_NESTING {
            return None;
        }
        path.push(index);
        let mut members = BTreeSet::new();
        let mut depth = Some(0);
        for member in &defs.get(index)?.members {
            match &member.value {
                Member::Operator(name) => {
                    members.insert(name.clone());
                }
                Member::Group(name) => {
                    let Some(inner) = self.operator_group_names.find(name) else {
                        continue;
                    };
                    let inner_depth = self.flatten(inner, defs, path, flat, depths);
                    depth = match (depth, inner_depth) {
                        (Some(depth), Some(inner)) => Some(depth.max(inner + 1)),
                        _ => None,
                    };
                    members.extend(flat.get(&inner).into_iter().flatten().cloned());
                }
            }
        }
        path.pop();
        let depth = depth?;
        flat.insert(index, members);
        depths.insert(index, depth);
        Some(depth)
    }

    fn windows(&mut self, files: &[PolicyFile]) {
        for def in files.iter().flat_map(|file| &file.windows) {
            let index = self.policy.windows.len();
            if self
                .window_names
                .define(&def.window.name, def.at, index, self.found)
            {
                self.policy.windows.push(def.window.clone());
            }
        }
    }

    fn services(&mut self, files: &[PolicyFile]) {
        let mut places = Vec::new();
        for (file, def) in files
            .iter()
            .flat_map(|file| file.services.iter().map(move |def| (file, def)))
        {
            let (name, at) = (&def.name.value, def.name.at);
            if !self.service_names.define(name, at, 0, self.found) {
                continue;
            }
            if def.interfaces.is_empty()
                && !file.unreadable.iter().any(|(kind, _)| *kind == "interface")
            {
                self.found.error(
                    at,
                    Code::MatchesNobody,
                    format!("service `{name}` has no interface"),
                );
            }
            let Some(on) = self.group_names.require_placed(&def.on, self.found) else {
                continue;
            };
            let matches = self
                .policy
                .groups
                .get(on)
                .map(|group| group.matches.clone());
            if let Some(matches) = matches {
                let what = format!("service `{name}` on group `{}`", def.on.value);
                self.require_in_scope(file, &matches, def.on.at, &what);
            }
            for interface in &def.interfaces {
                let full_name = format!("{name}/{}", interface.name.value);
                let index = self.policy.interfaces.len();
                if self
                    .interface_names
                    .define(&full_name, interface.name.at, index, self.found)
                {
                    places.push(interface.name.at);
                    self.policy.interfaces.push(Interface {
                        service: name.clone(),
                        name: interface.name.value.clone(),
                        on,
                        net: interface.net.clone(),
                        proto: interface.proto,
                        port: interface.port,
                        to: interface.to,
                        rows: Vec::new(),
                    });
                }
            }
        }
        self.clashes(&places);
    }

    /// Two interfaces at one port of one node: packets could not be told apart.
    fn clashes(&mut self, places: &[Place]) {
        let mut by_port: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, interface) in self.policy.interfaces.iter().enumerate() {
            let port = (&interface.net, interface.proto, interface.port);
            by_port.entry(port).or_default().push(index);
        }
        let on = |index: usize| {
            let interface = self.policy.interfaces.get(index)?;
            self.policy.groups.get(interface.on)
        };
        for indices in by_port.values() {
            for (position, later) in indices.iter().enumerate() {
                let clash = indices.iter().take(position).find(|earlier| {
                    match (on(**earlier), on(*later)) {
                        (Some(one), Some(other)) => may_meet(&one.matches, &other.matches),
                        _ => false,
                    }
                });
                let (Some(earlier), Some(at)) = (clash, places.get(*later)) else {
                    continue;
                };
                let shown = places
                    .get(*earlier)
                    .map(|at| self.found.show(*at))
                    .unwrap_or_default();
                self.found.error_with_help(
                    *at,
                    Code::InterfaceClash,
                    format!(
                        "the interface at {shown} has the same port and may be on the same node"
                    ),
                    "choose another port, or groups that no node can be in at once",
                );
            }
        }
    }

    fn rules(&mut self, files: &[PolicyFile], directories: &Directories) {
        let mut names = Names::new("rule", BTreeSet::new());
        for file in files {
            let terms = directories.terms(&file.directory);
            for def in &file.rules {
                let index = self.policy.rules.len();
                if names.define(&def.id.value, def.id.at, index, self.found) {
                    self.rule(file, def, &terms, index);
                }
            }
        }
        let everywhere = self.policy.everywhere.len();
        for interface in &self.policy.interfaces {
            let rows = interface.rows.len() + everywhere;
            if rows > MAX_SLICE_ROWS {
                let last = interface
                    .rows
                    .last()
                    .and_then(|row| self.rule_places.get(*row).copied().flatten());
                self.found.error(
                    last.unwrap_or(Place {
                        file: 0,
                        line: 0,
                        column: 0,
                    }),
                    Code::TooMuch,
                    format!(
                        "more rules for {}/{} than the limit: {rows} above {MAX_SLICE_ROWS}",
                        interface.service, interface.name
                    ),
                );
            }
        }
    }

    fn rule(&mut self, file: &PolicyFile, def: &RuleDef, terms: &DirectoryTerms, index: usize) {
        let from = self.sources(def);
        let (everywhere, targets) = self.targets(file, def);
        let window = def
            .window
            .as_ref()
            .map(|name| self.window_names.require_placed(name, self.found));
        self.misplaced(def);
        if let Some(offline) = &def.offline {
            offline_within(offline.value, terms.max_offline, offline.at, self.found);
        }
        for action in &def.actions {
            if action.value != Action::Connect.as_str() {
                self.found.error_with_help(
                    action.at,
                    Code::UnknownAction,
                    format!("unknown action `{}`", action.value),
                    "an interface without l7 has one action: connect",
                );
            }
        }
        for target in &targets {
            if let Some(interface) = self.policy.interfaces.get_mut(*target) {
                interface.rows.push(index);
            }
        }
        if everywhere {
            self.policy.everywhere.push(index);
        }
        let named = usize::from(from.any) + from.groups.len() + from.operator_groups.len();
        let complete = named >= distinct(&def.from)
            && (everywhere || targets.len() >= distinct(&def.to))
            && window.is_none_or(|window| window.is_some());
        self.rule_places.push(complete.then_some(def.id.at));
        self.policy.rules.push(Rule {
            id: Arc::from(def.id.value.as_str()),
            effect: def.effect,
            from,
            everywhere,
            targets,
            actions: vec![Action::Connect],
            window: window.flatten(),
            until: def.until,
            tiers: tiers_of(def, terms),
            states: states_of(def),
            fresh: Term {
                own: def.fresh.as_ref().map(|fresh| fresh.value),
                default: terms.fresh,
                most: None,
            },
            offline: Term {
                own: def.offline.as_ref().map(|offline| offline.value),
                default: terms.offline,
                most: Some(terms.max_offline),
            },
            max_offline: terms.max_offline,
        });
    }

    fn sources(&mut self, def: &RuleDef) -> From {
        let mut from = From::default();
        for source in &def.from {
            match &source.value {
                Source::Any if def.from.len() > 1 => {
                    self.found.error(
                        source.at,
                        Code::BadValue,
                        "`any` stands beside other sources, which it covers",
                    );
                    from.any = true;
                }
                Source::Any => from.any = true,
                Source::Group(name) => {
                    from.groups
                        .extend(self.group_names.require(name, source.at, self.found));
                }
                Source::OperatorGroup(name) => {
                    let group = self
                        .operator_group_names
                        .require(name, source.at, self.found);
                    from.operator_groups.extend(group);
                }
            }
        }
        from
    }

    fn targets(&mut self, file: &PolicyFile, def: &RuleDef) -> (bool, BTreeSet<usize>) {
        let mut everywhere = false;
        let mut targets = BTreeSet::new();
        for target in &def.to {
            let TargetName::Interface { service, interface } = &target.value else {
                everywhere = true;
                if let Scope::Labels(_) = file.scope {
                    self.found.error_with_help(
                        target.at,
                        Code::OutsideScope,
                        format!(
                            "rule `{}` targets `any`, which is outside the file's scope",
                            def.id.value
                        ),
                        "name the interfaces, or move the rule to a file with scope = \"any\"",
                    );
                }
                if def.to.len() > 1 {
                    self.found.error(
                        target.at,
                        Code::BadValue,
                        "`any` stands beside other targets, which it covers",
                    );
                }
                continue;
            };
            let full_name = format!("{service}/{interface}");
            let Some(index) = self
                .interface_names
                .require(&full_name, target.at, self.found)
            else {
                continue;
            };
            let on = self
                .policy
                .interfaces
                .get(index)
                .and_then(|i| self.policy.groups.get(i.on));
            if let Some(matches) = on.map(|group| group.matches.clone()) {
                let what = format!("target `{full_name}` of rule `{}`", def.id.value);
                self.require_in_scope(file, &matches, target.at, &what);
            }
            targets.insert(index);
        }
        if everywhere {
            targets.clear();
        }
        (everywhere, targets)
    }

    fn misplaced(&mut self, def: &RuleDef) {
        let mut refuse = |at: Option<Place>, key: &str, help: &str| {
            if let Some(at) = at {
                let effect = match def.effect {
                    Effect::Allow => "an allow",
                    Effect::Deny => "a deny",
                };
                let message = format!(
                    "`{key}` does not belong on {effect}: rule `{}`",
                    def.id.value
                );
                self.found
                    .error_with_help(at, Code::MisplacedCondition, message, help);
            }
        };
        match def.effect {
            Effect::Allow => {
                refuse(
                    def.unless_state.as_ref().map(|s| s.at),
                    "unless_state",
                    "an allow names the states it needs: state",
                );
            }
            Effect::Deny => {
                refuse(
                    def.state.as_ref().map(|s| s.at),
                    "state",
                    "a deny matches every state but those of unless_state",
                );
                let help = "a deny holds however old the evidence is";
                refuse(def.fresh.as_ref().map(|s| s.at), "fresh", help);
                refuse(def.offline.as_ref().map(|s| s.at), "offline", help);
            }
        }
    }

    fn require_in_scope(&mut self, file: &PolicyFile, matches: &LabelSets, at: Place, what: &str) {
        let Scope::Labels(scope) = &file.scope else {
            return;
        };
        if is_within(matches, scope) {
            return;
        }
        let missing: Vec<String> = scope
            .iter()
            .filter(|(key, values)| !matches.get(*key).is_some_and(|set| set.is_subset(values)))
            .map(|(key, values)| {
                let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                format!("{key} = [{}]", values.join(", "))
            })
            .collect();
        self.found.error_with_help(
            at,
            Code::OutsideScope,
            format!("{what} is outside the file's scope"),
            format!("its labels must be within {}", missing.join(", ")),
        );
    }
}

fn distinct<T: Ord>(items: &[crate::source::Placed<T>]) -> usize {
    items
        .iter()
        .map(|item| &item.value)
        .collect::<BTreeSet<_>>()
        .len()
}

/// An unstated tier narrows an allow (by the directory's default, or to everything but `software`) and never a deny:
/// what is denied to any is denied to software too.
fn tiers_of(def: &RuleDef, terms: &DirectoryTerms) -> Tiers {
    match (&def.tier, def.effect, &terms.tier) {
        (Some(tier), ..) => Tiers::These(tier.value.clone()),
        (None, Effect::Deny, _) => Tiers::Every,
        (None, Effect::Allow, Some(default)) => Tiers::These(default.clone()),
        (None, Effect::Allow, None) => Tiers::Rooted,
    }
}

fn states_of(def: &RuleDef) -> States {
    match (def.effect, &def.state, &def.unless_state) {
        (Effect::Allow, Some(state), _) => States::These(state.value.clone()),
        (Effect::Allow, None, _) => States::Proven,
        (Effect::Deny, _, Some(unless)) => States::Unless(unless.value.clone()),
        (Effect::Deny, _, None) => States::Every,
    }
}
