//! Rules that do nothing: they match nobody, or others leave nothing to them.

use std::collections::BTreeSet;

use edgeward_identity::{AttestationState, Tier};

use crate::compile::{CompiledPolicy, From, Interface, Rule};
use crate::diagnostic::{Code, Diagnostics};
use crate::labels::{is_within, matches, may_meet};
use crate::profile::Profile;
use crate::seconds::Seconds;
use crate::slice::{Effect, MESH, States, Term, Tiers};
use crate::source::Place;

pub(super) fn check(
    policy: &CompiledPolicy,
    places: &[Option<Place>],
    found: &mut Diagnostics<'_>,
) {
    for (index, (rule, at)) in policy.rules.iter().zip(places).enumerate() {
        let Some(at) = at else { continue };
        if let Some(why) = matches_nobody(policy, rule) {
            found.error_with_help(
                *at,
                Code::MatchesNobody,
                format!("rule `{}` matches nobody", rule.id),
                why,
            );
        } else if let Some(other) = shadowed_by(policy, places, index) {
            let place = places.get(other).copied().flatten();
            let shown = place.map(|at| found.show(at)).unwrap_or_default();
            let id = policy
                .rules
                .get(other)
                .map(|rule| rule.id.to_string())
                .unwrap_or_default();
            found.error_with_help(
                *at,
                Code::Shadowed,
                format!("rule `{}` changes nothing", rule.id),
                format!("rule `{id}` at {shown} covers it"),
            );
        }
    }
}

/// Why no subject can ever be matched.
fn matches_nobody(policy: &CompiledPolicy, rule: &Rule) -> Option<&'static str> {
    let sources = policy.sources_without_members(&rule.from);
    if sources {
        return Some("its operator groups have no member");
    }
    if let Some(why) = never_there(policy, rule) {
        return Some(why);
    }
    let kinds = kinds_of(policy, &rule.from);
    if kinds
        .iter()
        .all(|kind| state_set(&rule.states, *kind).is_empty())
    {
        return Some("it excepts every state");
    }
    let pairs: Vec<(SourceKind, Tier, AttestationState)> = kinds
        .iter()
        .copied()
        .flat_map(|kind| {
            let tiers = Tier::ALL.into_iter();
            let tiers = tiers.filter(|tier| covers_tier(&rule.tiers, Some(*tier)));
            tiers.flat_map(move |tier| {
                let states = state_set(&rule.states, kind).into_iter();
                states.map(move |state| (kind, tier, state))
            })
        })
        .filter(|(kind, tier, state)| can_be(*kind, *tier, *state))
        .collect();
    let unknown_tier = covers_tier(&rule.tiers, None);
    if pairs.is_empty() && !unknown_tier {
        return Some(
            "none of its sources is ever in its states with its tiers: tier software is always `none`, a device is `vouched` or `stale` and nothing else ever is `vouched`",
        );
    }
    if rule
        .profiles
        .as_ref()
        .is_some_and(|named| !is_ever_named(policy, rule, named))
    {
        return Some("no result of its sources ever names one of its profiles");
    }
    if rule.effect == Effect::Deny {
        return None;
    }
    if rule.fresh.own == Some(Seconds::new(0)) && rule.offline.own == Some(Seconds::new(0)) {
        return Some("no evidence is ever that fresh");
    }
    let reachable = rule.from.any
        || !rule.from.operator_groups.is_empty()
        || rule.from.groups.iter().any(|group| {
            let Some(group) = policy.groups.get(*group) else {
                return false;
            };
            // A device counts for as much as who vouches for it.
            let (own, kind) = match group.via {
                None => (Some(group), SourceKind::Machine),
                Some(via) => (policy.groups.get(via), SourceKind::Device),
            };
            let tiers = own
                .and_then(|group| policy.profiles.get(group.profile?))
                .map(|profile| &profile.tiers);
            pairs.iter().any(|(of, tier, state)| {
                *of == kind
                    && (!matches!(state, AttestationState::Trusted | AttestationState::Vouched)
                        || tiers.is_none_or(|tiers| tiers.contains(tier)))
            })
        });
    (!reachable).then_some("the profiles of its groups accept none of its tiers")
}

/// Whether evidence of a subject is ever compared with one of these: in a group that names it, on a machine with a TPM.
/// An operator has the evidence of whatever node it connects from.
fn is_ever_named(policy: &CompiledPolicy, rule: &Rule, named: &BTreeSet<usize>) -> bool {
    let anybody = rule.from.any || !rule.from.operator_groups.is_empty();
    let sources: Vec<_> = rule
        .from
        .groups
        .iter()
        .filter_map(|group| policy.groups.get(*group))
        .filter(|group| group.via.is_none())
        .collect();
    policy.groups.iter().any(|group| {
        let compared = group
            .profile
            .filter(|index| named.contains(index))
            .and_then(|index| policy.profiles.get(index));
        compared.is_some_and(Profile::compares)
            && (anybody
                || sources
                    .iter()
                    .any(|source| may_meet(&source.matches, &group.matches)))
    })
}

