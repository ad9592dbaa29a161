//! Questions put to whole policies, and flows that a candidate would end.

use edgeward_identity::{Kind, Tier, Timestamp};

use super::policy;
use super::world::id;
use crate::decision::Verdict;
use crate::fleet::{Fleet, FleetNode};
use crate::seconds::Seconds;
use crate::space::{Ask, Asker, CannotAsk, Flow, ask, closing};

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner = "ot"
scope = { site = ["suzhou"] }
[group.gateways]
match = { role = ["gateway"], site = ["suzhou"] }
[group.scada]
match = { role = ["scada"], site = ["suzhou"] }
[operator-group.vendor]
members = ["operator/li"]
[service.line3]
on = "gateways"
[service.line3.interface.admin]
net = "mesh"
l4 = "tcp/443"
l7 = { proto = "http", actions = { read = ["GET /status/**"], write = ["POST /config/**"] } }
[window.night]
tz = "Asia/Shanghai"
days = ["sat", "sun"]
from = "02:00"
to = "05:00"
[[rule]]
id = "scada-reads"
effect = "allow"
from = ["group:scada"]
to = ["line3/admin"]
do = ["read"]
[[rule]]
id = "vendor"
effect = "allow"
from = ["operator-group:vendor"]
to = ["line3/admin"]
do = ["write"]
tier = ["hardware"]
fresh = "2m"
when = { window = "night", until = 2027-01-31T00:00:00Z }
"#;

fn question(from: Asker, action: &str) -> Ask {
    Ask {
        from,
        service: "line3".to_owned(),
        interface: "admin".to_owned(),
        action: Some(action.to_owned()),
        request: None,
        // Saturday 02:30 in Shanghai.
        at: Timestamp::from_secs(1_795_199_400),
        state: None,
        tier: None,
        age: Seconds::default(),
        offline: None,
        profiles: None,
        runs: None,
        approved: false,
    }
}

fn vendor() -> Asker {
    Asker::OperatorGroups(vec!["vendor".to_owned()])
}

/// The dimensions that the rule missed.
fn missed(ask_for: &Ask, rule: &str) -> Vec<String> {
    let explained = ask(&policy(POLICY), ask_for).unwrap();
    let said = explained.rules.into_iter().find(|said| said.rule == rule);
    let missed = said
        .unwrap()
        .dimensions
        .into_iter()
        .filter(|one| !one.holds);
    missed.map(|one| one.name).collect()
}

#[test]
fn each_dimension_is_missed_by_itself() {
    let good = question(vendor(), "write");
    let allowed = ask(&policy(POLICY), &good).unwrap();
    assert_eq!(
        (allowed.verdict, allowed.rule.as_deref()),
        (Verdict::Allow, Some("vendor"))
    );
    let with = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        missed(&ask, "vendor")
    };
    use edgeward_identity::AttestationState::Stale;
    assert_eq!(
        with(&|ask| ask.from = Asker::Operator("wu".to_owned())),
        ["who"]
    );
    assert_eq!(with(&|ask| ask.action = Some("read".to_owned())), ["what"]);
    assert_eq!(with(&|ask| ask.state = Some(Stale)), ["state"]);
    assert_eq!(with(&|ask| ask.tier = Some(Tier::Virtual)), ["tier"]);
    assert_eq!(with(&|ask| ask.age = Seconds::new(120)), ["age"]);
    assert_eq!(with(&|ask| ask.age = Seconds::new(119)), [""; 0]);
    assert_eq!(
        with(&|ask| ask.offline = Some(Seconds::from_hours(13))),
        ["age"]
    );
    assert_eq!(
        with(&|ask| ask.at = Timestamp::from_secs(1_795_210_200)),
        ["window"]
    );
    // Sunday 2027-02-07 02:30 in Shanghai.
    assert_eq!(
        with(&|ask| ask.at = Timestamp::from_secs(1_801_938_600)),
        ["until"]
    );
}

#[test]
fn a_denial_names_first_the_allow_that_came_nearest() {
    let mut ask_for = question(vendor(), "write");
    ask_for.age = Seconds::new(300);
    let explained = ask(&policy(POLICY), &ask_for).unwrap();
    assert_eq!((explained.verdict, explained.rule), (Verdict::Deny, None));
    assert_eq!(
        (explained.reason.as_str(), explained.rules[0].rule.as_str()),
        ("age", "vendor")
    );
}

#[test]
fn a_request_is_sorted_into_actions_and_what_is_unknown_is_said() {
    let scada = Asker::Groups(vec!["scada".to_owned()]);
    let mut ask_for = question(scada, "read");
    let policy = policy(POLICY);
    ask_for.request = Some("GET /status/3".to_owned());
    assert_eq!(ask(&policy, &ask_for).unwrap().verdict, Verdict::Allow);
    ask_for.action = Some("write".to_owned());
    assert!(matches!(
        ask(&policy, &ask_for),
        Err(CannotAsk::OtherAction(_))
    ));
    ask_for.action = None;
    ask_for.request = Some("GET /other".to_owned());
    assert_eq!(ask(&policy, &ask_for).unwrap().reason, "no-action");
    ask_for.request = Some("fc:3".to_owned());
    assert!(matches!(ask(&policy, &ask_for), Err(CannotAsk::Request(_))));
    ask_for.request = None;
    assert_eq!(ask(&policy, &ask_for), Err(CannotAsk::NothingAsked));
    for (from, help) in [
        (Asker::Groups(vec!["scda".to_owned()]), "scada"),
        (Asker::OperatorGroups(vec!["vendors".to_owned()]), "vendor"),
    ] {
        let error = ask(&policy, &question(from, "read"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(help), "{error}");
    }
    let both = Asker::Groups(vec!["scada".to_owned(), "gateways".to_owned()]);
    assert_eq!(
        ask(&policy, &question(both, "read")),
        Err(CannotAsk::Nobody)
    );
}

#[test]
fn flows_end_where_the_candidate_lets_nobody_through_and_only_there() {
    let node = |name: &str, role: &str| FleetNode {
        id: id(Kind::Node, name),
        labels: [("role", role), ("site", "suzhou")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        tier: Tier::Hardware,
        v4: None,
    };
    let fleet = Fleet {
        nodes: vec![node("gw", "gateway"), node("scada-1", "scada")],
    };
    let flow = |action: Option<&str>| Flow {
        subject: id(Kind::Node, "scada-1"),
        node: id(Kind::Node, "gw"),
        service: "line3".to_owned(),
        interface: "admin".to_owned(),
        action: action.map(str::to_owned),
        rule: Some("scada-reads".to_owned()),
    };
    let flows = [flow(Some("read")), flow(None), flow(Some("read"))];
    let now = Timestamp::from_secs(1_795_199_400);
    assert_eq!(closing(&flows, &policy(POLICY), &fleet, now), []);
    let narrower = POLICY.replace("do = [\"read\"]", "do = [\"write\"]");
    let ended = closing(&flows, &policy(&narrower), &fleet, now);
    // Something may still be written: a connection alone is let in.
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].flow.action.as_deref(), ended[0].because.as_str()),
        (Some("read"), "no-rule")
    );
    let gone = POLICY.replace(
        "[service.line3.interface.admin]",
        "[service.line3.interface.console]",
    );
    let gone = gone.replace("line3/admin", "line3/console");
    let ended = closing(&flows, &policy(&gone), &fleet, now);
    assert_eq!(
        ended
            .iter()
            .map(|one| one.because.as_str())
            .collect::<Vec<_>>(),
        ["unknown-interface"; 2]
    );
}
