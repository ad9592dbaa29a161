//! `[defaults]` and `[[rule]]`.

use edgeward_identity::AttestationState;
use toml::Spanned;
use toml::de::DeValue;

use super::approvals::read_approval;
use super::fields::{Fields, Keys, Reader, Unreadable};
use super::parties::TIERS;
use super::programs::{is_program, is_version};
use super::services::EXIT;
use crate::ast::{Defaults, RuleDef, Source, TargetName};
use crate::slice::Effect;
use crate::source::Placed;

/// Longest name of a test or an invariant, in bytes.
pub(super) const MAX_TEST_NAME_BYTES: usize = 200;

const DEFAULTS: Keys = Keys {
    accepted: &["fresh", "offline", "tier", "max_offline"],
    not_enforced: &[],
};
const RULE: Keys = Keys {
    accepted: &[
        "id",
        "effect",
        "from",
        "to",
        "do",
        "when",
        "fresh",
        "offline",
        "tier",
        "state",
        "unless_state",
        "profile",
        "runs",
        "approval",
    ],
    not_enforced: &[],
};
const WHEN: Keys = Keys {
    accepted: &["window", "until"],
    not_enforced: &[],
};
pub(super) const STATES: [(&str, AttestationState); 5] = [
    ("trusted", AttestationState::Trusted),
    ("stale", AttestationState::Stale),
    ("failed", AttestationState::Failed),
    ("vouched", AttestationState::Vouched),
    ("none", AttestationState::None),
];

