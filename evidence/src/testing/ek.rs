//! A software endorsement key that answers credential challenges as `TPM2_ActivateCredential` does.

use cfb_mode::cipher::KeyIvInit;
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::{SecureRandom, SystemRandom};

use crate::ek::template::{self, CertifiedKey};
use crate::kdf::{kdfa, kdfe};
use crate::make_credential::{Credential, SECRET_BYTES};
use crate::reader::Reader;
use crate::tpm::public::Curve;
use crate::tpm::{Name, Public};

#[expect(
    deprecated,
    reason = "the only way to give ring a known private key for an agreement"
)]
pub(crate) type FixedRandom<'a> = ring::test::rand::FixedSliceRandom<'a>;

/// A P-256 or P-384 EK of the standard template with its private key.
#[derive(Debug)]
pub struct SoftwareEk {
    curve: Curve,
    private: Vec<u8>,
    public: Public,
}

impl SoftwareEk {
    pub fn generate(curve: Curve) -> Self {
        let mut private = vec![0; curve.coordinate_len()];
        SystemRandom::new()
            .fill(&mut private)
            .expect("the random source works");
        // Below the order of both curves.
        if let Some(top) = private.first_mut() {
            *top &= 0x7f;
        }
        let point = agreement_key(curve, &private)
            .compute_public_key()
            .expect("a private key has a public one");
        let (x, y) = point
            .as_ref()
            .split_at(1)
            .1
            .split_at(curve.coordinate_len());
        let key = CertifiedKey::Ecc {
            curve,
            x: x.to_vec(),
            y: y.to_vec(),
        };
        let public = template::rebuild(&key).expect("both curves have a template");
        Self {
            curve,
            private,
            public,
        }
    }

    pub fn public(&self) -> &Public {
        &self.public
    }

    /// Recovers the secret of a challenge for the object named `object`; `None` for anything else (Library part 1, 24.5).
    pub fn activate(&self, object: &Name, credential: &Credential) -> Option<[u8; SECRET_BYTES]> {
        let hash = self.public.name_alg;
        let length = self.curve.coordinate_len();
        let mut reader =
            Reader::new(&credential.encrypted_secret, "secret", 2 * (length + 2)).ok()?;
        let x = reader.sized("x", length).ok()?;
        let y = reader.sized("y", length).ok()?;
        let own = self.public.ecc_point()?;
        let own_x = own.get(1..=length)?;
        let bits = u32::try_from(hash.digest_len() * 8).ok()?;
        let peer = [&[4], x, y].concat();
        let peer = UnparsedPublicKey::new(algorithm(self.curve), peer);
        let key = agreement_key(self.curve, &self.private);
        let seed =
            agree_ephemeral(key, &peer, |z| kdfe(hash, z, b"IDENTITY", x, own_x, bits)).ok()?;

        let mut reader = Reader::new(&credential.id_object, "credential", 1024).ok()?;
        let mac = reader.sized("integrity", hash.digest_len()).ok()?;
        let mut sealed = reader.take(SECRET_BYTES + 2).ok()?.to_vec();
        let mac_key = kdfa(hash, &seed, b"INTEGRITY", &[], &[], bits);
        if hash.hmac(&mac_key, &[&sealed, object.as_bytes()]).as_ref() != mac {
            return None;
        }
        let symmetric_bits = self.public.symmetric?;
        let key = kdfa(
            hash,
            &seed,
            b"STORAGE",
            object.as_bytes(),
            &[],
            symmetric_bits.into(),
        );
        let iv = [0; 16];
        match self.curve {
            Curve::P256 => cfb_mode::Decryptor::<aes::Aes128>::new_from_slices(&key, &iv)
                .ok()?
                .decrypt(&mut sealed),
            Curve::P384 => cfb_mode::Decryptor::<aes::Aes256>::new_from_slices(&key, &iv)
                .ok()?
                .decrypt(&mut sealed),
        }
        sealed.get(2..)?.try_into().ok()
    }
}

fn algorithm(curve: Curve) -> &'static agreement::Algorithm {
    match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
    }
}

fn agreement_key(curve: Curve, private: &[u8]) -> EphemeralPrivateKey {
    EphemeralPrivateKey::generate(algorithm(curve), &FixedRandom { bytes: private })
        .expect("a private key in range")
}
