//! The same rules asked of others, each as its own documentation has it: one rule, one row or policy, and the question
//! put together anew for each decision. None of them remembers decisions. Raw casbin compares names only, so its rows
//! are simpler than everybody else's.

use std::hint::black_box;
use std::time::Instant;

use casbin::{CoreApi, DefaultModel, Enforcer, MgmtApi};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};

use crate::plant::{GROUPS_PER_INTERFACE, NOW, ROWS_PER_INTERFACE};
use crate::timing::{Times, micros, resident};

/// One rule of [`crate::plant::hub`].
struct Rule {
    id: usize,
    interface: usize,
    group: usize,
    allow: bool,
    /// Unix seconds for an allow, first minute of Sunday for a deny.
    bound: u64,
    fresh: u64,
}

fn rules(count: usize) -> (Vec<Rule>, usize) {
    let interfaces = count.div_ceil(ROWS_PER_INTERFACE);
    let groups = GROUPS_PER_INTERFACE * interfaces.min(50);
    let rules = (0..count).map(|id| {
        let (interface, row) = (id / ROWS_PER_INTERFACE, id % ROWS_PER_INTERFACE);
        let allow = row % 10 != 9;
        Rule {
            id,
            interface,
            group: (interface * GROUPS_PER_INTERFACE + row % GROUPS_PER_INTERFACE) % groups,
            allow,
            bound: if allow {
                NOW + 86_400 * 40 + row as u64
            } else {
                row as u64
            },
            fresh: 60 * (10_000 - row as u64),
        }
    });
    (rules.collect(), groups)
}

/// Groups ask about the interfaces in turn.
fn question(index: usize, rules: usize, groups: usize) -> (usize, usize) {
    (
        index % groups,
        index / groups % rules.div_ceil(ROWS_PER_INTERFACE),
    )
}

fn report(rules: usize, name: &str, build: &str, memory: f64, mut ask: impl FnMut(usize) -> bool) {
    let start = Instant::now();
    black_box(ask(0));
    // About five seconds, at least a hundred questions.
    let count = (5.0 / start.elapsed().as_secs_f64().max(1e-6)) as usize;
    let misses = Times::of(count.clamp(100, 50_000), |index| {
        black_box(ask(index.wrapping_mul(7919)));
    });
    println!(
        "| {rules} | {name} | - | {} | {} | {build} | {memory:.0} MiB |",
        misses.at(50),
        misses.at(99)
    );
}

/// Every rule a row of one enforcer, matched by equality.
pub fn casbin(count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (rules, groups) = rules(count);
    let (before, start) = (resident(), Instant::now());
    let enforcer = runtime.block_on(async {
        let model = DefaultModel::from_str(
            "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = id, sub, obj, act, eft\n\
             [policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n\
             [matchers]\nm = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n",
        );
        let mut enforcer = Enforcer::new(model.await.expect("a model"), ()).await.expect("an enforcer");
        let rows = rules.iter().map(|rule| {
            let effect = if rule.allow { "allow" } else { "deny" };
            vec![
                rule.id.to_string(),
                format!("g{}", rule.group),
                format!("s{}", rule.interface),
                "connect".to_owned(),
                effect.to_owned(),
            ]
        });
        enforcer.add_policies(rows.collect()).await.expect("rows");
        enforcer
    });
    let (build, memory) = (micros(start.elapsed()), resident() - before);
    report(count, "casbin 2.20.0", &build, memory, |index| {
        let (group, interface) = question(index, count, groups);
        enforcer
            .enforce((format!("g{group}"), format!("s{interface}"), "connect"))
            .expect("a decision")
    });
}

