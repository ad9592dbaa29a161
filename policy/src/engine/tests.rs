use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, Tier, TrustDomain};

use super::*;
use crate::compile::CompiledPolicy;
use crate::fleet::{Fleet, FleetNode};
use crate::profile::StatedProfiles;
use crate::source::SourceFile;

mod beyond;
mod guests;
mod l7;
mod openings;
mod oracle;
mod profiles;
mod runs;
mod semantics;
mod slices;

/// 2026-11-20T18:00:00Z: Saturday, two in the morning in Shanghai.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_795_197_600);
pub(super) const END: Timestamp = Timestamp::from_secs(1_795_197_600 + 30 * 86_400);

pub(super) const HEAD: &str = r#"schema = "edgeward-policy/1"
owner = "ot"
scope = "any"

[profile.gateway]
tier = ["hardware", "virtual"]
pcr = { 7 = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"] }
offline = "24h"

[profile.lab]
tier = ["software"]

[group.gateways]
match = { role = ["gateway"] }
profile = "gateway"
[group.stations]
match = { role = ["station"] }
profile = "gateway"
[group.lab]
match = { role = ["lab"] }
profile = "lab"
[operator-group.vendor]
members = ["operator/li"]

[window.night]
tz = "Asia/Shanghai"
days = ["sat"]
from = "02:00"
to = "05:00"

[service.line]
on = "gateways"
[service.line.interface.plc]
net = "mesh"
l4 = "tcp/502"
[service.line.interface.admin]
net = "mesh"
l4 = "tcp/443"
"#;

pub(super) fn rule(id: &str, effect: &str, from: &str, to: &str, rest: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\neffect = \"{effect}\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\ndo = [\"connect\"]\n{rest}\n"
    )
}

#[track_caller]
pub(super) fn policy(rules: &[String]) -> CompiledPolicy {
    let publishers = crate::testing::publishers_on("gateways");
    let text = format!("{HEAD}\n{}\n{publishers}", rules.join("\n"));
    match CompiledPolicy::compile(&[SourceFile::new("p.toml", text)], 7) {
        Ok(policy) => policy,
        Err(report) => panic!("{report}"),
    }
}

pub(super) fn node(name: &str) -> SpiffeId {
    id(edgeward_identity::Kind::Node, name)
}

pub(super) fn id(kind: edgeward_identity::Kind, name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("plant.example").unwrap(), kind, name).unwrap()
}

pub(super) fn fleet() -> Fleet {
    let nodes = [
        ("gw-1", "gateway", Tier::Hardware),
        ("gw-2", "gateway", Tier::Virtual),
        ("st-1", "station", Tier::Hardware),
        ("lab-1", "lab", Tier::Software),
        ("other", "none", Tier::Hardware),
    ];
    Fleet {
        nodes: nodes
            .into_iter()
            .enumerate()
            .map(|(index, (name, role, tier))| FleetNode {
                id: node(name),
                labels: [("role".to_owned(), role.to_owned())].into(),
                tier,
                v4: Some([100, 64, 0, u8::try_from(index).unwrap()].into()),
            })
            .collect(),
    }
}

#[track_caller]
pub(super) fn engine(rules: &[String], name: &str) -> Engine {
    let slice = policy(rules).slice(&node(name), &fleet(), END).unwrap();
    Engine::new(Arc::new(Slice::parse(&slice.to_json()).unwrap())).unwrap()
}

pub(super) fn trusted() -> Standing {
    Standing {
        state: AttestationState::Trusted,
        tier: Some(Tier::Hardware),
        last_pass: Some(NOW.minus(std::time::Duration::from_secs(60))),
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    }
}

pub(super) fn ask(
    engine: &Engine,
    subject: &SpiffeId,
    standing: Standing,
    link: Link,
    now: Timestamp,
) -> Decision {
    engine.decide(&Request {
        subject: Subject::Id(subject),
        standing,
        target: Target::Named {
            service: "line",
            interface: "plc",
        },
        action: ActionId::CONNECT,
        link,
        now,
    })
}
