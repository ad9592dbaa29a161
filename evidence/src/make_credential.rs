//! MakeCredential in software (Library part 1, 24; part 3, `TPM2_MakeCredential`): a secret that only the TPM
//! holding an endorsement key (EK) *and* an object of a given name can recover.

use cfb_mode::cipher::KeyIvInit;
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SecureRandom;
use rsa::{BigUint, Oaep, RsaPublicKey};
use zeroize::Zeroizing;

use edgeward_identity::Secret;

use crate::kdf::{kdfa, kdfe};
use crate::reader::put_sized;
use crate::tpm::HashAlg;
use crate::tpm::public::{Curve, Key, Name, Public, RSA_EXPONENT};

/// Bytes of the secret that a challenge carries.
pub const SECRET_BYTES: usize = 32;

const IDENTITY: &[u8] = b"IDENTITY";
const STORAGE: &[u8] = b"STORAGE";
const INTEGRITY: &[u8] = b"INTEGRITY";
const AES_BLOCK_BYTES: usize = 16;

/// The secret that activation gives back.
pub type ActivationSecret = Secret<[u8; SECRET_BYTES]>;

/// A credential challenge, as `TPM2_ActivateCredential` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Content of the `TPM2B_ID_OBJECT`: sized HMAC, then the encrypted secret.
    pub id_object: Vec<u8>,
    /// Content of the `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_secret: Vec<u8>,
}

/// Why no challenge can be made for this EK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotChallenge {
    /// Not a storage key, or with algorithms other than those of the EK templates.
    #[error("ek is not a storage key of a supported kind")]
    Unsupported,
    /// RSA numbers that make no key, a point that is not on the curve.
    #[error("ek's public key is invalid")]
    InvalidKey,
    #[error("the random source failed")]
    Random,
}

impl CannotChallenge {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported => "ek_unsupported",
            Self::InvalidKey => "ek_key_invalid",
            Self::Random => "random_failed",
        }
    }
}

/// A fresh secret for a challenge.
pub fn draw_secret(random: &dyn SecureRandom) -> Result<ActivationSecret, CannotChallenge> {
    draw(random).map(Secret::new)
}

/// Makes the challenge for the TPM that holds `ek` and an object named `object`.
pub fn make_credential(
    ek: &Public,
    object: &Name,
    secret: &ActivationSecret,
    random: &dyn SecureRandom,
) -> Result<Credential, CannotChallenge> {
    let (seed, encrypted_secret) = encapsulate(ek, IDENTITY, random)?;
    let id_object = seal(ek, object, &seed, secret.expose())?;
    Ok(Credential {
        id_object,
        encrypted_secret,
    })
}

/// A seed as long as the EK's name digest, and its encryption to the EK (part 1, annexes B.10.3 and C.6.1).
fn encapsulate(
    ek: &Public,
    label: &[u8],
    random: &dyn SecureRandom,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CannotChallenge> {
    match &ek.key {
        Key::Rsa { modulus, .. } => {
            let mut seed = Zeroizing::new(vec![0; ek.name_alg.digest_len()]);
            let mut salt = Zeroizing::new(vec![0; ek.name_alg.digest_len()]);
            random
                .fill(&mut seed)
                .map_err(|_| CannotChallenge::Random)?;
            random
                .fill(&mut salt)
                .map_err(|_| CannotChallenge::Random)?;
            let encrypted = match ek.name_alg {
                HashAlg::Sha256 => rsa_oaep::<sha2::Sha256>(modulus, label, &seed, &salt),
                HashAlg::Sha384 => rsa_oaep::<sha2::Sha384>(modulus, label, &seed, &salt),
                HashAlg::Sha512 => rsa_oaep::<sha2::Sha512>(modulus, label, &seed, &salt),
                HashAlg::Sha1 => Err(CannotChallenge::Unsupported),
            }?;
            Ok((seed, encrypted))
        }
        Key::Ecc { curve, .. } => {
            let point = ek.ecc_point().ok_or(CannotChallenge::InvalidKey)?;
            encapsulate_ecc(ek.name_alg, *curve, &point, label, random)
        }
    }
}

fn encapsulate_ecc(
    hash: HashAlg,
    curve: Curve,
    ek_point: &[u8],
    label: &[u8],
    random: &dyn SecureRandom,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CannotChallenge> {
    let algorithm = match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
    };
    let ephemeral =
        EphemeralPrivateKey::generate(algorithm, random).map_err(|_| CannotChallenge::Random)?;
    let public = ephemeral
        .compute_public_key()
        .map_err(|_| CannotChallenge::Random)?;
    let (x, y) = split_point(public.as_ref(), curve).ok_or(CannotChallenge::InvalidKey)?;
    let (ek_x, _) = split_point(ek_point, curve).ok_or(CannotChallenge::InvalidKey)?;
    let bits = bits_of(hash.digest_len());
    // ring checks that the EK's point lies on the curve.
    let peer = UnparsedPublicKey::new(algorithm, ek_point);
    let seed = agree_ephemeral(ephemeral, &peer, |z| kdfe(hash, z, label, x, ek_x, bits))
        .map_err(|_| CannotChallenge::InvalidKey)?;
    let mut encrypted = Vec::new();
    put_sized(&mut encrypted, x);
    put_sized(&mut encrypted, y);
    Ok((seed, encrypted))
}

/// RSAES-OAEP; the label is hashed with a terminating zero.
fn rsa_oaep<D>(
    modulus: &[u8],
    label: &[u8],
    seed: &[u8],
    salt: &[u8],
) -> Result<Vec<u8>, CannotChallenge>
where
    D: 'static + sha2::digest::Digest + sha2::digest::DynDigest + Send + Sync,
{
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(RSA_EXPONENT))
        .map_err(|_| CannotChallenge::InvalidKey)?;
    let label = std::str::from_utf8(label).map_err(|_| CannotChallenge::Unsupported)?;
    let padding = Oaep::new_with_label::<D, _>(format!("{label}\0"));
    key.encrypt(&mut Drawn(salt), padding, seed)
        .map_err(|_| CannotChallenge::InvalidKey)
}

