//! The WireGuard protocol engine. No I/O, no clock, no randomness of its own.
//!
//! One [`Session`] is one completed handshake with its own random index; nothing here keeps time, retries, or
//! chooses a peer ([`crate::node`] does). Handshakes are Noise IKpsk2 (WireGuard protocol, section 5.4), run by snow
//! in the one file that names it; messages, authenticators, cookies, timestamps, counters and the replay window are
//! here, one file each. Data is sealed and opened by ring.
//!
//! An initiation is opened in one pass ([`Door::read`]): it tells who sent it and when, and the answer goes on from
//! there once the caller has found the sender's pre-shared key. Nothing that holds a key has a `Debug`, and keys are
//! wiped when dropped; the cipher's working form of one lives for a batch, on the stack, and is overwritten.

mod cookie;
mod door;
mod handshake;
mod message;
mod noise;
mod random;
mod session;
mod state;
mod timestamp;
mod window;

use edgeward_identity::Secret;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub use cookie::CookieJar;
pub use door::{Admission, Door, Mood};
pub use handshake::{Initiator, Received};
pub use message::{
    DATA_OVERHEAD_BYTES, MAX_HANDSHAKE_BYTES, Message, PADDING_BYTES, padded_length,
};
pub use noise::Seed;
pub use random::{NoRandomness, Random};
pub use session::{Opened, Opening, REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, Sealing, Session};
pub use state::{NotASession, SESSION_STATE_BYTES, SessionState};
pub use timestamp::{ReplayGate, STAMP_BYTES, Stamp, StampClock};
pub use window::WINDOW_MESSAGES;

/// A pre-shared key; all zeros means "none" in the WireGuard protocol.
pub type Psk = Secret<[u8; 32]>;

/// Our static X25519 key pair. RAM only; the private half is zeroized when dropped.
pub struct StaticKeys {
    private: StaticSecret,
    public: [u8; 32],
}

/// The number by which a peer addresses one of our sessions: random, unique in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIndex(u32);

/// Why the engine refused a message. All are the peer's fault, or a stranger's, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a WireGuard message of a known kind and length")]
    Malformed,
    #[error("first authenticator is wrong: made for another key")]
    WrongMac,
    #[error("message does not authenticate")]
    NotAuthentic,
    #[error("public key agrees on nothing")]
    WeakKey,
    #[error("message counter was used before or is too old")]
    Replayed,
    #[error("timestamp is not newer than the last one")]
    OldTimestamp,
    #[error("message does not belong to this handshake or session")]
    Unexpected,
    #[error("plaintext is not a whole IP packet")]
    NotIp,
    #[error("session has sent as many messages as it may")]
    Exhausted,
    #[error("buffer too small in bytes: {0}")]
    Buffer(usize),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl StaticKeys {
    pub fn new(private: Secret<[u8; 32]>) -> Self {
        let private = StaticSecret::from(*private.expose());
        let public = PublicKey::from(&private).to_bytes();
        Self { private, public }
    }

    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// For the process that takes our place.
    /// For another process of this machine: kept as secret there as here.
    pub fn private(&self) -> Secret<[u8; 32]> {
        Secret::new(self.private.to_bytes())
    }

    /// X25519 with a peer's key; `None` if the result is all zeros (a non-contributory key, RFC 7748 section 6).
    pub fn agree(&self, peer: &[u8; 32]) -> Option<Secret<[u8; 32]>> {
        let shared = self.private.diffie_hellman(&PublicKey::from(*peer));
        shared
            .was_contributory()
            .then(|| Secret::new(*shared.as_bytes()))
    }
}

impl SessionIndex {
    pub fn from_random(random: u32) -> Self {
        Self(random)
    }
}

impl Seed {
    /// Draws what one handshake needs.
    pub fn draw(random: &dyn Random) -> Result<Self, NoRandomness> {
        let mut seed = Self {
            ephemeral: Zeroizing::new([0; 32]),
            mask: Zeroizing::new([0; 32]),
        };
        random.fill(seed.ephemeral.as_mut_slice())?;
        random.fill(seed.mask.as_mut_slice())?;
        Ok(seed)
    }
}

#[cfg(test)]
mod tests;