/// Every rule a policy, bound to its group and interface in the scope.
pub fn cedar(count: usize) {
    let (rules, groups) = rules(count);
    let texts = rules.iter().map(|rule| {
        let (effect, when) = if rule.allow {
            ("permit", format!("context.state == \"trusted\" && context.now < {} && context.age < {}", rule.bound, rule.fresh))
        } else {
            ("forbid", format!("context.day == 7 && context.minute >= {}", rule.bound))
        };
        format!(
            "{effect}(principal in Group::\"g{}\", action == Action::\"connect\", resource == Interface::\"s{}\") when {{ {when} }};\n",
            rule.group, rule.interface
        )
    });
    let text: String = texts.collect();
    let (before, start) = (resident(), Instant::now());
    let policies: PolicySet = text.parse().expect("policies");
    let uid = |kind: &str, name: String| {
        let kind: EntityTypeName = kind.parse().expect("a type");
        EntityUid::from_type_name_and_id(kind, name.parse().expect("a name"))
    };
    let peers = (0..groups).map(|group| {
        let parents = [uid("Group", format!("g{group}"))].into();
        Entity::new_no_attrs(uid("Peer", format!("n{group}")), parents)
    });
    let entities = Entities::from_entities(peers, None).expect("entities");
    let (build, memory) = (micros(start.elapsed()), resident() - before);
    let authorizer = Authorizer::new();
    report(count, "Cedar 4.14.1", &build, memory, |index| {
        let (group, interface) = question(index, count, groups);
        let context = Context::from_pairs([
            (
                "state".to_owned(),
                RestrictedExpression::new_string("trusted".to_owned()),
            ),
            ("now".to_owned(), RestrictedExpression::new_long(NOW as i64)),
            ("age".to_owned(), RestrictedExpression::new_long(60)),
            ("day".to_owned(), RestrictedExpression::new_long(5)),
            ("minute".to_owned(), RestrictedExpression::new_long(1140)),
        ]);
        let request = Request::new(
            uid("Peer", format!("n{group}")),
            uid("Action", "connect".to_owned()),
            uid("Interface", format!("s{interface}")),
            context.expect("a context"),
            None,
        );
        let answer = authorizer.is_authorized(&request.expect("a request"), &policies, &entities);
        answer.decision() == Decision::Allow
    });
}

const REGO: &str = r#"package edgeward
import rego.v1

default allow := false

allow if {
	not denied
	some rule in data.rules[input.interface]
	rule.allow
	rule.group in input.groups
	input.state == "trusted"
	input.now < rule.bound
	input.age < rule.fresh
}

denied if {
	some rule in data.rules[input.interface]
	not rule.allow
	rule.group in input.groups
	input.day == 7
	input.minute >= rule.bound
}
"#;

/// Every rule an object of data, found by its interface.
pub fn regorus(count: usize) {
    let (rules, groups) = rules(count);
    let mut data = String::from("{\"rules\":{");
    for (place, of_interface) in rules.chunks(ROWS_PER_INTERFACE).enumerate() {
        let rows = of_interface.iter().map(|rule| {
            format!(
                "{{\"group\":\"g{}\",\"allow\":{},\"bound\":{},\"fresh\":{}}}",
                rule.group, rule.allow, rule.bound, rule.fresh
            )
        });
        let comma = if place > 0 { "," } else { "" };
        let rows = rows.collect::<Vec<_>>().join(",");
        data.push_str(&format!("{comma}\"s{place}\":[{rows}]"));
    }
    data.push_str("}}");
    let (before, start) = (resident(), Instant::now());
    let mut engine = regorus::Engine::new();
    engine
        .add_policy("edgeward.rego".to_owned(), REGO.to_owned())
        .expect("a policy");
    engine.add_data_json(&data).expect("data");
    let (build, memory) = (micros(start.elapsed()), resident() - before);
    report(count, "regorus 0.14.1", &build, memory, |index| {
        let (group, interface) = question(index, count, groups);
        let input = format!(
            "{{\"interface\":\"s{interface}\",\"groups\":[\"g{group}\"],\"state\":\"trusted\",\"now\":{NOW},\"age\":60,\"day\":5,\"minute\":1140}}"
        );
        engine.set_input_json(&input).expect("an input");
        let allow = engine
            .eval_rule("data.edgeward.allow".to_owned())
            .expect("a decision");
        allow == regorus::Value::from(true)
    });
}
