//! The log of applications over the session: what runs is what a TPM vouches for.

use edgeward_evidence::app_log::{App, AppLog, Event, Happened};
use edgeward_evidence::testing::BootLogBuilder;

use super::*;
use crate::attest::HASTENED_EVERY;

/// Far less than the interval between two challenges.
const SOON: std::time::Duration = std::time::Duration::from_secs(20);
const APPS: &str =
    "tier = [\"listed\"]\npcr_bank = \"sha256\"\nsecure_boot = true\napps_pcr = 14\n";
const PCR: usize = 14;

/// A machine that booted and has measured no application yet.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.boot(&BootLogBuilder::typical(true));
    machine.apps = Some((AppLog::default(), machine.tpm.pcrs[PCR]));
    machine
}

impl Machine {
    fn happens(&mut self, happened: Happened) {
        let event = Event {
            happened,
            level: "fanotify".to_owned(),
        };
        let (log, start) = self.apps.as_mut().unwrap();
        log.append(14, &event).unwrap();
        self.tpm.pcrs[PCR] = log.replay(*start);
    }
}

fn app(version: &str) -> App {
    App {
        publisher: "acme".to_owned(),
        name: "collector".to_owned(),
        version: version.to_owned(),
        digest: "ab".repeat(32),
    }
}

async fn one(machine: &mut Machine) -> (Cloud, Agent) {
    let cloud = Cloud::start(&[machine]).await;
    cloud.policy_with(1, APPS, &[]);
    cloud.token(|_| {}).await;
    cloud.enrol(machine, "t1", "a").await.unwrap();
    let agent = cloud.agent(machine).await;
    (cloud, agent)
}

