//! The journal's side of a session: coverage, heads, what is missing.

use edgeward_audit::Digest;
use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::record::{Salt, SealedRecord};
use edgeward_audit::statement::{HeadStated, LossStated, Signed};
use edgeward_audit::watch::{LogKey, Shown};
use edgeward_identity::SignedObject;
use edgeward_identity::signed::{EVERYBODY, Expect};

use super::*;

const SALT: Salt = Salt::from_bytes([7; 16]);
const BOOT: BootId = BootId::from_bytes([7; 16]);

/// A journal of node `a`, of `count` records.
fn records(count: usize, kind: EventKind) -> Vec<SealedRecord> {
    let mut chain = Chain::new(node("a"), BOOT);
    let opened = BootOpened {
        previous: None,
        reset_count: Some(7),
        restart_count: Some(0),
    };
    let event = |kind| Event::new(now(), node("a"), kind);
    let mut records = vec![
        chain
            .seal_opening(opened, event(EventKind::JournalOpened), SALT)
            .unwrap(),
    ];
    for _ in 0..count {
        chain.advance(records.last().unwrap()).unwrap();
        if records.len() < count {
            records.push(chain.seal(event(kind), SALT).unwrap());
        }
    }
    records
}

fn batch(machine: &Machine, records: &[SealedRecord]) -> node_message::Body {
    let key = &machine.boot_key;
    let statement =
        JournalKeyStatement::sign(&machine.tpm.svid, &node("a"), BOOT, key.public_key(), now())
            .unwrap();
    let records = records.iter().map(|record| record.bytes().to_vec());
    let batch = Batch::sign(&statement, key, records.collect()).unwrap();
    node_message::Body::Audit(v1::AuditBatch {
        batch: batch.to_bytes(),
    })
}

fn head(machine: &Machine, record: &SealedRecord, answers: u64) -> Vec<u8> {
    let stated = HeadStated {
        boot: BOOT,
        head: record.head(),
        oldest: BOOT,
        answers,
    };
    Signed::sign(stated, &node("a"), &machine.boot_key)
        .unwrap()
        .to_bytes()
}

async fn acknowledged(agent: &mut Agent) -> (String, u64) {
    let answer = agent.until(|body| match body {
        Body::Audit(answer) => Some((answer.refused_code, answer.next_seq)),
        _ => None,
    });
    answer.await.unwrap()
}

async fn covered(agent: &mut Agent) -> v1::AuditCovered {
    let covered = agent.until(|body| match body {
        Body::AuditCovered(covered) => Some(covered),
        _ => None,
    });
    covered.await.unwrap()
}

/// A session that says this end of its journal in its Hello.
async fn attached(cloud: &Cloud, machine: &Machine, journal_head: Vec<u8>) -> Agent {
    let mut agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        journal_head,
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    welcome(&mut agent).await;
    agent
}

#[tokio::test]
async fn records_are_acknowledged_when_stored_and_again_when_covered_also_in_the_next_session() {
    let (cloud, a, _b) = two("").await;
    let mut agent = attached(&cloud, &a, Vec::new()).await;
    let records = records(5, EventKind::FlowDenied);
    agent.send(batch(&a, &records)).await;
    assert_eq!(acknowledged(&mut agent).await, (String::new(), 5));
    let told = covered(&mut agent).await;
    assert_eq!(
        (told.boot_id.as_slice(), told.next_seq),
        (&BOOT.as_bytes()[..], 5)
    );
    assert_eq!(told.hash, records[4].hash().as_bytes());
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    // The word may have been lost with the session.
    let mut agent = attached(&cloud, &a, head(&a, &records[4], 0)).await;
    assert_eq!(covered(&mut agent).await, told);
}

/// A session whose agent has seen so much of the log.
async fn seeing(cloud: &Cloud, machine: &Machine, log_size: u64, end: &SealedRecord) -> Agent {
    let mut agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        journal_head: head(machine, end, 0),
        log_size: Some(log_size),
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    welcome(&mut agent).await;
    agent
}

/// As the agent does.
fn checked(
    cloud: &Cloud,
    seen: Option<&Checkpoint>,
    told: &v1::AuditCovered,
    own: &SealedRecord,
) -> Checkpoint {
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let expect = Expect {
        purpose: Purpose::Log,
        trust_domain: cloud.hub.keys.trust_domain(),
        audience: EVERYBODY,
        least_number: 0,
        now: now(),
    };
    let key: LogKey = SignedObject::parse(&told.log_key)
        .unwrap()
        .open_json(&keys, &expect)
        .unwrap();
    let consistency: Vec<Digest> = told
        .consistency
        .iter()
        .map(|hash| Digest::try_from(hash.as_slice()).unwrap())
        .collect();
    let proof = LogProof::parse(&told.proof).unwrap();
    let shown = Shown {
        proof: &proof,
        from: told.from,
        consistency: &consistency,
    };
    let log = key.watch().unwrap();
    log.check(seen, shown, Some(&own.hash())).unwrap()
}

#[tokio::test]
async fn what_is_covered_is_proven_and_the_log_continues_what_the_node_saw() {
    let (cloud, a, _b) = two("").await;
    let records = records(9, EventKind::FlowDenied);
    let mut agent = seeing(&cloud, &a, 0, &records[8]).await;
    agent.send(batch(&a, &records[..5])).await;
    acknowledged(&mut agent).await;
    let told = covered(&mut agent).await;
    assert_eq!((told.next_seq, told.from), (5, 0));
    let first = checked(&cloud, None, &told, &records[4]);
    agent.send(batch(&a, &records[5..])).await;
    acknowledged(&mut agent).await;
    let told = covered(&mut agent).await;
    // The key is told once a session.
    assert_eq!((told.from, told.log_key.is_empty()), (first.size, true));
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = seeing(&cloud, &a, first.size, &records[8]).await;
    let told = covered(&mut agent).await;
    assert_eq!((told.next_seq, told.from), (9, first.size));
    let second = checked(&cloud, Some(&first), &told, &records[8]);
    assert!(second.size > first.size);
}

