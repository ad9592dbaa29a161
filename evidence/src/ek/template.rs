//! The standard EK templates (TCG EK Credential Profile, annex B): L-1 (RSA-2048), L-2 (P-256) and H-3 (P-384).
//!
//! A certificate names a key, not its attributes; the template supplies them. Credential activation then fails
//! on any TPM whose EK differs.

use crate::ek::refusal::EkRefused;
use crate::tpm::public::{Curve, Key, Scheme};
use crate::tpm::{Attributes, HashAlg, Public};

/// `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)`, SHA-256 (B.6.2, policy A).
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// `TPM2_PolicyOR` of policies A and C, SHA-384 (B.6.4, policy B).
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

const LOW: Attributes = Attributes::FIXED_TPM
    .with(Attributes::FIXED_PARENT)
    .with(Attributes::SENSITIVE_DATA_ORIGIN)
    .with(Attributes::ADMIN_WITH_POLICY)
    .with(Attributes::RESTRICTED)
    .with(Attributes::DECRYPT);
const HIGH: Attributes = LOW.with(Attributes::USER_WITH_AUTH);

/// The key in an EK certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertifiedKey {
    /// Big-endian, without leading zeros; the exponent is 65537.
    Rsa { modulus: Vec<u8> },
    Ecc {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
}

/// The `TPMT_PUBLIC` that a TPM with this EK has.
pub fn rebuild(key: &CertifiedKey) -> Result<Public, EkRefused> {
    match key {
        CertifiedKey::Rsa { modulus } if modulus.len() == 256 => Ok(low(Key::Rsa {
            bits: 2048,
            exponent: 0,
            modulus: modulus.clone(),
        })),
        CertifiedKey::Rsa { modulus } => {
            Err(EkRefused::NoTemplate(format!("rsa-{}", modulus.len() * 8)))
        }
        CertifiedKey::Ecc { curve, x, y } => {
            let key = Key::Ecc {
                curve: *curve,
                x: x.clone(),
                y: y.clone(),
            };
            Ok(match curve {
                Curve::P256 => low(key),
                Curve::P384 => Public {
                    name_alg: HashAlg::Sha384,
                    attributes: HIGH,
                    auth_policy: POLICY_B_SHA384.to_vec(),
                    symmetric: Some(256),
                    scheme: Scheme::Null,
                    key,
                },
            })
        }
    }
}

/// Whether a public area is of a standard template.
pub fn check(public: &Public) -> Result<(), EkRefused> {
    let key = match &public.key {
        Key::Rsa { modulus, .. } => CertifiedKey::Rsa {
            modulus: modulus.clone(),
        },
        Key::Ecc { curve, x, y } => CertifiedKey::Ecc {
            curve: *curve,
            x: x.clone(),
            y: y.clone(),
        },
    };
    if rebuild(&key)? != *public {
        return Err(EkRefused::NotStandard);
    }
    Ok(())
}

fn low(key: Key) -> Public {
    Public {
        name_alg: HashAlg::Sha256,
        attributes: LOW,
        auth_policy: POLICY_A_SHA256.to_vec(),
        symmetric: Some(128),
        scheme: Scheme::Null,
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_the_bytes_of_the_profile() {
        let p256 = CertifiedKey::Ecc {
            curve: Curve::P256,
            x: vec![1; 32],
            y: vec![2; 32],
        };
        let p384 = CertifiedKey::Ecc {
            curve: Curve::P384,
            x: vec![1; 48],
            y: vec![2; 48],
        };
        let mut modulus = vec![0xff; 256];
        modulus[255] = 1;
        let rsa = CertifiedKey::Rsa { modulus };
        let cases = [
            (
                p256,
                "0023000b000300b20020",
                "000600800043001000030010",
                "0020",
            ),
            (
                p384,
                "0023000c000300f20030",
                "000601000043001000040010",
                "0030",
            ),
            (
                rsa,
                "0001000b000300b20020",
                "0006008000430010080000000000",
                "0100",
            ),
        ];
        for (key, head, parameters, size) in cases {
            let public = rebuild(&key).unwrap();
            let policy = hex::encode(&public.auth_policy);
            let expected = format!("{head}{policy}{parameters}{size}");
            let bytes = hex::encode(public.to_bytes());
            assert!(bytes.starts_with(&expected), "{bytes}");
            assert_eq!(Public::parse(&public.to_bytes()), Ok(public.clone()));
            assert_eq!(check(&public), Ok(()));
        }
    }

    #[test]
    fn an_ek_with_other_attributes_is_not_standard() {
        let mut public = rebuild(&CertifiedKey::Ecc {
            curve: Curve::P256,
            x: vec![1; 32],
            y: vec![2; 32],
        })
        .unwrap();
        public.attributes = public.attributes.without(Attributes::FIXED_TPM);
        assert_eq!(check(&public), Err(EkRefused::NotStandard));
    }
}
