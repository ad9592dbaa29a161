//! Staged policies on sessions: who gets the candidate, what rising denials do, what a restart keeps.

use std::sync::Arc;

use edgeward_audit::event::Actor;
use edgeward_policy::space::{Change, compare};
use edgeward_policy::{CompiledPolicy, SourceFile};

use super::*;
use crate::hub::{Begin, RolloutFault};
use crate::rollout::{Part, Percent, Phase, Plan};
use crate::store::policies::PolicyRow;

mod installs;

/// What rules of a policy with one service and two interfaces may say.
fn policy(number: u64, machine: &Machine, rules: &str) -> (CompiledPolicy, Vec<SourceFile>) {
    let value = hex::encode(machine.tpm.pcrs[7]);
    let text = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n\
         [profile.gateway]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{value}\"] }}\n\
         [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n\
         [service.shell]\non = \"gateways\"\n[service.shell.interface.ssh]\nnet = \"mesh\"\nl4 = \"tcp/22\"\n\
         [service.shell.interface.web]\nnet = \"mesh\"\nl4 = \"tcp/80\"\n{rules}"
    );
    let files = vec![SourceFile::new("test.toml".to_owned(), text)];
    let policy = CompiledPolicy::compile(&files, number)
        .unwrap_or_else(|report| panic!("{:?}", report.diagnostics));
    (policy, files)
}

fn rule(id: &str, to: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\nto = [\"shell/{to}\"]\ndo = [\"connect\"]\n"
    )
}

fn rules(interfaces: &[&str]) -> String {
    interfaces.iter().map(|to| rule(to, to)).collect()
}

fn row(number: u64, policy: &CompiledPolicy) -> PolicyRow {
    PolicyRow {
        number,
        hash: policy.report().hash.clone(),
        applied: now(),
        applied_by: "spiffe://plant.example/operator/li".to_owned(),
        key: "04".to_owned(),
        signature: "30".to_owned(),
        summary: std::collections::BTreeMap::new(),
        origin: None,
    }
}

fn operator() -> Actor {
    "spiffe://plant.example/operator/li".parse().unwrap()
}

/// Policy 1 is stored and in force: `ssh`, and `web` where wanted.
async fn in_force(cloud: &Cloud, machine: &Machine, rules: &str) {
    let (first, files) = policy(1, machine, rules);
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.add_policy(&row(1, &first), &files).await.unwrap();
    tx.commit().await.unwrap();
    cloud.hub.set_policy(Arc::new(first));
}

async fn stage(cloud: &Cloud, machine: &Machine, rules: &str) -> Result<Part, RolloutFault> {
    let (candidate, files) = policy(2, machine, rules);
    let plan = Plan::new(&[1, 100], Duration::from_secs(600)).unwrap();
    let part = Part::new(candidate.hash(), Percent::new(1).unwrap(), ["a", "b"]);
    let begin = Begin {
        change: compare(&cloud.hub.policy().unwrap(), &candidate, now()),
        row: row(2, &candidate),
        policy: Arc::new(candidate),
        files,
        plan,
        return_signature: Some("31".to_owned()),
    };
    cloud.hub.begin_rollout(begin, &operator()).await?;
    Ok(part)
}

fn version(cloud: &Cloud, name: &str, bytes: &[u8]) -> u64 {
    let slice: edgeward_policy::Slice =
        open(cloud, bytes, Purpose::Policy, &node(name).to_string());
    slice.version
}

/// The one that is staged first, and the other.
fn order<'a>(part: &Part, a: &'a Machine, b: &'a Machine) -> [(&'static str, &'a Machine); 2] {
    assert_ne!(
        part.holds("a"),
        part.holds("b"),
        "one percent of two is one"
    );
    match part.holds("a") {
        true => [("a", a), ("b", b)],
        false => [("b", b), ("a", a)],
    }
}