/// What the result says that runs, or the code of the refusal.
fn said(outcome: &v1::AttestOutcome) -> Result<serde_json::Value, String> {
    use base64::Engine as _;
    if let Some(refused) = &outcome.refused {
        return Err(refused.code.clone());
    }
    let claims = outcome.result.split(|byte| *byte == b'.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    Ok(claims["edgeward.runs"].clone())
}

#[tokio::test]
async fn an_agent_that_sends_no_log_fails_a_profile_that_names_its_pcr() {
    let mut a = machine();
    a.apps = None;
    let (_cloud, mut agent) = one(&mut a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(said(&outcome), Err("apps_log_missing".to_owned()));
    assert_eq!(outcome.findings[0].pcr_plus_one, 15);
}

#[tokio::test]
async fn a_log_is_followed_by_its_new_records_and_the_result_says_what_runs() {
    let mut a = machine();
    let (cloud, mut agent) = one(&mut a).await;
    let outcome = agent.pass(&mut a, "a").await;
    assert_eq!(said(&outcome), Ok(serde_json::json!({})));
    a.happens(Happened::Started(app("2.3.1")));
    let (_, _, outcome) = logs::again(&cloud, &mut agent, &mut a).await;
    let runs = serde_json::json!({ "acme/collector": "2.3.1" });
    assert_eq!(said(&outcome), Ok(runs));
    a.happens(Happened::Revoked(app("2.3.1")));
    let (challenge, answer, outcome) = logs::again(&cloud, &mut agent, &mut a).await;
    assert_eq!(said(&outcome), Ok(serde_json::json!({})));
    // One record was known, and one came.
    let wanted = challenge.logs.unwrap();
    assert_eq!((wanted.apps_pcr_plus_one, wanted.apps_known), (15, 1));
    let (log, _) = a.apps.as_ref().unwrap();
    assert!(answer.logs.unwrap().apps.unwrap().records.len() < log.bytes().len());
}

/// Root on the node may write what it likes: the PCR does not follow.
#[tokio::test]
async fn a_denial_that_is_left_out_or_a_start_that_is_made_up_fails_the_node() {
    for forge in [true, false] {
        let mut a = machine();
        let (cloud, mut agent) = one(&mut a).await;
        a.happens(Happened::Started(app("2.3.1")));
        assert!(said(&agent.pass(&mut a, "a").await).is_ok());
        let value = a.tpm.pcrs[PCR];
        let (kept, start) = a.apps.clone().unwrap();
        a.happens(match forge {
            true => Happened::Started(app("9.9.9")),
            false => Happened::Denied {
                digest: "cd".repeat(32),
            },
        });
        match forge {
            // Said, and not extended.
            true => a.tpm.pcrs[PCR] = value,
            // Extended, and not said.
            false => a.apps = Some((kept, start)),
        }
        let (_, _, outcome) = logs::again(&cloud, &mut agent, &mut a).await;
        match forge {
            // The quote stands before it, so it is not read.
            true => assert_eq!(
                said(&outcome),
                Ok(serde_json::json!({ "acme/collector": "2.3.1" }))
            ),
            false => assert_eq!(said(&outcome), Err("apps_log_replay".to_owned())),
        }
    }
}

#[tokio::test]
async fn after_a_reboot_the_log_begins_anew_from_what_that_boot_left() {
    let mut a = machine();
    let (cloud, mut agent) = one(&mut a).await;
    a.happens(Happened::Started(app("2.3.1")));
    assert!(said(&agent.pass(&mut a, "a").await).is_ok());
    a.tpm.clock.reset_count += 1;
    // Something that the boot measures there, too, as shim does.
    a.boot(&BootLogBuilder::typical(true).event(
        14,
        edgeward_evidence::boot_log::EventType::IPL,
        "MokList",
    ));
    a.apps = Some((AppLog::default(), a.tpm.pcrs[PCR]));
    a.happens(Happened::Started(app("2.4.0")));
    cloud.hasten("a");
    // What the challenge named as known was of the boot before: all is asked for once more, at once.
    let challenge = agent.challenge().await;
    let answer = a.answer(&challenge, &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    let outcome = agent.pass(&mut a, "a").await;
    let runs = serde_json::json!({ "acme/collector": "2.4.0" });
    assert_eq!(said(&outcome), Ok(runs));
}

/// Of what the node says that it runs.
fn status(measured: u64) -> node_message::Body {
    node_message::Body::Status(v1::NodeStatus {
        apps: Some(v1::AppsState {
            measured,
            ..v1::AppsState::default()
        }),
        ..v1::NodeStatus::default()
    })
}

#[tokio::test]
async fn what_begins_or_ends_to_run_is_asked_about_at_once() {
    let mut a = machine();
    let (_cloud, mut agent) = one(&mut a).await;
    assert!(said(&agent.pass(&mut a, "a").await).is_ok());
    // The next question would come in a minute.
    for (measured, happened, runs) in [
        (
            1,
            Happened::Started(app("2.3.1")),
            serde_json::json!({ "acme/collector": "2.3.1" }),
        ),
        (2, Happened::Revoked(app("2.3.1")), serde_json::json!({})),
    ] {
        a.happens(happened);
        agent.send(status(measured)).await;
        let challenge = tokio::time::timeout(SOON, agent.challenge()).await.unwrap();
        let answer = a.answer(&challenge, &agent.exporter, "a");
        agent.send(node_message::Body::Evidence(answer)).await;
        assert_eq!(said(&agent.outcome().await), Ok(runs));
    }
}

#[tokio::test]
async fn after_a_reboot_what_begins_to_run_is_asked_about_though_the_boot_before_had_more_to_say() {
    let mut a = machine();
    let (cloud, mut agent) = one(&mut a).await;
    for happened in [
        Happened::Started(app("2.3.1")),
        Happened::Revoked(app("2.3.1")),
    ] {
        a.happens(happened);
    }
    assert!(said(&agent.pass(&mut a, "a").await).is_ok());
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    a.tpm.clock.reset_count += 1;
    a.boot_key = SoftwareKey::generate().unwrap();
    a.boot(&BootLogBuilder::typical(true));
    a.apps = Some((AppLog::default(), a.tpm.pcrs[PCR]));
    let mut agent = cloud.agent(&a).await;
    let challenge = agent.challenge().await;
    let answer = a.answer(&challenge, &agent.exporter, "a");
    // Said before the evidence of this boot comes, which does not know of it yet.
    a.happens(Happened::Started(app("2.4.0")));
    agent.send(status(1)).await;
    agent.send(node_message::Body::Evidence(answer)).await;
    assert_eq!(said(&agent.outcome().await), Ok(serde_json::json!({})));
    let challenge = tokio::time::timeout(SOON, agent.challenge()).await;
    let answer = a.answer(&challenge.expect("it is asked"), &agent.exporter, "a");
    agent.send(node_message::Body::Evidence(answer)).await;
    let runs = serde_json::json!({ "acme/collector": "2.4.0" });
    assert_eq!(said(&agent.outcome().await), Ok(runs));
}

#[tokio::test]
async fn nobody_is_asked_because_of_what_evidence_shows_already() {
    let mut a = machine();
    let (_cloud, mut agent) = one(&mut a).await;
    a.happens(Happened::Started(app("2.3.1")));
    assert!(said(&agent.pass(&mut a, "a").await).is_ok());
    for measured in [0, 1, 1, 0] {
        agent.send(status(measured)).await;
    }
    let quiet = tokio::time::timeout(HASTENED_EVERY * 2, agent.challenge());
    assert!(quiet.await.is_err());
}

/// However often it says that there is more, the cloud verifies one answer a second.
#[tokio::test]
async fn a_node_that_goes_on_about_what_it_runs_is_asked_once_a_second() {
    let mut a = machine();
    let (_cloud, mut agent) = one(&mut a).await;
    assert!(said(&agent.pass(&mut a, "a").await).is_ok());
    let begun = std::time::Instant::now();
    let mut asked = 0;
    for measured in 1..=20_u64 {
        agent.send(status(measured)).await;
        let wait = tokio::time::timeout(HASTENED_EVERY / 8, agent.challenge());
        let Ok(challenge) = wait.await else {
            continue;
        };
        asked += 1;
        let answer = a.answer(&challenge, &agent.exporter, "a");
        agent.send(node_message::Body::Evidence(answer)).await;
    }
    let most = u32::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!(
        (1..=most).contains(&asked),
        "{asked} in {:?}",
        begun.elapsed()
    );
}
