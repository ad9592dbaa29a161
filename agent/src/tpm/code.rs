//! Response codes of TPM and TSS, sorted by what to do about them (TPM 2.0 part 2, 6.6; TSS 2.0 overview, 3).

use std::fmt;

use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

use super::TpmError;

/// One failure, as libtss2 reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(Error);

/// Codes after which the same command may succeed shortly.
const TRANSIENT: [u32; 4] = [RETRY, YIELDED, TESTING, NV_RATE];
const RETRY: u32 = 0x922;
const YIELDED: u32 = 0x908;
const TESTING: u32 = 0x90a;
const NV_RATE: u32 = 0x920;
const LOCKOUT: u32 = 0x921;
/// `TPM_RC_HANDLE` with its handle or parameter number masked off: no such object or index.
const HANDLE: u32 = 0x08b;
const NV_UNINITIALIZED: u32 = 0x14a;
/// `TPM_RC_INTEGRITY`, masked likewise: sealed under another storage root, or altered.
const INTEGRITY: u32 = 0x09f;
/// Format-one codes keep the number of the offending handle, session or parameter in these bits.
const FORMAT_ONE: u32 = 0x080;
const FORMAT_ONE_ERROR: u32 = 0x0bf;
/// Bits that say which layer of the TSS speaks; zero is the TPM itself, 0x0b and 0x0c resource managers.
const LAYER: u32 = 0x00ff_0000;
const LAYER_TCTI: u32 = 0x000a_0000;
const LAYER_RESOURCE_MANAGER: [u32; 2] = [0x000b_0000, 0x000c_0000];

impl Fault {
    /// The raw response code; none for a fault that the wrapper found by itself.
    pub fn code(&self) -> Option<u32> {
        let Error::Tss2Error(code) = self.0 else {
            return None;
        };
        // The crate keeps the number private; its text is "Response code value: 0x…".
        let text = match code {
            Tss2ResponseCode::Success => return Some(0),
            Tss2ResponseCode::FormatZero(zero) => zero.to_string(),
            Tss2ResponseCode::FormatOne(one) => one.to_string(),
        };
        let (_, digits) = text.rsplit_once("0x")?;
        u32::from_str_radix(digits, 16).ok()
    }

    /// The code as the TPM gave it: none if another layer speaks.
    fn tpm_code(&self) -> Option<u32> {
        let code = self.code()?;
        let layer = code & LAYER;
        (layer == 0 || LAYER_RESOURCE_MANAGER.contains(&layer)).then_some(code & !LAYER)
    }

    pub fn is_transient(&self) -> bool {
        self.tpm_code()
            .is_some_and(|code| TRANSIENT.contains(&code))
    }

    pub fn is_lockout(&self) -> bool {
        self.tpm_code() == Some(LOCKOUT)
    }

    /// The named object or NV index does not exist.
    pub fn is_absent(&self) -> bool {
        self.tpm_code()
            .is_some_and(|code| code & FORMAT_ONE != 0 && code & FORMAT_ONE_ERROR == HANDLE)
    }

    /// The NV index exists and was never written.
    pub fn is_uninitialized(&self) -> bool {
        self.tpm_code() == Some(NV_UNINITIALIZED)
    }

    /// What was loaded belongs to another storage hierarchy, or was altered.
    pub fn is_integrity(&self) -> bool {
        self.tpm_code()
            .is_some_and(|code| code & FORMAT_ONE != 0 && code & FORMAT_ONE_ERROR == INTEGRITY)
    }

    /// The transport failed, not the TPM.
    pub fn is_link(&self) -> bool {
        self.code().is_some_and(|code| code & LAYER == LAYER_TCTI)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            // The library has no text for what its transports report.
            Some(code) if self.is_link() => write!(f, "no connection ({code:#x})"),
            Some(code) => write!(f, "{} ({code:#x})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Fault {}

/// Names the act that failed.
pub(super) fn failed(what: &'static str) -> impl FnOnce(Error) -> TpmError {
    move |error| {
        let fault = Fault::from(error);
        if fault.is_lockout() {
            TpmError::Lockout
        } else {
            TpmError::Failed { what, fault }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u32) -> Fault {
        Fault::from(Error::Tss2Error(Tss2ResponseCode::from(code)))
    }

    #[test]
    fn a_lockout_is_never_taken_for_a_passing_fault() {
        assert!(fault(0x921).is_lockout());
        assert!(!fault(0x921).is_transient());
        assert!(matches!(
            failed("sign")(Error::Tss2Error(Tss2ResponseCode::from(0x921))),
            TpmError::Lockout
        ));
        for code in [0x98e, 0x9a2, 0x902, 0x903, 0x101] {
            assert!(!fault(code).is_transient(), "{code:#x}");
        }
    }

    #[test]
    fn passing_faults_are_told_from_the_rest() {
        for code in [0x922, 0x908, 0x90a, 0x920, 0x000b_0922] {
            assert!(fault(code).is_transient(), "{code:#x}");
        }
        assert!(!fault(0x000a_0908).is_transient());
    }

    #[test]
    fn absent_objects_and_broken_links_are_recognised() {
        assert!(fault(0x18b).is_absent());
        assert!(fault(0x28b).is_absent());
        assert!(!fault(0x184).is_absent());
        assert!(fault(0x14a).is_uninitialized());
        assert!(fault(0x1df).is_integrity() && !fault(0x1df).is_absent());
        assert!(!fault(0x18b).is_integrity() && !fault(0x921).is_integrity());
        assert!(fault(0x000a_000a).is_link());
        assert!(!fault(0x00a).is_link());
    }
}
