//! Attestations through the session service: challenges as often as a cloud may be configured to send them, each answered
//! with a quote, verified, appraised against the profile (a PCR, Secure Boot, files), answered with a signed result, stored.
//! Whole logs come with the first answer, afterwards only what is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgeward_wire::v1::cloud_message::Body;
use edgeward_wire::v1::node_message;
use prost::Message as _;

use super::machine::{Enrolled, Machine, Session};
use super::server::{Server, Setup};
use super::{Options, Span};

/// One attestation as its machine saw it.
#[derive(Clone, Copy, Debug)]
pub struct Attested {
    /// Of challenge, evidence and outcome together.
    pub bytes: usize,
    /// From the evidence to its outcome.
    pub took: Duration,
}

/// Enrolments at the same time while the fleet is set up.
const AT_ONCE: usize = 16;

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let machines = Machine::many(options.nodes, options.logs)?;
    let setup = Setup {
        database: options.database.as_deref(),
        attest_interval: "1s",
        attest_jitter: "500ms",
    };
    let server = Server::start(setup, &machines)?;
    println!("cloud rss with no node: {:.1} MiB", server.rss_mib()?);
    let fleet = enrol_all(&server, machines).await?;
    println!(
        "cloud rss with {} nodes enrolled: {:.1} MiB",
        fleet.len(),
        server.rss_mib()?
    );
    let passed = Arc::new(AtomicU64::new(0));
    let mut sessions = tokio::task::JoinSet::new();
    for (mut machine, node) in fleet {
        let mut session = machine.attach(server.address, &node).await?;
        let passed = passed.clone();
        sessions.spawn(async move {
            loop {
                one(&mut machine, &node, &mut session).await?;
                passed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Everybody has a session and the first pass; from here on it is the steady state.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let span = Span::begin(&server)?;
    let before = passed.load(Ordering::Relaxed);
    tokio::time::sleep(options.each).await;
    let count = passed.load(Ordering::Relaxed) - before;
    span.print(
        &server,
        &format!("attestations, {} sessions", options.nodes),
        count,
    )?;
    println!(
        "cloud rss with {} sessions: {:.1} MiB",
        options.nodes,
        server.rss_mib()?
    );
    if let Some(ended) = sessions.try_join_next() {
        let result: anyhow::Result<()> = ended?;
        return result;
    }
    sessions.shutdown().await;
    Ok(())
}

/// Waits for a challenge, answers it, and sees that it passed.
pub async fn one(
    machine: &mut Machine,
    node: &Enrolled,
    session: &mut Session,
) -> anyhow::Result<Attested> {
    let mut bytes = 0;
    let mut sent = Instant::now();
    loop {
        match session.next().await? {
            Body::Challenge(challenge) => {
                let answer = machine.answer(node, session, &challenge)?;
                if let node_message::Body::Evidence(evidence) = &answer {
                    bytes += challenge.encoded_len() + evidence.encoded_len();
                }
                sent = Instant::now();
                session.send(answer).await?;
            }
            Body::Outcome(outcome) => {
                bytes += outcome.encoded_len();
                if let Some(refused) = outcome.refused {
                    anyhow::bail!("refused: {}", refused.code);
                }
                anyhow::ensure!(!outcome.result.is_empty(), "no result");
                return Ok(Attested {
                    bytes,
                    took: sent.elapsed(),
                });
            }
            _ => {}
        }
    }
}

/// Enrols machines, [`AT_ONCE`] at the same time.
pub async fn enrol_all(
    server: &Server,
    machines: Vec<Machine>,
) -> anyhow::Result<Vec<(Machine, Enrolled)>> {
    let token = Arc::new(server.token()?);
    let permits = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut all = tokio::task::JoinSet::new();
    for mut machine in machines {
        let (token, permits, address) = (token.clone(), permits.clone(), server.address);
        all.spawn(async move {
            let _permit = permits.acquire().await?;
            let node = machine.enrol(address, &token).await?;
            Ok::<_, anyhow::Error>((machine, node))
        });
    }
    let mut fleet = Vec::new();
    while let Some(done) = all.join_next().await {
        fleet.push(done??);
    }
    Ok(fleet)
}
