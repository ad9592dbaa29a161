//! ML-KEM-768 (FIPS 203), with the randomness handed in.
//!
//! It makes the pre-shared keys hybrid: whoever records the traffic today must later break both X25519 (in TLS)
//! and ML-KEM. It authenticates nothing; TLS and the proofs do.

use edgeward_identity::Secret;
use ml_kem::{B32, Decapsulate, DecapsulationKey, EncapsulationKey, KeyExport, MlKem768, Seed};
use zeroize::Zeroize;

use super::codec::{CIPHERTEXT_BYTES, ENCAPSULATION_KEY_BYTES};

/// Random bytes that a key pair is made from.
pub const SEED_BYTES: usize = 64;

/// The initiator's half: made for one bind, used once.
pub struct KemKey(DecapsulationKey<MlKem768>);

/// What [`encapsulate`] makes: the ciphertext for the peer, and the secret that both then share.
pub type Encapsulated = (Box<[u8; CIPHERTEXT_BYTES]>, Secret<[u8; 32]>);

/// The encapsulation key does not have the form of FIPS 203, section 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ml-kem-768 encapsulation key")]
pub struct BadKey;

impl KemKey {
    pub fn from_seed(seed: &Secret<[u8; SEED_BYTES]>) -> Self {
        let mut copy = Seed::from(*seed.expose());
        let key = DecapsulationKey::from_seed(copy);
        copy.as_mut_slice().zeroize();
        Self(key)
    }

    pub fn encapsulation_key(&self) -> Box<[u8; ENCAPSULATION_KEY_BYTES]> {
        let mut out = Box::new([0; ENCAPSULATION_KEY_BYTES]);
        out.copy_from_slice(&self.0.encapsulation_key().to_bytes());
        out
    }

    /// The shared secret; for a ciphertext made for another key a pseudorandom one (implicit rejection).
    pub fn decapsulate(self, ciphertext: &[u8; CIPHERTEXT_BYTES]) -> Secret<[u8; 32]> {
        let mut shared = self.0.decapsulate(&(*ciphertext).into());
        let secret = Secret::new(shared.into());
        shared.as_mut_slice().zeroize();
        secret
    }
}

/// The responder's half: a fresh secret and the ciphertext that carries it. `random` must be used once.
pub fn encapsulate(
    encapsulation_key: &[u8; ENCAPSULATION_KEY_BYTES],
    random: &Secret<[u8; 32]>,
) -> Result<Encapsulated, BadKey> {
    let key =
        EncapsulationKey::<MlKem768>::new(&(*encapsulation_key).into()).map_err(|_| BadKey)?;
    let mut message = B32::from(*random.expose());
    let (ciphertext, mut shared) = key.encapsulate_deterministic(&message);
    message.as_mut_slice().zeroize();
    let mut out = Box::new([0; CIPHERTEXT_BYTES]);
    out.copy_from_slice(&ciphertext);
    let secret = Secret::new(shared.into());
    shared.as_mut_slice().zeroize();
    Ok((out, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_out_of_range_is_refused() {
        let bad = [0xff; ENCAPSULATION_KEY_BYTES];
        assert_eq!(encapsulate(&bad, &Secret::new([1; 32])).err(), Some(BadKey));
    }

    #[test]
    fn both_sides_agree_and_an_altered_ciphertext_gives_another_secret() {
        let seed = Secret::new([7; SEED_BYTES]);
        let key = KemKey::from_seed(&seed).encapsulation_key();
        let (ciphertext, ours) = encapsulate(&key, &Secret::new([9; 32])).unwrap();
        let theirs = KemKey::from_seed(&seed).decapsulate(&ciphertext);
        assert!(ours.matches(theirs.expose()));
        let mut altered = ciphertext.clone();
        altered[0] ^= 1;
        let wrong = KemKey::from_seed(&seed).decapsulate(&altered);
        assert!(!ours.matches(wrong.expose()));
    }
}
