//! `[defaults]`, `[[rule]]` and `[[test]]`.

use edgeward_identity::AttestationState;
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::parties::TIERS;
use crate::ast::{Defaults, RuleDef, Source, TargetName, TestDef};
use crate::decision::{Reason, Verdict};
use crate::seconds::Seconds;
use crate::slice::Effect;
use crate::source::Placed;

/// Longest name of a test, in bytes.
const MAX_TEST_NAME_BYTES: usize = 200;

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
    ],
    not_enforced: &["runs", "approval"],
};
const WHEN: Keys = Keys {
    accepted: &["window", "until"],
    not_enforced: &[],
};
const TEST: Keys = Keys {
    accepted: &["name", "from", "to", "do", "at", "expect", "by", "because"],
    not_enforced: &["l7"],
};
const TEST_FROM: Keys = Keys {
    accepted: &[
        "groups",
        "operator-groups",
        "state",
        "tier",
        "age",
        "profile",
    ],
    not_enforced: &["runs"],
};

const STATES: [(&str, AttestationState); 5] = [
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

pub(super) fn read_test(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<TestDef> {
    let name = peek_string(value, "name");
    let what = name.map_or_else(|| "a test".to_owned(), |name| format!("test `{name}`"));
    let fields = reader.table(value, &what, &TEST)?;
    let name = fields.required_string(reader, "name").filter(|name| {
        let fits = !name.value.trim().is_empty() && name.value.len() <= MAX_TEST_NAME_BYTES;
        if !fits {
            reader.bad(
                name.at,
                "name of the test does not fit",
                format!("1 to {MAX_TEST_NAME_BYTES} bytes"),
            );
        }
        fits
    });
    let from = fields
        .required(reader, "from")
        .and_then(|value| reader.table(value, &format!("`from` of {what}"), &TEST_FROM));
    let subject = from.and_then(|from| read_subject(reader, &from));
    let to = fields.required_string(reader, "to").and_then(|text| {
        let value = read_target(reader, &text)?;
        if value == TargetName::Any {
            reader.bad(
                text.at,
                "a test asks about one interface",
                "write \"service/interface\"",
            );
            return None;
        }
        Some(Placed { value, at: text.at })
    });
    let action = fields.required_string(reader, "do");
    let expect = fields.required_string(reader, "expect").and_then(|text| {
        let words = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
        reader.word(&text, &fields.what("expect"), &words)
    });
    let by = fields.optional_string(reader, "by");
    let because = fields
        .optional_string(reader, "because")
        .and_then(|text| match text {
            None => Ok(None),
            Some(text) => {
                let words = Reason::ALL.map(|reason| (reason.as_str(), reason));
                let reason = reader.word(&text, &fields.what("because"), &words);
                reason.map(Some).ok_or(Unreadable)
            }
        });
    let when = fields.timestamp(reader, "at");
    let subject = subject?;
    let (name, action) = (name?, action?);
    Some(TestDef {
        at: name.at,
        name: name.value,
        groups: subject.groups,
        operator_groups: subject.operator_groups,
        state: subject.state,
        tier: subject.tier,
        age: subject.age,
        profiles: subject.profiles,
        to: to?,
        action,
        expect: expect?,
        by: by.ok()?,
        because: because.ok()?,
        when: when.ok()?,
    })
}

struct TestSubject {
    groups: Vec<Placed<String>>,
    operator_groups: Vec<Placed<String>>,
    state: AttestationState,
    tier: Option<edgeward_identity::Tier>,
    age: Seconds,
    profiles: Option<Vec<Placed<String>>>,
}

fn read_subject(reader: &mut Reader<'_, '_>, from: &Fields<'_>) -> Option<TestSubject> {
    let list = |reader: &mut Reader<'_, '_>, key: &str| match from.get(key) {
        None => Some(Vec::new()),
        Some(value) => reader.strings(value, &from.what(key)),
    };
    let groups = list(reader, "groups");
    let operator_groups = list(reader, "operator-groups");
    let state = from
        .optional_string(reader, "state")
        .and_then(|text| match text {
            None => Ok(AttestationState::Trusted),
            Some(text) => reader
                .word(&text, &from.what("state"), &STATES)
                .ok_or(Unreadable),
        });
    let tier = from
        .optional_string(reader, "tier")
        .and_then(|text| match text {
            None => Ok(None),
            Some(text) => {
                let tier = reader.word(&text, &from.what("tier"), &TIERS);
                tier.map(Some).ok_or(Unreadable)
            }
        });
    let age = from.seconds(reader, "age");
    let profiles = read_profiles(reader, from);
    let (groups, operator_groups) = (groups?, operator_groups?);
    if groups.is_empty() == operator_groups.is_empty() {
        reader.bad(
            from.at,
            "a test is about a node or about an operator",
            "name groups or operator-groups",
        );
        return None;
    }
    Some(TestSubject {
        groups,
        operator_groups,
        state: state.ok()?,
        tier: tier.ok()?,
        age: age.ok()?.map_or_else(Seconds::default, |age| age.value),
        profiles: profiles.ok()?,
    })
}

/// Names of profiles, each once.
fn read_profiles(
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

fn read_source(reader: &mut Reader<'_, '_>, text: &Placed<String>) -> Option<Source> {
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

fn read_target(reader: &mut Reader<'_, '_>, text: &Placed<String>) -> Option<TargetName> {
    if text.value == "any" {
        return Some(TargetName::Any);
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
                "write \"<service>/<interface>\" or \"any\"",
            );
            None
        }
    }
}

fn peek_string<'t>(value: &'t Spanned<DeValue<'t>>, key: &str) -> Option<&'t str> {
    let DeValue::Table(table) = value.get_ref() else {
        return None;
    };
    match table.get(key)?.get_ref() {
        DeValue::String(text) if text.len() <= MAX_TEST_NAME_BYTES => Some(text.as_ref()),
        _ => None,
    }
}
