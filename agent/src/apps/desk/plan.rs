//! What follows from the director's word, the policy and what is on the volume. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use edgeward_apps::director::{Director, Wish};
use edgeward_apps::{AppName, AppRules, Digest, Manifest};
use edgeward_identity::Timestamp;

/// A release whose tree is on the volume and that was admitted here.
#[derive(Clone, Debug)]
pub struct Here {
    pub manifest: Arc<Manifest>,
    /// Of the manifest.
    pub digest: Digest,
    pub tree: PathBuf,
    /// It is the one in use.
    pub current: bool,
}

/// What a node is to do. Losing comes first.
#[derive(Debug, Default)]
pub struct Plan {
    /// Releases that may not stay.
    pub lose: Vec<Lost>,
    /// Apps that are assigned in a release that is not in use.
    pub fetch: BTreeSet<AppName>,
    /// By digest of their manifests.
    pub run: BTreeMap<AppName, Digest>,
    /// What is in use only because rules observe.
    pub would_deny: Vec<Told>,
    /// Why what is in use does not run, by app.
    pub held: BTreeMap<AppName, &'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub digest: Digest,
    pub told: Told,
    /// It was revoked or is no longer allowed, not only replaced or taken off.
    pub revoked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub app: AppName,
    pub version: String,
    /// Stable.
    pub code: &'static str,
    pub reason: String,
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub here: &'a [Here],
    pub director: Option<&'a Director>,
    /// None: no policy is held. Nothing is granted, and nothing is removed for want of it.
    pub rules: Option<&'a AppRules>,
    pub granting: bool,
    pub now: Timestamp,
}

impl Facts<'_> {
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let (Some(director), Some(rules)) = (self.director, self.rules) else {
            return self.hold(plan, "apps-unordered");
        };
        if self.now >= director.expires() {
            return self.hold(plan, "director-expired");
        }
        for here in self.here {
            self.judge(here, director, rules, &mut plan);
        }
        let lost: BTreeSet<Digest> = plan.lose.iter().map(|lost| lost.digest).collect();
        for (app, assigned) in &director.orders().apps {
            let current = self.here.iter().find(|here| {
                here.current && here.manifest.app == *app && !lost.contains(&here.digest)
            });
            if current.is_none_or(|current| current.digest != assigned.digest) {
                plan.fetch.insert(app.clone());
            }
            if let Some(current) = current
                && assigned.state == Wish::Running
            {
                plan.run.insert(app.clone(), current.digest);
            }
        }
        match self.granting {
            true => plan,
            false => {
                plan.fetch.clear();
                plan.run.clear();
                self.hold(plan, "agent-held")
            }
        }
    }

    fn judge(&self, here: &Here, director: &Director, rules: &AppRules, plan: &mut Plan) {
        let manifest = &here.manifest;
        let told = |code, reason| Told {
            app: manifest.app.clone(),
            version: manifest.version.to_string(),
            code,
            reason,
        };
        let lose = |told, revoked| Lost {
            digest: here.digest,
            told,
            revoked,
        };
        let denied = director.orders().denies(manifest, here.digest);
        match denied.and_then(|()| rules.judge(manifest, here.digest)) {
            Err(refused) => {
                let told = told(refused.code(), refused.to_string());
                plan.lose.push(lose(told, true));
            }
            Ok(_) if !director.orders().apps.contains_key(&manifest.app) => {
                let told = told("app-not-assigned", "nobody assigns it".to_owned());
                plan.lose.push(lose(told, false));
            }
            Ok(Some(refused)) if here.current => plan
                .would_deny
                .push(told(refused.code(), refused.to_string())),
            Ok(_) => {}
        }
    }

    fn hold(&self, mut plan: Plan, why: &'static str) -> Plan {
        let apps = self.here.iter().map(|here| here.manifest.app.clone());
        plan.held = apps.map(|app| (app, why)).collect();
        plan
    }
}

#[cfg(test)]
mod tests;
