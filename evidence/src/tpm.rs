//! TPM 2.0 structures (TPM 2.0 Library part 2), parsed strictly and written back byte for byte.
//!
//! What Edgeward has no use for (other algorithms, other structure types) is refused, not skipped.

pub mod alg;
pub mod attest;
pub mod pcr;
pub mod public;
pub mod signature;

pub use alg::HashAlg;
pub use attest::{Attest, AttestBody, ClockInfo};
pub use pcr::{PcrBank, PcrSelection, PcrValue};
pub use public::{Attributes, Name, Public};
pub use signature::Signature;
