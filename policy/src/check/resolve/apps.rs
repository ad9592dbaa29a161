//! Applications: who signs them, on which groups they may run, and what is installed there.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::admit::{Allow, Deny, MAX_RULED_PUBLISHERS, MAX_RULES, Mode};
use edgeward_apps::director::MAX_ASSIGNED;
use edgeward_apps::{AppName, PublisherName, Version};

use super::Resolver;
use crate::apps::{GroupApps, Install};
use crate::ast::{AppsDef, PolicyFile, Scope};
use crate::check::lookup::Names;
use crate::diagnostic::Code;
use crate::labels::may_meet;
use crate::runs::{MAX_RUNS, Wants};
use crate::slice::Effect;
use crate::source::{Place, Placed};

/// Most `[apps.x]` in one policy: each is held against each.
const MAX_APPS: usize = 1_000;

impl Resolver<'_, '_> {
    /// Returns the publishers that it names.
    pub(super) fn apps(&mut self, files: &[PolicyFile]) -> Names {
        let of = |kind| super::unreadable(files, kind);
        let mut publishers = Names::new("publisher", of("publisher"));
        let mut groups = Names::new("apps", of("apps"));
        self.publishers(files, &mut publishers);
        self.apps_root(files);
        let mut defs: Vec<(usize, &AppsDef)> = Vec::new();
        for file in files {
            for def in &file.apps {
                let known = groups.define(&def.name.value, def.name.at, 0, self.found);
                let on = self.group_in_scope(file, &def.name, "apps");
                for (publisher, at) in named_by(def) {
                    publishers.require(publisher.as_str(), at, self.found);
                }
                self.is_allowed(def);
                self.reaches(def);
                let Some(on) = on.filter(|_| known) else {
                    continue;
                };
                if defs.len() >= MAX_APPS {
                    let message = format!("more [apps.x] than the limit: {MAX_APPS}");
                    self.found.error(def.name.at, Code::TooMuch, message);
                    return publishers;
                }
                defs.push((on, def));
                self.policy.apps.push(GroupApps {
                    on,
                    allow: values(&def.allow),
                    deny: values(&def.deny),
                    install: values(&def.install),
                    mode: def.mode,
                });
            }
        }
        self.one_way_each(&defs);
        publishers
    }

    /// What a rule wants run is a publisher's whom somebody trusts; and where an allow rests on it, it may run somewhere.
    pub(super) fn wants_are_known(&mut self, files: &[PolicyFile], publishers: &Names) {
        let all_apps = super::unreadable(files, "apps").is_empty();
        let apps: Vec<&AppsDef> = files.iter().flat_map(|file| &file.apps).collect();
        for rule in files.iter().flat_map(|file| &file.rules) {
            for want in &rule.runs {
                // What is not written as a want is an error of its own.
                let Ok(Wants { app, .. }) = want.value.parse() else {
                    continue;
                };
                let publisher = app.publisher().as_str();
                let known = publishers.require(publisher, want.at, self.found).is_some();
                let may_run = apps.iter().any(|def| may_run(def, &app));
                if known && all_apps && rule.effect == Effect::Allow && !may_run {
                    let message =
                        format!("no [apps.x] allows {app}: nobody is ever proven to run it");
                    let help =
                        "allow it on the groups that the rule is about, or name what they run";
                    self.found
                        .error_with_help(want.at, Code::Dead, message, help);
                }
            }
        }
    }

    /// Decisions carry one bit for each thing that rules want run.
    pub(super) fn wants_fit(&mut self, files: &[PolicyFile]) {
        let mut seen = BTreeSet::new();
        for want in files
            .iter()
            .flat_map(|file| &file.rules)
            .flat_map(|rule| &rule.runs)
        {
            seen.insert(&want.value);
            if seen.len() > MAX_RUNS {
                let message =
                    format!("more different `runs` in all rules than the limit: {MAX_RUNS}");
                self.found.error(want.at, Code::TooMuch, message);
                return;
            }
        }
    }

