//! The Noise handshake under WireGuard: the one file that names snow.
//!
//! snow runs the pattern; every primitive it works with is handed to it here: X25519 that refuses all-zero results,
//! ring's ChaCha20-Poly1305, BLAKE2s, and randomness that came from outside. snow does not wipe what it frees. So
//! private keys and cipher keys live in our objects, which do; the pre-shared key is there only during the one call
//! that mixes it in; and snow's copies of the chaining key, from which session keys follow, are blinded by a mask.

use std::sync::{Arc, LazyLock};

use blake2::{Blake2s256, Digest};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{Psk, Refused, StaticKeys};
use edgeward_identity::Secret;

const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// Where IKpsk2 mixes the pre-shared key in: the end of the second message.
const PSK_POSITION: usize = 2;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const HASH_BLOCK_BYTES: usize = 64;

static PARAMS: LazyLock<Option<NoiseParams>> = LazyLock::new(|| PROTOCOL.parse().ok());
/// The chaining key before the first secret is mixed in: public, and the only one that is not blinded.
static FIRST_CHAINING_KEY: LazyLock<[u8; HASH_BYTES]> =
    LazyLock::new(|| Blake2s256::digest(PROTOCOL.as_bytes()).into());

/// What one handshake needs of randomness. Never used twice.
pub struct Seed {
    pub(super) ephemeral: Zeroizing<[u8; KEY_BYTES]>,
    pub(super) mask: Zeroizing<[u8; HASH_BYTES]>,
}

/// One handshake under way, on either side.
pub(super) struct Noise(HandshakeState);

/// Keys of a finished handshake: initiator to responder, and back.
pub(super) struct Split {
    pub(super) forth: Secret<[u8; KEY_BYTES]>,
    pub(super) back: Secret<[u8; KEY_BYTES]>,
}

impl Noise {
    pub(super) fn initiator(
        keys: &Arc<StaticKeys>,
        peer: &[u8; KEY_BYTES],
        seed: Seed,
    ) -> Result<Self, Refused> {
        Self::build(keys, Some(peer), seed, PROLOGUE)
    }

    pub(super) fn responder(keys: &Arc<StaticKeys>, seed: Seed) -> Result<Self, Refused> {
        Self::build(keys, None, seed, PROLOGUE)
    }

    fn build(
        keys: &Arc<StaticKeys>,
        peer: Option<&[u8; KEY_BYTES]>,
        seed: Seed,
        prologue: &[u8],
    ) -> Result<Self, Refused> {
        let params = PARAMS.clone().ok_or(Refused::Unexpected)?;
        let parts = Parts {
            keys: Arc::clone(keys),
            seed: Arc::new(seed),
        };
        let builder = Builder::with_resolver(params, Box::new(parts))
            .local_private_key(keys.private.as_bytes())
            .and_then(|builder| builder.prologue(prologue))
            .map_err(refused)?;
        let state = match peer {
            Some(peer) => builder
                .remote_public_key(peer)
                .and_then(Builder::build_initiator),
            None => builder.build_responder(),
        };
        state.map(Self).map_err(refused)
    }

    /// The next message of the handshake that needs no pre-shared key.
    pub(super) fn write(&mut self, payload: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        // snow asks for the room first and for the rest later: checked here so that no partial message is left.
        self.0.write_message(payload, out).map_err(refused)
    }

    pub(super) fn read(&mut self, message: &[u8], payload: &mut [u8]) -> Result<usize, Refused> {
        self.0.read_message(message, payload).map_err(refused)
    }

    pub(super) fn write_under(
        &mut self,
        psk: &Psk,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Refused> {
        self.under(psk, |state| state.write_message(payload, out))
    }

    pub(super) fn read_under(
        &mut self,
        psk: &Psk,
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, Refused> {
        self.under(psk, |state| state.read_message(message, payload))
    }

    /// The peer's static key, once a message has shown it.
    pub(super) fn remote(&self) -> Option<[u8; KEY_BYTES]> {
        self.0.get_remote_static()?.first_chunk().copied()
    }

    /// The session keys, once both messages are through.
    pub(super) fn split(mut self) -> Result<Split, Refused> {
        if !self.0.is_handshake_finished() {
            return Err(Refused::Unexpected);
        }
        let (forth, back) = self.0.dangerously_get_raw_split();
        Ok(Split {
            forth: Secret::new(forth),
            back: Secret::new(back),
        })
    }

    fn under<T>(
        &mut self,
        psk: &Psk,
        act: impl FnOnce(&mut HandshakeState) -> Result<T, snow::Error>,
    ) -> Result<T, Refused> {
        let set = self.0.set_psk(PSK_POSITION, psk.expose());
        let result = set.and_then(|()| act(&mut self.0));
        let wiped = self.0.set_psk(PSK_POSITION, &[0; KEY_BYTES]);
        wiped.and(result).map_err(refused)
    }
}

fn refused(error: snow::Error) -> Refused {
    match error {
        snow::Error::Dh => Refused::WeakKey,
        snow::Error::Decrypt => Refused::NotAuthentic,
        snow::Error::Input => Refused::Malformed,
        _ => Refused::Unexpected,
    }
}

/// What snow asks for by name.
struct Parts {
    keys: Arc<StaticKeys>,
    seed: Arc<Seed>,
}

impl CryptoResolver for Parts {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(Arc::clone(&self.seed)))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| {
            Box::new(X25519 {
                ours: Arc::clone(&self.keys),
                private: None,
                public: [0; KEY_BYTES],
            }) as Box<dyn Dh>
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| {
            Box::new(Blake2s {
                state: Blake2s256::new(),
                seed: Arc::clone(&self.seed),
            }) as Box<dyn Hash>
        })
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::new(ChaChaPoly(Zeroizing::new([0; KEY_BYTES]))) as Box<dyn Cipher>)
    }
}

