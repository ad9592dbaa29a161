//! `EFI_SIGNATURE_LIST` (UEFI, 32.4.1): what PK, KEK, db and dbx hold.

use super::little::Little;
use super::variable::Guid;

/// GUID, three sizes.
const HEADER_BYTES: usize = 16 + 4 + 4 + 4;
/// Owner of a signature.
const OWNER_BYTES: usize = 16;

/// `EFI_CERT_X509_GUID`.
pub const CERT_X509: Guid = Guid([
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
]);
/// `EFI_CERT_SHA256_GUID`.
pub const CERT_SHA256: Guid = Guid([
    0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
]);
const SHA256_BYTES: usize = 32;

/// One signature: a certificate, a hash, or something of a type that is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    pub kind: SignatureKind,
    pub owner: Guid,
    pub data: &'a [u8],
}

/// What a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// A DER certificate.
    X509,
    /// The SHA-256 digest of an image.
    Sha256,
    Other(Guid),
}

/// The lists are malformed: a size that does not fit its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature lists are malformed")]
pub struct NotSignatureLists;

/// All signatures of all lists in `bytes`, to the last byte. A header within a list is skipped by exactly its size.
pub fn parse(bytes: &[u8]) -> Result<Vec<Signature<'_>>, NotSignatureLists> {
    let mut reader = Little::new(bytes);
    let mut signatures = Vec::new();
    while !reader.is_empty() {
        list(&mut reader, &mut signatures).ok_or(NotSignatureLists)?;
    }
    Ok(signatures)
}

fn list<'a>(reader: &mut Little<'a>, signatures: &mut Vec<Signature<'a>>) -> Option<()> {
    let guid = Guid(reader.array()?);
    let (list, header, each) = (reader.len_u32()?, reader.len_u32()?, reader.len_u32()?);
    let mut body = Little::new(reader.take(list.checked_sub(HEADER_BYTES)?)?);
    body.take(header)?;
    let kind = match guid {
        CERT_X509 => SignatureKind::X509,
        CERT_SHA256 => SignatureKind::Sha256,
        other => SignatureKind::Other(other),
    };
    // No signature is empty, and digests have one size.
    let right_size = match kind {
        SignatureKind::Sha256 => each == OWNER_BYTES + SHA256_BYTES,
        SignatureKind::X509 | SignatureKind::Other(_) => each > OWNER_BYTES,
    };
    if !right_size {
        return None;
    }
    while !body.is_empty() {
        let mut signature = Little::new(body.take(each)?);
        signatures.push(Signature {
            kind,
            owner: Guid(signature.array()?),
            data: signature.rest(),
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::boot_log::signature_list;

    fn sizes(list: u32, header: u32, each: u32, body: usize) -> Vec<u8> {
        let mut bytes = CERT_X509.0.to_vec();
        for size in [list, header, each] {
            bytes.extend(size.to_le_bytes());
        }
        bytes.resize(HEADER_BYTES + body, 9);
        bytes
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        for (what, bytes) in [
            ("list below its own header", sizes(27, 0, 20, 20)),
            ("list beyond the bytes", sizes(49, 0, 20, 20)),
            ("list of any size", sizes(u32::MAX, 0, 20, 20)),
            ("signatures do not divide", sizes(28 + 41, 0, 20, 41)),
            ("signature of no size", sizes(28 + 20, 0, 0, 20)),
            ("signature of an owner only", sizes(28 + 16, 0, 16, 16)),
            ("header beyond the list", sizes(28 + 20, 21, 20, 20)),
            ("header of any size", sizes(28 + 20, u32::MAX, 20, 20)),
            ("header that leaves a part", sizes(28 + 24, 5, 20, 24)),
            ("bytes after the list", sizes(28 + 20, 0, 20, 21)),
        ] {
            assert_eq!(parse(&bytes), Err(NotSignatureLists), "{what}");
        }
        // A digest is 32 bytes.
        let mut short = signature_list(CERT_SHA256, &[&[1; 31]]);
        assert_eq!(parse(&short), Err(NotSignatureLists));
        short.truncate(10);
        assert_eq!(parse(&short), Err(NotSignatureLists));
    }

    #[test]
    fn a_header_within_a_list_is_skipped_by_exactly_its_size() {
        let bytes = sizes(28 + 4 + 40, 4, 20, 44);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.len(), 2);
        assert!(parsed.iter().all(|signature| signature.data == [9; 4]));
    }

    #[test]
    fn every_signature_of_every_list_is_found() {
        let mut bytes = signature_list(CERT_X509, &[&[1; 100]]);
        bytes.extend(signature_list(CERT_SHA256, &[&[2; 32], &[3; 32]]));
        let kinds: Vec<_> = parse(&bytes).unwrap().iter().map(|one| one.kind).collect();
        use SignatureKind::{Sha256, X509};
        assert_eq!(kinds, [X509, Sha256, Sha256]);
        assert_eq!(parse(&[]), Ok(Vec::new()));
    }
}
