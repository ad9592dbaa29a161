use std::time::Duration;

use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};

use super::act::{Outcome, Proof, cap, decide, fact_of, is_fresh};
use super::book::{Alert, BadSilence, Silence, State, Word};
use super::engine::{Engine, GRACE, Hit, MAX_KEYS_OF_RULE, OTHERS, Seen};
use super::rule::{Rules, Severity};

mod desk;
mod sinks;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn id(kind: Kind, name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("plant.example").unwrap(), kind, name).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn rules(text: &str) -> Rules {
    let mut rules = Rules::default();
    rules.read(text).unwrap();
    rules
}

fn rule(lines: &str) -> String {
    format!("[alert.a]\nseverity = \"minor\"\nsummary = \"s\"\n{lines}\n")
}

fn refused(text: &str) -> String {
    let bad = Rules::default().read(text).unwrap_err();
    format!("line {}: {bad}", bad.line())
}

/// A log of its own, and one engine over it.
struct Log {
    engine: Engine,
    leaf: u64,
}

impl Log {
    fn new(text: &str) -> Self {
        Self {
            engine: Engine::new(&rules(text), START),
            leaf: 0,
        }
    }

    fn by(&mut self, keeper: Kind, seconds: u64, event: &Event) -> Vec<Hit> {
        self.leaf += 1;
        self.engine.observe(Seen {
            leaf: self.leaf,
            at: at(seconds),
            keeper: &id(keeper, "k"),
            event,
        })
    }

    fn see(&mut self, seconds: u64, event: &Event) -> Vec<Hit> {
        self.by(Kind::Cloud, seconds, event)
    }
}

fn event(kind: EventKind, who: &str) -> Event {
    // The time of whoever wrote it down decides nothing.
    Event::new(Timestamp::default(), id(Kind::Node, who), kind)
}

fn refused_token(address: &str) -> Event {
    let actor: edgeward_audit::event::Actor = format!("anonymous:{address}").parse().unwrap();
    Event::new(Timestamp::default(), actor, EventKind::TokenRefused).denied("token_unknown")
}

#[test]
fn equal_events_that_the_cloud_wrote_as_one_count_each_and_what_a_node_says_of_it_counts_once() {
    let counted = |address: &str, count: &str| refused_token(address).detail("count", count);
    let lines =
        "threshold = { type = [\"token.refused\"], count = 10 }\nby = [\"actor\"]\nwithin = \"5m\"";
    let mut log = Log::new(&rule(lines));
    for said in ["0", "-3", "many", ""] {
        assert!(log.see(0, &counted("192.0.2.9", said)).is_empty(), "{said}");
    }
    assert!(log.see(1, &counted("192.0.2.1", "8")).is_empty());
    assert!(log.see(2, &refused_token("192.0.2.1")).is_empty());
    assert_eq!(log.see(3, &refused_token("192.0.2.1"))[0].count, 10);
    let most = u64::MAX.to_string();
    assert_eq!(log.see(4, &counted("192.0.2.1", &most))[0].count, u64::MAX);

    let denied = event(EventKind::FlowDenied, "gw").detail("count", 500);
    let lines = "threshold = { type = [\"flow.denied\"], count = 2 }\nwithin = \"5m\"";
    let mut log = Log::new(&rule(lines));
    assert!(
        log.by(Kind::Node, 0, &denied).is_empty(),
        "a node's own word"
    );
    assert_eq!(log.by(Kind::Node, 1, &denied)[0].count, 2);

    let lines = "sequence = [{ type = [\"token.refused\"], count = 5 }, { type = [\"api.refused\"], count = 3 }]\nwithin = \"5m\"";
    let mut log = Log::new(&rule(lines));
    assert!(log.see(0, &counted("192.0.2.1", "5")).is_empty());
    let api = event(EventKind::ApiRefused, "x").detail("count", 2);
    assert!(log.see(1, &api).is_empty());
    assert_eq!(log.see(2, &api).len(), 1);
}

