//! The boot: an id, and a software key that dies with it.
//!
//! Attestation results name the boot key, so whoever holds it is the boot that was attested. It is made once per boot
//! of the machine and lives in RAM only. An agent that is restarted within a boot finds it again in its run folder if
//! that folder is a RAM file system (`/run` is); elsewhere nothing is written, and a restart counts as a new boot. A
//! boot ends when the kernel's boot id changes or the TPM was reset.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgeward_audit::BootId;
use edgeward_identity::{PublicKey, Secret, Signer, SoftwareKey};
use nix::sys::statfs::{FsType, statfs};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};

use crate::root::Counts;

/// The kernel's name of this boot.
const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Sets boot ids apart from every other use of SHA-256.
const LABEL: &[u8] = b"edgeward boot id v1\n";
/// Where a boot's key waits for the next start of the agent.
const FILE: &str = "boot-key";
const FILE_MODE: u32 = 0o600;
/// Longest file, in bytes: marker, id and key.
const MAX_FILE_BYTES: u64 = 512;
/// Magic numbers of RAM file systems (linux/magic.h): tmpfs and ramfs.
const RAM_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];
const MARKER_BYTES: usize = 32;
const ID_BYTES: usize = 16;

/// This boot, as far as Edgeward is concerned.
pub struct Boot {
    id: BootId,
    kernel: String,
    counts: Option<Counts>,
    key: Arc<SoftwareKey>,
    /// A folder in RAM, where keys of this boot wait for the next start of the agent.
    folder: Option<PathBuf>,
}

/// The boot could not be named or given a key.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("kernel's boot id cannot be read: {0}")]
    KernelBootId(#[source] std::io::Error),
    #[error("the random source failed")]
    Random,
}

impl Boot {
    /// The running boot: found in `run_folder`, or begun.
    pub fn begin(run_folder: &Path, counts: Option<Counts>) -> Result<Self, BootError> {
        let kernel = std::fs::read_to_string(KERNEL_BOOT_ID).map_err(BootError::KernelBootId)?;
        let kernel = kernel.trim();
        if !is_ram(run_folder) {
            tracing::info!(
                folder = %run_folder.display(),
                "the run folder is not in ram: a restart of the agent counts as a new boot"
            );
            return Self::new(kernel, counts);
        }
        let path = run_folder.join(FILE);
        if let Some(found) = Self::find(&path, kernel, counts) {
            return Ok(found.kept_in(run_folder));
        }
        let boot = Self::new(kernel, counts)?.kept_in(run_folder);
        boot.keep_key();
        Ok(boot)
    }

    /// The same boot, whose keys wait in `folder`.
    #[must_use]
    pub(crate) fn kept_in(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Where keys of this boot wait for the next start; none: nowhere.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn keep_key(&self) {
        let Some(folder) = &self.folder else { return };
        let path = folder.join(FILE);
        if let Err(error) = self.keep(&path) {
            tracing::warn!(path = %path.display(), %error, "the boot key cannot be kept for a restart");
        }
    }

    /// A boot that nothing is known of yet.
    pub fn new(kernel: &str, counts: Option<Counts>) -> Result<Self, BootError> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| BootError::Random)?;
        let mut context = Context::new(&SHA256);
        context.update(LABEL);
        context.update(kernel.as_bytes());
        context.update(&random);
        let digest = context.finish();
        let id = digest.as_ref().first_chunk().ok_or(BootError::Random)?;
        let key = SoftwareKey::generate().map_err(|_| BootError::Random)?;
        Ok(Self {
            id: BootId::from_bytes(*id),
            kernel: kernel.to_owned(),
            counts,
            key: Arc::new(key),
            folder: None,
        })
    }

    /// The same boot with another id and key: after a damaged journal was put aside. The next start finds this one.
    pub fn renewed(&self) -> Result<Self, BootError> {
        let mut boot = Self::new(&self.kernel, self.counts)?;
        boot.folder.clone_from(&self.folder);
        boot.keep_key();
        Ok(boot)
    }

    /// Names this boot in journals and sessions.
    pub fn id(&self) -> BootId {
        self.id
    }

    /// The kernel's boot id: equal for starts of the agent between which the machine did not reboot, so that their
    /// `CLOCK_BOOTTIME` is one clock.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// The TPM's counts at the start; none without a TPM.
    pub fn counts(&self) -> Option<Counts> {
        self.counts
    }

    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// May only be asked to sign.
    pub fn signer(&self) -> Arc<dyn Signer> {
        self.key.clone()
    }

    fn find(path: &Path, kernel: &str, counts: Option<Counts>) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        let secret = Secret::new(bytes);
        let (marked, rest) = secret.expose().split_first_chunk::<MARKER_BYTES>()?;
        let (id, key) = rest.split_first_chunk::<ID_BYTES>()?;
        if *marked != marker(kernel, counts) {
            return None;
        }
        let key = SoftwareKey::from_pkcs8(Secret::new(key.to_vec())).ok()?;
        Some(Self {
            id: BootId::from_bytes(*id),
            kernel: kernel.to_owned(),
            counts,
            key: Arc::new(key),
            folder: None,
        })
    }

    fn keep(&self, path: &Path) -> std::io::Result<()> {
        let staged: PathBuf = path.with_extension("new");
        let _ = std::fs::remove_file(&staged);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&staged)?;
        file.write_all(&marker(&self.kernel, self.counts))?;
        file.write_all(self.id.as_bytes())?;
        file.write_all(self.key.pkcs8().expose())?;
        std::fs::rename(&staged, path)
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot")
            .field("id", &self.id)
            .field("kernel", &self.kernel)
            .field("counts", &self.counts)
            .field("key", self.key.public_key())
            .finish()
    }
}

/// What must be equal for a boot to be the same one.
fn marker(kernel: &str, counts: Option<Counts>) -> [u8; MARKER_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(b"edgeward boot marker v1\n");
    context.update(kernel.as_bytes());
    if let Some(counts) = counts {
        context.update(&counts.reset.to_be_bytes());
    }
    let mut marker = [0; MARKER_BYTES];
    marker.copy_from_slice(context.finish().as_ref());
    marker
}

fn is_ram(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| {
        RAM_FILE_SYSTEMS
            .iter()
            .any(|magic| found.filesystem_type() == FsType(*magic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Option<Counts> = Some(Counts {
        reset: 7,
        restart: 0,
    });

    #[test]
    fn a_reboot_or_a_reset_of_the_tpm_ends_the_boot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let boot = Boot::new("one", COUNTS).unwrap();
        boot.keep(&path).unwrap();
        let again = Boot::find(&path, "one", COUNTS).unwrap();
        assert_eq!(
            (again.id(), again.public_key()),
            (boot.id(), boot.public_key())
        );
        assert!(Boot::find(&path, "two", COUNTS).is_none());
        let reset = Some(Counts {
            reset: 8,
            restart: 0,
        });
        assert!(Boot::find(&path, "one", reset).is_none());
        assert!(Boot::find(&path, "one", None).is_none());
    }

    #[test]
    fn a_damaged_file_is_a_new_boot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        Boot::new("one", COUNTS).unwrap().keep(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 31, 47, 48, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(Boot::find(&path, "one", COUNTS).is_none(), "{length}");
        }
    }

    #[test]
    fn two_boots_share_neither_id_nor_key() {
        let one = Boot::new("a", None).unwrap();
        let two = one.renewed().unwrap();
        assert_ne!(one.id(), two.id());
        assert_ne!(one.public_key(), two.public_key());
    }
}
