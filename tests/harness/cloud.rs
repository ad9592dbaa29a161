//! A cloud as a process on a host of its own, and its operator's command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::bin_dir;
use crate::clock::MachineClock;
use crate::eventually::eventually;
use crate::netns::Host;
use crate::process::{Process, output, output_within, run};
use crate::secrets;

pub const TRUST_DOMAIN: &str = "plant.example";
/// Where the cloud listens.
pub const PORT: u16 = 7443;
const METRICS_PORT: u16 = 9465;

/// How long a cloud may take, at the end of its lab, to tell what no file shows.
const ANSWER: Duration = Duration::from_secs(20);

/// What a scenario may choose.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// `None`: SQLite in the data folder.
    pub database: Option<String>,
    /// Mean time between challenges.
    pub attest_interval: &'static str,
    /// How long an answer may take.
    pub attest_deadline: &'static str,
}

/// The cloud; its data folder outlives the process.
#[derive(Debug)]
pub struct Cloud {
    host: Host,
    folder: PathBuf,
    database: Option<String>,
    clock: Option<MachineClock>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            database: None,
            attest_interval: "5s",
            attest_deadline: "5s",
        }
    }
}

impl Cloud {
    /// Writes the configuration; [`Cloud::start`] starts it.
    pub fn new(host: &Host, folder: &Path, options: &CloudOptions) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder.join("ek/virtual"))?;
        let database = options
            .database
            .as_ref()
            .map(|url| format!("database = {url:?}\n"))
            .unwrap_or_default();
        let text = format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\nlisten = \"0.0.0.0:{PORT}\"\nadvertise = [\"{address}:{PORT}\"]\n\
             data_dir = \"{folder}/data\"\nmetrics_listen = \"127.0.0.1:{METRICS_PORT}\"\nek_roots = \"{folder}/ek\"\n{database}\
             [attest]\ninterval = \"{interval}\"\njitter = \"1s\"\ndeadline = \"{deadline}\"\n",
            address = host.ipv4(),
            folder = folder.display(),
            interval = options.attest_interval,
            deadline = options.attest_deadline,
        );
        std::fs::write(folder.join("edgeward.toml"), text)?;
        Ok(Self {
            host: host.clone(),
            folder: folder.to_owned(),
            database: options.database.clone(),
            clock: None,
            environment: Vec::new(),
            process: None,
        })
    }

    /// Adds a TPM maker's certificate of tier `virtual`. Takes effect at the next start.
    pub fn trust_tpm_maker(&self, certificate: &Path) -> anyhow::Result<()> {
        let name = certificate.file_name().context("a certificate file")?;
        std::fs::copy(certificate, self.folder.join("ek/virtual").join(name))?;
        Ok(())
    }

    /// Adds to the configuration. Takes effect at the next start.
    pub fn configure(&self, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join("edgeward.toml");
        let before = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{before}\n{text}\n"))?;
        Ok(())
    }

    /// A variable that the process starts with.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process and waits until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = self.beside(&bin_dir()?.join("edgeward"));
        command
            .args(["serve", "--config"])
            .arg(self.folder.join("edgeward.toml"));
        clean_environment(&mut command);
        command.envs(self.environment.iter().cloned());
        let mut process = Process::start("edgeward", command, &self.folder.join("log"))?;
        let ready = format!("http://127.0.0.1:{METRICS_PORT}/readyz");
        eventually("the cloud is ready", Duration::from_secs(30), || {
            process.check()?;
            run(self
                .host
                .command("curl")
                .args(["-sSf", "--max-time", "2", &ready]))
            .map(|_| ())
        })?;
        self.process = Some(process);
        Ok(())
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A running process. Fails where there is none.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the cloud is not running")
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.process()?.terminate()?;
        self.process = None;
        secrets::gather(&self.folder)?;
        anyhow::ensure!(status.success(), "the cloud ended with {status}");
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process()?.kill()?;
        self.process = None;
        secrets::gather(&self.folder)
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Whether a process runs that can answer.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.check().is_ok())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The operator's command line as the first admin; fails unless it succeeds.
    pub fn edgeward(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.try_edgeward(arguments)?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "edgeward {arguments:?} ended with {}:\n{}{}",
            output.status,
            said(&output.stdout),
            said(&output.stderr)
        );
        Ok(said(&output.stdout))
    }

    /// As [`Cloud::edgeward`], whatever its status.
    pub fn try_edgeward(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = output(&mut self.command(arguments)?)?;
        secrets::keep_words(&self.folder, &String::from_utf8_lossy(&output.stdout));
        Ok(output)
    }

    /// As [`Cloud::edgeward`] with `-o json`, one value.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.edgeward(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not json: {text}"))
    }

    /// Audit events that the filters give, oldest first.
    pub fn events(&self, filters: &[&str]) -> anyhow::Result<Vec<Value>> {
        let arguments = [
            &["audit", "query", "-o", "json", "--limit", "1000"],
            filters,
        ]
        .concat();
        let text = self.edgeward(&arguments)?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not json: {line}")))
            .collect()
    }

    /// Waits until an event that the filters give exists.
    pub fn await_event(&self, filters: &[&str]) -> anyhow::Result<Value> {
        let what = format!("an event with {filters:?}");
        eventually(&what, Duration::from_secs(20), || {
            self.events(filters)?.pop().context("none yet")
        })
    }

    /// A bootstrap token.
    pub fn token(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let text = self.edgeward(&[&["token", "create"], arguments].concat())?;
        text.split_whitespace()
            .find(|word| word.starts_with("edgeward1."))
            .map(str::to_owned)
            .with_context(|| format!("no token in: {text}"))
    }

    /// From now on a cloud that starts, and its operator's commands, see a clock that the test sets.
    pub fn clock(&mut self) -> anyhow::Result<&mut MachineClock> {
        let made = match self.clock.take() {
            Some(clock) => clock,
            None => MachineClock::new(&self.folder)?,
        };
        Ok(self.clock.insert(made))
    }

    /// What the cloud keeps where no file shows it: every event in the clear, and the database as text. Events cannot be had
    /// any more where the scenario ended the cloud; a database must be there.
    pub(crate) fn dumps(&mut self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut dumps = Vec::new();
        let mut take = |name: &str, mut command: Command| match output_within(&mut command, ANSWER)
        {
            Ok(output) if output.status.success() => {
                dumps.push((name.to_owned(), output.stdout));
            }
            Ok(output) => eprintln!("no {name}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("no {name}: {error:#}"),
        };
        if self.is_running() {
            let all = ["audit", "export", "--from", "2000-01-01T00:00:00Z"];
            take("audit export", self.command(&all)?);
        }
        if let Some(url) = &self.database {
            let mut command = Command::new("pg_dump");
            // As they are stored: rows of COPY would write some characters of a text otherwise.
            command.args(["--inserts", "--no-owner", "--dbname", url]);
            let dump = output_within(&mut command, ANSWER)?;
            let complaint = String::from_utf8_lossy(&dump.stderr);
            anyhow::ensure!(dump.status.success(), "no pg_dump: {complaint}");
            dumps.push(("pg_dump".to_owned(), dump.stdout));
        }
        Ok(dumps)
    }

    /// A program on its host that sees the clock which it sees.
    pub fn beside(&self, program: &Path) -> Command {
        match &self.clock {
            None => self.host.command(program),
            Some(clock) => {
                let before = clock.before();
                let mut words = before.iter();
                let mut command = self.host.command(words.next().map_or("", String::as_str));
                command.args(words).arg(program);
                command
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.beside(&bin_dir()?.join("edgeward"));
        clean_environment(&mut command);
        command.arg("--context").arg(self.folder.join("data/admin"));
        command.args(arguments);
        Ok(command)
    }
}

/// Takes the test's own variables away, which the commands would take for their twins.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EDGEWARD_")) {
        command.env_remove(name);
    }
}
