//! Enrolments through the gRPC service: TLS 1.3 handshake, token, credential challenge, certify and quote, issue, store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgeward_wire::token::BootstrapToken;

use super::machine::Machine;
use super::server::{Server, Setup};
use super::{Options, Span};

/// Machines that enrol at the same time.
const AT_ONCE: [usize; 3] = [1, 8, 32];
/// Most enrolments a second that machines are made for.
const MOST_PER_SECOND: usize = 1000;

type Queue = Arc<Mutex<VecDeque<Machine>>>;

pub async fn run(options: &Options) -> anyhow::Result<()> {
    // One database serves one cloud: there, later cells begin with the nodes of the earlier ones.
    let cells: Vec<&[usize]> = match options.database {
        None => AT_ONCE.chunks(1).collect(),
        Some(_) => vec![&AT_ONCE],
    };
    for at_once in cells {
        on_one_cloud(options, at_once).await?;
    }
    Ok(())
}

async fn on_one_cloud(options: &Options, cells: &[usize]) -> anyhow::Result<()> {
    let seconds = usize::try_from(options.each.as_secs())?;
    let machines = Machine::many(seconds * cells.len() * MOST_PER_SECOND, (0, 0))?;
    let setup = Setup {
        database: options.database.as_deref(),
        attest_interval: "60s",
        attest_jitter: "10s",
    };
    let server = Server::start(setup, &machines)?;
    let queue = Arc::new(Mutex::new(VecDeque::from(machines)));
    let mut nodes = 0;
    for at_once in cells {
        // Whoever rolls out a site uses one token for it: here every line of machines has one.
        let tokens: Vec<BootstrapToken> = (0..*at_once)
            .map(|_| server.token())
            .collect::<anyhow::Result<_>>()?;
        let span = Span::begin(&server)?;
        let count = crowd(&server, &queue, tokens, options.each).await?;
        let what = format!("enrolments, {at_once} at once, after {nodes}");
        span.print(&server, &what, count)?;
        nodes += count;
    }
    println!("cloud rss after {nodes}: {:.1} MiB", server.rss_mib()?);
    Ok(())
}

/// Enrols until the time is over, with as many at once as there are tokens.
async fn crowd(
    server: &Server,
    queue: &Queue,
    tokens: Vec<BootstrapToken>,
    each: Duration,
) -> anyhow::Result<u64> {
    let count = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + each;
    let mut lines = tokio::task::JoinSet::new();
    for token in tokens {
        let (queue, count, address) = (queue.clone(), count.clone(), server.address);
        lines.spawn(async move {
            while Instant::now() < end {
                let machine = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                let Some(mut machine) = machine else {
                    anyhow::bail!("more machines are needed");
                };
                machine.enrol(address, &token).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(line) = lines.join_next().await {
        line??;
    }
    Ok(count.load(Ordering::Relaxed))
}
