use std::collections::BTreeMap;

use edgeward_identity::Timestamp;

use super::*;
use crate::source::SourceFile;

const ROLES: [&str; 4] = ["gateway", "station", "lab", "none"];

#[test]
fn an_index_that_grew_and_shrank_cuts_the_same_slices_as_one_made_anew() {
    let policy = policy("p");
    let mut kept = policy.index(&Fleet::default());
    let mut fleet: BTreeMap<String, FleetNode> = BTreeMap::new();
    let mut seed = 7_u64;
    for step in 0..300 {
        let name = format!("n{}", random(&mut seed, 24));
        let id = node(&name, "none").id;
        // A copy is not touched by what happens to its original.
        let (before, copy) = (slices(&policy, &kept, &fleet), kept.clone());
        let known = fleet.clone();
        if random(&mut seed, 3) == 0 {
            kept.remove(&id);
            fleet.remove(&name);
        } else {
            let node = node(&name, ROLES[random(&mut seed, 4)]);
            kept.put(&policy, &node);
            fleet.insert(name, node);
        }
        let nodes = fleet.values().cloned().collect();
        let anew = policy.index(&Fleet { nodes });
        assert_eq!(kept.len(), fleet.len());
        assert_eq!(
            slices(&policy, &kept, &fleet),
            slices(&policy, &anew, &fleet),
            "step {step}"
        );
        assert_eq!(slices(&policy, &copy, &known), before, "step {step}");
    }
}

#[test]
fn an_index_takes_nothing_in_for_another_policy_and_nothing_that_is_no_node() {
    let (one, other) = (policy("one"), policy("other"));
    let mut index = one.index(&Fleet::default());
    index.put(&other, &node("a", "gateway"));
    let mut operator = node("a", "gateway");
    operator.id = "spiffe://plant.example/operator/a".parse().unwrap();
    index.put(&one, &operator);
    assert_eq!(index.len(), 0);
    index.remove(&operator.id);
    index.put(&one, &node("a", "gateway"));
    assert_eq!(index.len(), 1);
}

fn slices(
    policy: &CompiledPolicy,
    index: &FleetIndex,
    fleet: &BTreeMap<String, FleetNode>,
) -> Vec<Vec<u8>> {
    let slices = fleet.values().map(|node| {
        let slice = policy.slice_of(index, &node.id, Timestamp::from_secs(1));
        slice.unwrap().to_json()
    });
    slices.collect()
}

fn policy(owner: &str) -> CompiledPolicy {
    let text = format!(
        r#"schema = "edgeward-policy/1"
owner = "{owner}"
scope = "any"
[profile.gateway]
tier = ["hardware"]
pcr = {{ 7 = ["sha256:{}"] }}
fresh = "5m"
[group.gateways]
match = {{ role = ["gateway"] }}
profile = "gateway"
[group.stations]
match = {{ role = ["station", "lab"] }}
[group.plcs]
match = {{ kind = ["plc"] }}
via = "gateways"
[device.plc-1]
node = "n3"
interface = "lan0"
labels = {{ kind = "plc" }}
match = {{ mac = "02:00:00:00:00:11" }}
[service.line]
on = "gateways"
[service.line.interface.plc]
net = "lan0"
l4 = "tcp/502"
[service.line.interface.web]
net = "mesh"
l4 = "tcp/443"
[service.files]
on = "stations"
[service.files.interface.web]
net = "mesh"
l4 = "tcp/444"
[[rule]]
id = "stations"
effect = "allow"
from = ["group:stations"]
to = ["line/web"]
do = ["connect"]
[[rule]]
id = "devices"
effect = "allow"
from = ["group:plcs"]
to = ["line/plc"]
do = ["connect"]
[[rule]]
id = "gateways"
effect = "allow"
from = ["group:gateways"]
to = ["files/web"]
do = ["connect"]
"#,
        "aa".repeat(32)
    );
    CompiledPolicy::compile(&[SourceFile::new("p.toml", text)], 1)
        .unwrap_or_else(|report| panic!("{report}"))
}

fn node(name: &str, role: &str) -> FleetNode {
    FleetNode {
        id: format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        tier: Tier::Hardware,
        v4: None,
    }
}

fn random(seed: &mut u64, below: usize) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 40).unwrap() % below
}
