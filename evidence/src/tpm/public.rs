//! `TPMT_PUBLIC` (part 2, 12.2.4): the public area of a key, its attributes and its name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::alg::{
    ALG_AES, ALG_CFB, ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_RSA, ALG_RSAPSS, ALG_RSASSA, HashAlg,
};
use crate::digest::Digest;
use crate::reader::{Malformed, Reader, put_sized, put_u16, put_u32};

/// Largest public area accepted, in bytes (RSA-4096 with a SHA-512 policy needs 600).
pub const MAX_PUBLIC_BYTES: usize = 1024;
/// Longest object name, in bytes: algorithm and SHA-512 digest.
pub const MAX_NAME_BYTES: usize = 66;
/// The one RSA exponent accepted; 0 means it, too.
pub const RSA_EXPONENT: u32 = 65537;

const RSA_BITS: [u16; 3] = [2048, 3072, 4096];
const AES_BITS: [u16; 3] = [128, 192, 256];

/// `TPMA_OBJECT` (part 2, 8.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes(u32);

/// The public area of an asymmetric key. Keyed hashes and symmetric keys are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    pub name_alg: HashAlg,
    pub attributes: Attributes,
    /// Empty, or a digest of `name_alg`.
    pub auth_policy: Vec<u8>,
    /// AES key bits in CFB mode for a storage key; `None` is `TPM_ALG_NULL`.
    pub symmetric: Option<u16>,
    pub scheme: Scheme,
    pub key: Key,
}

/// The key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Rsa {
        bits: u16,
        /// As sent: 0 or 65537.
        exponent: u32,
        /// Big-endian, exactly `bits / 8` bytes, top bit set.
        modulus: Vec<u8>,
    },
    Ecc {
        curve: Curve,
        /// As sent: at most the curve's coordinate length.
        x: Vec<u8>,
        y: Vec<u8>,
    },
}

/// Signing scheme fixed in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Null,
    RsaSsa(HashAlg),
    RsaPss(HashAlg),
    Ecdsa(HashAlg),
}

/// `TPM_ECC_CURVE` (part 2, 6.4), those that the verifier can compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    P256,
    P384,
}

/// The name of an object: algorithm and digest of its public area (part 1, 16). Hex as text and in JSON.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Vec<u8>);

impl Attributes {
    pub const FIXED_TPM: Self = Self(1 << 1);
    pub const ST_CLEAR: Self = Self(1 << 2);
    pub const FIXED_PARENT: Self = Self(1 << 4);
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    pub const USER_WITH_AUTH: Self = Self(1 << 6);
    pub const ADMIN_WITH_POLICY: Self = Self(1 << 7);
    pub const NO_DA: Self = Self(1 << 10);
    pub const ENCRYPTED_DUPLICATION: Self = Self(1 << 11);
    pub const RESTRICTED: Self = Self(1 << 16);
    pub const DECRYPT: Self = Self(1 << 17);
    pub const SIGN: Self = Self(1 << 18);
    pub const X509_SIGN: Self = Self(1 << 19);

    const KNOWN: u32 = 0x000f_0cf6;

    /// Refuses reserved bits.
    pub fn new(bits: u32) -> Result<Self, Malformed> {
        if bits & !Self::KNOWN != 0 {
            return Err(Malformed::Unsupported {
                what: "object attributes",
                value: bits,
            });
        }
        Ok(Self(bits))
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every bit of `wanted` is set.
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }
}

impl Curve {
    /// Length of a coordinate in bytes.
    pub const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    const fn id(self) -> u16 {
        match self {
            Self::P256 => 0x0003,
            Self::P384 => 0x0004,
        }
    }
}