    fn publishers(&mut self, files: &[PolicyFile], names: &mut Names) {
        for (index, def) in files.iter().flat_map(|file| &file.publishers).enumerate() {
            let (name, at) = (&def.name.value, def.name.at);
            if !names.define(name.as_str(), at, index, self.found) {
                continue;
            }
            let signers = &mut self.policy.signers;
            if signers.publishers.len() >= MAX_RULED_PUBLISHERS {
                let message = format!("more publishers than the limit: {MAX_RULED_PUBLISHERS}");
                self.found.error(at, Code::TooMuch, message);
                return;
            }
            signers.publishers.insert(name.clone(), def.keys.clone());
            if let Some(cosign) = &def.cosign {
                signers.cosign.insert(name.clone(), cosign.clone());
            }
        }
    }

    /// There is one repository for the whole trust domain.
    fn apps_root(&mut self, files: &[PolicyFile]) {
        let mut first: Option<Place> = None;
        for file in files {
            let Some(root) = &file.apps_root else {
                continue;
            };
            if let Scope::Labels(_) = file.scope {
                self.found.error_with_help(
                    root.at,
                    Code::OutsideScope,
                    "`apps_root` is about every node, which is outside the file's scope",
                    "move it to a file with scope = \"any\"",
                );
            }
            if let Some(first) = first {
                let message = format!("`apps_root` is also set at {}", self.found.show(first));
                let help = "there is one repository: keep one of the two";
                let code = Code::DuplicateName;
                self.found.error_with_help(root.at, code, message, help);
                continue;
            }
            first = Some(root.at);
            self.policy.signers.root = Some(root.value);
        }
    }

    /// What is installed on a group is allowed there, and not denied in the same breath.
    fn is_allowed(&mut self, def: &AppsDef) {
        for install in &def.install {
            let Install { app, version, .. } = &install.value;
            let allowed = def
                .allow
                .iter()
                .any(|allow| covers(&allow.value, app, version));
            let denied = def.deny.iter().any(|deny| match &deny.value {
                Deny::Digest { .. } => false,
                Deny::Publisher { publisher, name } => concerns(app, publisher, name),
            });
            let (message, help) = match (allowed, denied) {
                (true, false) => continue,
                (_, true) => ("denies", "take one of the two out"),
                (false, false) => ("does not allow", "add it to `allow`"),
            };
            let shown = version.as_ref().map(|version| format!(" {version}"));
            let message = format!(
                "apps `{}` installs {app}{} and {message} it",
                def.name.value,
                shown.unwrap_or_default()
            );
            self.found
                .error_with_help(install.at, Code::BadValue, message, help);
        }
    }

    /// An app reaches interfaces that there are; whether its node may is for the rules.
    fn reaches(&mut self, def: &AppsDef) {
        for install in &def.install {
            for name in &install.value.reach {
                self.interface_names.require(name, install.at, self.found);
            }
        }
    }

    /// A node in two groups, or in one that says it twice, would have an app in two ways. And what the groups of one
    /// node come to is within what its slice and the director's word may hold.
    fn one_way_each(&mut self, defs: &[(usize, &AppsDef)]) {
        for (position, (on, later)) in defs.iter().enumerate() {
            self.named_twice(later);
            let mut counts = Counts::default();
            counts.add(later);
            for (place, (other, earlier)) in defs.iter().enumerate() {
                if place == position || !self.meet(*on, *other) {
                    continue;
                }
                counts.add(earlier);
                if place < position {
                    self.clash(later, earlier);
                }
            }
            if let Some((what, limit)) = counts.beyond() {
                let message = format!(
                    "apps `{}` and those of groups that a node may be in besides come to more {what} than the limit: {limit}",
                    later.name.value
                );
                self.found.error(later.name.at, Code::TooMuch, message);
                return;
            }
        }
    }

    fn meet(&self, one: usize, other: usize) -> bool {
        let group = |index: usize| self.policy.groups.get(index);
        match (group(one), group(other)) {
            (Some(one), Some(other)) => may_meet(&one.matches, &other.matches),
            _ => false,
        }
    }

