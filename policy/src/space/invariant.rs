//! What must never be allowed, proved over the whole space; or one point at which it is.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::{AttestationState, Kind, Tier, Timestamp};

use super::TooLarge;
use super::axes::{Atoms, Axes, Axis, TIERS, least, state};
use super::cells::{Cell, Members};
use super::diagram::{Outcome, Path};
use super::interface::{Here, Pair, Wanted};
use super::region::Offered;
use super::wording::{running, written};
use crate::compile::{CompiledPolicy, Interface, Invariant};
use crate::diagnostic::{Code, Diagnostics};
use crate::seconds::Seconds;

/// From when on an invariant is proved where no time is told: 2026-01-01T00:00:00Z. A rule that ended before cannot
/// violate it.
const SINCE: Timestamp = Timestamp::from_secs(1_767_225_600);

/// Proves every invariant of a policy from a time on; each that does not hold is an error at its place.
pub(crate) fn check_invariants(
    policy: &CompiledPolicy,
    since: Option<Timestamp>,
    found: &mut Diagnostics<'_>,
) {
    if policy.invariants.is_empty() {
        return;
    }
    let mut pair = Pair::new(policy, policy, since.unwrap_or(SINCE));
    for invariant in &policy.invariants {
        match counterexample(policy, &mut pair, invariant) {
            Ok(None) => {}
            Ok(Some((what, how))) => found.error_with_help(
                invariant.at,
                Code::InvariantViolated,
                format!("invariant `{}` does not hold: {what}", invariant.name),
                how,
            ),
            Err(error) => found.error_with_help(
                invariant.at,
                Code::TooMuch,
                format!("invariant `{}` cannot be proved: {error}", invariant.name),
                "name fewer groups, windows or ages at one interface",
            ),
        }
    }
}

/// Who may do what, and how it comes about.
fn counterexample(
    policy: &CompiledPolicy,
    pair: &mut Pair<'_>,
    invariant: &Invariant,
) -> Result<Option<(String, String)>, TooLarge> {
    let targets = policy.interfaces.iter().enumerate();
    let targets =
        targets.filter(|(index, _)| invariant.everywhere || invariant.targets.contains(index));
    for (_, interface) in targets {
        let wanted = wanted(policy, pair, invariant);
        let rows = pair.sides[0].rows(interface);
        let here = pair.here([Some(interface), None], [Some(rows), None], &wanted)?;
        let only = only(pair, invariant, &here);
        let Some(only) = only else { continue };
        let meant = |cell: &Cell| is_from(pair, policy, invariant, cell);
        let found = pair.differences(&here, Offered::Before, &only, &meant)?;
        let mut found: Vec<(&Path, &BTreeSet<usize>)> = found.iter().collect();
        // The likeliest first: what is allowed to somebody trusted says more than a state that hardly comes about.
        found.sort_by_key(|(path, who)| {
            let cell = who.first().and_then(|index| here.cells.get(*index));
            let kind = cell.map_or(Kind::Node, Cell::kind);
            let proven = proven(kind);
            let states = path.atoms.get(&Axis::State);
            let holds = |states: &Atoms| states.iter().any(|atom| state(*atom) == Some(proven));
            (!states.is_none_or(holds), (*path).clone())
        });
        if let Some((path, who)) = found.first() {
            let cell = who.first().and_then(|index| here.cells.get(*index));
            return Ok(cell.map(|cell| words(&here, interface, cell, path)));
        }
    }
    Ok(None)
}

/// What an invariant tells apart beside the rows.
fn wanted(policy: &CompiledPolicy, pair: &Pair<'_>, invariant: &Invariant) -> Wanted {
    let side = &pair.sides[0];
    let groups = invariant.from.groups.iter();
    let groups = groups.filter(|group| policy.groups.get(**group).is_some_and(|g| g.via.is_none()));
    Wanted {
        groups: groups
            .filter_map(|group| side.groups.get(*group).copied())
            .collect(),
        windows: invariant
            .outside
            .and_then(|window| side.windows.get(window).copied())
            .into_iter()
            .collect(),
    }
}

/// The atoms that an invariant is about; `None` where it is about nothing there.
fn only(pair: &Pair<'_>, invariant: &Invariant, here: &Here) -> Option<BTreeMap<Axis, Atoms>> {
    let mut only = BTreeMap::new();
    if let Some(named) = &invariant.actions {
        let actions = here.axes.actions.iter().enumerate();
        let chosen = actions.filter(|(_, action)| named.contains(*action));
        only.insert(Axis::Action, chosen.map(|(index, _)| index).collect());
    }
    if let Some(states) = &invariant.states {
        let all = (0..AttestationState::ALL.len())
            .filter(|atom| state(*atom).is_some_and(|state| states.contains(&state)));
        only.insert(Axis::State, all.collect());
    }
    if let Some(tiers) = &invariant.tiers {
        let all = TIERS.iter().enumerate();
        let chosen = all.filter(|(_, tier)| tier.is_some_and(|tier| tiers.contains(&tier)));
        only.insert(Axis::Tier, chosen.map(|(index, _)| index).collect());
    }
    if let Some(window) = invariant.outside {
        let window = pair.sides[0].windows.get(window).copied();
        let atoms = 0..here.axes.times.atoms.len();
        let shut = atoms.filter(|atom| !here.axes.times.holds(*atom, window, None));
        only.insert(Axis::Time, shut.collect());
    }
    only.values()
        .all(|atoms: &Atoms| !atoms.is_empty())
        .then_some(only)
}

