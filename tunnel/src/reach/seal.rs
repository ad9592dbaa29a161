//! Sealing of reach messages between two bound nodes: ChaCha20-Poly1305, one key and one counter per direction.
//!
//! ```text
//! key(d) = HKDF-Expand(reach key of the bind, "edgeward-reach-key-v1" || d, 32)
//! tag(d) = the first 4 bytes of HKDF-Expand(reach key of the bind, "edgeward-reach-tag-v1" || d, 32)
//! nonce  = 4 zeros | counter, big-endian; the header is authenticated with it
//! ```
//!
//! `d` is 1 from the bind's initiator to its responder, 2 back. The tag tells the receiver which key opens a
//! datagram; who does not know the key cannot guess it, and it leaves with the bind.

use edgeward_identity::Secret;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::message::{HEADER_BYTES, MAX_BODY_BYTES, REACH_CLASS, SEAL_BYTES};
use crate::bind::Role;
use crate::bind::schedule::expand;

/// How far a datagram may be behind the newest one, in datagrams.
pub const REPLAY_WINDOW: u64 = 128;

const KEY_LABEL: &[u8] = b"edgeward-reach-key-v1";
const TAG_LABEL: &[u8] = b"edgeward-reach-tag-v1";

/// What tells a receiver which of its keys opens a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u32);

/// Both directions of one bind.
pub(super) struct Channel {
    send: LessSafeKey,
    send_tag: Tag,
    next: u64,
    receive: LessSafeKey,
    receive_tag: Tag,
    window: Window,
}

/// Why a datagram was not opened. The peer's fault, or a stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("not a reach message, or longer than the limit")]
    Shape,
    #[error("of another bind")]
    Tag,
    #[error("forged or damaged")]
    Forged,
    #[error("received before, or too old")]
    Replayed,
}

/// No key, or none left. Our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message not sealed")]
pub struct NotSealed;

/// Which counters were seen: the newest, and a bit for each of those before it.
#[derive(Default)]
struct Window {
    /// One more than the newest; 0 before the first.
    end: u64,
    seen: u128,
}

impl Channel {
    pub(super) fn new(reach_key: &Secret<[u8; 32]>, role: Role) -> Result<Self, NotSealed> {
        let (send, receive) = match role {
            Role::Initiator => (1, 2),
            Role::Responder => (2, 1),
        };
        Ok(Self {
            send: key(reach_key, send)?,
            send_tag: tag(reach_key, send),
            next: 0,
            receive: key(reach_key, receive)?,
            receive_tag: tag(reach_key, receive),
            window: Window::default(),
        })
    }

    /// What datagrams for this end carry.
    pub(super) fn tag(&self) -> Tag {
        self.receive_tag
    }

    pub(super) fn seal(&mut self, body: &[u8]) -> Result<Vec<u8>, NotSealed> {
        if body.len() > MAX_BODY_BYTES {
            return Err(NotSealed);
        }
        let counter = self.next;
        self.next = counter.checked_add(1).ok_or(NotSealed)?;
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + SEAL_BYTES);
        out.extend_from_slice(&REACH_CLASS);
        out.extend_from_slice(&self.send_tag.0.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        let mut sealed = body.to_vec();
        self.send
            .seal_in_place_append_tag(nonce(counter), Aad::from(&out), &mut sealed)
            .map_err(|_| NotSealed)?;
        out.append(&mut sealed);
        Ok(out)
    }

    /// The body of a datagram. A counter counts as seen only once its datagram proved genuine.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let (tag, counter, sealed) = split(datagram).ok_or(NotOpened::Shape)?;
        if tag != self.receive_tag {
            return Err(NotOpened::Tag);
        }
        if !self.window.may_be_new(counter) {
            return Err(NotOpened::Replayed);
        }
        let header = datagram.get(..HEADER_BYTES).ok_or(NotOpened::Shape)?;
        let mut body = sealed.to_vec();
        let length = self
            .receive
            .open_in_place(nonce(counter), Aad::from(header), &mut body)
            .map_err(|_| NotOpened::Forged)?
            .len();
        body.truncate(length);
        self.window.mark(counter);
        Ok(body)
    }
}

/// The tag of a datagram that may be a reach message.
pub fn tag_of(datagram: &[u8]) -> Option<Tag> {
    split(datagram).map(|(tag, _, _)| tag)
}

fn split(datagram: &[u8]) -> Option<(Tag, u64, &[u8])> {
    let (class, rest) = datagram.split_first_chunk::<4>()?;
    let (tag, rest) = rest.split_first_chunk::<4>()?;
    let (counter, sealed) = rest.split_first_chunk::<8>()?;
    let fits = sealed.len() > SEAL_BYTES && sealed.len() <= MAX_BODY_BYTES + SEAL_BYTES;
    (*class == REACH_CLASS && fits).then(|| {
        (
            Tag(u32::from_be_bytes(*tag)),
            u64::from_be_bytes(*counter),
            sealed,
        )
    })
}