#[test]
fn a_rule_that_could_never_hold_is_refused_and_the_file_says_where() {
    let within = "within = \"5m\"";
    for (lines, why) in [
        (String::new(), "exactly one of"),
        (
            format!("threshold = {{ type = [] }}\n{within}"),
            "type is empty",
        ),
        (
            format!("threshold = {{ type = [\"token.refusd\"] }}\n{within}"),
            "no such type",
        ),
        (
            format!("threshold = {{ type = [\"tokens.*\"] }}\n{within}"),
            "no such type",
        ),
        (
            format!("threshold = {{ type = [\"alert.raised\"] }}\n{within}"),
            "feed themselves",
        ),
        (
            format!("threshold = {{ type = [\"alert.*\"] }}\n{within}"),
            "feed themselves",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], count = 0 }}\n{within}"),
            "count",
        ),
        (
            format!(
                "threshold = {{ type = [\"token.*\"], count = 1001, distinct = \"actor\" }}\n{within}"
            ),
            "count",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], distinct = \"actors\" }}\n{within}"),
            "not a field",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], detail = {{ a = [] }} }}\n{within}"),
            "never holds",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], recorded_by = \"operator\" }}\n{within}"),
            "cloud or node",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], verdict = \"maybe\" }}\n{within}"),
            "verdict",
        ),
        (
            format!(
                "threshold = {{ type = [\"token.*\"] }}\nabsence = {{ type = [\"token.*\"] }}\n{within}"
            ),
            "exactly one",
        ),
        (
            format!("sequence = [{{ type = [\"token.*\"] }}]\n{within}"),
            "2 to 8 steps",
        ),
        (
            "threshold = { type = [\"token.*\"] }".to_owned(),
            "within is missing",
        ),
        (
            "threshold = { type = [\"token.*\"] }\nwithin = \"8d\"".to_owned(),
            "not between",
        ),
        (
            "threshold = { type = [\"token.*\"] }\nwithin = \"5 parsecs\"".to_owned(),
            "within",
        ),
        (
            format!(
                "threshold = {{ type = [\"token.*\"] }}\n{within}\nby = [\"actor\", \"type\", \"code\", \"rule\"]"
            ),
            "more than 3",
        ),
        (
            format!("threshold = {{ type = [\"token.*\"], cuont = 3 }}\n{within}"),
            "line 4",
        ),
    ] {
        let error = refused(&rule(&lines));
        assert!(error.contains(why), "{lines}: {error}");
    }
    assert!(refused("[alert.B]\nseverity = \"minor\"\nsummary = \"s\"\n").contains("lower-case"));
    assert!(refused("[alert.a]\nsummary = \"s\"\n").contains("severity"));
    assert!(refused(&" ".repeat(300_000)).contains("larger"));
}

#[test]
fn only_what_a_node_signs_may_quarantine_it() {
    for kind in [
        "token.refused",
        "flow.denied",
        "journal.gap",
        "attestation.stale",
        "attestation.*",
    ] {
        let text = rule(&format!(
            "threshold = {{ type = [\"{kind}\"] }}\nwithin = \"5m\"\nquarantine = true"
        ));
        assert!(refused(&text).contains("did not sign"), "{kind}");
    }
    let sequence = rule(
        "sequence = [{ type = [\"node.cloned\"] }, { type = [\"journal.forked\"] }]\nwithin = \"5m\"\nquarantine = true",
    );
    assert!(refused(&sequence).contains("only a threshold"));
}

#[test]
fn what_a_node_writes_in_its_own_journal_proves_nothing() {
    let victim = id(Kind::Node, "victim");
    let failed = |proof: Option<&str>| {
        let event = Event::new(START, id(Kind::Node, "liar"), EventKind::AttestationFailed)
            .subject(victim.clone());
        match proof {
            Some(proof) => event.detail("proof", proof),
            None => event,
        }
    };
    let fact = |keeper: Kind, event: &Event| {
        let keeper = id(keeper, "k");
        fact_of(&Seen {
            leaf: 1,
            at: START,
            keeper: &keeper,
            event,
        })
    };
    // Recorded by a node; without a proof; with the proof of something else; about nobody who could be cut off.
    assert_eq!(fact(Kind::Node, &failed(Some("quote"))), None);
    assert_eq!(fact(Kind::Cloud, &failed(None)), None);
    assert_eq!(fact(Kind::Cloud, &failed(Some("clone"))), None);
    let operator = Event::new(START, victim.clone(), EventKind::AttestationFailed)
        .subject(id(Kind::Operator, "o"))
        .detail("proof", "quote");
    assert_eq!(fact(Kind::Cloud, &operator), None);
    let other = Event::new(START, victim.clone(), EventKind::FlowDenied)
        .subject(victim.clone())
        .detail("proof", "quote");
    assert_eq!(fact(Kind::Cloud, &other), None);
    let found = fact(Kind::Cloud, &failed(Some("quote"))).unwrap();
    assert_eq!(
        (found.node, found.proof, found.at),
        (victim, Proof::Quote, START)
    );
}