/// Encrypt, then authenticate (part 1, 24.4).
fn seal(
    ek: &Public,
    object: &Name,
    seed: &[u8],
    secret: &[u8],
) -> Result<Vec<u8>, CannotChallenge> {
    let hash = ek.name_alg;
    if secret.len() > hash.digest_len() {
        return Err(CannotChallenge::Unsupported);
    }
    let symmetric_bits = ek.symmetric.ok_or(CannotChallenge::Unsupported)?;
    let name = object.as_bytes();
    let key = kdfa(hash, seed, STORAGE, name, &[], symmetric_bits.into());
    let mut sealed = Vec::with_capacity(secret.len() + 2);
    put_sized(&mut sealed, secret);
    encrypt_cfb(&key, &mut sealed)?;
    let mac_key = kdfa(hash, seed, INTEGRITY, &[], &[], bits_of(hash.digest_len()));
    let mac = hash.hmac(&mac_key, &[&sealed, name]);
    let mut id_object = Vec::new();
    put_sized(&mut id_object, mac.as_ref());
    id_object.extend_from_slice(&sealed);
    Ok(id_object)
}

/// AES-CFB with a zero vector: every key is used once.
fn encrypt_cfb(key: &[u8], data: &mut [u8]) -> Result<(), CannotChallenge> {
    let iv = [0; AES_BLOCK_BYTES];
    let bad = |_| CannotChallenge::Unsupported;
    match key.len() {
        16 => cfb_mode::Encryptor::<aes::Aes128>::new_from_slices(key, &iv)
            .map_err(bad)?
            .encrypt(data),
        32 => cfb_mode::Encryptor::<aes::Aes256>::new_from_slices(key, &iv)
            .map_err(bad)?
            .encrypt(data),
        _ => return Err(CannotChallenge::Unsupported),
    }
    Ok(())
}

fn split_point(point: &[u8], curve: Curve) -> Option<(&[u8], &[u8])> {
    let coordinates = point.strip_prefix(&[4])?;
    let (x, y) = coordinates.split_at_checked(curve.coordinate_len())?;
    (y.len() == curve.coordinate_len()).then_some((x, y))
}

fn bits_of(bytes: usize) -> u32 {
    u32::try_from(bytes * 8).unwrap_or(u32::MAX)
}

pub(crate) fn draw<const N: usize>(random: &dyn SecureRandom) -> Result<[u8; N], CannotChallenge> {
    let mut bytes = [0; N];
    random
        .fill(&mut bytes)
        .map_err(|_| CannotChallenge::Random)?;
    Ok(bytes)
}

/// Randomness already drawn from the one random source, in the shape that the `rsa` crate asks for.
struct Drawn<'a>(&'a [u8]);

impl rand_core_06::RngCore for Drawn<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core_06::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core_06::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        // OAEP draws its salt once, as long as its hash: exactly what was drawn.
        let count = out.len().min(self.0.len());
        let (now, later) = self.0.split_at(count);
        for (to, from) in out.iter_mut().zip(now) {
            *to = *from;
        }
        self.0 = later;
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl rand_core_06::CryptoRng for Drawn<'_> {}

#[cfg(test)]
mod tests;
