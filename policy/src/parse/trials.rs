//! `[[test]]`.

use std::collections::BTreeMap;

use edgeward_identity::AttestationState;
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::parties::TIERS;
use super::rules::{MAX_TEST_NAME_BYTES, STATES, peek_string, read_profiles, read_target};
use crate::ast::{TargetName, TestDef};
use crate::decision::{Reason, Verdict};
use crate::runs::read_running;
use crate::seconds::Seconds;
use crate::source::Placed;

const TEST: Keys = Keys {
    accepted: &[
        "name", "from", "to", "do", "l7", "at", "expect", "by", "because", "approved",
    ],
    not_enforced: &[],
};
const TEST_FROM: Keys = Keys {
    accepted: &[
        "groups",
        "operator-groups",
        "state",
        "tier",
        "age",
        "profile",
        "runs",
    ],
    not_enforced: &[],
};

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
        if matches!(value, TargetName::Any | TargetName::Exit) {
            reader.bad(
                text.at,
                "a test asks about one interface",
                "write \"service/interface\"; of the internet \"exit/<group>.tcp\"",
            );
            return None;
        }
        Some(Placed { value, at: text.at })
    });
    let l7 = fields.optional_string(reader, "l7").ok()?;
    // A request says by itself which actions it fits.
    let action = match l7 {
        None => fields.required_string(reader, "do").map(Some),
        Some(_) => fields.optional_string(reader, "do").ok(),
    };
    let expect = fields.required_string(reader, "expect").and_then(|text| {
        let words = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
        reader.word(&text, &fields.what("expect"), &words)
    });
    let by = fields.optional_string(reader, "by");
    let because = read_because(reader, &fields);
    let when = fields.timestamp(reader, "at");
    let approved = match fields.get("approved") {
        None => Some(false),
        Some(value) => reader.boolean(value, &fields.what("approved")),
    };
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
        runs: subject.runs,
        to: to?,
        action,
        l7,
        expect: expect?,
        by: by.ok()?,
        because: because.ok()?,
        when: when.ok()?,
        approved: approved?,
    })
}

fn read_because(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Option<Reason>, Unreadable> {
    let Some(text) = fields.optional_string(reader, "because")? else {
        return Ok(None);
    };
    let words = Reason::ALL.map(|reason| (reason.as_str(), reason));
    let reason = reader.word(&text, &fields.what("because"), &words);
    reason.map(Some).ok_or(Unreadable)
}

struct TestSubject {
    groups: Vec<Placed<String>>,
    operator_groups: Vec<Placed<String>>,
    state: Option<AttestationState>,
    tier: Option<edgeward_identity::Tier>,
    age: Seconds,
    profiles: Option<Vec<Placed<String>>>,
    runs: Option<BTreeMap<String, String>>,
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
            None => Ok(None),
            Some(text) => {
                let state = reader.word(&text, &from.what("state"), &STATES);
                state.map(Some).ok_or(Unreadable)
            }
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
    let runs = match from.get("runs") {
        None => Some(None),
        Some(value) => read_runs(reader, value, &from.what("runs")).map(Some),
    };
    let (groups, operator_groups) = (groups?, operator_groups?);
    if groups.is_empty() == operator_groups.is_empty() {
        reader.bad(
            from.at,
            "a test is about a node, a device or an operator",
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
        runs: runs?,
    })
}

/// What its evidence says that it runs.
fn read_runs(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<BTreeMap<String, String>> {
    let mut runs = BTreeMap::new();
    for text in reader.strings(value, what)? {
        let Some((app, version)) = read_running(&text.value) else {
            let message = format!("{what} names no release: {:?}", text.value);
            reader.bad(text.at, message, "write \"<publisher>/<name>@<version>\"");
            return None;
        };
        if runs.insert(app, version).is_some() {
            reader.bad(
                text.at,
                format!("{what} names an app twice"),
                "name it once",
            );
            return None;
        }
    }
    Some(runs)
}