#[test]
fn the_cap_is_two_in_a_hundred_one_at_least_and_ten_at_most() {
    for (active, most) in [
        (0, 1),
        (1, 1),
        (99, 1),
        (100, 2),
        (499, 9),
        (500, 10),
        (100_000, 10),
    ] {
        assert_eq!(cap(active, None), most, "{active}");
    }
    assert_eq!(cap(100_000, Some(3)), 3);
    assert_eq!(decide(1, 100, None, true), Outcome::Intended);
    assert_eq!(decide(2, 100, None, true), Outcome::Capped);
    assert_eq!(decide(0, 100, Some(0), true), Outcome::Capped);
    assert_eq!(decide(0, 100, None, false), Outcome::Off);
    assert!(is_fresh(START, at(900)) && !is_fresh(START, at(901)));
}

const BRUTE: &str =
    "threshold = { type = [\"token.refused\"], count = 3 }\nby = [\"actor\"]\nwithin = \"60s\"";

#[test]
fn a_threshold_counts_for_each_key_over_a_sliding_time() {
    let mut log = Log::new(&rule(BRUTE));
    for second in [0, 10, 100, 120] {
        assert!(
            log.see(second, &refused_token("192.0.2.1")).is_empty(),
            "{second}"
        );
    }
    // Others and other kinds do not count.
    assert!(log.see(121, &refused_token("192.0.2.2")).is_empty());
    assert!(log.see(121, &event(EventKind::TokenUsed, "n")).is_empty());
    let hits = log.see(125, &refused_token("192.0.2.1"));
    assert_eq!(hits.len(), 1);
    assert_eq!(
        (hits[0].key.as_str(), hits[0].count),
        ("anonymous:192.0.2.1", 3)
    );
    assert_eq!(hits[0].leaf, Some(7));
    assert!(log.see(300, &refused_token("192.0.2.1")).is_empty());
}

#[test]
fn what_is_not_its_keepers_to_say_counts_for_nothing() {
    let mut log = Log::new(&rule(BRUTE));
    for second in 0..9 {
        assert!(
            log.by(Kind::Node, second, &refused_token("192.0.2.1"))
                .is_empty()
        );
    }
}

#[test]
fn a_whole_network_of_ipv6_is_one_stranger() {
    let mut log = Log::new(&rule(BRUTE));
    assert!(log.see(0, &refused_token("2001:db8::1")).is_empty());
    assert!(log.see(1, &refused_token("2001:db8::ffff:1")).is_empty());
    assert!(log.see(2, &refused_token("2001:db8:0:1::1")).is_empty());
    let hits = log.see(3, &refused_token("2001:db8::7"));
    assert_eq!(hits[0].key, "anonymous:2001:db8::/64");
}

#[test]
fn what_an_event_stands_for_is_summed() {
    let mut log = Log::new(&rule(
        "threshold = { type = [\"flow.denied\"], recorded_by = \"node\", count = 100, sum = [\"packets\", \"left_out\"] }\nby = [\"recorded_by\"]\nwithin = \"60s\"",
    ));
    let denied = |packets: &str| event(EventKind::FlowDenied, "n").detail("packets", packets);
    assert!(log.by(Kind::Node, 0, &denied("98")).is_empty());
    // No number is one; the cloud's own record is not a node's.
    assert!(log.by(Kind::Node, 1, &denied("many")).is_empty());
    assert!(log.by(Kind::Cloud, 1, &denied("5000")).is_empty());
    assert_eq!(log.by(Kind::Node, 2, &denied("1"))[0].count, 100);
    assert!(
        !log.by(Kind::Node, 3, &denied("18446744073709551615"))
            .is_empty()
    );
}

#[test]
fn different_values_are_counted_once_each() {
    let mut log = Log::new(&rule(
        "threshold = { type = [\"attestation.failed\"], count = 3, distinct = \"subject\" }\nby = [\"detail.profiles\"]\nwithin = \"1h\"",
    ));
    let failed = |node: &str, profile: &str| {
        event(EventKind::AttestationFailed, "c")
            .subject(id(Kind::Node, node))
            .detail("profiles", profile)
    };
    for second in 0..5 {
        assert!(log.see(second, &failed("a", "gateway")).is_empty());
    }
    assert!(log.see(6, &failed("b", "gateway")).is_empty());
    assert!(log.see(7, &failed("c", "sensor")).is_empty());
    let hits = log.see(8, &failed("c", "gateway"));
    assert_eq!((hits[0].key.as_str(), hits[0].count), ("gateway", 3));
    assert!(hits[0].what.contains("node/a") && hits[0].what.contains("node/c"));
    // An hour later the first ones are forgotten.
    assert!(log.see(3700, &failed("d", "gateway")).is_empty());
}

