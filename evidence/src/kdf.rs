//! Key derivation of TPM 2.0: `KDFa` and `KDFe` (Library part 1, 11.4.10).

use zeroize::Zeroizing;

use crate::tpm::HashAlg;

/// Longest derived key, in bits (AES-256 and a SHA-512 HMAC key need 512).
pub const MAX_KDF_BITS: u32 = 8 * 1024;

/// `KDFa(hash, key, label, contextU, contextV, bits)`: SP 800-108 in counter mode with HMAC.
/// The label is given without its terminating zero. More than [`MAX_KDF_BITS`] gives that many.
pub fn kdfa(
    hash: HashAlg,
    key: &[u8],
    label: &[u8],
    context_u: &[u8],
    context_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    derive(bits, |counter, bits| {
        let tag = hash.hmac(key, &[&counter, label, &[0], context_u, context_v, &bits]);
        Zeroizing::new(tag.as_ref().to_vec())
    })
}

/// `KDFe(hash, Z, label, partyU, partyV, bits)`: SP 800-56A concatenation.
pub fn kdfe(
    hash: HashAlg,
    z: &[u8],
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    derive(bits, |counter, _| {
        Zeroizing::new(hash.digest(&[&counter, z, label, &[0], party_u, party_v]))
    })
}

/// Calls `block` with the counter from 1 and the length in bits until there is enough.
fn derive(bits: u32, block: impl Fn([u8; 4], [u8; 4]) -> Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let bits = bits.min(MAX_KDF_BITS);
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(0);
    let mut out = Zeroizing::new(Vec::with_capacity(length + HashAlg::Sha512.digest_len()));
    let mut counter = 0_u32;
    while out.len() < length {
        counter += 1;
        out.extend_from_slice(&block(counter.to_be_bytes(), bits.to_be_bytes()));
    }
    out.truncate(length);
    // Of a length that is no multiple of eight bits, the excess bits are the high ones of the first byte.
    let excess = u32::try_from(length * 8).unwrap_or(bits) - bits;
    if let Some(first) = out.first_mut() {
        *first &= 0xff >> excess;
    }
    out
}
