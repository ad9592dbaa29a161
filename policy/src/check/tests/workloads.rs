use edgeward_identity::{SpiffeId, Tier, Timestamp};

use super::*;
use crate::check::openings::OpeningKind;
use crate::fleet::{Fleet, FleetNode, Labels};
use crate::seconds::Seconds;
use crate::slice::{Slice, SliceError};
use crate::workload::{MAX_WORKLOAD_TTL, Pod};

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn workload(lines: &str) -> String {
    format!("{BASE}\n[workload.collector]\n{lines}\n")
}

fn slice_of(policy: &CompiledPolicy, role: &str) -> Slice {
    let id: SpiffeId = "spiffe://plant.example/node/gw-1".parse().unwrap();
    let fleet = Fleet {
        nodes: vec![FleetNode {
            id: id.clone(),
            labels: labels(role),
            tier: Tier::Hardware,
            v4: None,
        }],
    };
    policy.slice(&id, &fleet, Timestamp::from_secs(1)).unwrap()
}

fn labels(role: &str) -> Labels {
    Labels::from([
        ("role".to_owned(), role.to_owned()),
        ("site".to_owned(), "suzhou".to_owned()),
    ])
}

#[test]
fn a_match_that_every_process_meets_is_refused() {
    for lines in [
        "on = \"gateways\"\nmatch = §{}",
        "on = \"gateways\"\nmatch = { k8s = §{} }",
    ] {
        assert_refused(&workload(lines), Code::ChecksNothing);
    }
}

#[test]
fn a_workload_without_group_or_match_is_refused() {
    let head = |rest: &str| format!("{BASE}\n§[workload.collector]\n{rest}\n");
    assert_refused(&head("match = { uid = 1 }"), Code::MissingKey);
    assert_refused(&head("on = \"gateways\""), Code::MissingKey);
    assert_refused(
        &workload("on = §\"gatewais\"\nmatch = { uid = 1 }"),
        Code::UnknownName,
    );
}

#[test]
fn an_app_is_named_as_it_is_published_and_is_no_opening() {
    for app in ["collector", "acme/", "/collector", "acme/a/b", ""] {
        let lines = format!("on = \"gateways\"\nmatch = {{ app = §\"{app}\" }}");
        assert_refused(&workload(&lines), Code::BadValue);
    }
    // Another process of the machine cannot be it, whoever may run the same program.
    let lines = "on = \"gateways\"\nmatch = { app = \"acme/collector\" }";
    let report = check(&one(&workload(lines).replace('§', "")));
    assert!(report.diagnostics.is_empty(), "{:?}", report.diagnostics);
    assert!(
        report
            .openings
            .iter()
            .all(|opening| opening.kind != crate::check::OpeningKind::ProgramOnly)
    );
}

#[test]
fn a_selector_that_no_process_can_meet_is_refused() {
    for selector in [
        "uid = §-1",
        "uid = §4294967295",
        "gid = §4294967296",
        "path = §\"collector\"",
        "path = §\"/usr/../bin/x\"",
        "path = §\"/usr//bin\"",
        "path = §\"/usr/bin/\"",
        "path = §\"/usr/\\u0000bin\"",
        "digest = §\"00ff\"",
        "digest = §\"sha512:00ff\"",
        "digest = §\"sha256:zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"",
        "unit = §\"collector\"",
        "unit = §\".service\"",
        "unit = §\"a/b.service\"",
        "k8s = { namespace = §\"Line\" }",
        "k8s = { namespace = §\"-line\" }",
        "k8s = { pod_uid = §\"1234\" }",
        "k8s = §{ service_account = \"collector\" }",
    ] {
        let lines = format!("on = \"gateways\"\nmatch = {{ {selector} }}");
        assert_refused(&workload(&lines), Code::BadValue);
    }
    let lines = "on = \"gateways\"\nmatch = { uid = §\"990\" }";
    assert_refused(&workload(lines), Code::WrongType);
    let lines = "on = \"gateways\"\nmatch = { §user = 990 }";
    assert_refused(&workload(lines), Code::UnknownKey);
}

#[test]
fn a_lifetime_out_of_bounds_is_refused() {
    for ttl in ["59s", "25h", "0s"] {
        let lines = format!("on = \"gateways\"\nmatch = {{ uid = 1 }}\nttl = §\"{ttl}\"");
        assert_refused(&workload(&lines), Code::BadValue);
    }
}

#[test]
fn a_name_that_is_no_path_of_a_spiffe_id_is_refused() {
    for name in ["a//b", "/a", "a/", "..", "a/./b", "a b", "ü"] {
        let text = format!(
            "{BASE}\n[workload]\n§\"{name}\" = {{ on = \"gateways\", match = {{ uid = 1 }} }}\n"
        );
        assert_refused(&text, Code::BadValue);
    }
}

