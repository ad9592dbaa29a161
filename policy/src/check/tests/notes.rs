use edgeward_identity::Timestamp;

use super::*;
use crate::check::NoteKind;

/// 2026-11-21, a Saturday, 12:00 in Shanghai: the night has closed for today, and opens tomorrow at 02:00.
const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

fn errors_at(text: &str) -> Vec<Code> {
    let report = check_at(&one(text), NOW);
    report.diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn a_rule_that_has_ended_or_ends_before_its_window_opens_is_dead() {
    for when in [
        "until = 2026-11-21T04:00:00Z",
        "until = 2020-01-01T00:00:00Z",
        "window = \"night\", until = 2020-01-01T00:00:00Z",
        "window = \"night\", until = 2026-11-21T18:00:00Z",
    ] {
        let text = rule(&format!("when = {{ {when} }}"));
        assert_eq!(errors_at(&text), [Code::Dead], "{when}");
        // What was in force once compiles for ever.
        assert_accepted(&text);
    }
    for when in [
        "until = 2026-11-21T04:00:00.001Z",
        "window = \"night\"",
        "window = \"night\", until = 2026-11-21T18:00:00.001Z",
    ] {
        let text = rule(&format!("when = {{ {when} }}"));
        assert_eq!(errors_at(&text), [], "{when}");
    }
}

#[test]
fn a_pattern_that_another_of_its_action_covers_is_refused() {
    let with = |l7: &str| base_with("l4 = \"tcp/443\"", &format!("l4 = \"tcp/443\"\nl7 = {l7}"));
    for l7 in [
        "{ proto = \"http\", actions = { read = [\"GET /**\", §\"GET /status/**\"] } }",
        "{ proto = \"http\", actions = { read = [§\"GET /status/**\", \"GET /**\"] } }",
        "{ proto = \"http\", actions = { read = [\"GET /a\", §\"GET /a\"] } }",
        "{ proto = \"modbus\", actions = { read = [\"fc:1-4\", §\"fc:3 addr:0-9\"] } }",
        "{ proto = \"mqtt\", actions = { publish = [\"a/#\", §\"a/+/temp\"] } }",
    ] {
        let found = assert_refused(&with(l7), Code::Shadowed);
        assert!(found.help.unwrap().contains("covers it"));
    }
    assert_accepted(&with(
        "{ proto = \"http\", actions = { read = [\"GET /a/*\", \"GET /*/b\"] } }",
    ));
}

#[test]
fn actions_that_share_requests_and_interfaces_that_nobody_reaches_are_noted() {
    let text = base_with(
        "l4 = \"tcp/443\"",
        "l4 = \"tcp/443\"\nl7 = { proto = \"http\", actions = { read = [\"GET /**\"], admin = [\"* /admin/**\"], write = [\"POST /config/**\"] } }",
    );
    let policy = assert_accepted(&text);
    let notes: Vec<String> = policy
        .report()
        .notes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        notes,
        [
            "site/a.toml:26:26: note: no rule opens line3/admin: nobody reaches it",
            "site/a.toml:29:44: note: line3/admin: what fits \"GET /**\" of read may fit \"* /admin/**\" of admin as well, and is then both",
        ]
    );
    let kinds: Vec<NoteKind> = policy.report().notes.iter().map(|note| note.kind).collect();
    assert_eq!(kinds, [NoteKind::Unreachable, NoteKind::Overlap]);
    let opened = assert_accepted(&rule("id = \"more\""));
    assert_eq!(opened.report().notes, []);
}