impl Name {
    /// Refuses anything but a known algorithm followed by a digest of its length.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "name", MAX_NAME_BYTES)?;
        let alg = HashAlg::from_id(reader.u16()?)?;
        reader.take(alg.digest_len())?;
        reader.end()?;
        Ok(Self(bytes.to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Public {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "public area", MAX_PUBLIC_BYTES)?;
        let kind = reader.u16()?;
        if kind != ALG_RSA && kind != ALG_ECC {
            return Err(unsupported("key type", kind));
        }
        let name_alg = HashAlg::from_id(reader.u16()?)?;
        let attributes = Attributes::new(reader.u32()?)?;
        let auth_policy = reader
            .sized("policy digest", name_alg.digest_len())?
            .to_vec();
        if !auth_policy.is_empty() && auth_policy.len() != name_alg.digest_len() {
            return Err(Malformed::Truncated);
        }
        let symmetric = read_symmetric(&mut reader)?;
        let scheme = read_scheme(&mut reader, kind)?;
        let key = if kind == ALG_RSA {
            read_rsa(&mut reader)?
        } else {
            read_ecc(&mut reader)?
        };
        reader.end()?;
        Ok(Self {
            name_alg,
            attributes,
            auth_policy,
            symmetric,
            scheme,
            key,
        })
    }

    /// The bytes that the name is computed over: what [`Public::parse`] read.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_PUBLIC_BYTES);
        put_u16(&mut out, self.kind());
        put_u16(&mut out, self.name_alg.id());
        put_u32(&mut out, self.attributes.bits());
        put_sized(&mut out, &self.auth_policy);
        match self.symmetric {
            None => put_u16(&mut out, ALG_NULL),
            Some(bits) => [ALG_AES, bits, ALG_CFB]
                .into_iter()
                .for_each(|value| put_u16(&mut out, value)),
        }
        match self.scheme {
            Scheme::Null => put_u16(&mut out, ALG_NULL),
            Scheme::RsaSsa(hash) => put_scheme(&mut out, ALG_RSASSA, hash),
            Scheme::RsaPss(hash) => put_scheme(&mut out, ALG_RSAPSS, hash),
            Scheme::Ecdsa(hash) => put_scheme(&mut out, ALG_ECDSA, hash),
        }
        match &self.key {
            Key::Rsa {
                bits,
                exponent,
                modulus,
            } => {
                put_u16(&mut out, *bits);
                put_u32(&mut out, *exponent);
                put_sized(&mut out, modulus);
            }
            Key::Ecc { curve, x, y } => {
                put_u16(&mut out, curve.id());
                put_u16(&mut out, ALG_NULL);
                put_sized(&mut out, x);
                put_sized(&mut out, y);
            }
        }
        out
    }

    /// `nameAlg || H_nameAlg(TPMT_PUBLIC)` (part 1, 16).
    pub fn name(&self) -> Name {
        let mut name = self.name_alg.id().to_be_bytes().to_vec();
        name.extend(self.name_alg.digest(&[&self.to_bytes()]));
        Name(name)
    }

    /// The qualified name of a primary key right below `hierarchy` (a permanent handle; part 1, 26.5):
    /// `nameAlg || H_nameAlg(handle || name)`.
    pub fn qualified_name_below(&self, hierarchy: u32) -> Name {
        let mut name = self.name_alg.id().to_be_bytes().to_vec();
        let digest = self
            .name_alg
            .digest(&[&hierarchy.to_be_bytes(), self.name().as_bytes()]);
        name.extend(digest);
        Name(name)
    }

    /// SHA-256 of the public area, whatever its name algorithm: how Edgeward lists and stores an EK.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The point `04 || x || y` with padded coordinates; `None` for RSA.
    pub fn ecc_point(&self) -> Option<Vec<u8>> {
        match &self.key {
            Key::Rsa { .. } => None,
            Key::Ecc { curve, x, y } => {
                let mut point = vec![4];
                point.extend(left_pad(x, curve.coordinate_len()));
                point.extend(left_pad(y, curve.coordinate_len()));
                Some(point)
            }
        }
    }

    fn kind(&self) -> u16 {
        match self.key {
            Key::Rsa { .. } => ALG_RSA,
            Key::Ecc { .. } => ALG_ECC,
        }
    }
}

/// Pads to `length` with leading zeros; a longer value stays as it is (parsers have refused it).
pub(crate) fn left_pad(value: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length.saturating_sub(value.len())];
    out.extend_from_slice(value);
    out
}

fn read_symmetric(reader: &mut Reader<'_>) -> Result<Option<u16>, Malformed> {
    match reader.u16()? {
        ALG_NULL => Ok(None),
        ALG_AES => {
            let bits = reader.u16()?;
            if !AES_BITS.contains(&bits) {
                return Err(unsupported("symmetric key bits", bits));
            }
            match reader.u16()? {
                ALG_CFB => Ok(Some(bits)),
                mode => Err(unsupported("symmetric mode", mode)),
            }
        }
        other => Err(unsupported("symmetric algorithm", other)),
    }
}

