//! Another program in place of this one, in the same process: how an agent is upgraded without a goodbye.
//!
//! SIGHUP asks for it (`systemctl reload`); the kernel lets only root and the agent's own user send it. The program that
//! now lies at the agent's path is first asked what it is, whether it takes the configuration, and whether it knows the
//! form in which tunnels are handed over; if not, nothing changes. Then the process becomes that program. No peer is
//! told goodbye. Device and UDP port stay open, and what lives in memory ([`crate::enforce::handover`]) goes along in a
//! sealed file that is in memory too and has no name: packets flow again as the first thing that the new program does.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::enforce::handover::{FORMAT, Given};

mod descriptors;
mod interim;
mod left;

pub use interim::Interim;
pub use left::{Left, NotLeft};

/// How long the other program may think about the configuration.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most of a complaint that is shown, in characters.
const MAX_COMPLAINT_CHARS: usize = 300;
/// How the word begins that says what was left open.
const TAKE_OVER: &str = "--take-over=";
/// How the word begins that asks for the form of what is left.
const KNOWS: &str = "--takes-over=";
/// What the program calls itself.
const NAME: &str = env!("CARGO_PKG_NAME");

/// Waits to be asked.
pub struct Upgrade {
    asked: Signal,
    /// As it was called when it started: the file there may be another one by now.
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// A program that can take this one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    pub version: String,
}

/// The program at the agent's path cannot take its place. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NotUpgraded {
    #[error("cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("did not end within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("is not {NAME}: {0:?}")]
    Other(String),
    #[error("refuses the configuration: {0}")]
    Configuration(String),
}

impl Upgrade {
    /// From now on SIGHUP does not end the process.
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self {
            asked: signal(SignalKind::hangup())?,
            program: std::env::current_exe()?,
            arguments: arguments(std::env::args_os().skip(1)),
        })
    }

    /// Returns when somebody asked for it and a program is there that can.
    pub async fn wanted(&mut self) -> Successor {
        loop {
            if self.asked.recv().await.is_none() {
                std::future::pending::<Infallible>().await;
            }
            match self.examine().await {
                Ok(successor) => return successor,
                Err(reason) => {
                    let program = self.program.display();
                    tracing::error!(%program, %reason, "not upgraded; going on as before");
                }
            }
        }
    }

    /// Becomes the other program, with all that is given. Returns only if that fails.
    pub fn perform(&self, given: &Given) -> anyhow::Error {
        let left = match Left::seal(given) {
            Ok(left) => left,
            Err(error) => return anyhow::Error::new(error).context("nothing can be left"),
        };
        let inherited = &given.inherited;
        let kept = [
            inherited.device.as_fd(),
            inherited.port.as_fd(),
            left.as_fd(),
        ];
        if let Err(error) = descriptors::keep_at_exec(&kept) {
            return anyhow::Error::new(error).context("open files cannot be listed");
        }
        if let Err(error) = descriptors::ignore_hangups() {
            return anyhow::Error::new(error).context("signals");
        }
        let failed = std::process::Command::new(&self.program)
            .args(&self.arguments)
            .arg(format!("{TAKE_OVER}{}", Left::word(&left, inherited)))
            .exec();
        anyhow::Error::new(failed).context("the other program did not start")
    }

    async fn examine(&self) -> Result<Successor, NotUpgraded> {
        let said = self.call(&["--version".into()]).await?;
        let said = String::from_utf8_lossy(&said.stdout);
        let version = version_in(&said).ok_or_else(|| NotUpgraded::Other(short(&said)))?;
        let mut arguments = self.arguments.clone();
        arguments.push("--check".into());
        arguments.push(format!("{KNOWS}{FORMAT}").into());
        let checked = self.call(&arguments).await?;
        match checked.status.success() {
            true => Ok(Successor { version }),
            false => Err(NotUpgraded::Configuration(short(&String::from_utf8_lossy(
                &checked.stderr,
            )))),
        }
    }

    async fn call(&self, arguments: &[OsString]) -> Result<Output, NotUpgraded> {
        let work = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(DEADLINE, work)
            .await
            .map_err(|_| NotUpgraded::Deadline)?
            .map_err(NotUpgraded::Run)
    }
}

/// Without what was left for this program: it is good once.
fn arguments(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    all.filter(|word| !word.as_encoded_bytes().starts_with(TAKE_OVER.as_bytes()))
        .collect()
}

/// What follows the program's name in its answer to `--version`.
fn version_in(said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    let version = (words.next() == Some(NAME)).then(|| words.next())??;
    Some(short(version))
}

fn short(text: &str) -> String {
    text.trim().chars().take(MAX_COMPLAINT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(folder: &tempfile::TempDir, script: &str) -> Upgrade {
        let path = folder.path().join("agent");
        // Written by another process: this one may be forked while it holds the file open for writing.
        let written = std::process::Command::new("sh")
            .args(["-c", "printf '%s' \"$1\" > \"$2\"", "sh", script])
            .arg(&path)
            .status()
            .unwrap();
        assert!(written.success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Upgrade {
            asked: signal(SignalKind::user_defined1()).unwrap(),
            program: path,
            arguments: vec!["run".into()],
        }
    }

    #[tokio::test]
    async fn what_is_no_agent_or_refuses_the_configuration_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let other = program(&folder, "#!/bin/sh\necho something 2.0\n");
        assert!(matches!(other.examine().await, Err(NotUpgraded::Other(_))));
        let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo edgeward-agent 2.0 && exit\n\
                      echo \"$2 $3: mtu\" >&2\nexit 64\n";
        let strict = program(&folder, script);
        match strict.examine().await {
            Err(NotUpgraded::Configuration(why)) => assert_eq!(why, "--check --takes-over=1: mtu"),
            other => panic!("{other:?}"),
        }
        let mut gone = program(&folder, "");
        gone.program = folder.path().join("gone");
        assert!(matches!(gone.examine().await, Err(NotUpgraded::Run(_))));
    }

    #[test]
    fn what_was_left_for_this_program_is_not_left_for_the_next() {
        let words = ["run", "--config", "a", "--take-over=7,8,9"].map(OsString::from);
        assert_eq!(arguments(words.into_iter()), ["run", "--config", "a"]);
    }

    #[tokio::test]
    async fn an_agent_that_takes_the_configuration_is_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo edgeward-agent 2.0\nexit 0\n";
        let found = program(&folder, script).examine().await.unwrap();
        assert_eq!(found.version, "2.0");
    }
}
