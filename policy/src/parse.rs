//! Policy files, `edgeward-policy/1`: TOML to a typed tree with places. All errors are collected.

use std::collections::{BTreeSet, HashMap};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::ast::{LabelSets, PolicyFile, Scope};
use crate::diagnostic::{Code, Diagnostics};
use crate::source::{
    Lines, MAX_FILE_BYTES, MAX_FILES, MAX_INVARIANTS, MAX_LIST, MAX_PATH_BYTES, MAX_RULES,
    MAX_TESTS, POLICY_ENDING, Place, Placed, SourceFile,
};

mod approvals;
pub(crate) mod break_glass;
mod devices;
mod fields;
mod invariants;
mod l7;
pub(crate) mod lists;
mod networks;
mod parties;
mod programs;
mod rules;
mod services;
mod trials;
mod workloads;

use fields::{Fields, Keys, Reader};
pub(crate) use services::EXIT;

/// The one `schema` accepted.
pub const SCHEMA: &str = "edgeward-policy/1";

const TOP: Keys = Keys {
    accepted: &[
        "schema",
        "owner",
        "scope",
        "defaults",
        "profile",
        "group",
        "operator-group",
        "service",
        "window",
        "rule",
        "test",
        "workload",
        "device",
        "invariant",
        "break-glass",
        "route",
        "role",
        "publisher",
        "apps",
        "apps_root",
    ],
    not_enforced: &[],
};

/// Reads every policy file within the limits, and checks the paths of all.
pub(crate) fn parse<'s>(files: &'s [SourceFile], found: &mut Diagnostics<'s>) -> Vec<PolicyFile> {
    if files.len() > MAX_FILES {
        found.error(
            whole(0),
            Code::TooMuch,
            format!("more files than the limit: {MAX_FILES}"),
        );
        return Vec::new();
    }
    let mut seen = HashMap::new();
    let mut parsed = Vec::new();
    let (mut rules, mut tests, mut invariants) = (0, 0, 0);
    for (index, file) in files.iter().enumerate() {
        if seen.insert(file.path.as_str(), index).is_some() {
            found.error(whole(index), Code::DuplicateName, "two files of this path");
            continue;
        }
        if !path_fits(&file.path) {
            found.error_with_help(
                whole(index),
                Code::BadValue,
                "path does not fit",
                format!("relative, at most {MAX_PATH_BYTES} bytes, no control characters, no `.` or `..` parts"),
            );
            continue;
        }
        if file.is_list() {
            continue;
        }
        if !file.path.ends_with(POLICY_ENDING) {
            found.error_with_help(
                whole(index),
                Code::BadValue,
                "neither a policy file nor a list of digests",
                "policy files end in .toml, lists in .allow or .deny",
            );
            continue;
        }
        if file.text.len() > MAX_FILE_BYTES {
            found.error(
                whole(index),
                Code::TooMuch,
                format!("file larger than the limit in bytes: {MAX_FILE_BYTES}"),
            );
            continue;
        }
        let policy = parse_file(index, file, found);
        rules += policy.rules.len();
        tests += policy.tests.len();
        invariants += policy.invariants.len();
        for (count, limit, what) in [
            (rules, MAX_RULES, "rules"),
            (tests, MAX_TESTS, "tests"),
            (invariants, MAX_INVARIANTS, "invariants"),
        ] {
            if count > limit {
                let message = format!("more {what} than the limit: {limit}");
                found.error(whole(index), Code::TooMuch, message);
                return parsed;
            }
        }
        parsed.push(policy);
    }
    parsed
}

