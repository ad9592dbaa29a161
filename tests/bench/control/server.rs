//! The cloud as its own process on loopback, with a policy that compares what the load's machines measure.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::bin_dir;
use edgeward_tests::cloud::{TRUST_DOMAIN, clean_environment};
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, run};
use edgeward_wire::token::BootstrapToken;

use super::machine::{Logs, Machine};
use super::usage;

/// How the cloud is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// `None`: SQLite in the data folder.
    pub database: Option<&'a str>,
    /// Mean time between challenges, and how far off it one may come.
    pub attest_interval: &'a str,
    pub attest_jitter: &'a str,
}

/// A running cloud; ended and its data removed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    folder: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Server {
    /// Starts `edgeward serve`, lists the machines' EKs and applies the policy.
    pub fn start(setup: Setup<'_>, machines: &[Machine]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address, metrics) = (free_port()?, free_port()?);
        configure(folder.path(), setup, address, metrics)?;
        let listed: Vec<String> = machines.iter().map(Machine::ek_digest).collect();
        std::fs::write(folder.path().join("ek/listed.txt"), listed.join("\n"))?;
        let mut command = Command::new(bin_dir()?.join("edgeward"));
        command.args(["serve", "--log", "warn", "--config"]);
        command.arg(folder.path().join("edgeward.toml"));
        clean_environment(&mut command);
        let mut process = Process::start("edgeward", command, &folder.path().join("log"))?;
        eventually("the cloud is ready", Duration::from_secs(30), || {
            process.check()?;
            ready(metrics)
        })?;
        let server = Self {
            process,
            folder,
            address,
        };
        server.apply_policy(machines)?;
        Ok(server)
    }

    /// A token for any number of machines, for names that begin with `m-`.
    pub fn token(&self) -> anyhow::Result<BootstrapToken> {
        let text = self.edgeward(&[
            "token",
            "create",
            "--name",
            "m-*",
            "--uses",
            "100000",
            "--label",
            "role=gateway",
        ])?;
        let word = text
            .split_whitespace()
            .find(|word| word.starts_with("edgeward1."))
            .with_context(|| format!("no token in: {text}"))?;
        Ok(BootstrapToken::parse(word)?)
    }

    /// Processor seconds of the cloud so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        usage::cpu_seconds(self.process.pid())
    }

    pub fn rss_mib(&self) -> anyhow::Result<f64> {
        usage::rss_mib(self.process.pid())
    }

    fn apply_policy(&self, machines: &[Machine]) -> anyhow::Result<()> {
        let policy = self.folder.path().join("policy");
        std::fs::create_dir_all(&policy)?;
        let value = &machines.first().context("no machine")?.pcr_7();
        let file = hex::encode(Logs::FILE);
        std::fs::write(policy.join("files.allow"), format!("sha256:{file}\n"))?;
        std::fs::write(
            policy.join("fleet.toml"),
            format!(
                "schema = \"edgeward-policy/1\"\nowner = \"bench\"\nscope = \"any\"\n\
                 [profile.gateway]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{value}\"] }}\n\
                 secure_boot = true\nima = {{ allow = \"files.allow\" }}\n\
                 [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n"
            ),
        )?;
        let policy = policy.display().to_string();
        self.edgeward(&["policy", "apply", &policy]).map(|_| ())
    }

    fn edgeward(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(bin_dir()?.join("edgeward"));
        clean_environment(&mut command);
        command
            .arg("--context")
            .arg(self.folder.path().join("data/admin"));
        run(command.args(arguments))
    }
}

fn configure(
    folder: &Path,
    setup: Setup<'_>,
    address: SocketAddr,
    metrics: SocketAddr,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("ek"))?;
    let database = setup
        .database
        .map(|url| format!("database = {url:?}\n"))
        .unwrap_or_default();
    let text = format!(
        "trust_domain = \"{TRUST_DOMAIN}\"\nlisten = \"{address}\"\nmetrics_listen = \"{metrics}\"\n\
         data_dir = \"{folder}/data\"\nek_roots = \"{folder}/ek\"\n{database}\
         [attest]\ninterval = \"{}\"\njitter = \"{}\"\n",
        setup.attest_interval,
        setup.attest_jitter,
        folder = folder.display(),
    );
    Ok(std::fs::write(folder.join("edgeward.toml"), text)?)
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn ready(metrics: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(metrics)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: cloud\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "not ready: {answer}");
    Ok(())
}