fn key(reach_key: &Secret<[u8; 32]>, direction: u8) -> Result<LessSafeKey, NotSealed> {
    let key = expand(reach_key, &[KEY_LABEL, &[direction]].concat());
    UnboundKey::new(&CHACHA20_POLY1305, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| NotSealed)
}

fn tag(reach_key: &Secret<[u8; 32]>, direction: u8) -> Tag {
    let bytes = expand(reach_key, &[TAG_LABEL, &[direction]].concat());
    let [a, b, c, d, ..] = *bytes.expose();
    Tag(u32::from_be_bytes([a, b, c, d]))
}

fn nonce(counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

impl Window {
    fn may_be_new(&self, counter: u64) -> bool {
        match self
            .end
            .checked_sub(1)
            .map(|newest| newest.checked_sub(counter))
        {
            // None yet, or newer than the newest.
            None | Some(None) => counter < u64::MAX,
            Some(Some(behind)) => behind < REPLAY_WINDOW && self.seen & (1 << behind) == 0,
        }
    }

    fn mark(&mut self, counter: u64) {
        let end = counter.saturating_add(1);
        if end > self.end {
            let ahead = end - self.end;
            self.seen = if ahead < REPLAY_WINDOW {
                self.seen << ahead
            } else {
                0
            };
            self.end = end;
        }
        let behind = self.end - end;
        if behind < REPLAY_WINDOW {
            self.seen |= 1 << behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let key = Secret::new([7; 32]);
        (
            Channel::new(&key, Role::Initiator).unwrap(),
            Channel::new(&key, Role::Responder).unwrap(),
        )
    }

    #[test]
    fn a_forged_replayed_truncated_or_reflected_message_is_not_opened() {
        let (mut a, mut b) = pair();
        let sealed = a.seal(b"hello").unwrap();
        for position in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[position] ^= 1;
            assert!(b.open(&forged).is_err(), "byte {position}");
            assert!(b.open(&sealed[..position]).is_err(), "cut at {position}");
        }
        let mut longer = sealed.clone();
        longer.push(0);
        assert_eq!(b.open(&longer), Err(NotOpened::Forged));
        assert_eq!(a.open(&sealed), Err(NotOpened::Tag), "sent back");
        assert_eq!(b.open(&sealed).unwrap(), b"hello");
        assert_eq!(b.open(&sealed), Err(NotOpened::Replayed));
        let (_, mut other) = {
            let key = Secret::new([8; 32]);
            let a = Channel::new(&key, Role::Initiator).unwrap();
            (a, Channel::new(&key, Role::Responder).unwrap())
        };
        assert_eq!(other.open(&sealed), Err(NotOpened::Tag));
    }

    #[test]
    fn no_stranger_uses_up_a_counter() {
        let (mut a, mut b) = pair();
        let first = a.seal(b"1").unwrap();
        let mut far_ahead = first.clone();
        far_ahead[8..16].copy_from_slice(&(1u64 << 60).to_be_bytes());
        assert_eq!(b.open(&far_ahead), Err(NotOpened::Forged));
        far_ahead[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(b.open(&far_ahead), Err(NotOpened::Replayed));
        assert_eq!(b.open(&first).unwrap(), b"1");
    }

    #[test]
    fn order_may_change_within_the_window() {
        let (mut a, mut b) = pair();
        let sealed: Vec<Vec<u8>> = (0..=REPLAY_WINDOW).map(|_| a.seal(b"x").unwrap()).collect();
        for datagram in sealed.iter().skip(1).rev() {
            b.open(datagram).unwrap();
        }
        assert_eq!(b.open(&sealed[0]), Err(NotOpened::Replayed), "too old");
        for datagram in &sealed {
            assert_eq!(b.open(datagram), Err(NotOpened::Replayed));
        }
    }

    #[test]
    fn both_ends_agree_and_each_direction_has_its_own_key() {
        let (mut a, mut b) = pair();
        let (there, back) = (a.seal(b"same").unwrap(), b.seal(b"same").unwrap());
        assert_ne!(there, back);
        assert_eq!(tag_of(&there), Some(b.tag()));
        assert_eq!(tag_of(&back), Some(a.tag()));
        assert_eq!(b.open(&there).unwrap(), b"same");
        assert_eq!(a.open(&back).unwrap(), b"same");
        assert_eq!(a.seal(&vec![0; MAX_BODY_BYTES + 1]), Err(NotSealed));
    }
}