fn parse_file<'s>(index: usize, file: &'s SourceFile, found: &mut Diagnostics<'s>) -> PolicyFile {
    let lines = Lines::new(&file.text);
    let (document, errors) = DeTable::parse_recoverable(&file.text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        found.error(lines.place(index, offset), Code::Syntax, error.message());
    }
    let mut policy = PolicyFile {
        file: index,
        directory: file.directory().to_owned(),
        scope: Scope::Unreadable,
        defaults: None,
        profiles: Vec::new(),
        groups: Vec::new(),
        devices: Vec::new(),
        operator_groups: Vec::new(),
        services: Vec::new(),
        windows: Vec::new(),
        rules: Vec::new(),
        tests: Vec::new(),
        invariants: Vec::new(),
        workloads: Vec::new(),
        routes: Vec::new(),
        role: None,
        publishers: Vec::new(),
        apps: Vec::new(),
        apps_root: None,
        break_glass: Vec::new(),
        unreadable: BTreeSet::new(),
    };
    // What a parser makes of a broken document is a guess: no further errors from it.
    if !errors.is_empty() {
        return policy;
    }
    let before = found.count();
    let mut reader = Reader {
        file: index,
        lines: &lines,
        found,
    };
    let whole_file = read_document(&mut reader, document.get_ref(), &mut policy);
    // Whatever the reason, what is left out never goes without an error.
    if !whole_file && found.count() == before {
        found.error(
            whole(index),
            Code::Syntax,
            "part of the file could not be read",
        );
    }
    policy
}

/// Whether everything in it was read.
fn read_document(
    reader: &mut Reader<'_, '_>,
    table: &DeTable<'_>,
    policy: &mut PolicyFile,
) -> bool {
    let at = Place {
        file: policy.file,
        line: 1,
        column: 1,
    };
    let top = reader.fields(table, at, "the file", &TOP);
    read_head(reader, &top, policy);
    read_definitions(reader, &top, policy);
    let rules = tables(reader, top.get("rule"), "rule");
    for value in &rules {
        policy.rules.extend(rules::read_rule(reader, value));
    }
    let tests = tables(reader, top.get("test"), "test");
    for value in &tests {
        policy.tests.extend(trials::read_test(reader, value));
    }
    let invariants = tables(reader, top.get("invariant"), "invariant");
    for value in &invariants {
        let read = invariants::read_invariant(reader, value);
        policy.invariants.extend(read);
    }
    policy.unreadable.is_empty()
        && policy.rules.len() == rules.len()
        && policy.tests.len() == tests.len()
        && policy.invariants.len() == invariants.len()
}

fn read_head(reader: &mut Reader<'_, '_>, top: &Fields<'_>, policy: &mut PolicyFile) {
    if let Some(schema) = top.required_string(reader, "schema")
        && schema.value != SCHEMA
    {
        reader.bad(
            schema.at,
            format!("schema is unknown: {:?}", schema.value),
            format!("accepted: {SCHEMA:?}"),
        );
    }
    if let Some(owner) = top.required_string(reader, "owner") {
        reader.is_name(&owner, "owner");
    }
    if let Some(value) = top.required(reader, "scope") {
        policy.scope = read_scope(reader, value);
    }
    if let Some(value) = top.get("defaults") {
        policy.defaults = rules::read_defaults(reader, value);
    }
}

fn read_definitions(reader: &mut Reader<'_, '_>, top: &Fields<'_>, policy: &mut PolicyFile) {
    let each = |reader: &mut Reader<'_, '_>, kind: &'static str| {
        let named = top.get(kind).map(|value| reader.named(value, kind));
        named.unwrap_or_default()
    };
    let mut lost = BTreeSet::new();
    for (name, value) in each(reader, "profile") {
        let read = parties::read_profile(reader, &name, value);
        keep(read, &mut policy.profiles, ("profile", name), &mut lost);
    }
    for (name, value) in each(reader, "group") {
        let read = parties::read_group(reader, name.clone(), value);
        keep(read, &mut policy.groups, ("group", name), &mut lost);
    }
    for (name, value) in each(reader, "device") {
        let read = devices::read_device(reader, name.clone(), value);
        keep(read, &mut policy.devices, ("device", name), &mut lost);
    }
    for (name, value) in each(reader, "operator-group") {
        let read = parties::read_operator_group(reader, name.clone(), value);
        let named = ("operator-group", name);
        keep(read, &mut policy.operator_groups, named, &mut lost);
    }
    for (name, value) in each(reader, "service") {
        let read = services::read_service(reader, name.clone(), value, &mut lost);
        keep(read, &mut policy.services, ("service", name), &mut lost);
    }
    for (name, value) in each(reader, "window") {
        let read = services::read_window(reader, &name, value);
        keep(read, &mut policy.windows, ("window", name), &mut lost);
    }
    for (name, value) in each(reader, "break-glass") {
        let read = break_glass::read_break_glass(reader, name.clone(), value);
        let named = ("break-glass", name);
        keep(read, &mut policy.break_glass, named, &mut lost);
    }
    for (name, value) in each(reader, "route") {
        let read = networks::read_route(reader, name.clone(), value);
        keep(read, &mut policy.routes, ("route", name), &mut lost);
    }
    for (name, value) in each(reader, "publisher") {
        let read = programs::read_publisher(reader, name.clone(), value);
        keep(read, &mut policy.publishers, ("publisher", name), &mut lost);
    }
    for (name, value) in each(reader, "apps") {
        let read = programs::read_apps(reader, name.clone(), value);
        keep(read, &mut policy.apps, ("apps", name), &mut lost);
    }
    if let Some(value) = top.get("apps_root") {
        policy.apps_root = programs::read_apps_root(reader, value);
    }
    if let Some(value) = top.get("role") {
        policy.role = networks::read_role(reader, value);
    }
    let workloads = top.get("workload");
    for (name, value) in workloads.map_or_else(Vec::new, |all| workloads::named(reader, all)) {
        let read = workloads::read_workload(reader, name.clone(), value);
        keep(read, &mut policy.workloads, ("workload", name), &mut lost);
    }
    policy.unreadable = lost;
}

