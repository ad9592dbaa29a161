//! Simulated machines with sessions on a cloud that somebody else started: the company for measurements with real agents.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edgeward_wire::token::BootstrapToken;

use super::Options;
use super::attest::one;
use super::machine::Machine;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Machines that enrol at once.
const PLACES: usize = 8;

/// Writes `listed` (digests of EKs to be listed) into the folder, waits for `token` in it, enrols, attaches, writes
/// `attached`, and answers challenges until it is ended.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let address = options.address.context("--address")?;
    let (machines, token) = gather(options).await?;
    let mut sessions = tokio::task::JoinSet::new();
    let ready = Arc::new(tokio::sync::Semaphore::new(0));
    let places = Arc::new(tokio::sync::Semaphore::new(PLACES));
    for machine in machines {
        let (token, ready, places) = (token.clone(), ready.clone(), places.clone());
        sessions.spawn(async move { member(machine, address, &token, &ready, &places).await });
    }
    let all = u32::try_from(options.nodes)?;
    tokio::select! {
        permits = ready.acquire_many(all) => drop(permits?),
        Some(ended) = sessions.join_next() => return ended?,
    }
    write(&options.folder, "attached")?;
    match sessions.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

/// As [`run`], but they only enrol: `attached` says that all have.
pub async fn join(options: &Options) -> anyhow::Result<()> {
    let address = options.address.context("--address")?;
    let (machines, token) = gather(options).await?;
    let places = Arc::new(tokio::sync::Semaphore::new(PLACES));
    let mut joining = tokio::task::JoinSet::new();
    for mut machine in machines {
        let (token, places) = (token.clone(), places.clone());
        joining.spawn(async move {
            let _place = places.acquire().await?;
            machine.enrol(address, &token).await.map(|_| ())
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    write(&options.folder, "attached")
}

async fn gather(options: &Options) -> anyhow::Result<(Vec<Machine>, Arc<BootstrapToken>)> {
    let machines = Machine::many(options.nodes, options.logs)?;
    let listed: Vec<String> = machines.iter().map(Machine::ek_digest).collect();
    std::fs::write(options.folder.join("listed"), listed.join("\n"))?;
    let token = options.folder.join("token");
    while !token.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let token = BootstrapToken::parse(std::fs::read_to_string(token)?.trim())?;
    Ok((machines, Arc::new(token)))
}

async fn member(
    mut machine: Machine,
    address: SocketAddr,
    token: &BootstrapToken,
    ready: &tokio::sync::Semaphore,
    places: &tokio::sync::Semaphore,
) -> anyhow::Result<()> {
    let (node, mut session) = {
        let _place = places.acquire().await?;
        let node = machine.enrol(address, token).await?;
        let session = machine.attach(address, &node).await?;
        (node, session)
    };
    one(&mut machine, &node, &mut session).await?;
    ready.add_permits(1);
    loop {
        one(&mut machine, &node, &mut session).await?;
    }
}

fn write(folder: &Path, name: &str) -> anyhow::Result<()> {
    Ok(std::fs::write(folder.join(name), "")?)
}