#[test]
fn a_sequence_wants_its_order_and_its_time() {
    let text = rule(
        "sequence = [{ type = [\"token.refused\"], count = 2 }, { type = [\"token.used\"] }]\nwithin = \"60s\"",
    );
    let (bad, good) = (refused_token("192.0.2.1"), event(EventKind::TokenUsed, "n"));
    let mut log = Log::new(&text);
    assert!(log.see(0, &good).is_empty());
    assert!(log.see(1, &bad).is_empty());
    assert!(log.see(2, &good).is_empty(), "one refusal is not two");
    assert!(log.see(3, &bad).is_empty());
    assert!(log.see(64, &good).is_empty(), "too late");
    for second in [100, 101] {
        assert!(log.see(second, &bad).is_empty());
    }
    assert_eq!(log.see(160, &good).len(), 1);
    assert!(log.see(161, &good).is_empty(), "it begins anew");
}

#[test]
fn what_does_not_come_is_said_once_and_over_when_it_comes() {
    let text = rule(
        "absence = { type = [\"cut.effected\"], after = { type = [\"cut.ordered\"] } }\nby = [\"subject\"]\nwithin = \"60s\"",
    );
    let about = |kind, node: &str| event(kind, "c").subject(id(Kind::Node, node));
    let mut log = Log::new(&text);
    assert!(log.engine.turn(at(500)).is_empty(), "nothing was ordered");
    assert!(log.see(500, &about(EventKind::CutOrdered, "a")).is_empty());
    assert!(log.see(510, &about(EventKind::CutOrdered, "b")).is_empty());
    assert!(
        log.by(Kind::Node, 520, &about(EventKind::CutEffected, "b"))
            .is_empty()
    );
    assert!(log.engine.turn(at(559)).is_empty());
    let hits = log.engine.turn(at(560));
    assert_eq!(hits.len(), 1);
    assert!(hits[0].key.ends_with("/node/a") && hits[0].leaf.is_none() && !hits[0].over);
    assert!(log.engine.turn(at(700)).is_empty(), "said once");
    let over = log.by(Kind::Node, 710, &about(EventKind::CutEffected, "a"));
    assert!(over[0].over);
}

#[test]
fn a_heartbeat_is_due_from_the_start_but_a_cloud_that_was_away_waits_for_it() {
    let text = rule("absence = { type = [\"audit.read\"] }\nwithin = \"600s\"");
    let mut log = Log::new(&text);
    log.engine.resume(at(5000));
    let grace = GRACE.as_secs();
    assert!(log.engine.turn(at(5000 + grace - 1)).is_empty());
    assert_eq!(log.engine.turn(at(5000 + grace)).len(), 1);
    // Known to be missing before a start: what comes ends it.
    let mut again = Log::new(&text);
    again.engine.is_missed("a", "");
    assert!(again.engine.turn(at(9999)).is_empty());
    assert!(again.see(9999, &event(EventKind::AuditRead, "o"))[0].over);
}

#[test]
fn more_keys_than_there_is_room_for_are_counted_together() {
    let mut log = Log::new(&rule(BRUTE));
    let mut hits = Vec::new();
    for n in 0..MAX_KEYS_OF_RULE + 10 {
        let address = std::net::Ipv4Addr::from(u32::try_from(n).unwrap());
        hits.extend(log.see(0, &refused_token(&address.to_string())));
    }
    assert_eq!(hits.first().map(|hit| hit.key.as_str()), Some(OTHERS));
    assert_eq!(log.engine.keys(), MAX_KEYS_OF_RULE + 1);
    // Who was known is still told apart.
    for _ in 0..2 {
        hits = log.see(1, &refused_token("0.0.0.0"));
    }
    assert_eq!(hits[0].key, "anonymous:0.0.0.0");
    log.engine.turn(at(1000));
    assert_eq!(log.engine.keys(), 0, "what counts for nothing is forgotten");
}

#[test]
fn what_comes_with_the_program_is_in_order_and_names_what_the_issue_asks_for() {
    let rules = rules(super::load::DEFAULTS);
    for name in [
        "token-brute-force",
        "attestation-failed",
        "pcr-drift",
        "denial-spike",
        "clock-rollback",
        "journal-gap",
        "journal-forked",
        "node-cloned",
        "log-damaged",
        "log-halted",
        "log-disputed",
        "witness-silent",
        "witnessed-log-forked",
        "authority-expiring",
        "svid-expiring",
    ] {
        assert!(rules.get(name).is_some(), "{name}");
    }
    assert!(rules.iter().all(|rule| !rule.advice.is_empty()));
    let mut quieter = rules.clone();
    quieter
        .read("[alert.denial-spike]\nenabled = false\n")
        .unwrap();
    assert_eq!(quieter.len(), rules.len() - 1);
}

