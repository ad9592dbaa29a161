//! Rules: sources, targets within the scope, and conditions where they belong.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Resolver;
use crate::ast::{PolicyFile, RuleDef, Scope, Source, TargetName};
use crate::check::terms::{Directories, DirectoryTerms, offline_within};
use crate::compile::{From, Interface, Rule};
use crate::diagnostic::Code;
use crate::slice::{CONNECT, Effect, MAX_SLICE_ROWS, States, Term, Tiers};
use crate::source::{Place, Placed};

impl Resolver<'_, '_> {
    pub(super) fn rules(&mut self, files: &[PolicyFile], directories: &Directories) {
        for file in files {
            let terms = directories.terms(&file.directory);
            for def in &file.rules {
                let index = self.policy.rules.len();
                let names = &mut self.rule_names;
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
        let from = self.sources(&def.from);
        let (everywhere, targets) = self.targets(file, def);
        let window = def
            .window
            .as_ref()
            .map(|name| self.window_names.require_placed(name, self.found));
        let profiles = self.rule_profiles(def);
        self.misplaced(def);
        let approval = self.approval(def);
        if let Some(offline) = &def.offline {
            offline_within(offline.value, terms.max_offline, offline.at, self.found);
        }
        self.known_by_all(&def.actions, everywhere, &targets);
        self.denies_connect_alone(def, &targets);
        self.devices_reach(def, &targets);
        for target in &targets {
            if let Some(interface) = self.policy.interfaces.get_mut(*target) {
                interface.rows.push(index);
            }
        }
        if everywhere {
            self.policy.everywhere.push(index);
        }
        let named = usize::from(from.any) + from.groups.len() + from.operator_groups.len();
        // Devices are all here or in no error's way: what cannot be read is no reason to say that nobody is matched.
        let devices_known = self.found.is_empty() || !self.is_from_devices(&from);
        let complete = devices_known
            && named >= distinct(&def.from)
            && (everywhere || targets.len() >= distinct(&def.to))
            && window.is_none_or(|window| window.is_some())
            && profiles.as_ref().map(BTreeSet::len) == def.profiles.as_ref().map(Vec::len)
            && approval.is_some() == def.approval.is_some();
        self.rule_places.push(complete.then_some(def.id.at));
        self.policy.rules.push(Rule {
            id: Arc::from(def.id.value.as_str()),
            effect: def.effect,
            from,
            everywhere,
            targets,
            actions: def
                .actions
                .iter()
                .map(|action| action.value.clone())
                .collect(),
            window: window.flatten(),
            until: def.until,
            tiers: tiers_of(def, terms),
            states: states_of(def),
            profiles,
            runs: def.runs.iter().map(|runs| runs.value.clone()).collect(),
            approval,
            opened_by_glass: false,
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

    /// A deny of `connect` alone would leave every request allowed where requests are told apart.
    fn denies_connect_alone(&mut self, def: &RuleDef, targets: &BTreeSet<usize>) {
        let mut named = targets.iter();
        let told_apart = named.any(|target| {
            let interface = self.policy.interfaces.get(*target);
            interface.is_some_and(|interface| interface.l7.is_some())
        });
        let connect = def.actions.iter().find(|action| action.value == CONNECT);
        if let (Effect::Deny, true, Some(action)) = (def.effect, told_apart, connect) {
            self.found.error_with_help(
                action.at,
                Code::BadValue,
                "a deny of `connect` denies no request of an interface with l7",
                "deny its actions",
            );
        }
    }

    /// Every action is one of every interface named; for `any`, of some interface.
    pub(super) fn known_by_all(
        &mut self,
        actions: &[Placed<String>],
        everywhere: bool,
        targets: &BTreeSet<usize>,
    ) {
        let interfaces = &self.policy.interfaces;
        for action in actions {
            let knows = |interface: &&Interface| interface.actions().contains(&&*action.value);
            let without = match everywhere {
                true => (!interfaces.iter().any(|interface| knows(&interface)))
                    .then(|| interfaces.first())
                    .flatten(),
                false => {
                    let mut named = targets.iter().filter_map(|target| interfaces.get(*target));
                    named.find(|interface| !knows(interface))
                }
            };
            if let Some(interface) = without {
                self.found.error_with_help(
                    action.at,
                    Code::UnknownAction,
                    format!("unknown action `{}`", action.value),
                    known_actions(interface),
                );
            }
        }
    }

    fn is_from_devices(&self, from: &From) -> bool {
        let mut groups = from
            .groups
            .iter()
            .filter_map(|index| self.policy.groups.get(*index));
        groups.any(|group| group.via.is_some())
    }

    /// A device comes to the nodes themselves; from network to network nothing is led in this version.
    fn devices_reach(&mut self, def: &RuleDef, targets: &BTreeSet<usize>) {
        let beyond = targets.iter().find_map(|target| {
            let interface = self.policy.interfaces.get(*target)?;
            let beyond = interface.behind.is_some();
            beyond.then(|| format!("{}/{}", interface.service, interface.name))
        });
        let (Some(target), Effect::Allow) = (beyond, def.effect) else {
            return;
        };
        for source in &def.from {
            let Source::Group(name) = &source.value else {
                continue;
            };
            let index = self.group_names.find(name);
            let group = index.and_then(|index| self.policy.groups.get(index));
            if group.is_some_and(|group| group.via.is_some()) {
                self.found.error_with_help(
                    source.at,
                    Code::NotEnforced,
                    format!("`{target}` lies beyond its node, where the devices of group `{name}` are not led"),
                    "name an interface of a node itself: ways from network to network are not in this version",
                );
            }
        }
    }

    pub(super) fn sources(&mut self, list: &[Placed<Source>]) -> From {
        let mut from = From::default();
        for source in list {
            match &source.value {
                Source::Any if list.len() > 1 => {
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

    fn rule_profiles(&mut self, def: &RuleDef) -> Option<BTreeSet<usize>> {
        let names = def.profiles.as_ref()?;
        let known = names
            .iter()
            .filter_map(|name| self.profile_names.require_placed(name, self.found));
        Some(known.collect())
    }

    fn targets(&mut self, file: &PolicyFile, def: &RuleDef) -> (bool, BTreeSet<usize>) {
        let mut everywhere = false;
        let mut targets = BTreeSet::new();
        for target in &def.to {
            if target.value == TargetName::Exit {
                targets.extend(self.exit_targets(file, target.at, &def.id.value));
                continue;
            }
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
                let help = "a deny holds whoever approves of it";
                refuse(def.approval.as_ref().map(|s| s.at), "approval", help);
            }
        }
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

/// What would have been accepted.
pub(crate) fn known_actions(interface: &Interface) -> String {
    let name = format!("{}/{}", interface.service, interface.name);
    match &interface.l7 {
        None => format!("{name} has no l7 and therefore one action: connect"),
        Some(l7) => format!("{name} has {}", l7.actions().join(", ")),
    }
}
