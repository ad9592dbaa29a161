//! The bootstrap token: one string that lets a machine find its cloud, recognise it, and enrol once.
//!
//! `edgeward1.` followed by base64url (RFC 4648 5, no padding) of
//! `secret [32] | pin [32] | id u8+bytes | trust domain u8+bytes | addresses u8 count, each u8+bytes | checksum [4]`.
//! The checksum (first bytes of SHA-256 over what precedes it) tells a mistyped or cut token from a refused one;
//! it protects nothing. Whoever holds the string may enrol: it is a secret as a whole.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeward_identity::{Secret, SpkiHash, TrustDomain};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

/// What every token of this version begins with.
pub const PREFIX: &str = "edgeward1.";
/// Bytes of the secret: 256 random bits.
pub const SECRET_BYTES: usize = 32;
/// Longest token string accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Longest token id, in bytes.
pub const MAX_ID_BYTES: usize = 32;
/// Most addresses of the cloud in one token.
pub const MAX_ADDRESSES: usize = 8;
/// Longest address (`host:port`), in bytes: a DNS name and a port fit.
pub const MAX_ADDRESS_BYTES: usize = 255;

const CHECKSUM_BYTES: usize = 4;
const PIN_BYTES: usize = 32;

/// What a token says. Its `Debug` leaves the secret out.
#[derive(Clone)]
pub struct BootstrapToken {
    addresses: Vec<String>,
    trust_domain: TrustDomain,
    pin: SpkiHash,
    id: String,
    secret: Secret<[u8; SECRET_BYTES]>,
}

/// Why a string is not a bootstrap token, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a bootstrap token: it does not begin with {PREFIX}")]
    Prefix,
    #[error("token is longer than the limit in bytes: {MAX_TOKEN_BYTES}")]
    TooLong,
    #[error("token holds a character that no token holds")]
    Base64,
    #[error("token was mistyped or cut")]
    Checksum,
    #[error("token is malformed")]
    Layout,
    #[error("token id is not 1 to {MAX_ID_BYTES} of a-z 0-9 -")]
    Id,
    #[error("token's trust domain is malformed")]
    TrustDomain,
    #[error("token has no address of the cloud, or more than {MAX_ADDRESSES}")]
    AddressCount,
    #[error("an address in the token is not host:port")]
    Address,
}

impl BootstrapToken {
    /// `pin` is the SHA-256 of the root certificate's SPKI; `addresses` are tried in order.
    pub fn new(
        addresses: Vec<String>,
        trust_domain: TrustDomain,
        pin: SpkiHash,
        id: String,
        secret: Secret<[u8; SECRET_BYTES]>,
    ) -> Result<Self, TokenError> {
        check_id(&id)?;
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            return Err(TokenError::AddressCount);
        }
        addresses
            .iter()
            .try_for_each(|address| check_address(address))?;
        Ok(Self {
            addresses,
            trust_domain,
            pin,
            id,
            secret,
        })
    }

    /// The string to hand to a machine. Shown once, kept nowhere.
    pub fn encode(&self) -> Secret<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        bytes.extend_from_slice(self.secret.expose());
        bytes.extend_from_slice(self.pin.as_bytes());
        put(&mut bytes, &self.id);
        put(&mut bytes, self.trust_domain.as_str());
        bytes.push(u8::try_from(self.addresses.len()).expect("checked: few addresses"));
        for address in &self.addresses {
            put(&mut bytes, address);
        }
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        Secret::new(text)
    }

    /// Reads a token string; white space around it (a line end from a file) is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(body)
                .map_err(|_| TokenError::Base64)?,
        );
        let (covered, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TokenError::Layout)?;
        if checksum(covered) != *sum {
            return Err(TokenError::Checksum);
        }
        let mut reader = Reader(covered);
        let secret = Secret::new(*reader.array::<SECRET_BYTES>()?);
        let pin = SpkiHash::from_bytes(*reader.array::<PIN_BYTES>()?);
        let id = reader.text()?;
        let trust_domain =
            TrustDomain::new(&reader.text()?).map_err(|_| TokenError::TrustDomain)?;
        let count = usize::from(reader.byte()?);
        if count > MAX_ADDRESSES {
            return Err(TokenError::AddressCount);
        }
        let addresses = (0..count)
            .map(|_| reader.text())
            .collect::<Result<Vec<_>, _>>()?;
        if !reader.0.is_empty() {
            return Err(TokenError::Layout);
        }
        Self::new(addresses, trust_domain, pin, id, secret)
    }

    /// Where the cloud may be reached, as `host:port`, in the order to try.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// SHA-256 of the root's SPKI: the machine accepts a cloud under this root only.
    pub fn pin(&self) -> &SpkiHash {
        &self.pin
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn secret(&self) -> &Secret<[u8; SECRET_BYTES]> {
        &self.secret
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken")
            .field("id", &self.id)
            .field("trust_domain", &self.trust_domain)
            .field("addresses", &self.addresses)
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

/// Checks `host:port` with a DNS name, an IPv4 address or a bracketed IPv6 address, and a port from 1.
pub fn check_address(address: &str) -> Result<(), TokenError> {
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(TokenError::Address);
    }
    let (host, port) = address.rsplit_once(':').ok_or(TokenError::Address)?;
    let port_is_good =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host_is_good = match bracketed {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        }
    };
    match host_is_good && port_is_good {
        true => Ok(()),
        false => Err(TokenError::Address),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], TokenError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TokenError::Layout)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, TokenError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn text(&mut self) -> Result<String, TokenError> {
        let length = usize::from(self.byte()?);
        let (head, rest) = self.0.split_at_checked(length).ok_or(TokenError::Layout)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).map_err(|_| TokenError::Layout)
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("every text of a token has a limit below 256"));
    bytes.extend_from_slice(text.as_bytes());
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = digest(&SHA256, bytes);
    *hash
        .as_ref()
        .first_chunk()
        .expect("sha-256 is longer than the checksum")
}

