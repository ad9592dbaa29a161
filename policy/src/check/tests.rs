//! Every refusal with its code and place, then everything that is accepted. In the texts `§` stands before the
//! character that the error must point at.

use super::*;
use crate::diagnostic::Code;
use crate::profile::{AppControl, Mode};
use crate::source::{MAX_FILE_BYTES, MAX_FILES, MAX_LIST};

mod accepted;
mod approvals;
mod apps;
mod devices;
mod networks;
mod notes;
mod refused;
mod requests;
mod samples;
mod schema;
mod trials;
mod workloads;

/// A sound policy that the cases change or add to.
pub(super) const BASE: &str = r#"schema = "edgeward-policy/1"
owner = "ot-suzhou"
scope = { site = ["suzhou"] }

[profile.gateway]
tier = ["hardware", "virtual"]
pcr_bank = "sha256"
pcr = { 7 = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"] }

[group.gateways]
match = { role = ["gateway"], site = ["suzhou"] }
profile = "gateway"

[group.scada]
match = { role = ["scada"], site = ["suzhou"] }
profile = "gateway"

[operator-group.vendor]
members = ["operator/li"]

[service.line3]
on = "gateways"
[service.line3.interface.modbus]
net = "mesh"
l4 = "tcp/502"
[service.line3.interface.admin]
net = "mesh"
l4 = "tcp/443"

[window.night]
tz = "Asia/Shanghai"
days = ["sat", "sun"]
from = "02:00"
to = "05:00"

[[rule]]
id = "scada-connects"
effect = "allow"
from = ["group:scada"]
to = ["line3/modbus"]
do = ["connect"]
"#;

pub(super) fn one(text: &str) -> Vec<SourceFile> {
    vec![SourceFile::new("site/a.toml", text)]
}

/// The one error of a text, at its mark.
#[track_caller]
pub(super) fn assert_refused(marked: &str, code: Code) -> Diagnostic {
    let (before, _) = marked.split_once('§').expect("the case marks its place");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let text = marked.replacen('§', "", 1);
    schema::collect(&text, code.as_str());
    let report = check(&one(&text));
    assert_eq!(report.diagnostics.len(), 1, "one error expected:\n{report}");
    let diagnostic = report.diagnostics[0].clone();
    assert_eq!(
        (diagnostic.code, diagnostic.line, diagnostic.column),
        (code, line, column),
        "{diagnostic}"
    );
    assert_eq!(diagnostic.file, "site/a.toml");
    diagnostic
}

#[track_caller]
pub(super) fn assert_accepted(text: &str) -> CompiledPolicy {
    schema::collect(text, schema::ACCEPTED);
    match CompiledPolicy::compile(&one(text), 1) {
        Ok(policy) => policy,
        Err(report) => panic!("refused:\n{report}"),
    }
}

/// The base with one part of it replaced.
#[track_caller]
pub(super) fn base_with(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "the base holds no {old}");
    BASE.replacen(old, new, 1)
}

/// The base and one more rule, an allow but for its changed lines.
pub(super) fn rule(lines: &str) -> String {
    let mut text = format!("{BASE}\n[[rule]]\n{lines}\n");
    let has = |key: &str| {
        lines
            .lines()
            .any(|line| line.trim_start_matches('§').starts_with(key))
    };
    for (key, value) in [
        ("id", "\"more\""),
        ("effect", "\"allow\""),
        ("from", "[\"group:scada\"]"),
        ("to", "[\"line3/admin\"]"),
        ("do", "[\"connect\"]"),
    ] {
        if !has(key) {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}
