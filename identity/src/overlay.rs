//! Stable overlay addresses: an IPv6 unique local address (RFC 4193) derived from the SPIFFE ID.
//!
//! `fd` + 40 bits of SHA-256 of the trust domain + 80 bits of SHA-256 of the SPIFFE ID. IPv4 addresses come
//! from 100.64.0.0/10 (RFC 6598) and are allotted by the cloud.

use std::net::Ipv6Addr;

use ring::digest::{SHA256, digest};

use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Length of the trust domain's prefix, in bits.
pub const PREFIX_BITS: u8 = 48;

/// The overlay address of an identity: the same for ever and for everybody.
pub fn ipv6_of(id: &SpiffeId) -> Ipv6Addr {
    let mut octets = prefix_of(id.trust_domain()).octets();
    let hash = digest(&SHA256, id.to_string().as_bytes());
    for (octet, byte) in octets.iter_mut().skip(6).zip(hash.as_ref()) {
        *octet = *byte;
    }
    Ipv6Addr::from(octets)
}

/// The trust domain's /48.
pub fn prefix_of(trust_domain: &TrustDomain) -> Ipv6Addr {
    let mut octets = [0; 16];
    let hash = digest(&SHA256, trust_domain.as_str().as_bytes());
    for (octet, byte) in octets
        .iter_mut()
        .zip([0xfd].iter().chain(hash.as_ref()).take(6))
    {
        *octet = *byte;
    }
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_differ_by_identity() {
        let a: SpiffeId = "spiffe://plant.example/node/a".parse().unwrap();
        let b: SpiffeId = "spiffe://plant.example/node/b".parse().unwrap();
        assert_eq!(ipv6_of(&a), ipv6_of(&a));
        assert_ne!(ipv6_of(&a), ipv6_of(&b));
        assert_eq!(
            ipv6_of(&a).octets()[..6],
            prefix_of(a.trust_domain()).octets()[..6]
        );
        assert_eq!(ipv6_of(&a).octets()[0], 0xfd);
    }
}
