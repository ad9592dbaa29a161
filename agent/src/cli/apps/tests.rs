use std::path::Path;

use edgeward_apps::advice;

use super::*;
use crate::apps::report::{AppReport, State};

/// Where codes are given that a report may carry; folders with all below them.
const SOURCES: [&str; 5] = [
    "src/apps/desk.rs",
    "src/apps/desk",
    "src/apps/stage.rs",
    "src/apps/start.rs",
    "../apps/src/admit.rs",
];

fn read(path: &Path, text: &mut String) {
    let name = path.file_name().unwrap().to_string_lossy();
    if name.starts_with("tests") {
        return;
    }
    if path.is_file() {
        let source = std::fs::read_to_string(path).unwrap();
        text.push_str(source.split("#[cfg(test)]").next().unwrap());
        return;
    }
    for entry in std::fs::read_dir(path).unwrap() {
        read(&entry.unwrap().path(), text);
    }
}

fn sources() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for source in SOURCES {
        read(&folder.join(source), &mut text);
    }
    text
}

fn report(code: &str) -> AppsReport {
    let said = AppReport {
        state: State::Failed,
        code: code.to_owned(),
        reason: "no room".to_owned(),
        ..AppReport::default()
    };
    AppsReport {
        control: String::new(),
        director: 7,
        standing: "granting".to_owned(),
        apps: [("acme/collector".parse().unwrap(), said)].into(),
        ..AppsReport::default()
    }
}

#[test]
fn every_code_that_a_node_says_of_an_application_has_advice_and_no_advice_is_left_over() {
    let text = sources();
    let codes: Vec<&str> = text
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('-') && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-'))
        })
        .collect();
    assert!(codes.len() > 25, "{codes:?}");
    for code in codes {
        assert!(advice::advice(code).is_some(), "no advice for {code}");
    }
    for code in advice::codes() {
        assert!(text.contains(&format!("\"{code}\"")), "nobody says {code}");
    }
}

#[test]
fn what_is_not_here_is_told_with_its_code_its_reason_and_what_to_do() {
    let told = text(&report("apps-full"));
    assert!(
        told.contains("acme/collector  -  failed  [apps-full] no room"),
        "{told}"
    );
    assert!(told.contains("store_bytes"), "{told}");
    assert!(told.contains("standing  granting"), "{told}");
    // A code of a newer agent is told, with no advice that is not its own.
    let unknown = text(&report("app-from-tomorrow"));
    assert_eq!(unknown.lines().count(), 4, "{unknown}");
    assert!(unknown.contains("[app-from-tomorrow]"), "{unknown}");
    assert!(text(&AppsReport::default()).contains("no applications"));
}
