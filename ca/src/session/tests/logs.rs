//! Logs over the session: what is asked for, what is left out, what it makes of a node.

use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::tpm::HashAlg;
use edgeward_policy::SourceFile;

use super::*;
use crate::store::evidence::Which;

const SHELL: [u8; 32] = [0x5e; 32];

const SECURE_BOOT: &str = "tier = [\"listed\"]\npcr_bank = \"sha256\"\nsecure_boot = true\n";
const IMA: &str = "tier = [\"listed\"]\npcr_bank = \"sha256\"\nima = { allow = \"ima.allow\" }\n";

fn machine(secure_boot: bool) -> Machine {
    let mut machine = Machine::new();
    machine.boot(&BootLogBuilder::typical(secure_boot));
    machine
}

fn lists() -> Vec<SourceFile> {
    let text = format!("sha256:{}\n", hex::encode(SHELL));
    vec![SourceFile::new("ima.allow".to_owned(), text)]
}

/// A cloud with one enrolled machine, `a`, and a policy with this profile.
async fn one(profile: &str, machine: &mut Machine) -> Cloud {
    let cloud = Cloud::start(&[machine]).await;
    cloud.policy_with(
        1,
        profile,
        &if profile.contains("ima") {
            lists()
        } else {
            Vec::new()
        },
    );
    cloud.token(|_| {}).await;
    cloud.enrol(machine, "t1", "a").await.unwrap();
    cloud
}

/// Asks again at once and answers; what was asked, what was answered, what came of it.
pub(super) async fn again(
    cloud: &Cloud,
    agent: &mut Agent,
    machine: &mut Machine,
) -> (v1::AttestChallenge, v1::AttestEvidence, v1::AttestOutcome) {
    cloud.hasten("a");
    let challenge = agent.challenge().await;
    let answer = machine.answer(&challenge, &agent.exporter, "a");
    agent
        .send(node_message::Body::Evidence(answer.clone()))
        .await;
    (challenge, answer, agent.outcome().await)
}

fn code(outcome: &v1::AttestOutcome) -> &str {
    outcome
        .refused
        .as_ref()
        .map_or("", |refused| refused.code.as_str())
}

#[tokio::test]
async fn a_profile_that_needs_a_log_leaves_the_enrolled_node_stale_until_its_first_answer() {
    let mut a = machine(true);
    let cloud = one(SECURE_BOOT, &mut a).await;
    let standing = cloud.hub.member("a").unwrap().standing;
    assert_eq!(standing.state, AttestationState::Stale);
    assert_eq!(standing.code.as_deref(), Some("log_pending"));
    let mut agent = cloud.agent(&a).await;
    assert_eq!(code(&agent.pass(&mut a, "a").await), "");
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
}

