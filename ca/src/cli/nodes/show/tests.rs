use std::collections::BTreeMap;

use edgeward_identity::Timestamp;

use super::*;
use crate::api::views::{ComparedProfile, Explained};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn finding() -> FindingView {
    FindingView {
        code: "profile_pcr_value".to_owned(),
        pcr: Some(7),
        event: "boot event 9: EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot: off".to_owned(),
        found: "bb".repeat(32),
        expected: vec!["aa".repeat(32), "cc".repeat(32)],
        advice: "Turn it on.".to_owned(),
        since: NOW.into(),
        monitored: false,
    }
}

fn node() -> NodeView {
    NodeView {
        name: "gw-3".to_owned(),
        spiffe_id: "spiffe://plant.example/node/gw-3".to_owned(),
        status: "active".to_owned(),
        state: "failed".to_owned(),
        tier: "hardware".to_owned(),
        connected: true,
        labels: BTreeMap::new(),
        root: "ek:00".to_owned(),
        ipv4: None,
        ipv6: "fd00::3".to_owned(),
        enrolled: NOW.into(),
        attested: Some(NOW.into()),
        reason: Some("profile_pcr_value".to_owned()),
        would_fail: None,
        expires: None,
        since: Some(NOW.into()),
        app_control: None,
        apps_said: None,
        apps: Vec::new(),
        explained: Some(Explained {
            advice: Some("Look.".to_owned()),
            findings: vec![finding()],
            profiles: vec![
                ComparedProfile {
                    name: "gateway".to_owned(),
                    mode: "enforce".to_owned(),
                },
                ComparedProfile {
                    name: "trial".to_owned(),
                    mode: "monitor".to_owned(),
                },
            ],
            firmware: Some("0x1".to_owned()),
            secure_boot: Some(false),
            boots: Some(7),
            resumes: Some(2),
            evidence: Some(NOW.into()),
            break_glass: Vec::new(),
        }),
    }
}

fn value<'r>(rows: &'r [(&'static str, String)], field: &str) -> &'r str {
    let row = rows.iter().find(|(name, _)| *name == field);
    row.map_or("absent", |(_, value)| value)
}

#[test]
fn a_finding_says_which_register_and_event_what_was_found_and_expected_since_when_and_what_to_do() {
    let (aa, bb, cc) = ("aa".repeat(32), "bb".repeat(32), "cc".repeat(32));
    assert_eq!(
        finding_lines(&finding()),
        [
            format!(
                "  profile_pcr_value PCR 7 ({}), since {}",
                of_pcr(7),
                finding().since
            ),
            "    event     boot event 9: EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot: off".to_owned(),
            format!("    found     {bb}"),
            format!("    expected  {aa}"),
            format!("          or  {cc}"),
            "    to do     Turn it on.".to_owned(),
        ]
    );
}

#[test]
fn how_it_stands_and_why_comes_first() {
    let rows = standing(&node());
    let first: Vec<&str> = rows.iter().map(|(field, _)| *field).take(6).collect();
    assert_eq!(
        first,
        [
            "name",
            "status",
            "state",
            "since",
            "because of",
            "what to do"
        ]
    );
    assert_eq!(value(&rows, "what to do"), "Look.");
    assert_eq!(value(&rows, "profiles"), "gateway trial (monitor)");
    let about = about(&node());
    assert_eq!(value(&about, "boots"), "7, resumed 2");
    assert_eq!(value(&about, "secure boot"), "off");
    assert_eq!(value(&about, "tpm firmware"), "0x1");
}

#[test]
fn what_is_not_known_is_a_dash_and_a_node_without_profile_is_said_to_be() {
    let mut bare = node();
    bare.reason = None;
    bare.since = None;
    bare.explained = Some(Explained {
        advice: None,
        findings: Vec::new(),
        profiles: Vec::new(),
        firmware: None,
        secure_boot: None,
        boots: None,
        resumes: None,
        evidence: None,
        break_glass: Vec::new(),
    });
    let rows = standing(&bare);
    assert_eq!(value(&rows, "because of"), "absent");
    assert_eq!(value(&rows, "since"), "-");
    assert_eq!(value(&rows, "profiles"), "none: nothing makes it trusted");
    assert_eq!(value(&about(&bare), "boots"), "-");
    bare.explained = None;
    assert_eq!(value(&standing(&bare), "profiles"), "absent");
}