/// Sends reports of denied flows as a node's journal does.
async fn report_denials(agent: &mut Agent, machine: &Machine, name: &str, count: usize) {
    let boot = BootId::from_bytes([7; 16]);
    let journal = SoftwareKey::generate().unwrap();
    let statement = JournalKeyStatement::sign(
        &machine.tpm.svid,
        &node(name),
        boot,
        journal.public_key(),
        now(),
    )
    .unwrap();
    let mut chain = Chain::new(node(name), boot);
    let opened = BootOpened {
        previous: None,
        reset_count: Some(7),
        restart_count: Some(0),
    };
    let event = Event::new(now(), node(name), EventKind::JournalOpened);
    let opening = chain
        .seal_opening(opened, event, Salt::from_bytes([7; 16]))
        .unwrap();
    chain.advance(&opening).unwrap();
    let mut records = vec![opening.bytes().to_vec()];
    for _ in 0..count {
        let denied = Event::new(now(), node("other"), EventKind::FlowDenied)
            .subject(node(name))
            .denied("no-rule");
        let record = chain.seal(denied, Salt::from_bytes([7; 16])).unwrap();
        chain.advance(&record).unwrap();
        records.push(record.bytes().to_vec());
    }
    let batch = Batch::sign(&statement, &journal, records)
        .unwrap()
        .to_bytes();
    agent
        .send(node_message::Body::Audit(v1::AuditBatch { batch }))
        .await;
    let answer = agent
        .until(|body| match body {
            Body::Audit(answer) => Some(answer),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(answer.refused_code, "");
}

#[tokio::test]
async fn nothing_is_staged_over_nothing_nor_over_another_stage() {
    let (a, b) = (Machine::new(), Machine::new());
    let cloud = Cloud::start(&[&a, &b]).await;
    let (candidate, files) = policy(1, &a, &rule("ssh", "ssh"));
    let begin = Begin {
        change: Change::Mixed,
        row: row(1, &candidate),
        policy: Arc::new(candidate),
        files,
        plan: Plan::new(&[100], Duration::from_secs(600)).unwrap(),
        return_signature: None,
    };
    let refused = cloud.hub.begin_rollout(begin, &operator()).await;
    assert!(matches!(refused, Err(RolloutFault::NoBase)));
    in_force(&cloud, &a, &rule("ssh", "ssh")).await;
    let refused = cloud.hub.resume_rollout(&operator()).await;
    assert!(matches!(refused, Err(RolloutFault::NotOpen)));
    stage(&cloud, &a, &rule("w", "web")).await.unwrap();
    let refused = stage(&cloud, &a, &rule("x", "web")).await;
    assert!(matches!(refused, Err(RolloutFault::Open(2))));
    let refused = cloud.hub.resume_rollout(&operator()).await;
    assert!(matches!(refused, Err(RolloutFault::Phase("holding"))));
}

#[tokio::test]
async fn a_candidate_reaches_its_part_alone_and_a_restart_keeps_it_so() {
    let (cloud, a, b) = two("").await;
    in_force(&cloud, &a, &rule("ssh", "ssh")).await;
    let part = stage(&cloud, &a, &rule("w", "web")).await.unwrap();
    let [(first, first_machine), (other, other_machine)] = order(&part, &a, &b);
    let check = async |cloud: &Cloud| {
        let staged = welcome(&mut cloud.agent(first_machine).await).await.slice;
        let left = welcome(&mut cloud.agent(other_machine).await).await.slice;
        assert_eq!(version(cloud, first, &staged), 2);
        assert_eq!(version(cloud, other, &left), 1);
        let progress = cloud.hub.rollout().await.unwrap().unwrap();
        assert_eq!(progress.nodes, [first]);
    };
    check(&cloud).await;
    check(&cloud.restart().await).await;
}

#[tokio::test]
async fn rising_denials_stop_a_candidate_that_closes_something_and_leave_it_where_it_is() {
    let (cloud, a, b) = two("").await;
    in_force(&cloud, &a, &rules(&["ssh", "web"])).await;
    let part = stage(&cloud, &a, &rule("ssh", "ssh")).await.unwrap();
    let [(first, machine), _] = order(&part, &a, &b);
    let mut agent = cloud.agent(machine).await;
    assert_eq!(version(&cloud, first, &welcome(&mut agent).await.slice), 2);
    report_denials(&mut agent, machine, first, 40).await;
    eventually(|| async { cloud.recorded("policy.paused", "denials_rise").await }).await;
    let progress = cloud.hub.rollout().await.unwrap().unwrap();
    assert!(matches!(progress.rollout.phase, Phase::Paused(_)));
    assert_eq!(progress.denials.staged.now, 40);
    assert_eq!(cloud.hub.policy_of(first).unwrap().version(), 2);
    assert_eq!(cloud.hub.store.policy_in_force().await.unwrap(), 1);
    // A person looks, and goes on: what rose does not stop this stage again.
    cloud.hub.resume_rollout(&operator()).await.unwrap();
    cloud.hub.look_after_rollout().await;
    let progress = cloud.hub.rollout().await.unwrap().unwrap();
    assert_eq!(progress.rollout.phase, Phase::Holding);
}

#[tokio::test]
async fn rising_denials_take_back_a_candidate_that_closes_nothing_under_a_higher_number() {
    let (cloud, a, b) = two("").await;
    in_force(&cloud, &a, &rule("ssh", "ssh")).await;
    let part = stage(&cloud, &a, &rules(&["ssh", "web"])).await.unwrap();
    let [(first, machine), _] = order(&part, &a, &b);
    let mut agent = cloud.agent(machine).await;
    assert_eq!(version(&cloud, first, &welcome(&mut agent).await.slice), 2);
    report_denials(&mut agent, machine, first, 40).await;
    eventually(|| async { cloud.recorded("policy.returned", "denials_rise").await }).await;
    eventually(|| async { cloud.hub.policy_of(first).unwrap().version() == 3 }).await;
    assert!(cloud.hub.rollout().await.unwrap().is_none());
    let (kept, _) = cloud.hub.store.policy(3).await.unwrap().unwrap();
    assert_eq!((kept.origin, kept.applied_by.as_str()), (Some(1), "cloud"));
    assert_eq!((kept.key.as_str(), kept.signature.as_str()), ("04", "31"));
    assert_eq!(cloud.hub.store.policy_in_force().await.unwrap(), 3);
    // What it goes back to is what a start finds.
    let cloud = cloud.restart().await;
    assert_eq!(cloud.hub.policy().unwrap().version(), 3);
    assert!(cloud.hub.rollout().await.unwrap().is_none());
}

#[tokio::test]
async fn an_abort_puts_the_policy_before_in_force_everywhere_under_the_next_number_alone() {
    let (cloud, a, _b) = two("").await;
    in_force(&cloud, &a, &rules(&["ssh", "web"])).await;
    stage(&cloud, &a, &rule("ssh", "ssh")).await.unwrap();
    let (base, _) = cloud.hub.store.policy(1).await.unwrap().unwrap();
    let back = |number| PolicyRow {
        number,
        origin: Some(1),
        ..base.clone()
    };
    let refused = cloud.hub.abort_rollout(back(2), &operator()).await;
    assert!(matches!(refused, Err(RolloutFault::Number(3))));
    let other = PolicyRow {
        hash: "00".repeat(32),
        ..back(3)
    };
    let refused = cloud.hub.abort_rollout(other, &operator()).await;
    assert!(matches!(refused, Err(RolloutFault::Base { .. })));
    cloud.hub.abort_rollout(back(3), &operator()).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(cloud.hub.policy_of(name).unwrap().version(), 3);
    }
    assert!(cloud.recorded("policy.returned", "aborted").await);
}
