//! Applications: what nodes should have, what may run on them, and who may sign it.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::admit::{Allow, AppRules, Deny, Mode};
use edgeward_apps::director::Wish;
use edgeward_apps::{AppName, Digest, PublisherKeys, PublisherName, Version};

use crate::compile::CompiledPolicy;
use crate::fleet::Labels;

/// One app that a group of nodes should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub app: AppName,
    /// `None`: the highest that is allowed.
    pub version: Option<Version>,
    pub wish: Wish,
    /// What it may reach of what its node may, as `service/interface`.
    pub reach: BTreeSet<String>,
}

/// Who may sign, in the whole trust domain.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    pub(crate) publishers: BTreeMap<PublisherName, PublisherKeys>,
    pub(crate) cosign: BTreeMap<PublisherName, PublisherKeys>,
    /// SHA-256 of the first root of the image repository.
    pub(crate) root: Option<Digest>,
}

/// `[apps.x]`, by index of its group.
#[derive(Debug)]
pub(crate) struct GroupApps {
    pub(crate) on: usize,
    pub(crate) allow: Vec<Allow>,
    pub(crate) deny: Vec<Deny>,
    pub(crate) install: Vec<Install>,
    pub(crate) mode: Mode,
}

impl CompiledPolicy {
    /// What may run on a node with these labels: what its slice says of it.
    pub fn app_rules_for(&self, labels: &Labels) -> AppRules {
        self.app_rules_on(|on| self.has_node(on, labels))
    }

    /// What the director gives a node with these labels, by name. Groups of one node never ask for one app in two ways.
    pub fn installs_for(&self, labels: &Labels) -> BTreeMap<&AppName, &Install> {
        let own = self
            .apps
            .iter()
            .filter(|apps| self.has_node(apps.on, labels));
        own.flat_map(|apps| &apps.install)
            .map(|install| (&install.app, install))
            .collect()
    }

    /// Whether anything is installed anywhere.
    pub fn has_installs(&self) -> bool {
        self.apps.iter().any(|apps| !apps.install.is_empty())
    }

    /// A publisher's keys, if the policy names it.
    pub fn publisher_keys(&self, name: &PublisherName) -> Option<&PublisherKeys> {
        self.signers.publishers.get(name)
    }

    /// SHA-256 of the first root of the image repository, if the policy pins it.
    pub fn apps_root(&self) -> Option<Digest> {
        self.signers.root
    }

    fn has_node(&self, group: usize, labels: &Labels) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.has_node(labels))
    }

    pub(crate) fn app_rules_on(&self, on: impl Fn(usize) -> bool) -> AppRules {
        let own: Vec<&GroupApps> = self.apps.iter().filter(|apps| on(apps.on)).collect();
        // Only where every group of a node says so is nothing enforced there.
        let observed = !own.is_empty() && own.iter().all(|apps| apps.mode == Mode::Observe);
        let mut rules = AppRules {
            image_root: self.signers.root.filter(|_| !own.is_empty()),
            mode: match observed {
                true => Mode::Observe,
                false => Mode::Enforce,
            },
            ..AppRules::default()
        };
        for apps in own {
            rules.allow.extend(apps.allow.iter().cloned());
            rules.deny.extend(apps.deny.iter().cloned());
            let reaching = apps.install.iter().filter(|one| !one.reach.is_empty());
            rules
                .reach
                .extend(reaching.map(|one| (one.app.clone(), one.reach.clone())));
        }
        // The order of files means nothing, and what two groups say counts once.
        rules.allow.sort_unstable();
        rules.allow.dedup();
        rules.deny.sort_unstable();
        rules.deny.dedup();
        let (mut by_digest, mut named) = (false, Vec::new());
        for allow in &rules.allow {
            match allow {
                Allow::Digest { .. } => by_digest = true,
                Allow::Publisher { publisher, .. } => named.push(publisher),
            }
        }
        // Who made what is allowed by its digest is not said: it may be any of them, but one of them it must be.
        let needed = |publisher: &PublisherName| by_digest || named.contains(&publisher);
        let of = |signers: &BTreeMap<PublisherName, PublisherKeys>| {
            let signers = signers.iter().filter(|(publisher, _)| needed(publisher));
            signers
                .map(|(publisher, keys)| (publisher.clone(), keys.clone()))
                .collect()
        };
        rules.publishers = of(&self.signers.publishers);
        rules.cosign = of(&self.signers.cosign);
        rules
    }
}
