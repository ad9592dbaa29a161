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
    _process: Process,
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
        let mut command = as_postgres(&binaries.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder);
        command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let process = Process::start("postgres", command, &folder.join("log"))?;
        let server = Self {
            folder: folder.to_owned(),
            _process: process,
        };
        eventually("postgres answers", Duration::from_secs(30), || {
            server.psql("postgres", "select 1").map(|_| ())
        })?;
        server.psql("postgres", "create database edgeward")?;
        Ok(server)
    }

    /// The URL of database `edgeward`.
    pub fn url(&self) -> String {
        format!(
            "postgres://edgeward@localhost/edgeward?host={}",
            self.folder.display()
        )
    }

    fn psql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        run(Command::new("psql")
            .args(["-qAt", "-U", "edgeward", "-d", database, "-h"])
            .arg(&self.folder)
            .args(["-c", sql]))
    }
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
