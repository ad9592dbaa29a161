//! Authenticators and cookies (WireGuard protocol, section 5.4.4 and 5.4.7).
//!
//! The first authenticator shows that the sender knows whom it talks to. The second one, asked for under load, shows
//! that it receives what is sent to its address and port. Both cost us a hash and no state.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use edgeward_identity::{BootTime, Secret};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use super::message::{COOKIE_BYTES, MACS_BYTES, cookie_header, word};
use super::{NoRandomness, Random, Refused};

/// How long the secret under our cookies is used.
pub(super) const SECRET_LIFE: Duration = Duration::from_secs(120);
/// How long a cookie we were given is used: less than its maker's secret lives.
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(115);
const MAC_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
/// Where the nonce of a cookie reply starts, and where the cookie does.
const NONCE_AT: usize = 8;
const COOKIE_AT: usize = NONCE_AT + NONCE_BYTES;

type Mac = [u8; MAC_BYTES];

/// Keys that follow from a static public key.
pub(super) struct PublicKeys {
    mac: [u8; 32],
    cookie: [u8; 32],
}

/// What makes our cookies: a secret that changes every two minutes.
#[derive(Default)]
pub(super) struct Baker {
    secret: Mutex<Option<(Secret<[u8; 32]>, BootTime)>>,
}

/// What we know of a peer's cookies, to sign what we send to it.
#[derive(Default)]
pub struct CookieJar {
    /// First authenticator of the last message: a cookie reply is bound to it, and taken once.
    last: Option<Mac>,
    cookie: Option<(Secret<Mac>, BootTime)>,
}

impl PublicKeys {
    pub(super) fn new(public: &[u8; 32]) -> Self {
        let key = |label: &[u8; 8]| {
            let hash = Blake2s256::new().chain_update(label).chain_update(public);
            hash.finalize().into()
        };
        Self {
            mac: key(b"mac1----"),
            cookie: key(b"cookie--"),
        }
    }

    /// Whether the first authenticator of a handshake message is right.
    pub(super) fn check_first(&self, datagram: &[u8]) -> Result<(), Refused> {
        let (body, first, _) = macs(datagram).ok_or(Refused::Malformed)?;
        let right: bool = mac(&self.mac, body).ct_eq(first).into();
        right.then_some(()).ok_or(Refused::WrongMac)
    }
}

impl Baker {
    /// Whether the second authenticator was made with the cookie of this source.
    pub(super) fn check_second(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        now: BootTime,
        random: &dyn Random,
    ) -> Result<bool, NoRandomness> {
        let Some((_, _, second)) = macs(datagram) else {
            return Ok(false);
        };
        let body = datagram
            .get(..datagram.len() - MAC_BYTES)
            .unwrap_or_default();
        let cookie = self.cookie(from, now, random)?;
        Ok(mac(cookie.expose(), body).ct_eq(second).into())
    }

