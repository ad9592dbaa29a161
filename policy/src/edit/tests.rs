use super::*;
use crate::compile::CompiledPolicy;
use crate::fleet::Labels;
use crate::source::SourceFile;

const HEAD: &str = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n\n";
const TAIL: &str = "\n[group.g]\nmatch = { role = [\"g\"] }\nprofile = \"gateway\"\n";

fn value(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn values(profile: &str, of: &[(u8, &[&str])]) -> Vec<Addition> {
    of.iter()
        .map(|(pcr, bytes)| Addition {
            profile: profile.to_owned(),
            pcr: *pcr,
            values: bytes.iter().map(|byte| value(byte)).collect(),
        })
        .collect()
}

/// Both sides of a difference, read back from it and the text it was made from.
fn patched(text: &str, diff: &str) -> String {
    let old: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::new();
    let mut at = 0;
    let mut lines = diff.split_inclusive('\n').skip(2).peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("@@ -") {
            let start: usize = rest.split(',').next().unwrap().parse().unwrap();
            out.push_str(&old[at..start - 1].concat());
            at = start - 1;
            continue;
        }
        let bare = lines.peek().is_some_and(|next| next.starts_with('\\'));
        let body = |line: &str| match bare {
            true => line.get(1..).unwrap().trim_end_matches('\n').to_owned(),
            false => line.get(1..).unwrap().to_owned(),
        };
        match line.get(..1) {
            Some(" ") => {
                assert_eq!(old[at], body(line));
                out.push_str(old[at]);
                at += 1;
            }
            Some("-") => {
                assert_eq!(old[at], body(line));
                at += 1;
            }
            Some("+") => out.push_str(&body(line)),
            Some("\\") => {}
            other => panic!("{other:?}"),
        }
    }
    out.push_str(&old[at..].concat());
    out
}

fn accepted(text: &str) -> BTreeMap<u8, Vec<String>> {
    let policy = CompiledPolicy::compile(&[SourceFile::new("p.toml", text)], 1).unwrap();
    let labels: Labels = [("role".to_owned(), "g".to_owned())].into();
    policy.profiles_for(&labels)[0].pcrs.clone()
}

#[test]
fn what_the_file_does_not_say_is_refused() {
    let text = format!(
        "{HEAD}[profile.gateway]\ntier = [\"hardware\"]\npcr = {{ 7 = [\"{}\"] }}\n{TAIL}",
        value("aa")
    );
    let add =
        |profile: &str, pcr| add_pcr_values("p.toml", &text, &values(profile, &[(pcr, &["bb"])]));
    assert!(matches!(add("gatewy", 7), Err(EditRefused::NotHere { .. })));
    assert!(matches!(
        add("gateway", 4),
        Err(EditRefused::NotHere { pcr: 4, .. })
    ));
    assert!(matches!(
        add_pcr_values("p.toml", "x = [", &values("gateway", &[(7, &["bb"])])),
        Err(EditRefused::Syntax(_))
    ));
    let large = "#".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(
        add_pcr_values("p.toml", &large, &[]),
        Err(EditRefused::TooLarge)
    );
    let many: BTreeSet<String> = (0..=MAX_ADDED)
        .map(|index| format!("sha256:{index:064x}"))
        .collect();
    assert_eq!(
        add_pcr_values(
            "p.toml",
            &text,
            &[Addition {
                profile: "gateway".to_owned(),
                pcr: 7,
                values: many
            }]
        ),
        Err(EditRefused::TooMany)
    );
    assert!(accepts(&text, "gateway", 7) && !accepts(&text, "gateway", 4));
    for odd in [
        "profile = 7",
        "[profile]\ngateway = 1",
        "[profile.gateway]\npcr = 1",
        "[profile.gateway.pcr]\n7 = []",
        "[profile.gateway.pcr]\n7 = \"x\"",
    ] {
        assert!(matches!(
            add_pcr_values("p.toml", odd, &values("gateway", &[(7, &["bb"])])),
            Err(EditRefused::NotHere { .. })
        ));
    }
}

#[test]
fn a_value_that_is_there_changes_nothing() {
    let text = format!(
        "{HEAD}[profile.gateway]\ntier = [\"hardware\"]\npcr = {{ 7 = [\"{}\"] }}\n{TAIL}",
        value("aa").to_uppercase().replace("SHA", "sha")
    );
    let edited = add_pcr_values("p.toml", &text, &values("gateway", &[(7, &["aa"])])).unwrap();
    assert_eq!(
        (edited.text.as_str(), edited.diff.as_str()),
        (text.as_str(), "")
    );
}