fn check_id(id: &str) -> Result<(), TokenError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(good) {
        true => Ok(()),
        false => Err(TokenError::Id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(addresses: &[&str], id: &str) -> Result<BootstrapToken, TokenError> {
        BootstrapToken::new(
            addresses.iter().map(|a| (*a).to_owned()).collect(),
            TrustDomain::new("plant.example").unwrap(),
            SpkiHash::from_bytes([7; 32]),
            id.to_owned(),
            Secret::new([9; SECRET_BYTES]),
        )
    }

    fn text(bytes: &[u8]) -> String {
        let sum = checksum(bytes);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([bytes, &sum].concat()))
    }

    #[test]
    fn a_token_with_a_wrong_address_or_id_cannot_be_made() {
        let many = ["a:1"; MAX_ADDRESSES + 1];
        for (addresses, id, error) in [
            (&[][..], "t1", TokenError::AddressCount),
            (&many[..], "t1", TokenError::AddressCount),
            (&["host"][..], "t1", TokenError::Address),
            (&["host:0"][..], "t1", TokenError::Address),
            (&["host:65536"][..], "t1", TokenError::Address),
            (&["host:+1"][..], "t1", TokenError::Address),
            (&[":7443"][..], "t1", TokenError::Address),
            (&["::1:7443"][..], "t1", TokenError::Address),
            (&["ho st:7443"][..], "t1", TokenError::Address),
            (&["host:7443"][..], "", TokenError::Id),
            (&["host:7443"][..], "T1", TokenError::Id),
            (
                &["host:7443"][..],
                &"a".repeat(MAX_ID_BYTES + 1),
                TokenError::Id,
            ),
        ] {
            assert_eq!(
                token(addresses, id).unwrap_err(),
                error,
                "{addresses:?} {id}"
            );
        }
    }

    #[test]
    fn every_malformed_string_is_refused_with_its_own_reason() {
        let good = token(&["cloud.example:7443"], "t1").unwrap().encode();
        let good = good.expose();
        let (cut, _) = good.split_at(good.len() - 4);
        for (case, error) in [
            ("", TokenError::Prefix),
            ("edgeward2.abc", TokenError::Prefix),
            (&"x".repeat(MAX_TOKEN_BYTES + 1), TokenError::TooLong),
            ("edgeward1.ab=c", TokenError::Base64),
            ("edgeward1.a\u{e9}", TokenError::Base64),
            ("edgeward1.", TokenError::Layout),
            (cut, TokenError::Checksum),
            (&text(&[1; 40]), TokenError::Layout),
            (&text(&[0; 66]), TokenError::TrustDomain),
        ] {
            assert_eq!(BootstrapToken::parse(case).unwrap_err(), error, "{case}");
        }
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let good = token(&["cloud.example:7443"], "t1").unwrap().encode();
        let good = good.expose();
        for at in PREFIX.len()..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(BootstrapToken::parse(std::str::from_utf8(&changed).unwrap()).is_err());
        }
    }

    #[test]
    fn bytes_after_the_last_address_are_refused() {
        let mut bytes = vec![0; 64];
        for part in ["t1", "plant.example"] {
            put(&mut bytes, part);
        }
        bytes.push(1);
        put(&mut bytes, "cloud:7443");
        assert!(BootstrapToken::parse(&text(&bytes)).is_ok());
        bytes.push(0);
        assert_eq!(
            BootstrapToken::parse(&text(&bytes)).unwrap_err(),
            TokenError::Layout
        );
    }

    #[test]
    fn a_token_round_trips_and_its_debug_hides_the_secret() {
        let made = token(
            &["cloud.example:7443", "[fd00::1]:7443", "192.0.2.1:7443"],
            "t-1",
        )
        .unwrap();
        let line = format!("  {}\n", made.encode().expose());
        let read = BootstrapToken::parse(&line).unwrap();
        assert_eq!(read.addresses(), made.addresses());
        assert_eq!(read.trust_domain(), made.trust_domain());
        assert_eq!(read.pin(), made.pin());
        assert_eq!(read.id(), "t-1");
        assert!(read.secret().matches(&[9; SECRET_BYTES]));
        let debug = format!("{read:?}");
        assert!(
            !debug.contains("9, 9") && !debug.contains("secret"),
            "{debug}"
        );
    }
}