#[tokio::test]
async fn a_boot_without_secure_boot_fails_and_people_learn_why() {
    let mut a = machine(false);
    let cloud = one(SECURE_BOOT, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(code(&outcome), "profile_secure_boot");
    assert_eq!(outcome.findings[0].code, "profile_secure_boot");
    assert_eq!(outcome.findings[0].pcr_plus_one, 8);
    assert_ne!(outcome.findings[0].event, "");
    assert_ne!(outcome.findings[0].advice, "");
    assert!(!outcome.findings[0].monitored);
    let since = outcome.findings[0].since;
    let (_, answer, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert!(answer.logs.unwrap().boot.is_none(), "the log is known");
    assert_eq!(outcome.findings[0].since, since, "since it was first seen");
    assert_ne!(outcome.findings[0].event, "");
    eventually(|| async {
        let row = cloud.hub.store.evidence("a", Which::Latest).await.unwrap();
        row.is_some_and(|row| {
            row.boot_log == a.boot_log
                && row.code.as_deref() == Some("profile_secure_boot")
                && row.secure_boot == Some(false)
                && row.findings[0].event == outcome.findings[0].event
        })
    })
    .await;
    assert!(
        cloud
            .recorded("attestation.failed", "profile_secure_boot")
            .await
    );
    let passed = cloud.hub.store.evidence("a", Which::Passed).await.unwrap();
    assert_eq!(passed, None);
}

#[tokio::test]
async fn a_log_that_is_missing_or_forged_fails_only_where_it_is_needed() {
    let forged = |machine: &mut Machine| {
        let other = BootLogBuilder::typical(true).grub_command("set superusers=nobody");
        machine.boot_log = Some(
            other
                .event(7, edgeward_evidence::boot_log::EventType::SEPARATOR, [0; 4])
                .build(),
        );
    };
    for (profile, failure) in [
        (SECURE_BOOT, true),
        ("tier = [\"listed\"]\npcr_bank = \"sha256\"\n", false),
    ] {
        let pcr = hex::encode(machine(true).tpm.pcrs[7]);
        let profile = match failure {
            true => profile.to_owned(),
            false => format!("{profile}pcr = {{ 7 = [\"sha256:{pcr}\"] }}\n"),
        };
        let mut a = machine(true);
        let log = a.boot_log.take();
        let cloud = one(&profile, &mut a).await;
        let mut agent = cloud.agent(&a).await;
        let outcome = agent.pass(&mut a, "a").await;
        assert_eq!(
            code(&outcome),
            if failure { "boot_log_missing" } else { "" }
        );
        forged(&mut a);
        let (challenge, _, outcome) = again(&cloud, &mut agent, &mut a).await;
        assert!(challenge.logs.unwrap().boot_known.is_empty());
        let found = &outcome.findings[0];
        assert_eq!(found.code, "boot_log_replay_mismatch");
        assert_eq!(
            (!code(&outcome).is_empty(), found.monitored),
            (failure, !failure)
        );
        // The right one ends it.
        a.boot_log = log;
        let (_, _, outcome) = again(&cloud, &mut agent, &mut a).await;
        assert_eq!(code(&outcome), "");
        assert!(outcome.findings.is_empty());
    }
}

#[tokio::test]
async fn what_is_known_is_left_out_and_a_steady_attestation_is_small() {
    use prost::Message;
    let mut a = machine(true);
    let mut list = a.ima.clone().unwrap();
    for _ in 0..1000 {
        list.add("/bin/sh", HashAlg::Sha256, &SHELL);
    }
    a.measure(list.clone());
    let profile = format!("{IMA}secure_boot = true\n");
    let cloud = one(&profile, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    assert_eq!(code(&agent.pass(&mut a, "a").await), "");
    let (challenge, answer, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert_eq!(code(&outcome), "");
    assert_eq!(challenge.logs.as_ref().unwrap().ima_known, 1001);
    let bytes = challenge.encoded_len() + answer.encoded_len() + outcome.encoded_len();
    assert!(bytes <= 2048, "{bytes} bytes");
    // One more file: one more entry.
    list.add("/bin/sh", HashAlg::Sha256, &SHELL);
    a.measure(list.clone());
    let (_, answer, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert_eq!(code(&outcome), "");
    let part = answer.logs.unwrap().ima.unwrap();
    assert!(part.first == 1001 && part.entries.len() < 200);
    eventually(|| async {
        let row = cloud.hub.store.evidence("a", Which::Passed).await.unwrap();
        row.is_some_and(|row| row.ima.as_ref() == Some(&list.bytes) && row.boot_log == a.boot_log)
    })
    .await;
}

#[tokio::test]
async fn a_long_list_comes_in_parts_and_counts_when_its_end_is_what_was_quoted() {
    let mut a = machine(true);
    let mut list = a.ima.clone().unwrap();
    for _ in 0..20 {
        list.add("/bin/sh", HashAlg::Sha256, &SHELL);
    }
    a.measure(list.clone());
    a.ima_limit = list.bytes.len() / 4;
    let cloud = one(IMA, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    let mut known = Vec::new();
    let outcome = loop {
        match agent.next().await.unwrap() {
            Body::Challenge(challenge) => {
                known.push(challenge.logs.as_ref().unwrap().ima_known);
                let answer = a.answer(&challenge, &agent.exporter, "a");
                agent.send(node_message::Body::Evidence(answer)).await;
            }
            Body::Outcome(outcome) => break outcome,
            _ => {}
        }
    };
    assert_eq!(code(&outcome), "");
    assert!(
        known.len() >= 4 && known.is_sorted() && known[0] == 0,
        "{known:?}"
    );
    eventually(|| async {
        let row = cloud.hub.store.evidence("a", Which::Passed).await.unwrap();
        row.is_some_and(|row| row.ima.as_ref() == Some(&list.bytes))
    })
    .await;
    // A part that brings nothing, with more to come.
    list.add("/bin/sh", HashAlg::Sha256, &SHELL);
    a.measure(list);
    cloud.hasten("a");
    let challenge = agent.challenge().await;
    let mut answer = a.answer(&challenge, &agent.exporter, "a");
    let part = answer.logs.as_mut().unwrap().ima.as_mut().unwrap();
    part.entries.clear();
    part.more = true;
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(code(&agent.outcome().await), "ima_replay_mismatch");
}

#[tokio::test]
async fn a_file_that_nobody_allowed_fails_the_node_until_it_reboots() {
    let mut a = machine(true);
    let cloud = one(IMA, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    assert_eq!(code(&agent.pass(&mut a, "a").await), "");
    let mut list = a.ima.clone().unwrap();
    list.add("/tmp/evil", HashAlg::Sha256, &[0xe7; 32]);
    a.measure(list.clone());
    let (_, _, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert_eq!(code(&outcome), "ima_file_not_allowed");
    // Saying nothing more about it does not help, and neither does a list without it.
    let (challenge, _, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert_eq!(challenge.logs.unwrap().ima_known, 2);
    assert_eq!(code(&outcome), "ima_file_not_allowed");
    assert_eq!(state(&cloud, "a"), AttestationState::Failed);
    a.ima = Some(ImaList::new());
    let challenge = {
        cloud.hasten("a");
        agent.challenge().await
    };
    let mut answer = a.answer(
        &v1::AttestChallenge {
            logs: Some(v1::LogsWanted {
                ima: true,
                boot: false,
                ..v1::LogsWanted::default()
            }),
            ..challenge
        },
        &agent.exporter,
        "a",
    );
    answer.logs.as_mut().unwrap().ima.as_mut().unwrap().first = 0;
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(code(&agent.outcome().await), "ima_not_continued");
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    a.tpm.reboot(true);
    a.boot_key = SoftwareKey::generate().unwrap();
    a.boot(&BootLogBuilder::typical(true));
    let mut agent = cloud.agent(&a).await;
    assert_eq!(code(&agent.pass(&mut a, "a").await), "");
}

#[tokio::test]
async fn after_a_boot_all_of_the_logs_is_needed_again() {
    let mut a = machine(true);
    let cloud = one(&format!("{IMA}secure_boot = true\n"), &mut a).await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    // A boot that the session outlives: what was known when it was asked is void, and all of it is asked for at once.
    a.tpm.reboot(true);
    cloud.hasten("a");
    let challenge = agent.challenge().await;
    assert!(!challenge.logs.as_ref().unwrap().boot_known.is_empty());
    let answer = a.answer(&challenge, &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    let challenge = agent.challenge().await;
    let wanted = challenge.logs.as_ref().unwrap();
    assert!(wanted.boot_known.is_empty() && wanted.ima_known == 0);
    assert!(challenge.pcrs_known.is_empty());
    // Left out all the same.
    let mut answer = a.answer(&challenge, &agent.exporter, "a");
    answer.logs = None;
    agent.send(node_message::Body::Evidence(answer)).await;
    let outcome = agent.outcome().await;
    assert_eq!(code(&outcome), "boot_log_missing");
    let codes: Vec<&str> = outcome
        .findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert!(codes.contains(&"ima_log_missing"), "{codes:?}");
    let (_, _, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert_eq!(code(&outcome), "");
}

#[tokio::test]
async fn a_profile_that_only_watches_says_so_everywhere_and_changes_nothing() {
    let mut a = machine(false);
    let pcr = hex::encode(a.tpm.pcrs[7]);
    let profile = format!(
        "tier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{pcr}\"] }}\n\
         [profile.watch]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\nsecure_boot = true\nmode = \"monitor\"\n\
         [group.watched]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"watch\"\n"
    );
    let cloud = one(&profile, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(code(&outcome), "");
    assert_eq!(state(&cloud, "a"), AttestationState::Trusted);
    assert_eq!(outcome.findings[0].code, "profile_secure_boot");
    assert!(outcome.findings[0].monitored);
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let expect = ResultExpect {
        trust_domain: &domain(),
        spiffe_id: &node("a"),
        svid_spki: &a.tpm.svid.public_key().spki_hash(),
        least_number: 0,
        now: now(),
    };
    let checked = check_result(&outcome.result, &keys, &expect).unwrap();
    assert_eq!(checked.result().would_fail(), ["profile_secure_boot"]);
    eventually(|| async {
        cloud.events().await.iter().any(|(kind, record)| {
            kind == "attestation.passed"
                && record.contains("\"would_fail\":\"profile_secure_boot\"")
        })
    })
    .await;
    eventually(|| async {
        let row = cloud.hub.store.attestation("a").await.unwrap().unwrap();
        row.findings.len() == 1 && row.findings[0].monitored
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_judged_by_what_was_asked_when_it_was_asked() {
    let mut a = machine(true);
    let cloud = one(SECURE_BOOT, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    // From now on PCR 10 is quoted, too: the answer that is under way knows nothing of that.
    let list = a.ima.clone().unwrap();
    cloud.policy_with(2, IMA, &lists());
    let answer = a.answer(&challenge, &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(code(&agent.outcome().await), "");
    a.measure(list);
    let challenge = agent.challenge().await;
    assert!(challenge.logs.as_ref().unwrap().ima);
    let answer = a.answer(&challenge, &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(code(&agent.outcome().await), "");
}

#[tokio::test]
async fn tpm_firmware_that_changed_is_told_once_and_also_after_a_restart_of_the_cloud() {
    let mut a = machine(true);
    let cloud = one(SECURE_BOOT, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    assert!(agent.pass(&mut a, "a").await.findings.is_empty());
    eventually(|| async {
        let row = cloud.hub.store.evidence("a", Which::Passed).await.unwrap();
        row.is_some_and(|row| row.firmware == a.tpm.firmware)
    })
    .await;
    drop(agent);
    let cloud = cloud.restart().await;
    cloud.policy(1, SECURE_BOOT);
    a.tpm.firmware += 1;
    let mut agent = cloud.agent(&a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(code(&outcome), "");
    assert_eq!(outcome.findings[0].code, "firmware_changed");
    assert!(outcome.findings[0].monitored);
    let (_, _, outcome) = again(&cloud, &mut agent, &mut a).await;
    assert!(outcome.findings.is_empty());
}

#[tokio::test]
async fn a_pass_that_says_what_the_one_before_said_writes_its_standing_and_nothing_else() {
    let mut a = machine(true);
    let cloud = one(SECURE_BOOT, &mut a).await;
    let mut agent = cloud.agent(&a).await;
    agent.pass(&mut a, "a").await;
    let taken = async || {
        let row = cloud.hub.store.evidence("a", Which::Latest).await.unwrap();
        row.map(|row| row.taken)
    };
    eventually(async || taken().await.is_some()).await;
    let first = taken().await;
    for _ in 0..3 {
        let (_, _, outcome) = again(&cloud, &mut agent, &mut a).await;
        assert_eq!(code(&outcome), "");
    }
    let last = cloud.hub.member("a").unwrap().standing.passed;
    eventually(|| async {
        let row = cloud.hub.store.attestation("a").await.unwrap().unwrap();
        row.passed == last
    })
    .await;
    assert_eq!(taken().await, first);
    let events = cloud.events().await;
    let passes = events
        .iter()
        .filter(|(kind, _)| kind == "attestation.passed");
    assert_eq!(passes.count(), 1);
}

#[tokio::test]
async fn a_bad_answer_is_a_cut_at_every_session() {
    let mut machines: Vec<Machine> = (0..8).map(|_| machine(true)).collect();
    let all: Vec<&Machine> = machines.iter().collect();
    let cloud = Cloud::start(&all).await;
    cloud.policy(1, SECURE_BOOT);
    cloud.token(|token| token.uses = 8).await;
    let mut agents = Vec::new();
    for (number, machine) in machines.iter_mut().enumerate() {
        let name = format!("n{number}");
        cloud.enrol(machine, "t1", &name).await.unwrap();
        let mut agent = cloud.agent(machine).await;
        agent.pass(machine, &name).await;
        agents.push(agent);
    }
    machines[0].tpm.pcrs[7] = [0xbd; 32];
    cloud.hasten("n0");
    let challenge = agents[0].challenge().await;
    let answer = machines[0].answer(&challenge, &agents[0].exporter, "n0");
    agents[0].send(node_message::Body::Evidence(answer)).await;
    for agent in &mut agents[1..] {
        let told = cut(agent, &cloud).await;
        assert_eq!((told.node, told.reason), (node("n0"), CutReason::Failed));
    }
    assert_eq!(code(&agents[0].outcome().await), "boot_log_other_boot");
}