/// Gives the one ephemeral key, once.
struct Once(Option<Arc<Seed>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != seed.ephemeral.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(seed.ephemeral.as_slice());
        Ok(())
    }
}

struct X25519 {
    /// Our static pair, whose public half need not be computed again.
    ours: Arc<StaticKeys>,
    private: Option<StaticSecret>,
    public: [u8; KEY_BYTES],
}

impl X25519 {
    fn take(&mut self, private: StaticSecret) {
        self.public = PublicKey::from(&private).to_bytes();
        self.private = Some(private);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, private: &[u8]) {
        let ours: bool =
            subtle::ConstantTimeEq::ct_eq(&self.ours.private.as_bytes()[..], private).into();
        if ours {
            self.private = Some(self.ours.private.clone());
            self.public = self.ours.public;
        } else if let Ok(private) = <[u8; KEY_BYTES]>::try_from(private) {
            self.take(StaticSecret::from(private));
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; KEY_BYTES]);
        random.try_fill_bytes(private.as_mut_slice())?;
        self.take(StaticSecret::from(*private));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private
            .as_ref()
            .map_or(&[][..], |private| private.as_bytes())
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let private = self.private.as_ref().ok_or(snow::Error::Dh)?;
        let public: &[u8; KEY_BYTES] = public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = private.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        let out = out.get_mut(..KEY_BYTES).ok_or(snow::Error::Dh)?;
        out.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

struct ChaChaPoly(Zeroizing<[u8; KEY_BYTES]>);

impl ChaChaPoly {
    fn key(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.0.as_slice());
        key.ok().map(LessSafeKey::new)
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.0.copy_from_slice(key);
    }

    /// Zero if there is no room: the caller compares lengths, and nothing in clear is left in `out`.
    fn encrypt(&self, nonce: u64, data: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let length = plaintext.len();
        let Some((text, rest)) = out.split_at_mut_checked(length) else {
            return 0;
        };
        let (Some(key), Some(place)) = (self.key(), rest.get_mut(..TAG_BYTES)) else {
            return 0;
        };
        text.copy_from_slice(plaintext);
        match key.seal_in_place_separate_tag(nonce_of(nonce), Aad::from(data), text) {
            Ok(tag) => {
                place.copy_from_slice(tag.as_ref());
                length + TAG_BYTES
            }
            Err(_) => {
                text.fill(0);
                0
            }
        }
    }

    fn decrypt(
        &self,
        nonce: u64,
        data: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let length = ciphertext.len().checked_sub(TAG_BYTES);
        let (text, tag) = length
            .and_then(|length| ciphertext.split_at_checked(length))
            .ok_or(snow::Error::Decrypt)?;
        let tag = Tag::try_from(tag).map_err(|_| snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(text);
        let key = self.key().ok_or(snow::Error::Decrypt)?;
        key.open_in_place_separate_tag(nonce_of(nonce), Aad::from(data), tag, out, 0..)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(text.len())
    }
}

/// Four zero bytes, then the counter, little endian.
pub(super) fn nonce_of(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    for (byte, of) in nonce.iter_mut().skip(4).zip(counter.to_le_bytes()) {
        *byte = of;
    }
    Nonce::assume_unique_for_key(nonce)
}

struct Blake2s {
    state: Blake2s256,
    seed: Arc<Seed>,
}

impl Blake2s {
    /// Blinds a chaining key, or takes the blinding away.
    fn blind(&self, key: &mut [u8]) {
        for (byte, mask) in key.iter_mut().zip(self.seed.mask.iter()) {
            *byte ^= mask;
        }
    }

    fn mac(&mut self, key: &[u8], data: &[u8]) -> Zeroizing<[u8; HASH_BYTES]> {
        let mut out = Zeroizing::new([0; HASH_BYTES]);
        self.hmac(key, data, out.as_mut_slice());
        out
    }
}

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        HASH_BLOCK_BYTES
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }

    fn reset(&mut self) {
        self.state = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.state.finalize_reset();
        for (byte, of) in out.iter_mut().zip(hash) {
            *byte = of;
        }
    }

    /// As the trait defines it, but for the blinding. Only the last call, which makes the session keys, mixes
    /// nothing in; its first output is a key, every other's is the next chaining key.
    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        input: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        out3: &mut [u8],
    ) {
        let mut key = Zeroizing::new([0; HASH_BYTES]);
        for (byte, of) in key.iter_mut().zip(chaining_key) {
            *byte = *of;
        }
        if *key != *FIRST_CHAINING_KEY {
            self.blind(key.as_mut_slice());
        }
        let extracted = self.mac(key.as_slice(), input);
        let mut previous = Zeroizing::new(Vec::with_capacity(HASH_BYTES + 1));
        for (number, out) in (1u8..).zip([out1, out2, out3]).take(outputs) {
            previous.push(number);
            let expanded = self.mac(extracted.as_slice(), &previous);
            for (byte, of) in out.iter_mut().zip(expanded.iter()) {
                *byte = *of;
            }
            if number == 1 && !input.is_empty() {
                self.blind(out.get_mut(..HASH_BYTES).unwrap_or_default());
            }
            previous.clear();
            previous.extend_from_slice(expanded.as_slice());
        }
    }
}

#[cfg(test)]
mod tests;