/// Why none of its sources ever stands before one of its targets.
fn never_there(policy: &CompiledPolicy, rule: &Rule) -> Option<&'static str> {
    let groups = || {
        rule.from
            .groups
            .iter()
            .filter_map(|index| policy.groups.get(*index))
    };
    let only_devices = !rule.from.any
        && rule.from.operator_groups.is_empty()
        && groups().all(|group| group.via.is_some());
    let targets = rule.targets.iter();
    let mut targets = targets.filter_map(|target| policy.interfaces.get(*target));
    let nets: BTreeSet<&str> = targets.clone().map(|target| target.net.as_str()).collect();
    if only_devices {
        let mut members = policy
            .devices
            .iter()
            .filter(|device| groups().any(|group| matches(&group.matches, &device.labels)))
            .peekable();
        if members.peek().is_none() {
            return Some("its groups have no device");
        }
        let in_tunnel = targets.any(Interface::is_open_to_guests);
        let there = rule.everywhere
            || members.any(|device| {
                nets.contains(device.net.as_str())
                    || (in_tunnel && policy.may_travel(device, groups()))
            });
        return (!there).then_some(match in_tunnel {
            true => "no device of its groups hangs on the network of a target, or is led into the tunnel: that takes an `ip`, no certificate, and a [route.x] to it on nodes that vouch for it",
            false => "no device of its groups hangs on the network of a target",
        });
    }
    let only_operators = !rule.from.any && rule.from.groups.is_empty();
    let in_tunnel = rule.everywhere || nets.is_empty() || nets.contains(MESH);
    (only_operators && !in_tunnel && rule.effect == Effect::Allow).then_some(
        "operators are proven by the node they come from through the tunnel: on a node's other networks they prove nothing",
    )
}

/// What a source may be: what has evidence of its own, operators by the node they come from, or a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Machine,
    Device,
}

fn kinds_of(policy: &CompiledPolicy, from: &From) -> Vec<SourceKind> {
    let is_device = |group: &usize| {
        let group = policy.groups.get(*group);
        group.is_some_and(|group| group.via.is_some())
    };
    let machine = from.any
        || !from.operator_groups.is_empty()
        || from.groups.iter().any(|group| !is_device(group));
    let device = from.any || from.groups.iter().any(is_device);
    let machine = machine.then_some(SourceKind::Machine);
    machine
        .into_iter()
        .chain(device.then_some(SourceKind::Device))
        .collect()
}

/// Tier `software` has nothing to attest: its state is always `none`. A device is `vouched` while its node is
/// trusted, else `stale`; its tier is its node's.
fn can_be(kind: SourceKind, tier: Tier, state: AttestationState) -> bool {
    match (kind, tier) {
        (SourceKind::Machine, Tier::Software) => state == AttestationState::None,
        (SourceKind::Machine, _) => matches!(
            state,
            AttestationState::Trusted | AttestationState::Stale | AttestationState::Failed
        ),
        (SourceKind::Device, Tier::Software) => state == AttestationState::Stale,
        (SourceKind::Device, _) => {
            matches!(state, AttestationState::Vouched | AttestationState::Stale)
        }
    }
}

/// Another rule that leaves nothing to this one at each of its targets.
fn shadowed_by(policy: &CompiledPolicy, places: &[Option<Place>], index: usize) -> Option<usize> {
    let rule = policy.rules.get(index)?;
    let covers = |other: &&usize| {
        **other != index
            && places.get(**other).is_some_and(Option::is_some)
            && policy.rules.get(**other).is_some_and(|candidate| {
                leaves_nothing(policy, candidate, rule)
                    // Of two that cover each other the later one goes.
                    && (!leaves_nothing(policy, rule, candidate)
                        || places.get(**other) < places.get(index))
            })
    };
    let global = policy.everywhere.iter().find(covers);
    if global.is_some() || rule.everywhere || rule.targets.is_empty() {
        return global.copied();
    }
    let mut first = None;
    for target in &rule.targets {
        let cover = policy.interfaces.get(*target)?.rows.iter().find(covers)?;
        first.get_or_insert(*cover);
    }
    first
}

