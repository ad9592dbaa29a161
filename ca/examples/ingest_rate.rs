//! Audit records per second that one cloud takes in: verified, deduplicated, appended, durable (SQLite, `synchronous=FULL`).
//!
//! `cargo run --release -p edgeward-ca --example ingest_rate -- [records per batch] [batches] [nodes at a time]`
#![expect(clippy::print_stdout, reason = "its purpose")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::event::{Actor, Event, EventKind, Subject};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salts};
use edgeward_ca::audit::AuditLog;
use edgeward_ca::keys::sites::SiteKeys;
use edgeward_ca::store::{Database, Store};
use edgeward_identity::{Clock, Kind, Signer, SoftwareKey, SpiffeId, SystemClock, TrustDomain};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| {
        numbers
            .next()
            .transpose()
            .map(|found| found.unwrap_or(default))
    };
    let (records, batches, nodes) = (next(400)?, next(50)?, next(4)?);
    let folder = std::env::temp_dir().join(format!("edgeward-ingest-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let store = Store::open(
        &Database::file(folder.join("store.db")),
        SiteKeys::temporary(),
    )
    .await?;
    let domain = TrustDomain::new("plant.example")?;
    let keeper = SpiffeId::new(&domain, Kind::Cloud, "c")?;
    let now = SystemClock.now();
    let (log, writer) = AuditLog::open(store, keeper, BootId::from_bytes([0; 16]), now).await?;
    tokio::spawn(writer.run(CancellationToken::new()));
    let log = Arc::new(log);
    let mut work = Vec::new();
    for node in 0..nodes {
        work.push(journal(&domain, node, records, batches)?);
    }
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for (key, batches) in work {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            for bytes in batches {
                let batch = Batch::parse(&bytes)?.verify(&key)?;
                log.ingest(batch, SystemClock.now()).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await.context("a task ended early")??;
    }
    let total = records * batches * nodes;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let rate = total as f64 / seconds;
    println!(
        "{total} records in {seconds:.2} s: {rate:.0}/s ({records} per batch, {nodes} nodes at a time)"
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The batches of one node as they come over the wire, and the key that signed them.
fn journal(
    domain: &TrustDomain,
    number: usize,
    records: usize,
    batches: usize,
) -> anyhow::Result<(edgeward_audit::batch::JournalKey, Vec<Vec<u8>>)> {
    let node = SpiffeId::new(domain, Kind::Node, &format!("n{number}"))?;
    let peer = SpiffeId::new(domain, Kind::Node, "peer")?;
    let mut boot = [1; 16];
    boot[0] = u8::try_from(number % 250)?;
    let boot = BootId::from_bytes(boot);
    let (svid, key) = (SoftwareKey::generate()?, SoftwareKey::generate()?);
    let now = SystemClock.now();
    let statement = JournalKeyStatement::sign(&svid, &node, boot, key.public_key(), now)?;
    let verified = statement.verify(&node, svid.public_key(), now)?;
    let mut chain = Chain::new(node.clone(), boot);
    let mut salts = Salts::from_seed([1; 32]);
    let mut made = Vec::new();
    for batch in 0..batches {
        let mut sealed = Vec::new();
        for index in 0..records {
            let opens = batch == 0 && index == 0;
            let kind = if opens {
                EventKind::JournalOpened
            } else {
                EventKind::FlowAllowed
            };
            let event = Event::new(now, Actor::Identity(node.clone()), kind)
                .subject(Subject::Identity(peer.clone()))
                .rule("scada-reads")
                .detail("interface", "line3/modbus")
                .detail("flows", index);
            let record = match opens {
                true => chain.seal_opening(
                    BootOpened {
                        previous: None,
                        reset_count: None,
                        restart_count: None,
                    },
                    event,
                    salts.draw(),
                )?,
                false => chain.seal(event, salts.draw())?,
            };
            chain.advance(&record)?;
            sealed.push(record.bytes().to_vec());
        }
        made.push(Batch::sign(&statement, &key, sealed)?.to_bytes());
    }
    Ok((verified, made))
}
