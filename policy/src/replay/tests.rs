use super::*;
use crate::fleet::{FleetNode, Labels};
use crate::source::SourceFile;

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/{name}").parse().unwrap()
}

fn fleet() -> Fleet {
    let node = |name: &str, role: &str| FleetNode {
        id: id(&format!("node/{name}")),
        labels: Labels::from([("role".to_owned(), role.to_owned())]),
        tier: Tier::Hardware,
        v4: None,
    };
    Fleet {
        nodes: vec![node("scada", "scada"), node("press", "press")],
    }
}

fn candidate(rules: &str) -> CompiledPolicy {
    let text = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n\
         [profile.p]\ntier = [\"hardware\", \"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{}\"] }}\n\
         [group.scada]\nmatch = {{ role = [\"scada\"] }}\nprofile = \"p\"\n\
         [group.presses]\nmatch = {{ role = [\"press\"] }}\nprofile = \"p\"\n\
         [operator-group.oncall]\nmembers = [\"operator/li\"]\n\
         [service.line]\non = \"presses\"\n\
         [service.line.interface.ssh]\nnet = \"mesh\"\nl4 = \"tcp/22\"\n\
         [service.line.interface.web]\nnet = \"mesh\"\nl4 = \"tcp/80\"\n\
         l7 = {{ proto = \"http\", actions = {{ read = [\"GET /**\"], write = [\"POST /**\"] }} }}\n{rules}",
        "aa".repeat(32)
    );
    let files = [SourceFile::new("test.toml".to_owned(), text)];
    CompiledPolicy::compile(&files, 1).unwrap_or_else(|report| panic!("{:?}", report.diagnostics))
}

fn rule(id: &str, to: &str, action: &str, more: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\neffect = \"allow\"\nfrom = [\"group:scada\"]\nto = [\"line/{to}\"]\ndo = [\"{action}\"]\n{more}\n"
    )
}

fn ssh(more: &str) -> String {
    rule("in", "ssh", "connect", more)
}

fn recorded(name: &str, allowed: bool) -> Recorded {
    Recorded {
        subject: id("node/scada"),
        node: id("node/press"),
        place: Place::Interface {
            service: "line".to_owned(),
            name: name.to_owned(),
        },
        action: Some("connect".to_owned()),
        state: Some(AttestationState::Trusted),
        tier: None,
        allowed,
        rule: allowed.then(|| "in".to_owned()),
        at: AT,
    }
}

fn ask(rules: &str, recorded: &Recorded) -> Outcome {
    let (candidate, fleet) = (candidate(rules), fleet());
    Replay::new(&candidate, &fleet).ask(recorded)
}

fn undecidable(what: &'static str) -> Outcome {
    Outcome::Undecidable {
        missing: vec![what],
    }
}

#[test]
fn what_a_rule_no_longer_allows_closes_and_says_why() {
    let other = rule("other", "web", "read", "");
    assert_eq!(
        ask(&other, &recorded("ssh", true)),
        Outcome::Closes {
            because: Reason::NoRule,
            rule: None
        }
    );
    assert_eq!(
        ask(&ssh("tier = [\"listed\"]"), &recorded("ssh", true)),
        Outcome::Closes {
            because: Reason::Tier,
            rule: Some("in".to_owned())
        }
    );
}

#[test]
fn what_was_denied_and_has_a_rule_now_opens() {
    let opens = Outcome::Opens {
        rule: "in".to_owned(),
    };
    assert_eq!(ask(&ssh(""), &recorded("ssh", false)), opens);
    let by_port = Recorded {
        place: Place::Port(Proto::Tcp, 22),
        ..recorded("ssh", false)
    };
    assert_eq!(ask(&ssh(""), &by_port), opens);
    let unknown = Recorded {
        place: Place::Port(Proto::Tcp, 23),
        ..recorded("ssh", false)
    };
    assert_eq!(ask(&ssh(""), &unknown), Outcome::Same);
}

#[test]
fn what_comes_out_as_it_did_is_the_same() {
    assert_eq!(ask(&ssh(""), &recorded("ssh", true)), Outcome::Same);
    let stale = Recorded {
        state: Some(AttestationState::Stale),
        ..recorded("ssh", false)
    };
    assert_eq!(ask(&ssh(""), &stale), Outcome::Same);
}

#[test]
fn a_missing_state_is_named_where_it_decides_and_nowhere_else() {
    let unsaid = Recorded {
        state: None,
        ..recorded("ssh", true)
    };
    assert_eq!(
        ask(&ssh(""), &unsaid),
        Outcome::Undecidable {
            missing: vec!["age", "state"]
        }
    );
    let closed = ask(&rule("other", "web", "read", ""), &unsaid);
    assert!(matches!(closed, Outcome::Closes { .. }), "{closed:?}");
}

#[test]
fn an_age_that_a_record_does_not_say_is_named_where_a_rule_asks_for_less_than_two_rounds() {
    assert_eq!(
        ask(&ssh("fresh = \"1m\""), &recorded("ssh", true)),
        undecidable("age")
    );
    assert_eq!(
        ask(&ssh("fresh = \"10m\""), &recorded("ssh", true)),
        Outcome::Same
    );
}

#[test]
fn who_left_cannot_be_asked_about() {
    let gone = Recorded {
        node: id("node/gone"),
        ..recorded("ssh", true)
    };
    assert_eq!(ask(&ssh(""), &gone), undecidable("node"));
}

#[test]
fn actions_are_told_apart() {
    let read = rule("read", "web", "read", "");
    let did = |action: &str, allowed| Recorded {
        action: Some(action.to_owned()),
        ..recorded("web", allowed)
    };
    assert_eq!(ask(&read, &did("read", true)), Outcome::Same);
    assert!(matches!(
        ask(&read, &did("write", true)),
        Outcome::Closes { .. }
    ));
    assert_eq!(ask(&read, &did("write", false)), Outcome::Same);
    assert!(matches!(
        ask(&read, &did("erase", true)),
        Outcome::Closes {
            because: Reason::NoAction,
            ..
        }
    ));
    let opened = Recorded {
        action: None,
        ..recorded("web", true)
    };
    assert_eq!(ask(&read, &opened), Outcome::Same);
}

#[test]
fn an_approval_that_may_or_may_not_be_there_is_named() {
    let approved = ssh("approval = { by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\" }");
    assert_eq!(
        ask(&approved, &recorded("ssh", true)),
        undecidable("approval")
    );
}