fn hit(seconds: u64) -> Hit {
    Hit {
        rule: "a".to_owned(),
        key: "node/x".to_owned(),
        at: at(seconds),
        leaf: Some(seconds),
        count: 1,
        times: 1,
        what: "w".to_owned(),
        fact: None,
        over: false,
    }
}

fn silence(rule: Option<&str>, key: Option<&str>, most: Severity) -> Silence {
    Silence {
        number: 1,
        rule: rule.map(str::to_owned),
        key: key.map(str::to_owned),
        most,
        from: START,
        until: at(100),
        by: "o".to_owned(),
        reason: "r".to_owned(),
        lifted: None,
    }
}

#[test]
fn an_alert_is_said_once_until_it_repeats_and_not_after_somebody_saw_it() {
    let rules = rules(&rule(&format!("{BRUTE}\nrepeat = \"10m\"")));
    let rule = rules.get("a").unwrap();
    let (mut alert, word) = Alert::open(1, rule, &hit(0), &[]);
    assert_eq!(word, Some(Word::Opened));
    for second in [1, 2, 599] {
        assert_eq!(alert.hit(rule, &hit(second), &[]), None);
    }
    assert_eq!(alert.hit(rule, &hit(600), &[]), Some(Word::Repeated));
    assert_eq!(alert.hits, 5);
    alert.acknowledge("o", at(601));
    assert_eq!(alert.hit(rule, &hit(5000), &[]), None);
    assert!(!alert.is_over(at(5600)) && alert.is_over(at(5601)));
    assert_eq!(alert.end(at(5601)), Some(Word::Ended));
    assert_eq!(alert.state, State::Ended);
}

#[test]
fn what_is_silenced_is_opened_and_said_when_the_silence_is_over() {
    let rules = rules(&rule(BRUTE));
    let rule = rules.get("a").unwrap();
    for other in [
        silence(Some("b"), None, Severity::Critical),
        silence(None, Some("node/y"), Severity::Critical),
        silence(None, None, Severity::Notice),
        Silence {
            lifted: Some(START),
            ..silence(Some("a"), None, Severity::Critical)
        },
    ] {
        assert!(Alert::open(1, rule, &hit(0), &[other]).1.is_some());
    }
    let silences = [silence(Some("a"), Some("node/"), Severity::Minor)];
    let (mut alert, word) = Alert::open(1, rule, &hit(0), &silences);
    assert_eq!((word, alert.said), (None, None));
    assert_eq!(alert.hit(rule, &hit(99), &silences), None);
    assert_eq!(alert.hit(rule, &hit(100), &silences), Some(Word::Opened));
}

#[test]
fn an_alert_that_got_worse_is_said_again() {
    let minor = rules(&rule(BRUTE));
    let critical = rules(&rule(BRUTE).replace("minor", "critical"));
    let (mut alert, _) = Alert::open(1, minor.get("a").unwrap(), &hit(0), &[]);
    alert.acknowledge("o", at(1));
    let word = alert.hit(critical.get("a").unwrap(), &hit(2), &[]);
    assert_eq!((word, alert.state), (Some(Word::Repeated), State::Open));
}

#[test]
fn a_silence_of_everything_or_for_ever_is_refused() {
    let everything = silence(None, None, Severity::Critical);
    assert_eq!(everything.check(), Err(BadSilence::Everything));
    let long = Silence {
        until: START.plus(Duration::from_secs(31 * 86_400)),
        ..silence(Some("a"), None, Severity::Critical)
    };
    assert_eq!(long.check(), Err(BadSilence::Time));
    let empty = Silence {
        reason: String::new(),
        ..silence(Some("a"), None, Severity::Critical)
    };
    assert_eq!(empty.check(), Err(BadSilence::Text));
    assert_eq!(silence(None, None, Severity::Minor).check(), Ok(()));
}

/// Numbers of no order, the same in each run.
fn scattered(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

#[test]
fn a_threshold_agrees_with_counting_by_hand_up_to_the_width_of_a_slot() {
    for seed in 0..300 {
        let mut times: Vec<u64> = scattered(seed).take(40).map(|n| n % 600).collect();
        times.sort_unstable();
        let mut log = Log::new(&rule(BRUTE));
        for (index, time) in times.iter().enumerate() {
            let holds = !log.see(*time, &refused_token("192.0.2.1")).is_empty();
            let within = |most: u64| {
                let before = times[..=index].iter();
                before.filter(|then| time - **then <= most).count()
            };
            assert!(holds || within(59) < 3, "{seed}: {times:?}");
            assert!(!holds || within(62) >= 3, "{seed}: {times:?}");
        }
    }
}
