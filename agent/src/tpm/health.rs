//! What an operator asks of a TPM before trusting it with a node.

use tss_esapi::constants::PropertyTag;

use super::TpmError;
use super::device::Device;

/// The TPM's own account of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Four characters of the vendor, such as `IBM ` or `INTC`.
    pub manufacturer: String,
    /// Failed authorizations counted at present; at `lockout_limit` the TPM locks.
    pub lockout_counter: u32,
    pub lockout_limit: u32,
}

/// Reads the TPM's properties.
pub fn health(device: &mut Device) -> Result<Health, TpmError> {
    let mut property = |tag| {
        device
            .run("read a property", |context| {
                context.execute_without_session(|context| context.get_tpm_property(tag))
            })
            .map(Option::unwrap_or_default)
    };
    let manufacturer: u32 = property(PropertyTag::Manufacturer)?;
    Ok(Health {
        manufacturer: manufacturer
            .to_be_bytes()
            .into_iter()
            .filter(u8::is_ascii_graphic)
            .map(char::from)
            .collect(),
        lockout_counter: property(PropertyTag::LockoutCounter)?,
        lockout_limit: property(PropertyTag::MaxAuthFail)?,
    })
}
