//! A private PostgreSQL: its own data folder, a socket in it, no port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::eventually::eventually;
use crate::process::{Process, run};

/// A running server; ended when dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    process: Process,
}

impl Postgres {
    /// Makes and starts a server in `folder` (an absolute path that every user may enter). As root it runs as
    /// `postgres`, since PostgreSQL refuses root.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let binaries = binaries()?;
        std::fs::create_dir_all(folder)?;
        run(Command::new("chown").arg("postgres").arg(folder))?;
        let data = folder.join("data");
        run(as_postgres(&binaries.join("initdb"))
            .arg("--no-sync")
            .args(["--auth=trust", "--username=edgeward", "--pgdata"])
            .arg(&data))?;
        let server = Self {
            folder: folder.to_owned(),
            process: launch(folder)?,
        };
        server.await_answer()?;
        server.psql("postgres", "create database edgeward")?;
        Ok(server)
    }

    /// SIGKILL to the server, and a new start: it recovers from its log. Its children end by themselves.
    pub fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        eventually("postgres starts again", Duration::from_secs(30), || {
            // The socket's lock stays while a child of the killed server still runs.
            self.process = launch(&self.folder)?;
            std::thread::sleep(Duration::from_millis(300));
            self.process.check()
        })?;
        self.await_answer()
    }

    fn await_answer(&self) -> anyhow::Result<()> {
        eventually("postgres answers", Duration::from_secs(30), || {
            self.psql("postgres", "select 1").map(|_| ())
        })
    }

    /// The URL of database `edgeward`.
    pub fn url(&self) -> String {
        format!(
            "postgres://edgeward@localhost/edgeward?host={}",
            self.folder.display()
        )
    }

    /// Performs a statement in database `edgeward`.
    pub fn perform(&self, sql: &str) -> anyhow::Result<String> {
        self.psql("edgeward", sql)
    }

    fn psql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        run(Command::new("psql")
            .args(["-qAt", "-U", "edgeward", "-d", database, "-h"])
            .arg(&self.folder)
            .args(["-c", sql]))
    }
}

fn launch(folder: &Path) -> anyhow::Result<Process> {
    let mut command = as_postgres(&binaries()?.join("postgres"));
    command.arg("-D").arg(folder.join("data"));
    command.arg("-k").arg(folder);
    command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    Process::start("postgres", command, &folder.join("log"))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program)
        .current_dir("/");
    command
}

fn binaries() -> anyhow::Result<PathBuf> {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").context("postgresql is not installed")?;
    versions
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .max()
        .context("no postgresql with initdb")
}
