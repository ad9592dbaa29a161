//! `docs/refusals.md` promises a code and a test for every kind of bad input, `docs/apps-enforcement.md` a test for every
//! attack: they must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../docs/refusals.md");
const ATTACKS: &str = include_str!("../../docs/apps-enforcement.md");
/// Lines of the list of bad input that the project keeps.
const LINES: u32 = 75;

/// Words that stand in back quotes in one cell.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn sources(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_refusal_in_the_table_has_its_code_and_its_test() {
    let mut source = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    sources(&root, &mut source);
    let (mut lines, mut rows) = (BTreeSet::new(), 0);
    for row in TABLE.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, input, codes, tests] = cells.as_slice() else {
            panic!("not four cells: {row}");
        };
        // A heading, above or within the table.
        if input.starts_with("**") || *input == "input" {
            continue;
        }
        if !number.is_empty() {
            lines.insert(number.parse::<u32>().unwrap());
        }
        rows += 1;
        for code in quoted(codes) {
            assert!(
                source.contains(&format!("\"{code}\"")),
                "{input}: no code {code}"
            );
        }
        assert!(quoted(tests).count() > 0, "{input}: no test");
        for test in quoted(tests) {
            assert!(
                source.contains(&format!("fn {test}(")),
                "{input}: no test {test}"
            );
        }
    }
    assert!(rows > lines.len(), "rows without a number are not read");
    assert_eq!(lines, (1..=LINES).collect());
}

#[test]
fn every_attack_in_the_table_has_its_test() {
    let mut source = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    sources(&root, &mut source);
    let rows = ATTACKS.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| {
            matches!(cells.len(), 4 | 5) && cells.first() != Some(&"attack")
        })
        .collect();
    assert!(rows.len() >= 30, "the table is not read: {}", rows.len());
    for cells in rows {
        let [attack, claims @ .., tests] = cells.as_slice() else {
            unreachable!()
        };
        let claimed = claims.iter().any(|claim| *claim != "-");
        assert_eq!(quoted(tests).count() > 0, claimed, "{attack}");
        for test in quoted(tests) {
            assert!(
                source.contains(&format!("fn {test}(")),
                "{attack}: no test {test}"
            );
        }
    }
}