fn is_from(pair: &Pair<'_>, policy: &CompiledPolicy, invariant: &Invariant, cell: &Cell) -> bool {
    if invariant.from.any {
        return true;
    }
    let groups: BTreeSet<usize> = invariant
        .from
        .groups
        .iter()
        .filter_map(|group| pair.sides[0].groups.get(*group).copied())
        .collect();
    match &cell.members {
        Members::Node(own) => !own.is_disjoint(&groups),
        Members::Device(device) => {
            let own = device.groups[0].as_ref();
            own.is_some_and(|own| !own.is_disjoint(&groups))
        }
        Members::Operator(name) => invariant.from.operator_groups.iter().any(|group| {
            let group = policy.operator_groups.get(*group);
            group.is_some_and(|group| group.members.contains(name))
        }),
    }
}

fn proven(kind: Kind) -> AttestationState {
    match kind {
        Kind::Device => AttestationState::Vouched,
        _ => AttestationState::Trusted,
    }
}

/// One point of a path: the most ordinary of those that it covers.
fn words(here: &Here, interface: &Interface, cell: &Cell, path: &Path) -> (String, String) {
    let axes = &here.axes;
    let pick = |axis: Axis, best: usize| pick(path, axis, best);
    let proven = proven(cell.kind());
    let usual = AttestationState::ALL
        .iter()
        .position(|state| *state == proven);
    let state = state(pick(Axis::State, usual.unwrap_or_default()));
    let tier = TIERS.get(pick(Axis::Tier, 0)).copied().flatten();
    let action = axes.actions.get(pick(Axis::Action, 0));
    let time = axes.times.atoms.get(pick(Axis::Time, 0));
    let labels: Vec<String> = cell
        .example
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let labels = match labels.is_empty() {
        true => "no labels".to_owned(),
        false => format!("labels {}", labels.join(", ")),
    };
    let who = match &cell.members {
        Members::Node(_) => format!("a node with {labels}"),
        Members::Operator(name) => format!("operator/{name}"),
        Members::Device(device) => format!("device/{} on a node with {labels}", device.name),
    };
    let mut how = vec![format!(
        "state {}",
        state.map_or("unknown", AttestationState::as_str)
    )];
    how.push(format!("tier {}", tier.map_or("unknown", Tier::as_str)));
    how.extend(circumstances(axes, path));
    how.extend(time.map(|time| format!("at {}", written(time.example))));
    let rules = match &path.outcomes.0 {
        Outcome::Allow(rules) => rules.iter().map(|rule| format!("`{rule}`")).collect(),
        Outcome::Deny(_) | Outcome::Default | Outcome::NoInterface => Vec::new(),
    };
    let what = format!(
        "{who} may {} {}/{}",
        action.map_or("", String::as_str),
        interface.service,
        interface.name
    );
    (
        what,
        format!("{}; allowed by rule {}", how.join(", "), rules.join(", ")),
    )
}

/// The best atom of an axis, or the first that the path covers.
fn pick(path: &Path, axis: Axis, best: usize) -> usize {
    match path.atoms.get(&axis) {
        None => best,
        Some(atoms) if atoms.contains(&best) => best,
        Some(atoms) => atoms.first().copied().unwrap_or(best),
    }
}

/// What matters beside who, what, state, tier and time.
fn circumstances(axes: &Axes, path: &Path) -> Vec<String> {
    let pick = |axis: Axis, best: usize| pick(path, axis, best);
    let mut how = Vec::new();
    let cut_off = pick(Axis::Link, 0);
    if cut_off > 0 {
        let since = Seconds::new(least(&axes.links, cut_off));
        how.push(format!("cut off from the cloud for {since}"));
    }
    match pick(Axis::Pass, 1) {
        0 => how.push("no pass known".to_owned()),
        1 => {}
        class => how.push(format!(
            "last pass {} ago",
            Seconds::new(least(&axes.passes, class))
        )),
    }
    for (index, (name, versions)) in axes.profiles.iter().enumerate() {
        if let Some(version) = versions.get(pick(Axis::Profile(index), 0).wrapping_sub(1)) {
            how.push(format!("profile {version} compared"));
        } else if path.atoms.contains_key(&Axis::Profile(index)) {
            how.push(format!("profile {name} not compared as it is now"));
        }
    }
    for (index, app) in axes.running.iter().enumerate() {
        if path.atoms.contains_key(&Axis::Running(index)) {
            how.push(running(app, pick(Axis::Running(index), 1)));
        }
    }
    for (index, (rule, _)) in axes.approvals.iter().enumerate() {
        if pick(Axis::Approval(index), 0) == 1 {
            how.push(format!("approval of rule `{rule}`"));
        }
    }
    how
}
