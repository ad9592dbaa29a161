//! Approvals and break-glass: known people, enough of them, and nothing opened beyond a file's own scope.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};

use super::Resolver;
use crate::ast::{ApprovalDef, BreakGlassDef, PolicyFile, RuleDef, Scope, Source, TargetName};
use crate::check::lookup::Names;
use crate::compile::{Approval, BreakGlass};
use crate::diagnostic::Code;
use crate::parse::EXIT;
use crate::parse::break_glass::MAX_BREAK_GLASS_NAMES;
use crate::slice::Effect;
use crate::source::Placed;

impl Resolver<'_, '_> {
    pub(super) fn approval(&mut self, def: &RuleDef) -> Option<Approval> {
        let asked = def.approval.as_ref()?;
        let what = format!("approval of rule `{}`", def.id.value);
        let by = self.approvers(&asked.by, &asked.quorum, &what)?;
        Some(Approval {
            by,
            quorum: asked.quorum.value,
            ttl: asked.ttl.value,
            digest: digest_of(def, asked),
        })
    }

    pub(super) fn break_glass(&mut self, files: &[PolicyFile]) {
        let mut names = Names::new("break-glass", BTreeSet::new());
        for file in files {
            for def in &file.break_glass {
                let index = self.policy.break_glass.len();
                if names.define(&def.name.value, def.name.at, index, self.found) {
                    self.one_break_glass(file, def);
                }
            }
        }
    }

    fn one_break_glass(&mut self, file: &PolicyFile, def: &BreakGlassDef) {
        let what = format!("break-glass `{}`", def.name.value);
        let rules: BTreeSet<usize> = def
            .grants
            .iter()
            .filter_map(|grant| self.granted(file, grant, &what))
            .collect();
        let by = self.approvers(&def.by, &def.quorum, &what);
        if let Some(by) = &by
            && self.policy.members_of(by).len() > MAX_BREAK_GLASS_NAMES
        {
            self.found.error(
                def.name.at,
                Code::TooMuch,
                format!(
                    "{what} may be opened by more people than the limit: {MAX_BREAK_GLASS_NAMES}"
                ),
            );
        }
        for rule in &rules {
            if let Some(rule) = self.policy.rules.get_mut(*rule) {
                rule.opened_by_glass = true;
            }
        }
        if let (false, Some(by)) = (rules.is_empty(), by) {
            self.policy.break_glass.push(BreakGlass {
                name: def.name.value.clone(),
                rules,
                by,
                quorum: def.quorum.value,
                ttl: def.ttl.value,
            });
        }
    }

    /// A rule that this file may open: an allow, each of whose targets lies in the file's scope.
    fn granted(&mut self, file: &PolicyFile, grant: &Placed<String>, what: &str) -> Option<usize> {
        let index = self
            .rule_names
            .require(&grant.value, grant.at, self.found)?;
        let rule = self.policy.rules.get(index)?;
        if rule.effect == Effect::Deny {
            self.found.error_with_help(
                grant.at,
                Code::BadValue,
                format!("{what} grants a deny: rule `{}`", grant.value),
                "name allows: a deny stays whatever is opened",
            );
            return None;
        }
        if rule.everywhere && matches!(file.scope, Scope::Labels(_)) {
            self.found.error_with_help(
                grant.at,
                Code::OutsideScope,
                format!(
                    "{what} grants rule `{}`, whose target `any` is outside the file's scope",
                    grant.value
                ),
                "grant it in a file with scope = \"any\"",
            );
            return None;
        }
        let targets: Vec<_> = rule
            .targets
            .iter()
            .filter_map(|target| self.policy.interfaces.get(*target))
            .filter_map(|interface| {
                let on = self.policy.groups.get(interface.on)?;
                let name = format!("{}/{}", interface.service, interface.name);
                Some((name, on.matches.clone()))
            })
            .collect();
        for (name, matches) in targets {
            let what = format!(
                "target `{name}` of rule `{}`, which {what} grants,",
                grant.value
            );
            self.require_in_scope(file, &matches, grant.at, &what);
        }
        Some(index)
    }

    /// Groups with enough members to come to the quorum.
    fn approvers(
        &mut self,
        names: &[Placed<String>],
        quorum: &Placed<u16>,
        what: &str,
    ) -> Option<BTreeSet<usize>> {
        let groups: BTreeSet<usize> = names
            .iter()
            .filter_map(|name| self.operator_group_names.require_placed(name, self.found))
            .collect();
        if groups.len() < names.len() {
            return None;
        }
        let members = self.policy.members_of(&groups).len();
        if members < usize::from(quorum.value) {
            self.found.error_with_help(
                quorum.at,
                Code::MatchesNobody,
                format!(
                    "{what} takes {} people, and there are {members}",
                    quorum.value
                ),
                "name groups with more members, or a lower quorum",
            );
            return None;
        }
        Some(groups)
    }
}

/// Over everything that stands in the rule, whatever its order: who signed for one text did not sign for another.
fn digest_of(def: &RuleDef, asked: &ApprovalDef) -> [u8; 32] {
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    let names =
        |placed: &[Placed<String>]| sorted(placed.iter().map(|one| one.value.clone()).collect());
    let from = def.from.iter().map(|source| match &source.value {
        Source::Any => "any".to_owned(),
        Source::Group(name) => format!("group:{name}"),
        Source::OperatorGroup(name) => format!("operator-group:{name}"),
    });
    let to = def.to.iter().map(|target| match &target.value {
        TargetName::Any => "any".to_owned(),
        TargetName::Exit => EXIT.to_owned(),
        TargetName::Interface { service, interface } => format!("{service}/{interface}"),
    });
    let tiers = def.tier.iter().flat_map(|tier| &tier.value);
    let states = def.state.iter().flat_map(|state| &state.value);
    let text = serde_json::json!({
        "id": def.id.value,
        "from": sorted(from.collect()),
        "to": sorted(to.collect()),
        "do": names(&def.actions),
        "window": def.window.as_ref().map(|window| &window.value),
        "until": def.until,
        "fresh": def.fresh.as_ref().map(|fresh| fresh.value),
        "offline": def.offline.as_ref().map(|offline| offline.value),
        "tier": sorted(tiers.map(|tier| tier.to_string()).collect()),
        "state": sorted(states.map(|state| state.to_string()).collect()),
        "profile": def.profiles.as_deref().map(names),
        "runs": names(&def.runs),
        "by": names(&asked.by),
        "quorum": asked.quorum.value,
        "ttl": asked.ttl.value,
    });
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.to_string().as_bytes()).as_ref());
    hash
}
