//! Load on a cloud process: enrolments, attestations through sessions, audit batches, a large fleet, a fall.
//!
//! `tests/bench/control/run` builds and runs it. By hand, with `edgeward` beside the `examples` folder:
//! `control-load enrol|attest|audit|scale|fall [--database URL] [--seconds N] [--nodes N] [--boot-log BYTES]
//! [--ima-list BYTES]`.
//!
//! The machines are this process (software TPMs: real structures, signatures and nonces), the cloud is another one, so
//! that its processor time can be told apart. Both share the machine: the rate on the wall is a floor, processor time for
//! each act is the figure to plan with.

#![allow(clippy::print_stdout, reason = "prints its figures")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_tests::cloud::TRUST_DOMAIN;

mod attest;
mod audit;
mod crowd;
mod enrol;
mod fall;
mod machine;
mod scale;
mod server;
mod spread;
mod usage;

/// What to run.
#[derive(Debug)]
pub struct Options {
    database: Option<String>,
    each: Duration,
    nodes: usize,
    /// Lengths of a machine's boot log and IMA list, in bytes.
    logs: (usize, usize),
    /// Where `crowd` finds its cloud, and what it is told.
    address: Option<SocketAddr>,
    folder: PathBuf,
}

/// Work done by the cloud between two moments.
#[derive(Debug)]
pub struct Span {
    started: Instant,
    cloud: f64,
    own: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments
        .next()
        .context("enrol, attest, audit, scale or fall")?;
    let mut options = Options {
        database: None,
        each: Duration::from_secs(8),
        nodes: 256,
        logs: (98_000, 130_000),
        address: None,
        folder: PathBuf::new(),
    };
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--database" => options.database = Some(value),
            "--seconds" => options.each = Duration::from_secs(value.parse()?),
            "--nodes" => options.nodes = value.parse()?,
            "--boot-log" => options.logs.0 = value.parse()?,
            "--address" => options.address = Some(value.parse()?),
            "--folder" => options.folder = value.into(),
            "--ima-list" => options.logs.1 = value.parse()?,
            _ => anyhow::bail!("unknown option: {flag}"),
        }
    }
    let store = match options.database {
        Some(_) => "postgresql",
        None => "sqlite",
    };
    println!(
        "# {what}, {store}, trust domain {TRUST_DOMAIN}, load average {}",
        usage::load_average()
    );
    match what.as_str() {
        "enrol" => enrol::run(&options).await?,
        "attest" => attest::run(&options).await?,
        "audit" => audit::run(&options).await?,
        "scale" => scale::run(&options).await?,
        "fall" => fall::run(&options).await?,
        "crowd" => crowd::run(&options).await?,
        "join" => crowd::join(&options).await?,
        _ => anyhow::bail!("not enrol, attest, audit, scale or fall: {what}"),
    }
    println!("# load average {}", usage::load_average());
    Ok(())
}

impl Span {
    pub fn begin(server: &server::Server) -> anyhow::Result<Self> {
        Ok(Self {
            started: Instant::now(),
            cloud: server.cpu_seconds()?,
            own: usage::cpu_seconds(std::process::id())?,
        })
    }

    /// One line: the rate, and what one act cost the cloud and the load.
    pub fn print(&self, server: &server::Server, what: &str, count: u64) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        let cloud = server.cpu_seconds()? - self.cloud;
        let own = usage::cpu_seconds(std::process::id())? - self.own;
        anyhow::ensure!(count > 0, "{what}: nothing was done");
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let count = count as f64;
        println!(
            "{what}: {:.0}/s; cloud {:.3} ms cpu each = {:.0}/s per core; load {:.3} ms cpu each; {seconds:.1} s",
            count / seconds,
            cloud * 1000.0 / count,
            count / cloud.max(0.01),
            own * 1000.0 / count,
        );
        Ok(())
    }
    /// Shares of one core since the beginning.
    pub fn print_shares(&self, server: &server::Server) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        println!(
            "cpu: cloud {:.0} % of a core, load {:.0} %",
            (server.cpu_seconds()? - self.cloud) / seconds * 100.0,
            (usage::cpu_seconds(std::process::id())? - self.own) / seconds * 100.0,
        );
        Ok(())
    }
}