/// Whether, at a common target, `cover` decides whatever `rule` would.
fn leaves_nothing(policy: &CompiledPolicy, cover: &Rule, rule: &Rule) -> bool {
    let profiles_cover = match (&cover.profiles, &rule.profiles) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(cover), Some(rule)) => rule.is_subset(cover),
    };
    let terms_cover = match (cover.effect, rule.effect) {
        (Effect::Deny, _) => true,
        (Effect::Allow, Effect::Deny) => return false,
        (Effect::Allow, Effect::Allow) => {
            term_covers(cover.fresh, rule.fresh) && term_covers(cover.offline, rule.offline)
        }
    };
    let window_covers = cover.window.is_none() || cover.window == rule.window;
    let until_covers = match (cover.until, rule.until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(cover), Some(rule)) => cover >= rule,
    };
    let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
    let tiers_cover = tiers
        .into_iter()
        .all(|tier| !covers_tier(&rule.tiers, tier) || covers_tier(&cover.tiers, tier));
    let states_cover = cover.states == rule.states
        || kinds_of(policy, &rule.from).into_iter().all(|kind| {
            let covered = state_set(&cover.states, kind);
            let states = state_set(&rule.states, kind);
            states.iter().all(|state| covered.contains(state))
        });
    // Its own approval does not make a rule cover what needs none, or another one.
    let approval_covers = match (&cover.approval, &rule.approval) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(cover), Some(rule)) => cover.digest == rule.digest,
    };
    let runs_cover = cover.runs.iter().all(|runs| rule.runs.contains(runs));
    let actions_cover = rule
        .actions
        .iter()
        .all(|action| cover.actions.contains(action));
    terms_cover
        && actions_cover
        && profiles_cover
        && window_covers
        && until_covers
        && tiers_cover
        && states_cover
        && runs_cover
        && approval_covers
        && sources_cover(policy, &cover.from, &rule.from)
        && !opens_to_guests(policy, cover, rule)
}

/// Whether a rule lets devices through the tunnel that an allow of `any` leaves out.
fn opens_to_guests(policy: &CompiledPolicy, cover: &Rule, rule: &Rule) -> bool {
    let groups = rule.from.groups.iter();
    let mut groups = groups.filter_map(|group| policy.groups.get(*group));
    let devices = groups.any(|group| group.via.is_some());
    let mut interfaces = policy.interfaces.iter().enumerate();
    let in_tunnel = interfaces.any(|(index, interface)| {
        interface.is_open_to_guests() && (rule.everywhere || rule.targets.contains(&index))
    });
    cover.effect == Effect::Allow && cover.from.any && devices && in_tunnel
}

fn sources_cover(policy: &CompiledPolicy, cover: &From, from: &From) -> bool {
    if cover.any {
        return true;
    }
    let group_covered = |group: &usize| {
        cover.groups.contains(group)
            || cover.groups.iter().any(|other| {
                match (policy.groups.get(*group), policy.groups.get(*other)) {
                    (Some(inner), Some(outer)) => {
                        inner.via == outer.via && is_within(&inner.matches, &outer.matches)
                    }
                    _ => false,
                }
            })
    };
    let operators_covered = |group: &usize| {
        cover.operator_groups.iter().any(|other| {
            match (
                policy.operator_groups.get(*group),
                policy.operator_groups.get(*other),
            ) {
                (Some(inner), Some(outer)) => inner.members.is_subset(&outer.members),
                _ => false,
            }
        })
    };
    !from.any
        && from.groups.iter().all(group_covered)
        && from.operator_groups.iter().all(operators_covered)
}

/// Whether `cover` is at least as lenient as `term` whatever a profile says.
fn term_covers(cover: Term, term: Term) -> bool {
    let most_covers = match (cover.most, term.most) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(cover), Some(term)) => cover >= term,
    };
    most_covers
        && match (cover.own, term.own) {
            (Some(cover), Some(own)) => cover >= own,
            (None, Some(own)) => cover.default >= own,
            (None, None) => cover.default >= term.default,
            (Some(_), None) => false,
        }
}

fn covers_tier(tiers: &Tiers, tier: Option<Tier>) -> bool {
    match (tiers, tier) {
        (Tiers::Every, _) => true,
        (_, None) => false,
        (Tiers::Rooted, Some(tier)) => tier != Tier::Software,
        (Tiers::These(these), Some(tier)) => these.contains(&tier),
    }
}

fn state_set(states: &States, kind: SourceKind) -> Vec<AttestationState> {
    let all = AttestationState::ALL.into_iter();
    match states {
        States::Every => all.collect(),
        States::Proven => match kind {
            SourceKind::Machine => vec![AttestationState::Trusted],
            SourceKind::Device => vec![AttestationState::Vouched],
        },
        States::These(these) => these.clone(),
        States::Unless(unless) => all.filter(|state| !unless.contains(state)).collect(),
    }
}