#[test]
fn values_are_added_in_whatever_way_the_sets_are_laid_out_and_the_rest_stays() {
    let (aa, cc) = (value("aa"), value("cc"));
    for body in [
        format!(
            "[profile.gateway]\ntier = [\"hardware\"]\npcr = {{ 0 = [\"{cc}\"], 7 = [\"{aa}\"] }} # sets\n{TAIL}"
        ),
        format!(
            "[profile.gateway]\ntier = [\"hardware\"]\n[profile.gateway.pcr]\n# firmware\n0 = [\n    \"{cc}\", # of March\n]\n# of Secure Boot\n7 = [\"{aa}\", ]\n{TAIL}"
        ),
        format!(
            "[profile.gateway]\ntier = [\"hardware\"]\npcr.0 = [\n\t\"{cc}\"\n\t]\npcr.7 = [ '{aa}' ]\n{TAIL}"
        ),
        format!(
            "{TAIL}[profile.gateway]\ntier = [\"hardware\"]\npcr.0 = [\"{cc}\"]\n\n\n\n\n\n\n\n\n\npcr.7 = [\"{aa}\"]"
        ),
    ] {
        let text = format!("{HEAD}{body}");
        let wanted = values("gateway", &[(0, &["dd"]), (7, &["bb", "aa"])]);
        let edited = add_pcr_values("site/p.toml", &text, &wanted).unwrap();
        let pcrs = accepted(&edited.text);
        assert_eq!(
            pcrs[&0],
            ["cc".repeat(32), "dd".repeat(32)],
            "{}",
            edited.text
        );
        assert_eq!(
            pcrs[&7],
            ["aa".repeat(32), "bb".repeat(32)],
            "{}",
            edited.text
        );
        assert!(
            edited
                .diff
                .starts_with("--- a/site/p.toml\n+++ b/site/p.toml\n@@ -"),
            "{}",
            edited.diff
        );
        assert_eq!(patched(&text, &edited.diff), edited.text, "{}", edited.diff);
        for comment in ["# sets", "\", # of March", "# of Secure Boot"] {
            assert_eq!(text.contains(comment), edited.text.contains(comment));
        }
        assert!(!edited.text.contains(&format!("{}\", #", value("dd"))));
    }
}

#[test]
fn a_difference_reads_as_diff_u_writes_it() {
    let text = format!(
        "{HEAD}[profile.gateway]\ntier = [\"hardware\"]\n[profile.gateway.pcr]\n7 = [\n    \"{}\",\n]\n{TAIL}",
        value("aa")
    );
    let edited = add_pcr_values("p.toml", &text, &values("gateway", &[(7, &["bb"])])).unwrap();
    let expected = format!(
        "--- a/p.toml\n+++ b/p.toml\n@@ -6,7 +6,8 @@\n tier = [\"hardware\"]\n [profile.gateway.pcr]\n 7 = [\n-    \"{aa}\",\n+    \"{aa}\",\n+    \"{bb}\",\n ]\n \n [group.g]\n",
        aa = value("aa"),
        bb = value("bb"),
    );
    assert_eq!(edited.diff, expected);
}

#[test]
fn lines_are_added_to_the_end_of_a_list_and_its_limit_holds() {
    let one = format!("sha256:{} /a", "aa".repeat(32));
    let new: BTreeSet<String> = ["x", "y"].map(str::to_owned).into();
    for (text, expected) in [
        (format!("# list\n{one}\n"), format!("# list\n{one}\nx\ny\n")),
        (format!("# list\n{one}"), format!("# list\n{one}\nx\ny")),
        (
            format!("1\n2\n3\n4\n5\n{one}\n\n"),
            format!("1\n2\n3\n4\n5\n{one}\nx\ny\n\n"),
        ),
    ] {
        let edited = add_lines("ima/g.allow", &text, &new).unwrap();
        assert_eq!(edited.text, expected);
        assert_eq!(patched(&text, &edited.diff), expected, "{}", edited.diff);
    }
    assert_eq!(add_lines("g", &one, &BTreeSet::new()).unwrap().diff, "");
    let long = "#".repeat(MAX_LIST_FILE_BYTES);
    assert_eq!(add_lines("g", &long, &new), Err(EditRefused::TooLarge));
    let many = (0..=MAX_ADDED_LINES)
        .map(|index| index.to_string())
        .collect();
    assert_eq!(add_lines("g", "", &many), Err(EditRefused::TooMany));
}

#[test]
fn the_list_of_a_profile_is_found_as_the_compiler_finds_it() {
    let ima = "[profile.gateway]\nima = { allow = \"g.allow\" }\n";
    let files = [
        SourceFile::new("site/p.toml", ima),
        SourceFile::new("g.allow", "far"),
        SourceFile::new("site/g.allow", "near"),
    ];
    assert_eq!(
        allow_list(&files, "gateway").map(|file| file.text.as_str()),
        Some("near")
    );
    assert_eq!(
        allow_list(&files[..2], "gateway").map(|file| file.text.as_str()),
        Some("far")
    );
    assert_eq!(allow_list(&files[..1], "gateway"), None);
    assert_eq!(allow_list(&files, "other"), None);
}
