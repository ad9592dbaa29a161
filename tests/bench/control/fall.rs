//! Falls: from the moment that a machine sends evidence which is not as its profile says, until every other session has
//! the cut. What agents then do with it is measured with real ones (`control-live fall`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_wire::v1::cloud_message::Body;
use tokio::sync::mpsc;

use super::attest::{enrol_all, one};
use super::machine::{Enrolled, Machine, Session};
use super::server::{Server, Setup};
use super::{Options, spread};

/// How long all falls may take: a challenge comes to each machine within 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// What happened, as machines saw it.
enum Seen {
    Fell(String, Instant),
    Cut(String, Instant),
}

/// Machines that fall are one for each second of `options.each`; sessions that hear of it are `options.nodes`.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let falls = usize::try_from(options.each.as_secs())?;
    let machines = Machine::many(options.nodes + falls, options.logs)?;
    let setup = Setup {
        database: options.database.as_deref(),
        attest_interval: "20s",
        attest_jitter: "10s",
    };
    let server = Server::start(setup, &machines)?;
    let mut fleet = enrol_all(&server, machines).await?;
    let fallers = fleet.split_off(options.nodes);
    let (says, mut heard) = mpsc::unbounded_channel();
    let mut sessions = tokio::task::JoinSet::new();
    for (mut machine, node) in fleet {
        let session = machine.attach(server.address, &node).await?;
        let says = says.clone();
        sessions.spawn(async move { watch(&mut machine, &node, session, &says).await });
    }
    for (machine, node) in fallers {
        let session = machine.attach(server.address, &node).await?;
        let says = says.clone();
        sessions.spawn(fall(machine, node, session, says));
    }
    let expected = falls * (options.nodes + 1);
    let (mut fell, mut cuts) = (HashMap::new(), Vec::new());
    while fell.len() + cuts.len() < expected {
        match tokio::time::timeout(PATIENCE, heard.recv()).await {
            Ok(Some(Seen::Fell(node, at))) => drop(fell.insert(node, at)),
            Ok(Some(Seen::Cut(node, at))) => cuts.push((node, at)),
            _ => anyhow::bail!("{} of {expected} heard", fell.len() + cuts.len()),
        }
    }
    let (mut all, mut last) = (Vec::new(), HashMap::<String, Duration>::new());
    for (node, at) in cuts {
        let begun = fell
            .get(&node)
            .context("a cut of a node that did not fall")?;
        let took = at.saturating_duration_since(*begun);
        all.push(took);
        let latest = last.entry(node).or_default();
        *latest = took.max(*latest);
    }
    spread::print(
        &format!(
            "bad evidence to cut at a session, {} sessions",
            options.nodes
        ),
        all,
    );
    spread::print(
        "bad evidence to cut at the last session",
        last.into_values().collect(),
    );
    println!("cloud rss: {:.1} MiB", server.rss_mib()?);
    sessions.shutdown().await;
    Ok(())
}

/// Passes once; the next evidence is bad.
async fn fall(
    mut machine: Machine,
    node: Enrolled,
    mut session: Session,
    says: mpsc::UnboundedSender<Seen>,
) -> anyhow::Result<()> {
    one(&mut machine, &node, &mut session).await?;
    machine.turn_bad();
    let mut told = false;
    loop {
        if let Body::Challenge(challenge) = session.next().await? {
            let answer = machine.answer(&node, &session, &challenge)?;
            let begun = Instant::now();
            session.send(answer).await?;
            if !std::mem::replace(&mut told, true) {
                says.send(Seen::Fell(node.id.to_string(), begun))?;
            }
        }
    }
}

/// Answers challenges, and says when a cut came.
async fn watch(
    machine: &mut Machine,
    node: &Enrolled,
    mut session: Session,
    says: &mpsc::UnboundedSender<Seen>,
) -> anyhow::Result<()> {
    loop {
        match session.next().await? {
            Body::Challenge(challenge) => {
                let answer = machine.answer(node, &session, &challenge)?;
                session.send(answer).await?;
            }
            Body::Cut(bytes) => {
                let at = Instant::now();
                says.send(Seen::Cut(node_of(&bytes)?, at))?;
            }
            _ => {}
        }
    }
}

/// Whom a cut names. What agents check about it first is not what is measured here.
fn node_of(cut: &[u8]) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(cut);
    let (_, rest) = text.split_once("\"node\":\"").context("a cut of nobody")?;
    let (node, _) = rest.split_once('"').context("a cut of nobody")?;
    Ok(node.to_owned())
}
