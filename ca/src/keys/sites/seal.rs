//! Sealing by the key of a site. Each process draws a salt for each key and derives a key of its own from both
//! (HKDF-SHA-256), so that a counter can be the nonce and no two processes, clouds or starts ever use one twice.

use std::hint::black_box;

use edgeward_identity::Secret;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::{SiteKeyFault, Unopened, random};

const SALT_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
/// What stands before the ciphertext.
const HEAD_BYTES: usize = SALT_BYTES + COUNTER_BYTES;
/// What sealing adds.
pub(in crate::keys) const OVERHEAD_BYTES: usize = HEAD_BYTES + 16;
/// Most messages under one derived key: far below what AES-GCM bears. Then a new salt is drawn.
const MAX_SEALS: u64 = 1 << 32;
const INFO: &[u8] = b"edgeward audit site key v1";

/// One key at work.
#[derive(Debug)]
pub(super) struct Sealer {
    key: Secret<[u8; 32]>,
    own: Mutex<Own>,
}

/// The derived key of this process.
struct Own {
    salt: [u8; SALT_BYTES],
    key: std::sync::Arc<Derived>,
    used: u64,
}

/// The cipher's form of a key. It has no destructor of its own, so it is overwritten by one of zeros.
struct Derived(LessSafeKey);

impl Sealer {
    pub(super) fn new(key: Secret<[u8; 32]>) -> Result<Self, SiteKeyFault> {
        let own = Mutex::new(Own::draw(&key)?);
        Ok(Self { key, own })
    }

    /// Salt, counter, ciphertext and tag.
    pub(super) fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SiteKeyFault> {
        let (salt, counter, key) = {
            let mut own = self.own.lock();
            if own.used >= MAX_SEALS {
                *own = Own::draw(&self.key)?;
            }
            let counter = own.used;
            own.used += 1;
            (own.salt, counter, own.key.clone())
        };
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.extend_from_slice(plain);
        let (_, body) = sealed.split_at_mut(HEAD_BYTES);
        let tag = key
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(context), body)
            .map_err(|_| SiteKeyFault::Seal)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (salt, rest) = sealed.split_first_chunk().ok_or(Unopened::Damaged)?;
        let (counter, body) = rest.split_first_chunk().ok_or(Unopened::Damaged)?;
        let own = {
            let own = self.own.lock();
            (own.salt == *salt).then(|| own.key.clone())
        };
        let key = match own {
            Some(key) => key,
            None => std::sync::Arc::new(derive(&self.key, salt).ok_or(Unopened::Damaged)?),
        };
        let mut body = body.to_vec();
        let plain = key
            .0
            .open_in_place(
                nonce(u64::from_be_bytes(*counter)),
                Aad::from(context),
                &mut body,
            )
            .map_err(|_| Unopened::Damaged)?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

impl Own {
    fn draw(key: &Secret<[u8; 32]>) -> Result<Self, SiteKeyFault> {
        let salt = random()?;
        let key = derive(key, &salt).ok_or(SiteKeyFault::Seal)?;
        Ok(Self {
            salt,
            key: std::sync::Arc::new(key),
            used: 0,
        })
    }
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Drop for Derived {
    fn drop(&mut self) {
        if let Ok(zeros) = UnboundKey::new(&AES_256_GCM, &[0; 32]) {
            self.0 = LessSafeKey::new(zeros);
            // Without a reader the store would be left out.
            black_box(&self.0);
        }
    }
}

fn derive(key: &Secret<[u8; 32]>, salt: &[u8; SALT_BYTES]) -> Option<Derived> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key.expose());
    let expanded = extracted.expand(&[INFO], &AES_256_GCM).ok()?;
    Some(Derived(LessSafeKey::new(UnboundKey::from(expanded))))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    let (_, low) = nonce.split_at_mut(4);
    low.copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
