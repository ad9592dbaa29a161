//! Transport data: one session, a key for each direction, and nothing that both directions lock.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use edgeward_identity::Secret;
use parking_lot::{Mutex, MutexGuard};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey};

use super::message::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, TAG_BYTES, data_header, word};
use super::noise::nonce_of;
use super::state::SessionState;
use super::window::Window;
use super::{Message, Refused, SessionIndex};

/// Messages after which a session is replaced (WireGuard protocol, section 6.2).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages after which a session may not send (WireGuard protocol, section 6.2).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A session with keys for both directions. The keys are kept as bytes that are wiped; what the cipher makes of
/// them lives for a batch ([`Sealing`], [`Opening`]).
pub struct Session {
    index: SessionIndex,
    /// By which the peer knows it.
    theirs: u32,
    send: Secret<[u8; 32]>,
    receive: Secret<[u8; 32]>,
    /// Messages sealed so far: the next counter.
    sealed: AtomicU64,
    /// The peer has shown that it holds the keys.
    confirmed: AtomicBool,
    window: Mutex<Window>,
}

/// Seals messages of one batch. Several may work at once: each message has its own counter.
pub struct Sealing {
    session: Arc<Session>,
    key: Key,
}

/// Opens messages of one batch.
pub struct Opening<'a> {
    session: &'a Session,
    key: Key,
    window: MutexGuard<'a, Window>,
}

/// What a data message held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    Keepalive,
    /// A whole IP packet of this length, at the start of the buffer; padding is cut off.
    Packet(usize),
}

impl Session {
    pub(super) fn new(
        index: SessionIndex,
        theirs: u32,
        send: Secret<[u8; 32]>,
        receive: Secret<[u8; 32]>,
        confirmed: bool,
    ) -> Self {
        Self {
            index,
            theirs,
            send,
            receive,
            sealed: AtomicU64::new(0),
            confirmed: AtomicBool::new(confirmed),
            window: Mutex::default(),
        }
    }

    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Messages sent in this session.
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// For a batch of messages to send; refused before the peer has confirmed the session.
    pub fn sealing(self: &Arc<Self>) -> Result<Sealing, Refused> {
        if !self.confirmed.load(Ordering::Acquire) {
            return Err(Refused::Unexpected);
        }
        Ok(Sealing {
            session: Arc::clone(self),
            key: Key::new(&self.send)?,
        })
    }

    /// For a batch of received messages; waits for any other that opens messages of this session.
    pub fn opening(&self) -> Result<Opening<'_>, Refused> {
        Ok(Opening {
            session: self,
            key: Key::new(&self.receive)?,
            window: self.window.lock(),
        })
    }

    /// Whether both were made for one initiator's attempt, from different messages of it: it completes with the newest.
    pub fn answers_same_attempt(&self, other: &Self) -> bool {
        self.theirs == other.theirs
    }

    /// Seals one message; see [`Sealing::seal`].
    pub fn seal(self: &Arc<Self>, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        self.sealing()?.seal(plaintext, out)
    }

    /// Opens one message; see [`Opening::open`].
    pub fn open(&self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, Refused> {
        self.opening()?.open(datagram, out)
    }

    /// Everything another process needs to go on with this session. It seals and opens nothing here any more, so
    /// that no counter is used twice.
    pub fn export(&self) -> SessionState {
        let mut window = self.window.lock();
        let sealed = self.sealed.swap(REJECT_AFTER_MESSAGES, Ordering::AcqRel);
        let state = SessionState {
            index: self.index.0,
            theirs: self.theirs,
            sealed,
            confirmed: self.confirmed.load(Ordering::Acquire),
            send: self.send.clone(),
            receive: self.receive.clone(),
            window: window.clone(),
        };
        window.close();
        state
    }

    /// Goes on with an exported session.
    pub fn import(state: SessionState) -> Self {
        Self {
            index: SessionIndex(state.index),
            theirs: state.theirs,
            send: state.send,
            receive: state.receive,
            sealed: AtomicU64::new(state.sealed),
            confirmed: AtomicBool::new(state.confirmed),
            window: Mutex::new(state.window),
        }
    }

    /// The next counter, never the same twice.
    fn count(&self) -> Result<u64, Refused> {
        // Looked at first: a session that is used up counts no further, so the counter cannot come round.
        if self.sealed.load(Ordering::Relaxed) >= REJECT_AFTER_MESSAGES {
            return Err(Refused::Exhausted);
        }
        let counter = self.sealed.fetch_add(1, Ordering::Relaxed);
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Refused::Exhausted);
        }
        Ok(counter)
    }
}

