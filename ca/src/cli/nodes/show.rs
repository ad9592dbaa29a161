//! `edgeward node show`: why a node stands as it does, on one screen.

use edgeward_runtime::screen::{Screen, Table};

use super::super::screen::{or_dash, pairs};
use super::session_of;
use crate::api::views::NodeView;
use crate::profiles::FindingView;
use crate::profiles::meaning::of_pcr;

/// One screen: how it stands and why first, then what it is.
pub(super) fn explain(screen: &Screen, node: &NodeView) {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (field, value) in standing(node).into_iter().chain(about(node)) {
        table.row([field.to_owned(), value]);
    }
    screen.table(&table);
    let Some(explained) = &node.explained else {
        return;
    };
    for (monitored, title) in [
        (false, "does not match its profile:"),
        (
            true,
            "would not match, and is only recorded (mode monitor):",
        ),
    ] {
        let mut findings = explained
            .findings
            .iter()
            .filter(|finding| finding.monitored == monitored)
            .peekable();
        if findings.peek().is_some() {
            screen.line(&format!("\n{title}"));
            for line in findings.flat_map(finding_lines) {
                screen.told(&line);
            }
        }
    }
}

fn standing(node: &NodeView) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("name", node.name.clone()),
        ("status", node.status.clone()),
        ("state", node.state.clone()),
        ("since", or_dash(node.since)),
    ];
    if let Some(reason) = &node.reason {
        rows.push(("because of", reason.clone()));
    }
    let explained = node.explained.as_ref();
    for grant in explained
        .iter()
        .flat_map(|explained| &explained.break_glass)
    {
        let by = grant.opened_by.as_deref().unwrap_or("-");
        let closed = or_dash(grant.closed);
        let what = format!(
            "grant {} ({}) opened by {by} at {}, closed {closed}: edgeward break-glass acknowledge {}",
            grant.number,
            grant.rules.join(" "),
            or_dash(grant.opened),
            grant.number
        );
        rows.push(("BREAK-GLASS", what));
    }
    if let Some(advice) = explained.and_then(|explained| explained.advice.clone()) {
        rows.push(("what to do", advice));
    }
    rows.push(("last pass", or_dash(node.attested)));
    if let Some(explained) = explained {
        let profiles = explained
            .profiles
            .iter()
            .map(|profile| match profile.mode.as_str() {
                "enforce" => profile.name.clone(),
                mode => format!("{} ({mode})", profile.name),
            });
        let profiles: Vec<String> = profiles.collect();
        let none = "none: nothing makes it trusted".to_owned();
        rows.push((
            "profiles",
            match profiles.is_empty() {
                true => none,
                false => profiles.join(" "),
            },
        ));
    }
    rows
}

fn about(node: &NodeView) -> Vec<(&'static str, String)> {
    let mut rows = vec![("tier", node.tier.clone())];
    if let Some(explained) = &node.explained {
        let on = explained
            .secure_boot
            .map(|on| if on { "on" } else { "off" });
        let counts = explained.boots.zip(explained.resumes);
        let counts = counts.map(|(boots, resumes)| format!("{boots}, resumed {resumes}"));
        rows.extend([
            ("tpm firmware", or_dash(explained.firmware.clone())),
            ("secure boot", or_dash(on)),
            ("boots", or_dash(counts)),
        ]);
    }
    rows.extend([
        ("session", session_of(node).to_owned()),
        ("labels", pairs(&node.labels)),
        ("identity", node.spiffe_id.clone()),
        ("root", node.root.clone()),
        ("ipv4", or_dash(node.ipv4.clone())),
        ("ipv6", node.ipv6.clone()),
        ("enrolled", node.enrolled.to_string()),
        ("certificate ends", or_dash(node.expires)),
    ]);
    rows
}

/// What is wrong, where, what would be right, since when, what to do.
pub(in crate::cli) fn finding_lines(finding: &FindingView) -> Vec<String> {
    let place = finding
        .pcr
        .map_or_else(String::new, |pcr| format!(" PCR {pcr} ({})", of_pcr(pcr)));
    let mut lines = vec![format!(
        "  {}{place}, since {}",
        finding.code, finding.since
    )];
    if !finding.event.is_empty() {
        lines.push(format!("    event     {}", finding.event));
    }
    lines.push(format!("    found     {}", finding.found));
    for (index, value) in finding.expected.iter().enumerate() {
        let word = if index == 0 { "expected" } else { "      or" };
        lines.push(format!("    {word}  {value}"));
    }
    lines.push(format!("    to do     {}", finding.advice));
    lines
}

#[cfg(test)]
mod tests;
