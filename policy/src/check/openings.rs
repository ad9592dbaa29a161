//! What lets in more than named and proven parties: listed, so that a reader sees every opening.

use std::fmt;

use edgeward_identity::{AttestationState, Tier};
use serde::Serialize;

use crate::ast::{PolicyFile, RuleDef, Scope, Source, TargetName};
use crate::diagnostic::Diagnostics;
use crate::profile::{Mode, Violations};
use crate::slice::Effect;
use crate::source::Place;

/// One opening. Its display is `file:line:column: opening: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opening {
    /// `file:line:column`.
    pub at: String,
    pub kind: OpeningKind,
    /// The rule, profile or file it belongs to.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpeningKind {
    /// A file that may grant in the whole trust domain.
    ScopeAny,
    /// An allow from everybody.
    FromAny,
    /// An allow to everything.
    ToAny,
    /// An allow for a state that proves nothing.
    UnprovenState,
    /// An allow or a profile for tier `software`.
    SoftwareTier,
    /// A profile whose verdicts are recorded and not enforced.
    Monitor,
    /// A workload known by its program alone: whoever may run that program may be it.
    ProgramOnly,
    /// A profile that does not look at files which changed while IMA measured them.
    ViolationsIgnored,
    /// A device known by one address alone: whoever takes that address is it.
    AddressOnly,
    /// An allow for people that holds at any time, for ever, without an approval.
    PeopleAlways,
    /// Rules whose time and age people may waive with the cloud gone.
    BreakGlass,
    /// A group where refusals of apps are recorded and nothing is refused.
    AppsObserved,
}

pub(super) fn list(files: &[PolicyFile], places: &Diagnostics<'_>) -> Vec<Opening> {
    let mut openings = Vec::new();
    let mut add = |at: Place, kind, name: &str| {
        openings.push(Opening {
            at: places.show(at),
            kind,
            name: name.to_owned(),
        });
    };
    for file in files {
        if let Scope::Any(at) = file.scope {
            add(at, OpeningKind::ScopeAny, "scope");
        }
        for profile in &file.profiles {
            let name = &profile.profile.name;
            if let (Mode::Monitor, Some(at)) = (profile.profile.mode, profile.mode_at) {
                add(at, OpeningKind::Monitor, name);
            }
            if let Some(ima) = &profile.ima
                && ima.violations == Violations::Ignore
            {
                add(ima.violations_at, OpeningKind::ViolationsIgnored, name);
            }
            if profile.profile.tiers.contains(&Tier::Software) {
                add(profile.at, OpeningKind::SoftwareTier, name);
            }
        }
        let default_tier = file
            .defaults
            .as_ref()
            .and_then(|defaults| defaults.tier.as_ref());
        if let Some(tier) = default_tier.filter(|tier| tier.value.contains(&Tier::Software)) {
            add(tier.at, OpeningKind::SoftwareTier, "defaults");
        }
        for device in &file.devices {
            let how = &device.recognised;
            let addresses =
                usize::from(how.value.mac.is_some()) + usize::from(how.value.ip.is_some());
            if how.value.certificate.is_none() && addresses < 2 {
                add(how.at, OpeningKind::AddressOnly, &device.name.value);
            }
        }
        for workload in &file.workloads {
            if workload.selectors.value.is_program_only() {
                let at = workload.selectors.at;
                add(at, OpeningKind::ProgramOnly, &workload.name.value);
            }
        }
        for apps in &file.apps {
            if let Some(at) = apps.observed_at {
                add(at, OpeningKind::AppsObserved, &apps.name.value);
            }
        }
        for glass in &file.break_glass {
            add(glass.name.at, OpeningKind::BreakGlass, &glass.name.value);
        }
        for rule in file
            .rules
            .iter()
            .filter(|rule| rule.effect == Effect::Allow)
        {
            for (at, kind) in of_rule(rule) {
                add(at, kind, &rule.id.value);
            }
        }
    }
    openings
}

fn of_rule(rule: &RuleDef) -> Vec<(Place, OpeningKind)> {
    let mut found = Vec::new();
    let people = rule.from.iter();
    let mut people = people.filter(|source| matches!(source.value, Source::OperatorGroup(_)));
    if let Some(people) = people.next()
        && rule.window.is_none()
        && rule.until.is_none()
        && rule.approval.is_none()
    {
        found.push((people.at, OpeningKind::PeopleAlways));
    }
    let any_source = rule.from.iter().find(|source| source.value == Source::Any);
    found.extend(any_source.map(|source| (source.at, OpeningKind::FromAny)));
    let any_target = rule
        .to
        .iter()
        .find(|target| target.value == TargetName::Any);
    found.extend(any_target.map(|target| (target.at, OpeningKind::ToAny)));
    let proves = |state: &AttestationState| {
        matches!(state, AttestationState::Trusted | AttestationState::Vouched)
    };
    if let Some(state) = rule
        .state
        .as_ref()
        .filter(|state| !state.value.iter().all(proves))
    {
        found.push((state.at, OpeningKind::UnprovenState));
    }
    if let Some(tier) = rule
        .tier
        .as_ref()
        .filter(|tier| tier.value.contains(&Tier::Software))
    {
        found.push((tier.at, OpeningKind::SoftwareTier));
    }
    found
}

impl OpeningKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScopeAny => "scope is the whole trust domain",
            Self::FromAny => "allows from any",
            Self::ToAny => "allows to any",
            Self::UnprovenState => "allows a state that proves nothing",
            Self::SoftwareTier => "accepts tier software",
            Self::Monitor => "mode monitor: nothing is enforced",
            Self::ProgramOnly => "a workload known by its program alone, whoever runs it",
            Self::ViolationsIgnored => "ignores violations in the IMA list",
            Self::AddressOnly => "a device known by one address alone, whoever takes it",
            Self::PeopleAlways => "lets people in at any time, for ever, unasked",
            Self::BreakGlass => "break-glass: waives window, end, approval and age of its rules",
            Self::AppsObserved => "observes apps: what no rule allows runs and is recorded",
        }
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: opening: {}: {}",
            self.at,
            self.name,
            self.kind.as_str()
        )
    }
}