impl Sealing {
    /// Messages sent in the session so far.
    pub fn sealed(&self) -> u64 {
        self.session.sealed()
    }

    /// Seals one packet, already padded, or a keepalive (empty) into the start of `out`, which needs
    /// [`DATA_OVERHEAD_BYTES`] more. Returns the message's length.
    pub fn seal(&self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        let room = out.len();
        let end = DATA_HEADER_BYTES.saturating_add(plaintext.len());
        let place = out
            .get_mut(DATA_HEADER_BYTES..end)
            .ok_or(Refused::Buffer(room))?;
        place.copy_from_slice(plaintext);
        self.seal_in_place(plaintext.len(), out)
    }

    /// Seals the packet of `length` bytes that stands 16 bytes (the header) into `message`, where it stands.
    pub fn seal_in_place(&self, length: usize, message: &mut [u8]) -> Result<usize, Refused> {
        let room = message.len();
        let whole = length.saturating_add(DATA_OVERHEAD_BYTES);
        let message = message.get_mut(..whole).ok_or(Refused::Buffer(room))?;
        let (header, rest) = message.split_at_mut(DATA_HEADER_BYTES);
        let (text, place) = rest.split_at_mut(length);
        let counter = self.session.count()?;
        header.copy_from_slice(&data_header(self.session.theirs, counter));
        let tag = self
            .key
            .0
            .seal_in_place_separate_tag(nonce_of(counter), Aad::empty(), text)
            .map_err(|_| Refused::Unexpected)?;
        place.copy_from_slice(tag.as_ref());
        Ok(whole)
    }
}

impl Opening<'_> {
    /// Opens one data message into the start of `out`, which must be as long as the message without its header.
    pub fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, Refused> {
        if Message::parse(datagram)? != Message::Data(self.session.index) {
            return Err(Refused::Unexpected);
        }
        let counter = counter(datagram).ok_or(Refused::Malformed)?;
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Refused::Exhausted);
        }
        self.window.check(counter)?;
        let sealed = datagram.get(DATA_HEADER_BYTES..).unwrap_or_default();
        let room = out.len();
        let text = out.get_mut(..sealed.len()).ok_or(Refused::Buffer(room))?;
        text.copy_from_slice(sealed);
        let plain = self
            .key
            .0
            .open_in_place(nonce_of(counter), Aad::empty(), text)
            .map_err(|_| Refused::NotAuthentic)?;
        self.window.take(counter)?;
        self.session.confirmed.store(true, Ordering::Release);
        if plain.is_empty() {
            return Ok(Opened::Keepalive);
        }
        packet_length(plain)
            .map(Opened::Packet)
            .ok_or(Refused::NotIp)
    }
}

/// The cipher's form of a key. It has no destructor of its own, so it is overwritten by one of zeros.
struct Key(LessSafeKey);

impl Key {
    fn new(bytes: &Secret<[u8; 32]>) -> Result<Self, Refused> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes.expose());
        key.map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| Refused::Unexpected)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Ok(zeros) = UnboundKey::new(&CHACHA20_POLY1305, &[0; 32]) {
            self.0 = LessSafeKey::new(zeros);
            // Without a reader the store would be left out.
            black_box(&self.0);
        }
    }
}

/// Message counter of a data message: little endian, bytes 8 to 15.
fn counter(datagram: &[u8]) -> Option<u64> {
    let (low, high) = (word(datagram, 8)?, word(datagram, 12)?);
    Some(u64::from(low) | u64::from(high) << 32)
}

/// Length of the IP packet at the start of `plain`, if it is all there.
fn packet_length(plain: &[u8]) -> Option<usize> {
    let field = |at: usize| {
        let bytes = plain.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let length = match plain.first()? >> 4 {
        4 => field(2).filter(|length| *length >= 20)?,
        6 => field(4)?.checked_add(40)?,
        _ => return None,
    };
    (length <= plain.len()).then_some(length)
}

const _: () = assert!(TAG_BYTES == 16);
