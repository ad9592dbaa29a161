//! An IMA list as a kernel would write it, with the value that its TPM would have.

use crate::ima::Template;
use crate::tpm::HashAlg;

/// A list in the kernel's binary form, and what it extends into PCR 10 of the SHA-256 bank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImaList {
    pub bytes: Vec<u8>,
    /// One for each entry, in order.
    pub extended: Vec<[u8; 32]>,
    pub pcr: [u8; 32],
}

impl ImaList {
    /// A list after a boot: its first entry is the aggregate.
    pub fn new() -> Self {
        let mut list = Self::default();
        list.add("boot_aggregate", HashAlg::Sha256, &[0xba; 32]);
        list
    }

    /// A file measured by template `ima-ng`.
    pub fn add(&mut self, path: impl AsRef<[u8]>, hash: HashAlg, digest: &[u8]) {
        let data = data(path.as_ref(), hash.name(), digest, None);
        self.add_data(Template::ImaNg.as_str(), &data);
    }

    /// A file measured by template `ima-sig`; `signature` may be empty.
    pub fn add_signed(&mut self, path: impl AsRef<[u8]>, digest: &[u8; 32], signature: &[u8]) {
        let data = data(path.as_ref(), "sha256", digest, Some(signature));
        self.add_data(Template::ImaSig.as_str(), &data);
    }

    /// Any template data, with the digest that is over it.
    pub fn add_data(&mut self, template: &str, data: &[u8]) {
        self.put(10, &HashAlg::Sha1.digest(&[data]), template, data);
        self.extend(HashAlg::Sha256.digest(&[data]));
    }

    /// A file that changed while it was measured.
    pub fn add_violation(&mut self, path: impl AsRef<[u8]>) {
        let data = data(path.as_ref(), "sha1", &[0; 20], None);
        self.put(10, &[0; 20], Template::ImaNg.as_str(), &data);
        self.extend(vec![0xff; 32]);
    }

    /// Writes an entry and extends nothing.
    pub fn put(&mut self, pcr: u32, template_hash: &[u8], template: &str, data: &[u8]) {
        self.bytes.extend_from_slice(&pcr.to_le_bytes());
        self.bytes.extend_from_slice(template_hash);
        put(&mut self.bytes, template.as_bytes());
        put(&mut self.bytes, data);
    }

    fn extend(&mut self, digest: Vec<u8>) {
        let next = HashAlg::Sha256.digest(&[&self.pcr, &digest]);
        self.pcr.copy_from_slice(&next);
        self.extended
            .push(digest.try_into().expect("a SHA-256 digest"));
    }
}

/// Template data: digest with its algorithm, path, and where it is `Some` a signature.
pub fn data(path: &[u8], algorithm: &str, digest: &[u8], signature: Option<&[u8]>) -> Vec<u8> {
    let mut data = Vec::new();
    put(&mut data, &[algorithm.as_bytes(), b":\0", digest].concat());
    put(&mut data, &[path, b"\0"].concat());
    if let Some(signature) = signature {
        put(&mut data, signature);
    }
    data
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a short field");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}
