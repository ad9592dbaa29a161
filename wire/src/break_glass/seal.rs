//! The file that lies in the envelope.
//!
//! `"EWBG" | version 1 | salt [16] | nonce [12] | AES-256-GCM(plaintext) and tag [16]`. The key is
//! HKDF-SHA256(salt, code, `"edgeward-break-glass-seal-v1"`); what precedes the nonce is the associated data. The
//! plaintext, lengths big-endian: `grant u32+bytes | key set u32+bytes`. The key set lets an operator who is offline
//! check the grant under the roots of their context; a node uses its own.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::code::Code;

/// Largest file, in bytes.
pub const MAX_SEALED_BYTES: usize = 128 * 1024;
/// Bytes of the salt.
pub const SALT_BYTES: usize = 16;
/// Bytes of the nonce.
pub const NONCE_BYTES: usize = NONCE_LEN;

const MAGIC: &[u8; 5] = b"EWBG\x01";
const INFO: &[u8] = b"edgeward-break-glass-seal-v1";
const HEAD_BYTES: usize = MAGIC.len() + SALT_BYTES;

/// What is sealed: signed objects, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    pub grant: Vec<u8>,
    pub key_set: Vec<u8>,
}

/// The file does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnsealed {
    #[error("not a sealed break-glass file of a known version")]
    Format,
    #[error("larger than the limit in bytes: {MAX_SEALED_BYTES}")]
    TooLarge,
    #[error("does not open: the code belongs to another file, or the file was altered")]
    Seal,
}

/// Seals under a code that is used for nothing else. Salt and nonce are fresh random bytes.
pub fn seal(
    contents: &Contents,
    code: &Code,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>, NotUnsealed> {
    let mut file = [MAGIC.as_slice(), &salt].concat();
    let key = key(code, &salt)?;
    let mut body = Vec::new();
    for part in [&contents.grant, &contents.key_set] {
        let length = u32::try_from(part.len()).map_err(|_| NotUnsealed::TooLarge)?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(part);
    }
    let aad = Aad::from(file.clone());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
        .map_err(|_| NotUnsealed::Seal)?;
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&body);
    match file.len() <= MAX_SEALED_BYTES {
        true => Ok(file),
        false => Err(NotUnsealed::TooLarge),
    }
}

pub fn unseal(file: &[u8], code: &Code) -> Result<Contents, NotUnsealed> {
    if file.len() > MAX_SEALED_BYTES {
        return Err(NotUnsealed::TooLarge);
    }
    let (head, rest) = file
        .split_at_checked(HEAD_BYTES)
        .ok_or(NotUnsealed::Format)?;
    let salt = head.strip_prefix(MAGIC).ok_or(NotUnsealed::Format)?;
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_BYTES>()
        .ok_or(NotUnsealed::Format)?;
    let key = key(code, salt)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let plain = key
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(head),
            &mut sealed,
        )
        .map_err(|_| NotUnsealed::Seal)?;
    let (grant, rest) = part(plain)?;
    let (key_set, rest) = part(rest)?;
    match rest.is_empty() {
        true => Ok(Contents {
            grant: grant.to_vec(),
            key_set: key_set.to_vec(),
        }),
        false => Err(NotUnsealed::Format),
    }
}

fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), NotUnsealed> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(NotUnsealed::Format)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| NotUnsealed::Format)?;
    rest.split_at_checked(length).ok_or(NotUnsealed::Format)
}

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        AES_256_GCM.key_len()
    }
}

fn key(code: &Code, salt: &[u8]) -> Result<LessSafeKey, NotUnsealed> {
    let mut bytes = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(code.bytes())
        .expand(&[INFO], KeyBytes)
        .and_then(|okm| okm.fill(bytes.as_mut_slice()))
        .map_err(|_| NotUnsealed::Seal)?;
    UnboundKey::new(&AES_256_GCM, bytes.as_slice())
        .map(LessSafeKey::new)
        .map_err(|_| NotUnsealed::Seal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeward_identity::Secret;

    fn code(fill: u8) -> Code {
        Code::new(Secret::new([fill; 16]))
    }

    fn contents() -> Contents {
        Contents {
            grant: b"grant".to_vec(),
            key_set: b"keys".to_vec(),
        }
    }

    #[test]
    fn any_altered_missing_or_added_byte_is_refused() {
        let file = seal(&contents(), &code(7), [1; 16], [2; 12]).unwrap();
        for index in 0..file.len() {
            let mut altered = file.clone();
            altered[index] ^= 1;
            assert!(unseal(&altered, &code(7)).is_err(), "byte {index}");
            assert!(unseal(&file[..index], &code(7)).is_err(), "cut at {index}");
        }
        let longer = [file.as_slice(), &[0]].concat();
        assert!(unseal(&longer, &code(7)).is_err());
        assert!(matches!(
            unseal(&vec![0; MAX_SEALED_BYTES + 1], &code(7)),
            Err(NotUnsealed::TooLarge)
        ));
    }

    #[test]
    fn another_code_opens_nothing() {
        let file = seal(&contents(), &code(7), [1; 16], [2; 12]).unwrap();
        assert!(matches!(unseal(&file, &code(8)), Err(NotUnsealed::Seal)));
        assert!(unseal(&file, &code(7)).is_ok_and(|opened| opened == contents()));
    }
}