    fn named_twice(&mut self, def: &AppsDef) {
        let mut seen = BTreeSet::new();
        for install in &def.install {
            let app = &install.value.app;
            if !seen.insert(app) {
                let message = format!("apps `{}` installs {app} twice", def.name.value);
                let code = Code::DuplicateName;
                self.found
                    .error_with_help(install.at, code, message, "name it once");
            }
        }
    }

    fn clash(&mut self, later: &AppsDef, earlier: &AppsDef) {
        let known = earlier.install.iter();
        let known: BTreeMap<&AppName, &Placed<Install>> =
            known.map(|install| (&install.value.app, install)).collect();
        for install in &later.install {
            let other = known.get(&install.value.app);
            let Some(other) = other.filter(|other| other.value != install.value) else {
                continue;
            };
            let message = format!(
                "{} is installed otherwise at {}, and a node may be in both groups",
                install.value.app,
                self.found.show(other.at)
            );
            let help = "say the same in both, or choose groups that no node can be in at once";
            self.found
                .error_with_help(install.at, Code::BadValue, message, help);
        }
    }

    /// The group, if it is one of nodes.
    pub(super) fn group_in_scope(
        &mut self,
        file: &PolicyFile,
        name: &Placed<String>,
        kind: &str,
    ) -> Option<usize> {
        let index = self.require_nodes(name)?;
        let group = self.policy.groups.get(index);
        if let Some(matches) = group.map(|group| group.matches.clone()) {
            let what = format!("{kind} on group `{}`", name.value);
            self.require_in_scope(file, &matches, name.at, &what);
        }
        Some(index)
    }
}

/// What the groups of one node come to at most.
#[derive(Default)]
struct Counts {
    allow: usize,
    deny: usize,
    install: usize,
}

impl Counts {
    fn add(&mut self, def: &AppsDef) {
        self.allow += def.allow.len();
        self.deny += def.deny.len();
        self.install += def.install.len();
    }

    fn beyond(&self) -> Option<(&'static str, usize)> {
        [
            ("entries of allow", self.allow, MAX_RULES),
            ("entries of deny", self.deny, MAX_RULES),
            ("entries of install", self.install, MAX_ASSIGNED),
        ]
        .into_iter()
        .find(|(_, count, limit)| count > limit)
        .map(|(what, _, limit)| (what, limit))
    }
}

/// Publishers that must be known, and where they are named.
fn named_by(def: &AppsDef) -> Vec<(&PublisherName, Place)> {
    let allowed = def.allow.iter().filter_map(|allow| match &allow.value {
        Allow::Digest { .. } => None,
        Allow::Publisher { publisher, .. } => Some((publisher, allow.at)),
    });
    let denied = def.deny.iter().filter_map(|deny| match &deny.value {
        Deny::Digest { .. } => None,
        Deny::Publisher { publisher, .. } => Some((publisher, deny.at)),
    });
    let installed = def.install.iter();
    let installed = installed.map(|install| (install.value.app.publisher(), install.at));
    allowed.chain(denied).chain(installed).collect()
}

/// What a digest is of nobody knows here: it may be what is to be installed.
fn covers(allow: &Allow, app: &AppName, version: &Option<Version>) -> bool {
    match allow {
        Allow::Digest { .. } => true,
        Allow::Publisher {
            publisher,
            name,
            min_version,
        } => {
            let old_enough = match (version, min_version) {
                (Some(version), Some(least)) => version >= least,
                _ => true,
            };
            concerns(app, publisher, name) && old_enough
        }
    }
}

fn concerns(app: &AppName, publisher: &PublisherName, name: &Option<String>) -> bool {
    app.publisher() == publisher && name.as_ref().is_none_or(|name| name == app.name())
}

/// Whether an app may run on some node for what one definition says. What is only observed runs, too.
fn may_run(def: &AppsDef, app: &AppName) -> bool {
    def.mode == Mode::Observe
        || def
            .allow
            .iter()
            .any(|allow| covers(&allow.value, app, &None))
}

fn values<T: Clone>(placed: &[Placed<T>]) -> Vec<T> {
    placed.iter().map(|one| one.value.clone()).collect()
}