    /// Writes a cookie reply for the handshake message of `from`.
    pub(super) fn reply(
        &self,
        keys: &PublicKeys,
        from: SocketAddr,
        datagram: &[u8],
        now: BootTime,
        random: &dyn Random,
    ) -> Result<[u8; COOKIE_BYTES], Refused> {
        let (_, first, _) = macs(datagram).ok_or(Refused::Malformed)?;
        let theirs = word(datagram, 4).ok_or(Refused::Malformed)?;
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce)?;
        let mut cookie = *self.cookie(from, now, random)?.expose();
        let tag = XChaCha20Poly1305::new(&keys.cookie.into())
            .encrypt_in_place_detached(&nonce.into(), first, &mut cookie)
            .map_err(|_| Refused::Unexpected)?;
        let mut reply = [0; COOKIE_BYTES];
        let parts = [
            &cookie_header(theirs)[..],
            &nonce[..],
            &cookie[..],
            &tag[..],
        ];
        for (byte, of) in reply.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *of;
        }
        Ok(reply)
    }

    /// The cookie of one source: address and port, so that nobody behind the same NAT may use it.
    fn cookie(
        &self,
        from: SocketAddr,
        now: BootTime,
        random: &dyn Random,
    ) -> Result<Secret<Mac>, NoRandomness> {
        let mut kept = self.secret.lock();
        let fresh = |made: &BootTime| now.since(*made) < SECRET_LIFE;
        if !kept.as_ref().is_some_and(|(_, made)| fresh(made)) {
            let mut secret = zeroize::Zeroizing::new([0; 32]);
            random.fill(secret.as_mut_slice())?;
            *kept = Some((Secret::new(*secret), now));
        }
        let Some((secret, _)) = kept.as_ref() else {
            return Err(NoRandomness);
        };
        let mut source = [0; 18];
        let address = match from.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bytes = address
            .octets()
            .into_iter()
            .chain(from.port().to_be_bytes());
        for (byte, of) in source.iter_mut().zip(bytes) {
            *byte = of;
        }
        Ok(Secret::new(mac(secret.expose(), &source)))
    }
}

impl CookieJar {
    /// Writes both authenticators at the end of a handshake message to the holder of `peer`.
    pub fn sign(&mut self, peer: &[u8; 32], message: &mut [u8], now: BootTime) {
        let Some(start) = message.len().checked_sub(MACS_BYTES) else {
            return;
        };
        let (body, authenticators) = message.split_at_mut(start);
        let first = mac(&PublicKeys::new(peer).mac, body);
        let (place, second) = authenticators.split_at_mut(MAC_BYTES);
        place.copy_from_slice(&first);
        second.fill(0);
        self.last = Some(first);
        self.cookie
            .take_if(|(_, since)| now.since(*since) >= COOKIE_LIFE);
        if let Some((cookie, _)) = &self.cookie {
            let body = message.get(..start + MAC_BYTES).unwrap_or_default();
            let second = mac(cookie.expose(), body);
            if let Some(place) = message.get_mut(start + MAC_BYTES..) {
                place.copy_from_slice(&second);
            }
        }
    }

    /// Takes the cookie that a busy peer asks for; the next message carries it.
    pub fn take(&mut self, peer: &[u8; 32], reply: &[u8], now: BootTime) -> Result<(), Refused> {
        let first = self.last.as_ref().ok_or(Refused::Unexpected)?;
        let field = |from: usize, length: usize| reply.get(from..from + length);
        let parts = (
            field(NONCE_AT, NONCE_BYTES),
            field(COOKIE_AT, MAC_BYTES),
            field(COOKIE_AT + MAC_BYTES, MAC_BYTES),
        );
        let (Some(nonce), Some(sealed), Some(tag)) = parts else {
            return Err(Refused::Malformed);
        };
        let mut cookie: Mac = sealed.try_into().map_err(|_| Refused::Malformed)?;
        XChaCha20Poly1305::new(&PublicKeys::new(peer).cookie.into())
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                first,
                &mut cookie,
                Tag::from_slice(tag),
            )
            .map_err(|_| Refused::NotAuthentic)?;
        self.last = None;
        self.cookie = Some((Secret::new(cookie), now));
        Ok(())
    }
}

/// What the authenticators cover, and both of them.
fn macs(datagram: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (body, authenticators) =
        datagram.split_at_checked(datagram.len().checked_sub(MACS_BYTES)?)?;
    let (first, second) = authenticators.split_at_checked(MAC_BYTES)?;
    Some((body, first, second))
}

/// Keyed BLAKE2s of 16 bytes.
fn mac(key: &[u8], data: &[u8]) -> Mac {
    // The only error is a key of more than 32 bytes, and there is none here.
    Blake2sMac::<U16>::new_from_slice(key).map_or([0; MAC_BYTES], |mut state| {
        Update::update(&mut state, data);
        state.finalize_fixed().into()
    })
}