fn read_scheme(reader: &mut Reader<'_>, kind: u16) -> Result<Scheme, Malformed> {
    let scheme = reader.u16()?;
    match (scheme, kind) {
        (ALG_NULL, _) => Ok(Scheme::Null),
        (ALG_RSASSA, ALG_RSA) => Ok(Scheme::RsaSsa(HashAlg::from_id(reader.u16()?)?)),
        (ALG_RSAPSS, ALG_RSA) => Ok(Scheme::RsaPss(HashAlg::from_id(reader.u16()?)?)),
        (ALG_ECDSA, ALG_ECC) => Ok(Scheme::Ecdsa(HashAlg::from_id(reader.u16()?)?)),
        _ => Err(unsupported("scheme", scheme)),
    }
}

fn read_rsa(reader: &mut Reader<'_>) -> Result<Key, Malformed> {
    let bits = reader.u16()?;
    if !RSA_BITS.contains(&bits) {
        return Err(unsupported("rsa key bits", bits));
    }
    let exponent = reader.u32()?;
    if exponent != 0 && exponent != RSA_EXPONENT {
        return Err(Malformed::Unsupported {
            what: "rsa exponent",
            value: exponent,
        });
    }
    let modulus_len = usize::from(bits / 8);
    let modulus = reader.sized("rsa modulus", modulus_len)?;
    if modulus.len() != modulus_len {
        return Err(Malformed::Truncated);
    }
    if modulus.first().is_none_or(|top| top & 0x80 == 0) {
        return Err(unsupported("rsa modulus top byte", 0));
    }
    Ok(Key::Rsa {
        bits,
        exponent,
        modulus: modulus.to_vec(),
    })
}

fn read_ecc(reader: &mut Reader<'_>) -> Result<Key, Malformed> {
    let curve = match reader.u16()? {
        0x0003 => Curve::P256,
        0x0004 => Curve::P384,
        other => return Err(unsupported("curve", other)),
    };
    match reader.u16()? {
        ALG_NULL => {}
        other => return Err(unsupported("key derivation scheme", other)),
    }
    let x = reader
        .sized("ecc coordinate", curve.coordinate_len())?
        .to_vec();
    let y = reader
        .sized("ecc coordinate", curve.coordinate_len())?
        .to_vec();
    Ok(Key::Ecc { curve, x, y })
}

fn put_scheme(out: &mut Vec<u8>, scheme: u16, hash: HashAlg) {
    put_u16(out, scheme);
    put_u16(out, hash.id());
}

fn unsupported(what: &'static str, value: u16) -> Malformed {
    Malformed::Unsupported {
        what,
        value: value.into(),
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = hex::decode(text).map_err(|error| error.to_string())?;
        Self::parse(&bytes).map_err(|error| error.to_string())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SoftwareTpm;

    fn bytes() -> Vec<u8> {
        SoftwareTpm::new().ak_public().to_bytes()
    }

    #[test]
    fn a_public_area_is_written_back_byte_for_byte() {
        let bytes = bytes();
        let public = Public::parse(&bytes).unwrap();
        assert_eq!(public.to_bytes(), bytes);
        assert_eq!(public.name().as_bytes()[..2], [0, 0x0b]);
    }

    #[test]
    fn a_keyed_hash_is_refused() {
        let mut bytes = bytes();
        bytes[1] = 0x08;
        assert_eq!(
            Public::parse(&bytes),
            Err(Malformed::Unsupported {
                what: "key type",
                value: 8
            })
        );
    }

    #[test]
    fn reserved_attribute_bits_are_refused() {
        let mut bytes = bytes();
        bytes[7] |= 1;
        assert_eq!(
            Public::parse(&bytes).unwrap_err().code(),
            "tpm_structure_unsupported"
        );
    }

    #[test]
    fn trailing_and_missing_bytes_are_refused() {
        let bytes = bytes();
        for cut in 0..bytes.len() {
            assert!(Public::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Public::parse(&longer), Err(Malformed::Trailing(1)));
    }
}
