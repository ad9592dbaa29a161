//! The TPM thread on a real software TPM: keys, quotes, activation, power cuts, sealing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod kept;
mod keys;
mod measuring;
mod pki;
mod power;
mod sealing;
mod signing;
mod state;
mod swtpm;

use edgeward_agent::tpm::{Device, PcrRequest, Priority, Quoted, Tpm, TpmError, quote};
use edgeward_evidence::tpm::{PcrBank, PcrSelection};

const NONCE: [u8; 32] = [7; 32];

fn call<T: Send + 'static>(
    tpm: &Tpm,
    request: impl FnOnce(&mut Device) -> Result<T, TpmError> + Send + 'static,
) -> Result<T, TpmError> {
    tpm.call_blocking(Priority::Attest, request)
}

fn request(bank: PcrBank, pcrs: std::ops::Range<u8>) -> PcrRequest {
    PcrRequest {
        selection: PcrSelection::new(bank, pcrs).unwrap(),
        qualifying_data: NONCE,
    }
}

fn quoted(tpm: &Tpm) -> Quoted {
    call(tpm, |device| {
        quote::quote(device, &request(PcrBank::Sha256, 0..16))
    })
    .unwrap()
}
