//! The policies that ship as samples do what they say.

use std::path::Path;
use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};

use super::*;
use crate::decision::{Link, Standing};
use crate::engine::Engine;
use crate::fleet::{Fleet, FleetNode};
use crate::slice::Proto;

#[test]
fn the_quickstart_lets_a_reach_one_interface_of_b_and_nothing_else() {
    let policy = match CompiledPolicy::compile(&quickstart(), 1) {
        Ok(policy) => policy,
        Err(report) => panic!("{report}"),
    };
    assert_eq!(policy.report().openings, []);
    assert!(policy.report().summary.tests >= 5);
    let fleet = Fleet {
        nodes: vec![node("a", "gateway"), node("b", "machine")],
    };
    let end = Timestamp::from_secs(2_000_000_000);
    let now = Timestamp::from_secs(1_999_000_000);
    let engine = |name: &str| {
        let slice = policy.slice(&id(name), &fleet, end).unwrap();
        Engine::new(Arc::new(slice)).unwrap()
    };
    let (a, b) = (engine("a"), engine("b"));
    let trusted = Standing {
        state: AttestationState::Trusted,
        tier: Some(Tier::Virtual),
        last_pass: Some(now),
        profiles: Some(crate::profile::StatedProfiles::NONE),
        runs: None,
    };
    let there = a.peer(&id("b")).unwrap();
    assert!(a.meet(there, trusted, Link::Online, now).is_allow());
    for (port, open) in [(8080, true), (8081, false), (22, false)] {
        let decision = a.decide_egress(there, (Proto::Tcp, port), trusted, Link::Online, now);
        assert_eq!(decision.is_allow(), open, "{port}");
    }
    let rows = crate::filter::rows(
        &b,
        &[(
            crate::filter::FilterSubject::Peer(b.peer(&id("a")).unwrap()),
            trusted,
        )],
        Link::Online,
        now,
    );
    let open: Vec<u16> = rows
        .interfaces
        .iter()
        .filter(|interface| !interface.allowed.is_empty())
        .map(|interface| interface.port)
        .collect();
    assert_eq!(open, [8080]);
    assert_eq!((a.slice().interfaces.len(), b.slice().egress.len()), (0, 0));
}

#[test]
fn every_sample_is_accepted_and_its_openings_are_those_it_speaks_of() {
    let openings = |name: &str| {
        let report = check(&sample(name));
        assert!(report.is_ok(), "{name}:\n{report}");
        let openings = report.openings.iter();
        openings
            .map(|opening| format!("{}: {}", opening.name, opening.kind.as_str()))
            .collect::<Vec<_>>()
    };
    assert_eq!(openings("quickstart"), [""; 0]);
    assert_eq!(
        openings("profiles"),
        ["gateway-trial: mode monitor: nothing is enforced"]
    );
    for entry in std::fs::read_dir(samples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        openings(&name);
    }
}

fn quickstart() -> Vec<SourceFile> {
    sample("quickstart")
}

fn samples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies")
}

fn sample(name: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    gather(&samples().join(name), "", &mut files);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

fn gather(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        match path.is_dir() {
            true => gather(&path, &format!("{name}/"), files),
            false => files.push(SourceFile::new(
                name,
                std::fs::read_to_string(&path).unwrap(),
            )),
        }
    }
}

fn node(name: &str, role: &str) -> FleetNode {
    FleetNode {
        id: id(name),
        labels: [("site", "quickstart"), ("role", role)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        tier: Tier::Virtual,
        v4: None,
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://quickstart.example/node/{name}")
        .parse()
        .unwrap()
}

#[test]
fn the_sample_of_workloads_is_sound_and_opens_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/workloads");
    let text = std::fs::read_to_string(path.join("workloads.toml")).unwrap();
    let files = [SourceFile::new("workloads.toml", text)];
    let policy = match CompiledPolicy::compile(&files, 1) {
        Ok(policy) => policy,
        Err(report) => panic!("{report}"),
    };
    assert_eq!(policy.report().openings, []);
    assert_eq!(policy.report().summary.workloads, 3);
}
