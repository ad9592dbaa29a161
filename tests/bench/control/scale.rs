//! A large fleet in its steady state: every machine has a session and attests about once a minute.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::attest::{enrol_all, one};
use super::machine::Machine;
use super::server::{Server, Setup};
use super::{Options, Span, spread};

/// Over how long sessions are opened, so that their challenges are spread as those of a fleet are.
const OPENING: Duration = Duration::from_secs(60);
/// After the last session opened: its first answer, and quiet.
const SETTLING: Duration = Duration::from_secs(15);

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let machines = Machine::many(options.nodes, options.logs)?;
    let setup = Setup {
        database: options.database.as_deref(),
        attest_interval: "60s",
        attest_jitter: "10s",
    };
    let server = Server::start(setup, &machines)?;
    let begun = Instant::now();
    let fleet = enrol_all(&server, machines).await?;
    println!(
        "{} machines enrolled in {:.0} s; cloud rss {:.1} MiB",
        fleet.len(),
        begun.elapsed().as_secs_f64(),
        server.rss_mib()?
    );
    let (passed, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let took = Arc::new(Mutex::new(Vec::new()));
    let mut sessions = tokio::task::JoinSet::new();
    let pause = OPENING / u32::try_from(fleet.len())?;
    let begun = Instant::now();
    for (number, (mut machine, node)) in (0_u32..).zip(fleet) {
        tokio::time::sleep((pause * number).saturating_sub(begun.elapsed())).await;
        let (address, passed, bytes, took) =
            (server.address, passed.clone(), bytes.clone(), took.clone());
        sessions.spawn(async move {
            let mut session = machine.attach(address, &node).await?;
            loop {
                let attested = one(&mut machine, &node, &mut session).await?;
                passed.fetch_add(1, Ordering::Relaxed);
                bytes.fetch_add(attested.bytes, Ordering::Relaxed);
                took.lock()
                    .map_err(|_| anyhow::anyhow!("poisoned"))?
                    .push(attested.took);
            }
        });
    }
    println!("sessions opened in {:.0} s", begun.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLING).await;
    println!(
        "{} first attestations with whole logs; cloud rss {:.1} MiB",
        passed.swap(0, Ordering::Relaxed),
        server.rss_mib()?
    );
    bytes.store(0, Ordering::Relaxed);
    let taken = || {
        took.lock()
            .map(|mut took| std::mem::take(&mut *took))
            .unwrap_or_default()
    };
    drop(taken());
    let span = Span::begin(&server)?;
    tokio::time::sleep(options.each).await;
    let count = passed.load(Ordering::Relaxed);
    span.print(
        &server,
        &format!("attestations, {} sessions, one a minute", options.nodes),
        count,
    )?;
    span.print_shares(&server)?;
    println!(
        "bytes of challenge, evidence and outcome: {} each; cloud rss {:.1} MiB",
        bytes.load(Ordering::Relaxed) / usize::try_from(count)?,
        server.rss_mib()?
    );
    spread::print("evidence to outcome", taken());
    let open = sessions.len();
    if let Some(ended) = sessions.try_join_next() {
        let result: anyhow::Result<()> = ended?;
        return result;
    }
    println!("sessions still open: {open}");
    sessions.shutdown().await;
    Ok(())
}
