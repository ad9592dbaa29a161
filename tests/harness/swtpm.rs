//! Software TPMs as separate processes: each with a manufactured state, EK certificates in NV, and a local CA.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::eventually::eventually;
use crate::netns::Host;
use crate::process::{Process, run};

/// Port of a TPM inside its host's namespace; its control port is the next one.
const PORT: u16 = 2321;

/// The CA that signs the EK certificates of a lab's TPMs.
#[derive(Debug)]
pub struct TpmMaker {
    folder: PathBuf,
}

/// One TPM; its state outlives the process, as a chip's does.
#[derive(Debug)]
pub struct Swtpm {
    state: PathBuf,
    host: Host,
    process: Option<Process>,
}

impl TpmMaker {
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let ca = folder.join("tpm-ca");
        std::fs::create_dir_all(ca.join("state"))?;
        let path = |name: &str| ca.join(name).display().to_string();
        std::fs::write(
            ca.join("localca.conf"),
            format!(
                "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuercert.pem\ncertserial = {0}/certserial\n",
                path("state")
            ),
        )?;
        std::fs::write(
            ca.join("localca.options"),
            "--platform-manufacturer Edgeward\n--platform-version 1\n--platform-model Lab\n",
        )?;
        std::fs::write(
            ca.join("setup.conf"),
            format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                path("localca.conf"),
                path("localca.options")
            ),
        )?;
        Ok(Self { folder: ca })
    }

    /// Manufactures a TPM for `host`.
    pub fn make(&self, host: &Host, state: &Path) -> anyhow::Result<Swtpm> {
        std::fs::create_dir_all(state)?;
        run(Command::new("swtpm_setup")
            .args([
                "--tpm2",
                "--create-ek-cert",
                "--lock-nvram",
                "--overwrite",
                "--tpmstate",
            ])
            .arg(state)
            .arg("--config")
            .arg(self.folder.join("setup.conf"))
            .args(["--vmid", host.namespace()]))?;
        Ok(Swtpm {
            state: state.to_owned(),
            host: host.clone(),
            process: None,
        })
    }

    /// The CA's certificates, which become a vendor root of tier `virtual`. Exist once a TPM was made.
    pub fn roots(&self) -> Vec<PathBuf> {
        ["swtpm-localca-rootca-cert.pem", "issuercert.pem"]
            .iter()
            .map(|name| self.folder.join("state").join(name))
            .collect()
    }
}

impl Swtpm {
    /// Powers the chip on: a reboot of the machine, as far as the TPM can tell.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        let log = self.state.join("swtpm.log");
        let mut command = self.host.command("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command
            .arg("--tpmstate")
            .arg(format!("dir={}", self.state.display()));
        command.args(["--server", &format!("type=tcp,port={PORT}")]);
        command.args(["--ctrl", &format!("type=tcp,port={}", PORT + 1)]);
        self.process = Some(Process::start("swtpm", command, &log)?);
        let listening = format!("( sport = :{PORT} )");
        eventually("swtpm listens", Duration::from_secs(5), || {
            let sockets = run(self.host.command("ss").args(["-ltnH", &listening]))?;
            anyhow::ensure!(!sockets.trim().is_empty(), "nobody listens yet");
            Ok(())
        })
    }

    /// A power cut: no orderly shutdown.
    pub fn power_cut(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// What the agent is configured with.
    pub fn tcti() -> String {
        format!("swtpm:host=127.0.0.1,port={PORT}")
    }

    /// Extends a PCR with a digest, as measured boot would.
    pub fn extend(&self, index: u8, digest: &str) -> anyhow::Result<()> {
        run(self.host.command("tpm2_pcrextend").args([
            "--tcti",
            &Self::tcti(),
            &format!("{index}:sha256={digest}"),
        ]))?;
        Ok(())
    }
}
