//! What people read of a diff.

use edgeward_identity::Timestamp;

use super::policy;
use crate::space::{Change, Diff, Direction, diff};

const BASE: &str = r#"
schema = "edgeward-policy/1"
owner = "ot"
scope = { site = ["suzhou"] }
[profile.gateway]
tier = ["listed"]
pcr = { 7 = ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] }
[group.gateways]
match = { role = ["gateway"], site = ["suzhou"] }
profile = "gateway"
[group.scada]
match = { role = ["scada"], site = ["suzhou"] }
profile = "gateway"
[group.plcs]
match = { kind = ["plc"], site = ["suzhou"] }
via = "gateways"
[device.plc-17]
node = "gw-3"
interface = "lan0"
labels = { kind = "plc", site = "suzhou" }
match = { mac = "02:00:00:00:00:11", ip = "192.168.1.17" }
[operator-group.vendor]
members = ["operator/li", "operator/wu"]
[service.line3]
on = "gateways"
[service.line3.interface.admin]
net = "mesh"
l4 = "tcp/443"
l7 = { proto = "http", actions = { read = ["GET /status/**"], write = ["POST /config/**"] } }
[service.line3.interface.log]
net = "lan0"
l4 = "tcp/514"
[window.night]
tz = "Asia/Shanghai"
days = ["sat", "sun"]
from = "02:00"
to = "05:00"
[[rule]]
id = "vendor"
effect = "allow"
from = ["operator-group:vendor"]
to = ["line3/admin"]
do = ["read", "write"]
when = { window = "night", until = 2027-01-31T00:00:00Z }
[[rule]]
id = "plcs-log"
effect = "allow"
from = ["group:plcs"]
to = ["line3/log"]
do = ["connect"]
[[rule]]
id = "scada-reads"
effect = "allow"
from = ["group:scada"]
to = ["line3/admin"]
do = ["read"]
"#;

/// From the base to the base with one text in place of another.
fn changed(from: &str, to: &str) -> Diff {
    assert_eq!(BASE.matches(from).count(), 1, "{from}");
    let since = Timestamp::from_secs(1_794_787_200);
    diff(&policy(BASE), &policy(&BASE.replace(from, to)), since).unwrap()
}

#[test]
fn a_rule_that_ends_no_more_opens_what_lies_after_its_end_and_inside_its_window() {
    let diff = changed(", until = 2027-01-31T00:00:00Z }", " }");
    assert_eq!(diff.change, Change::Wider);
    for region in &diff.regions {
        assert_eq!(region.direction, Direction::DenyToAllow);
        assert_eq!(region.to, "line3/admin");
        assert_eq!(region.who.names, ["operator-group:vendor"]);
        let both = ["read", "write"].map(str::to_owned);
        assert_eq!(region.actions.as_deref(), Some(&both[..]));
        assert_eq!(
            region.when.as_deref(),
            Some(&["in window night from 2027-01-31T00:00:00Z".to_owned()][..])
        );
        assert_eq!(region.before.because, "no-rule");
        assert_eq!(region.after.rules, ["vendor"]);
    }
    // Online and cut off: the age of the pass is bounded differently.
    assert_eq!(diff.regions.len(), 2);
}

#[test]
fn a_rule_taken_away_closes_and_a_device_is_named() {
    let diff = changed("from = [\"group:plcs\"]", "from = [\"group:scada\"]");
    assert_eq!(diff.change, Change::Mixed);
    let who = |direction: Direction| {
        let regions = diff
            .regions
            .iter()
            .filter(|region| region.direction == direction);
        let mut names: Vec<_> = regions
            .flat_map(|region| region.who.names.clone())
            .collect();
        names.dedup();
        names
    };
    assert_eq!(who(Direction::AllowToDeny), ["device/plc-17"]);
    assert_eq!(who(Direction::DenyToAllow), ["group:scada"]);
}

#[test]
fn what_a_name_means_and_what_makes_trusted_is_told_though_no_verdict_changes() {
    let diff = changed("l4 = \"tcp/443\"", "l4 = \"tcp/8443\"");
    assert_eq!((diff.change, diff.regions.len()), (Change::Mixed, 0));
    assert_eq!(
        (diff.moved[0].what, diff.moved[0].after.as_str()),
        ("l4", "tcp/8443")
    );
    let diff = changed(
        "read = [\"GET /status/**\"]",
        "read = [\"GET /status/**\", \"GET /x\"]",
    );
    assert_eq!((diff.change, diff.regions.len()), (Change::Wider, 0));
    let diff = changed("aaaaaaaaaaaaaaaa\"", "aaaaaaaaaaaaaaab\"");
    assert_eq!((diff.change, diff.regions.len()), (Change::Mixed, 0));
    assert_eq!(
        (diff.beside[0].kind, diff.beside[0].what),
        ("profile", "changed")
    );
}

#[test]
fn nodes_that_offer_an_interface_no_more_are_told_apart() {
    let text = "[service.line3]\non = \"gateways\"";
    let diff = changed(text, "[service.line3]\non = \"scada\"");
    assert!(
        diff.regions
            .iter()
            .any(|region| region.offered == Some("before"))
    );
    assert!(
        diff.regions
            .iter()
            .any(|region| region.offered == Some("after"))
    );
    assert!(
        diff.regions.iter().all(|region| region.offered.is_some()),
        "no node is both"
    );
}

#[test]
fn a_name_that_is_only_another_name_changes_nothing() {
    let diff = changed("id = \"scada-reads\"", "id = \"reads-of-scada\"");
    assert_eq!((diff.change, diff.regions.len()), (Change::Same, 0));
}
