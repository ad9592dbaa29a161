//! An edge node: a host with a TPM and an agent as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::apps::Ground;
use crate::bin_dir;
use crate::clock::MachineClock;
use crate::cloud::clean_environment;
use crate::eventually::eventually;
use crate::netns::Host;
use crate::process::{Process, output, run};
use crate::secrets;
use crate::swtpm::Swtpm;

const METRICS_PORT: u16 = 9464;

/// One node; its TPM and state outlive the process.
#[derive(Debug)]
pub struct Node {
    name: String,
    host: Host,
    folder: PathBuf,
    pub tpm: Swtpm,
    clock: Option<MachineClock>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    /// After the agent: what it runs goes last.
    ground: Option<Ground>,
}

impl Node {
    /// Writes the configuration. The TPM must be on before the agent needs it.
    pub fn new(name: &str, host: &Host, folder: &Path, tpm: Swtpm) -> anyhow::Result<Self> {
        for part in ["state", "run"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let text = format!(
            "state_dir = \"{folder}/state\"\nrun_dir = \"{folder}/run\"\ninterface = \"{interface}\"\n\n[tpm]\ntcti = \"{tcti}\"\n\n\
             [logs]\nboot = \"{folder}/boot_log\"\nima = \"{folder}/ima_list\"\n",
            folder = folder.display(),
            interface = interface_of(host),
            tcti = Swtpm::tcti(),
        );
        std::fs::write(folder.join("agent.toml"), text)?;
        Ok(Self {
            name: name.to_owned(),
            host: host.clone(),
            folder: folder.to_owned(),
            tpm,
            clock: None,
            environment: Vec::new(),
            process: None,
            ground: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What survives a restart of the agent.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts keys in front of its configuration.
    pub fn configure(&self, lines: &str) -> anyhow::Result<()> {
        self.rewrite(|before| format!("{lines}\n{before}"))
    }

    /// Puts tables behind its configuration.
    pub fn configure_tables(&self, text: &str) -> anyhow::Result<()> {
        self.rewrite(|before| format!("{before}\n{text}\n"))
    }

    fn rewrite(&self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let config = self.folder.join("agent.toml");
        let before = std::fs::read_to_string(&config)?;
        Ok(std::fs::write(config, change(before))?)
    }

    /// The name of its tunnel device.
    pub fn device(&self) -> String {
        interface_of(&self.host)
    }

    /// Enrols with a token, which goes by a file so that no process list shows it.
    pub fn enrol(&self, token: &str) -> anyhow::Result<()> {
        let output = self.try_enrol(token)?;
        anyhow::ensure!(
            output.status.success(),
            "{} did not enrol: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// As [`Node::enrol`], whatever comes of it.
    pub fn try_enrol(&self, token: &str) -> anyhow::Result<Output> {
        let file = self.folder.join("token");
        std::fs::write(&file, token)?;
        secrets::keep_words(&self.folder, token);
        let mut command = self.command("enrol");
        command.arg("--token-file").arg(&file);
        output(&mut command)
    }

    /// Starts the agent and waits until it answers; whether it is ready depends on the cloud.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut process =
            Process::start(&self.name, self.command("run"), &self.folder.join("log"))?;
        let health = format!("http://127.0.0.1:{METRICS_PORT}/healthz");
        eventually("the agent answers", Duration::from_secs(30), || {
            process.check()?;
            run(self
                .host
                .command("curl")
                .args(["-sSf", "--max-time", "2", &health]))
            .map(|_| ())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until the agent says that it can do its work.
    pub fn await_ready(&mut self) -> anyhow::Result<()> {
        let ready = format!("http://127.0.0.1:{METRICS_PORT}/readyz");
        let host = self.host.clone();
        let process = self.process()?;
        eventually("the agent is ready", Duration::from_secs(30), || {
            process.check()?;
            run(host
                .command("curl")
                .args(["-sS", "--fail-with-body", "--max-time", "2", &ready]))
            .map(|_| ())
        })
    }

    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the agent is not running")
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        secrets::gather(&self.folder)?;
        let status = self.process()?.terminate()?;
        self.process = None;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        secrets::gather(&self.folder)?;
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// A power cut and a start: agent and TPM both lose what they held in memory, and so does the run folder.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        self.power_off()?;
        self.tpm.power_on()?;
        self.ground.as_mut().map_or(Ok(()), Ground::start)
    }

    /// A power cut.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            self.kill()?;
        }
        if let Some(ground) = &mut self.ground {
            ground.cut()?;
        }
        secrets::gather(&self.folder)?;
        std::fs::remove_dir_all(self.folder.join("run"))?;
        std::fs::create_dir_all(self.folder.join("run"))?;
        self.tpm.power_cut()
    }

    /// From now on agents that start see clocks that the test sets.
    pub fn clock(&mut self) -> anyhow::Result<&mut MachineClock> {
        let made = match self.clock.take() {
            Some(clock) => clock,
            None => MachineClock::new(&self.folder)?,
        };
        Ok(self.clock.insert(made))
    }

    /// Where its apps live.
    pub fn ground(&mut self) -> anyhow::Result<&mut Ground> {
        self.ground
            .as_mut()
            .context("the node has no ground for apps")
    }

    pub(crate) fn take_ground(&mut self, ground: Ground) {
        self.ground = Some(ground);
    }

    /// From now on the agent's commands see this variable.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// What `wg show` says of the tunnel, with these further words.
    pub fn wg_show(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = self.host.command("wg");
        command.args(["show", &interface_of(&self.host)]);
        run(command.args(words))
    }

    /// What `edgeward-agent status` says.
    pub fn status(&self) -> anyhow::Result<Value> {
        let mut command = self.command("status");
        let text = run(command.args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("not json: {text}"))
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The agent's command line on its host.
    pub fn command(&self, verb: &str) -> Command {
        let program = bin_dir().unwrap_or_default().join("edgeward-agent");
        let inside = |first: &Path| match &self.ground {
            None => self.host.command(first),
            Some(ground) => ground.command(first),
        };
        let mut command = match &self.clock {
            None => inside(&program),
            Some(clock) => {
                let before = clock.before();
                let mut words = before.iter();
                let first = words.next().map_or("", String::as_str);
                let mut command = inside(Path::new(first));
                command.args(words).arg(program);
                command
            }
        };
        clean_environment(&mut command);
        command.env("TSS2_LOG", "all+NONE");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .arg(verb)
            .arg("--config")
            .arg(self.folder.join("agent.toml"));
        command
    }
}

impl Drop for Node {
    /// A killed agent leaves its WireGuard socket; such sockets are one folder for all namespaces.
    fn drop(&mut self) {
        if let Err(error) = secrets::gather(&self.folder) {
            eprintln!("keys of {} are not known: {error:#}", self.name);
        }
        self.process = None;
        let _ = std::fs::remove_file(format!("/run/wireguard/{}.sock", interface_of(&self.host)));
    }
}

/// Unique on the machine and at most 15 characters.
fn interface_of(host: &Host) -> String {
    let name = host.namespace();
    format!("ew-{}", &name[name.len().saturating_sub(12)..])
}