/// Keeps what could be read, and the name of what could not: no second error for its name then.
fn keep<T>(
    read: Option<T>,
    list: &mut Vec<T>,
    (kind, name): (&'static str, Placed<String>),
    lost: &mut BTreeSet<(&'static str, String)>,
) {
    match read {
        Some(read) => list.push(read),
        None => {
            lost.insert((kind, name.value));
        }
    }
}

/// The tables of `[[kind]]`.
fn tables<'t>(
    reader: &mut Reader<'_, '_>,
    value: Option<&'t Spanned<DeValue<'t>>>,
    kind: &str,
) -> Vec<&'t Spanned<DeValue<'t>>> {
    match value.map(|value| (value, value.get_ref())) {
        None => Vec::new(),
        Some((_, DeValue::Array(array))) => array.iter().collect(),
        Some((value, _)) => {
            reader.wrong_type(value, &format!("`{kind}`"), &format!("[[{kind}]]"));
            Vec::new()
        }
    }
}

fn read_scope(reader: &mut Reader<'_, '_>, value: &Spanned<DeValue<'_>>) -> Scope {
    let at = reader.place(value.span().start);
    let help = "write scope = { key = [\"value\"] }, or scope = \"any\" for the whole trust domain";
    match value.get_ref() {
        DeValue::String(text) if text == "any" => Scope::Any(at),
        DeValue::String(text) => {
            reader.bad(at, format!("scope is unknown: {text:?}"), help);
            Scope::Unreadable
        }
        DeValue::Table(table) if table.is_empty() => {
            reader.bad(at, "scope is empty", help);
            Scope::Unreadable
        }
        _ => read_labels(reader, value, "scope").map_or(Scope::Unreadable, Scope::Labels),
    }
}

/// `{ key = ["value", …], … }`: a conjunction of memberships.
fn read_labels(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<LabelSets> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, what, "{ key = [\"value\"] }");
        return None;
    };
    let at = reader.place(value.span().start);
    if table.is_empty() || table.len() > MAX_LIST {
        reader.bad(
            at,
            format!("{what} names no label"),
            "write { key = [\"value\"] }",
        );
        return None;
    }
    let mut sets = LabelSets::new();
    let mut sound = true;
    for (key, values) in table {
        let at = reader.place(key.span().start);
        let name = Placed {
            value: key.get_ref().to_string(),
            at,
        };
        let key_fits = reader.is_label(&name, "label key");
        let values = reader.strings(values, &format!("label `{}` in {what}", name.value));
        let Some(values) = values.filter(|_| key_fits) else {
            sound = false;
            continue;
        };
        sound &= values
            .iter()
            .all(|value| reader.is_label(value, "label value"));
        sets.insert(
            name.value,
            values.into_iter().map(|value| value.value).collect(),
        );
    }
    sound.then_some(sets)
}

fn path_fits(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_PATH_BYTES
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn whole(file: usize) -> Place {
    Place {
        file,
        line: 0,
        column: 0,
    }
}