#[test]
fn one_name_in_two_files_is_refused() {
    let more = "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n[workload.collector]\non = \"gateways\"\nmatch = { uid = 2 }\n";
    let mut files = one(&workload("on = \"gateways\"\nmatch = { uid = 1 }"));
    files.push(SourceFile::new("site/b.toml", more));
    let found = check(&files).diagnostics;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].line), (Code::DuplicateName, 4));
}

#[test]
fn a_workload_on_a_group_outside_the_scope_of_its_file_is_refused() {
    let group = "[group.elsewhere]\nmatch = { site = [\"wuxi\"] }";
    let other = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = {{ site = [\"wuxi\"] }}\n{group}\n"
    );
    let mut files = one(&workload("on = \"elsewhere\"\nmatch = { uid = 1 }"));
    files.push(SourceFile::new("site/b.toml", other));
    let found = check(&files).diagnostics;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, Code::OutsideScope);
}

#[test]
fn a_program_alone_is_listed_as_an_opening_and_with_its_user_it_is_not() {
    let openings = |selectors: &str| {
        let lines = format!("on = \"gateways\"\nmatch = {{ {selectors} }}");
        assert_accepted(&workload(&lines)).report().openings.clone()
    };
    let digest = format!("digest = \"sha256:{DIGEST}\"");
    for selectors in ["path = \"/usr/bin/collector\"", digest.as_str()] {
        let found = openings(selectors);
        assert_eq!(found.len(), 1, "{selectors}");
        assert_eq!(found[0].kind, OpeningKind::ProgramOnly);
        assert_eq!(found[0].name, "collector");
        assert_eq!(openings(&format!("uid = 990, {selectors}")), []);
        assert_eq!(openings(&format!("unit = \"c.service\", {selectors}")), []);
    }
}

#[test]
fn a_workload_is_in_the_slice_of_its_nodes_and_of_no_other() {
    let lines = format!(
        "on = \"gateways\"\nttl = \"10m\"\nmatch = {{ uid = 990, gid = 0x3de, path = \"/usr/bin/collector\", digest = \"sha256:{}\", unit = \"collector.service\", k8s = {{ namespace = \"line\", service_account = \"collector\" }} }}",
        DIGEST.to_ascii_uppercase()
    );
    let policy = assert_accepted(&workload(&lines));
    assert_eq!(policy.report().summary.workloads, 1);
    assert_eq!(slice_of(&policy, "scada").workloads, []);
    let slice = slice_of(&policy, "gateway");
    let [collector] = slice.workloads.as_slice() else {
        panic!("{:?}", slice.workloads);
    };
    assert_eq!(
        collector.id.to_string(),
        "spiffe://plant.example/workload/collector"
    );
    assert_eq!(collector.ttl, Seconds::new(600));
    let selectors = &collector.selectors;
    assert_eq!((selectors.uid, selectors.gid), (Some(990), Some(990)));
    assert_eq!(selectors.digest.as_deref(), Some(DIGEST));
    let pod = Pod {
        namespace: Some("line".to_owned()),
        service_account: Some("collector".to_owned()),
        pod_uid: None,
    };
    assert_eq!(selectors.k8s, Some(pod));
    assert_eq!(Slice::parse(&slice.to_json()).unwrap(), slice);
    let domain = slice.node.trust_domain();
    assert_eq!(
        policy.workloads_for(domain, &labels("gateway")),
        slice.workloads
    );
    assert_eq!(policy.workloads_for(domain, &labels("scada")), []);
}

#[test]
fn a_slice_with_a_workload_that_is_none_or_matches_everything_is_refused() {
    let lines = "on = \"gateways\"\nmatch = { uid = 1 }";
    let slice = slice_of(&assert_accepted(&workload(lines)), "gateway");
    let changed = |change: fn(&mut Slice)| {
        let mut changed = slice.clone();
        change(&mut changed);
        changed.validate()
    };
    assert!(changed(|_| ()).is_ok());
    let node = changed(|slice| slice.workloads[0].id = slice.node.clone());
    assert!(matches!(node, Err(SliceError::NotAWorkload(_))));
    let foreign = changed(|slice| {
        slice.workloads[0].id = "spiffe://other.example/workload/a".parse().unwrap();
    });
    assert!(matches!(foreign, Err(SliceError::NotAWorkload(_))));
    let empty = changed(|slice| slice.workloads[0].selectors.uid = None);
    assert!(matches!(empty, Err(SliceError::Empty { .. })));
    let pods = changed(|slice| slice.workloads[0].selectors.k8s = Some(Pod::default()));
    assert!(matches!(pods, Err(SliceError::Empty { .. })));
    let long = changed(|slice| slice.workloads[0].ttl = MAX_WORKLOAD_TTL.doubled());
    assert!(matches!(long, Err(SliceError::WorkloadTtl(_))));
    let twice = changed(|slice| slice.workloads.push(slice.workloads[0].clone()));
    assert!(matches!(twice, Err(SliceError::Twice { .. })));
}
