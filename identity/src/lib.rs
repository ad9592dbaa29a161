//! The vocabulary of Edgeward: who somebody is, with which key, vouched for by whom, at what time.
//!
//! No I/O happens here apart from reading a clock ([`clock::SystemClock`]). Trust is a type:
//! [`VerifiedPeer`] has private fields and one maker, in [`tls::peer`].

pub mod bundle;
pub mod clock;
pub mod deny;
pub mod jws;
pub mod jwt;
pub mod keys;
pub mod overlay;
pub mod secret;
pub mod signed;
pub mod spiffe_id;
pub mod standing;
pub mod svid;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;

pub use bundle::TrustBundle;
pub use clock::{BootTime, Clock, SystemClock, Timestamp};
pub use deny::DenyList;
pub use keys::{PublicKey, SignError, Signer, SoftwareKey, SpkiHash};
pub use secret::Secret;
pub use signed::{KeySet, Purpose, SignedObject};
pub use spiffe_id::{Kind, SpiffeId, TrustDomain};
pub use standing::{AttestationState, Tier};
pub use svid::{Svid, SvidLeaf};
pub use tls::peer::{TrustView, VerifiedPeer};
