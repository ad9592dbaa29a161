//! The boot: an id, and a software key that lives in RAM only and dies with the process.
//!
//! Attestation results name the boot key, so whoever holds it is the boot that was attested. It is made anew at every
//! start of the agent, never stored. After a start without the cloud a *boot statement* (an AK quote that names the
//! new key) ties it to the last result.

use std::fmt;
use std::sync::Arc;

use edgeward_audit::BootId;
use edgeward_identity::{PublicKey, Signer, SoftwareKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};

/// The kernel's name of this boot.
const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Sets boot ids apart from every other use of SHA-256.
const LABEL: &[u8] = b"edgeward boot id v1\n";

/// This boot, as far as Edgeward is concerned: from one start of the agent to the next.
pub struct Boot {
    id: BootId,
    kernel: String,
    key: Arc<SoftwareKey>,
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
    /// Reads the kernel's boot id and makes a key.
    pub fn begin() -> Result<Self, BootError> {
        let kernel = std::fs::read_to_string(KERNEL_BOOT_ID).map_err(BootError::KernelBootId)?;
        Self::of_kernel_boot(kernel.trim())
    }

    /// As [`Boot::begin`], with the kernel's boot id handed in.
    pub fn of_kernel_boot(kernel: &str) -> Result<Self, BootError> {
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
            key: Arc::new(key),
        })
    }

    /// Names this start in journals and sessions.
    pub fn id(&self) -> BootId {
        self.id
    }

    /// The kernel's boot id: equal for starts of the agent between which the machine did not reboot, so that their
    /// `CLOCK_BOOTTIME` is one clock.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// May only be asked to sign.
    pub fn signer(&self) -> Arc<dyn Signer> {
        self.key.clone()
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot")
            .field("id", &self.id)
            .field("kernel", &self.kernel)
            .field("key", self.key.public_key())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_starts_within_one_kernel_boot_share_neither_id_nor_key() {
        let one = Boot::of_kernel_boot("a").unwrap();
        let two = Boot::of_kernel_boot("a").unwrap();
        assert_ne!(one.id(), two.id());
        assert_ne!(one.public_key(), two.public_key());
        assert_eq!(one.kernel(), two.kernel());
    }
}
