//! A software TPM per test: own state folder, own CA, own pair of ports, killed and waited for at the end.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edgeward_agent::tpm::{Place, Tpm};
use tempfile::TempDir;

const READY: Duration = Duration::from_secs(10);
pub(crate) const FIRST_HANDLE: u32 = 0x8101_0200;
pub(crate) const EPOCH_INDEX: u32 = 0x0180_0e01;

/// A manufactured TPM, running or not.
pub(crate) struct Swtpm {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

/// Whether swtpm is installed; prints why a test is skipped if not.
pub(crate) fn installed() -> bool {
    let found = ["swtpm", "swtpm_setup", "swtpm_localca"]
        .iter()
        .all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !found {
        eprintln!("skipped: swtpm, swtpm_setup or swtpm_localca is not installed");
    }
    found
}

impl Swtpm {
    /// Manufactures a TPM with an RSA-2048 and a P-384 EK and starts it.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        manufacture(dir.path());
        let mut swtpm = Self {
            dir,
            port: 0,
            child: None,
        };
        swtpm.power_on();
        swtpm
    }

    pub(crate) fn power_on(&mut self) {
        assert!(self.child.is_none());
        for _ in 0..20 {
            let port = if self.port == 0 {
                free_pair()
            } else {
                self.port
            };
            let mut child = spawn(self.dir.path(), port);
            if answers(&mut child, port) {
                self.port = port;
                self.child = Some(child);
                return;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("swtpm does not start: {}", self.log());
    }

    /// kill -9: a power cut.
    pub(crate) fn power_cut(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn place(&self) -> Place {
        let tcti = format!("swtpm:host=127.0.0.1,port={}", self.port);
        Place::parse(&tcti, FIRST_HANDLE, EPOCH_INDEX)
            .unwrap()
            .owned()
    }

    pub(crate) fn open(&self) -> Tpm {
        Tpm::open(self.place()).unwrap()
    }

    /// Gives the TPM a P-256 EK certificate, as some vendors do and swtpm_setup does not.
    pub(crate) fn provision_p256(&self) {
        let dir = self.dir.path();
        let script = format!(
            r#"set -e; cd {dir}; export TPM2TOOLS_TCTI="swtpm:host=127.0.0.1,port={port}"
            tpm2_createek -Q -G ecc -c ek.ctx -u ek.pub -f tpmt; tpm2_flushcontext -t
            points=$(tail -c 68 ek.pub | od -An -v -tx1 | tr -d ' \n')
            x=$(echo "$points" | cut -c5-68); y=$(echo "$points" | cut -c73-136)
            mkdir -p out
            swtpm_localca --type ek --ek "x=$x,y=$y,id=secp256r1" --dir {dir}/out --vmid node --tpm2 --decryption \
              --tpm-spec-family 2.0 --tpm-spec-level 0 --tpm-spec-revision 164 --tpm-manufacturer id:00001014 \
              --tpm-model swtpm --tpm-version id:20191023 --configfile {dir}/localca.conf --optsfile {dir}/localca.options
            tpm2_nvdefine -Q 0x1c0000a -C p -s $(stat -c %s out/ek.cert) \
              -a "ppwrite|ppread|ownerread|authread|no_da|platformcreate|writedefine|write_stclear"
            tpm2_nvwrite -Q 0x1c0000a -C p -i out/ek.cert"#,
            dir = dir.display(),
            port = self.port,
        );
        run(Command::new("bash").arg("-c").arg(script));
    }

    /// Puts bytes into an NV index as a TPM's maker does.
    pub(crate) fn provision_index(&self, index: u32, bytes: &[u8]) {
        let file = self.dir.path().join("index");
        std::fs::write(&file, bytes).unwrap();
        let tcti = format!("swtpm:host=127.0.0.1,port={}", self.port);
        let (index, size) = (format!("{index:#010x}"), bytes.len().to_string());
        run(Command::new("tpm2_nvdefine")
            .args(["-Q", "--tcti", &tcti, &index, "-C", "p", "-s", &size, "-a"])
            .arg("ppwrite|ppread|ownerread|authread|no_da|platformcreate|writedefine"));
        run(Command::new("tpm2_nvwrite")
            .args(["-Q", "--tcti", &tcti, &index, "-C", "p", "-i"])
            .arg(&file));
    }

    /// Takes an NV index away that swtpm_setup made.
    pub(crate) fn remove_index(&self, index: u32) {
        let tcti = format!("swtpm:host=127.0.0.1,port={}", self.port);
        let index = format!("{index:#010x}");
        run(Command::new("tpm2_nvundefine").args(["-Q", "--tcti", &tcti, &index, "-C", "p"]));
    }

    /// Runs one of tpm2-tools.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) {
        let tcti = format!("swtpm:host=127.0.0.1,port={}", self.port);
        run(Command::new(program)
            .args(["--tcti", &tcti])
            .args(arguments));
    }

    /// One wrong password, where none is allowed.
    pub(crate) fn lock_out(&self) {
        let script = format!(
            r#"set -e; cd {dir}; export TPM2TOOLS_TCTI="swtpm:host=127.0.0.1,port={port}"
            tpm2_dictionarylockout --setup-parameters --max-tries=1 --recovery-time=3600 --lockout-recovery-time=3600
            tpm2_createprimary -Q -C o -G ecc -p right -c guarded.ctx; tpm2_flushcontext -t
            ! tpm2_create -Q -C guarded.ctx -P wrong -G ecc -u x.pub -r x.priv
            tpm2_flushcontext -t; tpm2_flushcontext -l; tpm2_flushcontext -s"#,
            dir = self.dir.path().display(),
            port = self.port,
        );
        run(Command::new("bash").arg("-c").arg(script));
    }

    /// What the CA that made this TPM's EK certificates is known by.
    pub(crate) fn ca_certificates(&self) -> Vec<(String, Vec<u8>)> {
        ["swtpm-localca-rootca-cert.pem", "issuercert.pem"]
            .iter()
            .map(|name| {
                (
                    (*name).to_owned(),
                    std::fs::read(self.dir.path().join("ca").join(name)).unwrap(),
                )
            })
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("swtpm.log")).unwrap_or_default()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn manufacture(dir: &Path) {
    let path = |name: &str| -> PathBuf { dir.join(name) };
    std::fs::create_dir(path("state")).unwrap();
    std::fs::create_dir(path("ca")).unwrap();
    let shown = dir.display();
    std::fs::write(
        path("localca.conf"),
        format!(
            "statedir = {shown}/ca\nsigningkey = {shown}/ca/signkey.pem\n\
             issuercert = {shown}/ca/issuercert.pem\ncertserial = {shown}/ca/certserial\n"
        ),
    )
    .unwrap();
    std::fs::write(
        path("localca.options"),
        "--platform-manufacturer Edgeward\n--platform-version 1\n--platform-model test\n",
    )
    .unwrap();
    std::fs::write(
        path("setup.conf"),
        format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {shown}/localca.conf\n\
             create_certs_tool_options = {shown}/localca.options\nactive_pcr_banks = sha256\n"
        ),
    )
    .unwrap();
    run(Command::new("swtpm_setup")
        .args([
            "--tpm2",
            "--create-ek-cert",
            "--lock-nvram",
            "--overwrite",
            "--vmid",
            "node",
        ])
        .arg("--tpmstate")
        .arg(path("state"))
        .arg("--config")
        .arg(path("setup.conf")));
}

fn spawn(dir: &Path, port: u16) -> Child {
    Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", dir.join("state").display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port}"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={}", port + 1))
        .arg("--log")
        .arg(format!("file={},level=1", dir.join("swtpm.log").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn answers(child: &mut Child, port: u16) -> bool {
    let until = Instant::now() + READY;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), READY).is_ok() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    false
}

/// libtss2 wants the control port right after the command port.
fn free_pair() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
