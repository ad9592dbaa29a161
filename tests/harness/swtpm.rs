//! Software TPMs as separate processes: each with a manufactured state, EK certificates in NV, and a local CA.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::eventually::eventually;
use crate::netns::Host;
use crate::process::{Process, run};

/// Port of a TPM inside its host's namespace; its control port is the next one.
const PORT: u16 = 2321;
/// Most extends of one call: a command line has its limit.
const MAX_EXTENDS: usize = 256;

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
        self.power_on_at(0)
    }

    /// As [`Swtpm::power_on`], with firmware that starts the TPM at a locality, which PCR 0 then shows.
    pub fn power_on_at(&mut self, locality: u8) -> anyhow::Result<()> {
        let log = self.state.join("swtpm.log");
        let mut command = self.host.command("swtpm");
        let flags = if locality == 0 {
            "not-need-init,startup-clear"
        } else {
            "not-need-init"
        };
        command.args(["socket", "--tpm2", "--flags", flags]);
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
        })?;
        if locality != 0 {
            self.start_at(locality)?;
        }
        Ok(())
    }

    /// `TPM2_Startup(CLEAR)` at a locality, as bytes: libtss2 sets its own.
    fn start_at(&self, locality: u8) -> anyhow::Result<()> {
        let control = format!("127.0.0.1:{}", PORT + 1);
        let script = format!(
            "set -e; swtpm_ioctl --tcp {control} -l {locality}; exec 3<>/dev/tcp/127.0.0.1/{PORT}; \
             printf '\\x80\\x01\\0\\0\\0\\x0c\\0\\0\\x01\\x44\\0\\0' >&3; \
             head -c 10 <&3 | od -An -tx1; exec 3>&-; swtpm_ioctl --tcp {control} -l 0"
        );
        let answer = run(self.host.command("bash").args(["-c", &script]))?;
        anyhow::ensure!(
            answer.split_whitespace().skip(6).eq(["00"; 4]),
            "the tpm did not start at locality {locality}: {answer}"
        );
        Ok(())
    }

    /// A shutdown that the TPM is told of: its clock goes on afterwards where it was.
    pub fn shut_down(&mut self) -> anyhow::Result<()> {
        run(self
            .host
            .command("tpm2_shutdown")
            .args(["--tcti", &Self::tcti(), "-c"]))?;
        self.power_cut()
    }

    /// A power cut: no orderly shutdown.
    pub fn power_cut(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// `TPM2_Clear` by the lockout hierarchy, as firmware menus and `tpm2_clear` do it.
    pub fn clear(&self) -> anyhow::Result<()> {
        run(self
            .host
            .command("tpm2_clear")
            .args(["--tcti", &Self::tcti(), "-c", "l"]))?;
        Ok(())
    }

    /// The same chip once more, in another machine: what a copied virtual TPM is.
    pub fn copy_to(&self, host: &Host, state: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state)?;
        for entry in std::fs::read_dir(&self.state)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("tpm2-") {
                std::fs::copy(entry.path(), state.join(entry.file_name()))?;
            }
        }
        Ok(Self {
            state: state.to_owned(),
            host: host.clone(),
            process: None,
        })
    }

    /// What the agent is configured with.
    pub fn tcti() -> String {
        format!("swtpm:host=127.0.0.1,port={PORT}")
    }

    /// Extends a PCR with a digest, as measured boot would.
    pub fn extend(&self, index: u8, digest: &str) -> anyhow::Result<()> {
        self.extend_all(&[format!("{index}:sha256={digest}")])
    }

    /// Extends one after the other; each is `index:bank=digest`.
    pub fn extend_all(&self, extends: &[String]) -> anyhow::Result<()> {
        for batch in extends.chunks(MAX_EXTENDS) {
            run(self
                .host
                .command("tpm2_pcrextend")
                .args(["--tcti", &Self::tcti()])
                .args(batch))?;
        }
        Ok(())
    }
}
