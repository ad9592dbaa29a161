//! The outermost shape of a certificate: what is signed, how, and by whom (RFC 5280, 4.1.1).

use crate::ek::der;
use crate::ek::refusal::EkRefused;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// Explicit tag of the version, present in every version but the first.
const VERSION: u8 = 0xa0;

/// The parts of a certificate that its signature is about. Borrowed from strict DER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    /// The `TBSCertificate`, whole.
    pub(crate) tbs: &'a [u8],
    /// Content of the `AlgorithmIdentifier`, the same inside and outside.
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    /// The issuer's name, whole.
    pub(crate) issuer: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn parse(certificate: &'a [u8]) -> Result<Self, EkRefused> {
        let bad = EkRefused::BadDer("not an x.509 certificate of version 3");
        let parts = sequence(certificate)?;
        let [(SEQUENCE, tbs), (SEQUENCE, outer), (BIT_STRING, signature)] = parts.as_slice() else {
            return Err(bad);
        };
        let fields = sequence(tbs)?;
        let [(VERSION, _), _, (SEQUENCE, inner), (SEQUENCE, issuer), ..] = fields.as_slice() else {
            return Err(bad);
        };
        if inner != outer {
            return Err(EkRefused::BadDer("two signature algorithms"));
        }
        Ok(Self {
            tbs,
            algorithm: der::content(outer).map_err(EkRefused::BadDer)?,
            signature: bits(signature)?,
            issuer,
        })
    }
}

/// Algorithm (content of its identifier) and key bits of a `SubjectPublicKeyInfo`.
pub(crate) fn split_key(spki: &[u8]) -> Result<(&[u8], &[u8]), EkRefused> {
    match sequence(spki)?.as_slice() {
        [(SEQUENCE, algorithm), (BIT_STRING, key)] => {
            let algorithm = der::content(algorithm).map_err(EkRefused::BadDer)?;
            Ok((algorithm, bits(key)?))
        }
        _ => Err(EkRefused::BadDer("not a public key")),
    }
}

fn sequence(bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, EkRefused> {
    der::children(bytes).map_err(EkRefused::BadDer)
}

/// Content of a bit string without unused bits.
fn bits(bytes: &[u8]) -> Result<&[u8], EkRefused> {
    der::content(bytes)
        .map_err(EkRefused::BadDer)?
        .strip_prefix(&[0])
        .ok_or(EkRefused::BadDer("bit string with unused bits"))
}