#[tokio::test]
async fn a_word_that_the_node_did_not_accept_is_told_again_from_what_it_knows() {
    let (cloud, a, _b) = two("").await;
    let records = records(9, EventKind::FlowDenied);
    let mut agent = seeing(&cloud, &a, 0, &records[8]).await;
    agent.send(batch(&a, &records[..5])).await;
    acknowledged(&mut agent).await;
    let refused = covered(&mut agent).await;
    assert!(!refused.log_key.is_empty());
    let not_shown = |log_size| node_message::Body::AuditNotShown(v1::AuditNotShown { log_size });
    // It could not be read, say: the key is told again, and all that comes is led to from nothing.
    agent.send(not_shown(0)).await;
    let told = covered(&mut agent).await;
    assert_eq!((told.next_seq, told.from), (5, 0));
    let seen = checked(&cloud, None, &told, &records[4]);
    agent.send(batch(&a, &records[5..])).await;
    acknowledged(&mut agent).await;
    let lost = covered(&mut agent).await;
    assert_eq!((lost.next_seq, lost.from), (9, seen.size));
    agent.send(not_shown(seen.size)).await;
    let told = covered(&mut agent).await;
    assert_eq!((told.next_seq, told.from), (9, seen.size));
    checked(&cloud, Some(&seen), &told, &records[8]);
}

#[tokio::test]
async fn a_node_that_has_seen_more_of_the_log_is_told_nothing() {
    let (cloud, a, _b) = two("").await;
    let records = records(5, EventKind::FlowDenied);
    let mut agent = seeing(&cloud, &a, 1_000_000, &records[4]).await;
    agent.send(batch(&a, &records)).await;
    acknowledged(&mut agent).await;
    let told = tokio::time::timeout(Duration::from_secs(5), covered(&mut agent));
    assert!(told.await.is_err(), "nothing continues what is not there");
}

#[tokio::test]
async fn an_end_before_what_is_stored_is_an_alarm_in_the_first_message() {
    let (cloud, a, _b) = two("").await;
    let records = records(5, EventKind::FlowDenied);
    let mut agent = attached(&cloud, &a, head(&a, &records[0], 0)).await;
    agent.send(batch(&a, &records)).await;
    acknowledged(&mut agent).await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let _agent = attached(&cloud, &a, head(&a, &records[2], 0)).await;
    eventually(|| async { cloud.recorded("journal.forked", "audit_head_behind").await }).await;
}

#[tokio::test]
async fn another_end_than_the_stored_one_is_an_alarm_that_names_its_proof() {
    let (cloud, a, _b) = two("").await;
    let ours = records(5, EventKind::FlowDenied);
    let theirs = records(5, EventKind::FlowAllowed);
    let mut agent = attached(&cloud, &a, Vec::new()).await;
    agent.send(batch(&a, &ours)).await;
    acknowledged(&mut agent).await;
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let _agent = attached(&cloud, &a, head(&a, &theirs[4], 0)).await;
    eventually(|| async { cloud.recorded("journal.forked", "audit_equivocation").await }).await;
}

#[tokio::test]
async fn an_end_that_the_boot_key_did_not_sign_says_nothing_and_is_on_record() {
    let (cloud, a, b) = two("").await;
    let records = records(5, EventKind::FlowDenied);
    for (said, code) in [
        (head(&b, &records[4], 0), "journal_statement_signature"),
        (vec![1; 40], "journal_statement_malformed"),
        (vec![1; 4_000], "journal_statement_malformed"),
    ] {
        let agent = attached(&cloud, &a, said).await;
        eventually(|| async { cloud.recorded("journal.refused", code).await }).await;
        drop(agent);
        eventually(|| async { !cloud.hub.is_attached("a") }).await;
    }
}

#[tokio::test]
async fn what_is_missing_is_asked_for_when_the_session_begins_and_given_up_at_the_nodes_word() {
    let (cloud, a, _b) = two("").await;
    let records = records(9, EventKind::FlowDenied);
    let mut agent = attached(&cloud, &a, Vec::new()).await;
    agent.send(batch(&a, &records[..3])).await;
    acknowledged(&mut agent).await;
    agent.send(batch(&a, &records[5..])).await;
    assert_eq!(acknowledged(&mut agent).await, ("audit_gap".to_owned(), 3));
    drop(agent);
    eventually(|| async { !cloud.hub.is_attached("a") }).await;
    let mut agent = attached(&cloud, &a, head(&a, &records[8], 0)).await;
    let wanted = agent.until(|body| match body {
        Body::JournalWanted(wanted) => Some((wanted.boot_id, wanted.first_seq, wanted.last_seq)),
        _ => None,
    });
    assert_eq!(wanted.await, Some((BOOT.as_bytes().to_vec(), 3, 4)));
    let stated = LossStated {
        boot: BOOT,
        first_seq: 3,
        last_seq: 4,
    };
    let loss = Signed::sign(stated, &node("a"), &a.boot_key)
        .unwrap()
        .to_bytes();
    agent
        .send(node_message::Body::JournalLoss(v1::JournalLoss { loss }))
        .await;
    agent.send(batch(&a, &records[5..])).await;
    assert_eq!(acknowledged(&mut agent).await, (String::new(), 9));
    assert!(cloud.recorded("journal.gap", "audit_gap_lost").await);
}
