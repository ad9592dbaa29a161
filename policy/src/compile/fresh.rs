//! How long a node's last pass counts for anything.

use std::collections::BTreeSet;

use super::{CompiledPolicy, From, Rule};
use crate::fleet::Labels;
use crate::profile::Profile;
use crate::seconds::Seconds;
use crate::slice::Effect;

impl CompiledPolicy {
    /// The age beyond which a node's last pass is worth nothing under any rule that touches it, while its verifiers are
    /// connected. Where none touches it: its profiles' `fresh`, if they say one.
    pub fn fresh_for(&self, labels: &Labels) -> Option<Seconds> {
        let profile = self
            .profiles_for(labels)
            .into_iter()
            .filter_map(|profile: &Profile| profile.fresh)
            .min();
        let groups: BTreeSet<usize> = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.has_node(labels))
            .map(|(index, _)| index)
            .collect();
        self.rules
            .iter()
            .filter(|rule| rule.effect == Effect::Allow && self.touches(rule, &groups))
            .map(|rule| rule.fresh.for_profile(profile))
            .max()
            .or(profile)
    }

    fn touches(&self, rule: &Rule, groups: &BTreeSet<usize>) -> bool {
        is_from(&rule.from, groups)
            || rule
                .targets
                .iter()
                .filter_map(|target| self.interfaces.get(*target))
                .any(|interface| groups.contains(&interface.on))
    }
}

/// Operators come from some node, too.
fn is_from(from: &From, groups: &BTreeSet<usize>) -> bool {
    from.any || !from.operator_groups.is_empty() || !from.groups.is_disjoint(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;

    fn policy(profile: &str, rule: &str) -> CompiledPolicy {
        let text = format!(
            "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n\
             [profile.gateway]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{}\"] }}\n{profile}\n\
             [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n\
             [group.presses]\nmatch = {{ role = [\"press\"] }}\n\
             [service.shell]\non = \"gateways\"\n[service.shell.interface.ssh]\nnet = \"mesh\"\nl4 = \"tcp/22\"\n\
             [[rule]]\nid = \"one\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\nto = [\"shell/ssh\"]\ndo = [\"connect\"]\n{rule}\n",
            "aa".repeat(32)
        );
        let files = [SourceFile::new("test.toml".to_owned(), text)];
        CompiledPolicy::compile(&files, 1)
            .unwrap_or_else(|report| panic!("{:?}", report.diagnostics))
    }

    fn fresh(policy: &CompiledPolicy, role: &str) -> Option<u64> {
        let labels = Labels::from([("role".to_owned(), role.to_owned())]);
        policy
            .fresh_for(&labels)
            .map(|fresh| fresh.as_duration().as_secs())
    }

    #[test]
    fn a_node_that_no_rule_touches_ages_by_its_profiles_alone() {
        let policy = policy("fresh = \"2m\"", "fresh = \"1h\"");
        assert_eq!(fresh(&policy, "press"), None);
        assert_eq!(fresh(&policy, "other"), None);
    }

    #[test]
    fn a_pass_ages_by_the_laxest_rule_that_touches_its_node_and_never_beyond_its_profile() {
        assert_eq!(fresh(&policy("", "fresh = \"1h\""), "gateway"), Some(3600));
        assert_eq!(fresh(&policy("", ""), "gateway"), Some(600));
        assert_eq!(
            fresh(&policy("fresh = \"2m\"", "fresh = \"1h\""), "gateway"),
            Some(120)
        );
        assert_eq!(
            fresh(&policy("fresh = \"2h\"", "fresh = \"1m\""), "gateway"),
            Some(60)
        );
    }
}