pub(super) fn read_defaults(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Defaults> {
    let fields = reader.table(value, "defaults", &DEFAULTS)?;
    let fresh = fields.seconds(reader, "fresh");
    let offline = fields.seconds(reader, "offline");
    let tier = fields.words(reader, "tier", &TIERS);
    let max_offline = fields.seconds(reader, "max_offline");
    Some(Defaults {
        fresh: fresh.ok()?,
        offline: offline.ok()?,
        tier: tier.ok()?,
        max_offline: max_offline.ok()?,
    })
}

pub(super) fn read_rule(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<RuleDef> {
    let id = peek_string(value, "id");
    let what = id.map_or_else(|| "a rule".to_owned(), |id| format!("rule `{id}`"));
    let fields = reader.table(value, &what, &RULE)?;
    let id = fields
        .required_string(reader, "id")
        .filter(|id| reader.is_name(id, "id of the rule"));
    let effect = fields.required_string(reader, "effect").and_then(|text| {
        let words = [("allow", Effect::Allow), ("deny", Effect::Deny)];
        reader.word(&text, &fields.what("effect"), &words)
    });
    let from = read_list(reader, &fields, "from", read_source);
    let to = read_list(reader, &fields, "to", read_target);
    let actions = read_list(reader, &fields, "do", |_, text| Some(text.value.clone()));
    let when = read_when(reader, &fields, &what);
    let fresh = fields.seconds(reader, "fresh");
    let offline = fields.seconds(reader, "offline");
    let tier = fields.words(reader, "tier", &TIERS);
    let state = fields.words(reader, "state", &STATES);
    let unless_state = fields.words(reader, "unless_state", &STATES);
    let profiles = read_profiles(reader, &fields);
    let runs = read_runs(reader, &fields);
    let approval = read_approval(reader, &fields);
    let (window, until) = when.ok()?;
    Some(RuleDef {
        id: id?,
        effect: effect?,
        from: from?,
        to: to?,
        actions: actions?,
        window,
        until,
        fresh: fresh.ok()?,
        offline: offline.ok()?,
        tier: tier.ok()?,
        state: state.ok()?,
        unless_state: unless_state.ok()?,
        profiles: profiles.ok()?,
        runs: runs.ok()?,
        approval: approval.ok()?,
    })
}

type When = (Option<Placed<String>>, Option<edgeward_identity::Timestamp>);

fn read_when(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    what: &str,
) -> Result<When, Unreadable> {
    let Some(value) = fields.get("when") else {
        return Ok((None, None));
    };
    let when = reader
        .table(value, &format!("`when` of {what}"), &WHEN)
        .ok_or(Unreadable)?;
    let window = when.optional_string(reader, "window");
    let until = when.timestamp(reader, "until");
    let (window, until) = (window?, until?);
    if window.is_none() && until.is_none() {
        reader.bad(
            when.at,
            format!("`when` of {what} is empty"),
            "name a window or until, or leave it out",
        );
        return Err(Unreadable);
    }
    Ok((window, until))
}

/// What the subject must run; empty where the rule does not ask.
fn read_runs(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Vec<Placed<String>>, Unreadable> {
    let Some(value) = fields.get("runs") else {
        return Ok(Vec::new());
    };
    let texts = reader.strings(value, &fields.what("runs"));
    let texts = texts.ok_or(Unreadable)?;
    for text in &texts {
        if !is_asked_for(&text.value) {
            reader.bad(
                text.at,
                format!("not a program of a publisher: {:?}", text.value),
                "write \"<publisher>/<name>\" or \"<publisher>/<name>>=<version>\", versions as in 2.3.0",
            );
            return Err(Unreadable);
        }
    }
    Ok(texts)
}

/// `publisher/name` or `publisher/name>=1.2.3`.
fn is_asked_for(text: &str) -> bool {
    match text.split_once(">=") {
        Some((program, version)) => is_program(program) && is_version(version),
        None => is_program(text),
    }
}

/// Names of profiles, each once.
pub(super) fn read_profiles(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Option<Vec<Placed<String>>>, Unreadable> {
    let Some(value) = fields.get("profile") else {
        return Ok(None);
    };
    let what = fields.what("profile");
    let names = reader.strings(value, &what).ok_or(Unreadable)?;
    let mut seen = std::collections::BTreeSet::new();
    for name in &names {
        if !seen.insert(name.value.as_str()) {
            let message = format!("{what} names twice: {:?}", name.value);
            reader.bad(name.at, message, "name it once");
            return Err(Unreadable);
        }
    }
    Ok(Some(names))
}

fn read_list<T>(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    read: impl Fn(&mut Reader<'_, '_>, &Placed<String>) -> Option<T>,
) -> Option<Vec<Placed<T>>> {
    let value = fields.required(reader, key)?;
    let texts = reader.strings(value, &fields.what(key))?;
    let mut items = Vec::new();
    for text in &texts {
        if let Some(value) = read(reader, text) {
            items.push(Placed { value, at: text.at });
        }
    }
    (items.len() == texts.len()).then_some(items)
}

pub(super) fn read_source(reader: &mut Reader<'_, '_>, text: &Placed<String>) -> Option<Source> {
    if text.value == "any" {
        return Some(Source::Any);
    }
    match text.value.split_once(':') {
        Some(("group", name)) => Some(Source::Group(name.to_owned())),
        Some(("operator-group", name)) => Some(Source::OperatorGroup(name.to_owned())),
        _ => {
            reader.bad(
                text.at,
                format!("not a source: {:?}", text.value),
                "write \"group:<name>\", \"operator-group:<name>\" or \"any\"",
            );
            None
        }
    }
}

pub(super) fn read_target(
    reader: &mut Reader<'_, '_>,
    text: &Placed<String>,
) -> Option<TargetName> {
    if text.value == "any" {
        return Some(TargetName::Any);
    }
    if text.value == EXIT {
        return Some(TargetName::Exit);
    }
    match text.value.split_once('/') {
        Some((service, interface)) if !interface.contains('/') => Some(TargetName::Interface {
            service: service.to_owned(),
            interface: interface.to_owned(),
        }),
        _ => {
            reader.bad(
                text.at,
                format!("not a target: {:?}", text.value),
                "write \"<service>/<interface>\", \"exit\" or \"any\"",
            );
            None
        }
    }
}

pub(super) fn peek_string<'t>(value: &'t Spanned<DeValue<'t>>, key: &str) -> Option<&'t str> {
    let DeValue::Table(table) = value.get_ref() else {
        return None;
    };
    match table.get(key)?.get_ref() {
        DeValue::String(text) if text.len() <= MAX_TEST_NAME_BYTES => Some(text.as_ref()),
        _ => None,
    }
}
